/**
 * Rate limits over any store: judges a request by the rules, charges it with one conditional write, and says what came of it.
 * Invariant: `allowed` by the store means that the charge stands in the store; `denied` means that the rules denied it on a state that
 * the store has shown, at a time that the store's clock has not passed by; everything else is `unknown`, with its reason.
 * Why `unknown` is not an error: what to do without a store is the user's decision, and it was asked for when the limiter was built (R11).
 */
import { hash, randomBytes } from 'node:crypto'
import { invalid } from '../../core/kv/errors.ts'
import type { CallOptions } from '../../core/kv/kv.ts'
import { checkDuration, need } from '../../core/kv/limits.ts'
import { tell } from './events.ts'
import { LocalLimiter } from './local.ts'
import { Format } from './record.ts'
import { charged, checkCost, fitsAt, marksOf, partOf, planOf, refunded, standing, unknownStanding, violatedBy } from './rules.ts'
import { slotReleased, slotRenewed, withSlots, type LimitRecord, type Plan } from './rules.ts'
import type { Holder } from './rules/concurrency.ts'
import type { Change, KeyState, Told } from './key-state.ts'
import { Recent } from './recent.ts'
import { HeldSlot } from './slot.ts'
import { LimitStore } from './store.ts'
import type {
  Acquired,
  ConsumeOptions,
  Decision,
  OnUnknown,
  Policy,
  RateLimit,
  RateLimitOptions,
  Receipt,
  Reservation,
  ReserveOptions,
  Settlement,
  Slot,
  Timers,
} from './types.ts'

const defaults = {
  /** A limiter stands before the work: more than this is felt. */
  deadline: '50ms',
  /** Another process may have reset or refunded the key: nobody is denied longer than this because of what was known before. */
  denyCache: '1s',
  /** Refunds, settlements and releases: nobody waits for them. */
  settleDeadlineMs: 2_000,
} as const

/** How often a denial is asked for again whose instant has come while it was on its way. */
const lateTurnsMax = 3
const keyLengthMax = 64
const plainKey = /^[\x21-\x7e]{1,64}$/
/** 'limit:', the name, a separator, and a key of 64 characters. */
const storeKeyBytes = 6 + 48 + 1 + keyLengthMax
const keyInputMax = 16_384

/**
 * Makes a limiter over a store. The store stays the caller's.
 * @throws KvError INVALID_ARGUMENT for an option, also for `onUnknown` that was not said; CAPABILITY_MISSING when the store lacks what is
 * needed: one clock, one home for each key, ttls of twice the longest window.
 * @example const api = rateLimit({ kv, name: 'api', onUnknown: 'deny', policies: { burst: gcra({ limit: 20, per: '1s' }) } })
 */
export function rateLimit<const Name extends string>(options: RateLimitOptions<Name>): RateLimit<Name> {
  return new Limiter<Name>(options)
}

/** What the rules say of one request. */
interface Verdict extends Change {
  readonly isAllowed: boolean
  readonly before: LimitRecord
  readonly after: LimitRecord
  readonly judgedAt: number
  readonly fitsAt: number
}

type Shape = {
  readonly cost: number
  readonly holder?: Holder
  readonly maxWaitMs?: number
  readonly isPeek?: boolean
  readonly needsNoSlot?: boolean
}

class Limiter<Name extends string> implements RateLimit<Name> {
  readonly name: string
  readonly onUnknown: OnUnknown
  readonly policies: Readonly<Record<Name, Policy>>
  readonly hasSlots: boolean
  readonly #plan: Plan
  readonly #store: LimitStore
  readonly #keys = new Recent(keyLengthMax, (key) => this.#storeKeyOf(key))
  readonly #local: LocalLimiter | undefined
  readonly #timers: Timers
  readonly #denyCacheMs: number
  readonly #countRefused: boolean
  readonly #prefix: string
  /** Names this limiter as the holder of slots; 48 random bits. */
  readonly #holder = randomBytes(6).readUIntBE(0, 6)
  #slots = 0
  /** How receipts stand that were given out here. */
  readonly #standing = new WeakMap<Receipt, { readonly charged: number; readonly refundable: number }>()

