/**
 * What the compiler knows at the doors: nothing here needs an annotation. The type check is the test; at run time the functions are only made.
 */
import express, { type Request, type RequestHandler } from 'express'
import Router from '@koa/router'
import Koa, { type Context } from 'koa'
import { expectTypeOf, test } from 'vitest'
import * as onExpress from './express.ts'
import * as onKoa from './koa.ts'
import { scripted } from './testdata/doors.ts'
import type { Decision, RateLimit } from './types.ts'

const api = scripted() as unknown as RateLimit<'burst' | 'daily'>

test('Express: keys, costs, ends and renderers know their arguments', () => {
  const app = express()
  app.use(onExpress.rateLimited(api, { key: onExpress.clientKey({ trustProxy: 1 }) }))
  app.post(
    '/a/:id',
    onExpress.rateLimited(api, {
      key: async (req) => {
        expectTypeOf(req).toEqualTypeOf<Request>()
        return await Promise.resolve(req.ip ?? '')
      },
      cost: (req) => Number(req.headers['content-length']),
      skip: (req) => req.path === '/health',
      refundOn: ({ type, status }, req) => {
        expectTypeOf(type).toEqualTypeOf<'finished' | 'closed'>()
        return status < 400 ? 0 : req.body === undefined ? undefined : 2
      },
      partitionKey: (key, req) => `${req.method} ${key}`,
      abnormal: ({ retryAfterMs = 0 }, req) => retryAfterMs > 1_000 && req.secure,
      problem: ({ kind, violated, retryAfterMs }, req) => {
        expectTypeOf(kind).toEqualTypeOf<onExpress.LimitProblemKind>()
        return { status: 429, body: { kind, violated, retryAfterMs, path: req.path } }
      },
    }),
    (req, res) => {
      const decision = onExpress.decisionOf(req, api)
      expectTypeOf(decision).toEqualTypeOf<Decision<'burst' | 'daily'> | undefined>()
      res.json(decision?.policies.daily.remaining)
    },
  )
  express.Router().use(onExpress.rateLimited(api, { key: () => 'all', refundOn: 'success', spec: ['draft-11', 'x-ratelimit'] }))
  expectTypeOf(onExpress.rateLimited(api, { key: () => 'all' })).toEqualTypeOf<RequestHandler>()
  // @ts-expect-error: who asks must be said
  const withoutKey = (): unknown => onExpress.rateLimited(api, {})
  // @ts-expect-error: a misspelt option is one
  const misspelt = (): unknown => onExpress.rateLimited(api, { key: () => 'all', costs: 2 })
  // @ts-expect-error: a key is text
  const numeric = (): unknown => onExpress.rateLimited(api, { key: () => 7 })
  // @ts-expect-error: to trust every proxy is no setting
  const trusting = (): unknown => onExpress.clientKey({ trustProxy: true })
  expectTypeOf([withoutKey, misspelt, numeric, trusting]).items.returns.toBeUnknown()
})

test('Koa: keys, costs, ends and renderers know their arguments', () => {
  const app = new Koa()
  const router = new Router()
  app.use(onKoa.rateLimited(api, { key: onKoa.clientKey({ trustProxy: ['10.0.0.0/8'] }) }))
  app.use(async (ctx, next) => {
    expectTypeOf(onKoa.decisionOf(ctx, api)?.policies.burst.remaining).toEqualTypeOf<number | undefined>()
    await next()
  })
  const door = onKoa.rateLimited(api, {
    key: (ctx) => {
      expectTypeOf(ctx).toEqualTypeOf<Context>()
      return String(ctx.state.user)
    },
    cost: (ctx) => ctx.request.length ?? 1,
    refundOn: ({ status, error }, ctx) => (error === undefined && status < 400 && ctx.method === 'POST' ? 0 : undefined),
    problem: ({ detail }, ctx) => ({ status: 429, body: `${ctx.path}: ${detail}`, headers: { 'X-Own': 'yes' } }),
  })
  router.post('/a', door, (ctx) => {
    ctx.body = 'fine'
  })
  // @ts-expect-error: who asks must be said
  const withoutKey = (): unknown => onKoa.rateLimited(api, {})
  expectTypeOf(withoutKey).returns.toBeUnknown()
})
