/**
 * What the store said last of each key, and how its clock stands to this process's: so that most decisions need one call and not two.
 * Invariant: nothing here is believed without the store: a write that rests on it is conditional on the version, and an allowance is
 * given only by such a write. A denial may rest on it alone, while it can still be shown to be true.
 * Why two bounds of the clock: an allowance is judged at a time that the store has surely reached, a denial at one that it has surely not passed.
 */
import type { EpochMs } from '../../core/base/types.ts'
import type { Version } from '../../core/kv/kv.ts'
import type { LimitRecord } from './rules.ts'

/** A state that the store has shown. */
export interface Known {
  /** Undefined: there is no entry. */
  readonly version: Version | undefined
  readonly record: LimitRecord
  /** Local milliseconds. */
  readonly shownAt: number
  /** Somebody has been denied on it. */
  isDenied: boolean
}

/** Keys of each of two generations: some 2 MB together. Beyond, the older generation is forgotten, which costs a call a key. */
const keysMax = 8_192

export class Recent {
  #young = new Map<string, Known>()
  #old = new Map<string, Known>()

  get(key: string): Known | undefined {
    return this.#young.get(key) ?? this.#old.get(key)
  }

  put(key: string, known: Known): void {
    if (this.#young.size >= keysMax) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(key, known)
  }

  forget(key: string): void {
    this.#young.delete(key)
    this.#old.delete(key)
  }
}

/** A reading of the store's clock serves so long, in local milliseconds: two clocks of the same rate, within a millisecond. */
const readingMsMax = 1_000
/** A guess may be behind by so much; that is a call's way to the store and back, and no more than what any caller's own way adds. */
const behindMsMax = 10

export class StoreClock {
  #now = 0
  #sentAt = 0
  #heardAt = -Infinity
  #distrustedUntil = -Infinity

  /** `sentAt` and `heardAt`: local milliseconds around the call whose answer said `now`. */
  read(now: EpochMs, sentAt: number, heardAt: number): void {
    this.#now = now
    this.#sentAt = sentAt
    this.#heardAt = heardAt
  }

  /** A time that the store's clock has reached by `elapsed`; undefined: not known well enough. */
  reached(elapsed: number): number | undefined {
    if (elapsed - this.#heardAt > readingMsMax || elapsed < this.#distrustedUntil) return undefined
    return Math.floor(this.#now + elapsed - this.#heardAt)
  }

  /** A time that the store's clock has not passed by `elapsed`. */
  notPassed(elapsed: number): number | undefined {
    if (elapsed - this.#heardAt > readingMsMax || elapsed < this.#distrustedUntil) return undefined
    return Math.ceil(this.#now + 1 + elapsed - this.#sentAt)
  }

  /** Whether a guess was good; if not, the clocks differ, and there are no guesses for a while. */
  confirm(guess: number, now: EpochMs, elapsed: number): boolean {
    if (now >= guess && now - guess <= behindMsMax) return true
    this.#distrustedUntil = elapsed + readingMsMax
    return false
  }
}
