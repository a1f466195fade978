/** The cheap laws: hand-made histories that break each, and counting clients on a single copy that keep them all. */
import { describe, expect, it } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import { epochMs, type Millis } from '../../core/base/types.ts'
import type { Version } from '../../core/kv/kv.ts'
import { neverExpires } from '../../core/kv/expiry.ts'
import { apply } from '../../core/record/operation.ts'
import { versionOf, type KeyRecord } from '../../core/record/record.ts'
import { answerOf, operationsOf, Recorder, type CallAnswer, type HistoryOperation, type HistoryVerb, type Shown } from './history.ts'
import { check } from './linearizable.ts'
import { chainFaults, countFault, createFaults, incrementsOf, linkIn, linkText, type Link } from './oracles.ts'
import { singleCopy } from './single-copy.ts'

const options = { boundMs: 5 }
const did = (verb: HistoryVerb, [calledAt, returnedAt]: readonly [number, number], more: Partial<HistoryOperation>): HistoryOperation => ({
  client: 'c',
  key: 'k',
  verb,
  attempts: 1,
  calledAt,
  returnedAt,
  answer: { type: 'unknown' },
  ...more,
})
const applied = (entry?: Shown): CallAnswer => (entry ? { type: 'applied', entry, now: 0 } : { type: 'applied', now: 0 })

describe('createFaults', () => {
  const create = (value: number, times: readonly [number, number], expiresAt?: number): HistoryOperation =>
    did('create', times, {
      value,
      answer: applied({ value, version: `v${value}`, createdAt: times[0], ...(expiresAt === undefined ? {} : { expiresAt }) }),
    })
  const both = 'creates of 1 and 2 were both acknowledged, and nothing can have ended a life between them'

  it('finds two acknowledged creates of one life, one after the other or at once', () => {
    expect(createFaults([create(1, [0, 1]), create(2, [2, 3])], options)).toEqual([
      '2 creates were acknowledged, and 0 lives can have ended',
      both,
    ])
    expect(createFaults([create(1, [0, 9]), create(2, [2, 10])], options)).toContain(both)
    expect(createFaults([create(1, [0, 1]), did('create', [2, Infinity], { value: 2 })], options)).toEqual([])
  })

  it('takes a destroy between them for the end, unknown ones too, but not one before or after', () => {
    const two = [create(1, [10, 11]), create(2, [20, 21])]
    expect(createFaults([...two, did('destroy', [12, 13], { answer: applied() })], options)).toEqual([])
    expect(createFaults([...two, did('destroy', [1, Infinity], {})], options)).toEqual([])
    expect(createFaults([...two, did('destroy', [1, 9], { answer: applied() })], options)).toEqual([both])
    expect(createFaults([...two, did('destroy', [22, 23], { answer: applied() })], options)).toEqual([both])
    expect(createFaults([...two, did('destroy', [12, 13], { answer: { type: 'missing', now: 0 } })], options)).toContain(both)
    expect(createFaults([...two, did('destroy', [12, 13], { answer: { type: 'no-effect', why: 'contention' } })], options)).toContain(both)
  })

  it('takes an expiry within the bound for the end, and that of an unknown write at any time', () => {
    expect(createFaults([create(1, [0, 1], 25), create(2, [20, 21])], options)).toEqual([])
    expect(createFaults([create(1, [0, 1], 26.1), create(2, [20, 21])], options)).toEqual([both])
    const before = did('set', [-9, -8], { value: 4, answer: applied({ value: 4, version: 'v4', createdAt: -9, expiresAt: -7 }) })
    expect(createFaults([before, create(1, [0, 1]), create(2, [20, 21])], options)).toEqual([both])
    const shortened = did('update', [2, Infinity], { value: 3, expiry: { type: 'set', ttlMs: 9 as Millis } })
    expect(createFaults([create(1, [0, 1]), shortened, create(2, [20, 21])], options)).toEqual([])
    expect(createFaults([create(1, [0, 1]), { ...shortened, expiry: neverExpires }, create(2, [20, 21])], options)).toContain(both)
  })

  it('needs an end for each life', () => {
    const three = [create(1, [0, 1]), create(2, [10, 11]), create(3, [20, 21])]
    expect(createFaults([...three, did('destroy', [0, 30], { answer: applied() })], options)).toEqual([
      '3 creates were acknowledged, and 1 lives can have ended',
    ])
  })

  it('finds nothing in histories of a single copy, and what the checker finds when a create is answered twice', () => {
    let found = 0
    for (let seed = 1; seed <= 100; seed++) {
      const knobs = { seed, clients: 4, requests: 60, loss: 0.05, expiring: 0.4, boundMs: 10 }
      const times = { boundMs: 10, startsAt: 1_000_000 }
      const operations = operationsOf(singleCopy(knobs).calls)
      expect(createFaults(operations, times), `seed ${seed}`).toEqual([])
      // The first refused create is told that it was applied.
      const at = operations.findIndex(({ answer }) => answer.type === 'exists')
      const one = operations[at] as HistoryOperation
      const entry = { value: one.value as number, version: 'x', createdAt: 1_000_000 + one.calledAt }
      const wrong = operations.with(at, { ...one, answer: applied(entry) })
      if (createFaults(wrong, times).length === 0) continue
      found++
      expect(check(wrong, times).type, `seed ${seed}`).toBe('violation')
    }
    expect(found).toBeGreaterThan(10)
  })
})

