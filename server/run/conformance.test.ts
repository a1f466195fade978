/** The contract's own kit over a cluster of real processes: on RocksDB and in memory, synced and not (W8). */
import { afterAll, beforeAll, describe, test } from 'vitest'
import { connect } from '../../core/client/client.ts'
import { kvConformance } from '../../core/conformance/index.ts'
import { bundle, type Bundle } from '../../core/stores/testdata/bundled.ts'
import { startDev, type DevCluster, type DevOptions } from './dev.ts'

let child: Bundle
beforeAll(async () => {
  child = await bundle('conformance-child', "import { runChild } from '../../server/run/child.ts'; runChild()")
})
afterAll(() => child.remove())

describe.each<readonly [string, DevOptions]>([
  ['one zone on RocksDB, synced', { zones: 1, proxies: 1 }],
  ['one zone in memory', { zones: 1, proxies: 1, memory: true }],
  ['three zones on RocksDB, synced', { zones: 3 }],
  ['three zones on RocksDB, not synced', { zones: 3, durability: 'os' }],
  ['three zones in memory', { zones: 3, memory: true }],
])('%s', (_name, options) => {
  let cluster: DevCluster
  beforeAll(async () => {
    cluster = await startDev({ childFile: child.path, ...options })
  }, 30_000)
  afterAll(() => cluster.close())
  kvConformance(test, () => connect(cluster.url))
})
