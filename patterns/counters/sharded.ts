/**
 * A count on several records, for a key that more processes add to than one record can take.
 * Invariant: every add counts exactly once, in one shard; the sum is of no one instant, and its type says so (C7).
 * Why a process keeps to one shard: all its callers then join into one write, and as many processes as shards never meet.
 */
import { invalid, isKvError } from '../../core/kv/errors.ts'
import type { CallOptions, KV } from '../../core/kv/kv.ts'
import { epochMs } from '../../core/base/types.ts'
import { checkRequestId, Counts, memoryOf } from './counter.ts'
import { tell } from './events.ts'
import { numbers } from './numbers.ts'
import { shardOf, type CountRecord } from './rules.ts'
import type { AddOptions, Sharded, ShardedCount, ShardedOptions } from './types.ts'

const shardsMax = 256

/**
 * Makes a sharded counter. It has no bounds: what cannot be read exactly cannot be limited; use `counter` for that.
 * @throws KvError INVALID_ARGUMENT for an option; CAPABILITY_MISSING as `counter` does.
 * @example const likes = sharded({ kv, name: 'likes', shards: 16 })
 */
export function sharded(options: ShardedOptions): Sharded {
  return new ShardedCounter(options)
}

class ShardedCounter implements Sharded {
  readonly name: string
  readonly #shards: number
  readonly #counts: Counts
  /** Where adds without a request id of this process go. */
  #home: number

  constructor({ kv, name, shards, modify, random = Math.random, ...options }: ShardedOptions) {
    if (!Number.isSafeInteger(shards) || shards < 1 || shards > shardsMax) invalid(`shards must be a whole number from 1 to ${shardsMax}`)
    const { least, most } = numbers
    this.name = name
    this.#shards = shards
    this.#counts = new Counts(
      kv,
      name,
      'sharded',
      { ...memoryOf(options), start: 0n, min: undefined, max: undefined, least, most, ttlMs: 0, slides: false },
      modify,
    )
    this.#home = Math.floor(random() * shards)
  }

  async add(key: string, delta: number, options: AddOptions = {}): ReturnType<Sharded['add']> {
    const amount = numbers.in(delta, 'delta')
    if (amount === 0n) invalid('an add of 0 changes nothing: use get to read the count')
    const { requestId, signal, deadline } = options
    checkRequestId(requestId)
    // A repetition, also one of another process, must find the shard that remembers the request.
    const id = typeof requestId === 'object' ? requestId.session : requestId
    const shard = id === undefined ? this.#home : shardOf(id, this.#shards)
    try {
      const { type } = await this.#counts.change(keyOf(key, shard), amount, { requestId, signal, deadline })
      tell('sharded', this.name, key, type === 'repeated' ? 'repeated' : 'added')
      return { ok: true, exact: false, repeated: type === 'repeated' }
    } catch (error) {
      // Others write this shard more often than we get through: the next add goes to the one beside it.
      if (isKvError(error, 'CONTENTION') && shard === this.#home) this.#home = (shard + 1) % this.#shards
      throw error
    }
  }

  async get(key: string, options: CallOptions = {}): Promise<ShardedCount> {
    const { kv } = this.#counts
    const keys = Array.from({ length: this.#shards }, (_, shard) => keyOf(key, shard))
    let [sum, latest] = [0n, epochMs(0)]
    for (const some of groupsOf(keys, kv)) {
      const { entries, now } = await kv.getMany(some, options)
      for (const { value } of entries.values()) sum += value.value
      latest = now
    }
    return { value: numbers.out(sum), exact: false, now: latest }
  }
}

/** The last '#' ends the caller's key, so no two keys share a shard. */
const keyOf = (key: string, shard: number): string => {
  if (typeof key !== 'string' || key === '') invalid('a key must be a string of at least one character')
  return `${key}#${shard}`
}

function groupsOf(keys: readonly string[], { capabilities }: KV<CountRecord>): readonly (readonly string[])[] {
  const size = capabilities.limits.getManyMax
  return Array.from({ length: Math.ceil(keys.length / size) }, (_, at) => keys.slice(at * size, (at + 1) * size))
}
