/**
 * The HTTP suite over our doors; and over broken ones, each of which it must find in the case that is named for the mistake.
 * Why a broken door is looked for in some cases only: the others would fail or hang as well, and prove nothing more.
 */
import type { Server } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import Router from '@koa/router'
import express, { type NextFunction, type Request, type RequestHandler, type Response } from 'express'
import Koa, { type Context } from 'koa'
import { describe, expect, test } from 'vitest'
import type { Json } from '../../core/base/json.ts'
import type { EpochMs } from '../../core/base/types.ts'
import type { KV } from '../../core/kv/kv.ts'
import { idempotencyConformance, type AppUnderTest, type MakeApp, type World } from './conformance.ts'
import { idempotent, onceOf } from './express.ts'
import { idempotency } from './idempotency.ts'
import { idempotent as idempotentKoa, onceOf as onceOfKoa } from './koa.ts'
import type { Claim, Idempotency, IdempotencyOptions, Run, Timers } from './types.ts'

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

const charges = ({ options }: World, more: Partial<IdempotencyOptions> = {}): Idempotency =>
  idempotency({ name: 'charges', ...options, ...more })
const scope = (req: Request): string => req.get('x-principal') ?? ''

/** How an app of the suite is put together; a broken one differs in one piece. */
interface Parts {
  readonly framework?: typeof express
  readonly door?: (world: World) => RequestHandler
  readonly twice?: (door: RequestHandler) => RequestHandler
  readonly isDoorBeforeAuth?: boolean
}
const authentication: RequestHandler = (req, res, next) => {
  if (req.get('x-token') === 'wrong') res.sendStatus(401)
  else next()
}
const ours = (world: World): RequestHandler => idempotent(charges(world), { scope, required: true })

function expressApp({ framework = express, door = ours, twice = (one) => one, isDoorBeforeAuth = false }: Parts = {}): MakeApp {
  return (world) => {
    const app = framework()
    app.set('env', 'test') // a fault is answered, not printed
    const answer = async (req: Request, res: Response): Promise<void> => {
      const { status, headers, body } = await world.handle(req.body, onceOf(req))
      // Node takes arrays and strings alike; `send` would add a charset and an ETag, which is the framework's good right.
      res.status(status).set(headers).send(Buffer.from(body))
    }
    // As Express 4 needs it: it does not wait for a handler's promise.
    const handler = async (req: Request, res: Response, next: NextFunction): Promise<void> => {
      try {
        await answer(req, res)
      } catch (error) {
        next(error)
      }
    }
    const once = door(world)
    const before = isDoorBeforeAuth ? [express.json(), once, authentication] : [authentication, express.json(), once]
    for (const path of ['/charges', '/refunds']) app.post(path, ...before, handler)
    app.get('/charges', ...before, handler)
    app.post('/twice', ...before, twice(once), handler)
    return listening(app.listen(0, '127.0.0.1'))
  }
}

const koaApp: MakeApp = (world) => {
  const app = new Koa({ env: 'test' })
  app.silent = true
  const router = new Router()
  app.use(async (ctx, next) => {
    if (ctx.get('x-token') === 'wrong') return void (ctx.status = 401)
    const chunks: Buffer[] = []
    for await (const chunk of ctx.req) chunks.push(chunk as Buffer)
    if (chunks.length > 0) Object.assign(ctx.request, { body: JSON.parse(Buffer.concat(chunks).toString()) as unknown })
    return await next()
  })
  const door = idempotentKoa(charges(world), { scope: (ctx: Context) => ctx.get('x-principal'), required: true })
  const handler = async (ctx: Context): Promise<void> => {
    const { status, headers, body } = await world.handle((ctx.request as { body?: unknown }).body, onceOfKoa(ctx))
    ctx.status = status
    ctx.set(headers)
    ctx.body = Buffer.from(body)
  }
  const route = handler as Parameters<typeof router.post>[1]
  for (const path of ['/charges', '/refunds']) router.post(path, door, route)
  router.get('/charges', door, route)
  router.post('/twice', door, door, route)
  app.use(router.routes())
  return listening(app.listen(0, '127.0.0.1'))
}

describe('Express 5', () => {
  idempotencyConformance(test, expressApp())
})
describe('Express 4', () => {
  idempotencyConformance(test, expressApp({ framework: express4 }))
})
describe('Koa', () => {
  idempotencyConformance(test, koaApp)
})

/** Which cases fail for an app. */
async function failures(makeApp: MakeApp, only: RegExp): Promise<string[]> {
  const cases: [name: string, run: () => Promise<void>][] = []
  idempotencyConformance((name, run) => cases.push([name, run]), makeApp)
  const failed: string[] = []
  for (const [name, run] of cases.filter(([name]) => only.test(name))) {
    await run().catch(() => failed.push(name))
  }
  return failed
}

