/** A scope is a prefix and a codec over all five verbs; scopes beside each other share no key, and its view ends nothing. */
import { expect, expectTypeOf, test } from 'vitest'
import { memory } from '../stores/memory.ts'
import { counting } from '../testing/index.ts'
import { json, text, type Codec } from './codec.ts'
import { isKvError } from './errors.ts'
import type { KV } from './kv.ts'
import { scoped, viewOf } from './scoped.ts'

const utf8 = new TextEncoder()
const codeOf = (action: () => unknown): string => {
  try {
    action()
  } catch (error) {
    return isKvError(error) ? error.code : String(error)
  }
  return 'none'
}
const rejection = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => (isKvError(error) ? error.code : String(error)),
  )

test('keys stand under the name and a colon, and all verbs speak the codec', async () => {
  const kv = memory()
  const orders = scoped(kv, 'order', { codec: json<{ total: number }>() })
  expectTypeOf(orders).toEqualTypeOf<KV<{ total: number }>>()
  const made = await orders.create('1', { total: 1 }, { ttl: '1h' })
  expect(made).toMatchObject({ ok: true, entry: { value: { total: 1 } } })
  expect((await kv.get('order:1')).entry?.value).toEqual(utf8.encode('{"total":1}'))
  expect(await orders.create('1', { total: 2 })).toEqual({ ok: false, refusal: 'exists', entry: made.entry, now: expect.any(Number) })
  expect((await orders.get('1')).entry).toEqual(made.entry)
  expect((await orders.get('2')).entry).toBeUndefined()
  const changed = await orders.update('1', { total: 3 }, { ifVersion: made.entry.version })
  expect(changed).toMatchObject({ ok: true, entry: { value: { total: 3 }, expiresAt: made.entry.expiresAt } })
  expect(await orders.update('1', { total: 4 }, { ifVersion: made.entry.version })).toMatchObject({
    refusal: 'version',
    entry: { value: { total: 3 } },
  })
  expect(await orders.update('9', { total: 4 })).toMatchObject({ ok: false, refusal: 'missing' })
  expect(await orders.set('2', { total: 5 })).toMatchObject({ ok: true, entry: { value: { total: 5 } } })
  const many = await orders.getMany(['1', '2', '3'])
  expect([...many.entries].map(([key, { value }]) => [key, value])).toEqual([
    ['1', { total: 3 }],
    ['2', { total: 5 }],
  ])
  expect(await orders.destroy('2')).toMatchObject({ ok: true, entry: { value: { total: 5 } } })
  expect(await orders.destroy('1', { ifVersion: made.entry.version })).toMatchObject({
    ok: false,
    refusal: 'version',
    entry: { value: { total: 3 } },
  })
})

test('request ids, signals and expiries reach the store', async () => {
  const kv = scoped(memory(), 's', { codec: text })
  const first = await kv.create('a', 'x', { requestId: 'r' })
  expect((await kv.create('a', 'x', { requestId: 'r' })).entry).toEqual(first.entry)
  expect(await rejection(kv.get('a', { signal: AbortSignal.abort() }))).toBe('ABORTED')
  expect((await kv.update('a', 'y', { expiry: { set: 1_000 } })).entry?.expiresAt).toBeDefined()
})

test('scopes beside each other share no key, whatever their names and keys', async () => {
  const kv = memory()
  const pairs = [
    ['a', 'b:c'],
    ['ab', 'c'],
    ['A', 'b:c'],
  ] as const
  for (const [name, key] of pairs) expect((await scoped(kv, name, { codec: text }).create(key, name)).ok).toBe(true)
  for (const [name, key] of pairs) expect((await scoped(kv, name, { codec: text }).get(key)).entry?.value).toBe(name)
})

