/**
 * The cache as an application sees it, and the way of a hit in memory: one look into a Map, one at the clock, an answer that is there already.
 * Invariant: `mutate` invalidates after the commit, and whatever the commit did; a caller's signal or deadline ends that caller's wait alone (K14).
 * Why `get` is no async function: a hit then makes no promise and waits for no turn.
 */
import { invalid, KvError } from '../../core/kv/errors.ts'
import { checkDuration } from '../../core/kv/limits.ts'
import { Engine } from './engine.ts'
import { tell } from './events.ts'
import { generationsKeyOf } from './identity.ts'
import type { Target } from './invalidations.ts'
import { slotOf, type CacheKey, type Slot } from './key.ts'
import { checkTag, type Loads } from './loader.ts'
import { settingsOf, timerOf, type Settings } from './settings.ts'
import type { Cache, CacheManyOptions, CacheOptions, CacheSettings, GetOptions, Invalidation, ValueOf } from './types.ts'

/**
 * Makes a cache over a store. The store stays the caller's.
 * @throws KvError INVALID_ARGUMENT for an option; CAPABILITY_MISSING when the store lacks one clock, one home for each key, or ttls so long.
 * @example const users = cache({ kv, name: 'user', ttl: '5m', stale: '1h', load: (id: string, { signal }) => db.user(id, { signal }) })
 */
export function cache<K extends CacheKey, R>(options: CacheOptions<K, R>): Cache<K, ValueOf<R>>
export function cache<K extends CacheKey, R>(options: CacheManyOptions<K, R>): Cache<K, ValueOf<R>>
export function cache<K extends CacheKey, V>(options: CacheSettings & Loads<K>): Cache<K, V> {
  const { load, loadMany } = options
  if ((typeof load === 'function') === (typeof loadMany === 'function')) invalid('a cache takes either load or loadMany, a function')
  return new CacheAside<K, V>(settingsOf(options), { load, loadMany })
}

/** A list is perhaps one key and perhaps several: to take it for both invalidates too much at worst, and never too little. */
function slotsOf(key: CacheKey | readonly CacheKey[]): Slot[] {
  if (!Array.isArray(key)) return [slotOf(key)]
  const slots = [key, ...(key as readonly CacheKey[])].map((one) => {
    try {
      return slotOf(one)
    } catch (error) {
      return error as KvError
    }
  })
  const [whole, ...each] = slots.map((slot) => (slot instanceof KvError ? undefined : slot))
  const wrong = slots.find((slot) => slot instanceof KvError)
  if (wrong !== undefined && whole === undefined && each.includes(undefined)) throw wrong
  return [whole, ...each].filter((slot) => slot !== undefined)
}

class CacheAside<K extends CacheKey, V> implements Cache<K, V> {
  readonly name: string
  readonly #settings: Settings
  readonly #engine: Engine<K, V>
  readonly #first: Engine<K, V>['first']
  readonly #elapsed: () => number

  constructor(settings: Settings, loads: Loads<K>) {
    this.name = settings.name
    this.#settings = settings
    this.#engine = new Engine<K, V>(settings, loads)
    this.#first = this.#engine.first
    this.#elapsed = settings.elapsed
  }

  get(key: K, options?: GetOptions): Promise<V> {
    // Strings and numbers are their own slots; the others take the longer way.
    const isSlot = typeof key === 'string' ? key.charCodeAt(0) !== 0 : typeof key === 'number'
    const memo = isSlot ? this.#first.memos.get(key as Slot) : undefined
    if (memo !== undefined && memo.answer !== undefined && memo.until > this.#elapsed() && memo.round === this.#first.round) {
      memo.used = true
      return memo.answer
    }
    return this.#get(key, options)
  }

  getMany(keys: readonly K[], options?: GetOptions): Promise<V[]> {
    return Promise.all(keys.map((key) => this.get(key, options)))
  }

  peek(key: K): V | undefined {
    const memo = this.#memoOf(key)
    return memo === undefined || memo.isError ? undefined : this.#shared(memo.value)
  }

  async invalidate(key: K): Promise<Invalidation> {
    return await this.#engine.invalidations.strike({ slot: slotOf(key) })
  }

  async invalidateTag(tag: string): Promise<Invalidation> {
    return await this.#engine.invalidations.strike({ tag: checkTag(tag) })
  }

  async clear(): Promise<Invalidation> {
    return await this.#engine.invalidations.strike('all')
  }

  async mutate<T>(key: K | readonly K[], commit: () => T | Promise<T>): Promise<T> {
    // Before the commit: a key that is none must not be found out after it.
    const targets = slotsOf(key).map((slot): Target => ({ slot }))
    try {
      return await commit()
    } finally {
      await Promise.all(targets.map((target) => this.#strike(target)))
    }
  }

  get pendingInvalidations(): number {
    return this.#engine.invalidations.pending
  }

  settled(): Promise<void> {
    return this.#engine.settled()
  }

  async #strike(target: Target): Promise<void> {
    const { invalidations } = this.#engine
    try {
      await invalidations.strike(target)
    } catch (cause) {
      tell(this.name, generationsKeyOf(this.name), { type: 'store-error', cause })
    }
    const late = invalidations.again(target)
    if (this.#settings.isInline) await late
  }

  async #get(key: K, { signal, deadline }: GetOptions = {}): Promise<V> {
    const memo = this.#memoOf(key)
    if (memo !== undefined) {
      memo.used = true
      return memo.answer === undefined ? this.#shared(memo.value) : await memo.answer
    }
    if (signal?.aborted) throw new KvError('ABORTED', { cause: signal.reason })
    const deadlineMs = deadline === undefined ? undefined : checkDuration(deadline, 'a deadline', 1)
    const answer = this.#engine.arrive(slotOf(key), key)
    return this.#shared(await (signal === undefined && deadlineMs === undefined ? answer : this.#attend(answer, signal, deadlineMs)))
  }

  /** Of a key that memory may serve now. */
  #memoOf(key: K) {
    const memo = this.#first.memos.get(slotOf(key))
    return memo !== undefined && memo.until > this.#elapsed() && memo.round === this.#first.round ? memo : undefined
  }

  #shared(value: V): V {
    return this.#settings.share === 'cloned' ? structuredClone(value) : value
  }

  /** One caller's wait; the answer goes on without it. */
  #attend(answer: Promise<V>, signal: AbortSignal | undefined, deadlineMs: number | undefined): Promise<V> {
    return new Promise<V>((resolve, reject) => {
      const onAbort = (): void => end(() => reject(new KvError('ABORTED', { cause: signal?.reason })))
      const tooLate = (): void => end(() => reject(new KvError('DEADLINE_EXCEEDED')))
      const timer = deadlineMs === undefined ? undefined : timerOf(this.#settings, tooLate, deadlineMs, false)
      const end = (how: () => void): void => {
        signal?.removeEventListener('abort', onAbort)
        this.#settings.timers.clearTimeout(timer as never)
        how()
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      answer.then(
        (value) => end(() => resolve(value)),
        (error: unknown) => end(() => reject(error)),
      )
    })
  }
}
