/**
 * Reads through both levels, and has loaded what is missing: one load for each key, in all processes together.
 * Invariant: an answer rests on what was read after its caller came, or at most `fresh` before. Whatever the store does, a reader gets a value or
 * the loader's error.
 * Why so much ends in a load past the store: the source is always right, so every doubt (store away, lease too long, newer process) ends there.
 */
import type { EpochMs } from '../../core/base/types.ts'
import { KvError } from '../../core/kv/errors.ts'
import { newId } from '../../core/kv/id.ts'
import { tell } from './events.ts'
import { FirstLevel } from './first-level.ts'
import { Flight, type Work } from './flight.ts'
import { generationsKeyOf } from './identity.ts'
import { Invalidations, type Target } from './invalidations.ts'
import type { CacheKey, Slot } from './key.ts'
import { Loader, type Loads } from './loader.ts'
import { Loading, type Fallback } from './loading.ts'
import { isEarly, judge, type Held, type Judgement } from './rules.ts'
import { timerOf, type Settings } from './settings.ts'
import { CacheStore, type Seen } from './store.ts'

/** How often one answer begins again when others change the key between its calls: more is not chance. */
const turnsMax = 32
/** Keys with an answer under way; beyond: BUSY. */
const flightsMax = 65_536
/** Between two looks at another process's load; doubled each time, drawn between half and the whole of it. */
const pollMsFirst = 10
const pollMsMax = 250

interface Refresh<K, V> extends Work<K> {
  /** Its load has begun. */
  hasBegun: boolean
  renewed: Promise<{ readonly value: V } | undefined>
}
/** A value that is there, decoded. */
type Found<V> = Extract<Judgement, { type: 'hit' | 'stale' }> & { readonly value: V }

export class Engine<K extends CacheKey, V> {
  readonly first: FirstLevel<V>
  readonly invalidations: Invalidations
  readonly #settings: Settings
  readonly #store: CacheStore
  readonly #loader: Loader<K>
  readonly #loading: Loading<K, V>
  readonly #flights = new Map<Slot, Flight<K, V>>()
  readonly #refreshes = new Map<Slot, Refresh<K, V>>()
  readonly #background = new Set<Promise<unknown>>()

