/** Names must be ULIDs that rise and never repeat, also across the bound of one stamp's count. */
import { decodeTime } from 'ulid'
import { expect, test, vi } from 'vitest'
import { newId } from './id.ts'

test('a name is a ULID whose time stamp is at most a second old', () => {
  const before = Date.now()
  const name = newId()
  expect(name).toMatch(/^[0-7][0-9A-HJKMNP-TV-Z]{25}$/)
  expect(decodeTime(name)).toBeGreaterThan(before - 1_000)
  expect(decodeTime(name)).toBeLessThanOrEqual(Date.now())
})

test('names rise, when a stamp has given all its names, when a second is over and when the clock steps back', () => {
  vi.useFakeTimers({ now: Date.now() + 10_000, toFake: ['Date'] })
  try {
    let last = newId()
    const first = last
    const rises = (): void => {
      const next = newId()
      if (next <= last) expect.fail(`${next} came after ${last}`)
      last = next
    }
    for (let index = 0; index < 1_048_577; index++) rises()
    expect(last.slice(0, 22)).not.toBe(first.slice(0, 22))
    vi.setSystemTime(Date.now() + 2_000)
    rises()
    expect(decodeTime(last)).toBe(Date.now())
    vi.setSystemTime(Date.now() - 60_000)
    for (let index = 0; index < 10; index++) rises()
  } finally {
    vi.useRealTimers()
  }
})

test('the chance in a name differs from stamp to stamp', () => {
  vi.useFakeTimers({ now: Date.now() + 100_000, toFake: ['Date'] })
  try {
    const seen = new Set<string>()
    for (let index = 0; index < 100; index++) {
      vi.setSystemTime(Date.now() + 1_000)
      seen.add(newId().slice(10, 22))
    }
    expect(seen.size).toBe(100)
  } finally {
    vi.useRealTimers()
  }
})
