import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  ballotAfter,
  Ballots,
  compareBallots,
  isBelow,
  justAbove,
  maxBallot,
  noBallot,
  quorumOf,
  sameBallot,
  sourcesOf,
  zoneCounts,
  type Ballot,
} from './ballot.ts'

const part = fc.integer({ min: 0, max: 3 })
const anyBallot = fc.record({ ms: part, counter: part, proposer: part })

test('ballots are totally ordered, by time, counter and proposer (O1)', () => {
  fc.assert(
    fc.property(anyBallot, anyBallot, anyBallot, (a, b, c) => {
      expect(Math.sign(compareBallots(a, b))).toBe(-Math.sign(compareBallots(b, a)) + 0)
      expect(sameBallot(a, b)).toBe(compareBallots(a, b) === 0)
      if (isBelow(a, b) && isBelow(b, c)) expect(isBelow(a, c)).toBe(true)
      expect(isBelow(maxBallot(a, b), a)).toBe(false)
      expect(isBelow(maxBallot(a, b), b)).toBe(false)
      expect(isBelow(a, justAbove(a))).toBe(true)
    }),
  )
  expect(isBelow({ ms: 1, counter: 9, proposer: 9 }, { ms: 2, counter: 0, proposer: 0 })).toBe(true)
  expect(isBelow({ ms: 1, counter: 1, proposer: 9 }, { ms: 1, counter: 2, proposer: 0 })).toBe(true)
})

test('a process never makes one ballot twice, and always above what it has seen, whatever its clock does (O1)', () => {
  const seen = fc.record({ ms: fc.integer({ min: 0, max: 5 }), counter: fc.integer({ min: 0, max: 20 }), proposer: part })
  fc.assert(
    fc.property(fc.array(fc.tuple(seen, fc.integer({ min: 0, max: 5 })), { maxLength: 40 }), (steps) => {
      const ballots = new Ballots(2)
      const made = new Set<string>()
      for (const [above, now] of steps) {
        const ballot = ballots.above(above, now)
        expect(isBelow(above, ballot)).toBe(true)
        made.add(`${ballot.ms}.${ballot.counter}`)
      }
      expect(made.size).toBe(steps.length)
    }),
  )
})

test('raising keeps the milliseconds that were seen: a fast clock is not outbid by a faster one (O2)', () => {
  expect(new Ballots(1).above({ ms: 100, counter: 7, proposer: 2 }, 50)).toEqual({ ms: 100, counter: 8, proposer: 1 })
  expect(new Ballots(1).above({ ms: 100, counter: 7, proposer: 2 }, 150)).toEqual({ ms: 150, counter: 1, proposer: 1 })
})

test('a proposer id is from 1 to 2^48 - 1', () => {
  for (const id of [0, -1, 0.5, 2 ** 48]) expect(() => new Ballots(id)).toThrow('48 bits')
  expect(new Ballots(2 ** 48 - 1).above(noBallot, 1).proposer).toBe(2 ** 48 - 1)
})

test('a ceiling is above every ballot of the milliseconds before it', () => {
  const ballot: Ballot = { ms: 10, counter: 5, proposer: 3 }
  expect(ballotAfter(ballot, 250)).toEqual({ ms: 260, counter: 5, proposer: 3 })
})

test("two quorums share a zone, and so do a quorum and a learner's sources; of an even number of zones there is no cluster (JunoDB's A20)", () => {
  expect(zoneCounts).toEqual([1, 3, 5])
  for (const zones of zoneCounts) {
    expect(2 * quorumOf(zones)).toBeGreaterThan(zones)
    // A quorum without the learner has quorumOf of the other zones - 1; it must meet the sources.
    expect(sourcesOf(zones) + quorumOf(zones)).toBeGreaterThan(zones)
  }
})
