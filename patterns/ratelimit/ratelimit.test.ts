/**
 * What a limiter does, as its users see it: decisions, receipts, reservations, and what it costs the store.
 * Trap numbers (R1 to R22) stand in the titles.
 */
import { describe, expect, test } from 'vitest'
import { memory } from '../../core/stores/memory.ts'
import { counting, testClock } from '../../core/testing/index.ts'
import { concurrency, fixedWindow, gcra, rateLimit, slidingWindow, tokenBucket, type Policy, type RateLimitOptions } from './index.ts'
import { Recent } from './recent.ts'

function limiter<const Name extends string>(
  policies: Readonly<Record<Name, Policy>>,
  options: Partial<Omit<RateLimitOptions<Name>, 'onUnknown' | 'instances'>> = {},
) {
  const clock = testClock()
  const kv = counting(memory({ clock }))
  const make = (more: Partial<Omit<RateLimitOptions<Name>, 'onUnknown' | 'instances'>> = {}) =>
    rateLimit<Name>({ kv, name: 'api', policies, onUnknown: 'deny', timers: clock, ...options, ...more })
  return { clock, kv, api: make(), make }
}

const allowedOf = async (count: number, ask: () => Promise<{ readonly allowed: boolean }>): Promise<number> => {
  let allowed = 0
  for (let index = 0; index < count; index++) if ((await ask()).allowed) allowed++
  return allowed
}

