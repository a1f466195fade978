/** Histories made by hand: each rule with a history that keeps it and one that breaks it. */
import { describe, expect, it } from 'vitest'
import { epochMs, type Millis } from '../../core/base/types.ts'
import type { ExpiryChange } from '../../core/kv/expiry.ts'
import type { CallAnswer, HistoryOperation, HistoryVerb, Shown, Value } from './history.ts'
import { check, checkAll, told, type Verdict } from './linearizable.ts'

const boundMs = 5
const at0 = { boundMs }
interface Ask {
  readonly value?: Value
  readonly ifVersion?: string
  readonly expiry?: ExpiryChange
  readonly attempts?: number
}

/** One operation; its times as `[called, returned]`. */
const did = (verb: HistoryVerb, [calledAt, returnedAt]: readonly [number, number], ask: Ask, answer: CallAnswer): HistoryOperation => ({
  client: 'c',
  key: 'k',
  verb,
  attempts: 1,
  calledAt,
  returnedAt,
  answer,
  ...ask,
})
/** Entries of the life that began at 0, and of others. */
const entry = (value: Value, { version = `v${value}`, createdAt = 0, expiresAt }: Partial<Shown> = {}): Shown =>
  expiresAt === undefined ? { value, version, createdAt } : { value, version, createdAt, expiresAt }
const applied = (shown?: Shown): CallAnswer => (shown ? { type: 'applied', entry: shown, now: 0 } : { type: 'applied', now: 0 })
const reads = (shown?: Shown): CallAnswer => (shown ? { type: 'read', entry: shown, now: 0 } : { type: 'read', now: 0 })
const unknown: CallAnswer = { type: 'unknown' }
const never = Infinity
const until = (at: number): ExpiryChange => ({ type: 'until', at: epochMs(at) })
const ttl = (ttlMs: number): ExpiryChange => ({ type: 'set', ttlMs: ttlMs as Millis })

const created = did('create', [0, 1], { value: 1 }, applied(entry(1)))
const updated = did('update', [2, 3], { value: 2, ifVersion: 'v1' }, applied(entry(2)))
const got = (times: readonly [number, number], shown?: Shown): HistoryOperation => did('get', times, {}, reads(shown))
const destroyed = did('destroy', [4, 5], {}, applied(entry(2)))

const good = (...operations: readonly HistoryOperation[]): void => {
  const verdict = check(operations, at0)
  expect(verdict.type, verdict.type === 'violation' ? told(verdict) : '').toBe('linearizable')
}
const bad = (...operations: readonly HistoryOperation[]): Verdict & { type: 'violation' } => {
  const verdict = check(operations, at0)
  if (verdict.type !== 'violation') expect.fail(`it is ${verdict.type}`)
  return verdict
}

