/** Every state with every event and every question: the whole table, so that a new arrow cannot appear unseen. */
import { describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import {
  claimed,
  givenUp,
  isFinal,
  judge,
  leaseEndOf,
  takenOver,
  transition,
  type Claimed,
  type Event,
  type IdempotencyRecord,
  type Judgement,
} from './rules.ts'
import type { Ending, Fingerprint } from './types.ts'

const fingerprint = 's1:this' as Fingerprint
const other = 's1:other' as Fingerprint
const answer = { head: { status: 201 }, body: new Uint8Array([1]) }
const running: Claimed = { ...claimed('me', fingerprint, 30_000), steps: [{ name: 'charge', result: '"ch_1"' }] }
const states: { readonly [State in IdempotencyRecord['state']]: Extract<IdempotencyRecord, { state: State }> } = {
  claimed: running,
  completed: { ...common(), state: 'completed', answer },
  unstored: { ...common(), state: 'unstored', head: null, reason: 'streamed' },
  unknown: { ...common(), state: 'unknown' },
  released: { ...common(), state: 'released' },
}
function common() {
  return { fingerprint, attempt: 1, owner: 'me', writes: 2, steps: [{ name: 'charge', result: '"ch_1"' }] }
}

const events: readonly (readonly [Event, IdempotencyRecord['state']])[] = [
  [{ type: 'renew', leaseEndsAt: epochMs(99) }, 'claimed'],
  [{ type: 'step', step: { name: 'mail', result: '' } }, 'claimed'],
  [{ type: 'complete', answer }, 'completed'],
  [{ type: 'unstored', head: null, reason: 'too-large' }, 'unstored'],
  [{ type: 'fail' }, 'unknown'],
  [{ type: 'hand-back' }, 'released'],
]

describe('transition', () => {
  for (const [event, state] of events) {
    test(`leads a claim by '${event.type}' to ${state}; the owner and attempt stay, the writes are counted`, () => {
      expect(transition(running, event)).toMatchObject({ state, owner: 'me', attempt: 1, writes: 2, fingerprint })
    })
    for (const from of ['completed', 'unstored', 'unknown', 'released'] as const) {
      test(`has no arrow from ${from} by '${event.type}': what has ended stays`, () => {
        expect(() => transition(states[from], event)).toThrow(/only a claim/)
      })
    }
  }
  test('keeps step results as long as an attempt may follow, and their names for ever', () => {
    for (const event of [{ type: 'fail' }, { type: 'hand-back' }] as const) expect(transition(running, event).steps).toEqual(running.steps)
    expect(transition(running, { type: 'complete', answer }).steps).toEqual([{ name: 'charge' }])
    expect(transition(running, { type: 'unstored', head: null, reason: 'streamed' }).steps).toEqual([{ name: 'charge' }])
  })
})

describe('taking over', () => {
  test('raises the fence, keeps the steps, and counts the lease from the store clock (T1, T23)', () => {
    for (const from of [states.claimed, states.released]) {
      expect(takenOver(from, 'you', 5_000, epochMs(1_000))).toEqual({
        state: 'claimed',
        fingerprint,
        attempt: 2,
        owner: 'you',
        writes: 1,
        leaseMs: 5_000,
        leaseEndsAt: 6_000,
        steps: running.steps,
      })
    }
  })
  test('is not possible for what has ended for good', () => {
    for (const from of [states.completed, states.unstored, states.unknown])
      expect(() => takenOver(from, 'you', 1, epochMs(1))).toThrow(/is not taken over/)
    for (const from of [states.completed, states.unstored, states.unknown, states.released])
      expect(() => givenUp(from, 'you')).toThrow(/only a claim/)
  })
  test('is given up under another name, so the late owner knows that it was not itself', () => {
    expect(givenUp(running, 'you')).toMatchObject({ state: 'unknown', owner: 'you', attempt: 1 })
  })
})

describe('judge', () => {
  const at = (record: IdempotencyRecord, now: number, afterCrash: 'refuse' | 'resume' = 'refuse', asked = fingerprint): Judgement =>
    judge({ record, createdAt: epochMs(1_000), now: epochMs(now) }, asked, afterCrash)

  test('finds the lease end of a first claim from the creation of the entry, of a later one from the record (T23)', () => {
    expect(leaseEndOf(running, epochMs(1_000))).toBe(31_000)
    expect(leaseEndOf({ ...running, leaseEndsAt: epochMs(50_000) }, epochMs(1_000))).toBe(50_000)
  })
  const table: readonly (readonly [IdempotencyRecord, number, 'refuse' | 'resume', Judgement['type']])[] = [
    [states.claimed, 30_999, 'refuse', 'in-flight'],
    [states.claimed, 30_999, 'resume', 'in-flight'],
    [states.claimed, 31_000, 'refuse', 'give-up'],
    [states.claimed, 31_000, 'resume', 'take-over'],
    [states.completed, 99_999, 'refuse', 'replay'],
    [states.completed, 99_999, 'resume', 'replay'],
    [states.unstored, 99_999, 'resume', 'unstored'],
    [states.unknown, 99_999, 'refuse', 'outcome-unknown'],
    [states.unknown, 99_999, 'resume', 'outcome-unknown'],
    [states.released, 1_000, 'refuse', 'take-over'],
    [states.released, 1_000, 'resume', 'take-over'],
  ]
  for (const [record, now, afterCrash, type] of table) {
    test(`says ${type} of ${record.state} at ${now} with ${afterCrash}`, () => expect(at(record, now, afterCrash).type).toBe(type))
    test(`says mismatch of ${record.state} at ${now} to another request, before its state (T7)`, () => {
      expect(at(record, now, afterCrash, other)).toEqual({ type: 'mismatch' })
    })
  }
  test('says how long a claim still holds (T18)', () => expect(at(running, 11_000)).toEqual({ type: 'in-flight', leftMs: 20_000 }))
})

describe('isFinal', () => {
  const answered = (status: number, stepBegun = false): Ending => ({ type: 'answered', status, stepBegun })
  const threw = (stepBegun: boolean): Ending => ({ type: 'threw', error: new Error('x'), stepBegun })
  const table: readonly (readonly [Ending, stripe: boolean, draft: boolean, successOnly: boolean])[] = [
    [answered(200), true, true, true],
    [answered(303), true, true, true],
    [answered(402), true, true, false],
    [answered(500), true, false, false],
    [{ type: 'returned', value: 1, stepBegun: false }, true, true, true],
    [threw(false), true, false, false],
    [threw(true), true, true, true],
  ]
  for (const [ending, stripe, draft, successOnly] of table) {
    test(`of ${JSON.stringify(ending)} (T13)`, () => {
      expect([isFinal('stripe', ending), isFinal('draft', ending), isFinal('success-only', ending)]).toEqual([stripe, draft, successOnly])
    })
  }
  test('asks a function of the user’s own (T13)', () => {
    const seen: Ending[] = []
    expect(isFinal((ending) => seen.push(ending) > 1, answered(200))).toBe(false)
    expect(seen).toEqual([answered(200)])
  })
})
