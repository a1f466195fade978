/**
 * Libraries of rate limits, each behind one call: `take(key, cost)` gives 'allowed', 'denied', 'unknown' (it says that it does not know),
 * 'unseen' (allowed, and it says that nobody was asked) or 'threw'.
 * Invariant: every library is used as its documents say; where a better setting is documented it has a row of its own.
 * `promise` is what its own documents promise, and the measure of its answers: the algorithm (limit-promises.mjs), whether refused
 * requests count, and where windows begin. `can`: which scripts make sense with it at all.
 */
import { Ratelimit } from '@upstash/ratelimit'
import { MemoryStore } from 'express-rate-limit'
import { RateLimiter, TokenBucket } from 'limiter'
import { createHash } from 'node:crypto'
import { RedisStore } from 'rate-limit-redis'
import rlf from 'rate-limiter-flexible'
import { hapax } from './harness.mjs'

const { RateLimiterMemory, RateLimiterRedis, RateLimiterUnion, RLWrapperTimeouts } = rlf
const { memory } = await hapax('core/index.js')
const { rateLimit, gcra, fixedWindow, slidingWindow } = await hapax('patterns/ratelimit/index.js')
const { redisKv } = await hapax('core/stores/redis.js')

/** One store a client, as one has it in a program: what callers ask at the same time is joined by store and key. */
const storeOf = new WeakMap()
const kvOn = (client) => {
  if (!storeOf.has(client)) storeOf.set(client, redisKv(client))
  return storeOf.get(client)
}

/** `policies`: of one limiter, all to be kept at once. Names must differ: they are part of what is stored. */
const oursOn = (kvOf, algorithm, { policies, name, timeoutMs }) => {
  const limiter = rateLimit({
    kv: kvOf(),
    name,
    onUnknown: 'deny',
    deadline: timeoutMs,
    policies: Object.fromEntries(policies.map(({ limit, perMs }) => [`per${perMs}`, algorithm({ limit, per: perMs })])),
  })
  const told = ({ outcome, reason }) => (outcome === 'allowed' && reason !== undefined ? 'unseen' : outcome)
  return {
    take: async (key, cost = 1) => {
      try {
        return told(await limiter.consume(key, { cost }))
      } catch {
        return 'threw'
      }
    },
    charge: async (key, cost) => {
      const decision = await limiter.consume(key, { cost })
      return { outcome: told(decision), refund: () => limiter.refund(decision.receipt, cost) }
    },
  }
}

const ours = (algorithm, label, promise) => ({
  name: `hapax, ${label}`,
  promise: { refusedCount: false, ...promise },
  says: 'a refusal takes nothing; a receipt is worth nothing beyond its window; no answer of the store is `unknown`',
  can: ['cost', 'refund', 'policies', 'shared'],
  algorithm,
})
const ourAlgorithms = [
  ours(gcra, 'gcra', { kind: 'gcra' }),
  ours(slidingWindow, 'sliding window', { kind: 'slidingFirst' }),
  ours(fixedWindow, 'fixed window', { kind: 'first' }),
]

/** A limiter rejects with its result, a union with the results of its limiters; an Error is a fault. */
const outcomeOf = (error) => (error instanceof Error ? 'threw' : 'denied')
const flexible = (limiter, single) => ({
  take: async (key, cost = 1) => {
    try {
      await limiter.consume(key, cost)
      return 'allowed'
    } catch (error) {
      return outcomeOf(error)
    }
  },
  charge: async (key, cost) => {
    await limiter.consume(key, cost)
    return { outcome: 'allowed', refund: () => single.reward(key, cost) }
  },
})
/** Seconds, and any number may be given. */
const flexiblePolicies = ({ policies, name }, make) => {
  const limiters = policies.map(({ limit, perMs }) => make({ points: limit, duration: perMs / 1_000, keyPrefix: `${name}-${perMs}` }))
  return limiters.length === 1 ? flexible(limiters[0], limiters[0]) : flexible(new RateLimiterUnion(...limiters), limiters[0])
}
const flexibleLibrary = {
  promise: { kind: 'first', refusedCount: true },
  says: 'points a duration that begins with the first request; actions over the points are rejected, but the counter keeps growing; a union acts as a single limiter',
}

