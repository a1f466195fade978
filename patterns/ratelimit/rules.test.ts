/**
 * The algorithms beside a dumb log of what was admitted, under random histories; and what they say of themselves.
 * Invariant of each: over-admission 0, against the bound that its doc comment states.
 */
import { describe, expect, test } from 'vitest'
import { seededRandom, type Random } from '../../core/base/random.ts'
import { isKvError } from '../../core/kv/errors.ts'
import {
  adopted,
  blank,
  charged,
  fitsAt,
  partOf,
  planOf,
  rules,
  slotReleased,
  slotRenewed,
  standing,
  violatedBy,
  withSlots,
} from './rules.ts'
import { concurrency } from './rules/concurrency.ts'
import { fixedWindow } from './rules/fixed-window.ts'
import { gcra } from './rules/gcra.ts'
import { slidingWindow } from './rules/sliding-window.ts'
import { tokenBucket } from './rules/token-bucket.ts'
import type { Policy } from './types.ts'

const seed = Number(process.env.HAPAX_SEED)
const startAt = 1_767_225_600_000

interface Admitted {
  readonly at: number
  cost: number
}

/** A random policy of each kind. */
const policies: Readonly<Record<string, (random: Random) => Policy>> = {
  gcra: (random) => gcra({ limit: 1 + random.int(13), per: 1 + random.int(40), burst: 1 + random.int(9) }),
  'token-bucket': (random) => tokenBucket({ capacity: 1 + random.int(9), refill: 1 + random.int(9), per: 1 + random.int(30) }),
  'sliding-window': (random) => slidingWindow({ limit: 1 + random.int(12), per: 1 + random.int(40) }),
  'fixed-window': (random) => fixedWindow({ limit: 1 + random.int(12), per: 1 + random.int(40) }),
}

/** What may be admitted at most from the instant `from` to the instant `to`, both included. */
const boundOf = ({ kind, limit, refill = 1, perMs }: Policy, from: number, to: number): number => {
  switch (kind) {
    case 'gcra':
      return limit + (refill * (to - from)) / perMs
    case 'token-bucket':
      return limit + refill * Math.ceil((to - from) / perMs)
    case 'sliding-window':
      // For whole windows at a time: two of the estimate's bound stand beside each other.
      return to - from < perMs ? Math.max(limit, 2 * limit - 1) : Infinity
    default:
      return limit * (Math.floor((to - from) / perMs) + 2)
  }
}

function admitted(policy: Policy, random: Random, steps: number, withRefunds: boolean): Admitted[] {
  const rule = rules[policy.kind]
  const log: Admitted[] = []
  const receipts: { readonly entry: Admitted; readonly mark: number }[] = []
  let state = rule.fresh
  let now = startAt
  for (let step = 0; step < steps; step++) {
    now += random.chance(0.5) ? 0 : random.int(Math.max(2, random.chance(0.1) ? policy.perMs * 3 : policy.perMs))
    if (withRefunds && receipts.length > 0 && random.chance(0.3)) {
      const { entry, mark } = random.pick(receipts)
      const back = 1 + random.int(entry.cost || 1)
      const remainingBefore = rule.remaining(state, policy, now)
      const next = entry.cost === 0 ? undefined : rule.refund(state, policy, back, mark, now)
      if (next !== undefined) {
        state = next
        entry.cost -= rule.remaining(state, policy, now) - remainingBefore
      }
      continue
    }
    const cost = 1 + random.int(random.chance(0.7) ? 1 : policy.limit)
    const fits = rule.earliest(state, policy, cost, now)
    // Exact: at its instant it fits, a millisecond before it does not, and time alone never makes it fit less (R5).
    expect(fits).toBeGreaterThanOrEqual(now)
    expect(rule.earliest(state, policy, cost, fits)).toBe(fits)
    if (fits > now) expect(rule.earliest(state, policy, cost, fits - 1)).toBe(fits)
    const later = fits + random.int(3 * policy.perMs)
    expect(rule.earliest(state, policy, cost, later)).toBe(later)
    // What remains is what fits, and `moreAt` is when that grows.
    const remaining = rule.remaining(state, policy, now)
    expect(rule.earliest(state, policy, remaining, now)).toBe(now)
    if (remaining < policy.limit) expect(rule.earliest(state, policy, remaining + 1, now)).toBeGreaterThan(now)
    const moreAt = rule.moreAt(state, policy, now, remaining) as number
    if (remaining < policy.limit) {
      expect(rule.remaining(state, policy, moreAt)).toBeGreaterThan(remaining)
      expect(rule.remaining(state, policy, moreAt - 1)).toBe(remaining)
    }
    expect(rule.remaining(state, policy, Math.max(now, rule.endsAt(state, policy)))).toBe(policy.limit)
    if (fits > now) continue
    state = rule.charge(state, policy, cost, now)
    for (const number of state) expect(Number.isSafeInteger(number) && number >= 0).toBe(true)
    expect(state).toHaveLength(rule.size)
    const entry = { at: now, cost }
    log.push(entry)
    receipts.push({ entry, mark: rule.mark(state) })
  }
  return log
}

