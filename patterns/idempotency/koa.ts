/**
 * 'hapax/idempotency/koa': the door for Koa 2.15 and 3.
 * Invariant: `ctx.body` is stored before Koa sends it; what is written past the context is held back like in Express.
 * Why at the context: outer middleware (a compressor, a logger) then sees replays as it sees first answers.
 */
import { PassThrough, Readable } from 'node:stream'
import type { Context, Middleware } from 'koa'
import { Capture, headersOf, type Verdict } from '../../core/http/capture.ts'
import type { Reply } from '../../core/http/problem.ts'
import { Door, onceOfRequest, type DoorOptions, type ProtectedRun } from './http.ts'
import type { Idempotency, Once } from './types.ts'

export type { DoorOptions, IdempotencyProblem, ProblemKind } from './http.ts'
export type { Rendered } from '../../core/http/problem.ts'

/**
 * Middleware that answers repetitions of a request and lets the first one through. Put it after authentication and the body parser.
 * @throws KvError SCOPE_MISSING or INVALID_ARGUMENT for wrong options. From the middleware come APPLIED_TWICE, BODY_UNPARSED, SCOPE_MISSING,
 * and faults of the store.
 * @example router.post('/payments', idempotent(payments, { scope: (ctx) => ctx.state.user.id }), charge)
 */
export function idempotent(idempotency: Idempotency, options: DoorOptions<Context>): Middleware {
  const door = new Door(idempotency, options)
  return async (given, next) => {
    const ctx = given as unknown as Context
    const { body, file, files } = ctx.request as { body?: unknown; file?: unknown; files?: unknown }
    const target = ctx.originalUrl
    const entry = await door.enter({ context: ctx, req: ctx.req, target, body, files: files ?? file }, ctx.res)
    if (entry.type === 'reply') return show(ctx, entry.reply)
    const { run } = entry
    if (run === undefined) return await next()

    let failure: { readonly error: unknown } | undefined
    const fail = (): void => {
      // After the turn: whoever catches the error may be about to answer.
      if (failure !== undefined) setImmediate(() => void (capture.isEnded || run.failed(failure?.error)))
    }
    const capture = new Capture(ctx.res, {
      bytesMax: run.answerBytesMax,
      onAnswer: (answer) => run.answered(answer),
      onStream: (head, reason) => run.streamed(head, reason),
      onGone: fail,
    })
    try {
      await next()
    } catch (error) {
      // Who renders it, and how, is decided further out; it is held back and stored on its way to the socket.
      failure = { error }
      if (ctx.res.destroyed || !ctx.writable) fail()
      throw error
    }
    if (ctx.respond === false || capture.isBegun) return
    const before = headersOf(ctx.res)
    const verdict = await answer(ctx, run)
    capture.open()
    if (verdict.replaceBy) {
      for (const [name] of before) ctx.remove(name)
      return show(ctx, verdict.replaceBy)
    }
    if (verdict.headers) ctx.set(verdict.headers)
  }
}

/** What the door gives the handler of this request: steps, fence, signal. Not protected (no key): `fence` is 0. */
export const onceOf = (ctx: { readonly req: Context['req'] }): Once => onceOfRequest(ctx.req)

/** Stores what Koa is about to send (koa: lib/application.js, respond). */
async function answer(ctx: Context, run: ProtectedRun): Promise<Verdict> {
  const stream = streamOf(ctx.body)
  const head = () => ({ status: ctx.status, headers: headersOf(ctx.res) })
  if (stream === undefined) {
    if (ctx.body === undefined && !emptyStatuses.has(ctx.status)) {
      const { status } = ctx
      ctx.body = ctx.message || String(status) // what Koa itself says when nobody answered
      ctx.status = status
    }
    return await run.answered({ ...head(), body: bytesOf(ctx.body) })
  }
  if (/^text\/event-stream\b/i.test(String(ctx.response.get('content-type')))) return await run.streamed(head(), 'streamed')

  const chunks: Uint8Array[] = []
  let bytes = 0
  const source = stream[Symbol.asyncIterator]()
  try {
    for (;;) {
      const next = await source.next()
      if (next.done) break
      const chunk = typeof next.value === 'string' ? Buffer.from(next.value) : (next.value as Uint8Array)
      chunks.push(chunk)
      bytes += chunk.length
      if (bytes <= run.answerBytesMax) continue
      const verdict = await run.streamed(head(), 'too-large')
      if (verdict.replaceBy) await source.return?.()
      else setBody(ctx, Readable.from(rejoined(chunks, source)).pipe(new PassThrough()))
      return verdict
    }
  } catch (error) {
    await run.failed(error)
    throw error
  }
  const body = Buffer.concat(chunks)
  const verdict = await run.answered({ ...head(), body })
  if (!verdict.replaceBy) setBody(ctx, body)
  return verdict
}

const emptyStatuses = new Set([204, 205, 304])

async function* rejoined(chunks: Uint8Array[], source: AsyncIterator<unknown>): AsyncGenerator<unknown> {
  yield* chunks.splice(0)
  for (let next = await source.next(); !next.done; next = await source.next()) yield next.value
}

/** Setting a body resets what it cannot know. */
function setBody(ctx: Context, body: Buffer | Readable): void {
  const { status } = ctx
  const type = ctx.response.get('content-type')
  ctx.body = body
  ctx.status = status
  if (type) ctx.set('Content-Type', String(type))
  else ctx.remove('Content-Type')
}

function show(ctx: Context, { status, headers, body }: Reply): void {
  ctx.status = status
  ctx.body = Buffer.from(body)
  ctx.status = status
  ctx.remove('Content-Type')
  for (const [name, value] of headers) ctx.set(name, typeof value === 'string' ? value : [...value])
}

function streamOf(body: unknown): AsyncIterable<unknown> | undefined {
  if (body instanceof Readable) return body
  if (typeof body === 'object' && body !== null && 'pipe' in body && typeof body.pipe === 'function') {
    return (body as NodeJS.ReadableStream).pipe(new PassThrough())
  }
  if (body instanceof Blob) return body.stream()
  if (body instanceof ReadableStream) return body as unknown as AsyncIterable<unknown>
  if (body instanceof Response) return (body.body ?? Readable.from([])) as unknown as AsyncIterable<unknown>
  return undefined
}

/** The bytes of what is no stream. */
function bytesOf(body: unknown): Uint8Array {
  if (body === undefined || body === null) return new Uint8Array(0)
  if (body instanceof Uint8Array) return body
  return Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
}
