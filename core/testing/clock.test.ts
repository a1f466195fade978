/** The test clock: order of timers, steps, signals. */
import { expect, test } from 'vitest'
import { isKvError } from '../kv/errors.ts'
import { testClock } from './clock.ts'

test('the test clock stands still until it is advanced, and starts where it is told', async () => {
  const clock = testClock(1_000)
  expect(clock.now()).toBe(1_000)
  await clock.advance('1.5s')
  expect([clock.now(), clock.elapsed()]).toEqual([2_500, 1_500])
  expect(testClock().now()).toBe(testClock().now())
})

test('timers run in the order of their instants, each at its own instant, and those of one instant in the order they were set', async () => {
  const clock = testClock(0)
  const ran: string[] = []
  const note = (name: string) => () => ran.push(`${name}@${clock.now()}`)
  clock.setTimeout(note('late'), 30)
  clock.setTimeout(note('early'), 10)
  clock.setTimeout(note('second'), 30)
  clock.clearTimeout(clock.setTimeout(note('cleared'), 20))
  await clock.advance(29)
  expect(ran).toEqual(['early@10'])
  await clock.advance(1)
  expect(ran).toEqual(['early@10', 'late@30', 'second@30'])
})

test('advance runs what waits for a timer, also when that sets the next one', async () => {
  const clock = testClock(0)
  const seen: number[] = []
  const loop = async () => {
    for (let round = 0; round < 5; round++) {
      await clock.sleep('1s')
      await Promise.resolve()
      seen.push(clock.now())
    }
  }
  const done = loop()
  await clock.advance('3s')
  expect(seen).toEqual([1_000, 2_000, 3_000])
  await clock.advance('2s')
  await done
  expect(seen).toEqual([1_000, 2_000, 3_000, 4_000, 5_000])
})

test('set steps the wall clock both ways and runs no timer', async () => {
  const clock = testClock(1_000_000)
  let ran = 0
  clock.setTimeout(() => ran++, 100)
  clock.set(2_000_000)
  await clock.advance(99)
  clock.set(5)
  expect([ran, clock.now(), clock.nextTimerMs()]).toEqual([0, 5, 1])
  await clock.advance(1)
  expect([ran, clock.now(), clock.nextTimerMs()]).toEqual([1, 6, undefined])
})

test('sleep rejects with the reason of its signal and leaves neither timer nor listener', async () => {
  const clock = testClock()
  const controller = new AbortController()
  const sleeping = clock.sleep('1m', controller.signal)
  controller.abort('enough')
  await expect(sleeping).rejects.toBe('enough')
  expect(clock.nextTimerMs()).toBe(undefined)
  await expect(clock.sleep(1, controller.signal)).rejects.toBe('enough')
})

test('two advances at once let no time pass twice', async () => {
  const clock = testClock(0)
  await Promise.all([clock.advance(10), clock.advance(4)])
  expect(clock.now()).toBe(10)
})

test('the test clock refuses what is no instant and no duration', async () => {
  expect(() => testClock(-1)).toThrow('instant')
  expect(() => testClock().set(1.5)).toThrow('instant')
  const error = await testClock()
    .advance('1 fortnight' as '1s')
    .catch((caught: unknown) => caught)
  expect(isKvError(error, 'INVALID_ARGUMENT')).toBe(true)
})