/** Our door over an engine with a mistake in it. */
const doorOver = (mistake: (engine: Idempotency) => Idempotency, more?: Partial<IdempotencyOptions>) => (world: World) =>
  idempotent(mistake(charges(world, more)), { scope, required: true })

const claiming = (change: (claim: Claim) => Claim) => (engine: Idempotency) => ({
  ...engineOf(engine),
  claim: async (request: Parameters<Idempotency['claim']>[0]) => change(await engine.claim(request)),
})
/** A plain object: an engine's methods stand on its prototype. */
const engineOf = (engine: Idempotency): Idempotency => ({
  name: engine.name,
  answerBytesMax: engine.answerBytesMax,
  run: (request, handler) => engine.run(request, handler),
  claim: (request) => engine.claim(request),
  inspect: (key) => engine.inspect(key),
  release: (request) => engine.release(request),
})
const running = (change: (run: Run) => Partial<Run>) =>
  claiming((claim) => {
    if (claim.type !== 'run') return claim
    const run: Run = {
      type: 'run',
      once: claim.once,
      complete: (answer, ending) => claim.complete(answer, ending),
      unstored: (head, reason) => claim.unstored(head, reason),
      failed: (error) => claim.failed(error),
      release: () => claim.release(),
      abandon: () => claim.abandon(),
    }
    return { ...run, ...change(run) }
  })
const replaying = (change: (head: StoredHead) => StoredHead) =>
  claiming((claim) => {
    if (claim.type !== 'replay') return claim
    const head = change(claim.answer.head as unknown as StoredHead) as unknown as Json
    return { ...claim, answer: { ...claim.answer, head } }
  })
interface StoredHead {
  readonly status: number
  readonly headers: readonly (readonly [string, string])[]
}
/** Our door over a store that lies, or is used as it must not be. */
const doorOn = (mistake: (kv: KV) => KV) => (world: World) =>
  ours({ ...world, options: { ...world.options, kv: mistake(world.options.kv) } })

/** A record of another owner. */
function renamed(record: Uint8Array): Uint8Array {
  const other = Buffer.from(record)
  other.write('nobody', other.indexOf('"ow":"') + 6)
  return other
}

