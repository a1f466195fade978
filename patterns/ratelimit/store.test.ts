/**
 * How a limiter uses its store: how many calls a crowd costs, who is told what when a call does not come back, and what is known of the store's clock.
 */
import { describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { memory } from '../../core/stores/memory.ts'
import { counting, faulty, intercept, testClock, type StoreCall, type Verdict } from '../../core/testing/index.ts'
import { fixedWindow, gcra, rateLimit } from './index.ts'
import { StoreClock } from './store-clock.ts'

const policies = { hourly: fixedWindow({ limit: 1_000, per: '1h' }) }

function limiter(on: (call: StoreCall) => Verdict | undefined | Promise<Verdict | undefined> = () => 'pass') {
  const clock = testClock()
  const store = memory({ clock })
  const kv = counting(faulty(store, { clock, on }))
  return { clock, store, kv, api: rateLimit({ kv, name: 'api', policies, onUnknown: 'deny', timers: clock, denyCache: 0 }) }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

describe('a crowd on one key (R9)', () => {
  test('is one call a turn when it comes together, and no timer is waited for', async () => {
    const { api, kv } = limiter()
    const crowd = () => Promise.all(Array.from({ length: 64 }, () => api.consume('ada')))
    await crowd()
    await turn()
    kv.reset()
    for (let round = 0; round < 5; round++) {
      for (const { allowed } of await crowd()) expect(allowed).toBe(true)
      await turn()
    }
    expect(kv.counts()).toMatchObject({ total: 5, update: 5 })
    expect((await api.peek('ada')).policies.hourly.remaining).toBe(1_000 - 6 * 64)
  })

  test('stays together when each comes back as soon as it is answered', async () => {
    const { api, kv } = limiter()
    const rounds = 20
    // Each has as many promises behind its answer as its number says.
    const caller = async (_: unknown, number: number): Promise<void> => {
      for (let round = 0; round < rounds; round++) {
        expect((await api.consume('ada')).allowed).toBe(true)
        for (let step = 0; step < number; step++) await undefined
      }
    }
    await Promise.all(Array.from({ length: 16 }, caller))
    // The first one of all is alone, and has one more round to go when the others are through.
    expect(kv.counts().total).toBeLessThanOrEqual(rounds + 3)
    expect((await api.peek('ada')).policies.hourly.remaining).toBe(1_000 - 16 * rounds)
  })

  test('is judged in the order in which it came, up to the last unit', async () => {
    const { api } = limiter()
    await api.consume('ada', { cost: 990 })
    const outcomes = await Promise.all(Array.from({ length: 30 }, () => api.consume('ada')))
    expect(outcomes.map(({ allowed }) => allowed)).toEqual(Array.from({ length: 30 }, (_, index) => index < 10))
    expect(outcomes.slice(0, 10).map(({ policies: { hourly } }) => hourly.remaining)).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
  })

  test('that is denied as a whole asks the store once, after it came', async () => {
    const { api, kv, store, clock } = limiter()
    await api.consume('ada', { cost: 1_000 })
    await turn()
    kv.reset()
    const denied = await Promise.all(Array.from({ length: 30 }, () => api.consume('ada')))
    expect(denied.every(({ outcome }) => outcome === 'denied')).toBe(true)
    expect(kv.counts()).toMatchObject({ total: 2, get: 2 }) // the first one, and all others
    await rateLimit({ kv: store, name: 'api', policies, onUnknown: 'deny', timers: clock }).reset('ada')
    const after = await Promise.all(Array.from({ length: 30 }, () => api.consume('ada')))
    expect(after.every(({ outcome }) => outcome === 'allowed')).toBe(true)
  })

  test('of refunds and decisions is served in turns, and nothing is lost', async () => {
    const { api } = limiter()
    const receipts = await Promise.all(Array.from({ length: 20 }, () => api.consume('ada', { cost: 2 })))
    await Promise.all(
      receipts.flatMap(({ receipt }) => [
        api.refund(receipt, 1).then(({ outcome }) => expect(outcome).toBe('applied')),
        api.consume('ada').then(({ outcome }) => expect(outcome).toBe('allowed')),
      ]),
    )
    expect((await api.peek('ada')).policies.hourly.remaining).toBe(1_000 - 40)
  })
})

describe('a call that does not come back', () => {
  test('holds nobody but those who wait for it: the next ones are decided by the store (R12)', async () => {
    let hangs = true
    const { api, clock } = limiter(() => (hangs ? 'stop-before' : 'pass'))
    const first = Promise.all(Array.from({ length: 5 }, () => api.consume('ada')))
    await clock.advance(60)
    for (const { reason } of await first) expect(reason).toBe('deadline')
    hangs = false
    expect((await api.consume('ada')).outcome).toBe('allowed')
    expect((await api.peek('ada')).policies.hourly.remaining).toBe(999)
  })

  test('and lands after all: what it charged counts, and nobody is told that it is allowed', async () => {
    let hold: ((verdict: Verdict) => void) | undefined
    let isHolding = false
    const { api, clock } = limiter((call) =>
      isHolding && call.verb !== 'get' ? new Promise<Verdict>((resolve) => (hold = resolve)) : 'pass',
    )
    await api.consume('ada', { cost: 996 })
    isHolding = true
    const late = api.consume('ada', { cost: 3 })
    await clock.advance(50)
    expect((await late).reason).toBe('deadline')
    isHolding = false
    hold?.('pass')
    await turn()
    const after = await Promise.all(Array.from({ length: 4 }, () => api.consume('ada')))
    expect(after.map(({ outcome }) => outcome)).toEqual(['allowed', 'denied', 'denied', 'denied'])
  })

  test('keeps the next ones in order when it does come back, late', async () => {
    const held: ((verdict: Verdict) => void)[] = []
    const { api, clock } = limiter((call) => (call.verb === 'get' ? 'pass' : new Promise<Verdict>((resolve) => void held.push(resolve))))
    const one = api.consume('ada')
    await clock.advance(50)
    expect((await one).reason).toBe('deadline')
    const two = api.consume('ada')
    await turn()
    const three = api.consume('ada')
    await turn()
    held[0]?.('pass')
    await turn()
    expect(held).toHaveLength(2) // the third one waits for the second, which is under way
    for (let place = 1; place < 6; place++) {
      held[place]?.('pass')
      await turn()
    }
    expect([(await two).outcome, (await three).outcome]).toEqual(['allowed', 'allowed'])
    expect((await three).policies.hourly.remaining).toBe(997)
  })

  test('when it does, is older than a reset that was asked for behind it: no denial outlasts a reset (R9)', async () => {
    let answer: ((value: unknown) => void) | undefined
    const clock = testClock()
    const kv = intercept(memory({ clock }), async (call, run) => {
      const found = await run() // it reaches the store, and its answer is late
      if (call.verb === 'get' && call.nth > 1) await new Promise((resolve) => (answer = resolve))
      return found
    })
    const api = rateLimit({ kv, name: 'api', policies, onUnknown: 'deny', timers: clock })
    await api.consume('ada', { cost: 1_000 })
    const denied = api.consume('ada')
    await turn()
    const reset = api.reset('ada')
    await turn()
    answer?.(undefined)
    expect((await denied).outcome).toBe('denied')
    await reset
    expect((await api.consume('ada')).outcome).toBe('allowed')
  })

  test('is one failure, however many wait for it: the other keys go on', async () => {
    let fails = 1
    const { api } = limiter(() => (fails-- > 0 ? 'unavailable' : 'pass'))
    const held = await Promise.all(Array.from({ length: 20 }, () => api.consume('ada')))
    expect(held.filter(({ outcome }) => outcome === 'unknown')).toHaveLength(1)
    fails = 1
    const crowd = await Promise.all(Array.from({ length: 20 }, () => api.consume('ada')))
    expect(crowd.filter(({ outcome }) => outcome === 'unknown').length).toBeGreaterThan(10)
    expect((await api.consume('bob')).outcome).toBe('allowed')
  })

  test('is left by who is aborted: unknown if it may have the charge, aborted if not; the others are decided', async () => {
    let go: ((verdict: Verdict) => void) | undefined
    const { api } = limiter((call) => (call.verb === 'update' ? new Promise<Verdict>((resolve) => (go = resolve)) : 'pass'))
    await api.consume('ada')
    await turn()
    const [sent, waits] = [new AbortController(), new AbortController()]
    const both = Promise.allSettled([
      api.consume('ada', { signal: sent.signal }),
      api.consume('ada', { signal: waits.signal }),
      api.consume('ada'),
    ])
    await turn()
    waits.abort('left')
    sent.abort('left')
    await turn()
    go?.('pass')
    await turn()
    go?.('pass')
    await turn()
    go?.('pass')
    const [first, second, third] = await both
    expect(first).toMatchObject({ status: 'rejected', reason: { code: 'UNKNOWN_OUTCOME', cause: 'left' } })
    expect(second).toMatchObject({ status: 'rejected', reason: { code: 'ABORTED', cause: 'left' } })
    expect(third).toMatchObject({ status: 'fulfilled', value: { outcome: 'allowed' } })
  })
})

test('a caller who leaves between two writes of a contended key has charged nothing, and is told so', async () => {
  const clock = testClock()
  const store = memory({ clock })
  const rival = rateLimit({ kv: store, name: 'api', policies, onUnknown: 'deny', timers: clock })
  let writes = 0
  const kv = intercept(store, async (call, run) => {
    if (call.verb === 'get' && writes > 0) return await new Promise<never>(() => {})
    if (call.verb !== 'get' && writes++ < 2) await rival.consume('ada')
    return await run()
  })
  const api = rateLimit({ kv, name: 'api', policies, onUnknown: 'deny', timers: clock })
  const controller = new AbortController()
  const asked = api.consume('ada', { signal: controller.signal })
  while (writes < 2) await turn()
  await turn()
  controller.abort()
  await expect(asked).rejects.toMatchObject({ code: 'ABORTED' })
  expect((await rival.peek('ada')).policies.hourly.remaining).toBe(998)
})

test('a charge that was made at a wrong time, and does not fit at the right one, is taken back', async () => {
  const clock = testClock()
  const timers = testClock()
  const two = { burst: gcra({ limit: 2, per: '2s' }) }
  const api = rateLimit({ kv: memory({ clock }), name: 'api', policies: two, onUnknown: 'deny', timers, denyCache: 0 })
  await api.consume('ada', { cost: 2 })
  await timers.advance('1s') // and the store's clock stands still
  expect((await api.consume('ada')).outcome).toBe('denied')
  await clock.advance('1s')
  expect((await api.consume('ada')).outcome).toBe('allowed')
})

test('a charge that was made at a time to come is taken back also when nobody waits for it: nobody else is judged at that time (R8)', async () => {
  const clock = testClock()
  const timers = testClock()
  const store = memory({ clock })
  const many = { burst: gcra({ limit: 20, per: '2s' }) }
  let go: ((verdict: Verdict) => void) | undefined
  let isHolding = false
  const kv = faulty(store, { on: () => (isHolding ? new Promise<Verdict>((resolve) => (go = resolve)) : 'pass') })
  const api = rateLimit({ kv, name: 'api', policies: many, onUnknown: 'deny', timers, denyCache: 0 })
  await api.consume('ada', { cost: 20 })
  await timers.advance(900) // and the store's clock stands still
  isHolding = true
  const late = api.consume('ada')
  await timers.advance(50)
  expect((await late).reason).toBe('deadline')
  isHolding = false
  go?.('pass')
  await turn()
  const other = rateLimit({ kv: store, name: 'api', policies: many, onUnknown: 'deny', timers: clock })
  expect((await other.consume('ada')).outcome).toBe('denied')
})

describe('the clock of the store', () => {
  const at = (now: number) => epochMs(1_000_000 + now)

  test('is known as well as the quickest of its calls says, and a slow one spoils nothing', () => {
    const clock = new StoreClock()
    expect(clock.read(at(1), 0, 1)).toBe(true)
    expect(clock.reached(5)).toBe(1_000_005)
    // Forty milliseconds on its way back: by itself it says little.
    expect(clock.read(at(10), 10, 50)).toBe(true)
    expect(clock.reached(60)).toBe(1_000_060)
    expect(clock.notPassed(60)).toBe(1_000_061)
    // Forty on its way there.
    expect(clock.read(at(100), 60, 100)).toBe(true)
    expect(clock.notPassed(100)).toBe(1_000_101)
  })

  test('that only slow calls have told is not guessed at', () => {
    const clock = new StoreClock()
    clock.read(at(20), 0, 40)
    expect(clock.reached(41)).toBeUndefined()
    expect(clock.notPassed(41)).toBe(1_000_062)
    clock.read(at(45), 42, 47)
    expect(clock.reached(47)).toBe(1_000_045)
  })

  test('is read anew after a second: two clocks drift', () => {
    const clock = new StoreClock()
    clock.read(at(0), 0, 0)
    expect(clock.reached(1_000)).toBe(1_001_000)
    clock.read(at(1_100), 1_101, 1_101)
    expect(clock.reached(1_101)).toBe(1_001_100)
    expect(clock.reached(2_102)).toBeUndefined()
  })

  test('that steps contradicts what was read, forward and back', () => {
    for (const step of [-5_000, -20, 20, 5_000]) {
      const clock = new StoreClock()
      clock.read(at(1), 0, 2)
      expect(clock.read(at(11 + step), 10, 12)).toBe(false)
      expect(clock.reached(12)).toBe(1_000_011 + step)
      clock.distrust(12)
      expect([clock.reached(13), clock.notPassed(13)]).toEqual([undefined, undefined])
      expect(clock.reached(1_012)).toBe(1_001_011 + step)
    }
  })
})

test('answers that are slow together cost one call each: the guess of the others is not thrown away', async () => {
  const clock = testClock()
  const store = memory({ clock })
  let delayMs = 0
  const kv = counting(
    intercept(store, async (_call, run) => {
      const answer = await run()
      if (delayMs > 0) await clock.sleep(delayMs)
      return answer
    }),
  )
  const api = rateLimit({ kv, name: 'api', policies: { one: gcra({ limit: 10, per: '1h' }) }, onUnknown: 'deny', timers: clock })
  await api.consume('first')
  kv.reset()
  delayMs = 30
  for (let round = 0; round < 20; round++) {
    const decision = api.consume(`user-${round}`)
    await clock.advance(30)
    expect((await decision).outcome).toBe('allowed')
  }
  expect(kv.counts().total).toBe(20)
})
