/**
 * Where the shard map comes from, as processes see it.
 * Invariant: each transaction is decided by `transact` (server/cluster/map.ts) on the newest map; who watches gets each change, or a later one.
 */
import type { MapAnswer, MapRequest } from '../../core/wire/server-message.ts'
import type { ShardMap } from './map.ts'

/** A key of the proxies as the map remembers it: its version, and a word that tells two keys of one version apart, and nothing about either. */
export interface KeyCheck {
  readonly version: number
  readonly check: string
}

export interface Source extends AsyncDisposable {
  /** One transaction. @throws KvError UNAVAILABLE when the source cannot be reached; whether it was made is not known then. */
  ask(request: MapRequest): Promise<MapAnswer>
  /** Calls with the map as it is, and again after each change. Returns what ends that. */
  watch(listener: (map: ShardMap) => void): () => void
  /** A number that no other proxy of the cluster has or had. 0 to 2^48 - 1. */
  proposerId(): Promise<number>
  /**
   * Remembers these keys, and tells all that were ever remembered, by their versions. The first word of a version stays.
   * @throws KvError UNAVAILABLE when the source cannot be reached
   */
  keyChecks(more: readonly KeyCheck[]): Promise<readonly KeyCheck[]>
  close(): Promise<void>
}

/** What is remembered afterwards. */
export function withKeyChecks(known: readonly KeyCheck[], more: readonly KeyCheck[]): readonly KeyCheck[] {
  const added = more.filter(({ version }) => !known.some((one) => one.version === version))
  return added.length === 0 ? known : [...known, ...added].toSorted((a, b) => a.version - b.version)
}
