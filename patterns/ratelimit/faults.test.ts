/**
 * A limiter whose store is late, away, contended or of another release; and slots whose holders die.
 * Invariant: what the store did not say is `unknown` with its reason, and then `onUnknown` decides, never a default.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { KvError } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import { memory } from '../../core/stores/memory.ts'
import { counting, faulty, intercept, testClock, type Verdict } from '../../core/testing/index.ts'
import type { RateLimitEvent } from './events.ts'
import { concurrency, fixedWindow, gcra, rateLimit, type Failing, type Slot } from './index.ts'
import type { StoreCall } from '../../core/testing/index.ts'

let told: RateLimitEvent[] = []
const listen = (message: unknown): void => void told.push(message as RateLimitEvent)
beforeEach(() => {
  told = []
  subscribe('hapax:ratelimit', listen)
})
afterEach(() => unsubscribe('hapax:ratelimit', listen))

const policies = { burst: gcra({ limit: 10, per: '1s' }), daily: fixedWindow({ limit: 100, per: '1d' }) }

function limiter(on: (call: StoreCall) => Verdict | undefined, failing: Failing = { onUnknown: 'deny' }) {
  const clock = testClock()
  const store = memory({ clock })
  const kv = counting(faulty(store, { clock, on }))
  return { clock, store, kv, api: rateLimit({ kv, name: 'api', policies, timers: clock, ...failing }) }
}

const away = (): Verdict => 'unavailable'

describe('while the store does not decide', () => {
  for (const [onUnknown, allowed] of [
    ['allow', true],
    ['deny', false],
  ] as const)
    test(`the outcome is unknown, and goes on as onUnknown: '${onUnknown}' says (R11, R13)`, async () => {
      const { api } = limiter(away, { onUnknown })
      const decision = await api.consume('ada')
      expect(decision).toMatchObject({
        outcome: 'unknown',
        allowed,
        reason: 'store',
        violated: [],
        policies: { burst: { limit: 10, remaining: 0 } },
      })
      expect(decision.receipt).toBeUndefined()
      expect(decision.cause).toMatchObject({ code: 'UNAVAILABLE' })
      expect(told).toMatchObject([{ type: 'unknown', name: 'api', reason: 'store' }])
    })

  test('a store that hangs is not waited for beyond the deadline (R12)', async () => {
    const { api, clock } = limiter(() => 'stop-before')
    const decision = api.consume('ada')
    await clock.advance(49)
    let isDecided = false
    void decision.then(() => (isDecided = true))
    await clock.advance(0)
    expect(isDecided).toBe(false)
    await clock.advance(1)
    expect(await decision).toMatchObject({ outcome: 'unknown', reason: 'deadline' })
  })

  test('callers that came together are not waited for longer than one after the other would (R12)', async () => {
    const { api, clock } = limiter(() => 'stop-before')
    const decisions = Promise.all(Array.from({ length: 5 }, () => api.consume('ada')))
    await clock.advance(60)
    for (const decision of await decisions) expect(decision).toMatchObject({ outcome: 'unknown', reason: 'deadline' })
  })

  test('a store that failed ten times in a row is left alone for half a second, then tried by one request (R12)', async () => {
    let isAway = true
    const { api, kv, clock } = limiter(() => (isAway ? 'unavailable' : 'pass'))
    for (let count = 0; count < 10; count++) await api.consume(`user-${count}`)
    kv.reset()
    for (let count = 0; count < 50; count++) expect((await api.consume(`user-${count}`)).reason).toBe('store')
    expect(kv.counts().total).toBe(0)
    await clock.advance(500)
    await Promise.all(Array.from({ length: 50 }, (_, count) => api.consume(`user-${count}`)))
    expect(kv.counts().total).toBe(1)
    isAway = false
    await clock.advance(500)
    expect((await api.consume('ada')).outcome).toBe('allowed')
    expect((await api.consume('bob')).outcome).toBe('allowed')
    expect(told.filter(({ type }) => type === 'paused' || type === 'resumed').map(({ type }) => type)).toEqual(['paused', 'resumed'])
  })

  test('a charge that was applied and whose answer was lost is unknown, and stands: never is more allowed than the limit', async () => {
    let lose = true
    const { api, clock } = limiter((call) => (lose && call.verb !== 'get' ? 'unknown-after' : 'pass'))
    expect(await api.consume('ada', { cost: 4 })).toMatchObject({ outcome: 'unknown', reason: 'store' })
    lose = false
    await clock.advance(0)
    expect((await api.peek('ada')).policies.burst.remaining).toBe(6)
  })

  test('conflicts without end are unknown with the reason contention, never a denial (R10)', async () => {
    const clock = testClock()
    const store = memory({ clock })
    const rival = rateLimit({ kv: store, name: 'api', policies, onUnknown: 'deny', timers: clock })
    // Another process is faster before each write of this one.
    const kv = intercept(store, async (call, run) => {
      if (call.verb === 'update' || call.verb === 'create') {
        await clock.advance(10)
        await rival.reset('ada')
        await rival.consume('ada')
      }
      return await run()
    })
    const api = rateLimit({ kv, name: 'api', policies, onUnknown: 'allow', timers: clock })
    expect(await api.consume('ada')).toMatchObject({ outcome: 'unknown', allowed: true, reason: 'contention' })
  })

  test('a record of a newer release is unknown with the reason unreadable, and is left as it is (P12)', async () => {
    const { api, store } = limiter(() => 'pass')
    const newer = Uint8Array.of(0x6c, 2, 1, 0, 9, 9)
    await store.create('limit:api:ada', newer)
    for (let count = 0; count < 20; count++)
      expect(await api.consume('ada')).toMatchObject({ outcome: 'unknown', reason: 'unreadable', cause: { code: 'LIMIT_UNREADABLE' } })
    expect((await store.get('limit:api:ada')).entry?.value).toEqual(newer)
    expect((await api.consume('bob')).outcome).toBe('allowed')
    await api.reset('ada')
    expect((await api.consume('ada')).outcome).toBe('allowed')
  })

  test('a refund that is not known to have happened says so, and is not tried twice', async () => {
    let verdict: Verdict = 'pass'
    const { api } = limiter(() => verdict)
    const { receipt } = await api.consume('ada', { cost: 4 })
    verdict = 'unavailable'
    expect(await api.refund(receipt)).toMatchObject({ outcome: 'unknown', reason: 'store' })
    verdict = 'pass'
    expect(await api.refund(receipt)).toEqual({ outcome: 'void' })
  })

  test('a signal that has fired is thrown, as is one that fires while the store hangs', async () => {
    const { api } = limiter(() => 'pass')
    await expect(api.consume('ada', { signal: AbortSignal.abort('gone') })).rejects.toMatchObject({ code: 'ABORTED', cause: 'gone' })
    const controller = new AbortController()
    const clock = testClock()
    const slow = faulty(memory({ clock }), { clock, on: () => ({ delay: '1s' }) })
    const late = rateLimit({ kv: slow, name: 'api', policies, onUnknown: 'allow', timers: clock }).consume('ada', {
      signal: controller.signal,
    })
    controller.abort('left')
    await expect(late).rejects.toMatchObject({ code: 'ABORTED', cause: 'left' })
  })
})

describe("the local fallback, onUnknown: 'local'", () => {
  test('allows its part of each limit in this process, and says so (R11)', async () => {
    const { api, clock } = limiter(away, { onUnknown: 'local', instances: 2 })
    const outcomes: string[] = []
    for (let count = 0; count < 7; count++) outcomes.push((await api.consume('ada')).outcome)
    expect(outcomes).toEqual([...Array.from({ length: 5 }, () => 'allowed'), 'denied', 'denied'])
    const denied = await api.consume('ada')
    expect(denied).toMatchObject({
      local: true,
      reason: 'store',
      violated: ['burst'],
      retryAfterMs: 200,
      policies: { burst: { limit: 5 } },
    })
    await clock.advance(200)
    expect((await api.consume('ada')).outcome).toBe('allowed')
  })

  test('takes a cost above its part for all of it, and peeks without charging', async () => {
    const { api } = limiter(away, { onUnknown: 'local', instances: 10 })
    expect((await api.peek('ada')).outcome).toBe('allowed')
    expect((await api.consume('ada', { cost: 10 })).outcome).toBe('allowed')
    expect((await api.consume('ada')).outcome).toBe('denied')
  })

  test('keeps a bounded number of keys, and forgets none that is denied for one that is not (R21)', async () => {
    const { api } = limiter(away, { onUnknown: 'local', instances: 2 })
    await api.consume('early', { cost: 2 })
    await api.consume('blocked', { cost: 5 })
    for (let count = 0; count < 17_000; count++) await api.consume(`user-${count}`)
    expect((await api.consume('blocked')).outcome).toBe('denied')
    expect((await api.peek('early')).policies.burst.remaining).toBe(5)
  })
})

describe('a clock of the store that steps', () => {
  test('is noticed by the answer of a write, which is then judged again at the right time (R8)', async () => {
    const clock = testClock()
    const timers = testClock() // this process's own: it hears nothing of the step
    const api = rateLimit({
      kv: memory({ clock }),
      name: 'api',
      policies: { burst: gcra({ limit: 2, per: '2s' }) },
      onUnknown: 'deny',
      timers,
    })
    await api.consume('ada')
    clock.set(clock.now() + 60_000)
    // Judged at the old time it would count from there: a charge that had run out before it was made.
    expect((await api.consume('bob', { cost: 2 })).allowed).toBe(true)
    expect(told.map(({ type }) => type)).toContain('clock-differs')
    expect((await api.peek('bob')).policies.burst.remaining).toBe(0)
    await clock.advance(999)
    expect((await api.consume('bob')).allowed).toBe(false)
  })
})

describe('a slot', () => {
  const slots = (kv: KV, timers: ReturnType<typeof testClock>, failing: Failing = { onUnknown: 'deny' }) =>
    rateLimit({ kv, name: 'jobs', policies: { slots: concurrency({ limit: 2, lease: '3s' }) }, timers, ...failing })

  test('is held while its process renews it, and comes back when it is released', async () => {
    const clock = testClock()
    const kv = memory({ clock })
    const jobs = slots(kv, clock)
    const one = await jobs.acquire('ada')
    const two = await jobs.acquire('ada')
    expect(await jobs.acquire('ada')).toMatchObject({ outcome: 'denied', violated: ['slots'] })
    await clock.advance('10s')
    expect((await slots(kv, clock).acquire('ada')).outcome).toBe('denied')
    expect(await one.slot?.release()).toEqual({ outcome: 'applied' })
    expect(await one.slot?.release()).toEqual({ outcome: 'applied' })
    const three = await slots(kv, clock).acquire('ada')
    expect(three.outcome).toBe('allowed')
    expect(two.slot?.signal.aborted).toBe(false)
    for (const { slot } of [two, three]) await slot?.release()
    expect((await jobs.peek('ada')).policies.slots.remaining).toBe(2)
  })

  test('of a dead process comes back when its lease ends, and its signal has fired before', async () => {
    const clock = testClock()
    const kv = memory({ clock })
    const timers = testClock()
    let isDead = false
    const dying = intercept(kv, async (_call, run) => (isDead ? await new Promise<never>(() => {}) : await run()))
    const jobs = slots(dying, timers)
    const held = [await jobs.acquire('ada'), await jobs.acquire('ada')].map(({ slot }) => slot as Slot)
    isDead = true
    await timers.advance(2_999)
    await clock.advance(2_999)
    const other = slots(kv, clock)
    expect((await other.acquire('ada')).outcome).toBe('denied')
    expect(held.map(({ signal }) => signal.aborted)).toEqual([false, false])
    await timers.advance(1)
    expect(held.map(({ signal }) => signal.reason?.code)).toEqual(['SLOT_LOST', 'SLOT_LOST'])
    await clock.advance(1)
    expect((await other.acquire('ada')).outcome).toBe('allowed')
    expect(told.filter(({ type }) => type === 'slot-lost')).toHaveLength(2)
  })

  test('that the store may have given while its answer was lost is given back', async () => {
    const clock = testClock()
    let isLost = true
    const kv = faulty(memory({ clock }), { clock, on: (call) => (call.verb === 'create' && isLost ? 'unknown-after' : 'pass') })
    const jobs = slots(kv, clock)
    expect((await jobs.acquire('ada')).outcome).toBe('unknown')
    isLost = false
    await clock.advance(0)
    expect((await jobs.peek('ada')).policies.slots.remaining).toBe(2)
  })

  test('of the local fallback is held and released in this process', async () => {
    const clock = testClock()
    const kv = intercept(memory({ clock }), async () => Promise.reject(new KvError('UNAVAILABLE')))
    const jobs = slots(kv, clock, { onUnknown: 'local', instances: 2 })
    const { slot } = await jobs.acquire('ada')
    expect((await jobs.acquire('ada')).outcome).toBe('denied')
    await clock.advance('10s')
    expect((await jobs.acquire('ada')).outcome).toBe('denied')
    expect(await slot?.release()).toEqual({ outcome: 'applied' })
    expect((await jobs.acquire('ada')).outcome).toBe('allowed')
  })

  test('stands beside other policies, all or nothing (R6)', async () => {
    const clock = testClock()
    const jobs = rateLimit({
      kv: memory({ clock }),
      name: 'jobs',
      policies: { slots: concurrency({ limit: 1, lease: '3s' }), hourly: fixedWindow({ limit: 10, per: '1h' }) },
      onUnknown: 'deny',
      timers: clock,
    })
    const { slot } = await jobs.acquire('ada', { cost: 4 })
    expect((await jobs.acquire('ada', { cost: 4 })).policies.hourly.remaining).toBe(6)
    await slot?.release()
    expect(await jobs.acquire('ada', { cost: 7 })).toMatchObject({ outcome: 'denied', violated: ['hourly'] })
    expect((await jobs.peek('ada')).policies.slots.remaining).toBe(1)
  })
})
