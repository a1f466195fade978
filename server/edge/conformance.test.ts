/** The contract's own kit over a cluster of real sockets (W8). */
import { afterAll, beforeAll, describe, test } from 'vitest'
import { connect } from '../../core/client/client.ts'
import { kvConformance } from '../../core/conformance/index.ts'
import { startCluster, type TestCluster } from './testdata/cluster.ts'

describe.each([
  ['one zone in memory', { zones: 1 }],
  ['three zones in memory, two proxies', { zones: 3, proxies: 2 }],
] as const)('%s', (_name, options) => {
  let cluster: TestCluster
  beforeAll(async () => {
    cluster = await startCluster(options)
  })
  afterAll(() => cluster.close())
  kvConformance(test, () => connect(cluster.url))
})
