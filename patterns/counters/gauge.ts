/**
 * How many at once: slots that are leases, so that what a dead process holds comes back (C12).
 * Invariant: `held` turns false and `signal` fires before the store gives the slot to another, as long as both clocks run at one rate.
 * Why not +1 and -1: a process that dies in between never says -1.
 */
import { assert } from '../../core/base/assert.ts'
import { checkDuration, need } from '../../core/kv/limits.ts'
import { invalid, isKvError, KvError } from '../../core/kv/errors.ts'
import { newId } from '../../core/kv/id.ts'
import type { CallOptions, KV } from '../../core/kv/kv.ts'
import { modify, modifyLimits } from '../../core/kv/modify.ts'
import { scoped } from '../../core/kv/scoped.ts'
import { tell } from './events.ts'
import { slotsCodec } from './record.ts'
import { freeSlot, liveSlots, renewSlot, takeSlot, type SlotsRecord, type TakeOutcome } from './rules.ts'
import type { Gauge, GaugeOptions, NoSlot, Slot, Timers } from './types.ts'

const slotsMax = 1_000
/** An owner's name and an instant with what is around them in JSON. */
const bytesASlot = 48
const leaseMsLeast = 100
/** Node's timers take no more; a renewal that comes sooner does no harm. */
const timerMsMax = 2_147_483_647

interface Settings {
  readonly kv: KV<SlotsRecord>
  readonly name: string
  readonly max: number
  readonly leaseMs: number
  readonly modify: typeof modify
  readonly timers: Timers
  readonly elapsed: () => number
}

/**
 * Makes a gauge. Each slot that is held here has two timers; the store stays the caller's.
 * @throws KvError INVALID_ARGUMENT for an option; CAPABILITY_MISSING when the store lacks one clock, one home for each key, or room for `max` slots.
 * @example const exports = gauge({ kv, name: 'exports', max: 3, lease: '30s' })
 */
export function gauge(options: GaugeOptions): Gauge {
  const { kv, name, max = slotsMax, modify: change = modify } = options
  const timers: Timers = options.timers ?? globalThis
  if (!Number.isSafeInteger(max) || max < 1 || max > slotsMax) invalid(`max must be a whole number from 1 to ${slotsMax}`)
  const leaseMs = checkDuration(options.lease, 'lease', leaseMsLeast)
  need(kv, { serverClock: true, sites: 'one', valueBytes: 16 + max * bytesASlot, ttlMs: leaseMs }, `gauge '${name}'`)
  return new LeasedGauge({
    kv: scoped(scoped(kv, 'gauge'), name, { codec: slotsCodec }),
    name,
    max,
    leaseMs,
    modify: change,
    timers,
    elapsed: timers.elapsed?.bind(timers) ?? (() => performance.now()),
  })
}

class LeasedGauge implements Gauge {
  readonly name: string
  readonly #settings: Settings

  constructor(settings: Settings) {
    this.#settings = settings
    this.name = settings.name
  }

  async acquire(key: string, { signal, deadline }: CallOptions = {}): Promise<Slot | NoSlot> {
    const settings = this.#settings
    const { kv, name, leaseMs } = settings
    const owner = newId()
    const sentAt = settings.elapsed()
    const last: { outcome?: TakeOutcome } = {}
    const { now } = await settings
      .modify(
        kv,
        key,
        (record, context) => {
          const decision = takeSlot(record, context.now, owner, settings)
          last.outcome = decision.outcome
          return decision.record
        },
        { signal, deadline, expiry: { extend: leaseMs } },
      )
      .catch((error: unknown) => {
        // It may be taken, and nobody will hold it: it need not wait for the end of its lease.
        if (isKvError(error, 'UNKNOWN_OUTCOME')) void giveBack(settings, key, owner)
        throw error
      })
    const { outcome } = last
    assert(outcome, 'modify answers only after it ran the function')
    const { type, inUse } = outcome
    if (type === 'full') {
      tell('gauge', name, key, 'full', { inUse })
      return { ok: false, refusal: 'full', inUse, retryAfterMs: outcome.retryAfterMs, [Symbol.asyncDispose]: async () => undefined }
    }
    const leftMs = outcome.endsAt - now
    if (leftMs <= 0 || sentAt + leftMs <= settings.elapsed()) {
      void giveBack(settings, key, owner)
      throw new KvError('DEADLINE_EXCEEDED', { message: 'the store took longer than the lease, and the slot comes back' })
    }
    tell('gauge', name, key, 'acquired', { inUse })
    return new HeldSlot(settings, key, owner, inUse, sentAt, leftMs)
  }

