/**
 * 'hapax/idempotency/conformance': whether a door keeps what an Idempotency-Key promises, over real HTTP, with crashes. For any runner and any framework.
 * Invariant: each case has a store, a clock and a bank of its own; the app under test is the only thing that is not ours.
 * Why a crash is a store call that never returns: what a dead process would have done next does not happen, and nothing tells it so.
 */
import { strict as assert } from 'node:assert'
import type { Duration } from '../../core/base/types.ts'
import type { KV } from '../../core/kv/kv.ts'
import { memory } from '../../core/stores/memory.ts'
import { intercept, testClock, type TestClock } from '../../core/testing/index.ts'
import type { Timers } from './types.ts'

/** What an app under test is given: make an idempotency of it, with these very values. */
export interface World {
  readonly kv: KV
  readonly timers: Timers
  readonly lease: Duration
  readonly afterCrash: 'refuse' | 'resume'
  /** To be called when a handler begins. */
  began(): void
  /** The service downstream. To be called in a step named 'charge', with the step's key. */
  charge(key: string, amount: number): Promise<string>
}

/**
 * An app with two equal routes, `POST /charges` and `POST /refunds`, that take JSON `{ amount }`: a door with `required: true`, the scope
 * from the header `x-principal`, and a handler that calls `world.began()`, then the step, then answers 201 with `{ charge, amount }` as JSON,
 * `Location: /charges/<charge>` and `Set-Cookie: session=secret`. An amount of 0 answers 402 with `{ refused: true }` before any step.
 */
export interface AppUnderTest {
  /** Without a slash at the end. */
  readonly url: string
  /** Closes it with all connections. */
  close(): void | Promise<void>
}
export type MakeApp = (world: World) => AppUnderTest | Promise<AppUnderTest>
export type TestFunction = (name: string, run: () => Promise<void>) => unknown

const leaseMs = 30_000
const amount = 2_990

/** Registers the suite: one test a case. @example idempotencyConformance(test, (world) => expressApp(world)) */
export function idempotencyConformance(test: TestFunction, makeApp: MakeApp): void {
  for (const [name, run] of [...plainCases, ...crashCases]) {
    test(name, async () => {
      const stage = new Stage(makeApp)
      try {
        await run(stage)
      } finally {
        await stage.close()
      }
    })
  }
}

type Case = readonly [name: string, run: (stage: Stage) => Promise<void>]
interface Answered {
  readonly status: number
  readonly headers: Headers
  readonly body: string
}
/** Where a process dies. */
interface CrashPoint {
  readonly at: 'store' | 'charge'
  readonly nth: number
  readonly when: 'before' | 'after'
}
const forever = new Promise<never>(() => {})

/** A store, a clock, a bank, and the processes that use them one after the other. */
class Stage {
  readonly clock: TestClock = testClock()
  readonly #kv = memory({ clock: this.clock })
  readonly #makeApp: MakeApp
  readonly #apps: AppUnderTest[] = []
  /** Bookings by step key: a bank that honours keys books each once. */
  readonly booked = new Map<string, string>()
  /** How often the bank was asked. */
  asked = 0
  /** When handlers began, on the store's clock. */
  readonly beginnings: number[] = []
  #hold: Promise<unknown> = Promise.resolve()

  constructor(makeApp: MakeApp) {
    this.#makeApp = makeApp
  }

  /** Starts a process. `crash`: it dies there; `crashed` tells. */
  async start(
    afterCrash: 'refuse' | 'resume' = 'refuse',
    crash?: CrashPoint,
  ): Promise<{ url: string; crashed: Promise<void>; calls: () => number }> {
    let isDead = false
    let calls = 0
    let charges = 0
    let tell = (): void => {}
    const crashed = new Promise<void>((resolve) => (tell = resolve))
    const die = (): Promise<never> => {
      isDead = true
      tell()
      return forever
    }
    const passing = async <R>(at: 'store' | 'charge', nth: number, run: () => Promise<R>): Promise<R> => {
      if (isDead) return await forever
      const isHere = crash?.at === at && crash.nth === nth
      if (isHere && crash.when === 'before') return await die()
      const result = await run()
      if (isHere) return await die()
      return isDead ? await forever : result
    }
    const world: World = {
      kv: intercept(this.#kv, (_call, run) => passing('store', ++calls, run)),
      timers: this.clock,
      lease: leaseMs,
      afterCrash,
      began: () => {
        if (!isDead) this.beginnings.push(this.clock.now())
      },
      charge: (key) =>
        passing('charge', ++charges, async () => {
          await this.#hold
          this.asked++
          const charge = this.booked.get(key) ?? `ch_${this.booked.size + 1}`
          this.booked.set(key, charge)
          return charge
        }),
    }
    const app = await this.#makeApp(world)
    this.#apps.push(app)
    return { url: app.url, crashed, calls: () => calls }
  }

  /** The bank answers nobody until the returned function is called. */
  hold(): () => void {
    let release = (): void => {}
    this.#hold = new Promise<void>((resolve) => (release = resolve))
    return release
  }

  async close(): Promise<void> {
    for (const app of this.#apps) await app.close()
    await this.#kv.close()
  }
}

interface Sending {
  readonly key?: string
  readonly principal?: string
  readonly amount?: number
  readonly path?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}
async function send(url: string, sending: Sending = {}): Promise<Answered> {
  const { key = '"k-1"', principal = 'ada', path = '/charges', headers = {}, signal } = sending
  const answer = await fetch(url + path, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'x-principal': principal,
      ...(key === '' ? {} : { 'idempotency-key': key }),
      ...headers,
    },
    body: JSON.stringify({ amount: sending.amount ?? amount }),
    ...(signal ? { signal } : {}),
  })
  return { status: answer.status, headers: answer.headers, body: await answer.text() }
}