/** The first stretch that admitted more than the policy states. */
function excessOf(policy: Policy, log: readonly Admitted[]): string | undefined {
  for (let first = 0; first < log.length; first++) {
    let sum = 0
    for (let last = first; last < log.length; last++) {
      const from = (log[first] as Admitted).at
      const to = (log[last] as Admitted).at
      sum += (log[last] as Admitted).cost
      if (sum > boundOf(policy, from, to)) return `${sum} in ${to - from} ms under ${JSON.stringify(policy)}`
    }
  }
  return undefined
}

describe.each(Object.entries(policies))('%s', (_kind, policyOf) => {
  test(`admits no more than it states, says exactly when, and keeps whole numbers: 100 histories (seed ${seed}) (R2, R5, R22)`, () => {
    const random = seededRandom(seed)
    for (let history = 0; history < 100; history++) {
      const policy = policyOf(random)
      const log = admitted(policy, random, 60, false)
      expect(excessOf(policy, log)).toBeUndefined()
    }
  })

  test(`admits no more than it states with refunds of old and new charges: 100 histories (seed ${seed}) (R7)`, () => {
    const random = seededRandom(seed ^ 0x5eed)
    for (let history = 0; history < 100; history++) {
      const policy = policyOf(random)
      const log = admitted(policy, random, 60, true)
      expect(excessOf(policy, log)).toBeUndefined()
    }
  })

  test(`keeps the share that was used when its limit changes, rounded up, and never forgets a denial (seed ${seed}) (R18)`, () => {
    const random = seededRandom(seed ^ 0xc0de)
    for (let round = 0; round < 500; round++) {
      const from = policyOf(random)
      const to = { ...policyOf(random), perMs: from.perMs }
      const { earliest, charge, remaining, rescale, fresh } = rules[from.kind]
      let state = fresh
      for (let count = random.int(6); count > 0; count--) {
        const cost = 1 + random.int(from.limit)
        if (earliest(state, from, cost, startAt) === startAt) state = charge(state, from, cost, startAt)
      }
      const after = rescale(state, from, to, startAt)
      const usedShare = 1 - remaining(state, from, startAt) / from.limit
      const left = remaining(after, to, startAt)
      expect(left).toBeLessThanOrEqual(Math.floor((1 - usedShare) * to.limit + 1e-9))
      expect(left).toBeGreaterThanOrEqual(Math.floor((1 - usedShare) * to.limit + 1e-9) - 1)
      for (const number of after) expect(Number.isSafeInteger(number) && number >= 0).toBe(true)
    }
  })
})

describe('gcra', () => {
  test('is exact for limits that divide no second: nothing is lost to rounding in a million units (R22)', () => {
    const { earliest, charge, fresh } = rules.gcra
    for (const limit of [3, 7, 999_983]) {
      const policy = gcra({ limit, per: '1s', burst: 1 })
      let state = fresh
      let now = startAt
      const count = limit * Math.ceil(20_000 / limit)
      for (let unit = 0; unit < count; unit++) {
        now = earliest(state, policy, 1, now)
        state = charge(state, policy, 1, now)
      }
      // The instant of the next one: count units after the first, at the very rate, had none of them waited for a whole millisecond.
      if (limit < 10) expect(now - startAt).toBeGreaterThanOrEqual(((count - 1) * 1_000) / limit)
      expect((state[0] as number) - startAt * 1_000).toBeGreaterThanOrEqual(Math.floor((count * 1_000_000) / limit))
    }
    // A burst as large as can be, charged one by one: the parts add up to exactly a second.
    const policy = gcra({ limit: 999_983, per: '1s' })
    let state = fresh
    for (let unit = 0; unit < policy.limit; unit++) state = charge(state, policy, 1, startAt)
    expect(state).toEqual([(startAt + 1_000) * 1_000, 0, 0])
  })

  test('counts exactly until the year 2255, and beyond it by debt (R22)', () => {
    const { charge, earliest, fresh } = rules.gcra
    const policy = gcra({ limit: 10, per: '1d' })
    const at = Date.UTC(2250, 0, 1)
    let state = fresh
    for (let unit = 0; unit < 20; unit++) state = charge(state, policy, 1, at)
    expect(state[0]).toBe((at + 2 * 86_400_000) * 1_000)
    expect(Number.isSafeInteger(state[0])).toBe(true)
    expect(earliest(state, policy, 1, at)).toBe(at + 86_400_000 + 8_640_000)
  })

  test('never lets twice the limit through at the edge of a window, as a fixed one does (R2)', () => {
    const through = (policy: Policy): number => {
      const { earliest, charge, fresh } = rules[policy.kind]
      let state = fresh
      let count = 0
      for (const at of [startAt, ...Array.from({ length: 350 }, (_, ms) => startAt + 900 + ms)])
        for (let ask = at === startAt ? 1 : 3; ask > 0; ask--)
          if (earliest(state, policy, 1, at) === at) {
            state = charge(state, policy, 1, at)
            count++
          }
      return count
    }
    expect(through(fixedWindow({ limit: 10, per: '1s' }))).toBe(20)
    expect(through(gcra({ limit: 10, per: '1s' }))).toBe(14)
    expect(through(slidingWindow({ limit: 10, per: '1s' }))).toBeLessThanOrEqual(13)
  })
})