describe('links', () => {
  it('come back as they were written', () => {
    const links: Link[] = [
      { id: 1, over: undefined, by: 1, count: 1 },
      { id: 2, over: '1.abc.s\n7 x', by: -3, count: -2 },
    ]
    expect(links.map((link) => linkIn(linkText(link)))).toEqual(links)
    expect(() => linkIn(7)).toThrow('a counting key holds links, not 7')
  })
})

describe('chainFaults', () => {
  const text = (id: number, over: number | undefined, count: number = id): string =>
    linkText({ id, over: over === undefined ? undefined : `v${over}`, by: 1, count })
  const shown = (id: number, over: number | undefined, count?: number): Shown => ({
    value: text(id, over, count),
    version: `v${id}`,
    createdAt: 0,
  })
  const create = did('create', [0, 1], { value: text(1, undefined), answer: applied(shown(1, undefined)) })
  const update = (id: number, over: number, answer?: CallAnswer, count?: number): HistoryOperation =>
    did('update', [id, id + 0.5], {
      value: text(id, over, count),
      ifVersion: `v${over}`,
      answer: answer ?? applied(shown(id, over, count)),
    })
  const unknown: CallAnswer = { type: 'unknown' }
  const exists = (entry: Shown) => did('get', [8, 9], { answer: { type: 'read', entry, now: 0 } })

  it('finds nothing in a whole chain, nor in one with an unknown link that somebody saw, or nobody', () => {
    expect(chainFaults([create, update(2, 1), update(3, 2)], shown(3, 2))).toEqual([])
    expect(chainFaults([create, update(2, 1, unknown), exists(shown(2, 1)), update(3, 2)], shown(3, 2))).toEqual([])
    expect(chainFaults([create, update(2, 1, unknown)], shown(1, undefined))).toEqual([])
    expect(chainFaults([create, update(2, 1, { type: 'version', entry: shown(1, undefined), now: 0 })], shown(1, undefined))).toEqual([])
    expect(chainFaults([], undefined)).toEqual([])
  })

  it('finds an acknowledged value that is not in it', () => {
    const lost = [`${text(2, 1)} was acknowledged, and is not in the chain`]
    expect(chainFaults([create, update(2, 1), update(3, 1, undefined, 2)], shown(3, 1, 2))).toEqual(lost)
    expect(chainFaults([create, update(2, 1)], shown(1, undefined))).toEqual(lost)
    expect(chainFaults([create], undefined)).toEqual([`${text(1, undefined)} was acknowledged, and is not in the chain`])
  })

  it('finds a value of a write that was refused or had no effect, and one that nobody wrote', () => {
    const refused = update(2, 1, { type: 'no-effect', why: 'contention' })
    expect(chainFaults([create, refused], shown(2, 1))).toEqual([`the chain has ${text(2, 1)}, whose write was answered no-effect`])
    expect(chainFaults([create], shown(2, 1))).toContain(`the chain has ${text(2, 1)}, which nobody wrote`)
  })

  it('finds a version of two values, a link over a version that nobody was shown, and a ring', () => {
    expect(chainFaults([create, exists({ ...shown(1, undefined), version: 'v2' }), update(2, 1)], shown(2, 1))).toContain(
      'version v2 is shown with two values',
    )
    expect(chainFaults([create, update(3, 2)], shown(3, 2))).toContain(`${text(3, 2)} was written over version v2, which nobody was shown`)
    const ring = [update(2, 3, undefined, 3), update(3, 2, undefined, 2)]
    expect(chainFaults(ring, shown(3, 2, 2))).toContain(`the chain comes to ${text(3, 2, 2)} a second time`)
  })

  it('finds a count that does not go on, and a value that disagrees with its condition', () => {
    expect(chainFaults([create, update(2, 1, undefined, 5)], shown(2, 1, 5))).toEqual([
      `${text(2, 1, 5)} does not count on from ${text(1, undefined)}`,
    ])
    expect(chainFaults([create, { ...update(2, 1), ifVersion: 'v9' }], shown(2, 1))).toEqual([
      `${text(2, 1)} says another version than its condition`,
    ])
  })

  it('refuses a history that is not of a counting key', () => {
    expect(() => chainFaults([did('destroy', [0, 1], {})], undefined)).toThrow('a counting key is created, and updated on condition')
  })
})