interface Plant extends Parts {
  readonly mistake: string
  /** The cases that are run. */
  readonly among: RegExp
  /** Those that must fail, and no other of them. */
  readonly found: RegExp
}
const plants: readonly Plant[] = [
  {
    mistake: 'takes a claim over before its lease has ended (T1)',
    door: doorOn((kv) => ({
      ...kv,
      create: async (...call) => {
        const answer = await kv.create(...call)
        return answer.ok ? answer : { ...answer, now: (answer.now + 40_000) as EpochMs }
      },
    })),
    among: /^(replay|crash, resume)/,
    found: /^crash, resume/,
  },
  {
    mistake: 'writes without the version that it rests on (T2)',
    door: doorOn((kv) => ({ ...kv, update: (key, value, options) => kv.update(key, value, { ...options, ifVersion: undefined }) })),
    among: /^(replay|stall, resume)/,
    found: /^stall, resume/,
  },
  {
    mistake: 'never renews its lease (T2)',
    door: (world) => {
      const { setTimeout } = world.options.timers ?? globalThis
      const timers = {
        ...world.options.timers,
        setTimeout: (run: () => void, ms: number) => (ms > 9_000 && ms < 11_000 ? 0 : setTimeout(run, ms)),
      }
      return ours({ ...world, options: { ...world.options, timers: timers as Timers } })
    },
    among: /^(replay|lease)/,
    found: /^lease/,
  },
  {
    mistake: 'fails when the answer cannot be stored (T4)',
    door: doorOver(
      running((run) => ({
        complete: async (answer, ending) => {
          const saved = await run.complete(answer, ending)
          return saved.type === 'unsaved' ? { type: 'overtaken', by: { type: 'refused', refusal: 'store-unavailable' } } : saved
        },
      })),
    ),
    among: /^(replay|store)/,
    found: /^store away at the end/,
  },
  {
    mistake: 'answers before the answer is stored (T5)',
    door: doorOver(
      running((run) => ({
        complete: async (answer, ending) => {
          void run.complete(answer, ending)
          return { type: 'saved' }
        },
      })),
    ),
    among: /^(mismatch|crash, refuse)/,
    found: /^crash, refuse/,
  },
  {
    mistake: 'takes a lost answer of the store for a refusal (T6)',
    door: doorOn((kv) => ({
      ...kv,
      create: async (key, value, options) => {
        try {
          return await kv.create(key, value, options)
        } catch {
          const answer = await kv.create(key, value, options)
          return answer.ok ? answer : { ...answer, entry: { ...answer.entry, value: renamed(answer.entry.value) } }
        }
      },
    })),
    among: /^(replay|lost answer)/,
    found: /^lost answer/,
  },
  {
    mistake: 'looks at the state before the fingerprint (T7)',
    door: doorOver(
      claiming((claim) =>
        claim.type === 'refused' && claim.refusal === 'mismatch' ? { type: 'refused', refusal: 'in-flight', retryAfterMs: 30_000 } : claim,
      ),
    ),
    among: /^(replay|mismatch)/,
    found: /^mismatch/,
  },
  {
    mistake: 'shares keys between principals (T8, T16)',
    door: (world) => idempotent(charges(world), { scope: () => 'public', required: true }),
    among: /^(replay|identity: another|mismatch)/,
    found: /^identity: another/,
  },
  {
    mistake: 'takes nobody for somebody (T8)',
    door: (world) => idempotent(charges(world), { scope: (req) => scope(req) || 'nobody', required: true }),
    among: /^(replay|identity)/,
    found: /^identity: a request of nobody/,
  },
  {
    mistake: 'compares nothing (T9)',
    door: (world) => idempotent(charges(world), { scope, required: true, fingerprint: () => null }),
    among: /^(replay|mismatch|key)/,
    found: /^mismatch/,
  },
  {
    mistake: 'runs an answer again that was too large (T11)',
    door: doorOver(
      running((run) => ({
        complete: (answer, ending) => (answer.body.length > 8_000 ? run.release() : run.complete(answer, ending)),
        unstored: () => run.release(),
      })),
    ),
    among: /^(replay|unstored)/,
    found: /^unstored/,
  },
  {
    mistake: 'forgets answers that are no success (T13)',
    door: doorOver((engine) => engine, { final: 'success-only' }),
    among: /^replay/,
    found: /no success/,
  },
  {
    mistake: 'stands before the authentication (T14)',
    isDoorBeforeAuth: true,
    among: /^(replay|authentication)/,
    found: /^authentication/,
  },
  {
    mistake: 'replays cookies (T15)',
    door: doorOver(replaying(({ status, headers }) => ({ status, headers: [...headers, ['Set-Cookie', 'session=secret']] }))),
    among: /^(replay: (a repetition|another)|mismatch)/,
    found: /^(replay: (a repetition|another)|mismatch)/,
  },
  {
    mistake: 'says nothing true about when to come back (T18)',
    door: doorOver(claiming((claim) => (claim.type === 'refused' ? { ...claim, retryAfterMs: 1_000 } : claim))),
    among: /^(replay|in flight)/,
    found: /^in flight/,
  },
  {
    mistake: 'runs unprotected while the store is away (T19)',
    door: doorOver((engine) => engine, { onStoreError: 'allow' }),
    among: /^(replay|store: )/,
    found: /^store: /,
  },
  {
    mistake: 'protects every method (T21)',
    door: (world) => idempotent(charges(world), { scope, required: true, methods: ['GET', 'POST'] }),
    among: /^(replay|method)/,
    found: /^method/,
  },
  {
    mistake: 'takes the first of two keys (T22)',
    door: (world) => {
      const door = ours(world)
      return (req, res, next) => {
        const { rawHeaders } = req
        const keys = rawHeaders.flatMap((name, index) => (index % 2 === 0 && name.toLowerCase() === 'idempotency-key' ? [index] : []))
        for (const index of keys.slice(1).reverse()) rawHeaders.splice(index, 2)
        void door(req, res, next)
      }
    },
    among: /^(replay|key)/,
    found: /^key: missing/,
  },
  {
    mistake: 'gives the key back when the client leaves (T24)',
    door: (world) => {
      let leave = (): unknown => undefined
      const engine = running((run) => {
        let left: ReturnType<Run['release']> | undefined
        leave = () => (left ??= run.release())
        return {
          complete: (answer, ending) => {
            leave = () => undefined
            return left ?? run.complete(answer, ending)
          },
        }
      })(charges(world))
      const door = idempotent(engine, { scope, required: true })
      return (req, res, next) => {
        req.socket.once('close', () => void leave())
        void door(req, res, next)
      }
    },
    among: /^(replay|client)/,
    found: /^client/,
  },
  {
    mistake: 'does not see that it stands there twice (T25)',
    twice: () => (_req, _res, next) => next(),
    among: /^(replay|route)/,
    found: /^route/,
  },
  {
    mistake: 'forgets how a body is encoded (T26)',
    door: doorOver(
      replaying(({ status, headers }) => ({ status, headers: headers.filter(([name]) => !/^content-encoding$/i.test(name)) })),
    ),
    among: /^(replay|mismatch)/,
    found: /^replay: a compressed/,
  },
  {
    mistake: 'is none at all',
    door: () => (_req, _res, next) => next(),
    among: /^(in flight|key: missing|store: )/,
    found: /./,
  },
]

describe('the suite finds a door that', () => {
  test.each(plants)('$mistake', async ({ among, found, ...parts }) => {
    const names: string[] = []
    idempotencyConformance((name) => names.push(name), expressApp())
    const wanted = names.filter((name) => among.test(name) && found.test(name))
    expect(wanted).not.toEqual([])
    expect(await failures(expressApp(parts), among)).toEqual(wanted)
  })
})
