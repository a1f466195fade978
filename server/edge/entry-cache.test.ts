/** The cache of a storage server's entries: what it holds, what it lets go, and that its bound holds. */
import { expect, test } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import { epochMs } from '../../core/base/types.ts'
import { noCompletions } from '../../core/record/record.ts'
import type { ReplicaEntry } from '../../core/wire/replica-message.ts'
import { EntryCache } from './entry-cache.ts'

const entry = (bytes: number): ReplicaEntry => ({
  ballot: { ms: 1, counter: 1, proposer: 1 },
  record: {
    value: new Uint8Array(bytes),
    version: 1,
    createdAt: epochMs(1),
    lastModifiedAt: epochMs(1),
    changedAt: epochMs(1),
    expiresAt: epochMs(0),
    originator: 'one',
    lastRequest: 'one',
    completions: noCompletions,
  },
})

test('holds what was set last, the absence of a key included, until it is deleted', () => {
  const cache = new EntryCache(1_000_000)
  cache.set(1, 'a', entry(1))
  cache.set(2, 'a', undefined)
  cache.set(1, 'a', entry(2))
  expect(cache.get(1, 'a')?.written?.record.value?.length).toBe(2)
  expect(cache.get(2, 'a')).toMatchObject({ written: undefined })
  expect(cache.get(1, 'b')).toBeUndefined()
  cache.delete(1, 'a')
  expect(cache.get(1, 'a')).toBeUndefined()
})

test('a shard is cleared, and the others stay', () => {
  const cache = new EntryCache(1_000_000)
  for (let index = 0; index < 30; index++) cache.set(index % 3, `k${index}`, entry(10))
  cache.clear(1)
  expect(Array.from({ length: 30 }, (_, index) => cache.get(index % 3, `k${index}`) !== undefined)).toEqual(
    Array.from({ length: 30 }, (_, index) => index % 3 !== 1),
  )
})

test('the bound holds whatever comes, and what is left is what was set', () => {
  const random = seededRandom(4_711)
  const cache = new EntryCache(20_000)
  const model = new Map<string, number>()
  for (let step = 0; step < 5_000; step++) {
    const [shard, key, bytes] = [random.int(4), `k${random.int(60)}`, random.int(3_000)]
    const name = `${shard}/${key}`
    if (random.chance(0.1)) cache.delete(shard, key)
    else if (random.chance(0.01)) cache.clear(shard)
    else {
      cache.set(shard, key, entry(bytes))
      model.set(name, bytes)
    }
    const found = cache.get(random.int(4), `k${random.int(60)}`)
    if (found !== undefined) expect(found.written?.record.value?.length).toBe(model.get(`${found.shard}/${found.key}`))
    expect(cache.bytes).toBeLessThanOrEqual(20_000)
  }
  for (const shard of [0, 1, 2, 3]) cache.clear(shard)
  expect(cache.bytes).toBe(0)
})

test('what is used stays longer than what is not', () => {
  const cache = new EntryCache(20_000)
  for (let index = 0; index < 1_000; index++) {
    cache.set(0, `k${index}`, entry(10))
    cache.get(0, 'k0')
  }
  expect(cache.get(0, 'k0')).toBeDefined()
  expect(cache.get(0, 'k1')).toBeUndefined()
})

test('what is larger than all of it is not kept, and neither is what was there before', () => {
  const cache = new EntryCache(2_000)
  cache.set(0, 'a', entry(10))
  cache.set(0, 'a', entry(5_000))
  expect([cache.get(0, 'a'), cache.bytes]).toEqual([undefined, 0])
})
