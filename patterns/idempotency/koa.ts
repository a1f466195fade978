/**
 * 'hapax/idempotency/koa': the door for Koa 2.15 and 3.
 * Invariant: `ctx.body` is stored before Koa sends it; what is written past the context is held back like in Express.
 * Why at the context: outer middleware (a compressor, a logger) then sees replays as it sees first answers.
 */
import { PassThrough, Readable } from 'node:stream'
import type { Context, Middleware } from 'koa'
import { Capture, headersOf, mayHaveBody, type Verdict } from '../../core/http/capture.ts'
import { show } from '../../core/http/koa.ts'
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

    let isFailed = false
    const isGone = (): boolean => !ctx.req.socket.writable
    const capture = new Capture(ctx.res, {
      bytesMax: run.answerBytesMax,
      // To a client that has left Koa sends nothing, whatever the context says.
      onAnswer: (answer) => run.answered(isFailed && isGone() ? { ...wholeOf(ctx), headers: headersOf(ctx.res) } : answer),
      onStream: (head, reason) => run.streamed(head, reason),
      onGone: () => run.abandon(),
    })
    const { onerror } = ctx
    ctx.onerror = (error) => {
      // Here ends what nobody has caught; a broken connection comes here too, and says nothing about the handler.
      if (isFailed && isGone() && !capture.isBegun && error !== ctx.req.socket.errored) void run.answered(errorOf(ctx, error))
      onerror.call(ctx, error)
    }
    try {
      await next()
      if (ctx.respond === false || capture.isBegun) return
      const verdict = await answer(ctx, run)
      capture.open()
      if (verdict.replaceBy) {
        capture.restoreHeaders()
        return show(ctx, verdict.replaceBy)
      }
      if (verdict.headers) ctx.set(verdict.headers)
    } catch (error) {
      // Who renders it, and how, is decided further out; it is held back and stored on its way to the socket.
      isFailed = true
      throw error
    }
  }
}

/** What the door gives the handler of this request: steps, fence, signal. Not protected (no key): `fence` is 0. */
export const onceOf = (ctx: { readonly req: Context['req'] }): Once => onceOfRequest(ctx.req)

/** Stores what Koa is about to send (koa: lib/application.js, respond). */
async function answer(ctx: Context, run: ProtectedRun): Promise<Verdict> {
  const head = () => ({ status: ctx.status, headers: headersOf(ctx.res) })
  if (/^text\/event-stream\b/i.test(ctx.response.get('content-type'))) return await run.streamed(head(), 'streamed')
  const source = streamOf(ctx.body)
  if (source === undefined) {
    if (ctx.body === undefined) {
      const { status, body } = wholeOf(ctx)
      if (mayHaveBody(status)) ctx.body = Buffer.from(body).toString()
      ctx.status = status
    }
    return await run.answered({ ...head(), body: bytesOf(ctx.body) })
  }

  const chunks: Uint8Array[] = []
  let bytes = 0
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
      else setBody(ctx, Readable.from(rejoined(chunks, source), { objectMode: false }))
      return verdict
    }
  } catch (error) {
    // Koa ends the stream of a client that has left. The handler has answered, so it must not run again.
    if (ctx.res.destroyed) return await run.streamed(head(), 'streamed')
    throw error
  }
  const body = Buffer.concat(chunks)
  const verdict = await run.answered({ ...head(), body })
  if (!verdict.replaceBy) setBody(ctx, body)
  return verdict
}

/** What the context says, where it is no stream; in Koa's own words where nobody answered. */
function wholeOf(ctx: Context): Pick<Reply, 'status' | 'body'> {
  const { status } = ctx
  if (!mayHaveBody(status)) return { status, body: Buffer.alloc(0) }
  return { status, body: ctx.body === undefined ? Buffer.from(ctx.message || String(status)) : bytesOf(ctx.body) }
}

/** What Koa says of an error (koa: lib/context.js, onerror). */
function errorOf(ctx: Context, error: unknown): Reply {
  const { status, statusCode, expose, message } = error as { status?: unknown; statusCode?: unknown; expose?: unknown; message?: unknown }
  const said = status || statusCode
  ctx.status = typeof said === 'number' && Number.isInteger(said) && said >= 100 && said <= 999 ? said : 500
  if (!ctx.message) ctx.status = 500
  const text = expose === true ? String(message) : ctx.message
  return { status: ctx.status, headers: [['content-type', 'text/plain; charset=utf-8']], body: Buffer.from(text) }
}

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

function streamOf(body: unknown): AsyncIterator<unknown> | undefined {
  if (typeof body !== 'object' || body === null) return undefined
  const web = body instanceof Blob ? body.stream() : body instanceof Response ? (body.body ?? Readable.from([])) : body
  if (web !== body || body instanceof Readable || body instanceof ReadableStream)
    return (web as AsyncIterable<unknown>)[Symbol.asyncIterator]()
  // Streams of other makes.
  if (!('pipe' in body) || typeof body.pipe !== 'function') return undefined
  const passed = new PassThrough()
  ;(body as NodeJS.ReadableStream).on('error', (error) => passed.destroy(error)).pipe(passed)
  return passed[Symbol.asyncIterator]()
}

/** The bytes of what is no stream. */
function bytesOf(body: unknown): Uint8Array {
  if (body === undefined || body === null) return new Uint8Array(0)
  if (body instanceof Uint8Array) return body
  return Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
}
