/**
 * `@Cached`: a method whose results are kept: the method itself is the loader.
 * Invariant: two calls with one key are one load, and what the key does not tell apart (other arguments, `this`) must not matter for the result.
 * Why records of its own: a load needs the arguments of a call, so the cache is given the call, and of that only the key is its identity.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { decorateMethod, optionOf, targetOf } from '../../core/base/decorate.ts'
import type { Lazy, MethodDecorator, OfCall } from '../../core/base/decorate.ts'
import { canonicalJson } from '../../core/base/json.ts'
import type { Duration } from '../../core/base/types.ts'
import { invalid } from '../../core/kv/errors.ts'
import { cache } from './cache.ts'
import type { Cache, CacheOptions, GetOptions, LoadContext, ValueOf } from './types.ts'

/** What tells calls apart: anything JSON can hold. Put the tenant or principal into it, if the result depends on it. */
export type MethodKey = string | number | boolean | object

/** Options of a cache without a loader. `V` is what the methods give. */
export type MethodCacheOptions<V> = Omit<CacheOptions<never, V>, 'load' | 'loadMany'>

/** A cache whose loader comes with each call. Its records are its own: a `cache` of the same name sees none of them. */
export interface MethodCache<V> extends Pick<Cache<never, V>, 'name' | 'invalidateTag' | 'clear' | 'pendingInvalidations' | 'settled'> {
  /** The value of this key: from memory, from the store, or loaded by `load`. @throws as `get` of a cache; INVALID_ARGUMENT inside a load of this very key. */
  through(key: MethodKey, load: () => V | Promise<V>, options?: GetOptions): Promise<V>
  /** As of a cache. */
  invalidate(key: MethodKey): ReturnType<Cache<never, V>['invalidate']>
  /** As of a cache. */
  mutate<T>(key: MethodKey | readonly MethodKey[], commit: () => T | Promise<T>): Promise<T>
}

/** One call on its way to its load. As JSON, and so for the cache, it is its key. */
class CallKey {
  readonly #key: MethodKey
  readonly load: (() => unknown) | undefined
  readonly outer: Frame | undefined

  constructor(key: MethodKey, load?: () => unknown, outer?: Frame) {
    this.#key = key
    this.load = load
    this.outer = outer
  }
  toJSON(): MethodKey {
    return this.#key
  }
}

/** A load under way, and what it was called in. */
interface Frame {
  readonly cache: object
  readonly key: CallKey
  readonly context: LoadContext
  isOpen: boolean
}
const frames = new AsyncLocalStorage<Frame>()

/**
 * Makes a cache for methods, with a handle to invalidate it by.
 * @throws KvError as `cache` does.
 * @example const users = methodCache<User>({ kv, name: 'user', ttl: '5m', stale: '1h' })
 */
export function methodCache<V>(options: MethodCacheOptions<V>): MethodCache<V> {
  const calls: Cache<CallKey, ValueOf<V>> = cache<CallKey, V>({
    ...options,
    load: async (key, context) => {
      const frame: Frame = { cache: calls, key, context, isOpen: true }
      try {
        return (await frames.run(frame, () => key.load?.())) as V
      } finally {
        frame.isOpen = false
      }
    },
  })
  return {
    name: calls.name,
    through(key, load, getOptions) {
      const outer = frames.getStore()
      refuseItself(calls, key, outer)
      return calls.get(new CallKey(key, load, outer), getOptions) as Promise<V>
    },
    invalidate: (key) => calls.invalidate(new CallKey(key)),
    invalidateTag: (tag) => calls.invalidateTag(tag),
    clear: () => calls.clear(),
    mutate: (key, commit) =>
      calls.mutate(
        (Array.isArray(key) ? (key as readonly MethodKey[]) : [key]).map((one) => new CallKey(one)),
        commit,
      ),
    get pendingInvalidations() {
      return calls.pendingInvalidations
    },
    settled: () => calls.settled(),
  }
}

/** A load that asks for its own key would wait for itself until its hard deadline. */
function refuseItself(calls: object, key: MethodKey, inside: Frame | undefined): void {
  let name: string | undefined
  for (let frame = inside; frame !== undefined; frame = frame.key.outer) {
    if (!frame.isOpen || frame.cache !== calls) continue
    name ??= canonicalJson(key)
    if (canonicalJson(frame.key) === name)
      invalid('a cached method asks for its own key while it loads: @Cached stands on it twice, or it calls itself')
  }
}

/**
 * What the `@Cached` method that loads now may say and ask: `tag`, `ttl`, `signal`, `previous`. Other contexts of the caller are not there (K15).
 * @throws KvError INVALID_ARGUMENT outside such a load.
 * @example currentLoad().tag(`team:${user.team}`)
 */
export const currentLoad = (): LoadContext =>
  frames.getStore()?.context ?? invalid('currentLoad() is asked outside of a method with @Cached')

/**
 * Options of `@Cached`. A function takes the method's own arguments, with their types written out, and may leave the last ones away.
 * `Self` is the class, `K` and `G` are the arguments of each option.
 */
export interface CachedOptions<Self, K extends readonly unknown[], G extends readonly unknown[]> {
  /** What tells calls apart. The class and the method are not part of it: the cache's name is. */
  readonly key: OfCall<Self, K, MethodKey>
  /** Ends this caller's wait. The load goes on: others may wait for it. */
  readonly signal?: OfCall<Self, G, AbortSignal | undefined> | undefined
  /** Ends this caller's wait with DEADLINE_EXCEEDED. */
  readonly deadline?: Duration | undefined
}

/**
 * Keeps the method's results; the method runs only to load. For methods that give a promise, static and private ones too, in TC39 and in legacy
 * mode. Takes a `methodCache`, a function that gives one, or the options of one, when nobody has to invalidate it. One cache for each method.
 * The method then throws what it throws by itself, and KvError as `get` of a cache does.
 * @throws KvError INVALID_ARGUMENT on anything but a method; for options as `cache` does.
 * @example @Cached(users, { key: (id: string) => id })
 */
export function Cached<V, Self = unknown, K extends readonly unknown[] = [], G extends readonly unknown[] = []>(
  target: Lazy<Self, MethodCache<V>> | MethodCacheOptions<V>,
  options: CachedOptions<Self, K, G>,
): MethodDecorator<OfCall<never, K, unknown> | OfCall<never, G, unknown>, NoInfer<Self>, NoInfer<V>> {
  if (typeof (options as { key?: unknown } | undefined)?.key !== 'function')
    invalid('@Cached needs `key`: a function of what tells calls apart')
  if (target === null || (typeof target !== 'function' && typeof target !== 'object'))
    invalid('@Cached takes a methodCache, a function that gives one, or the options of one')
  const { key, signal, deadline } = options as CachedOptions<never, never, never>
  const lazy = (typeof target === 'function' || 'through' in target ? target : methodCache(target)) as Lazy<never, MethodCache<unknown>>
  return decorateMethod('@Cached', invalid, async (call) =>
    targetOf(lazy, call, invalid).through(optionOf(key, call), call.proceed, {
      signal: signal === undefined ? undefined : optionOf(signal, call),
      deadline,
    }),
  )
}
