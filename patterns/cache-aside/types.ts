/**
 * The words of cache-aside: what a caller gives, and what a cache can be asked.
 * Invariant: the value's type comes from the loader's result; nothing that a loader is given mentions it, or inference would end in `unknown`.
 * Why two marks as results: `undefined` and null are values like any other (K10), so "not there" and "as before" must be said by something else.
 */
import type { Duration } from '../../core/base/types.ts'
import type { Codec, StandardSchema } from '../../core/kv/codec.ts'
import type { KV } from '../../core/kv/kv.ts'
import type { CacheKey } from './key.ts'

/** What a loader answers when there is nothing. `get` then gives undefined. */
export class NotFound {
  /** How long that is remembered; undefined: as long as a value. */
  readonly ttl: Duration | undefined
  constructor(ttl: Duration | undefined) {
    this.ttl = ttl
  }
}
/** A load's answer: there is nothing, and that is remembered for so long. @example return row ?? notFound({ ttl: '10s' }) */
export const notFound = (options: { readonly ttl?: Duration | undefined } = {}): NotFound => new NotFound(options.ttl)

export class Unchanged {
  readonly unchanged = true
}
/** A load's answer: the value is as `context.previous` says; it is fresh again. */
export const unchanged: Unchanged = new Unchanged()

/** What a cache gives, by what its loader answers. */
export type ValueOf<R> = R extends NotFound ? undefined : R extends Unchanged ? never : R
/** What goes through the codec. */
type StoredOf<R> = Exclude<R, NotFound | Unchanged | undefined>

/** What a loader is given beside the key. */
export interface LoadContext {
  /** Fires when the hard deadline passes. No caller's signal: others may wait for the same load (K14). */
  readonly signal: AbortSignal
  /** The value before, if there is one that may still be served: for a question such as If-None-Match, answered with `unchanged`. */
  readonly previous: { readonly value: unknown } | undefined
  /** Names what the value depends on, for `invalidateTag`. At most 32 tags of 256 characters. @throws KvError INVALID_ARGUMENT. */
  tag(...tags: readonly string[]): void
  /** How long this value is fresh, instead of `ttl`; at most `ttlMax`. @throws KvError INVALID_ARGUMENT. */
  ttl(duration: Duration): void
}

export interface LoadManyContext {
  readonly signal: AbortSignal
  /** By the place of the key. */
  readonly each: readonly LoadContext[]
}

/** Timers as the cache uses them: `globalThis`, or a test clock. */
export interface Timers {
  setTimeout(run: () => void, ms: number): unknown
  clearTimeout(timer: never): void
  /** Milliseconds on a clock that never steps. Default: performance.now. */
  elapsed?(): number
}

export interface CacheSettings {
  readonly kv: KV
  /** Names the cache: part of each key's identity. 1 to 64 characters. */
  readonly name: string
  /** How long a value is fresh, before jitter. At least 1 ms. */
  readonly ttl: Duration
  /** The most that a loader may say for one value by `context.ttl` or `notFound`. Default: `ttl`. */
  readonly ttlMax?: Duration | undefined
  /** How much longer it is served while a new one is loaded. Default: 0. */
  readonly stale?: Duration | undefined
  /** How much longer than `ttl` it is served when the loader fails. At least `stale`. Default: `stale`. */
  readonly maxStale?: Duration | undefined
  /** How long a reader with a stale value in hand waits for the new one. Default: 0. */
  readonly soft?: Duration | undefined
  /** How long a loader may take; also the length of its lease. 100 ms to 1 hour. Default: '10s'. */
  readonly hard?: Duration | undefined
  /** How long a reader without a value waits for another process's load before it loads by itself, and stores nothing. Default: '5s'. */
  readonly wait?: Duration | undefined
  /** The pause after a failed load while a stale value is served. Default: '1s'. */
  readonly backoff?: Duration | undefined
  /** How long an error is thrown again in this process without another load; a function decides by the error. Default: 0. */
  readonly errorTtl?: Duration | ((error: unknown) => Duration) | undefined
  /**
   * How long an answer may rest on what the store said before: the longest that this process serves a value after another process's
   * invalidation was answered. 0: the store is asked each time. Default: '1s'.
   */
  readonly fresh?: Duration | undefined
  /** Bytes of values in memory, estimated. 0: none. Default: 67,108,864. */
  readonly memoryBytesMax?: number | undefined
  /** What callers share: one deep-frozen value, a clone each, or the value as it is. Default: 'frozen'. */
  readonly share?: 'frozen' | 'cloned' | 'as-is' | undefined
  /** The part of `ttl` by which it is drawn longer or shorter, 0 to 0.5. Default: 0.1. */
  readonly jitter?: number | undefined
  /** XFetch's beta: more refreshes sooner. 0: none before the end of the ttl. Default: 0. */
  readonly early?: number | undefined
  /** The version of the value's shape: a whole number that rises. A newer process's values are not read by an older one, nor older ones by a newer. Default: 1. */
  readonly version?: number | undefined
  /** Loads at once in this process. Default: 64. */
  readonly loadsMax?: number | undefined
  /** How long one call of the store may take before it counts as away. Default: '500ms'. */
  readonly storeDeadline?: Duration | undefined
  /** The second invalidation of `mutate`, so long after the first: the lag of the replica that the loader reads. Default: none. */
  readonly lag?: Duration | undefined
  /** Is given what goes on after an answer (refreshes, write-backs, invalidations to be repeated); 'inline': callers wait for it, but for repetitions of what was answered with `done: false` (K13). */
  readonly waitUntil?: ((work: Promise<unknown>) => void) | 'inline' | undefined
  /** Default: the machine's. A test clock fits. */
  readonly timers?: Timers | undefined
  /** In [0, 1). Default: Math.random. */
  readonly random?: (() => number) | undefined
}

