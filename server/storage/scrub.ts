/**
 * Scrub: reads everything now and then, and has damaged records written anew by a proxy. DESIGN.md, D1 to D4.
 * Pure. Invariant: a damaged key is asked for again until it is whole; it is never healed from one other zone alone.
 * Why a proxy and not a copy of a neighbour's: only a round of the register knows which record is chosen, and gives it a ballot above the damage.
 */
import type { Instant } from '../register/work.ts'
import type { StorageTimes } from './marks.ts'
import type { Replicas } from './replicas.ts'

/** Keys of one look, and of the repairs that it asks for. */
const keysMax = 32
/** The least time between two looks, in milliseconds: with many shards a round takes longer, and costs no more. */
const lookMs = 20

export class Scrub {
  readonly #replicas: Replicas
  readonly #times: StorageTimes
  readonly #places = new Map<number, { readonly after: string | undefined; readonly turn: number }>()
  /** Which shard is next, of those that are here. */
  #next = 0
  #nextMono = -Infinity
  #roundMono = -Infinity

  constructor(replicas: Replicas, times: StorageTimes) {
    this.#replicas = replicas
    this.#times = times
  }

  /** Looks at the next keys of the next shard, if it is time and the shard is served. @returns damaged keys whose repair is due */
  tick(now: Instant): { readonly shard: number; readonly keys: readonly string[] } | undefined {
    if (now.mono < this.#nextMono) return undefined
    const { shards } = this.#replicas
    const shard = shards[this.#next]
    if (this.#next === 0) this.#roundMono = now.mono + this.#times.pollMs
    this.#next = this.#next + 1 < shards.length ? this.#next + 1 : 0
    this.#nextMono = this.#next === 0 ? Math.max(this.#roundMono, now.mono + lookMs) : now.mono + lookMs
    if (shard === undefined || this.#replicas.of(shard)?.acceptor === undefined) return undefined
    return { shard, keys: this.#look(shard) }
  }

  #look(shard: number): readonly string[] {
    const place = this.#places.get(shard)
    const { keys, isLast } = this.#replicas.page(shard, place?.after, keysMax)
    const turn = (place?.turn ?? 0) + 1
    this.#places.set(shard, { after: isLast ? undefined : keys.at(-1)?.key, turn })
    const damaged = this.#replicas.damagedOf(shard)
    const first = (turn * keysMax) % Math.max(1, damaged.length) // keys that nobody can heal do not stand before others
    return [...damaged.slice(first), ...damaged.slice(0, first)].slice(0, keysMax)
  }
}