describe('order and values', () => {
  it('takes one operation after the other', () => {
    good()
    good(got([0, 1]))
    good(created, updated, got([3.5, 3.8], entry(2)), destroyed, got([6, 7]))
  })

  it('lets operations that overlap come in any order', () => {
    good(created, did('update', [2, 9], { value: 2, ifVersion: 'v1' }, applied(entry(2))), got([3, 4], entry(1)), got([5, 6], entry(2)))
  })

  it('finds a stale read', () => {
    bad(created, updated, got([3.5, 4], entry(1)))
  })

  it('finds a new value and then the old one, while the write is still under way', () => {
    bad(created, did('update', [2, 9], { value: 2, ifVersion: 'v1' }, applied(entry(2))), got([3, 4], entry(2)), got([5, 6], entry(1)))
  })

  it('finds a value that is read before it was written, and one that nobody wrote', () => {
    bad(created, got([1.5, 1.8], entry(2)), updated)
    expect(bad(created, got([2, 3], entry(7))).reason).toBe('7 is shown, and nobody wrote it')
  })

  it('finds a lost update: two that were applied to one state', () => {
    bad(created, updated, did('update', [4, 5], { value: 3, ifVersion: 'v1' }, applied(entry(3))))
    bad(
      created,
      did('update', [2, 6], { value: 2, ifVersion: 'v1' }, applied(entry(2))),
      did('update', [2, 6], { value: 3, ifVersion: 'v1' }, applied(entry(3))),
    )
  })

  it('finds a lost write without a condition by who reads the state before it', () => {
    bad(
      created,
      did('set', [2, 3], { value: 2 }, applied(entry(2))),
      did('create', [4, 5], { value: 3 }, { type: 'exists', entry: entry(1), now: 0 }),
    )
  })

  it('finds a key that is back after its destroy', () => {
    bad(created, updated, destroyed, got([6, 7], entry(2)))
    bad(created, updated, destroyed, did('update', [6, 7], { value: 3 }, applied(entry(3))))
    bad(created, updated, destroyed, did('destroy', [6, 7], {}, applied(entry(2))))
  })

  it('finds two creates of one life', () => {
    bad(created, did('create', [2, 3], { value: 2 }, applied(entry(2, { createdAt: 2 }))))
    good(created, did('destroy', [2, 3], {}, applied(entry(1))), did('create', [4, 5], { value: 2 }, applied(entry(2, { createdAt: 4 }))))
  })

  it('takes a destroy that shows nothing for one of anything, and one that shows an entry for its end', () => {
    good(created, did('destroy', [2, 3], {}, applied()), got([4, 5]))
    good(did('destroy', [2, 3], {}, applied()), got([4, 5]))
    bad(created, updated, did('destroy', [4, 5], {}, applied(entry(1))))
  })

  it('finds refusals that no state gives', () => {
    bad(created, did('update', [2, 3], { value: 2 }, { type: 'missing', now: 0 }))
    bad(did('create', [2, 3], { value: 2 }, { type: 'exists', entry: entry(1), now: 0 }))
    bad(created, did('update', [2, 3], { value: 2, ifVersion: 'v1' }, { type: 'version', entry: entry(1), now: 0 }))
    bad(created, did('set', [2, 3], { value: 2 }, { type: 'missing', now: 0 }))
    good(created, updated, did('update', [4, 5], { value: 3, ifVersion: 'v1' }, { type: 'version', entry: entry(2), now: 0 }))
    good(did('set', [2, 3], { value: 2, ifVersion: 'v0' }, { type: 'missing', now: 0 }))
  })

  it('finds answers that their verb never gets', () => {
    bad(did('get', [0, 1], {}, { type: 'missing', now: 0 }))
    bad(did('create', [0, 1], { value: 1 }, { type: 'missing', now: 0 }))
    bad(did('update', [0, 1], { value: 1 }, reads()))
    bad(created, did('set', [2, 3], { value: 2 }, applied(entry(1))))
    bad(did('create', [0, 1], { value: 1 }, applied()))
  })
})