describe('a decision', () => {
  test('says how each policy stands, under its own name', async () => {
    const { api } = limiter({ burst: gcra({ limit: 20, per: '1s' }), daily: fixedWindow({ limit: 10_000, per: '1d' }) })
    const decision = await api.consume('ada', { cost: 3 })
    expect(decision.outcome).toBe('allowed')
    expect(decision.policies.burst).toEqual({ limit: 20, remaining: 17, resetMs: 50, windowMs: 1_000, unit: 'requests', violated: false })
    expect(decision.policies.daily).toEqual({
      limit: 10_000,
      remaining: 9_997,
      resetMs: 86_400_000,
      windowMs: 86_400_000,
      unit: 'requests',
      violated: false,
    })
  })

  test('is a value when it denies, with the exact time until this very cost fits, and nothing is consumed (R5, R13)', async () => {
    const { api, clock } = limiter({ burst: gcra({ limit: 10, per: '1s' }) })
    await api.consume('ada', { cost: 8 })
    const denied = await api.consume('ada', { cost: 5 })
    expect(denied).toMatchObject({ outcome: 'denied', allowed: false, violated: ['burst'], retryAfterMs: 300 })
    expect(denied.policies.burst).toMatchObject({ remaining: 2, violated: true })
    expect((await api.peek('ada', { cost: 2 })).allowed).toBe(true)
    await clock.advance(299)
    expect((await api.consume('ada', { cost: 5 })).retryAfterMs).toBe(1)
    await clock.advance(1)
    expect((await api.consume('ada', { cost: 5 })).allowed).toBe(true)
  })

  test('throws at once for a cost that can never fit, and for one that is no whole number (R4)', async () => {
    const { api, kv } = limiter({ burst: gcra({ limit: 10, per: '1s' }), small: tokenBucket({ capacity: 5, refill: 5, per: '1m' }) })
    await expect(api.consume('ada', { cost: 6 })).rejects.toMatchObject({ code: 'COST_TOO_LARGE', id: 'HPX-4201' })
    for (const cost of [-1, 0.5, Number.NaN, Infinity])
      await expect(api.consume('ada', { cost })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    expect(kv.counts().total).toBe(0)
  })

  test('charges all policies or none (R6)', async () => {
    const { api, clock } = limiter({ second: fixedWindow({ limit: 1, per: '1s' }), long: fixedWindow({ limit: 100, per: '1000s' }) })
    expect(await allowedOf(5, () => api.consume('ada'))).toBe(1)
    const denied = await api.consume('ada')
    expect(denied.violated).toEqual(['second'])
    expect(denied.policies.long).toMatchObject({ remaining: 99, violated: false })
    await clock.advance('1s')
    expect((await api.consume('ada')).policies.long.remaining).toBe(98)
  })

  test('writes nothing when it denies (R3), so a client that goes on asking is not locked out for ever', async () => {
    const { api, clock, kv } = limiter({ burst: gcra({ limit: 3, per: '1s' }) }, { denyCache: 0 })
    expect(await allowedOf(3, () => api.consume('ada'))).toBe(3)
    kv.reset()
    let allowed = 0
    for (let ms = 0; ms < 2_000; ms += 100) {
      if ((await api.consume('ada')).allowed) allowed++
      await clock.advance(100)
    }
    expect(allowed).toBe(5)
    const { create, update, set } = kv.counts()
    expect(create + update + set).toBe(5)
  })
})

test('refused requests count with countRefused, up to one limit more (R3)', async () => {
  const { api, clock } = limiter({ burst: gcra({ limit: 3, per: '3s' }) }, { countRefused: true })
  expect(await allowedOf(20, () => api.consume('ada'))).toBe(3)
  expect((await api.consume('ada')).retryAfterMs).toBe(4_000)
  await clock.advance(4_000)
  expect((await api.consume('ada')).allowed).toBe(true)
})

describe('a key', () => {
  test('costs one call a request when nobody else is there, and none while it is denied (R9)', async () => {
    const { api, kv } = limiter({ burst: gcra({ limit: 100, per: '1d' }) })
    await api.consume('ada')
    kv.reset()
    await allowedOf(99, () => api.consume('ada'))
    expect(kv.counts().total).toBe(99)
    kv.reset()
    expect(await allowedOf(500, () => api.consume('ada'))).toBe(0)
    expect(kv.counts().total).toBeLessThanOrEqual(1)
  })

  test('is allowed exactly its limit by 400 callers at once, in few calls (R9)', async () => {
    const { api, kv } = limiter({ burst: gcra({ limit: 100, per: '1d' }) })
    const decisions = await Promise.all(Array.from({ length: 400 }, () => api.consume('ada')))
    expect(decisions.filter(({ allowed }) => allowed)).toHaveLength(100)
    expect(kv.counts().total).toBeLessThan(10)
  })

  test('must be a string: a name that is missing is no name that all share (R14)', async () => {
    const { api, kv } = limiter({ one: gcra({ limit: 10, per: '1d' }) })
    for (const key of [undefined, null, 5, '', ['ada'], {}])
      await expect(api.consume(key as string)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    expect(kv.counts().total).toBe(0)
  })

  test('that is long is remembered by its hash: who chooses it does not choose how much is kept (R21)', async () => {
    const names: string[] = []
    const states = new Recent(64, (key) => {
      names.push(key)
      return `limit:api#${key.length}-${key.slice(0, 40)}`
    })
    const long = 'x'.repeat(16_384)
    expect(states.of(long)).toBe(states.of(long))
    expect(states.of(long).storeKey).toBe(`limit:api#16384-${'x'.repeat(40)}`)
    // The name under which it is remembered is short, and no other key's.
    expect(states.of(`limit:api#16384-${'x'.repeat(40)}`)).not.toBe(states.of(long))
    names.length = 0
    states.of('ada')
    states.of('ada')
    expect(names).toEqual(['ada'])
    states.of(long)
    expect(names).toEqual(['ada', long])
  })

  test('never equals another key or limiter, however colons and lengths fall (R15)', async () => {
    const { kv, clock } = limiter({ one: fixedWindow({ limit: 1, per: '1d' }) })
    const make = (name: string) =>
      rateLimit({ kv, name, policies: { one: fixedWindow({ limit: 1, per: '1d' }) }, onUnknown: 'deny', timers: clock })
    const long = 'x'.repeat(65)
    const asked: [string, string][] = [
      ['a', 'b:c'],
      ['a', 'b'],
      ['a.b', 'c'],
      ['a', long],
      ['a', `${long}y`],
      ['a', 'ä'],
      ['a', 'a\u0308'],
      ['a', '\ud800'],
      ['a', '\ud801'],
      ['a', 'b c'],
    ]
    for (const [name, key] of asked) expect([name, key, (await make(name).consume(key)).allowed]).toEqual([name, key, true])
    expect((await make('a').consume(long)).allowed).toBe(false)
    await expect(make('a').consume('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    expect(() => make('a:b')).toThrow('name')
  })

  test('leaves the store when its last charge has run out, not later for being asked (R1, R21)', async () => {
    const { api, kv, clock } = limiter({ burst: gcra({ limit: 10, per: '1s' }) })
    await api.consume('ada', { cost: 10 })
    await clock.advance(500)
    await api.consume('ada', { cost: 10 })
    await api.consume('ada')
    const { entry } = await kv.get('limit:api:ada')
    expect(entry?.expiresAt).toBe(clock.now() + 600)
    await clock.advance(600)
    expect((await kv.get('limit:api:ada')).entry).toBeUndefined()
  })

  test('is limited below a second as well (R17)', async () => {
    const { api, clock } = limiter({ burst: fixedWindow({ limit: 2, per: '500ms' }) })
    expect(await allowedOf(5, () => api.consume('ada'))).toBe(2)
    await clock.advance(499)
    expect((await api.consume('ada')).allowed).toBe(false)
    await clock.advance(1)
    expect(await allowedOf(5, () => api.consume('ada'))).toBe(2)
  })

  test('is forgotten by reset, and the next request is not denied from memory', async () => {
    const { api, kv } = limiter({ burst: gcra({ limit: 1, per: '1d' }) })
    expect(await allowedOf(5, () => api.consume('ada'))).toBe(1)
    await api.reset('ada')
    kv.reset()
    expect(await allowedOf(5, () => api.consume('ada'))).toBe(1)
  })

  test('that another process reset is denied from memory no longer than the deny cache says', async () => {
    const { api, make, clock } = limiter({ burst: gcra({ limit: 1, per: '1d' }) })
    const other = make()
    expect(await allowedOf(2, () => api.consume('ada'))).toBe(1)
    await other.reset('ada')
    expect((await api.consume('ada')).local).toBe(true)
    await clock.advance('1001ms')
    expect(await api.consume('ada')).toMatchObject({ allowed: true })
  })
})

describe('a receipt', () => {
  const kinds: Record<string, Policy> = {
    gcra: gcra({ limit: 10, per: '1s' }),
    'token bucket': tokenBucket({ capacity: 10, refill: 10, per: '1s' }),
    'sliding window': slidingWindow({ limit: 10, per: '1s' }),
    'fixed window': fixedWindow({ limit: 10, per: '1s' }),
  }
  for (const [kind, policy] of Object.entries(kinds)) {
    test(`gives back to the window that was charged, and to no other (R7): ${kind}`, async () => {
      const { api, clock } = limiter({ one: policy })
      const { receipt } = await api.consume('ada', { cost: 6 })
      expect(await api.refund(receipt, 2)).toEqual({ outcome: 'applied' })
      expect((await api.peek('ada')).policies.one.remaining).toBe(6)
      await clock.advance('3s')
      await api.consume('ada', { cost: 5 })
      expect(await api.refund(receipt)).toEqual({ outcome: 'void' })
      expect((await api.peek('ada')).policies.one.remaining).toBe(5)
    })
  }

  test('gives back no more than was charged, however often it is used', async () => {
    const { api } = limiter({ one: fixedWindow({ limit: 10, per: '1d' }) })
    await api.consume('ada', { cost: 4 })
    const { receipt } = await api.consume('ada', { cost: 3 })
    const outcomes = [await api.refund(receipt, 2), await api.refund(receipt, 2), await api.refund(receipt, 2)]
    expect(outcomes.map(({ outcome }) => outcome)).toEqual(['applied', 'applied', 'void'])
    expect((await api.peek('ada')).policies.one.remaining).toBe(6)
  })

  test('of a life that was reset gives back nothing', async () => {
    const { api } = limiter({ one: fixedWindow({ limit: 10, per: '1d' }) })
    const { receipt } = await api.consume('ada', { cost: 4 })
    await api.reset('ada')
    await api.consume('ada', { cost: 3 })
    expect(await api.refund(receipt)).toEqual({ outcome: 'void' })
    expect((await api.peek('ada')).policies.one.remaining).toBe(7)
  })

  test('travels as JSON to another process', async () => {
    const { api, make } = limiter({ one: gcra({ limit: 10, per: '1d' }) })
    const { receipt } = await api.consume('ada', { cost: 4 })
    expect(await make().refund(JSON.parse(JSON.stringify(receipt)) as typeof receipt)).toEqual({ outcome: 'applied' })
    expect((await make().peek('ada')).policies.one.remaining).toBe(10)
  })

  test('settles an estimate: too much is given back, too little is charged, up to one limit of debt', async () => {
    const { api, clock } = limiter({ tokens: gcra({ limit: 1_000, per: '1s', unit: 'tokens' }) })
    const first = await api.consume('ada', { cost: 500 })
    expect(await api.settle(first.receipt, 120)).toEqual({ outcome: 'applied' })
    expect((await api.peek('ada')).policies.tokens.remaining).toBe(880)
    const second = await api.consume('ada', { cost: 500 })
    expect(await api.settle(second.receipt, 50_000)).toEqual({ outcome: 'applied' })
    expect(await api.peek('ada')).toMatchObject({ outcome: 'denied', retryAfterMs: 1_001 })
    await clock.advance(1_001)
    expect((await api.consume('ada')).allowed).toBe(true)
  })

  for (const [kind, policy] of Object.entries({
    gcra: gcra({ limit: 10, per: '1h' }),
    tokenBucket: tokenBucket({ capacity: 10, refill: 10, per: '1h' }),
    slidingWindow: slidingWindow({ limit: 10, per: '1h' }),
    fixedWindow: fixedWindow({ limit: 10, per: '1h' }),
  }))
    test(`gives back no more than was charged after a settlement that ran into the bound of debt, nor what others used: ${kind} (R7)`, async () => {
      const { api } = limiter({ one: policy })
      const { receipt } = await api.consume('ada')
      await api.consume('ada', { cost: 9 })
      await api.settle(receipt, 1_000)
      await api.refund(receipt)
      await api.settle(receipt, 0)
      expect((await api.peek('ada')).policies.one.remaining).toBe(0)
    })

  test('that is none is refused, and the record stays readable', async () => {
    const { api } = limiter({ one: gcra({ limit: 10, per: '1d' }) })
    const { receipt } = await api.consume('ada')
    if (receipt === undefined) return expect.unreachable('it was allowed')
    for (const mark of [Number.NaN, 0.5, 'x', null]) {
      const forged = { ...receipt, marks: [receipt.marks[0], mark] as number[] }
      await expect(api.refund(forged)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
      await expect(api.settle(forged, 0)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    }
    expect((await api.peek('ada')).outcome).toBe('allowed')
  })
})

describe('a reservation', () => {
  test('is charged for the instant at which it may go, in order, and is denied beyond maxWait', async () => {
    const { api } = limiter({ rate: gcra({ limit: 10, per: '1s', burst: 1 }) })
    const waits: (number | undefined)[] = []
    for (let index = 0; index < 5; index++) waits.push((await api.reserve('ada', { maxWait: '300ms' })).waitMs)
    expect(waits).toEqual([0, 100, 200, 300, undefined])
    expect(await api.reserve('ada', { maxWait: '300ms' })).toMatchObject({ outcome: 'denied', retryAfterMs: 400 })
  })

  test('fits all policies at its instant, and nobody slips in before it', async () => {
    const { api, clock } = limiter({ rate: gcra({ limit: 2, per: '1s' }), minute: fixedWindow({ limit: 3, per: '1m' }) })
    await api.consume('ada')
    await clock.advance('10s')
    await api.consume('ada', { cost: 2 })
    const reserved = await api.reserve('ada', { cost: 2, maxWait: '1m' })
    expect(reserved).toMatchObject({ outcome: 'allowed', waitMs: 50_000 })
    expect((await api.consume('ada')).allowed).toBe(false)
    await clock.advance('50s')
    expect(await allowedOf(5, () => api.consume('ada'))).toBe(0)
    await clock.advance('1s')
    expect(await allowedOf(5, () => api.consume('ada'))).toBe(1)
  })

  test('can be given back before its time', async () => {
    const { api } = limiter({ rate: fixedWindow({ limit: 1, per: '1s' }) })
    await api.consume('ada')
    const { receipt } = await api.reserve('ada', { maxWait: '1s' })
    expect(await api.refund(receipt)).toEqual({ outcome: 'applied' })
  })
})

test('a limiter with slots refuses consume and reserve, which could not give a slot back', async () => {
  const { api } = limiter({ slots: concurrency({ limit: 2, lease: '1s' }) })
  expect(api.hasSlots).toBe(true)
  await expect(api.consume('ada')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  await expect(api.reserve('ada', { maxWait: 0 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
})

test('a step of the clock does not give a limit anew, nor lock a key out for longer than the step (R8)', async () => {
  const { api, clock } = limiter({ burst: fixedWindow({ limit: 2, per: '1m' }) }, { denyCache: 0 })
  await api.consume('ada', { cost: 2 })
  clock.set(clock.now() - 3_600_000)
  await clock.advance('2s')
  expect(await allowedOf(3, () => api.consume('ada'))).toBe(0)
  clock.set(clock.now() + 3_660_000)
  await clock.advance('2s')
  expect(await allowedOf(3, () => api.consume('ada'))).toBe(2)
})

test('onUnknown must be said, and instances with local (R11)', () => {
  const kv = memory()
  const make = (more: object) => () =>
    rateLimit({ kv, name: 'api', policies: { burst: gcra({ limit: 1, per: '1s' }) }, ...more } as unknown as RateLimitOptions<'burst'>)
  expect(make({})).toThrow('onUnknown')
  expect(make({ onUnknown: 'maybe' })).toThrow('onUnknown')
  expect(make({ onUnknown: 'local' })).toThrow('instances')
  expect(make({ onUnknown: 'local', instances: 0 })).toThrow('instances')
  expect(make({ onUnknown: 'local', instances: 2 })).not.toThrow()
})
