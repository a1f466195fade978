/** A cluster in this process, over real sockets, for tests. */
import { seededRandom } from '../../../core/base/random.ts'
import { addressText } from '../../../core/net/address.ts'
import { MemorySource } from '../../source/memory.ts'
import { ProxyServer } from '../proxy-server.ts'
import { openStorageDisk } from '../storage-disk.ts'
import { StorageServer } from '../storage-server.ts'
import type { Policy } from '../../proxy/policy.ts'

export interface TestClusterOptions {
  readonly zones?: number
  readonly proxies?: number
  readonly shards?: number
  readonly policy?: Policy
}

export interface TestCluster {
  readonly url: string
  readonly storage: StorageServer[]
  readonly proxies: ProxyServer[]
  readonly source: MemorySource
  close(): Promise<void>
}

const local = { host: '127.0.0.1', port: 0 }

export async function startCluster({ zones = 3, proxies: proxyCount = 1, shards = 8, policy }: TestClusterOptions = {}): Promise<TestCluster> {
  const source = new MemorySource(zones, shards)
  const onFailure = (error: unknown): void => {
    throw error
  }
  const common = { cluster: 'test', zones, security: 'plain', source, listen: local, onFailure } as const
  const storage: StorageServer[] = []
  for (let zone = 0; zone < zones; zone++) {
    const disk = await openStorageDisk({ dir: undefined, durability: 'os' })
    storage.push(await StorageServer.open({ ...common, name: `s${zone}`, zone, disk, durability: 'fsync', random: seededRandom(zone + 1) }))
  }
  const proxies: ProxyServer[] = []
  for (let index = 0; index < proxyCount; index++)
    proxies.push(await ProxyServer.open({ ...common, name: `p${index}`, shards, random: seededRandom(100 + index), ...(policy === undefined ? {} : { policy }) }))
  const url = `hapax://${proxies.map(({ address }) => addressText(address)).join(',')}/test`
  return {
    url,
    storage,
    proxies,
    source,
    async close() {
      await Promise.all(proxies.map((proxy) => proxy.close(100)))
      await Promise.all(storage.map((server) => server.close(100)))
      await source.close()
    },
  }
}