  constructor(settings: Settings, loads: Loads<K>) {
    this.#settings = settings
    this.#store = new CacheStore(settings)
    this.#loader = new Loader(settings, loads)
    this.first = new FirstLevel(settings.memoryBytesMax)
    const forget = (target: Target): void => this.#forget(target)
    this.invalidations = new Invalidations(settings, this.#store, forget, (work) => this.#track(work))
    this.#loading = new Loading(settings, this.#store, this.#loader, this.first, (slot) => this.invalidations.isPast(slot))
  }

  /** What all callers of this key share at this moment. @throws KvError BUSY. */
  arrive(slot: Slot, key: K): Promise<V> {
    const flight = this.#flights.get(slot)
    if (flight === undefined) {
      if (this.#flights.size >= flightsMax) throw new KvError('BUSY', { message: `${flightsMax} keys of the cache are being read` })
      return this.#launch(new Flight<K, V>(slot, key, this.#store.keyOf(slot))).promise
    }
    if (flight.admits(this.#settings.elapsed(), this.#settings.freshMs)) return flight.promise
    return (flight.next ??= new Flight<K, V>(slot, key, flight.storeKey)).promise
  }

  async settled(): Promise<void> {
    // Pauses before a repetition keep no process alive; whoever waits for what comes after them does.
    const awake = timerOf(this.#settings, () => {}, Infinity, false)
    while (this.#background.size > 0) await Promise.allSettled(this.#background)
    this.#settings.timers.clearTimeout(awake as never)
  }

  #launch(flight: Flight<K, V>): Flight<K, V> {
    this.#flights.set(flight.slot, flight)
    this.#track(this.#fly(flight))
    return flight
  }

  async #fly(flight: Flight<K, V>): Promise<void> {
    try {
      await this.#serve(flight)
    } catch (error) {
      flight.reject(error)
    }
    if (this.#flights.get(flight.slot) !== flight) return
    this.#flights.delete(flight.slot)
    if (flight.next !== undefined) this.#launch(flight.next)
  }

  /** From the store if it has the value, else loaded: under a lease, or past the store. */
  async #serve(flight: Flight<K, V>): Promise<void> {
    const { elapsed, waitMs } = this.#settings
    const owner = newId()
    const givesUpAt = elapsed() + waitMs
    let isInside = false
    let polls = 0
    let fallback: Fallback | undefined
    /** Whoever comes meanwhile may join: the store is asked again. What was read before must not be given to them. */
    const pause = async (until: Promise<void>): Promise<void> => {
      fallback = undefined
      flight.isOpen = true
      await until
    }
    try {
      for (let turn = 0; turn < turnsMax; turn++) {
        const seen = await this.#loading.read(flight)
        if (seen === undefined) break
        const judgement = this.#judge(flight, seen, owner)
        if (judgement.type === 'past') break
        if (isInside && judgement.type !== 'load' && judgement.type !== 'mine') {
          // Whoever waits, be it for a refresh of its own, must not keep a place from it.
          this.#loader.leave()
          isInside = false
        }
        if (judgement.type === 'hit' || judgement.type === 'stale') return await this.#give(flight, seen, judgement)
        const { fallback: held } = judgement
        fallback = held && { held, until: seen.sentAt + (held.keptUntil - seen.now) }
        if (judgement.type === 'wait') {
          const leftMs = Math.min(judgement.leftMs, givesUpAt - elapsed())
          if (leftMs <= 0) break
          await pause(this.#poll(polls++, leftMs))
          turn-- // it has an end of its own
          continue
        }
        if (!isInside) {
          const place = this.#loader.enter()
          if (place !== undefined) await pause(place)
          isInside = true
          if (place !== undefined) continue
        }
        const lease = await this.#loading.take(flight, seen, judgement, owner)
        if (lease === 'refused') {
          // Others have changed the record: what was read is not for those who join from the next read on.
          fallback = undefined
          continue
        }
        if (lease === undefined) break
        if (fallback === undefined) flight.close(elapsed())
        const loaded = await this.#loading.leased(flight, lease, held, (value) => flight.resolve(value))
        if (loaded.type === 'failed') this.#loading.giveUp(flight, loaded.error, fallback)
        return
      }
      if (!isInside) await this.#loader.enter()
      isInside = true
      await this.#loading.past(flight, fallback)
    } finally {
      if (isInside) this.#loader.leave()
    }
  }

  #judge(flight: Flight<K, V>, seen: Seen, owner: string): Found<V> | Exclude<Judgement, { type: 'hit' | 'stale' }> {
    if (seen.isNewer) return { type: 'past' }
    if (seen.damage !== undefined) this.#loading.tell(flight, { type: 'undecodable', cause: seen.damage })
    const { record, now, generations, tagEpochs } = seen
    const judgement = judge({ record, now, version: this.#settings.version, owner, generations, tagEpochs })
    if (judgement.type === 'past') return judgement
    const held = 'held' in judgement ? judgement.held : judgement.fallback
    if (held !== undefined && this.invalidations.hasPendingTag(held.tags)) return { type: 'past' }
    if (judgement.type !== 'hit' && judgement.type !== 'stale') return judgement
    // K18: what does not decode is a miss, and the lease takes its place by its version.
    const read = this.#read(flight, seen, judgement)
    return read === undefined ? { type: 'load', fallback: undefined, isTakeover: false } : { ...judgement, value: read.value }
  }

  /** The value of the record, decoded or as memory has it. Undefined: it does not decode. */
  #read(
    flight: Flight<K, V>,
    { sentAt, now, version }: Seen,
    { held, until: servedUntil }: { readonly held: Held; readonly until: EpochMs },
  ): { readonly value: V } | undefined {
    const until = sentAt + Math.min(this.#settings.freshMs, servedUntil - now)
    const memo = this.first.memos.get(flight.slot)
    const isKnown = memo !== undefined && !memo.isError && memo.version === version
    const read = isKnown ? memo : this.#loading.decode(flight, held)
    if (read === undefined || flight.isVoid) return read
    if (isKnown) this.first.renew(memo, until)
    else this.#loading.remember(flight, read.value, { version, tags: held.tags, until, bytes: held.body.length })
    return read
  }

  /** Answers from the record, and sees to it that a new value comes when it is time. */
  async #give(flight: Flight<K, V>, seen: Seen, { type, held, isFree, value }: Found<V>): Promise<void> {
    const { early, random, softMs, isInline } = this.#settings
    this.#loading.tell(flight, { type })
    const running = this.#refreshes.get(flight.slot)
    // What a load brings that began before this read may be from before an invalidation that this read came after.
    if (running?.hasBegun) return flight.resolve(value)
    const isWanted = isFree && (type === 'stale' || isEarly(held, seen.now, early, random()))
    const refresh = running ?? (isWanted ? this.#refresh(flight, seen, held) : undefined)
    if (refresh === undefined || (!isInline && (type === 'hit' || softMs === 0))) return flight.resolve(value)
    const renewed = await (isInline ? refresh.renewed : this.#within(refresh.renewed, softMs))
    flight.resolve(renewed === undefined ? value : renewed.value)
  }

  /** One at a time for a key. It is no flight: nobody has to wait for it. */
  #refresh({ slot, key, storeKey }: Work<K>, seen: Seen, held: Held): Refresh<K, V> {
    const refresh: Refresh<K, V> = { slot, key, storeKey, isVoid: false, hasBegun: false, renewed: Promise.resolve(undefined) }
    refresh.renewed = this.#renew(refresh, seen, held)
    this.#refreshes.set(slot, refresh)
    this.#track(refresh.renewed.then(() => this.#refreshes.get(slot) === refresh && this.#refreshes.delete(slot)))
    return refresh
  }

  /** Never throws. Undefined: there is no new value. */
  async #renew(work: Refresh<K, V>, seen: Seen, held: Held): Promise<{ readonly value: V } | undefined> {
    let isInside = false
    try {
      await this.#loader.enter()
      isInside = true
      // The wait may have been long; if anything has changed since, the lease is refused.
      const lease = await this.#loading.take(work, seen, { type: 'load', fallback: held, isTakeover: false }, newId())
      if (lease === undefined || lease === 'refused') return undefined
      work.hasBegun = true
      const loaded = await this.#loading.leased(work, lease, held, () => {})
      return loaded.type === 'loaded' ? loaded : undefined
    } catch (cause) {
      this.#loading.tell(work, { type: 'load-failed', cause })
      return undefined
    } finally {
      if (isInside) this.#loader.leave()
    }
  }

  /** This process's part of an invalidation: what is in memory goes, and what is under way is only for those who wait for it already. */
  #forget(target: Target): void {
    if (target === 'all') this.first.clear()
    else if ('tag' in target) this.first.expireAll()
    else this.first.drop(target.slot)
    const slots = target !== 'all' && 'slot' in target ? [target.slot] : [...this.#flights.keys(), ...this.#refreshes.keys()]
    for (const slot of slots) {
      const refresh = this.#refreshes.get(slot)
      if (refresh !== undefined) {
        refresh.isVoid = true
        this.#refreshes.delete(slot)
      }
      const flight = this.#flights.get(slot)
      if (flight === undefined || flight.isOpen) continue
      flight.isVoid = true
      this.#flights.delete(slot)
      if (flight.next !== undefined) this.#launch(flight.next)
    }
  }

  #poll(nth: number, leftMs: number): Promise<void> {
    const ms = Math.min(pollMsMax, pollMsFirst * 2 ** Math.min(nth, 10)) * (1 + this.#settings.random()) * 0.5
    return new Promise((resolve) => timerOf(this.#settings, resolve, Math.max(1, Math.min(ms, leftMs)), false))
  }

  /** Undefined: not within the time. */
  #within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
    return new Promise((resolve) => {
      const timer = timerOf(this.#settings, () => resolve(undefined), ms, false)
      void promise.then((value) => {
        this.#settings.timers.clearTimeout(timer as never)
        resolve(value)
      })
    })
  }

  #track(work: Promise<unknown>): void {
    const ended = work.then(
      () => undefined,
      () => undefined,
    )
    this.#background.add(ended)
    void ended.then(() => this.#background.delete(ended))
    try {
      this.#settings.waitUntil(ended)
    } catch (cause) {
      // The platform's refusal is no reason to end a read or, worse, an invalidation.
      tell(this.#settings.name, generationsKeyOf(this.#settings.name), { type: 'wait-until-failed', cause })
    }
  }
}
