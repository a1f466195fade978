/**
 * What the compiler knows at the doors: nothing here needs an annotation. The type check is the test; at run time the functions are only made.
 */
import express, { type Request, type RequestHandler, type Response } from 'express'
import Router from '@koa/router'
import Koa, { type Context } from 'koa'
import { expectTypeOf, test } from 'vitest'
import { memory } from '../../core/stores/memory.ts'
import * as onExpress from './express.ts'
import { idempotency } from './idempotency.ts'
import * as onKoa from './koa.ts'
import type { Once } from './types.ts'

const payments = idempotency({ kv: memory(), name: 'payments' })

test('Express: scope, handlers and renderers know their arguments', () => {
  const app = express()
  const scope = (req: Request): string => String(req.headers['x-tenant'])
  app.post('/a', express.json(), onExpress.idempotent(payments, { scope: (req) => String(req.get('x-tenant')) }), (req, res) => {
    expectTypeOf(onExpress.onceOf(req)).toEqualTypeOf<Once>()
    res.sendStatus(201)
  })
  app.post(
    '/b/:id',
    onExpress.idempotent(
      payments,
      {
        scope: async (req) => {
          expectTypeOf(req).toEqualTypeOf<Request>()
          return await Promise.resolve(req.ip ?? '')
        },
        operation: (req) => req.path,
        fingerprint: (req) => req.body as unknown,
        problem: ({ kind, detail, retryAfterMs }, req) => {
          expectTypeOf(kind).toEqualTypeOf<onExpress.ProblemKind>()
          return { status: 400, body: { kind, detail, retryAfterMs, path: req.path } }
        },
      },
      async (req, res, once) => {
        expectTypeOf(req).toEqualTypeOf<Request>()
        expectTypeOf(res).toEqualTypeOf<Response>()
        expectTypeOf(once).toEqualTypeOf<Once>()
        const charge = await once.step('charge', ({ key, signal }) => ({ id: key, isLate: signal.aborted }))
        expectTypeOf(charge).toEqualTypeOf<{ id: string; isLate: boolean }>()
        res.json(charge)
      },
    ),
  )
  express.Router().use(onExpress.idempotent(payments, { scope }))
  expectTypeOf(onExpress.idempotent(payments, { scope })).toEqualTypeOf<RequestHandler>()
  // @ts-expect-error: who asks must be said
  const withoutScope = (): unknown => onExpress.idempotent(payments, {})
  // @ts-expect-error: a misspelt option is one
  const misspelt = (): unknown => onExpress.idempotent(payments, { scope, requird: true })
  // @ts-expect-error: a scope is text
  const numeric = (): unknown => onExpress.idempotent(payments, { scope: () => 7 })
  expectTypeOf([withoutScope, misspelt, numeric]).items.returns.toBeUnknown()
})

test('Koa: scope, handlers and renderers know their arguments', () => {
  const app = new Koa()
  const router = new Router()
  app.use(onKoa.idempotent(payments, { scope: (ctx) => ctx.get('x-tenant') }))
  app.use(async (ctx) => {
    expectTypeOf(onKoa.onceOf(ctx)).toEqualTypeOf<Once>()
    ctx.body = await onKoa.onceOf(ctx).step('charge', ({ key }) => key)
  })
  const door = onKoa.idempotent(payments, {
    scope: (ctx) => {
      expectTypeOf(ctx).toEqualTypeOf<Context>()
      return String(ctx.state.user)
    },
    operation: (ctx) => ctx.path,
    problem: ({ detail }, ctx) => ({ status: 400, body: `${ctx.path}: ${detail}`, headers: { 'X-Own': 'yes' } }),
  })
  router.post('/a', door, async (ctx) => {
    ctx.status = 201
    ctx.body = await onKoa.onceOf(ctx).step('charge', () => 1)
  })
  app.use(router.routes())
  // @ts-expect-error: who asks must be said
  const withoutScope = (): unknown => onKoa.idempotent(payments, { required: true })
  expectTypeOf(withoutScope).returns.toBeUnknown()
})
