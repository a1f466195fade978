/**
 * 'hapax/redis': the contract on a Redis that a team already runs, through the client that it already has.
 * Invariant: the decision of each verb is made inside Redis, in one script on one key, at the server's clock.
 * Why no import of a client: the user has one; it is known by its shape and never closed here.
 */
import { epochMs, type Duration } from '../base/types.ts'
import { invalid } from '../kv/errors.ts'
import type { Entry, KV } from '../kv/kv.ts'
import { checkDuration, resolveLimits, utf8Length, type Capabilities, type LimitsOption } from '../kv/limits.ts'
import { systemTicker, type QueueLimits, type Ticker } from './call-queue.ts'
import { Call, Calls, type Replication } from './redis-calls.ts'
import { topologyOf, type RedisClient } from './redis-client.ts'
import { answerOf, Gate, readScript, writeArguments, writeScript } from './redis-script.ts'
import { kvOver } from './verbs.ts'

export type { IoredisClusterShape, IoredisShape, NodeRedisClusterShape, NodeRedisShape, RedisClient } from './redis-client.ts'

export interface RedisOptions {
  /** Stands before each key. Programs that share a Redis need different ones. In a cluster, keys with the same `{...}` share a slot. Default: ''. */
  readonly prefix?: string | undefined
  /**
   * Acknowledge a write only once so many replicas have confirmed it within `timeout`; else it is UNKNOWN_OUTCOME.
   * While it waits, Redis serves nothing else on the connection: give the store a client of its own. Default: none.
   */
  readonly wait?: { readonly replicas: number; readonly timeout: Duration } | undefined
  /** What an acknowledged write survives on your Redis, as you have set it up; it only says so in `capabilities`. Default: 'process'. */
  readonly durability?: Capabilities['durability'] | undefined
  /** Default: 'wide'. */
  readonly limits?: LimitsOption | undefined
}

const durabilities: readonly Capabilities['durability'][] = ['memory', 'process', 'disk', 'replicated']

/** What may wait for Redis, some 1 KiB a call; and for how long, unless a call brings its own deadline. */
const queue: QueueLimits = { callsMax: 16_384, bytesMax: 67_108_864, deadlineMs: 10_000 }

/**
 * A store on Redis 6.2 or later, or Valkey: on a `Redis` or `Cluster` of ioredis, or a client of `createClient` or `createCluster` of redis.
 * `close` waits for what is under way and leaves the client open.
 * @throws KvError INVALID_ARGUMENT. Calls: MEMORY_FULL at maxmemory; RECORD_FOREIGN for bytes that are not ours; UNAVAILABLE where nothing
 * was applied; UNKNOWN_OUTCOME where the connection was lost, or too few replicas confirmed.
 * @example const kv = redisKv(new Redis(), { prefix: 'shop:', wait: { replicas: 1, timeout: '50ms' } })
 */
export const redisKv = (client: RedisClient, options: RedisOptions = {}): KV => redisKvWith(client, options, systemTicker, queue)

/** For tests, which bring their own time and bounds. */
export function redisKvWith(client: RedisClient, options: RedisOptions, ticker: Ticker, bounds: QueueLimits): KV {
  const { prefix = '', durability = 'process' } = options
  if (typeof prefix !== 'string' || utf8Length(prefix) < 0) invalid('prefix must be a string of valid Unicode')
  if (!durabilities.includes(durability)) invalid(`durability must be one of ${durabilities.join(', ')}, not ${JSON.stringify(durability)}`)
  const replication = replicationOf(options.wait)
  const calls = new Calls({ topology: topologyOf(client), replication, ticker, limits: bounds })

  return kvOver({
    capabilities: Object.freeze({
      store: 'redis',
      exactExpiry: true,
      serverClock: true,
      scan: false,
      requestIds: true,
      ttlGrainMs: 1,
      durability,
      sites: 'one',
      limits: resolveLimits(options.limits),
    }),
    async apply(key, operation, wait) {
      const gate = new Gate()
      const args = writeArguments(operation, gate, replication !== undefined)
      const bytes = operation.verb === 'destroy' ? 0 : operation.value.length
      const [reply] = await calls.run([new Call(prefix + key, writeScript, args, bytes, gate)], wait)
      return answerOf(reply, operation)
    },
    async read(keys, wait) {
      // No key of a caller is empty, so the prefix alone is nobody's key: with no key asked for, it gives the clock.
      const asked = keys.length === 0 ? [''] : keys
      const replies = await calls.run(
        asked.map((key) => new Call(prefix + key, readScript, [], 0)),
        wait,
      )
      const answers = replies.map((reply) => answerOf(reply, undefined))
      // Each key was read at a moment of its own. The last one is the answer's: what has died by then is not shown.
      const now = epochMs(Math.max(...answers.map((answer) => answer.now)))
      const entries = answers.map(({ outcome }): Entry | undefined => {
        const entry = outcome.type === 'applied' ? outcome.entry : undefined
        return entry?.expiresAt !== undefined && entry.expiresAt <= now ? undefined : entry
      })
      return { entries: entries.slice(0, keys.length), now }
    },
    close: () => calls.close(),
  })
}

function replicationOf(wait: RedisOptions['wait']): Replication | undefined {
  if (wait === undefined) return undefined
  if (typeof wait !== 'object' || wait === null || !Number.isSafeInteger(wait.replicas) || wait.replicas < 1)
    invalid('wait must be { replicas, timeout }, with at least one replica')
  return { replicas: wait.replicas, timeoutMs: checkDuration(wait.timeout, 'wait.timeout', 1) }
}