test('scopes nest, each name under the other, and go to the root in one step', async () => {
  const root = counting(memory())
  const inner = scoped(scoped(root, 'shop'), 'order', { codec: text })
  await inner.set('1', 'x')
  expect((await root.get('shop:order:1')).entry?.value).toEqual(utf8.encode('x'))
  expect(viewOf(inner)).toMatchObject({ root, prefix: 'shop:order:' })
  expect(viewOf(root)).toBeUndefined()
})

test('a codec of bytes in the outer scope, such as encryption, is gone through', async () => {
  const turned: Codec<Uint8Array> = {
    name: 'turned',
    encode: (value) => value.map((byte) => byte ^ 0xff),
    decode: (stored) => stored.map((byte) => byte ^ 0xff),
  }
  const root = memory()
  const inner = scoped(scoped(root, 'sealed', { codec: turned }), 'note', { codec: text })
  await inner.set('1', 'hello')
  expect((await root.get('sealed:note:1')).entry?.value).toEqual(turned.encode(utf8.encode('hello')))
  expect((await inner.get('1')).entry?.value).toBe('hello')
})

test('names are refused that are empty, hold a colon, are too long or are no Unicode', () => {
  const kv = memory({ limits: 'juno' })
  for (const name of ['', 'a:b', ':', '\ud800', undefined as never, 1 as never])
    expect(codeOf(() => scoped(kv, name))).toBe('INVALID_ARGUMENT')
  expect(codeOf(() => scoped(kv, 'n'.repeat(64)))).toBe('none')
  expect(codeOf(() => scoped(kv, 'n'.repeat(65)))).toBe('TOO_LARGE')
  expect(codeOf(() => scoped(kv, 'ü'.repeat(33)))).toBe('TOO_LARGE')
  const deep = scoped(scoped(kv, 'a'.repeat(60)), 'b'.repeat(60))
  expect(codeOf(() => scoped(deep, 'c'.repeat(6)))).toBe('TOO_LARGE')
})

test('the room for keys is what the prefix leaves, in bytes', async () => {
  const kv = scoped(memory({ limits: 'juno' }), 'öl')
  expect(kv.capabilities.limits.keyBytesMax).toBe(128 - 4)
  expect(kv.capabilities.exactExpiry).toBe(true)
  expect((await kv.set('k'.repeat(124), new Uint8Array())).ok).toBe(true)
  expect(await rejection(kv.set('k'.repeat(125), new Uint8Array()))).toBe('TOO_LARGE')
})

test('an empty key is refused, though prefix and key together are not empty', async () => {
  const kv = scoped(memory(), 's')
  for (const call of [kv.get(''), kv.getMany(['']), kv.set('', new Uint8Array()), kv.destroy('')]) {
    expect(await rejection(call)).toBe('INVALID_ARGUMENT')
  }
})

test('a value that does not fit is refused before the store is called', async () => {
  const root = counting(memory())
  const kv = scoped(root, 's', { codec: json() })
  expect(await rejection(kv.create('a', Number.NaN))).toBe('VALUE_INVALID')
  expect(await rejection(kv.update('a', undefined))).toBe('VALUE_INVALID')
  expect(root.counts()).toMatchObject({ create: 0, update: 0 })
})

test('a stored value that does not fit is a fault for a reader, and can be destroyed', async () => {
  const root = memory()
  const kv = scoped(root, 's', { codec: json() })
  await root.set('s:a', utf8.encode('{'))
  expect(await rejection(kv.get('a'))).toBe('VALUE_INVALID')
  expect(await kv.destroy('a')).toEqual({ ok: true, now: expect.any(Number) })
  expect((await root.get('s:a')).entry).toBeUndefined()
})

test('closing a view closes nothing; closing the store closes its views', async () => {
  const root = memory()
  const kv = scoped(root, 's', { codec: text })
  await kv.close()
  await kv[Symbol.asyncDispose]()
  expect((await kv.set('a', 'x')).ok).toBe(true)
  await root.close()
  expect(await rejection(kv.get('a'))).toBe('CLOSED')
})
