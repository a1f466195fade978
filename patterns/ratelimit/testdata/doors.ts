/**
 * Apps behind the doors of limits, of every framework, and a limiter that says what a case wants it to say.
 * Invariant: a case says nothing of a framework, so that each case holds for all of them.
 */
import { channel } from 'node:diagnostics_channel'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import express5, { type NextFunction, type Request, type Response } from 'express'
import Koa, { type Context } from 'koa'
import { parseList } from 'structured-headers'
import { onTestFinished } from 'vitest'
import { send, type Received } from '../../../test/http/client.ts'
import * as onExpress from '../express.ts'
import type { RateLimitEvent } from '../events.ts'
import type { LimitDoorOptions } from '../http.ts'
import * as onKoa from '../koa.ts'
import type { Acquired, Policy, PolicyState, RateLimit, Receipt, Settlement } from '../types.ts'

/** Has no types under this name; what is used of it did not change. */
const express4 = createRequire(import.meta.url)('express4') as typeof express5

export interface Io {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  /** The framework's own way: `res.send` or `ctx.body`. */
  answer(status: number, body: string): void
}
export interface Setup {
  readonly doors: readonly (readonly [RateLimit, LimitDoorOptions<IncomingMessage>])[]
  readonly handler?: ((io: Io) => unknown) | undefined
  readonly before?: ((req: IncomingMessage, res: ServerResponse) => unknown) | undefined
  /** Sees what the error handler of the app sees. */
  readonly onError?: ((error: unknown) => void) | undefined
}

const optionsOf = <C>(options: LimitDoorOptions<IncomingMessage>, reqOf: (context: C) => IncomingMessage): LimitDoorOptions<C> => {
  const { key, cost, skip, refundOn, partitionKey, abnormal, problem, ...rest } = options
  return {
    ...rest,
    key: key && ((context) => key(reqOf(context))),
    cost: typeof cost === 'function' ? (context) => cost(reqOf(context)) : cost,
    skip: skip && ((context) => skip(reqOf(context))),
    refundOn: typeof refundOn === 'function' ? (end, context) => refundOn(end, reqOf(context)) : refundOn,
    partitionKey: partitionKey && ((given, context) => partitionKey(given, reqOf(context))),
    abnormal: abnormal && ((decision, context) => abnormal(decision, reqOf(context))),
    problem: problem && ((what, context) => problem(what, reqOf(context))),
  }
}

export const usual = ({ answer }: Io): void => answer(200, 'fine')

function expressApp(express: typeof express5, { doors, handler = usual, before, onError }: Setup): RequestListener {
  const app = express().set('env', 'test')
  app.use((req, res, next) => {
    before?.(req, res)
    next()
  })
  for (const [limit, options] of doors)
    app.use(
      onExpress.rateLimited(
        limit,
        optionsOf<Request>(options, (req) => req),
      ),
    )
  app.use(async (req, res, next) => {
    try {
      await handler({ req, res, answer: (status, body) => void res.status(status).send(body) })
    } catch (error) {
      next(error) // Express 4 does not look at promises
    }
  })
  app.use((error: { code?: string; message: string }, _req: Request, res: Response, next: NextFunction) => {
    onError?.(error)
    if (res.headersSent) return next(error)
    res.status(500).send(error.code ?? error.message)
  })
  return app as unknown as RequestListener
}

function koaApp({ doors, handler = usual, before, onError }: Setup): RequestListener {
  const app = new Koa()
  app.silent = true
  app.use(async (ctx, next) => {
    before?.(ctx.req, ctx.res)
    try {
      await next()
    } catch (error) {
      onError?.(error)
      const { code, message } = error as { code?: string; message: string }
      // As Koa itself answers an error, and with its code.
      throw Object.assign(new Error(code ?? message), { status: 500, expose: true })
    }
  })
  for (const [limit, options] of doors)
    app.use(
      onKoa.rateLimited(
        limit,
        optionsOf<Context>(options, (ctx) => ctx.req),
      ),
    )
  app.use(async (ctx) => {
    await handler({
      req: ctx.req,
      res: ctx.res,
      answer: (status, body) => {
        ctx.status = status
        ctx.body = body
      },
    })
  })
  return app.callback() as RequestListener
}

export interface Scripted extends RateLimit {
  readonly asked: [key: string, cost: number][]
  readonly settled: [receipt: Receipt | undefined, cost: number][]
  released: number
}

export const policy: Policy = { kind: 'gcra', limit: 10, unit: 'requests', windowMs: 10_000, refill: 10, perMs: 10_000 }
export const state: PolicyState = { limit: 10, remaining: 9, resetMs: 1_000, windowMs: 10_000, unit: 'requests', violated: false }
export const receipt: Receipt = { key: 'k', cost: 1, life: 1, marks: [] }
export const allowed: Acquired = { outcome: 'allowed', allowed: true, policies: { burst: state }, violated: [], receipt }
export const denied: Acquired = {
  outcome: 'denied',
  allowed: false,
  policies: { burst: { ...state, remaining: 0, violated: true } },
  violated: ['burst'],
  retryAfterMs: 1_500,
}
export const unknown = (isAllowed: boolean): Acquired => ({
  outcome: 'unknown',
  allowed: isAllowed,
  policies: { burst: { ...state, remaining: 0 } },
  violated: [],
  reason: 'deadline',
})

export function scripted(decide: (key: string) => Acquired | Promise<Acquired> = () => allowed, more: Partial<RateLimit> = {}): Scripted {
  const asked: Scripted['asked'] = []
  const settled: Scripted['settled'] = []
  const ask = async (key: string, { cost = 1 } = {}): Promise<Acquired> => {
    asked.push([key, cost])
    const decision = await decide(key)
    if (!limit.hasSlots || !decision.allowed) return decision
    const release = async (): Promise<Settlement> => {
      limit.released++
      return await Promise.resolve({ outcome: 'applied' })
    }
    return {
      ...decision,
      slot: { signal: new AbortController().signal, release, [Symbol.asyncDispose]: async () => void (await release()) },
    }
  }
  const unused = (): never => {
    throw new Error('not for doors')
  }
  const limit: Scripted = {
    name: 'api',
    onUnknown: 'deny',
    policies: { burst: policy },
    hasSlots: false,
    consume: ask,
    acquire: async (key, options) => (limit.hasSlots ? await ask(key, options) : unused()),
    settle: async (given, cost) => {
      settled.push([given, cost])
      return await Promise.resolve({ outcome: 'applied' })
    },
    refund: unused,
    peek: unused,
    reserve: unused,
    reset: unused,
    asked,
    settled,
    released: 0,
    ...more,
  }
  return limit
}

export const key = (req: IncomingMessage): string => String(req.headers['x-user'] ?? 'ada')
export const get = async (url: string, headers: Record<string, string> = {}): Promise<Received> =>
  await send(url, { method: 'GET', path: '/', headers })
export const namesIn = (header: unknown): unknown[] => parseList(String(header)).map(([name]) => name)

export function events(): RateLimitEvent[] {
  const told: RateLimitEvent[] = []
  const listen = (event: unknown): unknown => told.push(event as RateLimitEvent)
  channel('hapax:ratelimit').subscribe(listen)
  onTestFinished(() => void channel('hapax:ratelimit').unsubscribe(listen))
  return told
}

export const frameworks: readonly [name: string, make: (setup: Setup) => RequestListener][] = [
  ['Express 5', (setup) => expressApp(express5, setup)],
  ['Express 4', (setup) => expressApp(express4, setup)],
  ['Koa', koaApp],
]