  constructor(options: RateLimitOptions<Name>) {
    const { kv, name, policies, onUnknown, instances, timers = globalThis, countRefused = false } = options
    if (typeof name !== 'string' || !/^[A-Za-z0-9._-]{1,48}$/.test(name))
      invalid(`rateLimit: name must be 1 to 48 letters, digits, '.', '_' or '-', not ${JSON.stringify(name)}`)
    if (onUnknown !== 'allow' && onUnknown !== 'deny' && onUnknown !== 'local')
      invalid(
        `rateLimit: onUnknown must be 'allow', 'deny' or 'local', not ${JSON.stringify(onUnknown)}`,
        "it says what happens while the store is away: 'deny' for logins and payments, 'allow' or 'local' for public reads",
      )
    if (onUnknown === 'local' && (!Number.isSafeInteger(instances) || (instances as number) < 1))
      invalid("rateLimit: onUnknown: 'local' needs `instances`, a whole number from 1: how many processes share the limits")
    if (typeof countRefused !== 'boolean') invalid('rateLimit: countRefused must be true or false')
    this.#plan = planOf(policies)
    const format = new Format(this.#plan)
    need(
      kv,
      {
        serverClock: true,
        sites: 'one',
        keyBytes: storeKeyBytes,
        valueBytes: format.bytesMax,
        ttlMs: this.#plan.lifeMs,
      },
      `rate limit '${name}'`,
    )
    this.name = name
    this.onUnknown = onUnknown
    this.policies = Object.freeze({ ...policies })
    this.hasSlots = this.#plan.hasSlots
    this.#timers = timers
    this.#countRefused = countRefused
    this.#denyCacheMs = countRefused ? 0 : checkDuration(options.denyCache ?? defaults.denyCache, 'denyCache')
    this.#prefix = `limit:${name}`
    this.#local = onUnknown === 'local' ? new LocalLimiter(partOf(this.#plan, instances as number)) : undefined
    const deadlineMs = checkDuration(options.deadline ?? defaults.deadline, 'deadline', 1)
    this.#store = new LimitStore({ kv, name, plan: this.#plan, deadlineMs, timers }, format, randomBytes(4).readUInt32BE())
  }

  consume(key: string, options: ConsumeOptions = {}): Promise<Decision<Name>> {
    return this.#decide(key, { cost: options.cost ?? 1, needsNoSlot: true }, options.signal)
  }

  async peek(key: string, options: ConsumeOptions = {}): Promise<Decision<Name>> {
    return await this.#decide(key, { cost: options.cost ?? 1, isPeek: true }, options.signal)
  }

  async reserve(key: string, options: ReserveOptions): Promise<Reservation<Name>> {
    if (this.hasSlots) invalid(`rate limit '${this.name}' has slots: nobody knows when one is free, so none can be reserved`)
    const maxWaitMs = checkDuration(options.maxWait, 'maxWait')
    return await this.#decide(key, { cost: options.cost ?? 1, maxWaitMs }, options.signal)
  }

  async acquire(key: string, options: ConsumeOptions = {}): Promise<Acquired<Name>> {
    if (!this.hasSlots) return await this.consume(key, options)
    const holder: Holder = [this.#holder, ++this.#slots]
    const sentAt = this.#store.elapsed()
    const decision = await this.#decide(key, { cost: options.cost ?? 1, holder }, options.signal)
    if (decision.outcome === 'unknown' && decision.reason !== 'unreadable') void this.#giveBack(this.#keys.of(key), holder) // it may have been taken
    return decision.outcome === 'allowed'
      ? { ...decision, slot: this.#slotOf(key, holder, sentAt, decision.reason !== undefined) }
      : decision
  }

  async refund(receipt: Receipt | undefined, cost?: number, options: CallOptions = {}): Promise<Settlement> {
    if (receipt === undefined) return { outcome: 'void' }
    this.#checkReceipt(receipt)
    if (cost !== undefined && (!Number.isSafeInteger(cost) || cost < 0)) invalid(`cost must be a whole number from 0, not ${String(cost)}`)
    const { charged: all, refundable } = this.#standingOf(receipt)
    const wanted = Math.min(cost ?? all, all)
    // What a settlement charged on top may have been less than it said (the debt is bounded), so nothing of it is given back: it would be others'.
    const back = Math.min(wanted, refundable)
    if (back === 0) return { outcome: 'void' }
    this.#standing.set(receipt, { charged: all - wanted, refundable: refundable - back }) // before the store has said so: what is not known is not tried twice
    return await this.#change(receipt.key, options, (record, now) => refunded(this.#plan, record, receipt, back, now))
  }

  async settle(receipt: Receipt | undefined, actualCost: number, options: CallOptions = {}): Promise<Settlement> {
    if (!Number.isSafeInteger(actualCost) || actualCost < 0)
      invalid(`the actual cost must be a whole number from 0, not ${String(actualCost)}`)
    if (receipt === undefined) return { outcome: 'void' }
    this.#checkReceipt(receipt)
    const { charged: all, refundable } = this.#standingOf(receipt)
    if (actualCost <= all) return await this.refund(receipt, all - actualCost, options)
    this.#standing.set(receipt, { charged: actualCost, refundable })
    return await this.#change(receipt.key, options, (record, now) => charged(this.#plan, record, actualCost - all, now))
  }

  #standingOf(receipt: Receipt): { readonly charged: number; readonly refundable: number } {
    return this.#standing.get(receipt) ?? { charged: receipt.cost, refundable: receipt.cost }
  }

  async reset(key: string, options: CallOptions = {}): Promise<void> {
    const state = this.#keys.of(key)
    this.#local?.forget(state.storeKey)
    const deadlineMs = options.deadline === undefined ? defaults.settleDeadlineMs : checkDuration(options.deadline, 'a deadline', 1)
    await this.#store.destroy(state, options.signal, deadlineMs)
    tell(this.name, { type: 'reset' })
  }

  #decide(key: string, shape: Shape, signal: AbortSignal | undefined): Promise<Reservation<Name>> {
    return new Promise((resolve, reject) => {
      if (this.hasSlots && shape.needsNoSlot === true) invalid(`rate limit '${this.name}' has slots: take one with acquire, and release it`)
      checkCost(shape.cost, this.#plan)
      const state = this.#keys.of(key)
      if (state.isDenied && this.#denyCacheMs > 0) {
        const denied = this.#deniedFromMemory(state, shape)
        if (denied !== undefined) return resolve(denied)
      }
      const judge = (record: LimitRecord, now: number): Verdict => this.#judge(record, now, shape)
      let turn = 1
      const hear = (told: Told<Verdict>): void => {
        if (told.type === 'unknown') return resolve(this.#undecided(state.storeKey, shape, told))
        const { value: verdict, now } = told
        // Its instant may have come while the answer was on its way.
        if (!verdict.isAllowed && verdict.fitsAt <= now && turn++ < lateTurnsMax) return this.#store.ask(state, judge, hear, reject, signal)
        if (!verdict.isAllowed) state.isDenied = true
        resolve(this.#decision(verdict, key, shape, now))
      }
      this.#store.ask(state, judge, hear, reject, signal)
    })
  }

  #judge(record: LimitRecord, now: number, { cost, holder, maxWaitMs = 0, isPeek = false }: Shape): Verdict {
    const fits = fitsAt(this.#plan, record, cost, now)
    const isAllowed = fits <= now + maxWaitMs
    if (isPeek || (cost === 0 && holder === undefined) || (!isAllowed && !this.#countRefused))
      return { next: undefined, isAllowed, before: record, after: record, judgedAt: now, fitsAt: fits }
    let after = charged(this.#plan, record, cost, now, isAllowed ? fits : now)
    if (isAllowed && holder !== undefined) after = withSlots(this.#plan, after, holder)
    return { next: after, isAllowed, before: record, after, judgedAt: now, fitsAt: fits }
  }

  #decision(verdict: Verdict, key: string, shape: Shape, now: number): Reservation<Name> {
    const { cost, isPeek = false, maxWaitMs } = shape
    if (!verdict.isAllowed) return this.#denial(verdict, shape, now)
    const { after, judgedAt } = verdict
    const policies = standing(this.#plan, after, judgedAt, noNames) as Decision<Name>['policies']
    const violated: readonly Name[] = noNames
    // Written out: to spread one object into another costs more than all the rules.
    if (isPeek || cost === 0) return { outcome: 'allowed', allowed: true, policies, violated }
    const receipt: Receipt = { key, cost, life: after.life, marks: marksOf(this.#plan, after) }
    if (maxWaitMs === undefined) return { outcome: 'allowed', allowed: true, policies, violated, receipt }
    return { outcome: 'allowed', allowed: true, policies, violated, receipt, waitMs: Math.max(0, verdict.fitsAt - now) }
  }

  #denial({ before, after, judgedAt, fitsAt: fits }: Omit<Verdict, 'isAllowed'>, shape: Shape, now: number, local?: true): Decision<Name> {
    const { cost, isPeek = false } = shape
    const violated = violatedBy(this.#plan, before, cost, judgedAt) as Name[]
    if (!isPeek) tell(this.name, { type: 'denied', violated, local })
    const free = this.#countRefused ? fitsAt(this.#plan, after, cost, now) : fits
    return {
      outcome: 'denied',
      allowed: false,
      policies: standing(this.#plan, after, now, violated) as Decision<Name>['policies'],
      violated,
      ...(free === Infinity ? undefined : { retryAfterMs: Math.max(1, free - now) }),
      ...(local && { local }),
    }
  }

  /** A denial that needs no call: by a state that the store showed a moment ago, at a time that its clock has not passed yet (R9). */
  #deniedFromMemory({ record, shownAt }: KeyState, shape: Shape): Decision<Name> | undefined {
    const { cost, holder, maxWaitMs = 0 } = shape
    const elapsed = this.#store.elapsed()
    if (record === undefined || holder !== undefined || elapsed - shownAt > this.#denyCacheMs) return undefined
    const latest = this.#store.clock.notPassed(elapsed)
    const now = this.#store.clock.reached(elapsed)
    if (latest === undefined || now === undefined) return undefined
    const fits = fitsAt(this.#plan, record, cost, latest)
    if (fits <= latest + maxWaitMs) return undefined
    return this.#denial({ before: record, after: record, judgedAt: latest, fitsAt: fits }, shape, now, true)
  }

  #undecided(
    storeKey: string,
    { cost, holder, isPeek = false, maxWaitMs }: Shape,
    { reason, cause }: Told<never> & { type: 'unknown' },
  ): Reservation<Name> {
    tell(this.name, { type: 'unknown', reason, cause })
    const local = this.#local
    if (local === undefined) {
      const policies = unknownStanding(this.#plan) as Decision<Name>['policies']
      return { outcome: 'unknown', allowed: this.onUnknown === 'allow', policies, violated: [], reason, cause }
    }
    const now = Math.floor(this.#store.elapsed())
    const { isAllowed, record, fitsAt: fits } = local.consume(storeKey, cost, now, holder, !isPeek)
    const violated = (isAllowed ? [] : violatedBy(local.plan, record, Math.min(cost, local.plan.costMax), now)) as Name[]
    const policies = standing(local.plan, record, now, violated) as Decision<Name>['policies']
    const common = { allowed: isAllowed, policies, violated, reason, cause, local: true } as const
    if (isAllowed) return { outcome: 'allowed', ...common, ...(maxWaitMs !== undefined && { waitMs: 0 }) }
    return { outcome: 'denied', ...common, ...(fits === Infinity ? undefined : { retryAfterMs: Math.max(1, fits - now) }) }
  }

  async #change(
    key: string,
    { signal, deadline }: CallOptions,
    change: (record: LimitRecord, now: number) => LimitRecord | undefined,
  ): Promise<Settlement> {
    const deadlineMs = deadline === undefined ? defaults.settleDeadlineMs : checkDuration(deadline, 'a deadline', 1)
    const told = await this.#store.change(this.#keys.of(key), (record, now) => ({ next: change(record, now) }), deadlineMs, signal)
    if (told.type === 'done') return { outcome: told.value.next === undefined ? 'void' : 'applied' }
    tell(this.name, { type: 'unknown', reason: told.reason, cause: told.cause })
    return { outcome: 'unknown', reason: told.reason, cause: told.cause }
  }

  #slotOf(key: string, holder: Holder, sentAt: number, isLocal: boolean): Slot {
    const plan = this.#local !== undefined && isLocal ? this.#local.plan : this.#plan
    const leaseMs = Math.min(...plan.lines.filter(({ policy }) => policy.kind === 'concurrency').map(({ policy }) => policy.perMs))
    const { elapsed } = this.#store
    const common = {
      timers: this.#timers,
      elapsed,
      leaseMs,
      sentAt,
      onLost: (cause: unknown) => tell(this.name, { type: 'slot-lost', cause }),
    }
    const local = this.#local
    const { storeKey } = this.#keys.of(key)
    if (local !== undefined && isLocal)
      return new HeldSlot({
        ...common,
        renew: async () => local.renew(storeKey, holder, Math.floor(elapsed())),
        giveBack: async () => ({ outcome: local.release(storeKey, holder, Math.floor(elapsed())) ? 'applied' : 'void' }),
      })
    return new HeldSlot({
      ...common,
      renew: async () => {
        const told = await this.#store.change(
          this.#keys.of(key),
          (record, now) => ({ next: slotRenewed(this.#plan, record, holder, now) }),
          Math.ceil(leaseMs / 3),
        )
        if (told.type === 'unknown') throw told.cause
        return told.value.next !== undefined
      },
      giveBack: () => this.#giveBack(this.#keys.of(key), holder),
    })
  }

  async #giveBack(state: KeyState, holder: Holder): Promise<Settlement> {
    const told = await this.#store
      .change(state, (record, now) => ({ next: slotReleased(this.#plan, record, holder, now) }), defaults.settleDeadlineMs)
      .catch((cause: unknown) => ({ type: 'unknown', reason: 'store', cause }) as const)
    if (told.type === 'done') return { outcome: told.value.next === undefined ? 'void' : 'applied' }
    return { outcome: 'unknown', reason: told.reason, cause: told.cause }
  }

  #checkReceipt(receipt: Receipt): void {
    const { key, cost, life, marks } = receipt
    // What is no whole number would make the record unreadable, and its key be refused until it has expired.
    if (
      typeof key !== 'string' ||
      !Number.isSafeInteger(cost) ||
      cost < 0 ||
      typeof life !== 'number' ||
      !Array.isArray(marks) ||
      !marks.every(Number.isSafeInteger)
    )
      invalid('that is not a receipt of a decision')
  }

  /** Short keys stand as they are; a long or unusual one is hashed, under another separator, so that no two keys meet (R15). */
  #storeKeyOf(key: string): string {
    // `undefined` and numbers would pass for the words that they are written as, and all who have no name share one limit.
    if (typeof key !== 'string' || key === '' || key.length > keyInputMax)
      invalid(
        `the key of a rate limit must be a string of 1 to ${keyInputMax} characters`,
        'name who is limited: a user, a tenant, an address',
      )
    if (plainKey.test(key)) return `${this.#prefix}:${key}`
    return `${this.#prefix}#${hash('sha256', Buffer.from(key, 'utf16le'), 'base64url')}`
  }
}

const noNames: readonly never[] = Object.freeze([])
