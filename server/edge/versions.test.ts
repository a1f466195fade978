/** Processes of different releases in one cluster, over real sockets (W3). */
import { afterEach, expect, test } from 'vitest'
import { connect } from '../../core/client/client.ts'
import type { Versions } from '../../core/wire/cluster-codec.ts'
import { startCluster, type TestCluster } from './testdata/cluster.ts'

const old: Versions = { oldest: 1, newest: 1 }
const next: Versions = { oldest: 1, newest: 2 }
const later: Versions = { oldest: 2, newest: 2 }

let cluster: TestCluster | undefined
afterEach(() => cluster?.close())

async function counted(versions: Readonly<Record<string, Versions>>): Promise<readonly number[]> {
  cluster = await startCluster({ versionsOf: (name) => versions[name] ?? old })
  const kv = await connect(cluster.url)
  try {
    await kv.create('a', Uint8Array.from([1]))
    await kv.set('a', Uint8Array.from([2]))
    return [...((await kv.get('a')).entry?.value ?? [])]
  } finally {
    await kv.close()
  }
}

test.each<[string, Record<string, Versions>]>([
  ['a newer proxy speaks to older storage servers', { p0: next, s0: old, s1: old, s2: old }],
  ['an older proxy speaks to newer storage servers', { p0: old, s0: next, s1: next, s2: next }],
  ['releases are mixed, one zone after the other', { p0: next, s0: next, s1: old, s2: next }],
])('%s', async (_what, versions) => {
  expect(await counted(versions)).toEqual([2])
  const ends = [...(cluster?.storage.values() ?? [])].map(({ stats }) => stats.listener.ends.protocol ?? 0)
  expect(ends, 'connections that ended because of bytes that made no sense').toEqual([0, 0, 0])
})

test('a storage server that has no version in common is not spoken to, and the others decide', async () => {
  expect(await counted({ p0: old, s0: old, s1: later, s2: old })).toEqual([2])
})
