/** What a cache does for one process: loads once, serves from memory, forgets, and keeps kinds of values and keys apart. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { describe, expect, test } from 'vitest'
import { json } from '../../core/kv/codec.ts'
import { isKvError } from '../../core/kv/errors.ts'
import { memory } from '../../core/stores/memory.ts'
import { settle } from '../../core/testing/clock.ts'
import { counting, testClock } from '../../core/testing/index.ts'
import { cache, notFound, unchanged } from './index.ts'
import { eventsOf, world } from './testdata/world.ts'

const withCode = (code: Parameters<typeof isKvError>[1]) => expect.toSatisfy((error: unknown) => isKvError(error, code))

describe('a cache', () => {
  test('loads a value once and serves it until its ttl has passed', async () => {
    const { clock, source, process } = world()
    const users = process()
    source.rows.set('42', 'Ada')
    expect(await users.get('42')).toBe('Ada')
    source.rows.set('42', 'Grace')
    await clock.advance(59_999)
    expect(await users.get('42')).toBe('Ada')
    expect(source.loads).toBe(1)
    await clock.advance(1)
    expect(await users.get('42')).toBe('Grace')
  })

  test('serves from memory for `fresh` without asking the store, and then asks it by version', async () => {
    const { clock, source, store, process } = world()
    const counted = counting(store)
    const users = process({ fresh: '1s' }, counted)
    await users.get('42')
    await users.settled()
    counted.reset()
    const answer = users.get('42')
    expect(users.get('42')).toBe(answer) // not even a promise is made
    await answer
    expect(users.peek('42')).toBe('no 42')
    expect(counted.counts().total).toBe(0)
    await clock.advance(1_000)
    expect(users.peek('42')).toBeUndefined()
    await users.get('42')
    expect(counted.counts()).toMatchObject({ getMany: 1, total: 1 })
    expect(source.loads).toBe(1)
  })

  test('gives the new value after an invalidation, a mutation, a tag, and a clear', async () => {
    const { source, process } = world()
    const users = process({ fresh: '1h', ttl: '1h', load: (key, { tag }) => (tag('team'), source.load(key)) })
    const change = (row: string): unknown => source.rows.set('42', row)
    await users.get('42')
    change('by key')
    expect(await users.invalidate('42')).toEqual({ done: true })
    expect(await users.get('42')).toBe('by key')
    expect(await users.mutate('42', () => (change('by mutate'), 'done'))).toBe('done')
    expect(await users.get('42')).toBe('by mutate')
    change('by tag')
    expect(await users.invalidateTag('team')).toEqual({ done: true })
    expect(await users.get('42')).toBe('by tag')
    change('by clear')
    expect(await users.clear()).toEqual({ done: true })
    expect(await users.get('42')).toBe('by clear')
    expect(source.loads).toBe(5)
  })
})

void [AsyncLocalStorage, json, memory, settle, testClock, cache, notFound, unchanged, eventsOf, withCode]
