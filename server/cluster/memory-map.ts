/**
 * The map in memory: for the simulator, and for a cluster in one process.
 * Invariant: one transaction at a time, each as `transact` decides it.
 */
import type { ShardRow } from '../../core/wire/replica-message.ts'
import type { MapAnswer, MapRequest } from '../../core/wire/server-message.ts'
import { newMap, transact, type ShardMap } from './map.ts'

export class MemoryMap {
  #map: ShardMap

  /** @param zones 1, 3 or 5 */
  constructor(zones: number, shards: number) {
    this.#map = newMap(zones, shards)
  }

  get map(): ShardMap {
    return this.#map
  }
  get rows(): readonly ShardRow[] {
    return this.#map.rows
  }

  step(request: MapRequest): MapAnswer {
    const { map, answer } = transact(this.#map, request)
    this.#map = map
    return answer
  }
}
