/**
 * What happens to a cache, told on the diagnostics channel `hapax:cache-aside`.
 * Invariant: an event holds no value and no key: `id` is the first 16 characters of the record's hashed name. Hits in memory are not told.
 * Why a channel and not an emitter: while nobody listens it costs a look at a flag, and no option need be passed down.
 */
import { channel } from 'node:diagnostics_channel'

export type CacheEventType =
  /** Served from the store. */
  | 'hit'
  /** Served although it is no longer fresh: while a load runs, or because one failed. */
  | 'stale'
  /** A load begins, with a lease or past the store. */
  | 'load'
  | 'load-failed'
  /** A load took more than half of its ttl (K16). */
  | 'slow-load'
  /** Loaded and written. */
  | 'stored'
  /** Loaded and not written: an invalidation or another load came first (K1). */
  | 'overtaken'
  /** The lease of another had lapsed (K3). */
  | 'taken-over'
  /** Loaded without the store: it is away, full of another's load, or newer than this process. */
  | 'past'
  /** A value too large for a record (K19). */
  | 'oversize'
  /** A record that could not be read, and counts as none (K18). */
  | 'undecodable'
  | 'invalidated'
  /** The store did not take an invalidation; it is repeated (K6). */
  | 'invalidation-queued'
  /** It was repeated for as long as a value lives: what it was for is gone by itself. */
  | 'invalidation-outlived'
  | 'store-error'
  /** The function that was given as `waitUntil` threw. The work goes on all the same. */
  | 'wait-until-failed'

export interface CacheEvent {
  readonly type: CacheEventType
  /** Of the cache. */
  readonly name: string
  readonly id: string
  /** Of 'load': whether under a lease. */
  readonly leased?: boolean | undefined
  /** Of 'stored', 'slow-load', 'past': how long the load took, and for how long its value is fresh. */
  readonly deltaMs?: number | undefined
  readonly ttlMs?: number | undefined
  /** Of 'oversize'. */
  readonly bytes?: number | undefined
  readonly cause?: unknown
}

const events = channel('hapax:cache-aside')

/** Tells an event, if somebody listens. */
export function tell(name: string, storeKey: string, event: Omit<CacheEvent, 'name' | 'id'>): void {
  if (events.hasSubscribers) events.publish({ ...event, name, id: storeKey.slice(-43, -27) } satisfies CacheEvent)
}
