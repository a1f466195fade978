/** The map in memory: for a cluster in one process. */
import { randomInt } from 'node:crypto'
import type { MapAnswer, MapRequest } from '../../core/wire/server-message.ts'
import type { ShardMap } from '../cluster/map.ts'
import { MemoryMap } from '../cluster/memory-map.ts'
import { withKeyChecks, type KeyCheck, type Source } from '../cluster/source.ts'

/** Numbers from a counter have this bit clear, so that a number by chance is none of them (docs: consistency, "Words"). */
const chanceBit = 2 ** 47
/** `randomInt` draws up to 2^48 - 1 values at once. */
export const proposerByChance = (): number => chanceBit + randomInt(chanceBit)

export class MemorySource implements Source {
  readonly #memory: MemoryMap
  readonly #listeners = new Set<(map: ShardMap) => void>()
  #keys: readonly KeyCheck[] = []

  /** @param zones 1, 3 or 5 */
  constructor(zones: number, shards: number) {
    this.#memory = new MemoryMap(zones, shards)
  }

  get map(): ShardMap {
    return this.#memory.map
  }

  async ask(request: MapRequest): Promise<MapAnswer> {
    const before = this.#memory.map
    const answer = this.#memory.step(request)
    if (this.#memory.map !== before) for (const listener of this.#listeners) listener(this.#memory.map)
    return answer
  }

  watch(listener: (map: ShardMap) => void): () => void {
    this.#listeners.add(listener)
    listener(this.#memory.map)
    return () => this.#listeners.delete(listener)
  }

  async proposerId(): Promise<number> {
    return proposerByChance()
  }

  async keyChecks(more: readonly KeyCheck[]): Promise<readonly KeyCheck[]> {
    this.#keys = withKeyChecks(this.#keys, more)
    return this.#keys
  }

  async close(): Promise<void> {
    this.#listeners.clear()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
