/** The seeded generator: the same everywhere, within its range, and not lopsided. */
import { expect, test } from 'vitest'
import { seededRandom } from './random.ts'

test('one seed gives one sequence, on every platform', () => {
  const random = seededRandom(42)
  const first = Array.from({ length: 4 }, () => random.int(1_000_000))
  expect(first).toEqual([601_103, 448_290, 852_465, 669_734])
  expect(seededRandom(43).int(1_000_000)).not.toBe(601_103)
})

test('numbers stay in their range and fill it', () => {
  const random = seededRandom(7)
  const counts = Array.from({ length: 10 }, () => 0)
  for (let drawn = 0; drawn < 10_000; drawn++) {
    const index = random.int(10)
    counts[index] = (counts[index] ?? 0) + 1
    const real = random.next()
    expect(real >= 0 && real < 1).toBe(true)
  }
  for (const count of counts) expect(count).toBeGreaterThan(850)
})

test('chance keeps to its ends, and pick gives each item', () => {
  const random = seededRandom(7)
  const drawn = new Set<string>()
  for (let round = 0; round < 200; round++) {
    expect(random.chance(0)).toBe(false)
    expect(random.chance(1)).toBe(true)
    drawn.add(random.pick(['a', 'b', 'c']))
  }
  expect([...drawn].sort()).toEqual(['a', 'b', 'c'])
})
