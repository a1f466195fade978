/**
 * One load, from its lease to what is stored, remembered and answered.
 * Invariant: a value goes into the store only by a write on the version of the lease under which it was loaded (K1), and into memory only while
 * no invalidation of this process has come since the load began.
 * Why a value is answered before it is written: the caller came before the load began, so for this caller it is right whatever becomes of the write.
 */
import type { EpochMs } from '../../core/base/types.ts'
import { isKvError } from '../../core/kv/errors.ts'
import type { Version } from '../../core/kv/kv.ts'
import { tell, type CacheEvent } from './events.ts'
import { deepFreeze, type FirstLevel } from './first-level.ts'
import type { Flight, Work } from './flight.ts'
import type { CacheKey, Slot } from './key.ts'
import type { Loader } from './loader.ts'
import { encodeRecord, leaseBytes } from './record.ts'
import { backedOff, leased, type Held, type Judgement, type Stamp } from './rules.ts'
import type { Settings } from './settings.ts'
import type { CacheStore, Seen } from './store.ts'
import { heldOf, oversized, readHeld, type Fresh } from './value.ts'

/** When the store has failed so often in a row, it is not asked for so long: each question would cost its whole deadline. */
const failuresMax = 3
const awayMs = 1_000

/** What is served when the load fails. */
export interface Fallback {
  readonly held: Held
  /** On the local clock: until then (K9). */
  readonly until: number
}

export interface TakenLease {
  readonly version: Version
  readonly now: EpochMs
  readonly sentAt: number
  readonly owner: string
  readonly stamp: Stamp
}

export class Loading<K extends CacheKey, V> {
  readonly #settings: Settings
  readonly #store: CacheStore
  readonly #loader: Loader<K>
  readonly #first: FirstLevel<V>
  readonly #isPast: (slot: Slot) => boolean
  /** Of the store, in a row. */
  #failures = 0
  /** On the local clock. */
  #awayUntil = -Infinity

  constructor(settings: Settings, store: CacheStore, loader: Loader<K>, first: FirstLevel<V>, isPast: (slot: Slot) => boolean) {
    this.#settings = settings
    this.#store = store
    this.#loader = loader
    this.#first = first
    this.#isPast = isPast
  }

