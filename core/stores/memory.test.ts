/** What is the memory store's own; the contract itself is tested by the conformance kit (core/conformance/memory.test.ts). */
import { describe, expect, test } from 'vitest'
import { testClock } from '../testing/index.ts'
import { memory } from './memory.ts'

const bytes = (length: number, fill = 1): Uint8Array => new Uint8Array(length).fill(fill)

describe('memory (G15)', () => {
  test('refuses a write beyond maxBytes without effect, and takes it when something has expired', async () => {
    const clock = testClock()
    const kv = memory({ clock, maxBytes: 10_000 })
    await kv.create('a', bytes(4_000), { ttl: '1m' })
    await kv.create('b', bytes(4_000))
    await expect(kv.create('c', bytes(4_000))).rejects.toMatchObject({ code: 'MEMORY_FULL', retry: 'safe' })
    expect((await kv.get('c')).entry).toBeUndefined()
    expect((await kv.get('a')).entry?.value).toEqual(bytes(4_000))
    await clock.advance('1m')
    expect(await kv.create('c', bytes(4_000))).toMatchObject({ ok: true })
  })
  test('a write that needs no more room is taken when the store is full', async () => {
    const kv = memory({ maxBytes: 5_000 })
    await kv.create('a', bytes(4_000))
    expect(await kv.update('a', bytes(4_000, 2))).toMatchObject({ ok: true })
    await expect(kv.update('a', bytes(5_000))).rejects.toMatchObject({ code: 'MEMORY_FULL' })
    expect((await kv.get('a')).entry?.value).toEqual(bytes(4_000, 2))
    expect(await kv.destroy('a')).toMatchObject({ ok: true })
    expect(await kv.create('b', bytes(4_000))).toMatchObject({ ok: true })
  })
  test('never evicts what lives', async () => {
    const kv = memory({ maxBytes: 50_000 })
    const made: string[] = []
    for (let index = 0; index < 500; index++) {
      const answer = await kv.create(`key-${index}`, bytes(100)).catch((error: { code: string }) => error.code)
      if (typeof answer === 'object') made.push(`key-${index}`)
    }
    expect(made.length).toBeGreaterThan(10)
    expect(made.length).toBeLessThan(500)
    expect((await kv.getMany(made)).entries.size).toBe(made.length)
  })
  test('lets go of the dead while it is written to', async () => {
    const clock = testClock()
    const kv = memory({ clock, maxBytes: 100_000 })
    for (let round = 0; round < 50; round++) {
      for (let index = 0; index < 20; index++) await kv.create(`${round}-${index}`, bytes(100), { ttl: '1s' })
      await clock.advance('2s')
    }
  })
  test('keeps a copy: the caller may reuse its buffer, and a slice pins nothing', async () => {
    const kv = memory()
    const pool = Buffer.alloc(8_192, 7)
    const slice = pool.subarray(10, 14)
    await kv.create('a', slice)
    pool.fill(0)
    const { entry } = await kv.get('a')
    expect(entry?.value).toEqual(bytes(4, 7))
    expect(entry?.value.buffer.byteLength).toBe(4)
  })
  test('refuses options that mean nothing', () => {
    for (const maxBytes of [0, -1, 1.5, Number.NaN])
      expect(() => memory({ maxBytes })).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
    expect(() => memory({ limits: 'huge' as never })).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  })
})

describe('what every store refuses in the same words (verbs.ts)', () => {
  const kv = memory()
  const value = bytes(1)
  test.each<[string, () => Promise<unknown>]>([
    ['an empty request id', () => kv.create('a', value, { requestId: '' })],
    ['a request id with a line feed', () => kv.create('a', value, { requestId: 'a\nb' })],
    ['a request id of 65 characters', () => kv.create('a', value, { requestId: 'x'.repeat(65) })],
    ['a sequence of 0', () => kv.create('a', value, { requestId: { session: 's', sequence: 0 } })],
    ['a request that says it is done itself', () => kv.create('a', value, { requestId: { session: 's', sequence: 3, done: 4 } })],
    ['an attempt of 0', () => kv.create('a', value, { requestId: { session: 's', sequence: 3, attempt: 0 } })],
    ['an expiry of two words', () => kv.update('a', value, { expiry: { set: 1, extend: 2 } as never })],
    ['an expiry that is none', () => kv.set('a', value, { expiry: 'later' as never })],
    ['an empty ifVersion', () => kv.destroy('a', { ifVersion: '' as never })],
    ['a deadline of 0', () => kv.get('a', { deadline: 0 })],
    ['keys that are no list', () => kv.getMany('a' as never)],
  ])('refuses %s', async (_name, call) => {
    await expect(call()).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    expect((await kv.get('a')).entry).toBeUndefined()
  })
})