/** The middleware's own rule, without Express around it: `totalHits > limit` is refused. One request is one hit. */
const hits = (stores) => ({
  take: async (key) => {
    try {
      for (const { store, limit } of stores) {
        const { totalHits } = await store.increment(key)
        if (totalHits > limit) return 'denied'
      }
      return 'allowed'
    } catch {
      return 'threw'
    }
  },
  /** As `skipFailedRequests` does when the response has ended. */
  charge: async (key, cost) => {
    let outcome = 'allowed'
    for (let hit = 0; hit < cost; hit += 1) {
      for (const { store, limit } of stores) if ((await store.increment(key)).totalHits > limit) outcome = 'denied'
    }
    return {
      outcome,
      refund: async () => {
        for (let hit = 0; hit < cost; hit += 1) for (const { store } of stores) await store.decrement(key)
      },
    }
  },
  close: () => stores.forEach(({ store }) => store.shutdown?.()),
})
const expressLibrary = {
  promise: { kind: 'first', refusedCount: true },
  says: 'so many requests a window that begins with the first hit; all hits are counted; several limiters are asked one after the other',
  can: ['refund', 'policies', 'shared'],
}

/** A store in memory is of one process. */
const alone = ({ can }) => can.filter((what) => what !== 'shared')

export const inMemory = [
  ...ourAlgorithms.map((one) => ({
    ...one,
    can: alone(one),
    isTimed: one.algorithm !== slidingWindow,
    open: (given) => oursOn(() => memory({ maxBytes: 2 ** 31 }), one.algorithm, given),
  })),
  {
    ...flexibleLibrary,
    name: 'rate-limiter-flexible',
    can: ['cost', 'refund', 'policies'],
    isTimed: true,
    open: (given) => flexiblePolicies(given, (options) => new RateLimiterMemory(options)),
  },
  {
    ...expressLibrary,
    name: 'express-rate-limit, its store',
    can: alone(expressLibrary),
    isTimed: true,
    open: ({ policies }) =>
      hits(
        policies.map(({ limit, perMs }) => {
          const store = new MemoryStore()
          store.init({ windowMs: perMs })
          return { store, limit }
        }),
      ),
  },
  {
    name: 'limiter',
    promise: { kind: 'both', refusedCount: false },
    says: 'a bucket and an interval from its construction, which is no rolling window; one limiter for each key in a Map; parent and child buckets for two policies',
    can: ['cost', 'policies'],
    isTimed: true,
    open({ policies }) {
      const limiters = new Map()
      const make = () => {
        if (policies.length === 1) return new RateLimiter({ tokensPerInterval: policies[0].limit, interval: policies[0].perMs })
        /** A bucket begins empty; RateLimiter fills its own in this way. */
        return [...policies]
          .sort((left, right) => right.perMs - left.perMs)
          .reduce((parentBucket, { limit, perMs }) => {
            const bucket = new TokenBucket({ bucketSize: limit, tokensPerInterval: limit, interval: perMs, parentBucket })
            bucket.content = limit
            return bucket
          }, undefined)
      }
      return {
        take: async (key, cost = 1) => {
          let limiter = limiters.get(key)
          if (limiter === undefined) limiters.set(key, (limiter = make()))
          return limiter.tryRemoveTokens(cost) ? 'allowed' : 'denied'
        },
      }
    },
  },
]

const shebang = /^#!lua[^\n]*\n/

/**
 * As much of @upstash/redis as the limiter calls, onto ioredis. Upstash's server knows a flag that Redis does not, so that first line is
 * taken off, and what the library names by its hash is called by the hash of the rest: one round trip a call, as there.
 */
function upstashClient(client) {
  const shaOf = new Map()
  const sha1 = (text) => createHash('sha1').update(text).digest('hex')
  return {
    evalsha(sha, keys, args) {
      const own = shaOf.get(sha)
      if (own === undefined) return Promise.reject(new Error('NOSCRIPT'))
      return client.evalsha(own, keys.length, ...keys, ...args)
    },
    eval(script, keys, args) {
      const plain = script.replace(shebang, '')
      return client.eval(plain, keys.length, ...keys, ...args).then((result) => {
        shaOf.set(sha1(script), sha1(plain))
        return result
      })
    },
    get: (key) => client.get(key),
    set: (key, value) => client.set(key, value),
  }
}

