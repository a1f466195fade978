/** A cluster in this process, over real sockets, for tests. */
import { seededRandom } from '../../../core/base/random.ts'
import { addressText, parseAddress, type Address } from '../../../core/net/address.ts'
import type { ListenerLimits } from '../../../core/net/listener.ts'
import type { Credentials } from '../../../core/net/tls.ts'
import type { Versions } from '../../../core/wire/cluster-codec.ts'
import type { RegisterEvent } from '../../register/work.ts'
import type { StorageEvent } from '../../storage/marks.ts'
import type { Policy } from '../../proxy/policy.ts'
import { MemorySource } from '../../source/memory.ts'
import { ProxyServer } from '../proxy-server.ts'
import type { Sealer } from '../sealer.ts'
import { openStorageDisk } from '../storage-disk.ts'
import { StorageServer } from '../storage-server.ts'

export interface TestClusterOptions {
  readonly zones?: number
  readonly proxies?: number
  readonly shards?: number
  readonly policy?: Policy
  readonly sealer?: Sealer
  /** Of proxies and storage servers. */
  readonly limits?: Partial<ListenerLimits>
  /** The directory of a storage server; none: in memory. */
  readonly dirOf?: (name: string) => string
  /** Of our messages. Default: those of this release. */
  readonly versionsOf?: VersionsOf
  /** Default: plain. */
  readonly credentialsOf?: (role: 'proxy' | 'storage', name: string) => Promise<Credentials>
}

/** By name: s0, s1, p0. */
type VersionsOf = (name: string) => Versions

export interface TestCluster {
  readonly url: string
  readonly source: MemorySource
  readonly storage: Map<string, StorageServer>
  readonly proxies: ProxyServer[]
  readonly events: Map<string, number>
  readonly failures: unknown[]
  /** Ends a storage server at once; what was not told as durable may be gone. */
  stop(name: string): Promise<void>
  start(name: string): Promise<StorageServer>
  close(): Promise<void>
}

export async function startCluster(options: TestClusterOptions = {}): Promise<TestCluster> {
  const { zones = 3, proxies: proxyCount = 1, shards = 8, policy, sealer, limits = {}, dirOf, credentialsOf, versionsOf } = options
  const source = new MemorySource(zones, shards)
  const storage = new Map<string, StorageServer>()
  const proxies: ProxyServer[] = []
  const events = new Map<string, number>()
  const failures: unknown[] = []
  const addresses = new Map<string, Address>()
  const onFailure = (error: unknown): void => void failures.push(error)
  const onEvent = (event: RegisterEvent | StorageEvent | 'unread-dropped'): void => void events.set(event, (events.get(event) ?? 0) + 1)
  const common = { cluster: 'test', zones, source, limits, onFailure, onEvent } as const
  const securityOf = async (role: 'proxy' | 'storage', name: string) => (credentialsOf === undefined ? 'plain' : await credentialsOf(role, name))

  /** A server that comes again listens where it was. */
  const start = async (name: string): Promise<StorageServer> => {
    const zone = Number(name.slice(1))
    const disk = await openStorageDisk({ dir: dirOf?.(name), durability: 'os' })
    const listen = addresses.get(name) ?? { host: '127.0.0.1', port: 0 }
    const security = await securityOf('storage', name)
    const versions = versionsOf?.(name)
    const server = await StorageServer.open({ ...common, versions, name, zone, listen, security, disk, durability: 'fsync', random: seededRandom(zone + 1) })
    addresses.set(name, server.address)
    storage.set(name, server)
    return server
  }
  for (let zone = 0; zone < zones; zone++) await start(`s${zone}`)
  for (let index = 0; index < proxyCount; index++) {
    const name = `p${index}`
    const security = await securityOf('proxy', name)
    const more = { ...(policy === undefined ? {} : { policy }), ...(sealer === undefined ? {} : { sealer }) }
    proxies.push(
      await ProxyServer.open({
        ...common,
        ...more,
        versions: versionsOf?.(name),
        name,
        shards,
        listen: parseAddress('127.0.0.1:0'),
        security,
        random: seededRandom(100 + index),
      }),
    )
  }
  const url = `hapax://${proxies.map(({ address }) => addressText(address)).join(',')}/test`
  return {
    url,
    source,
    storage,
    proxies,
    events,
    failures,
    start,
    async stop(name) {
      await storage.get(name)?.close(0)
      storage.delete(name)
    },
    async close() {
      await Promise.all(proxies.map((proxy) => proxy.close(100)))
      await Promise.all([...storage.values()].map((server) => server.close(100)))
      await source.close()
    },
  }
}
