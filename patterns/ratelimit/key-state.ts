/**
 * What this process knows of a key, and who waits for it.
 * Pure. Invariant: nothing here is believed without the store: a write that rests on it is conditional on the version, and an allowance is
 * given only by such a write. A denial may rest on it alone, while it can still be shown to be true.
 */
import type { EpochMs } from '../../core/base/types.ts'
import type { Entry, Version } from '../../core/kv/kv.ts'
import type { Timed } from './deadlines.ts'
import type { LimitRecord } from './rules.ts'
import type { UnknownReason } from './types.ts'

/** What becomes of a record. `next` undefined: nothing changes. */
export interface Change {
  readonly next?: LimitRecord | undefined
}

/** What is done to a record. May be called again, with another record. */
export type Work<Value extends Change = Change> = (record: LimitRecord, now: number) => Value

export type Told<Value> =
  | { readonly type: 'done'; readonly value: Value; readonly now: EpochMs }
  | { readonly type: 'unknown'; readonly reason: UnknownReason; readonly cause: unknown }

/** Callers of one write: bounds how long one turn runs their works. */
const batchMax = 1_024
export interface Base {
  readonly record: LimitRecord
  readonly version: Version | undefined
  readonly now: number
  /** Nobody has shown that the store is in this state. */
  readonly isGuess: boolean
}

/** A caller who waits for an answer. */
/** Its answers and its work fit each other, and nobody else looks into them. */
export class Job implements Timed {
  readonly key: KeyState
  readonly work: Work
  readonly told: (told: Told<Change>) => void
  readonly failed: (error: unknown) => void
  /** Local milliseconds. */
  readonly endsAt: number
  /** Serves it by itself: of those that are patient. */
  readonly serve: (() => Promise<void>) | undefined
  value: Change | undefined = undefined
  batch: Batch | undefined = undefined
  /** What it changes is in a write whose answer is not there. */
  isSent = false
  isOver = false
  unlisten: (() => void) | undefined = undefined
  before: Timed | undefined = undefined
  behind: Timed | undefined = undefined

  constructor(
    key: KeyState,
    work: Work,
    told: (told: Told<Change>) => void,
    failed: (error: unknown) => void,
    endsAt: number,
    serve?: () => Promise<void>,
  ) {
    this.key = key
    this.work = work
    this.told = told
    this.failed = failed
    this.endsAt = endsAt
    this.serve = serve
  }
}

/** Callers who are served together. */
export interface Batch {
  readonly jobs: readonly Job[]
  /** Of them, who still wait. */
  count: number
  isRefused: boolean
  /** Told to the count of failures: it is one, however many wait. */
  hasFailed: boolean
}

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
  /** Who is being served, one batch at a time. */
  batch: Batch | undefined = undefined
  /** Who is served next. */
  waiting: Job[] = []
  /** Several were served together last: who comes waits for those that come in the same turn. */
  isCrowded = false

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

/** Stands for the batch that is being gathered. */
export const gathering: Batch = { jobs: [], count: 0, isRefused: false, hasFailed: false }

/** Who is served next, together: those that are patient by themselves. */
export function taken(key: KeyState): Batch | undefined {
  for (;;) {
    const { waiting } = key
    if (waiting.length === 0) return undefined
    const isPatient = waiting[0]?.serve !== undefined
    let count = 1
    while (count < waiting.length && count < batchMax && (waiting[count]?.serve !== undefined) === isPatient) count++
    key.waiting = waiting.length === count ? [] : waiting.splice(count)
    const jobs = waiting.filter(({ isOver }) => !isOver)
    if (jobs.length === 0) continue
    const batch: Batch = { jobs, count: jobs.length, isRefused: false, hasFailed: false }
    for (const job of jobs) job.batch = batch
    return batch
  }
}

/** Runs the works one after the other. @returns the record after all of them; undefined: nothing changes. */
export function judged(jobs: readonly Job[], { record: before, now }: Base): LimitRecord | undefined {
  let record: LimitRecord | undefined
  for (const job of jobs) {
    if (job.isOver) continue
    const value = job.work(record ?? before, now)
    job.value = value
    if (value.next === undefined) continue
    record = value.next
    job.isSent = true
  }
  return record
}

/** How long the store may take: as long as the most patient of the callers. */
export const patience = ({ jobs }: Batch, now: number): number => Math.max(1, Math.ceil((jobs.at(-1)?.endsAt ?? 0) - now))
