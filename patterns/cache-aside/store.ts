/**
 * How a cache speaks with its store: reads with their generations in one call, leases, write-backs and invalidations.
 * Invariant: a write-back is conditional on the version of its lease (K1); an invalidation is not conditional and leaves a version behind (K4).
 * Why reads of one turn go together: `getMany` of an application, and a burst of misses, then cost one round trip.
 */
import type { EpochMs } from '../../core/base/types.ts'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import { newId } from '../../core/kv/id.ts'
import type { CreateResult, Entry, GetManyResult, UpdateResult, Version } from '../../core/kv/kv.ts'
import { modifier } from '../../core/kv/modify.ts'
import { entryKeyOf, generationsKeyOf, tagKeyOf } from './identity.ts'
import type { Slot } from './key.ts'
import {
  decodeGenerations,
  decodeRecord,
  decodeTagEpoch,
  encodeGenerations,
  encodeRecord,
  encodeTagEpoch,
  tombstone,
  type Decoded,
} from './record.ts'
import { nextEpoch, type CacheRecord, type Generations } from './rules.ts'
import { timerOf, type Settings } from './settings.ts'

/** What a read showed. */
export interface Seen {
  /** Undefined: there is no entry. */
  readonly version: Version | undefined
  readonly expiresAt: EpochMs | undefined
  readonly record: CacheRecord | undefined
  /** A newer release wrote the record or the generations: not for this one. */
  readonly isNewer: boolean
  /** Why the record could not be read, if so. */
  readonly damage: string | undefined
  readonly generations: Generations | undefined
  readonly tagEpochs: ReadonlyMap<string, number>
  readonly now: EpochMs
  /** On the local clock. */
  readonly sentAt: number
}

export type Taken =
  /** `now` is the store's clock, `sentAt` the local one when the call was sent. */
  | { readonly type: 'taken'; readonly version: Version; readonly now: EpochMs; readonly sentAt: number }
  /** Others were faster, or the outcome is not known: read again. */
  | { readonly type: 'refused' }
  | { readonly type: 'failed'; readonly cause: unknown }

export type Kept =
  | { readonly type: 'kept'; readonly version: Version }
  | { readonly type: 'refused' }
  | { readonly type: 'failed'; readonly cause: unknown }

interface Ask {
  readonly storeKey: string
  readonly tags: readonly string[]
  readonly onSend: () => void
  readonly resolve: (seen: Seen) => void
  readonly reject: (error: unknown) => void
}

/** Write-backs whose outcome is unknown are sent so often under one request id. */
const keepAttemptsMax = 3

export class CacheStore {
  readonly #settings: Settings
  readonly #generationsKey: string
  readonly #modify: ReturnType<typeof modifier>
  #asks: Ask[] = []

