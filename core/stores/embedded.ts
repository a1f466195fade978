/**
 * 'hapax/embedded': the store in your process and on your disk, over RocksDB or, where that does not run, LevelDB.
 * Invariant: a directory is opened by one process at a time, with the engine that its marker names, or not at all.
 * Why a directory never changes its engine by itself: a store that opens empty because it looked in another place is a second charge.
 */
import { resolve } from 'node:path'
import { epochMs, type Clock } from '../base/types.ts'
import { createMarker, engineDir, readMarker, removeOwner, sealFile, writeOwner } from '../engine/directory.ts'
import type { Durability } from '../engine/engine.ts'
import { formatVersion, type Marker } from '../engine/layout.ts'
import { engineForNew, openEngine } from '../engine/open.ts'
import { sealLogs } from '../engine/write-ahead-log.ts'
import { invalid, KvError } from '../kv/errors.ts'
import type { KV } from '../kv/kv.ts'
import { resolveLimits, type LimitsOption } from '../kv/limits.ts'
import { systemTicker } from './call-queue.ts'
import { GroupCommit } from './group-commit.ts'
import { writeSnapshot, type SnapshotOptions, type SnapshotResult } from './snapshot.ts'
import { kvOver } from './verbs.ts'

export { restore, type RestoreOptions } from './restore.ts'
export type { SnapshotOptions, SnapshotResult } from './snapshot.ts'

export interface EmbeddedOptions {
  /** A directory of the store's own; made if it is not there. */
  readonly dir: string
  /** What an acknowledged write survives. `fsync`: a power cut. `os`: a killed process. Default: 'fsync'. */
  readonly durability?: Durability | undefined
  /** Bytes of records kept in memory. Default: 64 MiB. */
  readonly cacheBytes?: number | undefined
  /** Default: 'auto', which for a new directory means RocksDB where it runs, else LevelDB ('portable'), and for an old one the engine that made it. */
  readonly engine?: 'auto' | 'rocksdb' | 'portable' | undefined
  /** Default: 'wide'. */
  readonly limits?: LimitsOption | undefined
  /** The store's clock. Default: the machine's. */
  readonly clock?: Clock | undefined
}

export interface EmbeddedKV extends KV {
  /**
   * Writes a consistent copy of all records to a new file, while the store goes on. Memory stays bounded; the file is durable when this returns.
   * It can be restored into either engine with `restore`.
   * @throws KvError DAMAGED naming the key of a record that cannot be read: a copy without it would be taken for complete.
   */
  snapshot(file: string, options?: SnapshotOptions): Promise<SnapshotResult>
}

const defaults = {
  durability: 'fsync',
  /** Some 70,000 small records. */
  cacheBytes: 67_108_864,
} as const

/** What may wait for the disk. 16,384 calls are some 16 MiB of promises; with a disk that stands still they are refused within milliseconds. */
const queue = { callsMax: 16_384, bytesMax: 67_108_864, deadlineMs: 30_000 } as const

const systemClock: Clock = { now: () => epochMs(Date.now()) }

/**
 * Opens the store in `dir`.
 * @throws KvError ENGINE_UNUSABLE, ENGINE_DIFFERS, DIRECTORY_IN_USE, SNAPSHOT_INVALID (a restore was cut off), DAMAGED (a log), DISK_FULL, UNAVAILABLE, INVALID_ARGUMENT.
 * @example const kv = await embedded({ dir: './data' })
 */
export async function embedded(options: EmbeddedOptions): Promise<EmbeddedKV> {
  const { durability = defaults.durability, cacheBytes = defaults.cacheBytes, clock = systemClock, engine: wanted = 'auto' } = options
  if (typeof options.dir !== 'string' || options.dir === '') invalid('dir must be the path of a directory')
  const dir = resolve(options.dir) // the process may change its directory before it closes the store
  if (durability !== 'fsync' && durability !== 'os') invalid(`durability must be 'fsync' or 'os', not ${JSON.stringify(durability)}`)
  if (wanted !== 'auto' && wanted !== 'rocksdb' && wanted !== 'portable')
    invalid(`engine must be 'auto', 'rocksdb' or 'portable', not ${JSON.stringify(wanted)}`)
  if (!Number.isSafeInteger(cacheBytes) || cacheBytes < 0) invalid(`cacheBytes must be a whole number from 0, not ${String(cacheBytes)}`)
  const limits = resolveLimits(options.limits)

  const marker = await markerFor(dir, wanted)
  const engine = await openEngine(dir, marker)
  writeOwner(dir, durability)
  const capabilities = Object.freeze({
    store: `embedded (${marker.engine})`,
    exactExpiry: true,
    serverClock: true,
    scan: false,
    requestIds: true,
    ttlGrainMs: 1,
    durability: durability === 'fsync' ? 'disk' : 'process',
    sites: 'one',
    limits,
  } as const)
  const commit = new GroupCommit({
    engine,
    durability,
    capabilities,
    clock,
    ticker: systemTicker,
    cacheBytes,
    queue,
    beforeClose: (isSound) => {
      if (isSound) sealLogs(engineDir(dir), sealFile(dir))
      removeOwner(dir)
    },
  })
  const kv = kvOver(commit)
  return Object.assign(kv, {
    snapshot: (file: string, snapshotOptions: SnapshotOptions = {}) => writeSnapshot(file, () => commit.records(), snapshotOptions),
  })
}

/** The marker of the directory, made if the directory is new. */
async function markerFor(dir: string, wanted: 'auto' | 'rocksdb' | 'portable'): Promise<Marker> {
  const present = readMarker(dir)
  const marker = present ?? createMarker(dir, { format: formatVersion, engine: await engineForNew(wanted) })
  if (wanted !== 'auto' && marker.engine !== wanted) {
    throw new KvError('ENGINE_DIFFERS', {
      message: `the directory ${dir} was made by the engine '${marker.engine}', and '${wanted}' was asked for`,
      hint: `say engine: '${marker.engine}', or move the data with snapshot and restore`,
    })
  }
  if (marker.store !== undefined) {
    throw new KvError('ENGINE_DIFFERS', {
      message: `the directory ${dir} belongs to a storage server of a cluster`,
      hint: 'give the embedded store a directory of its own',
    })
  }
  if (marker.restoring) {
    throw new KvError('SNAPSHOT_INVALID', { message: `a restore into ${dir} was cut off`, hint: 'empty the directory and restore again' })
  }
  return marker
}
