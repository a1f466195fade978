/** The rules at their edges: every instant, bound and room that the tests of whole counters do not hit exactly. */
import { describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { bytesOf, noRequests, requestsOf, trimmed } from './requests.ts'
import {
  addToWindow,
  changeCount,
  countAt,
  freeSlot,
  liveSlots,
  mayHaveEnded,
  renewSlot,
  resetCount,
  takeSlot,
  windowAt,
  type CountRecord,
  type CountRules,
  type SlotsRecord,
} from './rules.ts'

const now = epochMs(1_000_000)
const after = (ms: number) => epochMs(now + ms)
const rules: CountRules = {
  start: 0n,
  min: undefined,
  max: undefined,
  least: -9n,
  most: 9n,
  ttlMs: 60_000,
  slides: false,
  rememberMs: 1_000,
  requestsMax: 2,
  bytesMax: 1_000,
}
const record: CountRecord = { epoch: now, value: 5n, endsAt: after(60_000), requests: noRequests }
const plus = (delta: bigint, id?: string) => ({ change: delta, id })
const answered = { id: 'r', until: after(1_000), delta: 1n, value: 6n, epoch: now }

describe('a count', () => {
  test('has ended at the very instant of its end (C4)', () => {
    expect(countAt(record, after(59_999), 0n)).toMatchObject({ value: 5n, epoch: now })
    expect(countAt(record, after(60_000), 0n)).toEqual({ value: 0n, epoch: 0, endsAt: 0 })
    expect([mayHaveEnded(record, after(59_999)), mayHaveEnded(record, after(60_000))]).toEqual([true, false])
    expect([mayHaveEnded({ ...record, endsAt: epochMs(0) }, now), mayHaveEnded(undefined, now)]).toEqual([false, false])
  })
  test('begins anew with an epoch above the last, also when the clock has stepped back (C10)', () => {
    const ended = { ...record, epoch: now + 90_000, endsAt: after(-1) }
    expect(changeCount(ended, now, plus(1n), rules).record).toMatchObject({ epoch: now + 90_001, value: 1n, endsAt: after(60_000) })
    expect(resetCount(record, epochMs(now - 5), undefined, rules).record).toMatchObject({ epoch: now + 1, value: 0n })
  })
  test('counts to the last number that can be said, and no further (C8)', () => {
    expect(changeCount(record, now, plus(4n), rules).outcome).toMatchObject({ type: 'added', value: 9n })
    expect(() => changeCount(record, now, plus(5n), rules)).toThrow(expect.objectContaining({ code: 'COUNTER_OVERFLOW' }))
    expect(() => changeCount(record, now, plus(-15n), rules)).toThrow(expect.objectContaining({ code: 'COUNTER_OVERFLOW' }))
  })
  test('is refused by its bound rather than thrown, when both are crossed (C8)', () => {
    expect(changeCount(record, now, plus(5n), { ...rules, max: 9n }).outcome).toEqual({ type: 'bound', value: 5n, epoch: now })
  })
  test('answers a repetition before it looks at epoch, bounds and room (C1)', () => {
    const full = { ...record, requests: requestsOf([answered, { ...answered, id: 's' }]) }
    const strict = { ...rules, max: 0n }
    expect(changeCount(full, now, { ...plus(1n, 'r'), ifEpoch: 7 }, strict)).toEqual({
      record: undefined,
      outcome: { type: 'repeated', value: 6n, epoch: now },
    })
  })
})

describe('requests', () => {
  const two = { ...record, requests: requestsOf([answered, { ...answered, id: 's', until: after(2_000) }]) }
  test('are remembered up to their instant, and not at it (C1)', () => {
    expect(trimmed(two.requests, after(999))).toBe(two.requests)
    expect(trimmed(two.requests, after(1_000)).list.map(({ id }) => id)).toEqual(['s'])
    expect(trimmed(two.requests, after(2_000))).toBe(noRequests)
  })
  test('fill a record by number, and by bytes (C1)', () => {
    const locked = expect.objectContaining({ code: 'RECORD_LOCKED', retry: 'safe' })
    expect(() => changeCount(two, now, plus(1n, 't'), rules)).toThrow(locked)
    expect(changeCount(two, after(1_000), plus(1n, 't'), rules).record?.requests.list.map(({ id }) => id)).toEqual(['s', 't'])
    const bytesMax = 2 * bytesOf(answered)
    const one = { ...record, requests: requestsOf([answered]) }
    expect(changeCount(one, now, plus(1n, 's'), { ...rules, bytesMax }).record?.requests.bytes).toBe(bytesMax)
    expect(() => changeCount(one, now, plus(1n, 's'), { ...rules, bytesMax: bytesMax - 1 })).toThrow(locked)
  })
  test('count nothing against those who send none (C1)', () => {
    expect(changeCount(two, now, plus(1n), rules).record).toMatchObject({ value: 6n, requests: two.requests })
  })
  test('stay over a reset (C1)', () => {
    expect(resetCount(two, now, undefined, rules).record?.requests).toBe(two.requests)
  })
})

describe('a window', () => {
  const ring = { widthMs: 1_000, parts: 3, most: 100n, rememberMs: 1, requestsMax: 1, bytesMax: 1_000 }
  test('keeps one sub-window more than it counts surely, and no further', () => {
    const first = addToWindow(undefined, now, { delta: 1n }, ring).record
    const second = addToWindow(first, after(3_000), { delta: 2n }, ring)
    expect(second).toMatchObject({ record: { newest: 1_003, counts: [2n, 0n, 0n, 1n] }, outcome: { value: 3n } })
    expect(windowAt(second.record, after(3_999), ring)).toEqual({ value: 3n, atLeast: 2n, since: now })
    expect(windowAt(second.record, after(4_000), ring)).toEqual({ value: 2n, atLeast: 2n, since: after(1_000) })
    expect(windowAt(second.record, after(9_000_000), ring)).toMatchObject({ value: 0n, atLeast: 0n })
  })
  test('never steps back with the clock: neither what it counts nor since when', () => {
    const { record: stepped } = addToWindow({ newest: 1_000, counts: [1n], requests: noRequests }, after(-2_500), { delta: 2n }, ring)
    expect(stepped).toMatchObject({ newest: 1_000, counts: [3n] })
    expect(windowAt(stepped, after(-2_500), ring)).toEqual({ value: 3n, atLeast: 3n, since: after(-3_000) })
  })
})

describe('slots', () => {
  const slots: SlotsRecord = {
    slots: [
      { owner: 'me', endsAt: after(1) },
      { owner: 'you', endsAt: after(50) },
    ],
  }
  const gauge = { leaseMs: 30, max: 2 }
  test('are free at the very instant at which their lease ends (C12)', () => {
    expect(liveSlots(slots, now)).toHaveLength(2)
    expect(liveSlots(slots, after(1)).map(({ owner }) => owner)).toEqual(['you'])
    expect(takeSlot(slots, now, 'they', gauge)).toEqual({ record: undefined, outcome: { type: 'full', inUse: 2, retryAfterMs: 1 } })
    expect(takeSlot(slots, after(1), 'they', gauge)).toEqual({
      record: { slots: [slots.slots[1], { owner: 'they', endsAt: after(31) }] },
      outcome: { type: 'taken', inUse: 2, endsAt: after(31) },
    })
  })
  test('are renewed as long as their lease goes on, and their lease gets never shorter (C12)', () => {
    expect(renewSlot(slots, now, 'me', 30)?.slots).toEqual([{ owner: 'me', endsAt: after(30) }, slots.slots[1]])
    expect(renewSlot(slots, now, 'you', 30)?.slots).toEqual(slots.slots)
    for (const [at, owner] of [[1, 'me'] as const, [0, 'they'] as const]) expect(renewSlot(slots, after(at), owner, 30)).toBeUndefined()
    expect(renewSlot(undefined, now, 'me', 30)).toBeUndefined()
  })
  test('are given back by their owner alone', () => {
    expect(freeSlot(slots, now, 'me')).toEqual({ slots: [slots.slots[1]] })
    expect(freeSlot(slots, now, 'they')).toBeUndefined()
    expect(freeSlot(undefined, now, 'me')).toBeUndefined()
  })
})
