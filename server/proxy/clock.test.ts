/** R15: whoever cannot trust its clock answers nothing that depends on it. */
import { expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import type { Instant } from '../register/work.ts'
import { ProxyClock } from './clock.ts'

const start = 1_700_000_000_000
/** `mono` since the start; the wall clock is `ahead` of the truth. */
const at = (mono: number, ahead = 0): Instant => ({ wall: epochMs(start + mono + ahead), mono })
const theirs = (mono: number, ahead = 0) => epochMs(start + mono + ahead)

test('a clock is not trusted before those of a quorum of zones are known (C1)', () => {
  const clock = new ProxyClock({ zones: 3 })
  expect(clock.isTrusted(at(0))).toBe(false)
  clock.hear(0, theirs(5), 0, at(10))
  expect(clock.isTrusted(at(10))).toBe(false)
  clock.hear(0, theirs(15), 10, at(20)) // the same zone is one voice
  expect(clock.isTrusted(at(20))).toBe(false)
  clock.hear(1, theirs(25), 20, at(30))
  expect(clock.isTrusted(at(30))).toBe(true)
})

test.each([
  [250, true],
  [251, false],
  [-250, true],
  [-251, false],
])('a clock that is %i ms ahead of the median is trusted: %s (C2)', (ahead, isTrusted) => {
  const clock = new ProxyClock({ zones: 3 })
  for (const zone of [0, 1, 2]) clock.hear(zone, theirs(0), 0, at(0, ahead))
  expect(clock.isTrusted(at(0, ahead))).toBe(isTrusted)
})

test('half a round trip counts against the clock, for so much is not known (C2)', () => {
  const clock = new ProxyClock({ zones: 3 })
  for (const zone of [0, 1, 2]) clock.hear(zone, theirs(250), 0, at(500))
  expect(clock.isTrusted(at(500))).toBe(true)
  const slower = new ProxyClock({ zones: 3 })
  for (const zone of [0, 1, 2]) slower.hear(zone, theirs(251), 0, at(502))
  expect(slower.isTrusted(at(502))).toBe(false)
})

test('one odd server is neither believed nor a reason to stop, two of three are (C3)', () => {
  const clock = new ProxyClock({ zones: 3 })
  clock.hear(0, theirs(0, 60_000), 0, at(0))
  clock.hear(1, theirs(0), 0, at(0))
  clock.hear(2, theirs(0), 0, at(0))
  expect(clock.isTrusted(at(0))).toBe(true)
  clock.hear(1, theirs(1, 60_000), 1, at(1))
  expect(clock.isTrusted(at(1))).toBe(false)
})

test('a step of the own clock is seen at the next turn, and nothing is trusted until a quorum was asked again (C4)', () => {
  const clock = new ProxyClock({ zones: 3 })
  for (const zone of [0, 1, 2]) clock.hear(zone, theirs(0), 0, at(0))
  expect(clock.isTrusted(at(10, 51))).toBe(false)
  expect(clock.steps).toBe(1)
  for (const zone of [0, 1]) clock.hear(zone, theirs(20), 20, at(20, 51))
  expect(clock.isTrusted(at(20, 51))).toBe(true) // it is 51 ms ahead, which is within the bound
})

test('what was measured long ago counts no more', () => {
  const clock = new ProxyClock({ zones: 3 })
  for (const zone of [0, 1, 2]) clock.hear(zone, theirs(0), 0, at(0))
  expect(clock.isTrusted(at(10_000))).toBe(true)
  expect(clock.isTrusted(at(10_001))).toBe(false)
})

test('a quick answer is not replaced by a slow one while it is young', () => {
  const clock = new ProxyClock({ zones: 1 })
  clock.hear(0, theirs(0), 0, at(0))
  clock.hear(0, theirs(2_000), 1_000, at(2_000)) // a whole second: it could be wrong by 500 ms
  expect(clock.isTrusted(at(2_000))).toBe(true)
  clock.hear(0, theirs(7_000), 6_000, at(7_000))
  expect(clock.isTrusted(at(7_000))).toBe(false)
})

test('a zone that does not exist has no voice', () => {
  const clock = new ProxyClock({ zones: 1 })
  clock.hear(1, theirs(0), 0, at(0))
  expect(clock.isTrusted(at(0))).toBe(false)
})

test('the first answer after a suspend that stopped both clocks ends what was known, a slower one too (C5, interleaving 6)', () => {
  const clock = new ProxyClock({ zones: 3 })
  for (const zone of [0, 1, 2]) clock.hear(zone, theirs(0), 0, at(1))
  expect(clock.isTrusted(at(2))).toBe(true)
  clock.hear(0, theirs(60_003), 3, at(6)) // a minute went by that neither of our clocks saw
  expect(clock.isTrusted(at(6))).toBe(false)
  clock.hear(1, theirs(60_003), 3, at(6))
  expect(clock.isTrusted(at(6))).toBe(false)
})

test('a server that slept beside the proxy is no witness for its clock (C5)', () => {
  const clock = new ProxyClock({ zones: 3 })
  for (const zone of [0, 1, 2]) clock.hear(zone, theirs(0), 0, at(1))
  clock.hear(0, theirs(5), 3, at(6)) // on the same machine: as wrong as ours
  clock.hear(1, theirs(60_003), 3, at(6))
  expect(clock.isTrusted(at(6))).toBe(false)
  clock.hear(0, theirs(5), 3, at(6))
  expect(clock.isTrusted(at(6))).toBe(false)
})

test('one server whose clock steps costs the proxy its trust until a quorum has answered anew', () => {
  const clock = new ProxyClock({ zones: 3 })
  for (const zone of [0, 1, 2]) clock.hear(zone, theirs(0), 0, at(1))
  clock.hear(2, theirs(5, 60_000), 4, at(5))
  expect(clock.isTrusted(at(5))).toBe(false)
  for (const zone of [0, 1]) clock.hear(zone, theirs(6), 5, at(6))
  expect(clock.isTrusted(at(6))).toBe(true)
})

test('of two clocks neither may be odd: a median of two does not say which one is right (C3)', () => {
  for (const ahead of [60_000, -60_000]) {
    const clock = new ProxyClock({ zones: 3 })
    clock.hear(0, theirs(0), 0, at(0))
    clock.hear(1, theirs(0, ahead), 0, at(0))
    expect(clock.isTrusted(at(0))).toBe(false)
    clock.hear(2, theirs(0), 0, at(0))
    expect(clock.isTrusted(at(0))).toBe(true)
  }
})
