/** The HTTP suite over our doors; and over broken ones, which it must find. */
import type { Server } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import Router from '@koa/router'
import express, { type RequestHandler } from 'express'
import Koa from 'koa'
import { describe, expect, test } from 'vitest'
import { idempotencyConformance, type AppUnderTest, type MakeApp, type World } from './conformance.ts'
import { idempotent, onceOf } from './express.ts'
import { idempotency } from './idempotency.ts'
import { idempotent as idempotentKoa, onceOf as onceOfKoa } from './koa.ts'
import type { IdempotencyOptions } from './types.ts'

/** Express 4 under another name, which has no types of its own; what is used here is the same in both. */
const express4 = createRequire(import.meta.url)('express4') as typeof express

async function listening(server: Server): Promise<AppUnderTest> {
  await new Promise((resolve) => server.once('listening', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

const made = ({ kv, timers, lease, afterCrash }: World, more: Partial<IdempotencyOptions> = {}) =>
  idempotency({ kv, name: 'charges', timers, lease, afterCrash, ...more })

/** The app of the suite in either Express. `door` builds the middleware. */
function expressApp(framework: typeof express, door: (world: World) => RequestHandler): MakeApp {
  return (world) => {
    const app = framework()
    const answer = async (req: express.Request, res: express.Response): Promise<void> => {
      world.began()
      const { amount } = req.body as { amount: number }
      if (amount === 0) return void res.status(402).json({ refused: true })
      const charge = await onceOf(req).step('charge', ({ key }) => world.charge(key, amount))
      res.status(201).location(`/charges/${charge}`).cookie('session', 'secret').json({ charge, amount })
    }
    // As Express 4 needs it: it does not wait for a handler's promise.
    const handler: RequestHandler = async (req, res, next) => {
      try {
        await answer(req, res)
      } catch (error) {
        next(error)
      }
    }
    for (const path of ['/charges', '/refunds']) app.post(path, express.json(), door(world), handler)
    return listening(app.listen(0, '127.0.0.1'))
  }
}
const ours = (world: World): RequestHandler => idempotent(made(world), { scope: (req) => req.get('x-principal') ?? '', required: true })

const koaApp: MakeApp = (world) => {
  const app = new Koa()
  const router = new Router()
  app.use(async (ctx, next) => {
    const chunks: Buffer[] = []
    for await (const chunk of ctx.req) chunks.push(chunk as Buffer)
    Object.assign(ctx.request, { body: JSON.parse(Buffer.concat(chunks).toString()) as unknown })
    await next()
  })
  const charges = made(world)
  for (const path of ['/charges', '/refunds']) {
    router.post(path, idempotentKoa(charges, { scope: (ctx) => ctx.get('x-principal'), required: true }), async (ctx) => {
      world.began()
      const { amount } = (ctx.request as unknown as { body: { amount: number } }).body
      if (amount === 0) {
        ctx.status = 402
        ctx.body = { refused: true }
        return
      }
      const charge = await onceOfKoa(ctx).step('charge', ({ key }) => world.charge(key, amount))
      ctx.status = 201
      ctx.set('Location', `/charges/${charge}`)
      ctx.cookies.set('session', 'secret')
      ctx.body = { charge, amount }
    })
  }
  app.use(router.routes())
  return listening(app.listen(0, '127.0.0.1'))
}

describe('Express 5', () => {
  idempotencyConformance(test, expressApp(express, ours))
})
describe('Express 4', () => {
  idempotencyConformance(test, expressApp(express4, ours))
})
describe('Koa', () => {
  idempotencyConformance(test, koaApp)
})

/** Which cases fail for an app. */
async function failures(makeApp: MakeApp, only: RegExp): Promise<string[]> {
  const cases: [string, () => Promise<void>][] = []
  idempotencyConformance((name, run) => cases.push([name, run]), makeApp)
  const failed: string[] = []
  for (const [name, run] of cases.filter(([name]) => only.test(name))) {
    try {
      await run()
    } catch {
      failed.push(name)
    }
  }
  return failed
}

describe('the suite finds', () => {
  test('a door that shares keys between principals', async () => {
    const broken = expressApp(express, (world) => idempotent(made(world), { scope: () => 'public', required: true }))
    expect(await failures(broken, /^(identity|mismatch)/)).toEqual([expect.stringMatching(/^identity/)])
  })
  test('a door that forgets answers which are no success', async () => {
    const broken = expressApp(express, (world) =>
      idempotent(made(world, { final: 'success-only' }), { scope: (req) => req.get('x-principal') ?? '', required: true }),
    )
    expect(await failures(broken, /^replay/)).toEqual([expect.stringMatching(/no success/)])
  })
  test('a door that compares nothing', async () => {
    const broken = expressApp(express, (world) =>
      idempotent(made(world), { scope: (req) => req.get('x-principal') ?? '', required: true, fingerprint: () => null }),
    )
    expect(await failures(broken, /^(mismatch|key)/)).toEqual([expect.stringMatching(/^mismatch/)])
  })
  test('a door that takes a claim over before its lease has ended (T1)', async () => {
    const broken = expressApp(express, (world) => {
      const hasty = {
        ...world,
        kv: {
          ...world.kv,
          create: async (...args: Parameters<typeof world.kv.create>) => {
            const answer = await world.kv.create(...args)
            return answer.ok ? answer : { ...answer, now: (answer.now + 60_000) as typeof answer.now }
          },
        },
      }
      return ours(hasty)
    })
    expect(await failures(broken, /^crash after charge call 1, resume/)).toHaveLength(1)
  })
  test('no door at all', async () => {
    const broken = expressApp(express, () => (_req, _res, next) => next())
    expect(await failures(broken, /^(replay|in flight|key: missing)/)).not.toHaveLength(0)
  })
})
