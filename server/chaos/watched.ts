/**
 * A store whose every call is watched: how many there were, how long they took, which failed, and those that went on while one fault alone was there.
 * Invariant: a call belongs to each window that it overlaps.
 */
import { isKvError } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'

export interface CallsTold {
  readonly operations: number
  /** Ended without a result: nobody answered in time, or the outcome is not known. */
  readonly failed: number
  readonly slowestMs: number
}

class Counts {
  operations = 0
  failed = 0
  slowestMs = 0
  /** By code. */
  readonly codes = new Map<string, number>()

  add(ms: number, code: string | undefined): void {
    this.operations++
    this.slowestMs = Math.max(this.slowestMs, ms)
    if (code === undefined) return
    this.failed++
    this.codes.set(code, (this.codes.get(code) ?? 0) + 1)
  }
}

export class Watch {
  readonly all = new Counts()
  /** Of all windows together. */
  readonly inWindows = new Counts()
  #openSince: number | undefined
  #lastEnd = -Infinity

  /** From now on, until `close`, calls are counted in the window. */
  open(): void {
    this.#openSince = performance.now()
  }
  close(): void {
    this.#openSince = undefined
    this.#lastEnd = performance.now()
  }

  /** @param startedAt of a call that ends now */
  ended(startedAt: number, code: string | undefined): void {
    const now = performance.now()
    this.all.add(now - startedAt, code)
    if (this.#openSince !== undefined || startedAt < this.#lastEnd) this.inWindows.add(now - startedAt, code)
  }
}

/** The same store, watched. */
export function watched(kv: KV, watch: Watch): KV {
  const during = async <T>(call: Promise<T>): Promise<T> => {
    const startedAt = performance.now()
    try {
      const result = await call
      watch.ended(startedAt, undefined)
      return result
    } catch (error) {
      watch.ended(startedAt, isKvError(error) ? error.code : 'NOT_A_FAULT_OF_OURS')
      throw error
    }
  }
  return {
    capabilities: kv.capabilities,
    create: (...args) => during(kv.create(...args)),
    get: (...args) => during(kv.get(...args)),
    getMany: (...args) => during(kv.getMany(...args)),
    update: (...args) => during(kv.update(...args)),
    set: (...args) => during(kv.set(...args)),
    destroy: (...args) => during(kv.destroy(...args)),
    close: () => kv.close(),
    [Symbol.asyncDispose]: () => kv.close(),
  }
}
