/**
 * What the store said last of each key, and how its clock stands to this process's: so that most decisions need one call and not two.
 * Invariant: nothing here is believed without the store: a write that rests on it is conditional on the version, and an allowance is
 * given only by such a write. A denial may rest on it alone, while it can still be shown to be true.
 * Why two bounds of the clock: an allowance is judged at a time that the store has surely reached, a denial at one that it has surely not passed.
 */
import type { EpochMs } from '../../core/base/types.ts'
import type { KvError } from '../../core/kv/errors.ts'
import type { Entry, Version } from '../../core/kv/kv.ts'
import type { LimitRecord } from './rules.ts'

/** A key as this process knows it. */
export class KeyState {
  readonly storeKey: string
  /** What the store showed last; undefined: nothing yet. */
  record: LimitRecord | undefined = undefined
  /** Undefined with a record: there is no entry. */
  version: Version | undefined = undefined
  /** When the entry dies, on the store's clock: from then on there is none. */
  expiresAt = Infinity
  /** Local milliseconds. */
  shownAt = -Infinity
  /** Somebody has been denied on this record. */
  isDenied = false
  /** The calls that are under way. */
  lane: Lane | undefined = undefined

  constructor(storeKey: string) {
    this.storeKey = storeKey
  }

  show(record: LimitRecord, entry: Pick<Entry, 'version' | 'expiresAt'> | undefined, shownAt: number): void {
    this.record = record
    this.version = entry?.version
    this.expiresAt = entry?.expiresAt ?? Infinity
    this.shownAt = shownAt
    this.isDenied = false
  }

  forget(): void {
    this.record = undefined
    this.version = undefined
    this.isDenied = false
  }
}

/** The calls of a key that are under way. */
export interface Lane {
  count: number
  /** The one that came first and goes alone. */
  alone: Promise<unknown> | undefined
  /** When that one must be over, in local milliseconds. */
  readonly endsAt: number
  isRefused: boolean
  /** Several came at once. */
  isCrowded: boolean
  /** Ends it. */
  giveUp: ((error: KvError) => void) | undefined
}

/** Keys of each of two generations: some 4 MB together. Beyond, the older generation is forgotten, which costs a call a key. */
const keysMax = 8_192

export class Recent {
  readonly #storeKeyOf: (key: string) => string
  #young = new Map<string, KeyState>()
  #old = new Map<string, KeyState>()

  constructor(storeKeyOf: (key: string) => string) {
    this.#storeKeyOf = storeKeyOf
  }

  /** @throws what `storeKeyOf` throws. */
  of(key: string): KeyState {
    const young = this.#young.get(key)
    if (young !== undefined) return young
    const state = this.#old.get(key) ?? new KeyState(this.#storeKeyOf(key))
    if (this.#young.size >= keysMax) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(key, state)
    return state
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
