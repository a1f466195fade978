/** 'hapax/cache-aside': one load for each key in all processes, and no stale value after an invalidation, over any store. */
export { cache } from './cache.ts'
export {
  Cached,
  currentLoad,
  methodCache,
  type CachedOptions,
  type MethodCache,
  type MethodCacheOptions,
  type MethodKey,
} from './decorator.ts'
export type { CacheEvent, CacheEventType } from './events.ts'
export type { CacheKey } from './key.ts'
export {
  notFound,
  unchanged,
  type Cache,
  type CacheManyOptions,
  type CacheOptions,
  type CacheSettings,
  type GetOptions,
  type Invalidation,
  type LoadContext,
  type LoadManyContext,
  type NotFound,
  type Timers,
  type Unchanged,
  type ValueOf,
} from './types.ts'
