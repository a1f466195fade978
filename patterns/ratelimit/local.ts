/**
 * The limiter that decides in this process while the store does not: the same rules with a part of each limit (`onUnknown: 'local'`).
 * Invariant: it holds a bounded number of keys, and a key that is denied is not forgotten to make room for one that is not (R21).
 * Why it forgets nothing when the store is back: an outage that comes and goes must not give the limits anew each time.
 */
import { blank, charged, endsAt, fitsAt, slotReleased, slotRenewed, withSlots, type LimitRecord, type Plan } from './rules.ts'
import type { Holder } from './rules/concurrency.ts'

const keysMax = 16_384
/** Keys looked at for one to forget: the oldest of them that is not denied goes, else the oldest. */
const lookedAt = 16

export interface LocalDecision {
  readonly isAllowed: boolean
  readonly record: LimitRecord
  /** Of a denial; Infinity: nobody knows. */
  readonly fitsAt: number
}

export class LocalLimiter {
  readonly plan: Plan
  readonly #records = new Map<string, LimitRecord>()

  constructor(plan: Plan) {
    this.plan = plan
  }

  /** `now`: local milliseconds. A cost above this process's part takes all of it. */
  consume(key: string, cost: number, now: number, holder: Holder | undefined, isCharged: boolean): LocalDecision {
    const found = this.#records.get(key) ?? blank(this.plan, 0)
    const part = Math.min(cost, this.plan.costMax)
    const fits = fitsAt(this.plan, found, part, now)
    if (fits > now) return { isAllowed: false, record: found, fitsAt: fits }
    if (!isCharged) return { isAllowed: true, record: found, fitsAt: fits }
    const next = charged(this.plan, found, part, now)
    const record = holder === undefined ? next : withSlots(this.plan, next, holder)
    this.#put(key, record, now)
    return { isAllowed: true, record, fitsAt: fits }
  }

  /** False: the slot has been lost. */
  renew(key: string, holder: Holder, now: number): boolean {
    return this.#change(key, now, (record) => slotRenewed(this.plan, record, holder, now))
  }

  release(key: string, holder: Holder, now: number): boolean {
    return this.#change(key, now, (record) => slotReleased(this.plan, record, holder, now))
  }

  forget(key: string): void {
    this.#records.delete(key)
  }

  #change(key: string, now: number, change: (record: LimitRecord) => LimitRecord | undefined): boolean {
    const record = this.#records.get(key)
    const next = record && change(record)
    if (next === undefined) return false
    this.#put(key, next, now)
    return true
  }

  #put(key: string, record: LimitRecord, now: number): void {
    this.#records.delete(key) // to the young end
    if (this.#records.size >= keysMax) this.#makeRoom(now)
    this.#records.set(key, record)
  }

  /** The dead first, in passing; then the oldest that would be allowed. */
  #makeRoom(now: number): void {
    let oldest: string | undefined
    let allowed: string | undefined
    let looked = 0
    for (const [key, record] of this.#records) {
      if (looked++ >= lookedAt) break
      if (endsAt(this.plan, record) <= now) return this.forget(key)
      oldest ??= key
      if (allowed === undefined && fitsAt(this.plan, record, 1, now) <= now) allowed = key
    }
    const goes = allowed ?? oldest
    if (goes !== undefined) this.forget(goes)
  }
}
