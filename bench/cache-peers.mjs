/**
 * Caches, each behind two calls: `get(key)`, which loads what is not there, and `invalidate(key)`.
 * Invariant: every library is used as its documents say; where a better setting is documented it has a row of its own, and speed and answers
 * come from the same use. Why a Keyv adapter and a cachified cache of our own: both libraries document these interfaces, and the adapters that
 * they name for Redis do the same calls through another client, which would then be measured too.
 *
 * `memory(load, { delay })` is one process alone; ours has a store under it, whose answers and effects wait for `delay()` when that is given.
 * `shared(load, { port })` is one process with the second level that the library documents, on the Redis at
 * that port, and its message bus where it has one; it is absent where a library has no second level.
 */
import { cachified, totalTtl } from '@epic-web/cachified'
import { createCache as createDedupe } from 'async-cache-dedupe'
import { BentoCache, bentostore } from 'bentocache'
import { memoryDriver } from 'bentocache/drivers/memory'
import { redisBusDriver, redisDriver } from 'bentocache/drivers/redis'
import { createCache as createManager } from 'cache-manager'
import { Cacheable, createKeyv, Keyv } from 'cacheable'
import { Redis } from 'ioredis'
import { LRUCache } from 'lru-cache'
import { hapax } from './harness.mjs'

const ttlMs = 300_000
/** Items in memory: five times as many as the benchmark reads, so nobody evicts. */
const max = 5_000
const connect = (port) => new Redis({ host: '127.0.0.1', port })

