/**
 * How the engine speaks with its store: conditional writes whose unknown outcomes are resolved, within a budget of time.
 * Invariant: no call waits longer than its budget, and no write is taken for "not applied" unless the store said so.
 * Why the owner's name in the value is enough: only its owner writes it, so whoever finds it knows that the own write arrived (T6),
 * whether the store remembers request ids or not.
 */
import type { EpochMs } from '../../core/base/types.ts'
import { isKvError, KvError, type KvErrorCode } from '../../core/kv/errors.ts'
import type { CreateResult, Entry, KV, UpdateResult, Version } from '../../core/kv/kv.ts'
import { decodeRecord, encodeRecord } from './record.ts'
import type { Found, IdempotencyRecord } from './rules.ts'
import type { Finality, Timers } from './types.ts'

/** The options of an idempotency, with all defaults in place and every duration in milliseconds. */
export interface Settings {
  readonly kv: KV
  readonly name: string
  readonly retentionMs: number
  readonly leaseMs: number
  readonly final: Finality
  readonly afterCrash: 'refuse' | 'resume'
  readonly waitMs: number
  readonly storeDeadlineMs: number
  readonly onStoreError: 'reject' | 'allow'
  readonly recordBytesMax: number
  readonly timers: Timers
  readonly elapsed: () => number
  readonly random: () => number
}

/** The first pause before a store call is tried again; doubled each time, drawn between half and the whole of it. */
const pauseMsFirst = 20
const pauseMsMax = 1_000

/** A length of time within which something must be done. It holds one timer until `end`. */
export class Budget {
  readonly #settings: Settings
  readonly #timer: unknown
  #isOver = false
  #cancel: (() => void) | undefined
  #pauseMs = pauseMsFirst

  constructor(settings: Settings, ms: number) {
    this.#settings = settings
    this.#timer = timerOf(settings.timers, () => this.end(), ms)
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** Gives up what is waited for, and gives the timer back. */
  end(): void {
    this.#isOver = true
    this.#settings.timers.clearTimeout(this.#timer as never)
    this.#cancel?.()
  }

  /** A call that ends with the budget, with UNKNOWN_OUTCOME. One at a time. */
  guard<T>(call: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const giveUp = (): void => reject(new KvError('UNKNOWN_OUTCOME', { message: 'the store did not answer within the deadline' }))
      if (this.#isOver) return giveUp()
      this.#cancel = giveUp
      call().then(
        (result) => {
          this.#cancel = undefined
          resolve(result)
        },
        (error: unknown) => {
          this.#cancel = undefined
          reject(error)
        },
      )
    })
  }

