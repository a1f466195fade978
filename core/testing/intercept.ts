/**
 * A store with something of the test's own around each call; and the simplest use of it, counting.
 * Invariant: a call reaches the store with the very arguments that it was made with, and only when the test runs it.
 * Why one place: whatever wraps a store for a test then treats all six calls alike and forgets none.
 */
import type { CallOptions, KV } from '../kv/kv.ts'

export type StoreVerb = 'create' | 'get' | 'getMany' | 'update' | 'set' | 'destroy'

/** One call of a store as a test sees it. Numbers count from 1. */
export interface StoreCall {
  readonly verb: StoreVerb
  /** The key; of `getMany` the first, or '' when it was asked for none. */
  readonly key: string
  readonly keys: readonly string[]
  /** The value that is written; undefined for reads and destroy. */
  readonly value: unknown
  readonly options: CallOptions
  /** Which call of this verb. */
  readonly nth: number
  /** Which call of all. */
  readonly index: number
}

/** `create`, `update`, `set` and `destroy` change something; the outcome of `get` and `getMany` is never unknown. */
export const isWrite = (verb: StoreVerb): boolean => verb !== 'get' && verb !== 'getMany'

/** Does what it likes before and after `run()`, which makes the call on the store; may also not run it, or run it later. */
export type Interceptor = <Result>(call: StoreCall, run: () => Promise<Result>) => Promise<Result>

/**
 * Wraps a store. `close` is passed on unseen.
 * @example const slow = intercept(kv, async (call, run) => { await clock.sleep(5); return await run() })
 */
export function intercept<V>(kv: KV<V>, interceptor: Interceptor): KV<V> {
  const seen: Record<StoreVerb, number> = { create: 0, get: 0, getMany: 0, update: 0, set: 0, destroy: 0 }
  let index = 0
  const call = <Result>(
    verb: StoreVerb,
    keys: readonly string[],
    value: unknown,
    options: CallOptions | undefined,
    run: () => Promise<Result>,
  ): Promise<Result> =>
    interceptor({ verb, key: keys[0] ?? '', keys, value, options: options ?? {}, nth: ++seen[verb], index: ++index }, run)
  return {
    capabilities: kv.capabilities,
    create: (key, value, options) => call('create', [key], value, options, () => kv.create(key, value, options)),
    get: (key, options) => call('get', [key], undefined, options, () => kv.get(key, options)),
    getMany: (keys, options) => call('getMany', keys, undefined, options, () => kv.getMany(keys, options)),
    update: (key, value, options) => call('update', [key], value, options, () => kv.update(key, value, options)),
    set: (key, value, options) => call('set', [key], value, options, () => kv.set(key, value, options)),
    destroy: (key, options) => call('destroy', [key], undefined, options, () => kv.destroy(key, options)),
    close: () => kv.close(),
    [Symbol.asyncDispose]: () => kv.close(),
  }
}

export type CallCounts = Readonly<Record<StoreVerb | 'total', number>>

export interface CountingKV<V = Uint8Array> extends KV<V> {
  /** Calls made so far, those that failed included. A copy: it does not move with later calls. */
  counts(): CallCounts
  /** Begins again at zero. */
  reset(): void
}

/** Counts store calls, which are what a pattern costs. @example const kv = counting(memory()); ...; kv.counts().total */
export function counting<V>(kv: KV<V>): CountingKV<V> {
  const zero = { create: 0, get: 0, getMany: 0, update: 0, set: 0, destroy: 0, total: 0 }
  let counts = { ...zero }
  const counted = intercept(kv, (call, run) => {
    counts[call.verb] += 1
    counts.total += 1
    return run()
  })
  return Object.assign(counted, {
    counts: () => ({ ...counts }),
    reset: () => {
      counts = { ...zero }
    },
  })
}
