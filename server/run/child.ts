/**
 * One process of a cluster: a storage server or a proxy, as its parent says in its first message.
 * Invariant: it ends when its parent does, when it is told to, and when its disk failed or a law of ours was broken; in the last case without
 * another word to anybody.
 */
import { seededRandom } from '../../core/base/random.ts'
import { addressText, parseAddress } from '../../core/net/address.ts'
import type { Durability } from '../../core/engine/engine.ts'
import { ProxyServer } from '../edge/proxy-server.ts'
import { openStorageDisk } from '../edge/storage-disk.ts'
import { StorageServer } from '../edge/storage-server.ts'
import { openPolicy, type Policy } from '../proxy/policy.ts'
import { FileSource } from '../source/file.ts'

interface Common {
  readonly name: string
  readonly cluster: string
  /** 1, 3 or 5. */
  readonly zones: number
  readonly shards: number
  /** `host:port` or `unix:/path`. */
  readonly listen: string
  /** The file of the map. */
  readonly map: string
}
export type ChildSettings =
  | (Common & {
      readonly role: 'storage'
      readonly zone: number
      /** Absent: in memory. */
      readonly dir?: string | undefined
      readonly durability: Durability
    })
  | (Common & { readonly role: 'proxy'; readonly policy?: Policy | undefined })

/** What a child says to its parent. */
export type FromChild = { readonly type: 'ready'; readonly address: string } | { readonly type: 'alarm'; readonly text: string }

/** What a process ends with when its disk failed, or a law of our own was broken. */
export const failureStatus = 70

const say = (message: FromChild): void => void process.send?.(message)

function fail(error: unknown): never {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  process.exit(failureStatus)
}

async function run(settings: ChildSettings): Promise<void> {
  const { name, cluster, zones, shards, map } = settings
  const source = await FileSource.open({ path: map, zones, shards })
  const random = seededRandom(Number(process.hrtime.bigint() % 4_294_967_291n) ^ process.pid)
  const common = {
    name,
    cluster,
    zones,
    security: 'plain',
    source,
    random,
    listen: parseAddress(settings.listen),
    onFailure: fail,
  } as const
  let server: StorageServer | ProxyServer
  if (settings.role === 'storage') {
    const { zone, dir, durability } = settings
    const disk = await openStorageDisk({ dir, durability })
    const onAlarm = (what: string, shard: number): void =>
      say({ type: 'alarm', text: `${name}: ${what}${shard < 0 ? '' : ` (shard ${shard})`}` })
    server = await StorageServer.open({ ...common, zone, disk, durability, onAlarm })
  } else {
    server = await ProxyServer.open({ ...common, shards, policy: settings.policy ?? openPolicy })
  }
  let isEnding = false
  const end = (): void => {
    if (isEnding) return
    isEnding = true
    server
      .close()
      .then(() => source.close())
      .then(() => process.exit(0), fail)
  }
  process.on('SIGTERM', end)
  process.on('SIGINT', () => undefined) // the parent hears it too, and says what follows
  process.on('disconnect', end)
  say({ type: 'ready', address: addressText(server.address) })
}

/** Waits for the first message of the parent, and is then what it says. */
export function runChild(): void {
  process.once('message', (settings: ChildSettings) => void run(settings).catch(fail))
}
