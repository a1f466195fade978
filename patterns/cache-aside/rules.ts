/**
 * What a cache record says to a reader, and what it becomes.
 * Pure. Invariant: a value is served only while its generations hold, and a lease is given only where none lives on the store's clock.
 * Why value and lease stand in one record: then an invalidation, which is one write, takes away both, and a late write-back finds another version (K1).
 *
 *   absent, or neither value nor lease --take--> lease            lease --keep--> value
 *   value, not fresh                   --take--> value and lease  any   --invalidate--> neither (a tombstone)
 *   lease that has lapsed              --take--> lease of another owner
 */
import { epochMs, type EpochMs } from '../../core/base/types.ts'

/** The right to load. */
export interface Lease {
  /** A name that no other flight has: after an unknown outcome it tells one's own lease from another's. */
  readonly owner: string
  /** On the store's clock. From this instant on anybody may take over (K3). */
  readonly endsAt: EpochMs
  /** Nobody loads: a load has failed, and the next one waits until the lease has ended. */
  readonly isBackoff: boolean
}

/** `missing`: the loader said notFound. `oversize`: there is a value, but it does not fit into a record (K19). */
export type HeldKind = 'value' | 'undefined' | 'missing' | 'oversize'

/** A loaded value. All instants are on the store's clock. */
export interface Held {
  readonly kind: HeldKind
  readonly freshUntil: EpochMs
  /** Until then it is served while a new one is loaded. */
  readonly staleUntil: EpochMs
  /** Until then it is served when the loader fails. */
  readonly keptUntil: EpochMs
  /** How long its load took, in milliseconds. */
  readonly deltaMs: number
  /** As it was before its load began. */
  readonly stamp: Stamp
  readonly tags: readonly string[]
  readonly body: Uint8Array
}

export interface CacheRecord {
  /** The schema version of whoever wrote it. */
  readonly version: number
  readonly lease?: Lease | undefined
  readonly held?: Held | undefined
}

/** When a load began, in the cache's own time: `clear` gives a new era, each invalidation of a tag the next epoch. Counters, never clocks (K17). */
export interface Stamp {
  readonly era: string
  readonly epoch: number
}
/** Of one cache. */
export interface Generations extends Stamp {
  /** The longest that a value of any process may live: so long the epoch of a tag must be kept. */
  readonly lifeMs: number
}

export interface Question {
  readonly record: CacheRecord | undefined
  /** The store's clock. */
  readonly now: EpochMs
  /** The reader's schema version. */
  readonly version: number
  /** The reader's name as a lease's owner. */
  readonly owner: string
  /** Undefined: none are written yet, so nothing can be valid. */
  readonly generations: Generations | undefined
  /** By tag: the epoch of its last invalidation. */
  readonly tagEpochs: ReadonlyMap<string, number>
}

export type Judgement =
  /** `until`: it may be served so long without another look. `isFree`: nobody loads a new one. */
  | { readonly type: 'hit'; readonly held: Held; readonly until: EpochMs; readonly isFree: boolean }
  | { readonly type: 'stale'; readonly held: Held; readonly until: EpochMs; readonly isFree: boolean }
  /** Somebody loads it; in so many milliseconds that lease has ended. */
  | { readonly type: 'wait'; readonly leftMs: number; readonly fallback: Held | undefined }
  /** Take the lease. `isTakeover`: of one whose lease has lapsed. */
  | { readonly type: 'load'; readonly fallback: Held | undefined; readonly isTakeover: boolean }
  /** The lease is the reader's own: an earlier write arrived whose answer did not. */
  | { readonly type: 'mine'; readonly fallback: Held | undefined }
  /** The record is not for this reader: load, and store nothing. */
  | { readonly type: 'past' }

