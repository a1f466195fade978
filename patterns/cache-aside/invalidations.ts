/**
 * Invalidations: carried out, repeated while the store is away, and once more after a replica's lag.
 * Invariant: one that was not answered as done is repeated until it is, or until all that it was for has died by itself (K6).
 * Why too many become one `clear`: the list stays bounded and no invalidation is ever dropped.
 */
import { isKvError } from '../../core/kv/errors.ts'
import { tell } from './events.ts'
import { generationsKeyOf, tagKeyOf } from './identity.ts'
import type { Slot } from './key.ts'
import { timerOf, type Settings } from './settings.ts'
import type { CacheStore } from './store.ts'
import type { Invalidation } from './types.ts'

export type Target = { readonly slot: Slot } | { readonly tag: string } | 'all'

/** What this process itself must forget; called before the store is asked, and after it has answered. */
type Forget = (target: Target) => void

/** An invalidation that the store has not taken. */
interface Pending {
  readonly target: Target
  /** On the local clock: all that it is for has died by then. */
  endsAt: number
  /** Asked for again since it was last sent: what was sent may have come before that commit. */
  isAgain: boolean
}

export const invalidationLimits = Object.freeze({
  /** Invalidations that wait: some 300 bytes and a timer each. */
  waitingMax: 1_000,
  /** The first pause before one is repeated; doubled each time, drawn between half and the whole of it. */
  pauseMsFirst: 100,
  pauseMsMax: 5_000,
})

export class Invalidations {
  readonly #settings: Settings
  readonly #store: CacheStore
  readonly #forget: Forget
  readonly #track: (work: Promise<unknown>) => void
  /** By identity: those that the store has not taken. */
  readonly #pending = new Map<string, Pending>()
  #lagging = 0
  #clearsAt = 0
  #clearing: Promise<void> | undefined

  constructor(settings: Settings, store: CacheStore, forget: Forget, track: (work: Promise<unknown>) => void) {
    this.#settings = settings
    this.#store = store
    this.#forget = forget
    this.#track = track
  }

  get pending(): number {
    return this.#pending.size
  }

  /** What is stored under the slot must not be used: its invalidation has not arrived. */
  isPast(slot: Slot): boolean {
    return this.#pending.size > 0 && (this.#pending.has('all') || this.#pending.has(identityOfTarget({ slot })))
  }

  hasPendingTag(tags: readonly string[]): boolean {
    return this.#pending.size > 0 && tags.some((tag) => this.#pending.has(identityOfTarget({ tag })))
  }

  /** @throws KvError of faults that no repetition mends. */
  async strike(target: Target): Promise<Invalidation> {
    this.#forget(target)
    try {
      await this.#carryOut(target)
      return { done: true }
    } catch (cause) {
      if (isKvError(cause) && cause.retry === 'never') throw cause
      this.#tell(target, 'invalidation-queued', cause)
      this.#queue(target)
      return { done: false, cause }
    } finally {
      // What was read in between may have come from before.
      this.#forget(target)
    }
  }

  /** Once more after the lag of a replica: a load in between may have read from before the commit (K5). Never throws. */
  again(target: Target): Promise<void> | undefined {
    const { lagMs, elapsed } = this.#settings
    if (lagMs === 0) return undefined
    if (this.#lagging >= invalidationLimits.waitingMax) {
      this.#clearsAt = elapsed() + lagMs
      if (this.#clearing === undefined) this.#track((this.#clearing = this.#clearLate()))
      return this.#clearing
    }
    this.#lagging++
    const late = this.#pause(lagMs).then(async () => {
      this.#lagging--
      await this.#strikeLate(target)
    })
    this.#track(late)
    return late
  }

  /** Stands for all who found the list full; not before the lag of the last of them. */
  async #clearLate(): Promise<void> {
    const { elapsed } = this.#settings
    while (elapsed() < this.#clearsAt) await this.#pause(this.#clearsAt - elapsed())
    this.#clearing = undefined
    await this.#strikeLate('all')
  }

  /** `mutate` has answered long ago: nobody is there to be told of a fault but those who listen. */
  async #strikeLate(target: Target): Promise<void> {
    await this.strike(target).catch((cause: unknown) => this.#tell(target, 'store-error', cause))
  }

  #queue(target: Target): void {
    const isFull = this.#pending.size >= invalidationLimits.waitingMax
    const kept: Target = isFull ? 'all' : target
    const id = identityOfTarget(kept)
    const endsAt = this.#settings.elapsed() + this.#settings.lifeMs
    const open = this.#pending.get(id)
    if (open !== undefined) {
      Object.assign(open, { endsAt, isAgain: true })
      return
    }
    if (isFull) this.#pending.clear() // their repetitions find themselves gone, and end
    const pending: Pending = { target: kept, endsAt, isAgain: false }
    this.#pending.set(id, pending)
    this.#track(this.#repeat(pending, id))
  }

  async #repeat(pending: Pending, id: string): Promise<void> {
    const { elapsed, random } = this.#settings
    const { target } = pending
    for (let pauseMs: number = invalidationLimits.pauseMsFirst; ; pauseMs = Math.min(2 * pauseMs, invalidationLimits.pauseMsMax)) {
      await this.#pause(pauseMs * (1 + random()) * 0.5)
      if (this.#pending.get(id) !== pending) return
      if (elapsed() >= pending.endsAt) {
        this.#tell(target, 'invalidation-outlived')
        break
      }
      pending.isAgain = false
      try {
        await this.#carryOut(target)
        if (!pending.isAgain) break
      } catch (cause) {
        this.#tell(target, 'store-error', cause)
        if (isKvError(cause) && cause.retry === 'never') break
      }
    }
    if (this.#pending.get(id) === pending) this.#pending.delete(id)
    this.#forget(target)
  }

  async #carryOut(target: Target): Promise<void> {
    if (target === 'all') await this.#store.clear()
    else if ('tag' in target) await this.#store.invalidateTag(target.tag)
    else await this.#store.invalidate(this.#store.keyOf(target.slot))
    this.#tell(target, 'invalidated')
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => timerOf(this.#settings, resolve, ms, true))
  }

  #tell(target: Target, type: 'invalidated' | 'invalidation-queued' | 'invalidation-outlived' | 'store-error', cause?: unknown): void {
    const { name } = this.#settings
    const key = target === 'all' ? generationsKeyOf(name) : 'tag' in target ? tagKeyOf(name, target.tag) : this.#store.keyOf(target.slot)
    tell(name, key, cause === undefined ? { type } : { type, cause })
  }
}

const identityOfTarget = (target: Target): string =>
  target === 'all' ? 'all' : 'tag' in target ? `tag:${target.tag}` : `${typeof target.slot}:${String(target.slot)}`
