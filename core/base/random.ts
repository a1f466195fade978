/**
 * The seeded generator: the only randomness that pure rooms, tests and simulations know.
 * Pure. Invariant: the same seed gives the same sequence on every platform.
 * Source: mulberry32 (Tommy Ettinger), 32 bits of state, a full period of 2^32. Not for secrets.
 */

export interface Random {
  /** A number in [0, 1). */
  next(): number
  /** A whole number in [0, below). `below` is from 1 to 2^32. */
  int(below: number): number
  /** True with the given probability. */
  chance(probability: number): boolean
  /** One of the items; the list must not be empty. */
  pick<T>(items: readonly T[]): T
}

export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
  return {
    next,
    int: (below) => Math.floor(next() * below),
    chance: (probability) => next() < probability,
    pick: (items) => items[Math.floor(next() * items.length)] as (typeof items)[number],
  }
}
