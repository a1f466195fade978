/**
 * Proxy clock: whether a proxy may trust its wall clock (R15). C1 to C5 of register/DESIGN.md.
 * Pure. Invariant: before the clocks of a quorum of zones are known it trusts nothing; and a step of its own clock makes it ask anew.
 * Why the median: one server whose clock is odd is a suspect, not an authority; with it alone nothing is stopped and nothing obeyed.
 */
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import { quorumOf } from '../register/ballot.ts'
import type { Instant } from '../register/work.ts'

/** The greatest difference of two clocks that is tolerated, in milliseconds. */
export const clockBoundMs = 500

export interface ProxyClockOptions {
  readonly zones: number
  /** The greatest difference of two clocks that is tolerated, in milliseconds. Default 500. */
  readonly boundMs?: number
  /** How long a measurement counts, in milliseconds. Default 10,000: clocks that drift by 1 in 1,000 are 10 ms apart by then. */
  readonly lifeMs?: number
}

interface Measured {
  /** Their wall clock minus ours, in the middle of the round trip. */
  readonly offsetMs: number
  readonly roundTripMs: number
  readonly mono: number
}

/** Between two turns the wall clock may move against the monotonic one by this share of the bound. More is a step. */
const stepShare = 0.1
/** Wall clocks come in whole milliseconds. */
const roundingMs = 2

export class ProxyClock {
  readonly #zones: number
  readonly #boundMs: number
  readonly #lifeMs: number
  /** By zone: two servers of one zone are one voice. */
  readonly #measured = new Map<number, Measured>()
  #last: Instant | undefined
  #steps = 0

  constructor({ zones, boundMs = clockBoundMs, lifeMs = 10_000 }: ProxyClockOptions) {
    this.#zones = zones
    this.#boundMs = boundMs
    this.#lifeMs = lifeMs
  }

  /** Steps of the own clock that were seen. */
  get steps(): number {
    return this.#steps
  }

  /** An answer came that was asked for at `askedMono`; `theirs` is the server's wall clock when it answered. */
  hear(zone: number, theirs: EpochMs, askedMono: number, now: Instant): void {
    this.turn(now)
    if (zone < 0 || zone >= this.#zones) return
    const roundTripMs = Math.max(0, now.mono - askedMono)
    const measured = { offsetMs: theirs - (now.wall - roundTripMs / 2), roundTripMs, mono: now.mono }
    const known = this.#measured.get(zone)
    if (known !== undefined && now.mono - known.mono <= this.#lifeMs) {
      const apartMs = Math.abs(known.offsetMs - measured.offsetMs)
      const roomMs = (known.roundTripMs + roundTripMs) / 2 + roundingMs
      // A slow answer says less than a quick one that is still young.
      if (known.roundTripMs < roundTripMs && now.mono - known.mono < this.#lifeMs / 2 && apartMs <= roomMs) return
      // A suspended machine stops both its clocks, sees no step, and is told of it by an answer that contradicts what it knew. Another machine
      // may have slept beside it, with a clock as wrong as ours: none of what was known is a voice any more (C5).
      if (apartMs > roomMs + this.#boundMs * stepShare) this.#measured.clear()
    }
    this.#measured.set(zone, measured)
  }

  /** Once a turn: a wall clock that moved against the monotonic one has stepped, and what was measured by it means nothing. */
  turn(now: Instant): void {
    const last = this.#last
    this.#last = now
    if (last === undefined) return
    const movedMs = now.wall - last.wall - (now.mono - last.mono)
    if (Math.abs(movedMs) <= this.#boundMs * stepShare) return
    this.#steps++
    this.#measured.clear()
  }

  isTrusted(now: Instant): boolean {
    this.turn(now)
    const middle = this.#middle(now)
    // Half a round trip is what the measurement itself may be wrong by.
    const isNear = ({ offsetMs, roundTripMs }: Measured): boolean => Math.abs(offsetMs) + roundTripMs / 2 <= this.#boundMs / 2
    return middle.length > 0 && middle.every(isNear)
  }

  /** The time by the median of the servers; before it is known, by the own clock. */
  storeTime(now: Instant): EpochMs {
    return epochMs(Math.round(now.wall + (this.#middle(now)[0]?.offsetMs ?? 0)))
  }

  /** The median; of an even number both in the middle, for either may be the odd one. Empty: too few are known. */
  #middle(now: Instant): readonly Measured[] {
    const young: Measured[] = []
    for (const one of this.#measured.values()) {
      if (now.mono - one.mono > this.#lifeMs) continue
      // A handful, and asked for at each write: put in its place, which costs less than to sort.
      let at = young.length
      for (; at > 0 && (young[at - 1] as Measured).offsetMs > one.offsetMs; at--) young[at] = young[at - 1] as Measured
      young[at] = one
    }
    if (young.length < quorumOf(this.#zones)) return []
    return young.slice((young.length - 1) >> 1, (young.length >> 1) + 1)
  }
}