/** A request that is awaited later: should the case fail before, its own failure is no news. */
function begun(request: Promise<Answered>): Promise<Answered> {
  request.catch(() => undefined)
  return request
}

const isReplay = ({ headers }: Answered): boolean => headers.get('idempotent-replayed') === 'true'
function assertReplayOf(first: Answered, second: Answered): void {
  assert.equal(isReplay(second), true, 'a repetition must be marked: Idempotent-Replayed: true')
  assert.equal(second.status, first.status, 'a replay has the status of the first answer')
  assert.equal(second.body, first.body, 'a replay has the body of the first answer')
  for (const name of ['content-type', 'location']) assert.equal(second.headers.get(name), first.headers.get(name), `a replay keeps ${name}`)
  assert.equal(second.headers.get('set-cookie'), null, 'a replay never has Set-Cookie')
}
function assertProblem(answer: Answered, status: number): void {
  assert.equal(answer.status, status)
  assert.match(answer.headers.get('content-type') ?? '', /^application\/problem\+json/)
  const problem = JSON.parse(answer.body) as Record<string, unknown>
  assert.equal(problem.status, status)
  assert.equal(typeof problem.type, 'string')
  assert.equal(typeof problem.title, 'string')
}

const plainCases: readonly Case[] = [
  [
    'replay: a repetition gets the first answer, and the handler runs once',
    async (stage) => {
      const { url } = await stage.start()
      const first = await send(url)
      assert.equal(first.status, 201)
      assert.equal(isReplay(first), false)
      assert.match(first.headers.get('set-cookie') ?? '', /secret/, 'the first client gets its cookie')
      for (let index = 0; index < 3; index++) assertReplayOf(first, await send(url))
      assert.equal(stage.beginnings.length, 1)
      assert.equal(stage.asked, 1)
    },
  ],
  [
    'replay: an answer that is no success is kept too (final: stripe)',
    async (stage) => {
      const { url } = await stage.start()
      const first = await send(url, { amount: 0 })
      assert.equal(first.status, 402)
      assertReplayOf(first, await send(url, { amount: 0 }))
      assert.equal(stage.beginnings.length, 1)
    },
  ],
  [
    'replay: ten requests at once are one, and nobody gets another answer',
    async (stage) => {
      const { url } = await stage.start()
      const answers = await Promise.all(Array.from({ length: 10 }, () => send(url)))
      assert.equal(stage.beginnings.length, 1)
      const bodies = new Set(answers.filter(({ status }) => status === 201).map(({ body }) => body))
      assert.equal(bodies.size, 1)
      for (const answer of answers.filter(({ status }) => status !== 201)) assertProblem(answer, 409)
    },
  ],
  [
    'in flight: 409 with Retry-After while the first one runs, and the answer afterwards',
    async (stage) => {
      const { url } = await stage.start()
      const release = stage.hold()
      const first = begun(send(url))
      while (stage.beginnings.length === 0) await new Promise((resolve) => setImmediate(resolve))
      const second = await send(url)
      assertProblem(second, 409)
      assert.match(second.headers.get('retry-after') ?? '', /^[1-9]\d*$/)
      release()
      assertReplayOf(await first, await send(url))
    },
  ],
  [
    'mismatch: another body is 422, while the first one runs and after it (T7)',
    async (stage) => {
      const { url } = await stage.start()
      const release = stage.hold()
      const first = begun(send(url))
      while (stage.beginnings.length === 0) await new Promise((resolve) => setImmediate(resolve))
      assertProblem(await send(url, { amount: 1 }), 422)
      release()
      await first
      assertProblem(await send(url, { amount: 1 }), 422)
      assertReplayOf(await first, await send(url))
      assert.equal(stage.beginnings.length, 1)
    },
  ],
  [
    'identity: another principal, another path and another key are other requests (T8)',
    async (stage) => {
      const { url } = await stage.start()
      const first = await send(url)
      for (const other of [{ principal: 'bob' }, { path: '/refunds' }, { key: '"k-2"' }]) {
        const answer = await send(url, other)
        assert.equal(answer.status, 201)
        assert.equal(isReplay(answer), false)
        assert.notEqual(answer.body, first.body)
      }
      assert.equal(stage.beginnings.length, 4)
    },
  ],
  [
    'key: quoted and bare are one key',
    async (stage) => {
      const { url } = await stage.start()
      assertReplayOf(await send(url, { key: '"8e03"' }), await send(url, { key: '8e03' }))
    },
  ],
  [
    'key: missing, empty, too long, a list or an unfinished string is 400 before anything happens (T22)',
    async (stage) => {
      const { url, calls } = await stage.start()
      for (const key of ['', '""', 'x'.repeat(256), 'a, b', '"a', '"a", "b"']) assertProblem(await send(url, { key }), 400)
      assert.equal(stage.beginnings.length, 0)
      assert.equal(calls(), 0, 'no store call for a key that cannot be')
    },
  ],
  [
    'client: one that leaves does not end its request; the retry gets the answer (T24)',
    async (stage) => {
      const { url } = await stage.start()
      const release = stage.hold()
      const controller = new AbortController()
      const gone = send(url, { signal: controller.signal }).catch(() => undefined)
      while (stage.beginnings.length === 0) await new Promise((resolve) => setImmediate(resolve))
      controller.abort()
      await gone
      release()
      let answer = await send(url)
      while (answer.status === 409) answer = await send(url)
      assert.equal(isReplay(answer), true)
      assert.equal(answer.status, 201)
      assert.equal(stage.beginnings.length, 1)
    },
  ],
]