  async get(key: string, options: CallOptions = {}): ReturnType<Gauge['get']> {
    const { entry, now } = await this.#settings.kv.get(key, options)
    return { inUse: liveSlots(entry?.value, now).length, max: this.#settings.max, now }
  }
}

class HeldSlot implements Slot {
  readonly ok = true
  readonly key: string
  readonly inUse: number
  readonly #settings: Settings
  readonly #owner: string
  readonly #ending = new AbortController()
  #state: 'held' | 'released' | 'lost' = 'held'
  /** On the own clock: the latest at which the store surely has not given the slot to another. */
  #believedUntil = 0
  #renewal: unknown
  #end: unknown
  #cause: unknown
  #released: Promise<void> | undefined

  constructor(settings: Settings, key: string, owner: string, inUse: number, sentAt: number, leftMs: number) {
    this.#settings = settings
    this.key = key
    this.inUse = inUse
    this.#owner = owner
    this.#believe(sentAt, leftMs)
  }

  get held(): boolean {
    // A timer may be late, as after a pause of the whole process; the clock is not.
    if (this.#state === 'held' && this.#settings.elapsed() >= this.#believedUntil) this.#lose()
    return this.#state === 'held'
  }

  get signal(): AbortSignal {
    return this.#ending.signal
  }

  release(): Promise<void> {
    this.#released ??= this.#release()
    return this.#released
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }

  async #release(): Promise<void> {
    this.#stop()
    if (this.#state === 'lost') return
    this.#state = 'released'
    const { name } = this.#settings
    const cause = await giveBack(this.#settings, this.key, this.#owner)
    tell('gauge', name, this.key, cause === undefined ? 'released' : 'store-error', { cause })
  }

  /** The store said that so much was left of the lease, and it cannot have said so before it was asked. */
  #believe(sentAt: number, leftMs: number): void {
    const { timers, leaseMs, elapsed } = this.#settings
    this.#stop()
    this.#believedUntil = sentAt + leftMs
    this.#end = timerOf(timers, () => void this.held, this.#believedUntil - elapsed())
    this.#renewal = timerOf(timers, () => void this.#renew(), sentAt + leaseMs / 3 - elapsed())
  }

  async #renew(): Promise<void> {
    const { kv, modify: change, leaseMs, elapsed, timers, name } = this.#settings
    const sentAt = elapsed()
    if (!this.held) return
    try {
      const { entry, now } = await change(kv, this.key, (record, at) => renewSlot(record, at.now, this.#owner, leaseMs), {
        deadline: Math.max(1, Math.floor(this.#believedUntil - sentAt)),
        expiry: { extend: leaseMs },
      })
      if (this.#state !== 'held') return
      const slot = liveSlots(entry?.value, now).find(({ owner }) => owner === this.#owner)
      if (slot === undefined) return this.#lose()
      this.#believe(sentAt, slot.endsAt - now)
    } catch (cause) {
      if (this.#state !== 'held') return
      this.#cause = cause
      tell('gauge', name, this.key, 'store-error', { cause })
      this.#renewal = timerOf(timers, () => void this.#renew(), leaseMs / 10)
    }
  }

  #lose(): void {
    this.#stop()
    this.#state = 'lost'
    const cause = this.#cause
    tell('gauge', this.#settings.name, this.key, 'lost', { cause })
    this.#ending.abort(new KvError('SLOT_LOST', cause === undefined ? {} : { cause }))
  }

  #stop(): void {
    this.#settings.timers.clearTimeout(this.#renewal as never)
    this.#settings.timers.clearTimeout(this.#end as never)
  }
}

/** Answers with what kept it from being given back; its lease ends all the same. */
async function giveBack({ kv, leaseMs, modify: change }: Settings, key: string, owner: string): Promise<unknown> {
  try {
    await change(kv, key, (record, { now }) => freeSlot(record, now, owner), { deadline: Math.min(leaseMs, modifyLimits.deadlineMs) })
    return undefined
  } catch (cause) {
    return cause
  }
}

/** A timer that does not keep the process alive. */
function timerOf(timers: Timers, run: () => void, ms: number): unknown {
  const timer = timers.setTimeout(run, Math.min(Math.max(0, Math.ceil(ms)), timerMsMax))
  if (typeof timer === 'object' && timer !== null && 'unref' in timer && typeof timer.unref === 'function') timer.unref()
  return timer
}