  /** What the store shows; undefined: it is not to be asked, or has not answered. */
  async read(flight: Flight<K, V>): Promise<Seen | undefined> {
    const { elapsed } = this.#settings
    if (elapsed() < this.#awayUntil || this.#isPast(flight.slot)) return undefined
    try {
      const guessed = this.#first.memos.get(flight.slot)?.tags ?? []
      const seen = await this.#store.read(flight.storeKey, guessed, () => flight.close(elapsed()))
      this.#failures = 0
      return seen
    } catch (cause) {
      this.away(flight, cause)
      return undefined
    }
  }

  /** Undefined: the store did not give one. */
  async take(
    work: Work<K>,
    seen: Seen,
    judgement: Extract<Judgement, { type: 'load' | 'mine' }>,
    owner: string,
  ): Promise<TakenLease | 'refused' | undefined> {
    const { version, hardMs, elapsed } = this.#settings
    try {
      const stamp = await this.#store.begin(seen)
      if (judgement.type === 'mine') return { version: seen.version as Version, now: seen.now, sentAt: seen.sentAt, owner, stamp }
      const { fallback } = judgement
      const record = leased(version, owner, (storeNow(seen, elapsed()) + hardMs) as EpochMs, fallback)
      const taken = await this.#store.take(work.storeKey, seen, record, fallback !== undefined)
      if (taken.type === 'refused') return 'refused'
      if (taken.type === 'failed') throw taken.cause
      if (judgement.isTakeover) this.tell(work, { type: 'taken-over' })
      return { version: taken.version, now: taken.now, sentAt: taken.sentAt, owner, stamp }
    } catch (cause) {
      this.away(work, cause)
      return undefined
    }
  }

  /** `answer` is called as soon as there is a value; what follows is the write. */
  async leased(
    work: Work<K>,
    lease: TakenLease,
    held: Held | undefined,
    answer: (value: V) => void,
  ): Promise<{ readonly type: 'loaded'; readonly value: V } | { readonly type: 'failed'; readonly error: unknown }> {
    const settings = this.#settings
    const beganAt = settings.elapsed()
    let fresh: Fresh
    try {
      fresh = await this.#load(work, held, lease.stamp, () => storeNow(lease, settings.elapsed()), true)
    } catch (error) {
      await this.#backOff(work, lease, held)
      return { type: 'failed', error }
    }
    const value = fresh.value as V
    if (!settings.isInline) answer(value)
    let next = fresh.held
    let bytes = encodeRecord({ version: settings.version, held: next })
    if (bytes.length + leaseBytes > settings.kv.capabilities.limits.valueBytesMax) {
      this.tell(work, { type: 'oversize', bytes: bytes.length })
      next = oversized(next)
      bytes = encodeRecord({ version: settings.version, held: next })
    }
    const sentAt = settings.elapsed()
    const kept = await this.#store.keep(work.storeKey, bytes, lease.version, Math.max(1, next.keptUntil - storeNow(lease, sentAt)))
    if (kept.type === 'kept') {
      // Since the load began and not since this write: the write says that the key was not invalidated, but nothing of its tags.
      const until = Math.min(beganAt + settings.freshMs, lease.sentAt + (next.freshUntil - lease.now))
      if (!work.isVoid)
        this.remember(work, value, {
          version: next.kind === 'oversize' ? undefined : kept.version,
          tags: next.tags,
          until,
          bytes: fresh.held.body.length,
        })
      this.tell(work, { type: 'stored', deltaMs: next.deltaMs, ttlMs: fresh.ttlMs })
    } else if (kept.type === 'refused') this.tell(work, { type: 'overtaken' })
    else this.away(work, kept.cause)
    answer(value)
    return { type: 'loaded', value }
  }

  /** Nothing is stored; memory has it for `fresh`, which is short enough for a value that nobody else can invalidate here. */
  async past(flight: Flight<K, V>, fallback: Fallback | undefined): Promise<void> {
    const { elapsed, freshMs } = this.#settings
    const beganAt = elapsed()
    if (fallback === undefined) flight.close(beganAt)
    try {
      const { value, held, ttlMs } = await this.#load(flight, fallback?.held, { era: '', epoch: 0 }, () => 0 as EpochMs, false)
      const until = beganAt + Math.min(freshMs, ttlMs)
      if (!flight.isVoid) this.remember(flight, value as V, { version: undefined, tags: held.tags, until, bytes: held.body.length })
      this.tell(flight, { type: 'past', deltaMs: held.deltaMs, ttlMs })
      flight.resolve(value as V)
    } catch (error) {
      this.giveUp(flight, error, fallback)
    }
  }

  async #load(work: Work<K>, previous: Held | undefined, stamp: Stamp, now: () => EpochMs, isLeased: boolean): Promise<Fresh> {
    this.tell(work, { type: 'load', leased: isLeased })
    try {
      const before = previous && this.decode(work, previous)
      const loaded = await this.#loader.run(work.key, before)
      const fresh = heldOf(this.#settings, loaded, previous, stamp, now())
      if (this.#settings.share === 'frozen') deepFreeze(fresh.value)
      if (loaded.deltaMs > fresh.ttlMs / 2) this.tell(work, { type: 'slow-load', deltaMs: loaded.deltaMs, ttlMs: fresh.ttlMs })
      return fresh
    } catch (cause) {
      this.tell(work, { type: 'load-failed', cause })
      throw cause
    }
  }

  /** A failed load: what may still be served stays, and nobody loads for a while; else the lease is given back. */
  async #backOff(work: Work<K>, lease: TakenLease, held: Held | undefined): Promise<void> {
    if (held === undefined) return await this.#store.release(work.storeKey, lease.version)
    const { version, backoffMs, elapsed } = this.#settings
    const endsAt = (storeNow(lease, elapsed()) + backoffMs) as EpochMs
    await this.#store.keep(work.storeKey, encodeRecord(backedOff(version, lease.owner, endsAt, held)), lease.version, undefined)
  }

  /** K9: the value before, where it may be served; else the error, which is remembered only if the options say so. */
  giveUp(flight: Flight<K, V>, error: unknown, fallback: Fallback | undefined): void {
    const isServed = fallback !== undefined && !flight.isVoid && this.#settings.elapsed() < fallback.until
    const read = isServed ? this.decode(flight, fallback.held) : undefined
    if (read !== undefined) {
      this.tell(flight, { type: 'stale', cause: error })
      return flight.resolve(read.value)
    }
    const ttlMs = this.#settings.errorTtlMs(error)
    if (ttlMs > 0 && !flight.isVoid) {
      const answer = Promise.reject<V>(error)
      answer.catch(() => undefined)
      const until = this.#settings.elapsed() + ttlMs
      this.#first.put(flight.slot, { value: undefined as V, answer, version: undefined, tags: [], isError: true, until }, 0)
    }
    flight.reject(error)
  }

  decode(work: Work<K>, held: Held): { readonly value: V } | undefined {
    try {
      const value = readHeld(this.#settings.codec, held) as V
      return { value: this.#settings.share === 'frozen' ? deepFreeze(value) : value }
    } catch (cause) {
      this.tell(work, { type: 'undecodable', cause })
      return undefined
    }
  }

  remember(work: Work<K>, value: V, of: { version: Version | undefined; tags: readonly string[]; until: number; bytes: number }): void {
    const { version, tags, until, bytes } = of
    const answer = this.#settings.share === 'cloned' ? undefined : Promise.resolve(value)
    this.#first.put(work.slot, { value, answer, version, tags, isError: false, until }, bytes)
  }

  away(work: Work<K>, cause: unknown): void {
    this.tell(work, { type: 'store-error', cause })
    const isOfTheKey = isKvError(cause) && cause.retry === 'never' && cause.code !== 'CLOSED'
    if (!isOfTheKey && ++this.#failures >= failuresMax) this.#awayUntil = this.#settings.elapsed() + awayMs
  }

  tell(work: Work<K>, event: Omit<CacheEvent, 'name' | 'id'>): void {
    tell(this.#settings.name, work.storeKey, event)
  }
}

/** The store's clock, not below it: as it was in an answer, and what has passed here since that call was sent. */
const storeNow = (answer: { readonly now: EpochMs; readonly sentAt: number }, elapsed: number): EpochMs =>
  Math.ceil(answer.now + (elapsed - answer.sentAt)) as EpochMs