describe('unknown outcomes', () => {
  const late = did('set', [2, never], { value: 2 }, unknown)

  it('may take effect at once, later or never', () => {
    good(created, late, got([4, 5], entry(2)))
    good(created, late, got([4, 5], entry(1)), got([100, 101], entry(2)))
    good(created, late, got([4, 5], entry(1)), got([100, 101], entry(1)))
  })

  it('take effect once, and not before they were asked for', () => {
    bad(created, late, got([4, 5], entry(2)), did('set', [6, 7], { value: 3 }, applied(entry(3))), got([8, 9], entry(2)))
    bad(created, got([1.2, 1.5], entry(2)), late)
  })

  it('have one version, which whoever sees it first gives away', () => {
    const read = got([4, 5], entry(2, { version: 'x' }))
    good(created, late, read, did('update', [6, 7], { value: 3, ifVersion: 'x' }, applied(entry(3))))
    expect(bad(created, late, read, got([6, 7], entry(2, { version: 'y' }))).reason).toBe('2 is shown with two versions, x and y')
    bad(created, late, read, did('update', [6, 7], { value: 3, ifVersion: 'v1' }, applied(entry(3))))
  })

  it('explain what nobody else did: an absence, a life that nobody saw, a condition on a version that was never shown', () => {
    good(created, did('destroy', [2, never], {}, unknown), got([4, 5]))
    bad(created, did('destroy', [2, never], { ifVersion: 'v2' }, unknown), updated, got([1.5, 1.8]))
    good(did('set', [0, never], { value: 1 }, unknown), did('update', [2, 3], { value: 2 }, applied(entry(2))))
    good(did('set', [0, never], { value: 1 }, unknown), did('update', [2, 3], { value: 2, ifVersion: 'u' }, applied(entry(2))))
    bad(did('update', [0, never], { value: 1 }, unknown), did('update', [2, 3], { value: 2 }, applied(entry(2))))
  })

  it('have no effect when their answer says so', () => {
    const refused = did('set', [2, 3], { value: 2 }, { type: 'no-effect', why: 'contention' })
    good(created, refused, got([4, 5], entry(1)))
    expect(bad(created, refused, got([4, 5], entry(2))).reason).toContain('was answered no-effect')
    bad(created, did('destroy', [2, 3], {}, { type: 'no-effect', why: 'contention' }), got([4, 5]))
  })

  it('are refused for good when their answer says so', () => {
    const refused = did('create', [2, 3], { value: 2 }, { type: 'exists', entry: entry(1), now: 0 })
    expect(bad(created, refused, got([4, 5], entry(2))).reason).toContain('was answered exists')
  })
})

describe('requests that were sent again', () => {
  const between = did('set', [4, 5], { value: 3 }, applied(entry(3)))
  it('take effect once, at any instant from the first sending to the last answer', () => {
    good(created, did('set', [2, 9], { value: 2, attempts: 2 }, applied(entry(2))), between, got([6, 7], entry(3)), got([10, 11], entry(3)))
    good(created, did('set', [2, 9], { value: 2, attempts: 2 }, applied(entry(2))), between, got([6, 7], entry(3)), got([10, 11], entry(2)))
  })

  it('are found out when they took effect twice', () => {
    const twice = did('set', [2, 9], { value: 2, attempts: 2 }, applied(entry(2)))
    bad(created, twice, got([3, 3.5], entry(2)), between, got([6, 7], entry(3)), got([10, 11], entry(2)))
    bad(created, twice, got([3, 3.5], entry(2, { version: 'once' })))
  })
})

describe('versions and births', () => {
  it('finds a version that two states have', () => {
    expect(bad(created, did('update', [2, 3], { value: 2 }, applied(entry(2, { version: 'v1' })))).reason).toBe(
      'version v1 is shown with two values, 1 and 2',
    )
  })

  it('finds a birth that changes within a life, and a life that is older than its request', () => {
    bad(created, did('update', [2, 3], { value: 2 }, applied(entry(2, { createdAt: 2 }))))
    bad(did('create', [20, 21], { value: 1 }, applied(entry(1, { createdAt: 14.9 }))))
    good(did('create', [20, 21], { value: 1 }, applied(entry(1, { createdAt: 15 }))))
    bad(created, got([2, 3], entry(1, { createdAt: 1 })))
  })

  it('does not compare them when it is told not to', () => {
    const relaxed = { boundMs, isStrict: false }
    const history = [created, did('update', [2, 3], { value: 2, ifVersion: 'v1' }, applied(entry(2, { version: 'v1', createdAt: 9 })))]
    expect(check(history, relaxed).type).toBe('linearizable')
    expect(check([...history, got([4, 5], entry(1))], relaxed).type).toBe('violation')
    expect(check([...history, did('update', [4, 5], { value: 3, ifVersion: 'v0' }, applied(entry(3)))], relaxed).type).toBe('violation')
  })
})

