/**
 * How the store's clock stands to this process's, so that most decisions need one call and not two.
 * Pure. Why two bounds: an allowance is judged at a time that the store has surely reached, a denial at one that it has surely not passed.
 */
import type { EpochMs } from '../../core/base/types.ts'

/** What was read of the store's clock serves so long, in local milliseconds: two clocks of the same rate, within a millisecond. */
const readingMsMax = 1_000
/** A guess may be behind by so much; that is a call's way to the store and back, and no more than what any caller's own way adds. */
const behindMsMax = 10

/**
 * How far the store's clock is ahead of this process's, between two bounds. Each call that was sent and heard narrows them, so the quickest
 * call of the last second says how good a guess is, and a slow one spoils none.
 */
export class StoreClock {
  #low = -Infinity
  #high = Infinity
  #since = -Infinity
  #heardAt = -Infinity
  #distrustedUntil = -Infinity

  /** `sentAt` and `heardAt`: local milliseconds around the call whose answer said `now`. False: it contradicts what was read before. */
  read(now: EpochMs, sentAt: number, heardAt: number): boolean {
    const low = now - heardAt
    const high = now + 1 - sentAt // it shows whole milliseconds that have passed
    const agrees = high >= this.#low && low <= this.#high
    this.#heardAt = heardAt
    if (!agrees || heardAt - this.#since > readingMsMax) {
      this.#low = low
      this.#high = high
      this.#since = heardAt
      return agrees
    }
    if (low > this.#low) this.#low = low
    if (high < this.#high) this.#high = high
    return true
  }

  /** A time that the store's clock has reached by `elapsed`; undefined: not known well enough. */
  reached(elapsed: number): number | undefined {
    return this.#isKnown(elapsed) && this.#high - this.#low <= behindMsMax + 1 ? Math.floor(this.#low + elapsed) : undefined
  }

  /** A time that the store's clock has not passed by `elapsed`. */
  notPassed(elapsed: number): number | undefined {
    return this.#isKnown(elapsed) ? Math.ceil(this.#high + elapsed) : undefined
  }

  /** A guess was wrong: the clocks differ, and there are no guesses for a while. */
  distrust(elapsed: number): void {
    this.#distrustedUntil = elapsed + readingMsMax
  }

  #isKnown(elapsed: number): boolean {
    return elapsed - this.#heardAt <= readingMsMax && elapsed >= this.#distrustedUntil
  }
}
