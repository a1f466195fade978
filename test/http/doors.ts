/**
 * Apps behind a door, of every framework and both forms, from one description.
 * Invariant: a case says nothing of a framework, so that each case holds for all of them.
 * Why both forms of the Express door: they know different things of a handler's end.
 */
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import express5, { type NextFunction, type Request, type Response } from 'express'
import Koa, { type Context } from 'koa'
import type { KV } from '../../core/kv/kv.ts'
import { memory } from '../../core/stores/memory.ts'
import { testClock } from '../../core/testing/clock.ts'
import { counting } from '../../core/testing/intercept.ts'
import * as expressDoor from '../../patterns/idempotency/express.ts'
import * as koaDoor from '../../patterns/idempotency/koa.ts'
import type { DoorOptions } from '../../patterns/idempotency/express.ts'
import { idempotency } from '../../patterns/idempotency/idempotency.ts'
import type { Idempotency, IdempotencyOptions, Once } from '../../patterns/idempotency/types.ts'

/** What a case's handler sees of a request. */
export interface Io {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly once: Once
  readonly body: unknown
  /** The framework's own way: `res.json` or `ctx.body`. */
  answer(status: number, body: unknown, headers?: Record<string, string>): void
}
export type Handler = (io: Io) => unknown

export interface Setup {
  readonly payments: Idempotency
  readonly handler: Handler
  /** Functions get Node's request, whatever the framework. */
  readonly options?: Partial<DoorOptions<IncomingMessage>> | undefined
  /** Runs before the door, as node's middleware does. May answer by throwing an Error with a status. */
  readonly before?: ((req: IncomingMessage, res: ServerResponse) => void) | undefined
  /** Parse JSON bodies. Default: true. */
  readonly parse?: boolean | undefined
  /** A second door on the same route. */
  readonly twice?: boolean | undefined
}

export interface Framework {
  readonly name: string
  make(setup: Setup): RequestListener
}

const scopeOf = (req: IncomingMessage): string => String(req.headers['x-tenant'] ?? 'tenant-1')

type ExpressOptions = DoorOptions<Request>
const optionsOf = <C>({ options = {} }: Setup, reqOf: (context: C) => IncomingMessage): DoorOptions<C> => {
  const { scope = scopeOf, operation, fingerprint, problem, ...rest } = options
  return {
    ...rest,
    scope: (context) => scope(reqOf(context)),
    ...(operation === undefined ? {} : { operation: typeof operation === 'function' ? (context) => operation(reqOf(context)) : operation }),
    ...(fingerprint === undefined ? {} : { fingerprint: (context) => fingerprint(reqOf(context)) }),
    ...(problem === undefined ? {} : { problem: (what, context) => problem(what, reqOf(context)) }),
  }
}

/** Has no types under this name; what is used of it did not change. */
export const express4 = createRequire(import.meta.url)('express4') as typeof express5

function expressApp(express: typeof express5, form: 'middleware' | 'handler', setup: Setup): RequestListener {
  const { payments, handler, before, parse = true, twice } = setup
  const app = express().set('env', 'test') // no stacks on the console
  const options: ExpressOptions = optionsOf<Request>(setup, (req) => req)
  const run = (req: Request, res: Response, once: Once): unknown =>
    handler({
      req,
      res,
      once,
      body: req.body as unknown,
      answer: (status, body, headers = {}) => void res.status(status).set(headers).send(body),
    })
  if (before) {
    app.use((req, res, next) => {
      before(req, res)
      next()
    })
  }
  if (parse) app.use(express.json())
  if (twice) app.use(expressDoor.idempotent(payments, options))
  if (form === 'handler') app.all(/.*/, expressDoor.idempotent(payments, options, run))
  else {
    app.all(/.*/, expressDoor.idempotent(payments, options), async (req, res, next) => {
      try {
        await run(req, res, expressDoor.onceOf(req))
      } catch (error) {
        next(error) // Express 4 does not look at promises
      }
    })
  }
  app.use((error: { status?: number; code?: string; message: string }, _req: Request, res: Response, next: NextFunction) => {
    if (res.headersSent) return next(error)
    res.status(error.status ?? 500).json({ error: error.code ?? error.message })
  })
  return app as unknown as RequestListener
}

/** What a body parser does, for Koa has none of its own. */
export async function koaJson(ctx: Context, next: () => Promise<unknown>): Promise<void> {
  if (ctx.request.is('json')) {
    const chunks: Uint8Array[] = []
    for await (const chunk of ctx.req) chunks.push(chunk as Uint8Array)
    Object.assign(ctx.request, { body: JSON.parse(Buffer.concat(chunks).toString()) as unknown })
  }
  await next()
}

function koaApp(setup: Setup): RequestListener {
  const { payments, handler, before, parse = true, twice } = setup
  const app = new Koa()
  app.silent = true
  const options = optionsOf<Context>(setup, (ctx) => ctx.req)
  app.use(async (ctx, next) => {
    try {
      before?.(ctx.req, ctx.res)
      await next()
    } catch (error) {
      const { status = 500, code, message } = error as { status?: number; code?: string; message: string }
      ctx.status = status
      ctx.body = { error: code ?? message }
    }
  })
  if (parse) app.use(async (ctx, next) => await koaJson(ctx as unknown as Context, next))
  if (twice) app.use(koaDoor.idempotent(payments, options))
  app.use(koaDoor.idempotent(payments, options))
  app.use(async (ctx) => {
    await handler({
      req: ctx.req,
      res: ctx.res,
      once: koaDoor.onceOf(ctx),
      body: (ctx.request as { body?: unknown }).body,
      answer: (status, body, headers = {}) => {
        ctx.status = status
        ctx.set(headers)
        ctx.body = body
      },
    })
  })
  return app.callback() as RequestListener
}

export const frameworks: readonly Framework[] = [
  { name: 'Express 5', make: (setup) => expressApp(express5, 'middleware', setup) },
  { name: 'Express 5, handler form', make: (setup) => expressApp(express5, 'handler', setup) },
  { name: 'Express 4', make: (setup) => expressApp(express4, 'middleware', setup) },
  { name: 'Express 4, handler form', make: (setup) => expressApp(express4, 'handler', setup) },
  { name: 'Koa', make: (setup) => koaApp(setup) },
]

export interface Shop {
  readonly clock: ReturnType<typeof testClock>
  readonly store: ReturnType<typeof counting<Uint8Array>>
  /** A process on the common store; `timers` of its own make one that dies: they stand still. */
  payments(options?: Partial<IdempotencyOptions>): Idempotency
}

export function shop(wrap: (kv: KV, clock: Shop['clock']) => KV = (kv) => kv): Shop {
  const clock = testClock()
  const store = counting(memory({ clock }))
  const kv = wrap(store, clock)
  return { clock, store, payments: (options = {}) => idempotency({ kv, name: 'payments', timers: clock, random: () => 0.5, ...options }) }
}
