/**
 * Where the shard map comes from, as processes see it.
 * Invariant: each transaction is decided by `transact` (server/cluster/map.ts) on the newest map; who watches gets each change, or a later one.
 */
import type { MapAnswer, MapRequest } from '../../core/wire/server-message.ts'
import type { ShardMap } from './map.ts'

export interface Source extends AsyncDisposable {
  /** One transaction. @throws KvError UNAVAILABLE when the source cannot be reached; whether it was made is not known then. */
  ask(request: MapRequest): Promise<MapAnswer>
  /** Calls with the map as it is, and again after each change. Returns what ends that. */
  watch(listener: (map: ShardMap) => void): () => void
  /** A number that no other proxy of the cluster has or had. 0 to 2^48 - 1. */
  proposerId(): Promise<number>
  close(): Promise<void>
}
