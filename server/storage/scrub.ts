/**
 * Scrub: reads everything now and then, and has damaged records written anew by a proxy. DESIGN.md, D1 to D4.
 * Pure. Invariant: a damaged key is asked for again until it is whole; it is never healed from one other zone alone.
 * Why a proxy and not a copy of a neighbour's: only a round of the register knows which record is chosen, and gives it a ballot above the damage.
 */
import type { Instant } from '../register/work.ts'
import type { StorageTimes } from './marks.ts'
import type { Replicas } from './replicas.ts'

/** Keys of one look. */
const keysMax = 64

export class Scrub {
  readonly #replicas: Replicas
  readonly #times: StorageTimes
  readonly #places = new Map<number, { readonly after: string | undefined; readonly nextMono: number; readonly turn: number }>()

  constructor(replicas: Replicas, times: StorageTimes) {
    this.#replicas = replicas
    this.#times = times
  }

  /** Looks at the next keys of a shard that is served. @returns damaged keys whose repair is due */
  tick(shard: number, now: Instant): readonly string[] {
    const place = this.#places.get(shard)
    if (place !== undefined && now.mono < place.nextMono) return []
    const { keys, isLast } = this.#replicas.page(shard, place?.after, keysMax)
    const turn = (place?.turn ?? 0) + 1
    this.#places.set(shard, { after: isLast ? undefined : keys.at(-1)?.key, nextMono: now.mono + this.#times.pollMs, turn })
    const damaged = this.#replicas.damagedOf(shard)
    const first = (turn * keysMax) % Math.max(1, damaged.length) // keys that nobody can heal do not stand before others
    return [...damaged.slice(first), ...damaged.slice(0, first)].slice(0, keysMax)
  }
}
