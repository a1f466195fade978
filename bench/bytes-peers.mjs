/**
 * Limiters and counters that hold one key for each client, for the question how many bytes that takes, living and expired.
 * Invariant: each key lives `ttlMs` from its only request: a limit of 1 makes the time of all algorithms the same.
 */
import { hapax } from './harness.mjs'
import { inMemory, onRedis } from './limit-peers.mjs'

const { memory } = await hapax('core/index.js')
const { counter } = await hapax('patterns/counters/index.js')
const { redisKv } = await hapax('core/stores/redis.js')

const limiting = (peer) => ({
  name: peer.name,
  open: (ttlMs, client) => peer.open({ client, policies: [{ limit: 1, perMs: ttlMs }], name: 'bytes', timeoutMs: 60_000 }),
})
const counting = (kvOf) => ({
  name: 'hapax, counter',
  open: (ttlMs, client) => {
    const hits = counter({ kv: kvOf(client), name: 'bytes', ttl: ttlMs })
    return { take: (key) => hits.add(key, 1) }
  },
})

export const bytesInMemory = [...inMemory.filter(({ isTimed }) => isTimed).map(limiting), counting(() => memory({ maxBytes: 2 ** 31 }))]
export const bytesOnRedis = [
  ...onRedis.filter(({ isTimed }) => isTimed).map(limiting),
  counting(redisKv),
  {
    name: 'INCR and PEXPIRE',
    open: (ttlMs, client) => ({ take: (key) => Promise.all([client.incr(key), client.pexpire(key, ttlMs, 'NX')]) }),
  },
]
