/** A whole cluster over real sockets: what a user's client sees. */
import { afterEach, describe, expect, test } from 'vitest'
import { connect } from '../../core/client/client.ts'
import { startCluster, type TestCluster } from './testdata/cluster.ts'

let cluster: TestCluster
afterEach(() => cluster.close())
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

describe.each([1, 3])('%i zones', (zones) => {
  test('the five verbs, on a key', async () => {
    cluster = await startCluster({ zones })
    const kv = await connect(cluster.url)
    const made = await kv.create('a', bytes('one'), { ttl: '1h' })
    expect(made).toMatchObject({ ok: true, entry: { value: bytes('one'), expiresAt: expect.any(Number) } })
    expect(await kv.create('a', bytes('two'))).toMatchObject({ ok: false, refusal: 'exists', entry: { value: bytes('one') } })
    const { entry } = await kv.get('a')
    expect(entry).toEqual(made.entry)
    expect(await kv.update('a', bytes('three'), { ifVersion: entry?.version })).toMatchObject({
      ok: true,
      entry: { value: bytes('three'), expiresAt: entry?.expiresAt },
    })
    expect(await kv.update('a', bytes('four'), { ifVersion: entry?.version })).toMatchObject({
      ok: false,
      refusal: 'version',
      entry: { value: bytes('three') },
    })
    expect(await kv.set('b', bytes(''), {})).toMatchObject({ ok: true, entry: { value: new Uint8Array(0) } })
    expect((await kv.getMany(['a', 'b', 'c'])).entries.size).toBe(2)
    expect(await kv.destroy('a')).toMatchObject({ ok: true, entry: { value: bytes('three') } })
    expect((await kv.get('a')).entry).toBeUndefined()
    expect(await kv.update('a', bytes('x'))).toMatchObject({ ok: false, refusal: 'missing' })
    await kv.close()
  })
})