/** A first run makes so many store calls: the claim, the step, the answer. A dry run checks it. */
const storeCalls = 3

const crashPoints: readonly CrashPoint[] = [
  ...Array.from({ length: storeCalls }, (_, index) => index + 1).flatMap((nth): CrashPoint[] => [
    { at: 'store', nth, when: 'before' },
    { at: 'store', nth, when: 'after' },
  ]),
  { at: 'charge', nth: 1, when: 'before' },
  { at: 'charge', nth: 1, when: 'after' },
]

const crashCases: readonly Case[] = [
  [
    `crash: a dry run counts ${storeCalls} store calls and one step`,
    async (stage) => {
      const { url, calls } = await stage.start()
      await send(url)
      assert.equal(calls(), storeCalls)
      assert.equal(stage.asked, 1)
    },
  ],
  ...(['refuse', 'resume'] as const).flatMap((afterCrash) =>
    crashPoints.map((point): Case => [
      `crash ${point.when} ${point.at} call ${point.nth}, ${afterCrash}: one charge, one answer, no second run within the lease`,
      (stage) => crashAndRetry(stage, afterCrash, point),
    ]),
  ),
]

async function crashAndRetry(stage: Stage, afterCrash: 'refuse' | 'resume', point: CrashPoint): Promise<void> {
  const dead = await stage.start(afterCrash, point)
  const controller = new AbortController()
  const sent = send(dead.url, { signal: controller.signal }).catch(() => undefined)
  await Promise.race([dead.crashed, sent])
  controller.abort()
  assert.equal(await sent, undefined, 'a process that died before its answer was stored must not have answered')

  // A new process, and the client's retry at once: it must not run again under a claim whose lease has not ended.
  const { url } = await stage.start(afterCrash)
  const begunByDead = stage.beginnings.length
  const early = await send(url)
  const isClaimed = !(point.at === 'store' && point.nth === 1 && point.when === 'before')
  const isCompleted = point.at === 'store' && point.nth === storeCalls && point.when === 'after'
  if (isClaimed) assert.equal(stage.beginnings.length, begunByDead, 'no second run before the lease of the first has ended')
  if (isClaimed && !isCompleted) assertProblem(early, 409)
  else assert.equal(early.status, 201)

  await stage.clock.advance(leaseMs + 1_000)
  const late = await send(url)
  if (isClaimed && !isCompleted && afterCrash === 'refuse') {
    assertProblem(late, 409)
    assert.match(late.body, /outcome-unknown/)
  } else {
    assert.equal(late.status, 201)
    for (let index = 0; index < 2; index++) assertReplayOf(isReplay(late) && !isReplay(early) ? early : late, await send(url))
  }
  assert.ok(stage.booked.size <= 1, 'every attempt gives the bank the same key, so it books once')
  const isFinishedStep = point.at === 'store' && point.nth >= 3
  if (isFinishedStep) assert.equal(stage.asked, 1, 'a finished step does not run again')
  const [first = 0, second] = stage.beginnings
  if (second !== undefined) assert.ok(second - first >= leaseMs, 'the second run began after the lease of the first')
}
