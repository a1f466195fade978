import { expect, test } from 'vitest'
import { assert, AssertionError, unreachable } from './assert.ts'
import { seededRandom } from './random.ts'
import { epochMsMax, parseDuration } from './types.ts'

test('an assertion says the law that was broken', () => {
  assert(true, 'all is well')
  expect(() => assert(false, 'ballots only grow')).toThrow(AssertionError)
  expect(() => assert(0, 'ballots only grow')).toThrow(/ballots only grow/)
  expect(() => unreachable('new' as never)).toThrow(/"new"/)
})
test('the same seed gives the same sequence, another seed another', () => {
  const draw = (seed: number): number[] => {
    const random = seededRandom(seed)
    return Array.from({ length: 20 }, () => random.int(1_000))
  }
  expect(draw(7)).toEqual(draw(7))
  expect(draw(7)).not.toEqual(draw(8))
})
test('a seeded generator stays in its range and reaches all of it', () => {
  const random = seededRandom(1)
  const seen = new Set(Array.from({ length: 1_000 }, () => random.int(10)))
  expect([...seen].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  expect(random.chance(0)).toBe(false)
  expect(random.chance(1)).toBe(true)
  expect(['a', 'b']).toContain(random.pick(['a', 'b']))
})
test('a duration that does not fit a Date is none', () => {
  expect(parseDuration(epochMsMax)).toBe(epochMsMax)
  expect(parseDuration(epochMsMax + 1)).toBeUndefined()
  expect(parseDuration('100000000001d')).toBeUndefined()
  expect(parseDuration('1w' as never)).toBeUndefined()
})