interface Shape<R> {
  /** How values become bytes. Default: JSON. `undefined` needs none. */
  readonly codec?: Codec<StoredOf<NoInfer<R>>> | undefined
  /** With it, values are JSON that is checked when stored and when read; what does not fit any more is loaded anew (K18). */
  readonly schema?: StandardSchema<StoredOf<NoInfer<R>>> | undefined
}

export interface CacheOptions<K extends CacheKey, R> extends CacheSettings, Shape<R> {
  /** Loads one value. It runs outside the async context of any caller, and knows the key alone (K15). */
  readonly load: (key: K, context: LoadContext) => R | Promise<R>
  readonly loadMany?: undefined
}
export interface CacheManyOptions<K extends CacheKey, R> extends CacheSettings, Shape<R> {
  /** Loads all that are wanted at the same moment: one result or Error for each key, in their order. */
  readonly loadMany: (keys: readonly K[], context: LoadManyContext) => Promise<readonly (R | Error)[]>
  readonly load?: undefined
}

export interface GetOptions {
  /** Ends this caller's wait with ABORTED. The load goes on. */
  readonly signal?: AbortSignal | undefined
  /** Ends this caller's wait with DEADLINE_EXCEEDED. The load goes on. */
  readonly deadline?: Duration | undefined
}

export interface Invalidation {
  /** Whether the store has it. False: it is repeated until it does, or until nothing is left that it could take away. */
  readonly done: boolean
  /** Why not. */
  readonly cause?: unknown
}

export interface Cache<K extends CacheKey, V> {
  readonly name: string
  /**
   * The value: from memory, from the store, or loaded. A store that is away is passed by.
   * @throws what the loader throws; KvError LOAD_TIMEOUT, LOAD_INVALID, VALUE_INVALID (of the loader's value), INVALID_ARGUMENT, ABORTED, DEADLINE_EXCEEDED, BUSY.
   */
  get(key: K, options?: GetOptions): Promise<V>
  /** As `get` for each, in their order, with one call of the store for all. */
  getMany(keys: readonly K[], options?: GetOptions): Promise<V[]>
  /** What memory holds and may serve now, without any waiting. */
  peek(key: K): V | undefined
  /** After it was answered as done, no `get` of any process begins that gives what was there before, but for `fresh`. @throws KvError of faults. */
  invalidate(key: K): Promise<Invalidation>
  /** The same for all values whose load named the tag: one counter, no scan. */
  invalidateTag(tag: string): Promise<Invalidation>
  /** The same for all values of this name. */
  clear(): Promise<Invalidation>
  /**
   * Runs `commit`, then invalidates, also when it throws: a commit whose answer was lost has happened. Never throws because of the store.
   * A list is taken for one key and for several keys.
   */
  mutate<T>(key: K | readonly K[], commit: () => T | Promise<T>): Promise<T>
  /** How many invalidations the store has not taken yet. */
  readonly pendingInvalidations: number
  /** Resolves when nothing goes on in the background. */
  settled(): Promise<void>
}
