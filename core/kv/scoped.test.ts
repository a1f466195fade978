import { describe, expect, expectTypeOf, test } from 'vitest'
import { memory } from '../stores/memory.ts'
import { json, text } from './codec.ts'
import type { KV } from './kv.ts'
import { scoped } from './scoped.ts'

const bytes = (value: string): Uint8Array => new TextEncoder().encode(value)

describe('scoped', () => {
  test('stores under the name and a colon, and gives keys back as they were asked', async () => {
    const kv = memory()
    const orders = scoped(kv, 'order', { codec: text })
    await orders.create('1', 'one')
    expect((await kv.get('order:1')).entry?.value).toEqual(bytes('one'))
    expect([...(await orders.getMany(['1', '2'])).entries.keys()]).toEqual(['1'])
  })
  test('two scopes never share a key: names hold no colon', async () => {
    const kv = memory()
    expect(() => scoped(kv, 'a:b')).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
    expect(() => scoped(kv, '')).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
    expect(() => scoped(kv, 'x'.repeat(129))).toThrow(expect.objectContaining({ code: 'TOO_LARGE' }))
    await scoped(kv, 'a').create('b:c', bytes('1'))
    expect((await scoped(kv, 'a').get('c')).entry).toBeUndefined()
  })
  test('nests', async () => {
    const kv = memory()
    await scoped(scoped(kv, 'a'), 'b', { codec: text }).create('c', 'deep')
    expect((await kv.get('a:b:c')).entry?.value).toEqual(bytes('deep'))
  })
  test('decodes the entries of results and of refusals', async () => {
    const orders = scoped(memory(), 'order', { codec: json<{ total: number }>() })
    const made = await orders.create('1', { total: 5 })
    expect(await orders.create('1', { total: 6 })).toMatchObject({ ok: false, refusal: 'exists', entry: { value: { total: 5 } } })
    expect(await orders.update('1', { total: 7 }, { ifVersion: made.entry.version })).toMatchObject({
      ok: true,
      entry: { value: { total: 7 } },
    })
    expect(await orders.update('1', { total: 8 }, { ifVersion: made.entry.version })).toMatchObject({
      refusal: 'version',
      entry: { value: { total: 7 } },
    })
    expect(await orders.set('1', { total: 9 })).toMatchObject({ entry: { value: { total: 9 } } })
    expect(await orders.destroy('1')).toMatchObject({ ok: true, entry: { value: { total: 9 } } })
  })
  test('leaves less room to keys, in its capabilities too', async () => {
    const kv = memory({ limits: { keyBytesMax: 10 } })
    const view = scoped(kv, 'abc')
    expect(view.capabilities.limits.keyBytesMax).toBe(6)
    await view.create('123456', bytes('x'))
    await expect(view.create('1234567', bytes('x'))).rejects.toMatchObject({ code: 'TOO_LARGE' })
    expect(() => scoped(kv, '123456789')).toThrow(expect.objectContaining({ code: 'TOO_LARGE' }))
  })
  test('a value that does not fit is refused before anything is stored', async () => {
    const kv = memory()
    const orders = scoped(kv, 'order', { codec: json<unknown>() })
    await expect(orders.create('1', { total: Number.NaN })).rejects.toMatchObject({ code: 'VALUE_INVALID' })
    expect((await kv.get('order:1')).entry).toBeUndefined()
  })
  test('bytes of somebody else are an error when they are read, and can be destroyed', async () => {
    const kv = memory()
    await kv.create('order:1', bytes('no json'))
    const orders = scoped(kv, 'order', { codec: json<unknown>() })
    await expect(orders.get('1')).rejects.toMatchObject({ code: 'VALUE_INVALID' })
    expect(await orders.destroy('1')).toMatchObject({ ok: true })
  })
  test('close closes nothing', async () => {
    const kv = memory()
    await scoped(kv, 'a').close()
    expect(await kv.create('x', bytes('1'))).toMatchObject({ ok: true })
  })
  test('has the type of its codec', () => {
    expectTypeOf(scoped(memory(), 'order', { codec: json<{ total: number }>() })).toEqualTypeOf<KV<{ total: number }>>()
    expectTypeOf(scoped(memory(), 'order')).toEqualTypeOf<KV>()
  })
})