  constructor(settings: Settings) {
    this.#settings = settings
    this.#generationsKey = generationsKeyOf(settings.name)
    this.#modify = modifier({
      random: settings.random,
      clock: settings.elapsed,
      after: (ms, callback, isIdle) => {
        const timer = timerOf(settings, callback, ms, isIdle)
        return () => settings.timers.clearTimeout(timer as never)
      },
    })
  }

  keyOf(slot: Slot): string {
    return entryKeyOf(this.#settings.name, slot)
  }

  /** With what else is read in this turn. `guess`: the tags that the entry is thought to have. `onSend` runs when the call leaves. */
  read(storeKey: string, guess: readonly string[], onSend: () => void): Promise<Seen> {
    const tags = guess.length + 2 > this.#settings.kv.capabilities.limits.getManyMax ? [] : guess
    return new Promise((resolve, reject) => {
      this.#asks.push({ storeKey, tags, onSend, resolve, reject })
      if (this.#asks.length === 1) queueMicrotask(() => this.#send())
    })
  }

  #send(): void {
    const asks = this.#asks
    this.#asks = []
    const room = this.#settings.kv.capabilities.limits.getManyMax - 1
    let batch: Ask[] = []
    let count = 0
    for (const ask of asks) {
      if (batch.length > 0 && count + 1 + ask.tags.length > room) {
        void this.#ask(batch)
        batch = []
        count = 0
      }
      batch.push(ask)
      count += 1 + ask.tags.length
    }
    void this.#ask(batch)
  }

  async #ask(batch: readonly Ask[]): Promise<void> {
    for (const ask of batch) ask.onSend()
    const sentAt = this.#settings.elapsed()
    try {
      const keys = new Set([this.#generationsKey])
      const guessed = new Set(batch.flatMap(({ tags }) => tags))
      for (const { storeKey } of batch) keys.add(storeKey)
      for (const tag of guessed) keys.add(this.#tagKey(tag))
      const { entries, now } = await this.#getMany([...keys])
      const found = batch.map(({ storeKey }) => {
        const entry = entries.get(storeKey)
        return { entry, decoded: entry && decodeRecord(entry.value) }
      })
      const tags = new Set(found.flatMap(({ decoded }) => (decoded?.type === 'read' ? (decoded.value.held?.tags ?? []) : [])))
      const tagEpochs = await this.#tagEpochs(tags, guessed, entries)
      const generations = decodedOf(entries.get(this.#generationsKey), decodeGenerations)
      for (const [index, ask] of batch.entries()) {
        const { entry, decoded } = found[index] as (typeof found)[number]
        ask.resolve({
          version: entry?.version,
          expiresAt: entry?.expiresAt,
          record: decoded?.type === 'read' ? decoded.value : undefined,
          isNewer: decoded?.type === 'newer' || generations?.type === 'newer',
          damage: decoded?.type === 'damaged' ? decoded.why : undefined,
          generations: generations?.type === 'read' ? generations.value : undefined,
          tagEpochs,
          now,
          sentAt,
        })
      }
    } catch (error) {
      // One record that is damaged on disk must not take the others with it.
      if (batch.length > 1 && isKvError(error) && error.retry === 'never' && error.code !== 'CLOSED')
        for (const ask of batch) void this.#ask([ask])
      else for (const ask of batch) ask.reject(error)
    }
  }

  /** Of the tags that entries have; those that nobody guessed are asked for here. An epoch that cannot be read lies beyond all. */
  async #tagEpochs(
    tags: ReadonlySet<string>,
    guessed: ReadonlySet<string>,
    entries: GetManyResult['entries'],
  ): Promise<Map<string, number>> {
    const all = new Map(entries)
    const unasked = [...tags].filter((tag) => !guessed.has(tag)).map((tag) => this.#tagKey(tag))
    const room = this.#settings.kv.capabilities.limits.getManyMax
    for (let at = 0; at < unasked.length; at += room) {
      for (const [key, entry] of (await this.#getMany(unasked.slice(at, at + room))).entries) all.set(key, entry)
    }
    const epochs = new Map<string, number>()
    for (const tag of tags) {
      const epoch = decodedOf(all.get(this.#tagKey(tag)), decodeTagEpoch)
      if (epoch !== undefined) epochs.set(tag, epoch.type === 'read' ? epoch.value : Infinity)
    }
    return epochs
  }

  /** The generations, made if there are none, and made to know how long our values live. They are read before a load begins. @throws KvError. */
  async begin({ generations }: Seen): Promise<Generations> {
    const isKnown = generations !== undefined && generations.lifeMs >= this.#settings.lifeMs
    return isKnown ? generations : await this.#change((current) => current)
  }

  /** Creates a lease, or puts it in the place of what was seen. */
  async take(storeKey: string, seen: Seen, record: CacheRecord, isKeeping: boolean): Promise<Taken> {
    const { kv, hardMs, storeDeadlineMs: deadline } = this.#settings
    const bytes = encodeRecord(record)
    const lifeMs = 2 * hardMs
    const sentAt = this.#settings.elapsed()
    try {
      const answer = await this.#guard<CreateResult | UpdateResult>(() => {
        if (seen.version === undefined) return kv.create(storeKey, bytes, { ttl: lifeMs, deadline })
        const expiry = isKeeping ? ({ extend: lifeMs } as const) : ({ set: lifeMs } as const)
        return kv.update(storeKey, bytes, { ifVersion: seen.version, expiry, deadline })
      })
      if (answer.ok) return { type: 'taken', version: answer.entry.version, now: answer.now, sentAt }
      return { type: 'refused' }
    } catch (cause) {
      return isKvError(cause, 'UNKNOWN_OUTCOME') ? { type: 'refused' } : { type: 'failed', cause }
    }
  }

  /** Writes on condition of a lease. `lifeMs` undefined: the entry lives as long as before. */
  async keep(storeKey: string, bytes: Uint8Array, ifVersion: Version, lifeMs: number | undefined): Promise<Kept> {
    const { kv, storeDeadlineMs: deadline } = this.#settings
    const requestId = kv.capabilities.requestIds ? newId() : undefined
    const expiry = lifeMs === undefined ? 'keep' : { set: lifeMs }
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await this.#guard(() => kv.update(storeKey, bytes, { ifVersion, expiry, deadline, requestId }))
        return answer.ok ? { type: 'kept', version: answer.entry.version } : { type: 'refused' }
      } catch (cause) {
        if (!isKvError(cause, 'UNKNOWN_OUTCOME') || attempt >= keepAttemptsMax) return { type: 'failed', cause }
      }
    }
  }

  /** Gives a lease back that has nothing beside it. Whatever fails: it lapses by itself. */
  async release(storeKey: string, ifVersion: Version): Promise<void> {
    const { kv, storeDeadlineMs: deadline } = this.#settings
    await this.#guard(() => kv.destroy(storeKey, { ifVersion, deadline })).catch(() => undefined)
  }

  /** One write, whatever is there: value and lease are gone, and every version that anybody has seen is outdated. @throws KvError. */
  async invalidate(storeKey: string): Promise<void> {
    const { kv, version, hardMs, storeDeadlineMs: deadline } = this.#settings
    await this.#guard(() => kv.set(storeKey, tombstone(version), { expiry: { set: 2 * hardMs }, deadline }))
  }

  /** Raises the epoch, then the tag's to it: loads that had begun before are outdated, whatever they name later. @throws KvError. */
  async invalidateTag(tag: string): Promise<void> {
    const { kv, storeDeadlineMs: deadline } = this.#settings
    const { epoch, lifeMs } = await this.#change((current, now) => ({ ...current, epoch: nextEpoch(current, now) }))
    const raise = (stored: Uint8Array | undefined): Uint8Array => {
      const before = stored === undefined ? undefined : decodeTagEpoch(stored)
      if (before?.type === 'newer') throw new KvError('CACHE_UNREADABLE')
      return encodeTagEpoch(before?.type === 'read' ? Math.max(before.value, epoch) : epoch)
    }
    await this.#modify(kv, this.#tagKey(tag), raise, { deadline, expiry: { extend: lifeMs }, ttl: lifeMs })
  }

  /** @throws KvError. */
  async clear(): Promise<void> {
    const era = newId()
    await this.#change((current) => ({ ...current, era }))
  }

  async #change(change: (current: Generations, now: EpochMs) => Generations): Promise<Generations> {
    const { kv, lifeMs, storeDeadlineMs: deadline } = this.#settings
    const era = newId()
    let after: Generations = { era, epoch: 0, lifeMs }
    const next = (stored: Uint8Array | undefined, { now }: { readonly now: EpochMs }): Uint8Array | undefined => {
      const decoded = stored === undefined ? undefined : decodeGenerations(stored)
      if (decoded?.type === 'newer') throw new KvError('CACHE_UNREADABLE')
      // Lost or damaged generations begin a new era: nothing that was stored before is valid.
      const before = decoded?.type === 'read' ? decoded.value : undefined
      const changed = change(before ?? { era, epoch: nextEpoch(undefined, now), lifeMs }, now)
      after = changed.lifeMs >= lifeMs ? changed : { ...changed, lifeMs }
      return after === before ? undefined : encodeGenerations(after)
    }
    await this.#modify(kv, this.#generationsKey, next, { deadline, expiry: 'never' })
    return after
  }

  #tagKey(tag: string): string {
    return tagKeyOf(this.#settings.name, tag)
  }

  #getMany(keys: readonly string[]): Promise<GetManyResult> {
    const { kv, storeDeadlineMs: deadline } = this.#settings
    return this.#guard(() => kv.getMany(keys, { deadline }))
  }

  /** A store that does not keep to a deadline must not hold up the readers. */
  #guard<T>(call: () => Promise<T>): Promise<T> {
    const settings = this.#settings
    return new Promise((resolve, reject) => {
      const giveUp = (): void => reject(new KvError('UNKNOWN_OUTCOME', { message: 'the store did not answer within the deadline' }))
      const timer = timerOf(settings, giveUp, settings.storeDeadlineMs, false)
      const end = (): void => settings.timers.clearTimeout(timer as never)
      call().then(
        (answer) => {
          end()
          resolve(answer)
        },
        (error: unknown) => {
          end()
          reject(error)
        },
      )
    })
  }
}

const decodedOf = <T>(entry: Entry | undefined, decode: (bytes: Uint8Array) => Decoded<T>): Decoded<T> | undefined =>
  entry === undefined ? undefined : decode(entry.value)