export function judge({ record, now, version, owner, generations, tagEpochs }: Question): Judgement {
  if (record === undefined || record.version < version) return { type: 'load', fallback: undefined, isTakeover: false }
  const { lease } = record
  const isBusy = lease !== undefined && now < lease.endsAt
  // A newer process's value or load is left alone; the older process would only fight it for the record (P12).
  if (record.version > version) {
    const isUsed = isBusy || (record.held !== undefined && now < record.held.freshUntil)
    return isUsed ? { type: 'past' } : { type: 'load', fallback: undefined, isTakeover: false }
  }
  let held = record.held
  if (held !== undefined && (now >= held.keptUntil || !isCurrent(held, generations, tagEpochs))) held = undefined
  if (held?.kind === 'oversize') {
    if (now < held.freshUntil) return { type: 'past' }
    held = undefined
  }
  if (held !== undefined && now < held.freshUntil) return { type: 'hit', held, until: held.freshUntil, isFree: !isBusy }
  if (isBusy && lease.owner === owner && !lease.isBackoff) return { type: 'mine', fallback: held }
  if (held !== undefined && now < held.staleUntil) return { type: 'stale', held, until: held.staleUntil, isFree: !isBusy }
  // A failed load's pause protects the source only while there is something to serve.
  if (held !== undefined && isBusy && lease.isBackoff)
    return { type: 'stale', held, until: epochMs(Math.min(lease.endsAt, held.keptUntil)), isFree: false }
  if (isBusy && !lease.isBackoff) return { type: 'wait', leftMs: lease.endsAt - now, fallback: held }
  return { type: 'load', fallback: held, isTakeover: lease !== undefined && !lease.isBackoff }
}

/** Whether no `clear` and no invalidation of its tags has come since its load began. */
export function isCurrent(held: Held, generations: Generations | undefined, tagEpochs: ReadonlyMap<string, number>): boolean {
  if (generations === undefined || held.stamp.era !== generations.era) return false
  return held.tags.every((tag) => (tagEpochs.get(tag) ?? 0) <= held.stamp.epoch)
}

/** The lease that stands before a load; what may still be served stays in the record. */
export const leased = (version: number, owner: string, endsAt: EpochMs, fallback: Held | undefined): CacheRecord => ({
  version,
  lease: { owner, endsAt, isBackoff: false },
  held: fallback,
})

/** After a failed load, beside a value that may still be served. */
export const backedOff = (version: number, owner: string, endsAt: EpochMs, held: Held): CacheRecord => ({
  version,
  lease: { owner, endsAt, isBackoff: true },
  held,
})

export interface Lifetimes {
  readonly ttlMs: number
  /** After the ttl. */
  readonly staleMs: number
  readonly maxStaleMs: number
}

/** The three ends of a value's life. What was not found is not served stale: its absence is cheap to ask again. */
export function lifeOf(kind: HeldKind, { ttlMs, staleMs, maxStaleMs }: Lifetimes, now: EpochMs) {
  const freshUntil = epochMs(now + ttlMs)
  const hasStale = kind === 'value' || kind === 'undefined'
  return {
    freshUntil,
    staleUntil: epochMs(freshUntil + (hasStale ? staleMs : 0)),
    keptUntil: epochMs(freshUntil + (hasStale ? maxStaleMs : 0)),
  }
}

/** A ttl spread by `jitter` to both sides, so that what was loaded together does not expire together (K8). `draw` is in [0, 1). */
export const jittered = (ttlMs: number, jitter: number, draw: number): number =>
  Math.max(1, Math.round(ttlMs * (1 + jitter * (2 * draw - 1))))

/**
 * Whether this reader should refresh a value that is still fresh: the sooner it ends and the longer it takes, the likelier
 * (XFetch: Vattani, Chierichetti, Lowenstein, VLDB 2015). `beta` 0: never. `draw` is in [0, 1).
 */
export const isEarly = (held: Held, now: EpochMs, beta: number, draw: number): boolean =>
  beta > 0 && now - held.deltaMs * beta * Math.log(1 - draw) >= held.freshUntil

/** The next epoch. A first one begins at the store's clock: only so that it lies beyond those of a record that was lost; it is never read as time. */
export const nextEpoch = (generations: Stamp | undefined, now: EpochMs): number => (generations === undefined ? now : generations.epoch + 1)