describe('countFault', () => {
  it('takes the sum of what was acknowledged, give or take what is unknown', () => {
    const known = [
      { by: 3, outcome: 'applied' },
      { by: 5, outcome: 'none' },
      { by: -1, outcome: 'applied' },
    ] as const
    expect(countFault(known, 2)).toBe(undefined)
    expect(countFault(known, 3)).toBe('the count is 3, and what was acknowledged makes 2')
    expect(countFault(known, 12, 10)).toBe(undefined)
    const open = [...known, { by: 4, outcome: 'unknown' }, { by: -2, outcome: 'unknown' }] as const
    expect([-1, 0, 6, 7].map((final) => countFault(open, final))).toEqual([
      'the count is -1, and what was acknowledged makes 0 to 6',
      undefined,
      undefined,
      'the count is 7, and what was acknowledged makes 0 to 6',
    ])
  })
})

describe('counting clients on a single copy', () => {
  /** Clients read, add and write on condition; some answers are lost. `forgets`: a write that was acknowledged is undone. */
  function count(seed: number, forgets: boolean): { operations: readonly HistoryOperation[]; final: Shown | undefined } {
    const random = seededRandom(seed)
    const recorder = new Recorder()
    const bytes = new TextEncoder()
    const text = new TextDecoder()
    const known: (Shown | undefined)[] = [undefined, undefined, undefined]
    const valueOf = (value: Uint8Array): string => text.decode(value)
    let record: KeyRecord | undefined
    for (let id = 1; id <= 60; id++) {
      const index = random.int(known.length)
      const over = known[index]
      const by = 1 + random.int(3)
      const value = linkText({ id, over: over?.version, by, count: by + (over ? linkIn(over.value).count : 0) })
      const request = { session: `c${index}`, sequence: id, attempt: 1 }
      const number = recorder.sent({
        client: `c${index}`,
        key: 'k',
        verb: over ? 'update' : 'create',
        value,
        ...(over ? { ifVersion: over.version } : {}),
        calledAt: id,
        request,
      })
      const common = { request: { ...request, remember: true, done: 0 }, value: bytes.encode(value), expiry: neverExpires }
      const decision = apply(
        over ? { verb: 'update', ...common, ifVersion: over.version as Version } : { verb: 'create', ...common },
        record,
        epochMs(id),
      )
      if (!(forgets && id === 30)) record = decision.record
      const answer = answerOf({ type: 'decided', outcome: decision.outcome, now: epochMs(id) }, valueOf)
      if (random.chance(0.1)) continue
      recorder.answered(number, id + 0.5, answer)
      if ('entry' in answer) known[index] = answer.entry
    }
    const { value, version, lastModifiedAt, lastRequest } = record as KeyRecord
    return {
      operations: operationsOf(recorder.calls),
      final: { value: valueOf(value as Uint8Array), version: versionOf(version, lastModifiedAt, lastRequest), createdAt: 0 },
    }
  }

  it('keep their chain and their count', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const { operations, final } = count(seed, false)
      expect(chainFaults(operations, final), `seed ${seed}`).toEqual([])
      expect(countFault(incrementsOf(operations), linkIn((final as Shown).value).count), `seed ${seed}`).toBe(undefined)
    }
  })

  it('are found out when one acknowledged write is forgotten', () => {
    let chains = 0
    let counts = 0
    let acknowledged = 0
    for (let seed = 1; seed <= 50; seed++) {
      const { operations, final } = count(seed, true)
      if (operations.find(({ calledAt }) => calledAt === 30)?.answer.type !== 'applied') continue
      acknowledged++
      if (chainFaults(operations, final).length > 0) chains++
      if (countFault(incrementsOf(operations), linkIn((final as Shown).value).count) !== undefined) counts++
    }
    expect(acknowledged).toBeGreaterThan(10)
    expect(chains).toBe(acknowledged)
    expect(counts).toBeGreaterThan(0) // the writes of unknown outcome may hide it
  })
})
