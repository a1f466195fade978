/**
 * Puts a reply of a door into a Koa context.
 * Why the status twice: before the body it keeps Koa from saying 200; after it, it takes the body away where a status allows none (koa: lib/response.js).
 */
import type { Context } from 'koa'
import { joinedVary } from './exchange.ts'
import type { Reply } from './problem.ts'

export function show(ctx: Context, { status, headers, body }: Reply): void {
  ctx.status = status
  ctx.body = Buffer.from(body)
  ctx.status = status
  ctx.remove('Content-Type')
  for (const [name, value] of headers) {
    if (name.toLowerCase() === 'vary') ctx.set(name, joinedVary(ctx.response.get(name), value))
    else ctx.set(name, typeof value === 'string' ? value : [...value])
  }
}