/** Keyv's storage adapter interface over ioredis: strings, a time to live in milliseconds. */
class KeyvIoredis {
  opts = { dialect: 'redis' }
  #client
  constructor(client) {
    this.#client = client
  }
  on() {
    return this
  }
  async get(key) {
    return (await this.#client.get(key)) ?? undefined
  }
  set(key, value, ttl) {
    return ttl === undefined ? this.#client.set(key, value) : this.#client.set(key, value, 'PX', Math.ceil(ttl))
  }
  async delete(key) {
    return (await this.#client.del(key)) > 0
  }
  async clear() {
    await this.#client.flushdb()
  }
}

const { memory } = await hapax('core/index.js')
const { cache: hapaxCache } = await hapax('patterns/cache-aside/index.js')
const { redisKv } = await hapax('core/stores/redis.js')

/** Each verb of the store begins and ends late. */
function delayed(kv, delay) {
  const late = Object.create(kv)
  for (const verb of ['create', 'get', 'getMany', 'update', 'set', 'destroy']) {
    late[verb] = async (...args) => {
      await delay()
      const answer = await kv[verb](...args)
      await delay()
      return answer
    }
  }
  return late
}

const ours = ({ name, isPeeked = false, ...settings }) => {
  const calls = (kv, load, close = () => {}) => {
    const one = hapaxCache({ kv, name: 'one', ttl: ttlMs, load: (key) => load(key), ...settings })
    return {
      get: isPeeked ? (key) => one.peek(key) ?? one.get(key) : (key) => one.get(key),
      async invalidate(key) {
        const { done, cause } = await one.invalidate(key)
        if (!done) throw new Error('the store did not take an invalidation', { cause })
      },
      async close() {
        await one.settled()
        close()
      },
    }
  }
  return {
    name,
    secondLevel: 'redisKv',
    memory(load, { delay }) {
      const kv = memory({ maxBytes: 2 ** 31 })
      return calls(delay === undefined ? kv : delayed(kv, delay), load)
    },
    shared(load, { port }) {
      const client = connect(port)
      return calls(redisKv(client), load, () => client.disconnect())
    },
  }
}

const lru = ({ name, ...options }) => ({
  name,
  memory(load) {
    const cache = new LRUCache({ max, ttl: ttlMs, fetchMethod: (key) => load(key), ...options })
    return { get: (key) => cache.fetch(key), invalidate: (key) => cache.delete(key) }
  },
})

const bento = ({ name, isSerialized }) => {
  const drivers = () => memoryDriver({ maxItems: max, serialize: isSerialized })
  const calls = (store, load) => {
    const cache = new BentoCache({ default: 'one', ttl: ttlMs, stores: { one: store } })
    return {
      get: (key) => cache.getOrSet({ key, factory: () => load(key) }),
      invalidate: (key) => cache.delete({ key }),
      close: () => cache.disconnect(),
    }
  }
  return {
    name,
    secondLevel: 'redisDriver, redisBusDriver',
    memory: (load) => calls(bentostore().useL1Layer(drivers()), load),
    shared(load, { port }) {
      const connection = { host: '127.0.0.1', port }
      const store = bentostore().useL1Layer(drivers()).useL2Layer(redisDriver({ connection })).useBus(redisBusDriver({ connection }))
      return calls(store, load)
    },
  }
}

/** Its bus wants a message provider of other packages; without one a process keeps what it has until the time is over. */
const cacheable = ({ name, ...options }) => {
  const calls = (cache, load, close) => ({
    get: (key) => cache.getOrSet(key, () => load(key)),
    invalidate: (key) => cache.delete(key),
    ...(close === undefined ? {} : { close }),
  })
  return {
    name,
    secondLevel: 'secondary Keyv',
    memory: (load) => calls(new Cacheable({ ttl: ttlMs, ...options.memory?.() }), load),
    shared(load, { port }) {
      const client = connect(port)
      const secondary = new Keyv({ store: new KeyvIoredis(client) })
      return calls(new Cacheable({ secondary, ttl: ttlMs, ...options.memory?.() }), load, () => client.disconnect())
    },
  }
}

const manager = ({ name, first }) => {
  const calls = (stores, load, close) => {
    const cache = createManager({ ttl: ttlMs, stores })
    return {
      get: (key) => cache.wrap(key, () => load(key)),
      invalidate: (key) => cache.del(key),
      ...(close === undefined ? {} : { close }),
    }
  }
  return {
    name,
    secondLevel: 'second Keyv',
    memory: (load) => calls([first()], load),
    shared(load, { port }) {
      const client = connect(port)
      return calls([first(), new Keyv({ store: new KeyvIoredis(client) })], load, () => client.disconnect())
    },
  }
}

const plainKeyv = () => {
  const keyv = new Keyv()
  keyv.serialize = undefined
  keyv.deserialize = undefined
  return keyv
}

/** Its storage is either memory or Redis, and the second is the documented way for many processes. Times are whole seconds. */
const dedupe = {
  name: 'async-cache-dedupe',
  secondLevel: 'storage redis',
  memory: (load) => dedupeCalls({ type: 'memory', options: { size: max } }, load),
  shared(load, { port }) {
    const client = connect(port)
    return dedupeCalls({ type: 'redis', options: { client } }, load, () => client.disconnect())
  },
}
function dedupeCalls(storage, load, close) {
  const cache = createDedupe({ ttl: ttlMs / 1_000, storage })
  cache.define('one', (key) => load(key))
  return {
    get: (key) => cache.one(key),
    invalidate: (key) => cache.clear('one', key),
    ...(close === undefined ? {} : { close }),
  }
}

const cachifiedCalls = (cache, load, close) => ({
  get: (key) => cachified({ key, cache, ttl: ttlMs, getFreshValue: () => load(key) }),
  invalidate: (key) => cache.delete(key),
  ...(close === undefined ? {} : { close }),
})
const cachifiedPeer = {
  name: 'cachified',
  secondLevel: 'cache over Redis',
  memory(load) {
    const items = new LRUCache({ max })
    const cache = {
      set(key, value) {
        const ttl = totalTtl(value?.metadata)
        return items.set(key, value, { ttl: ttl === Infinity ? undefined : ttl, start: value?.metadata?.createdTime })
      },
      get: (key) => items.get(key),
      delete: (key) => items.delete(key),
    }
    return cachifiedCalls(cache, load)
  },
  shared(load, { port }) {
    const client = connect(port)
    const cache = {
      async get(key) {
        const text = await client.get(key)
        return text === null ? null : JSON.parse(text)
      },
      set: (key, value) => client.set(key, JSON.stringify(value), 'PX', totalTtl(value.metadata)),
      delete: (key) => client.del(key),
    }
    return cachifiedCalls(cache, load, () => client.disconnect())
  },
}

/** `isMain`: takes part in everything; `isInTwo`: also in two processes; other settings of a library only where one process is enough. */
export const peers = [
  { ...ours({ name: 'hapax' }), isMain: true },
  { ...ours({ name: 'hapax, fresh: 0', fresh: 0 }), isMain: false, isInTwo: true },
  { ...ours({ name: "hapax, share: 'cloned'", share: 'cloned' }), isMain: false },
  { ...ours({ name: 'hapax, peek', isPeeked: true }), isMain: false },
  { ...lru({ name: 'lru-cache fetch' }), isMain: true },
  { ...lru({ name: 'lru-cache fetch, ignoreFetchAbort', ignoreFetchAbort: true }), isMain: false },
  { ...bento({ name: 'bentocache', isSerialized: true }), isMain: true },
  { ...bento({ name: 'bentocache, serialize: false', isSerialized: false }), isMain: false },
  { ...cacheable({ name: 'cacheable' }), isMain: true },
  {
    ...cacheable({ name: 'cacheable, useClone: false', memory: () => ({ primary: createKeyv({ useClone: false, lruSize: max }) }) }),
    isMain: false,
  },
  { ...manager({ name: 'cache-manager', first: () => new Keyv() }), isMain: true },
  { ...manager({ name: 'cache-manager, no serialization', first: plainKeyv }), isMain: false },
  { ...manager({ name: 'cache-manager, CacheableMemory', first: () => createKeyv({ lruSize: max }) }), isMain: false },
  { ...dedupe, isMain: true },
  { ...cachifiedPeer, isMain: true },
]