test('a sliding window reaches its stated bound only when the older window filled up at its very end, and evenly used sees its limit (R2)', () => {
  const policy = slidingWindow({ limit: 100, per: '1s' })
  const { earliest, charge, fresh } = rules['sliding-window']
  const run = (instants: readonly number[]): number => {
    let state = charge(fresh, policy, 1, startAt)
    const log = [startAt]
    for (const at of instants)
      if (earliest(state, policy, 1, at) === at) {
        state = charge(state, policy, 1, at)
        log.push(at)
      }
    return Math.max(...log.map((from) => log.filter((at) => at >= from && at < from + 1_000).length))
  }
  const every = (from: number, to: number, each: number): number[] =>
    Array.from({ length: (to - from) * each }, (_, index) => startAt + from + Math.floor(index / each))
  // The unit that opened the window came long before, so one less than the bound, which refunds alone can reach.
  expect(run(every(999, 2_500, 120))).toBe(2 * 100 - 2)
  // One request each 9 ms, or each ms: more than the limit asks, and the estimate is off by one at most.
  const spaced = (ms: number): number[] => Array.from({ length: 2_000 }, (_, index) => startAt + 1 + index * ms)
  expect(run(spaced(1))).toBeLessThanOrEqual(101)
  expect(run(spaced(9))).toBeLessThanOrEqual(101)
  expect(run(spaced(10))).toBe(100)
})

describe('slots', () => {
  const plan = planOf({ slots: concurrency({ limit: 2, lease: '1s' }) })
  test('never hold more than the limit, and a dead holder gives its slot back when its lease ends', () => {
    let record = withSlots(plan, { ...blank(plan, 1), seenAt: startAt }, [7, 1])
    record = withSlots(plan, { ...record, seenAt: startAt + 500 }, [7, 2])
    expect(fitsAt(plan, record, 1, startAt + 999)).toBe(Infinity)
    expect(violatedBy(plan, record, 1, startAt + 999)).toEqual(['slots'])
    expect(fitsAt(plan, record, 1, startAt + 1_000)).toBeLessThanOrEqual(startAt + 1_000)
    expect(standing(plan, record, startAt + 1_000, [])['slots']).toMatchObject({ remaining: 1, unit: 'concurrent-requests' })
  })
  test('are renewed and given back by their holder alone', () => {
    const record = withSlots(plan, { ...blank(plan, 1), seenAt: startAt }, [7, 1])
    expect(slotRenewed(plan, record, [7, 2], startAt + 10)).toBeUndefined()
    expect(slotReleased(plan, record, [8, 1], startAt + 10)).toBeUndefined()
    const renewed = slotRenewed(plan, record, [7, 1], startAt + 700)
    expect(renewed?.states).toEqual([[7, 1, startAt + 1_700]])
    expect(slotReleased(plan, record, [7, 1], startAt + 10)?.states).toEqual([[]])
  })
  test('that have lapsed and were taken by others are not renewed', () => {
    let record = withSlots(plan, { ...blank(plan, 1), seenAt: startAt }, [7, 1])
    record = withSlots(plan, { ...record, seenAt: startAt + 1_000 }, [8, 1])
    expect(slotRenewed(plan, record, [7, 1], startAt + 1_001)).toBeUndefined()
  })
})

