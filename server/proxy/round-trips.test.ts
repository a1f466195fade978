import { expect, test } from 'vitest'
import { RoundTrips } from './round-trips.ts'

test('the server that answers soonest is asked first, and one that was never heard before it', () => {
  const trips = new RoundTrips()
  trips.heard('far', 20, true)
  trips.heard('near', 2, true)
  expect(trips.nearest(['far', 'near'])).toBe(1)
  expect(trips.nearest(['far', 'near', 'new'])).toBe(2)
  for (let index = 0; index < 40; index++) trips.heard('near', 100, false) // it became slow
  expect(trips.nearest(['far', 'near'])).toBe(0)
})

test('the hedge waits for the 95th percentile of recent reads, within its bounds', () => {
  const trips = new RoundTrips()
  expect(trips.hedgeMs).toBe(10)
  for (let index = 1; index <= 256; index++) trips.heard('s', index % 100 < 90 ? 3 : 20, true)
  expect(trips.hedgeMs).toBe(20)
  for (let index = 0; index < 256; index++) trips.heard('s', 0.1, true)
  expect(trips.hedgeMs).toBe(1)
  for (let index = 0; index < 256; index++) trips.heard('s', 5_000, true)
  expect(trips.hedgeMs).toBe(40)
})

test('writes, which wait for a disk, do not make reads patient', () => {
  const trips = new RoundTrips()
  for (let index = 0; index < 1_000; index++) trips.heard('s', 30, false)
  expect(trips.hedgeMs).toBe(10)
})

test('a request that left too long ago is not measured by another', () => {
  const trips = new RoundTrips()
  trips.sent(5, 100)
  expect(trips.sentAt(5)).toBe(100)
  expect(trips.sentAt(6)).toBeUndefined()
  trips.sent(5 + 8_192, 900)
  expect(trips.sentAt(5)).toBeUndefined()
  expect(trips.sentAt(5 + 8_192)).toBe(900)
})

test('a server that went silent is not asked first any more, until it answers', () => {
  const trips = new RoundTrips()
  trips.heard('far', 20, true)
  trips.heard('near', 2, true)
  trips.sent(1, 100)
  trips.asked('near', 1)
  trips.sent(2, 115)
  trips.asked('near', 2)
  expect(trips.nearest(['far', 'near'])).toBe(1) // silent for 15 ms: still sooner than the other
  trips.sent(3, 121)
  expect(trips.nearest(['far', 'near'])).toBe(0)
  trips.heard('near', 21, true)
  expect(trips.nearest(['far', 'near'])).toBe(1)
})
