/** Every record with every question: what it says to a reader, at each edge of its times. */
import { describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { isEarly, jittered, judge, leased, lifeOf, nextEpoch, type CacheRecord, type Held, type Lease, type Question } from './rules.ts'

const generations = { era: 'one', epoch: 7, lifeMs: 1 }
const held: Held = {
  kind: 'value',
  freshUntil: epochMs(100),
  staleUntil: epochMs(200),
  keptUntil: epochMs(300),
  deltaMs: 10,
  stamp: { era: 'one', epoch: 7 },
  tags: ['t'],
  body: new Uint8Array(0),
}
const lease: Lease = { owner: 'other', endsAt: epochMs(250), isBackoff: false }
const pause: Lease = { ...lease, isBackoff: true }
const ask = (record: CacheRecord | undefined, now: number, more: Partial<Question> = {}) =>
  judge({ record, now: epochMs(now), version: 2, owner: 'me', generations, tagEpochs: new Map(), ...more })
/** As a word: `stale free` for a stale value that nobody refreshes. */
const said = (record: Omit<CacheRecord, 'version'> | undefined, now: number, more: Partial<Question> = {}): string => {
  const judgement = ask(record && { version: 2, ...record }, now, more)
  const words = [judgement.type as string]
  if ('isFree' in judgement && judgement.isFree) words.push('free')
  if ('fallback' in judgement && judgement.fallback !== undefined) words.push('fallback')
  if ('isTakeover' in judgement && judgement.isTakeover) words.push('takeover')
  return words.join(' ')
}

describe('judge', () => {
  const table: readonly (readonly [string, Omit<CacheRecord, 'version'> | undefined, number, string])[] = [
    ['nothing', undefined, 0, 'load'],
    ['a tombstone', {}, 0, 'load'],
    ['a fresh value', { held }, 99, 'hit free'],
    ['a fresh value that is being refreshed', { held, lease }, 99, 'hit'],
    ['a value at its ttl', { held }, 100, 'stale free'],
    ['a stale value that is being refreshed', { held, lease }, 199, 'stale'],
    ['a stale value whose refresh has died', { held, lease }, 251, 'load fallback takeover'],
    ['a value past stale', { held }, 200, 'load fallback'],
    ['a value past stale that is being loaded', { held, lease }, 249, 'wait fallback'],
    ['a value past maxStale', { held }, 300, 'load'],
    ['a value past maxStale, whose load has lapsed', { held, lease }, 300, 'load takeover'],
    ['a lease', { lease }, 249, 'wait'],
    ['a lease at its end', { lease }, 250, 'load takeover'],
    ['a pause beside a value past stale', { held, lease: pause }, 249, 'stale'],
    ['a pause that has ended', { held, lease: pause }, 250, 'load fallback'],
    ['a pause beside nothing', { lease: pause }, 249, 'load'],
    ['one’s own lease', { lease: { ...lease, owner: 'me' } }, 249, 'mine'],
    ['one’s own lease, lapsed', { lease: { ...lease, owner: 'me' } }, 250, 'load takeover'],
    ['one’s own lease beside a stale value', { held, lease: { ...lease, owner: 'me' } }, 150, 'mine fallback'],
    ['a mark of an oversize value', { held: { ...held, kind: 'oversize' } }, 99, 'past'],
    ['such a mark past its ttl', { held: { ...held, kind: 'oversize' } }, 100, 'load'],
  ]
  for (const [title, record, now, word] of table) {
    test(`says '${word}' of ${title}`, () => expect(said(record, now)).toBe(word))
  }

  test('says how long a lease still holds (K3)', () => {
    expect(ask({ version: 2, lease }, 240)).toEqual({ type: 'wait', leftMs: 10, fallback: undefined })
  })
  test('serves nothing whose generations do not hold, not even as a fallback (K17)', () => {
    const cases: readonly Partial<Question>[] = [
      { generations: undefined },
      { generations: { ...generations, era: 'two' } },
      { tagEpochs: new Map([['t', 8]]) },
      { tagEpochs: new Map([['t', Infinity]]) },
    ]
    for (const more of cases) for (const now of [50, 150, 250]) expect(said({ held }, now, more)).toBe('load')
    expect(said({ held }, 50, { tagEpochs: new Map([['t', 7]]) })).toBe('hit free')
    expect(said({ held }, 50, { tagEpochs: new Map([['u', 8]]) })).toBe('hit free')
  })
  test('leaves the record of a newer process alone while it is in use, and replaces an older one’s (P12, K12)', () => {
    const of = (version: number, record: Omit<CacheRecord, 'version'>, now: number): string => ask({ version, ...record }, now).type
    expect(of(3, { held }, 99)).toBe('past')
    expect(of(3, { lease }, 249)).toBe('past')
    expect(of(3, { held }, 100)).toBe('load')
    expect(of(3, { lease }, 250)).toBe('load')
    expect(of(3, {}, 0)).toBe('load')
    for (const record of [{ held }, { lease }, { held, lease }, {}]) expect(of(1, record, 50)).toBe('load')
  })
})

describe('a lease', () => {
  test('takes along what may still be served', () => {
    expect(leased(2, 'me', epochMs(9), held)).toEqual({ version: 2, lease: { owner: 'me', endsAt: 9, isBackoff: false }, held })
  })
})

describe('times', () => {
  test('of a value follow each other; what was not found, or does not fit, ends with its ttl', () => {
    const times = { ttlMs: 10, staleMs: 20, maxStaleMs: 30 }
    for (const kind of ['value', 'undefined'] as const)
      expect(lifeOf(kind, times, epochMs(1_000))).toEqual({ freshUntil: 1_010, staleUntil: 1_030, keptUntil: 1_040 })
    for (const kind of ['missing', 'oversize'] as const)
      expect(lifeOf(kind, times, epochMs(1_000))).toEqual({ freshUntil: 1_010, staleUntil: 1_010, keptUntil: 1_010 })
  })
  test('are drawn within the jitter, and never below a millisecond (K8)', () => {
    expect([0, 0.5, 0.999_999].map((draw) => jittered(1_000, 0.1, draw))).toEqual([900, 1_000, 1_100])
    expect(jittered(1, 0.5, 0)).toBe(1)
  })
  test('of an early refresh come the sooner the longer a load takes; without beta never (K8)', () => {
    // A draw of 1 - 1/e asks exactly delta before the end.
    const draw = 1 - 1 / Math.E
    expect(isEarly(held, epochMs(89), 1, draw)).toBe(false)
    expect(isEarly(held, epochMs(91), 1, draw)).toBe(true)
    expect(isEarly({ ...held, deltaMs: 60 }, epochMs(41), 1, draw)).toBe(true)
    expect(isEarly(held, epochMs(81), 2, draw)).toBe(true)
    expect(isEarly(held, epochMs(99), 0, 0.999)).toBe(false)
    expect(isEarly(held, epochMs(0), 1, 0)).toBe(false)
  })
  test('of epochs are counts: only the first begins at the store’s clock', () => {
    expect(nextEpoch(undefined, epochMs(1_000))).toBe(1_000)
    expect(nextEpoch(generations, epochMs(1_000))).toBe(8)
  })
})
