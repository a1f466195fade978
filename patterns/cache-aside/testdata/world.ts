/**
 * What the tests of the cache share: a store on a test clock, a source that can be changed, and processes that read through caches of their own.
 * Invariant: nothing here waits for the machine: time is the test clock's, chance comes from a seed.
 * Why the source counts its loads: one load is what a cache is for.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { KV } from '../../../core/kv/kv.ts'
import { memory } from '../../../core/stores/memory.ts'
import { testClock, type TestClock } from '../../../core/testing/index.ts'
import { cache } from '../cache.ts'
import type { CacheEvent } from '../events.ts'
import type { Cache, CacheOptions, LoadContext } from '../types.ts'

/** The application's database, with one row for each key. */
export class Source {
  readonly rows = new Map<string, string>()
  loads = 0
  running = 0
  /** The most that ever ran at once. */
  peak = 0
  readonly #clock: TestClock
  delayMs = 0
  fails = false

  constructor(clock: TestClock) {
    this.#clock = clock
  }

  /** Reads at once and answers later, as a query does whose snapshot is taken when it begins. */
  readonly load = async (key: string, _context?: LoadContext): Promise<string> => {
    this.loads++
    this.running++
    this.peak = Math.max(this.peak, this.running)
    try {
      const row = this.rows.get(key) ?? `no ${key}`
      const { fails } = this
      if (this.delayMs > 0) await this.#clock.sleep(this.delayMs)
      if (fails) throw new Error('the database is away')
      return row
    } finally {
      this.running--
    }
  }
}

type Options = Partial<Omit<CacheOptions<string, string>, 'kv'>>

export interface World {
  readonly clock: TestClock
  readonly store: KV
  readonly source: Source
  /** A process of its own: only the store is shared. */
  process(options?: Options, kv?: KV): Cache<string, string>
}

export function world(kv?: (clock: TestClock) => KV): World {
  const clock = testClock()
  const store = kv?.(clock) ?? memory({ clock })
  const source = new Source(clock)
  const process = (options: Options = {}, own: KV = store): Cache<string, string> =>
    cache({ kv: own, name: 'user', ttl: '1m', fresh: 0, jitter: 0, timers: clock, random: () => 0.5, load: source.load, ...options })
  return { clock, store, source, process }
}

/** The events while `work` runs. */
export async function eventsOf(work: () => Promise<unknown>): Promise<CacheEvent[]> {
  const seen: CacheEvent[] = []
  const listen = (event: unknown): number => seen.push(event as CacheEvent)
  subscribe('hapax:cache-aside', listen)
  try {
    await work()
  } finally {
    unsubscribe('hapax:cache-aside', listen)
  }
  return seen
}