const upstash = (label, promise, limiterOf, isTimed) => ({
  name: `@upstash/ratelimit, ${label}`,
  promise: { refusedCount: false, ...promise },
  says: 'when its time-out passes, the request is let through and `reason` is "timeout"; a negative rate gives back; several limiters are asked one after the other',
  can: ['cost', 'refund', 'policies', 'shared'],
  isTimed,
  open({ client, policies, name, timeoutMs }) {
    const redis = upstashClient(client)
    const limiters = policies.map(
      ({ limit, perMs }) =>
        new Ratelimit({ redis, limiter: limiterOf(limit, perMs), prefix: `${name}-${perMs}`, timeout: timeoutMs, enableTelemetry: false }),
    )
    const take = async (key, cost) => {
      try {
        for (const limiter of limiters) {
          const { success, reason, pending } = await limiter.limit(key, cost === undefined ? undefined : { rate: cost })
          /** Work that the cached window leaves for later; its documents hand it to the platform's waitUntil. */
          pending.catch(() => {})
          if (!success) return 'denied'
          if (reason === 'timeout') return 'unseen'
        }
        return 'allowed'
      } catch {
        return 'threw'
      }
    }
    return {
      take,
      charge: async (key, cost) => ({ outcome: await take(key, cost), refund: () => take(key, -cost) }),
    }
  },
})

const flexibleRedis = (label, more, wrap = (limiter) => limiter) => ({
  ...flexibleLibrary,
  name: `rate-limiter-flexible${label}`,
  can: ['cost', 'refund', 'policies', 'shared'],
  open: (given) =>
    flexiblePolicies(given, (options) => wrap(new RateLimiterRedis({ storeClient: given.client, ...options, ...more(options) }), given)),
})

export const onRedis = [
  ...ourAlgorithms.map((one) => ({
    ...one,
    isTimed: one.algorithm === gcra,
    open: (given) => oursOn(() => kvOn(given.client), one.algorithm, given),
  })),
  { ...flexibleRedis('', () => ({})), isTimed: true },
  { ...flexibleRedis(', memory block', ({ points }) => ({ inMemoryBlockOnConsumed: points })), isTimed: false, isTimedRefusing: true },
  {
    ...flexibleRedis(
      ', time-outs and insurance',
      (options) => ({ insuranceLimiter: new RateLimiterMemory(options) }),
      (limiter, { timeoutMs }) => new RLWrapperTimeouts({ limiter, timeoutMs }),
    ),
    says: `${flexibleLibrary.says}; when the store fails or is late, a limiter of the process counts anew`,
    isTimed: false,
  },
  {
    ...expressLibrary,
    name: 'rate-limit-redis',
    isTimed: true,
    async open({ client, policies, name }) {
      const stores = policies.map(({ limit, perMs }) => {
        const store = new RedisStore({ sendCommand: (command, ...args) => client.call(command, ...args), prefix: `${name}-${perMs}:` })
        return { store, limit, ready: store.init({ windowMs: perMs }) }
      })
      await Promise.all(stores.map(({ ready }) => ready))
      return hits(stores)
    },
  },
  upstash('sliding window', { kind: 'sliding' }, (limit, perMs) => Ratelimit.slidingWindow(limit, `${perMs} ms`), true),
  upstash('fixed window', { kind: 'aligned' }, (limit, perMs) => Ratelimit.fixedWindow(limit, `${perMs} ms`), false),
  /** Experimental by its own account: it decides by a count in the process and brings the store up to date later. */
  upstash('cached fixed window', { kind: 'aligned' }, (limit, perMs) => Ratelimit.cachedFixedWindow(limit, `${perMs} ms`), true),
  upstash('token bucket', { kind: 'gcra', slack: 1 }, (limit, perMs) => Ratelimit.tokenBucket(1, `${perMs / limit} ms`, limit), false),
]
