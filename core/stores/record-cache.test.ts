/** The cache of records: its bound, its second chance, and what it answers. */
import { expect, test } from 'vitest'
import { seededRandom } from '../base/random.ts'
import { epochMs } from '../base/types.ts'
import { encodeRecord, recordKey } from '../engine/layout.ts'
import { noCompletions, type KeyRecord } from '../record/record.ts'
import { RecordCache, slotBytes } from './record-cache.ts'

const seed = Number(process.env.HAPAX_SEED)
const now = epochMs(1_000)

function bytesOf(key: string, change: Partial<KeyRecord> = {}): Buffer {
  return encodeRecord(recordKey(key), {
    value: new Uint8Array(100),
    version: 1,
    createdAt: now,
    lastModifiedAt: now,
    changedAt: now,
    expiresAt: epochMs(0),
    originator: 'one',
    lastRequest: 'one',
    completions: noCompletions,
    ...change,
  })
}
const sizeOf = (key: string): number => slotBytes + key.length * 2 + bytesOf(key).length

test('a cached entry is the live record, null when it is dead, undefined when the record is not there', () => {
  const cache = new RecordCache(10_000)
  cache.set('live', bytesOf('live', { value: Buffer.from('v'), expiresAt: epochMs(2_000) }))
  cache.set('buried', bytesOf('buried', { value: undefined }))
  expect(cache.entry('live', epochMs(1_999))?.value).toEqual(new Uint8Array([118]))
  expect(cache.entry('live', epochMs(2_000))).toBeNull()
  expect(cache.entry('live', epochMs(1_999))?.expiresAt, 'a clock that stepped back finds it again').toBe(2_000)
  expect(cache.entry('buried', now)).toBeNull()
  expect(cache.entry('other', now)).toBeUndefined()
})

test('a record that is set again is what is read from then on', () => {
  const cache = new RecordCache(10_000)
  cache.set('a', bytesOf('a'))
  expect(cache.entry('a', now)?.version).toMatch(/^1\./)
  cache.set('a', bytesOf('a', { version: 2 }), cache.slot('a'))
  expect(cache.entry('a', now)?.version).toMatch(/^2\./)
  cache.delete('a')
  expect(cache.entry('a', now)).toBeUndefined()
  expect(cache.bytes).toBe(0)
})

test('a slot that has left the cache does not bring its record back unseen', () => {
  const cache = new RecordCache(10_000)
  cache.set('a', bytesOf('a'))
  const slot = cache.slot('a')
  cache.delete('a')
  cache.set('a', bytesOf('a', { version: 2 }), slot)
  expect(cache.entry('a', now)?.version).toMatch(/^2\./)
  expect(cache.bytes).toBe(sizeOf('a'))
})

test('what was used since the hand passed stays, what was not leaves', () => {
  const cache = new RecordCache(3 * sizeOf('a'))
  for (const key of ['a', 'b', 'c']) cache.set(key, bytesOf(key))
  cache.entry('a', now)
  cache.set('d', bytesOf('d'))
  expect(['a', 'b', 'c', 'd'].filter((key) => cache.slot(key) !== undefined)).toEqual(['a', 'c', 'd'])
})

test('never holds more than its bound, whatever is set, read and deleted', () => {
  const random = seededRandom(seed)
  const bound = 20 * sizeOf('k00')
  const cache = new RecordCache(bound)
  const counted = new Map<string, number>()
  for (let step = 0; step < 5_000; step++) {
    const key = `k${random.int(60)}`
    if (random.chance(0.1)) cache.delete(key)
    else if (random.chance(0.5)) cache.entry(key, now)
    else {
      const record = bytesOf(key, { value: new Uint8Array(random.int(800)) })
      cache.set(key, record, random.chance(0.5) ? cache.slot(key) : undefined)
      counted.set(key, slotBytes + key.length * 2 + record.length)
    }
    expect(cache.bytes, `step ${step}, HAPAX_SEED=${seed}`).toBeLessThanOrEqual(bound)
  }
  let held = 0
  for (const [key, bytes] of counted) if (cache.slot(key) !== undefined) held += bytes
  expect(cache.bytes, `HAPAX_SEED=${seed}`).toBe(held)
})

test('with no room it holds nothing, and a record larger than the bound does not stay', () => {
  const cache = new RecordCache(0)
  cache.set('a', bytesOf('a'))
  expect(cache.slot('a')).toBeUndefined()
  expect(cache.bytes).toBe(0)
})