  /** Waits a little longer each time. False: the time is over. `wake` is given what ends the pause early. */
  async pause(wake?: (end: () => void) => void): Promise<boolean> {
    if (this.#isOver) return false
    const { timers, random } = this.#settings
    const ms = this.#pauseMs * (1 + random()) * 0.5
    this.#pauseMs = Math.min(this.#pauseMs * 2, pauseMsMax)
    let timer: unknown
    await new Promise<void>((resolve) => {
      timer = timerOf(timers, resolve, ms)
      this.#cancel = resolve
      wake?.(resolve)
    })
    timers.clearTimeout(timer as never)
    return !this.#isOver
  }
}

/** A timer that keeps no process alive, after whole milliseconds. */
export function timerOf(timers: Timers, run: () => void, ms: number): unknown {
  const timer = timers.setTimeout(run, Math.ceil(ms))
  if (typeof timer === 'object' && timer !== null && 'unref' in timer && typeof timer.unref === 'function') timer.unref()
  return timer
}

/** A record as it was found, and the version to build on. */
export interface Standing extends Found {
  readonly version: Version
}

export type Written =
  | { readonly type: 'written'; readonly version: Version; readonly createdAt: EpochMs; readonly now: EpochMs }
  /** The writer's own earlier write stands there: this one or one before whose outcome was unknown. */
  | { readonly type: 'own'; readonly standing: Standing }
  | { readonly type: 'refused'; readonly standing: Standing }
  | { readonly type: 'missing' }
  /** `isUnknown`: it may have been applied, or may still be. */
  | { readonly type: 'failed'; readonly cause: unknown; readonly isUnknown: boolean }

/**
 * Writes a record: creates it, or changes it from `ifVersion`. Repeats what failed until the budget is over.
 * @throws KvError of faults: RECORD_UNREADABLE, DAMAGED, TOO_LARGE.
 */
export async function write(
  settings: Settings,
  storeKey: string,
  record: IdempotencyRecord,
  ifVersion: Version | undefined,
  budget: Budget,
  bytes = encodeRecord(record),
): Promise<Written> {
  const { kv, retentionMs, storeDeadlineMs: deadline } = settings
  let isUnknown = false
  for (;;) {
    try {
      const answer = await budget.guard<CreateResult | UpdateResult>(() =>
        ifVersion === undefined
          ? kv.create(storeKey, bytes, { ttl: retentionMs, deadline })
          : kv.update(storeKey, bytes, { ifVersion, expiry: { set: retentionMs }, deadline }),
      )
      if (answer.ok) return { type: 'written', version: answer.entry.version, createdAt: answer.entry.createdAt, now: answer.now }
      if (answer.refusal === 'missing') return { type: 'missing' }
      const standing = standingOf(answer.entry, answer.now)
      return { type: standing.record.owner === record.owner ? 'own' : 'refused', standing }
    } catch (cause) {
      if (!isAway(cause)) throw cause
      if (!isSurelyNotApplied(cause)) isUnknown = true
      if (!isWorthRepeating(cause) || !(await budget.pause())) return { type: 'failed', cause, isUnknown }
    }
  }
}

export type Removed =
  | { readonly type: 'removed' }
  | { readonly type: 'refused'; readonly standing: Standing }
  | { readonly type: 'failed'; readonly cause: unknown }

/** Destroys a record in one version only (T3). Gone already counts as removed. */
export async function remove(settings: Settings, storeKey: string, ifVersion: Version, budget: Budget): Promise<Removed> {
  for (;;) {
    try {
      const answer = await budget.guard(() => settings.kv.destroy(storeKey, { ifVersion, deadline: settings.storeDeadlineMs }))
      if (answer.ok || answer.refusal === 'missing') return { type: 'removed' }
      return { type: 'refused', standing: standingOf(answer.entry, answer.now) }
    } catch (cause) {
      if (!isAway(cause)) throw cause
      if (!isWorthRepeating(cause) || !(await budget.pause())) return { type: 'failed', cause }
    }
  }
}

export type Read =
  | { readonly type: 'found'; readonly standing: Standing }
  | { readonly type: 'absent' }
  | { readonly type: 'failed'; readonly cause: unknown }

export async function read(settings: Settings, storeKey: string, budget: Budget): Promise<Read> {
  for (;;) {
    try {
      const { entry, now } = await budget.guard(() => settings.kv.get(storeKey, { deadline: settings.storeDeadlineMs }))
      return entry === undefined ? { type: 'absent' } : { type: 'found', standing: standingOf(entry, now) }
    } catch (cause) {
      if (!isAway(cause)) throw cause
      if (!isWorthRepeating(cause) || !(await budget.pause())) return { type: 'failed', cause }
    }
  }
}

export const standingOf = (entry: Entry, now: EpochMs): Standing => ({
  record: decodeRecord(entry.value),
  version: entry.version,
  createdAt: entry.createdAt,
  now,
})

const awayCodes: ReadonlySet<KvErrorCode> = new Set([
  'UNAVAILABLE',
  'UNKNOWN_OUTCOME',
  'DEADLINE_EXCEEDED',
  'ABORTED',
  'BUSY',
  'CONTENTION',
  'RECORD_LOCKED',
  'CLOSED',
  'STORE_FAILED',
  'DISK_FULL',
  'MEMORY_FULL',
])

/** The store cannot do it now. What is no KvError comes from a store that does not keep the contract: its outcome is unknown. */
const isAway = (error: unknown): boolean => !isKvError(error) || awayCodes.has(error.code)
const isSurelyNotApplied = (error: unknown): boolean => isKvError(error) && (error.retry === 'safe' || error.code === 'CLOSED')
/** A store that is closed or has stopped does not come back within a budget. */
const isWorthRepeating = (error: unknown): boolean => !isKvError(error) || (error.retry !== 'never' && error.code !== 'STORE_FAILED')
