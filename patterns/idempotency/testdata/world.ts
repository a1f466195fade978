/**
 * One store, one clock and any number of processes on them: what claim.test.ts and idempotency.test.ts begin each test with.
 * Invariant: each `world` stands alone; nothing of one test is in another.
 * Why a "process" is an engine with timers of its own: one whose clock is never advanced again is a process that died.
 */
import type { KV } from '../../../core/kv/kv.ts'
import { memory } from '../../../core/stores/memory.ts'
import { testClock } from '../../../core/testing/clock.ts'
import { faulty, type Verdict } from '../../../core/testing/faulty.ts'
import { counting, type StoreCall } from '../../../core/testing/intercept.ts'
import { fingerprintOf } from '../fingerprint.ts'
import { idempotency } from '../idempotency.ts'
import type { IdempotencyOptions, RunRequest } from '../types.ts'

export const request: RunRequest = { scope: 'tenant-1', key: 'key-1', operation: 'POST /payments', input: { amount: 100 } }
/** The same request as a door gives it. */
export const doorRequest = { ...request, fingerprint: fingerprintOf({ operation: 'POST /payments', body: { amount: 100 } }) }

export interface World {
  readonly clock: ReturnType<typeof testClock>
  readonly store: ReturnType<typeof counting<Uint8Array>>
  /** A process: an engine of its own on the common store. */
  process(options?: Partial<IdempotencyOptions>, kv?: KV): ReturnType<typeof idempotency>
  /** A process that dies: its timers stand still for ever. */
  mortal(options?: Partial<IdempotencyOptions>): ReturnType<typeof idempotency>
  /** The common store, with faults. */
  failing(on: (call: StoreCall) => Verdict | undefined): KV
}

export function world(): World {
  const clock = testClock()
  const store = counting(memory({ clock }))
  const make = (options: Partial<IdempotencyOptions>, kv: KV, timers: ReturnType<typeof testClock>) =>
    idempotency({ kv, name: 'payments', timers, random: () => 0.5, ...options })
  return {
    clock,
    store,
    process: (options = {}, kv = store) => make(options, kv, clock),
    mortal: (options = {}) => make(options, store, testClock()),
    failing: (on) => faulty(store, { clock, on }),
  }
}

/** What a handler waits for that never comes back. */
export const forEver = (): Promise<never> => new Promise<never>(() => {})

/** A promise to be resolved from outside. */
export function gate<T>(): { readonly promise: Promise<T>; open(value: T): void } {
  let open: (value: T) => void = () => {}
  const promise = new Promise<T>((resolve) => {
    open = resolve
  })
  return { promise, open }
}
