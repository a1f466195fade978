/**
 * A slot that is held: renewed at a third of its lease, and given back once.
 * Invariant: `signal` fires before the store could give the slot to another: the lease is counted from when its call was sent.
 * Why a failed renewal is no loss yet: it is tried again at the next third, and only the end of the lease decides.
 */
import { KvError } from '../../core/kv/errors.ts'
import type { Settlement, Slot, Timers } from './types.ts'

export interface SlotParts {
  readonly timers: Timers
  readonly elapsed: () => number
  readonly leaseMs: number
  /** Local milliseconds when the call was sent that took the slot. */
  readonly sentAt: number
  /** False: it is lost. May throw: not known. */
  renew(): Promise<boolean>
  giveBack(): Promise<Settlement>
  onLost(cause: unknown): void
}

export class HeldSlot implements Slot {
  readonly #parts: SlotParts
  readonly #controller = new AbortController()
  #sureUntil: number
  #timer: unknown
  #isOver = false
  #released: Promise<Settlement> | undefined

  constructor(parts: SlotParts) {
    this.#parts = parts
    this.#sureUntil = parts.sentAt + parts.leaseMs
    this.#schedule()
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  release(): Promise<Settlement> {
    this.#end()
    this.#released ??= this.#parts.giveBack()
    return this.#released
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release()
  }

  /** At the next third of the lease, or at its end, whichever comes first. */
  #schedule(): void {
    const { timers, elapsed, leaseMs } = this.#parts
    const ms = Math.max(0, Math.min(leaseMs / 3, this.#sureUntil - elapsed()))
    const timer = timers.setTimeout(() => this.#due(), Math.ceil(ms))
    if (typeof timer === 'object' && timer !== null && 'unref' in timer && typeof timer.unref === 'function') timer.unref()
    this.#timer = timer
  }

  #due(): void {
    if (this.#isOver) return
    if (this.#parts.elapsed() >= this.#sureUntil) return this.#lose(undefined)
    void this.#renew()
    this.#schedule()
  }

  async #renew(): Promise<void> {
    const { elapsed, leaseMs } = this.#parts
    const sentAt = elapsed()
    try {
      if (!(await this.#parts.renew())) return this.#lose(undefined)
      this.#sureUntil = Math.max(this.#sureUntil, sentAt + leaseMs)
    } catch {
      // Not known: the next third asks again, and the end of the lease decides.
    }
  }

  #lose(cause: unknown): void {
    if (this.#isOver) return
    this.#end()
    this.#parts.onLost(cause)
    this.#controller.abort(new KvError('SLOT_LOST', cause === undefined ? {} : { cause }))
  }

  #end(): void {
    this.#isOver = true
    this.#parts.timers.clearTimeout(this.#timer as never)
  }
}
