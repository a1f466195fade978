/** Assertions stop with the law that was broken. */
import { expect, test } from 'vitest'
import { assert, AssertionError, unreachable } from './assert.ts'

test('assert passes what holds and names the law that does not', () => {
  assert(1, 'one is true')
  expect(() => assert(0, 'accepted ballots only grow')).toThrow(AssertionError)
  expect(() => assert(undefined, 'accepted ballots only grow')).toThrow('accepted ballots only grow')
})

test('unreachable shows what came', () => {
  expect(() => unreachable({ type: 'new' } as never)).toThrow('{"type":"new"}')
})