describe('expiry', () => {
  const short = did('create', [0, 1], { value: 1, expiry: ttl(100) }, applied(entry(1, { expiresAt: 100 })))
  const alive = entry(1, { expiresAt: 100 })

  it('is one death within the bound of its instant', () => {
    good(short, got([94, 105], alive), got([105, 106]))
    good(short, got([94, 95], alive), got([94, 95.1]))
    bad(short, got([90, 94.9]))
    bad(short, got([105.1, 106], alive))
  })

  it('happens once: seen dead is dead', () => {
    bad(short, got([97, 98]), got([99, 100], alive))
    good(short, got([97, 99]), got([98, 100], alive))
    bad(short, got([97, 98]), did('update', [99, 100], { value: 2 }, applied(entry(2, { expiresAt: 100 }))))
  })

  it('does not happen to what was written anew in time', () => {
    const kept = did('update', [90, 91], { value: 2, expiry: { type: 'never' } }, applied(entry(2)))
    good(short, kept, got([200, 201], entry(2)))
    bad(short, kept, got([200, 201]))
    bad(short, did('update', [106, 107], { value: 2, expiry: { type: 'never' } }, applied(entry(2))))
  })

  it('lets a later write come only after the instant of an earlier one that is ordered before it', () => {
    // The get of 1 has to come by 105, so what is ordered before it has to come by then as well.
    const slow = did('get', [0, 300], {}, reads(alive))
    good(short, slow, did('set', [110, 111], { value: 2 }, applied(entry(2, { createdAt: 110 }))))
    bad(short, did('set', [110, 111], { value: 2 }, applied(entry(2))))
  })

  it('takes a death for a moment that passes: what comes after it is later', () => {
    // 2 can only be made when 1 is dead, at 95 or later, and is then dead itself.
    bad(
      short,
      did('create', [2, 200], { value: 2, expiry: until(50) }, applied(entry(2, { createdAt: 2, expiresAt: 50 }))),
      got([3, 150], entry(2, { createdAt: 2, expiresAt: 50 })),
    )
  })

  it('does not take a read as early as it can be when something has to come before its time', () => {
    const made = entry(1, { expiresAt: 20 })
    good(did('create', [0, 300], { value: 1, expiry: until(20) }, applied(made)), got([0, 300], made), got([50, 200]))
  })

  it('is what the request asked for, counted from an instant within the call', () => {
    const life = (expiresAt: number, [called, returned]: readonly [number, number] = [50, 60]) =>
      did('create', [called, returned], { value: 1, expiry: ttl(100) }, applied(entry(1, { createdAt: 50, expiresAt })))
    good(life(145))
    good(life(165))
    bad(life(144.9))
    bad(life(165.1))
    bad(did('create', [50, 60], { value: 1, expiry: ttl(100) }, applied(entry(1, { createdAt: 50 }))))
    bad(did('create', [50, 60], { value: 1 }, applied(entry(1, { createdAt: 50, expiresAt: 150 }))))
  })

  it('is kept, extended, ended or set to an instant by updates', () => {
    const change = (expiry: ExpiryChange | undefined, expiresAt: number | undefined) =>
      did('update', [10, 11], { value: 2, ...(expiry ? { expiry } : {}) }, applied(entry(2, expiresAt === undefined ? {} : { expiresAt })))
    good(short, change(undefined, 100))
    bad(short, change(undefined, 101))
    bad(short, change({ type: 'keep' }, undefined))
    good(short, change({ type: 'extend', ttlMs: 20 as Millis }, 100))
    bad(short, change({ type: 'extend', ttlMs: 20 as Millis }, 30))
    good(short, change({ type: 'extend', ttlMs: 200 as Millis }, 210))
    bad(short, change({ type: 'never' }, 100))
    good(short, change(until(70), 70))
    bad(short, change(until(70), 71))
  })

  it('of an unknown write is learned from whoever shows it', () => {
    const late = did('set', [10, never], { value: 2, expiry: ttl(50) }, unknown)
    good(created, late, got([20, 21], entry(2, { expiresAt: 62 })), got([68, 69]))
    bad(created, late, got([20, 21], entry(2, { expiresAt: 54 })))
    bad(created, late, got([20, 21], entry(2, { expiresAt: 62 })), got([22, 23], entry(2, { expiresAt: 63 })))
    bad(created, late, got([20, 21], entry(2)))
    good(created, late, got([60, 61]))
    bad(created, late, got([40, 49]))
  })

  it("is measured from where the store's clocks began", () => {
    const shifted = (by: number) =>
      did('create', [0, 1], { value: 1, expiry: ttl(100) }, applied(entry(1, { createdAt: by, expiresAt: by + 100 })))
    expect(check([shifted(7_000), got([106, 107])], { boundMs, startsAt: 7_000 }).type).toBe('linearizable')
    expect(check([shifted(7_000), got([50, 51])], { boundMs, startsAt: 7_000 }).type).toBe('violation')
    expect(check([shifted(7_020)], { boundMs, startsAt: 7_000 }).type).toBe('violation')
  })
})

