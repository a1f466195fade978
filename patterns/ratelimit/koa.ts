/**
 * 'hapax/ratelimit/koa': the door for Koa 2.15 and 3.
 * Invariant: the handler runs only after every limit before it has let the request pass; an error's answer carries the headers of the limits, too.
 */
import type { Context, Middleware } from 'koa'
import { show } from '../../core/http/koa.ts'
import { decisionOfRequest, LimitDoor, limitHeadersOf, type LimitDoorOptions } from './http.ts'
import type { Decision, RateLimit } from './types.ts'

export { clientKey, type ClientKeyOptions } from '../../core/http/client-key.ts'
export type { Rendered } from '../../core/http/problem.ts'
export type { HeaderSpec, LimitProblemKind } from './headers.ts'
export type { LimitDoorOptions, LimitProblem, RequestEnd } from './http.ts'

/**
 * Middleware that counts each request once and answers those that are too many: 429, or 503 while the limiter does not know and denies.
 * Behind authentication the key may be a user; before it, `clientKey()`.
 * @throws KvError LIMIT_KEY_MISSING, COST_TOO_LARGE or INVALID_ARGUMENT for wrong options. From the middleware come LIMIT_KEY_MISSING and what
 * the limiter throws.
 * @example app.use(rateLimited(api, { key: clientKey({ trustProxy: 1 }) }))
 */
export function rateLimited<Name extends string>(limit: RateLimit<Name>, options: LimitDoorOptions<Context>): Middleware {
  const door = new LimitDoor(limit, options)
  return async (given, next) => {
    const ctx = given as unknown as Context
    const entry = await door.enter(ctx, ctx.req, ctx.res)
    if (entry.type === 'reply') return show(ctx, entry.reply)
    keepHeaders(ctx)
    try {
      await next()
    } catch (error) {
      entry.failed(error)
      throw error
    }
  }
}

/** What the limiter decided about this request; undefined: it was not asked. */
export const decisionOf = <Name extends string>(
  ctx: { readonly req: Context['req'] },
  limit: RateLimit<Name>,
): Decision<Name> | undefined => decisionOfRequest(ctx.req, limit)

/** Koa takes all headers away before it answers an error, except those of the error itself (koa: lib/context.js, onerror). */
function keepHeaders(ctx: Context): void {
  const { onerror } = ctx
  ctx.onerror = (error) => {
    if (error instanceof Error && !ctx.headerSent && Object.isExtensible(error)) {
      const own = error as Error & { headers?: Record<string, string> }
      own.headers = { ...limitHeadersOf(ctx.req, ctx.res), ...own.headers }
    }
    onerror.call(ctx, error)
  }
}
