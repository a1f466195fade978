/** The memory store: a clock of the caller's, a bound that refuses and recovers, and bytes of its own. */
import { expect, test } from 'vitest'
import { isKvError } from '../kv/errors.ts'
import { testClock } from '../testing/index.ts'
import { memory } from './memory.ts'

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => (isKvError(error) ? error.code : String(error)),
  )
const bytesOf = (...values: number[]): Uint8Array => new Uint8Array(values)

test('declares what it can', () => {
  expect(memory({ limits: 'juno' }).capabilities).toMatchObject({
    store: 'memory',
    exactExpiry: true,
    serverClock: true,
    requestIds: true,
    scan: false,
    ttlGrainMs: 1,
    durability: 'memory',
    sites: 'one',
    limits: { keyBytesMax: 128 },
  })
})

test('answers with the time of the clock that it was given, also on a miss', async () => {
  const clock = testClock()
  const kv = memory({ clock })
  expect(await kv.get('a')).toEqual({ now: clock.now() })
  await clock.advance(17)
  expect(await kv.create('a', bytesOf(1), { ttl: 100 })).toMatchObject({
    now: clock.now(),
    entry: { createdAt: clock.now(), expiresAt: clock.now() + 100 },
  })
  await clock.advance(99)
  expect((await kv.get('a')).entry).toBeDefined()
  await clock.advance(1)
  expect((await kv.get('a')).entry).toBeUndefined()
})

test('keeps a copy of its own: a caller may use its buffer again, and a slice pins no larger one', async () => {
  const kv = memory()
  const buffer = Buffer.from([1, 2, 3, 4])
  await kv.create('a', buffer.subarray(1, 3))
  buffer.fill(9)
  const { value } = (await kv.get('a')).entry!
  expect(value).toEqual(bytesOf(2, 3))
  expect(Buffer.isBuffer(value)).toBe(false)
  expect(value.buffer.byteLength).toBe(2)
  const changed = bytesOf(5)
  await kv.update('a', changed)
  changed[0] = 6
  expect((await kv.get('a')).entry?.value).toEqual(bytesOf(5))
})

test('two stores know nothing of each other', async () => {
  const [one, other] = [memory(), memory()]
  await one.set('a', bytesOf(1))
  expect((await other.get('a')).entry).toBeUndefined()
})

test('a full store refuses what would grow, forgets nothing, and still takes what does not grow', async () => {
  const kv = memory({ maxBytes: 2_000 })
  let made = 0
  while ((await codeOf(kv.create(`key-${made}`, new Uint8Array(100)))) === 'none') made++
  expect(made).toBe(Math.floor(2_000 / (200 + 5 * 2 + 100)))
  expect(await codeOf(kv.create('one-more', new Uint8Array(100)))).toBe('MEMORY_FULL')
  expect(await codeOf(kv.update('key-0', new Uint8Array(500)))).toBe('MEMORY_FULL')
  for (let index = 0; index < made; index++) expect((await kv.get(`key-${index}`)).entry?.value.length).toBe(100)
  expect(await codeOf(kv.update('key-0', new Uint8Array(100)))).toBe('none')
  await kv.destroy('key-1')
  expect(await codeOf(kv.create('key-1', new Uint8Array(100)))).toBe('none')
})

test('a full store recovers by itself when entries expire', async () => {
  const clock = testClock()
  const kv = memory({ clock, maxBytes: 10_000 })
  let made = 0
  while ((await codeOf(kv.create(`key-${made}`, new Uint8Array(100), { ttl: 1_000 }))) === 'none') made++
  await clock.advance(999)
  expect(await codeOf(kv.create('late', new Uint8Array(100)))).toBe('MEMORY_FULL')
  await clock.advance(1)
  for (let index = 0; index < made; index++) expect(await codeOf(kv.create(`new-${index}`, new Uint8Array(100)))).toBe('none')
})

test('a destroyed entry gives its bytes back; one whose request is remembered, after 12 s', async () => {
  const clock = testClock()
  const kv = memory({ clock, maxBytes: 1_000 })
  for (let round = 0; round < 100; round++) {
    await kv.create('a', new Uint8Array(700))
    await kv.destroy('a')
  }
  await kv.create('a', new Uint8Array(700), { requestId: 'r' })
  await kv.destroy('a')
  expect(await kv.create('a', new Uint8Array(700), { requestId: 'r' }), 'the tombstone answers').toMatchObject({ ok: true })
  expect((await kv.get('a')).entry).toBeUndefined()
  expect(await codeOf(kv.create('b', new Uint8Array(700)))).toBe('MEMORY_FULL')
  await clock.advance('12s')
  expect(await codeOf(kv.create('b', new Uint8Array(700)))).toBe('none')
})

test('the dead leave while others write, so that short lives do not fill the store', async () => {
  const clock = testClock()
  const kv = memory({ clock, maxBytes: 100_000 })
  for (let index = 0; index < 5_000; index++) {
    await kv.create(`key-${index}`, new Uint8Array(100), { ttl: 50 })
    clock.set(clock.now() + 1)
  }
  // 50 are alive at a time, some 16 KB; sweeping two a write keeps the dead far below the bound, so this write needs no forced sweep.
  expect(await codeOf(kv.create('last', new Uint8Array(50_000)))).toBe('none')
})

test('refuses a bound that is none', () => {
  for (const maxBytes of [0, -1, 1.5, Number.NaN, '1MB' as never]) expect(() => memory({ maxBytes })).toThrow('maxBytes')
})

test('closing empties it, twice is once, and every verb is refused after', async () => {
  const kv = memory()
  await kv.set('a', bytesOf(1))
  expect(kv.close()).toBe(kv.close())
  await kv[Symbol.asyncDispose]()
  const calls = [
    kv.create('a', bytesOf(1)),
    kv.get('a'),
    kv.getMany(['a']),
    kv.update('a', bytesOf(1)),
    kv.set('a', bytesOf(1)),
    kv.destroy('a'),
  ]
  for (const call of calls) expect(await codeOf(call)).toBe('CLOSED')
})
