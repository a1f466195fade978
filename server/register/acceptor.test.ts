/** One replica's side. What several of them do together is in testdata/*.txt. */
import { expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { noCompletions, type KeyRecord } from '../../core/record/record.ts'
import type { ReplicaEntry, ReplicaRequest } from '../../core/wire/replica-message.ts'
import { Acceptor, aheadMsMax, ceilingStepMs, diesAt, stubOf, type Stored } from './acceptor.ts'
import { noBallot, type Ballot } from './ballot.ts'

const now = epochMs(1_000_000)
const at = (ms: number, proposer = 1): Ballot => ({ ms, counter: 1, proposer })
const recordOf = (value: string, expiresAt = 0): KeyRecord => ({
  value: new TextEncoder().encode(value),
  version: 1,
  createdAt: now,
  lastModifiedAt: now,
  changedAt: now,
  expiresAt: epochMs(expiresAt),
  originator: 'a',
  lastRequest: 'a',
  completions: noCompletions,
})

function stand(floor: Ballot = noBallot) {
  const entries = new Map<string, Stored>()
  const marks = { ceiling: floor, purged: noBallot }
  const alarms: string[] = []
  const acceptor = new Acceptor({
    shard: 0,
    zone: 0,
    floor,
    ports: {
      marks,
      stored: (key) => entries.get(key) ?? { type: 'absent' },
      put: (key, entry) => void entries.set(key, { type: 'entry', entry }),
      raiseCeiling: (to) => void (marks.ceiling = to),
      alarm: (what) => void alarms.push(what),
      count: () => undefined,
    },
  })
  const asked = { id: 1, shard: 0, epoch: 1, key: 'k' }
  const step = (message: ReplicaRequest) => acceptor.step(message, 1, now)
  return {
    entries,
    marks,
    alarms,
    prepare: (ballot: Ballot, isRaised = false) => step({ ...asked, type: 'prepare', ballot, isRaised, wants: 'whole' }),
    accept: (ballot: Ballot, record: KeyRecord) => step({ ...asked, type: 'accept', ballot, record }),
    read: (wants: 'whole' | 'bare') => step({ ...asked, type: 'read', wants }),
  }
}

test('promises only above what it promised, accepted, and its floor (A1)', () => {
  const { prepare, accept } = stand(at(5))
  expect(prepare(at(5))).toMatchObject({ reason: 'ballot', bound: at(5) })
  expect(prepare(at(6))).toMatchObject({ type: 'promised', entry: undefined, isWhole: true, clock: now, zone: 0, epoch: 1 })
  expect(prepare(at(6))).toMatchObject({ reason: 'ballot', bound: at(6) })
  expect(accept(at(8), recordOf('a'))).toMatchObject({ type: 'accepted' })
  expect(prepare(at(7))).toMatchObject({ reason: 'ballot', bound: at(8) })
  expect(prepare(at(8))).toMatchObject({ reason: 'ballot', bound: at(8) })
})

test('accepts at the promised ballot, not below it (A1)', () => {
  const { prepare, accept } = stand()
  prepare(at(6))
  expect(accept(at(5), recordOf('a'))).toMatchObject({ reason: 'ballot', bound: at(6) })
  expect(accept(at(6), recordOf('a'))).toMatchObject({ type: 'accepted' })
})

test('a ballot of more than a minute ahead is refused, unless it is known here or its proposer was told it (A2)', () => {
  const ahead = now + aheadMsMax + 1
  expect(stand().prepare(at(ahead))).toMatchObject({ reason: 'clock' })
  expect(stand().prepare(at(ahead - 1))).toMatchObject({ type: 'promised' })
  expect(stand().prepare(at(ahead), true)).toMatchObject({ type: 'promised' })
  const here = stand()
  here.accept(at(ahead), recordOf('a'))
  expect(here.prepare(at(ahead, 2))).toMatchObject({ type: 'promised' })
})

test('the ceiling is raised some way ahead by a promise, and to the ballot by an accept (A4)', () => {
  const { prepare, accept, marks } = stand()
  prepare(at(10))
  expect(marks.ceiling).toEqual(at(10 + ceilingStepMs))
  prepare(at(10 + ceilingStepMs))
  expect(marks.ceiling).toEqual(at(10 + ceilingStepMs))
  accept(at(900), recordOf('a'))
  expect(marks.ceiling).toEqual(at(900))
})

test('below the floor nothing is accepted for good, but the own ballot again is (A5)', () => {
  const { accept, entries } = stand(at(100))
  expect(accept(at(100), recordOf('a'))).toMatchObject({ reason: 'lasting', bound: at(100) })
  entries.set('k', { type: 'entry', entry: { ballot: at(50), record: recordOf('a') } })
  expect(accept(at(50), recordOf('a'))).toMatchObject({ type: 'accepted' })
})

test('two records under one ballot are refused, and a person is told; the stub of a record is that record (A7)', () => {
  const { accept, alarms, entries } = stand()
  accept(at(5), recordOf('a'))
  expect(accept(at(5), recordOf('a'))).toMatchObject({ type: 'accepted' })
  expect(accept(at(5), recordOf('b'))).toMatchObject({ reason: 'digest' })
  expect(alarms).toEqual(['two records under one ballot'])
  entries.set('k', { type: 'entry', entry: stubOf({ ballot: at(5), record: recordOf('a') }) })
  expect(accept(at(5), recordOf('a'))).toMatchObject({ type: 'accepted' })
  expect(accept(at(5), recordOf('b'))).toMatchObject({ reason: 'digest' })
})

test('damage shows nothing and promises nothing; an accept above its ceiling heals it (A8)', () => {
  const { prepare, accept, read, entries } = stand()
  entries.set('k', { type: 'damaged', ceiling: at(50) })
  expect(read('whole')).toMatchObject({ reason: 'damaged', bound: at(50) })
  expect(prepare(at(60))).toMatchObject({ reason: 'damaged', bound: at(50) })
  expect(accept(at(50), recordOf('a'))).toMatchObject({ reason: 'damaged', bound: at(50) })
  expect(accept(at(51), recordOf('a'))).toMatchObject({ type: 'accepted' })
  expect(read('whole')).toMatchObject({ entry: { ballot: at(51) } })
})

test('an absent key refuses what may have been purged; one that is there does not (A9)', () => {
  const { accept, marks, entries } = stand()
  marks.purged = at(50)
  expect(accept(at(50), recordOf('a'))).toMatchObject({ reason: 'lasting', bound: at(50) })
  entries.set('k', { type: 'entry', entry: { ballot: at(20), record: recordOf('a') } })
  expect(accept(at(30), recordOf('b'))).toMatchObject({ type: 'accepted' })
})

test('a bare answer has all but the payload, and says so; a tombstone is whole without one', () => {
  const { accept, read } = stand()
  accept(at(5), recordOf('abc'))
  expect(read('bare')).toMatchObject({ isWhole: false, entry: { ballot: at(5), record: { value: undefined, version: 1 } } })
  accept(at(6), { ...recordOf('abc'), value: undefined })
  expect(read('bare')).toMatchObject({ isWhole: true })
})

test('a stub keeps ballot and digest, and a stub of a stub is the same', () => {
  const entry: ReplicaEntry = { ballot: at(5), record: recordOf('abc', 77) }
  const stub = stubOf(entry)
  expect(stub).toMatchObject({ ballot: at(5), record: { value: undefined, expiresAt: 77 } })
  expect(stubOf(stub)).toEqual(stub)
  expect(diesAt(entry)).toBe(77)
  expect(diesAt(stub)).toBe(0)
  expect(diesAt({ ballot: at(5), record: recordOf('abc') })).toBeUndefined()
})