describe('the verdict', () => {
  it('has the shortest start that is bad', () => {
    const more = [got([20, 21], entry(2)), got([22, 23], entry(2))]
    const { prefix } = bad(created, updated, did('set', [3.6, 12], { value: 3 }, applied(entry(3))), got([3.5, 4], entry(1)), ...more)
    expect(prefix.map(({ verb, returnedAt }) => [verb, returnedAt])).toEqual([
      ['create', 1],
      ['update', 3],
      ['set', Infinity],
      ['get', 4],
    ])
  })

  it('says where the search came to its end, with a picture', () => {
    expect(told(bad(created, updated, got([3.5, 4], entry(1))))).toBe(
      [
        'no order explains this: 1 of 3 can be put in order; then there is 1, and get of c (read) still has to find it, but update 2 of c (applied) has to come next',
        'client  called  returned                                     verb    value  condition  expiry  request  answer',
        'c       0       1         |------|                           create  1                                  applied 1 v1 since 0',
        'c       2       3                        |-------|           update  2      if v1                       applied 2 v2 since 0',
        'c       3.5     4                                    |---|   get                                        read 1 v1 since 0',
        '  v1 = v1',
        '  v2 = v2',
      ].join('\n'),
    )
  })

  it('is undecided when the steps are used up, and never linearizable', () => {
    expect(check([created, updated, destroyed], { boundMs, stepsMax: 2 })).toEqual({ type: 'undecided', steps: 3 })
    expect(check([created, updated, destroyed], { boundMs, stepsMax: 3 }).type).toBe('linearizable')
  })

  it('is given for each key', () => {
    const other = { ...created, key: 'l' }
    const verdicts = checkAll([created, other, { ...got([2, 3]), key: 'l' }], at0)
    expect([...verdicts].map(([key, { type }]) => [key, type])).toEqual([
      ['k', 'linearizable'],
      ['l', 'violation'],
    ])
  })

  it('needs values that are unique', () => {
    expect(() => check([created, did('set', [2, 3], { value: 1 }, unknown)], at0)).toThrow('each write of a key has a value of its own')
  })
})

describe('many unknown outcomes', () => {
  it('cost few steps: nobody can tell unseen ones apart', () => {
    const lost = Array.from({ length: 40 }, (_, index) =>
      did(index % 2 ? 'set' : 'destroy', [2 + index, never], index % 2 ? { value: 100 + index } : {}, unknown),
    )
    const later = Array.from({ length: 40 }, (_, index) => got([100 + index, 100.5 + index], entry(1)))
    const right = check([created, ...lost, ...later], at0)
    const wrong = check([created, ...lost, ...later, updated, got([200, 201], entry(2)), got([202, 203], entry(1))], at0)
    expect([right.type, wrong.type]).toEqual(['linearizable', 'violation'])
    expect(right.steps).toBeLessThanOrEqual(80)
    expect(wrong.steps).toBeLessThanOrEqual(2_000)
  })
})
