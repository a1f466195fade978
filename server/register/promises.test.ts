import fc from 'fast-check'
import { expect, test } from 'vitest'
import { isAtMost, isBelow, maxBallot, noBallot, type Ballot } from './ballot.ts'
import { PromiseTable } from './promises.ts'

const ballot = (ms: number): Ballot => ({ ms, counter: 0, proposer: 1 })

/** The twin forgets nothing: it knows what was promised and accepted for each key. */
class Twin {
  readonly promised = new Map<string, Ballot>()
  readonly accepted = new Map<string, Ballot>()
  boundOf(key: string): Ballot {
    return maxBallot(this.promised.get(key) ?? noBallot, this.accepted.get(key) ?? noBallot)
  }
}

test('the lowest promise makes room, and the floor only rises, whatever order they came in (R12)', () => {
  const table = new PromiseTable(1, noBallot)
  const floors = [10, 20, 15, 30].map((ms) => {
    table.make(`key ${ms}`, ballot(ms))
    return table.floor.ms
  })
  expect(floors).toEqual([0, 10, 15, 20])
})

test('never promises less than a table without a bound, and is never larger than its bound (A10, R12)', () => {
  const step = fc.record({
    type: fc.constantFrom('make', 'accept', 'raise'),
    key: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
    ms: fc.integer({ min: 1, max: 60 }),
  })
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 3 }), fc.array(step, { maxLength: 120 }), (rowsMax, steps) => {
      const table = new PromiseTable(rowsMax, ballot(2))
      const twin = new Twin()
      let floor = ballot(2)
      for (const { type, key, ms } of steps) {
        const one = ballot(ms)
        const bound = maxBallot(maxBallot(table.of(key), twin.accepted.get(key) ?? noBallot), table.floor)
        if (type === 'make' && isBelow(bound, one)) {
          table.make(key, one)
          twin.promised.set(key, one)
        } else if (type === 'accept' && !isBelow(one, maxBallot(table.of(key), twin.accepted.get(key) ?? noBallot))) {
          table.fulfil(key, one)
          twin.accepted.set(key, one)
        } else if (type === 'raise') table.raiseFloor(one)
        for (const each of ['a', 'b', 'c', 'd', 'e']) {
          const held = maxBallot(maxBallot(table.of(each), twin.accepted.get(each) ?? noBallot), table.floor)
          expect(isBelow(held, twin.boundOf(each))).toBe(false)
        }
        expect(isAtMost(floor, table.floor)).toBe(true)
        floor = table.floor
        expect(table.size).toBeLessThanOrEqual(rowsMax)
      }
    }),
    { numRuns: 300 },
  )
})

test('evicts the lowest promise first, so that the floor rises as little as can be (A10)', () => {
  const table = new PromiseTable(2, noBallot)
  table.make('late', ballot(30))
  table.make('early', ballot(10))
  table.make('next', ballot(20))
  expect(table.floor).toEqual(ballot(10))
  expect(table.of('early')).toEqual(noBallot)
  expect(table.of('late')).toEqual(ballot(30))
  expect(table.evictions).toBe(1)
})

test('a promise above the accepted ballot stays, one at it may go (A10)', () => {
  const table = new PromiseTable(8, noBallot)
  table.make('k', ballot(20))
  table.fulfil('k', ballot(10))
  expect(table.of('k')).toEqual(ballot(20))
  table.fulfil('k', ballot(20))
  expect(table.size).toBe(0)
  expect(table.floor).toEqual(noBallot)
})

test('what was fulfilled leaves no trace, however often: no floor rises, and nothing grows', () => {
  const table = new PromiseTable(4, noBallot)
  for (let ms = 1; ms <= 10_000; ms++) {
    table.make(`k${ms % 7}`, ballot(ms))
    table.fulfil(`k${ms % 7}`, ballot(ms))
  }
  expect(table).toMatchObject({ size: 0, floor: noBallot, evictions: 0 })
  expect(table.held).toBeLessThanOrEqual(16)
})