describe('several policies', () => {
  const plan = planOf({ burst: gcra({ limit: 2, per: '1s' }), daily: fixedWindow({ limit: 3, per: '1d' }) })
  test('wait for the last of them, and name those that deny (R6)', () => {
    const record = charged(plan, charged(plan, blank(plan, 1), 2, startAt), 1, startAt + 500)
    expect(fitsAt(plan, record, 1, startAt + 501)).toBe(startAt + 86_400_000)
    expect(violatedBy(plan, record, 1, startAt + 501)).toEqual(['burst', 'daily'])
    expect(violatedBy(plan, record, 1, startAt + 10_000)).toEqual(['daily'])
  })
  test('judge at a time that never runs backwards (R8)', () => {
    const record = charged(plan, blank(plan, 1), 2, startAt)
    expect(charged(plan, record, 1, startAt - 10_000).seenAt).toBe(startAt)
    expect(fitsAt(plan, record, 1, startAt - 10_000)).toBe(startAt + 500)
  })
})

test('policies of another plan are kept while they say something, and then leave; those of the same name and kind are carried over (R18, P12)', () => {
  const found = [
    { name: 'burst', policy: gcra({ limit: 10, per: '1s' }), state: [(startAt + 500) * 1_000, 0, 0] },
    { name: 'hourly', policy: fixedWindow({ limit: 9, per: '1h' }), state: [startAt, 4] },
    { name: 'daily', policy: fixedWindow({ limit: 9, per: '1d' }), state: [startAt, 4] },
  ]
  const plan = planOf({ burst: gcra({ limit: 40, per: '1s' }), daily: tokenBucket({ capacity: 9, refill: 9, per: '1d' }) })
  const record = adopted(plan, 5, startAt, found, startAt)
  expect(standing(plan, record, startAt, [])['burst']?.remaining).toBe(20)
  expect(standing(plan, record, startAt, [])['daily']?.remaining).toBe(9)
  expect(record.others.map(({ name }) => name)).toEqual(['hourly', 'daily'])
  expect(charged(plan, record, 1, startAt + 3_600_000).others.map(({ name }) => name)).toEqual(['daily'])
  expect(charged(plan, record, 1, startAt + 86_400_000).others).toEqual([])
})

test('a part of a plan allows a whole number from 1, and together with the others no faster rate', () => {
  const plan = planOf({
    burst: gcra({ limit: 20, per: '1s' }),
    few: fixedWindow({ limit: 2, per: '1m' }),
    bucket: tokenBucket({ capacity: 9, refill: 3, per: '1s' }),
    slots: concurrency({ limit: 8, lease: '1s' }),
  })
  const part = Object.fromEntries(partOf(plan, 4).lines.map(({ name, policy }) => [name, policy]))
  expect(part['burst']).toMatchObject({ limit: 5, refill: 20, perMs: 4_000 })
  expect(part['few']).toMatchObject({ limit: 1, perMs: 120_000 })
  expect(part['bucket']).toMatchObject({ limit: 2, refill: 3, perMs: 4_000 })
  expect(part['slots']).toMatchObject({ limit: 2, perMs: 1_000 })
})

describe('what a policy is given', () => {
  const refusals: Readonly<Record<string, () => unknown>> = {
    'a limit of 0': () => gcra({ limit: 0, per: '1s' }),
    'half a limit': () => fixedWindow({ limit: 0.5, per: '1s' }),
    'no time': () => slidingWindow({ limit: 1, per: 0 }),
    'a time that is no duration': () => tokenBucket({ capacity: 1, refill: 1, per: 'soon' as '1s' }),
    'a refill of 0': () => tokenBucket({ capacity: 1, refill: 0, per: '1s' }),
    'numbers that could not be exact': () => gcra({ limit: 999_999_999_989, per: '1s' }),
    'a sliding window beyond exact numbers': () => slidingWindow({ limit: 1e9, per: '30d' }),
    'more than 30 years': () => fixedWindow({ limit: 1, per: '20000d' }),
    'a unit that is no token': () => gcra({ limit: 1, per: '1s', unit: 'LLM tokens' }),
    'too many slots': () => concurrency({ limit: 1_025, lease: '1s' }),
    'a lease that is too short': () => concurrency({ limit: 1, lease: 99 }),
    'no policies': () => planOf({}),
    'nine policies': () => planOf(Object.fromEntries(Array.from({ length: 9 }, (_, at) => [`p${at}`, gcra({ limit: 1, per: '1s' })]))),
    'a name with a space': () => planOf({ 'a b': gcra({ limit: 1, per: '1s' }) }),
    'a policy of an unknown kind': () => planOf({ a: { ...gcra({ limit: 1, per: '1s' }), kind: 'leaky' as 'gcra' } }),
  }
  test.each(Object.entries(refusals))('is refused: %s', (_what, make) => {
    expect(make).toThrow(expect.toSatisfy((error: unknown) => isKvError(error, 'INVALID_ARGUMENT')))
  })
})
