/**
 * Runs the application's loader: a bounded number at once, each with a deadline and a signal of its own, outside any caller's context.
 * Invariant: a load ends with its hard deadline, whether the loader listens to its signal or not; no caller can end it (K14).
 * Why outside the caller's context: a loader that read who asks from an AsyncLocalStorage would give one principal's value to all (K15).
 */
import { AsyncResource } from 'node:async_hooks'
import { invalid, KvError } from '../../core/kv/errors.ts'
import type { Duration } from '../../core/base/types.ts'
import { checkDuration } from '../../core/kv/limits.ts'
import type { CacheKey } from './key.ts'
import { timerOf, type Settings } from './settings.ts'
import type { LoadContext, LoadManyContext } from './types.ts'

export interface Loads<K> {
  readonly load?: ((key: K, context: LoadContext) => unknown) | undefined
  readonly loadMany?: ((keys: readonly K[], context: LoadManyContext) => Promise<readonly unknown[]>) | undefined
}

export interface Loaded {
  readonly result: unknown
  readonly deltaMs: number
  readonly tags: readonly string[]
  /** As the loader said; undefined: it did not. */
  readonly ttlMs: number | undefined
}

/** Loads that wait for their turn; beyond: BUSY. At 1 ms a load and 64 at once they wait a sixth of a second. */
const waitingMax = 10_000
export const tagsMax = 32
const tagLengthMax = 256

/** Of this module and not of a cache: a cache may be made within a request, by whoever needs it first. */
const scope = new AsyncResource('hapax.cache-aside')

interface Wanted<K> {
  readonly key: K
  readonly context: Context
  readonly resolve: (result: unknown) => void
  readonly reject: (error: unknown) => void
}

export class Loader<K extends CacheKey> {
  readonly #settings: Settings
  readonly #loads: Loads<K>
  readonly #waiting = new Set<() => void>()
  #running = 0
  #wanted: Wanted<K>[] = []

  constructor(settings: Settings, loads: Loads<K>) {
    this.#settings = settings
    this.#loads = loads
  }

  /** Takes a place (K20). Undefined: at once; else when one is free. Give it back with `leave`. @throws KvError BUSY. */
  enter(): Promise<void> | undefined {
    if (this.#running < this.#settings.loadsMax) {
      this.#running++
      return undefined
    }
    if (this.#waiting.size >= waitingMax) throw new KvError('BUSY', { message: `${waitingMax} loads of the cache wait for their turn` })
    return new Promise((resolve) => this.#waiting.add(resolve))
  }

  leave(): void {
    const [next] = this.#waiting
    if (next === undefined) {
      this.#running--
      return
    }
    this.#waiting.delete(next)
    next()
  }

  /** @throws what the loader throws; KvError LOAD_TIMEOUT, LOAD_INVALID. */
  async run(key: K, previous: { readonly value: unknown } | undefined): Promise<Loaded> {
    const settings = this.#settings
    const beganAt = settings.elapsed()
    const context = new Context(settings, previous)
    let timer: unknown
    try {
      const tooLate = new Promise<never>((_, reject) => {
        timer = timerOf(settings, () => reject(context.abort()), settings.hardMs, true)
      })
      const result = await Promise.race([scope.runInAsyncScope(() => this.#begin(key, context)), tooLate])
      const deltaMs = Math.ceil(settings.elapsed() - beganAt)
      // A process that stood still hears of result and deadline at once. What was read so long ago would outlive the epochs of its tags.
      if (deltaMs > settings.hardMs) throw context.abort()
      return { result, deltaMs, tags: [...context.tags], ttlMs: context.ttlMs }
    } finally {
      settings.timers.clearTimeout(timer as never)
      context.isOver = true
    }
  }

  async #begin(key: K, context: Context): Promise<unknown> {
    const { load } = this.#loads
    if (load !== undefined) return await load(key, context)
    return await new Promise((resolve, reject) => {
      this.#wanted.push({ key, context, resolve, reject })
      // Leases of one turn are answered in one turn, or nearly: what comes until its end is loaded together.
      if (this.#wanted.length === 1) setImmediate(() => void this.#beginMany())
    })
  }

  async #beginMany(): Promise<void> {
    const wanted = this.#wanted
    this.#wanted = []
    const each = wanted.map(({ context }) => context)
    try {
      const keys = wanted.map(({ key }) => key)
      // All of them began in one turn, so their deadlines are one.
      const context: LoadManyContext = { signal: (each[0] as Context).signal, each }
      const results: unknown = await this.#loads.loadMany?.(keys, context)
      if (!Array.isArray(results) || results.length !== keys.length)
        throw new KvError('LOAD_INVALID', { message: `loadMany must answer ${keys.length} keys with as many results` })
      for (const [index, { resolve, reject }] of wanted.entries()) {
        const result: unknown = results[index]
        if (result instanceof Error) reject(result)
        else resolve(result)
      }
    } catch (error) {
      for (const { reject } of wanted) reject(error)
    }
  }
}

class Context implements LoadContext {
  readonly previous: { readonly value: unknown } | undefined
  readonly tags = new Set<string>()
  ttlMs: number | undefined
  isOver = false
  readonly #settings: Settings
  readonly #controller = new AbortController()

  constructor(settings: Settings, previous: { readonly value: unknown } | undefined) {
    this.#settings = settings
    this.previous = previous
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  abort(): KvError {
    const error = new KvError('LOAD_TIMEOUT', { message: `the loader did not answer within ${this.#settings.hardMs} ms` })
    this.#controller.abort(error)
    return error
  }

  readonly tag = (...tags: readonly string[]): void => {
    if (this.isOver) invalid('a tag was named after the load had ended')
    for (const tag of tags) this.tags.add(checkTag(tag))
    if (this.tags.size > tagsMax) invalid(`a value has at most ${tagsMax} tags`)
  }

  readonly ttl = (duration: Duration): void => {
    if (this.isOver) invalid('a ttl was said after the load had ended')
    this.ttlMs = checkOwnTtl(duration, this.#settings)
  }
}

/** @throws KvError INVALID_ARGUMENT. */
export function checkTag(tag: string): string {
  if (typeof tag !== 'string' || tag === '' || tag.length > tagLengthMax)
    invalid(`a tag must be a string of 1 to ${tagLengthMax} characters`)
  return tag
}

/** What a loader says instead of `ttl`, in milliseconds. @throws KvError INVALID_ARGUMENT. */
export function checkOwnTtl(duration: Duration, { ttlMaxMs }: Settings): number {
  const ms = checkDuration(duration, 'a ttl', 1)
  return ms <= ttlMaxMs ? ms : invalid(`a loader said a ttl of ${ms} ms; ttlMax is ${ttlMaxMs}`)
}
