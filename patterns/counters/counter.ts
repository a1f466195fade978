/**
 * An exact counter with bounds: what `hapax` counts, it counts once.
 * Invariant: an add counts in the count that stood, on the store's clock, at an instant between its call and its answer (C4).
 * Why one record and `modify`: the callers of a process join into one write, and value, end and remembered requests can never disagree (C2).
 */
import type { EpochMs } from '../../core/base/types.ts'
import { invalid } from '../../core/kv/errors.ts'
import type { Change } from '../../core/kv/join.ts'
import type { CallOptions, Expiry, KV } from '../../core/kv/kv.ts'
import { checkDuration, need, utf8Length } from '../../core/kv/limits.ts'
import { modify, modifyLimits } from '../../core/kv/modify.ts'
import { scoped } from '../../core/kv/scoped.ts'
import { tell } from './events.ts'
import { countCodec } from './record.ts'
import {
  changeCount,
  countAt,
  mayHaveEnded,
  resetCount,
  type Ask,
  type CountOutcome,
  type CountRecord,
  type CountRules,
  type Decision,
} from './rules.ts'
import { bigints, numbers, type Numbers } from './numbers.ts'
import type { Memory } from './requests.ts'
import type {
  AddOptions,
  AddResult,
  Count,
  Counter,
  CounterOptions,
  CountOptions,
  ResetOptions,
  ResetResult,
  SessionRequest,
} from './types.ts'

const defaults = {
  /** Longer than a client or a queue repeats at once, short enough for some two requests a second and key. */
  remember: '10m',
  requestsMax: 1_024,
} as const
const requestsMaxMost = 16_384
/** Of a remembered request, on average; an id of 20 characters takes some 70 with its answer, and adds without an id none. */
const bytesARequest = 64
/** A record without requests: two counts of 255 digits and four instants. */
const recordBytes = 1_024
const idBytesMax = 128

/**
 * Makes a counter over a store. It keeps no state of its own; the store stays the caller's.
 * @throws KvError INVALID_ARGUMENT for an option; CAPABILITY_MISSING when the store lacks what is needed: one clock, one home for each
 * key (C11), values of 64 bytes times `requestsMax` and ttls of `ttl` and `remember` together.
 * @example const seats = counter({ kv, name: 'seats', min: 0, max: 500 })
 */
export function counter(options: CounterOptions<bigint> & { readonly bigint: true }): Counter<bigint>
export function counter(options: CounterOptions): Counter
export function counter(options: CounterOptions<bigint> | CounterOptions): Counter<bigint> | Counter {
  return options.bigint === true
    ? new BoundedCounter(options as CounterOptions<bigint>, bigints)
    : new BoundedCounter(options as CounterOptions, numbers)
}

class BoundedCounter<N extends number | bigint> implements Counter<N> {
  readonly name: string
  readonly #counts: Counts
  readonly #numbers: Numbers<N>

  constructor(options: CounterOptions<N>, kind: Numbers<N>) {
    const { kv, name, expiry = 'keep' } = options
    const bound = (value: N | undefined, what: string) => (value === undefined ? undefined : kind.in(value, what))
    const [start, min, max] = [bound(options.start, 'start') ?? 0n, bound(options.min, 'min'), bound(options.max, 'max')]
    if ((min !== undefined && start < min) || (max !== undefined && start > max)) invalid('start must lie between min and max')
    if (expiry !== 'keep' && expiry !== 'slide') invalid(`expiry must be 'keep' or 'slide', not ${JSON.stringify(expiry)}`)
    if (expiry === 'slide' && options.ttl === undefined) invalid("expiry 'slide' needs a ttl")
    const ttlMs = options.ttl === undefined ? 0 : checkDuration(options.ttl, 'ttl', 1)
    const rules = { ...memoryOf(options), start, min, max, least: kind.least, most: kind.most, ttlMs, slides: expiry === 'slide' }
    this.name = name
    this.#numbers = kind
    this.#counts = new Counts(kv, name, 'counter', rules, options.modify)
  }

  async add(key: string, delta: N, options: CountOptions = {}): Promise<AddResult<N>> {
    const amount = this.#numbers.in(delta, 'delta')
    if (amount === 0n) invalid('an add of 0 changes nothing: use get to read the count')
    return this.#told(key, await this.#counts.change(key, amount, options))
  }

  async update(key: string, change: Parameters<Counter<N>['update']>[1], options: CountOptions = {}): Promise<AddResult<N>> {
    if (typeof change !== 'function') invalid('update takes a function from the present count to the next')
    const { in: inside, out } = this.#numbers
    const next = (value: bigint, epoch: number, now: EpochMs, attempt: number): bigint =>
      inside(change(out(value), { attempt, now, epoch }), 'what the function of update returns')
    return this.#told(key, await this.#counts.change(key, next, options))
  }

  async get(key: string, options: CallOptions = {}): Promise<Count<N>> {
    const { entry, now } = await this.#counts.kv.get(key, options)
    const { value, epoch, endsAt } = countAt(entry?.value, now, this.#counts.rules.start)
    return { value: this.#numbers.out(value), epoch, now, ...(endsAt === 0 ? undefined : { endsAt }) }
  }

  async reset(key: string, { ifEpoch, ...options }: ResetOptions = {}): Promise<ResetResult<N>> {
    checkEpoch(ifEpoch)
    const { ttlMs } = this.#counts.rules
    const { type, epoch, ...outcome } = await this.#counts.run(key, options, ttlMs, (record, now) =>
      resetCount(record, now, ifEpoch, this.#counts.rules),
    )
    const value = this.#numbers.out(outcome.value)
    if (type === 'epoch') {
      tell('counter', this.name, key, 'refused', { refusal: 'epoch' })
      return { ok: false, refusal: 'epoch', value, epoch }
    }
    tell('counter', this.name, key, 'reset')
    return { ok: true, value, epoch, previous: this.#numbers.out(outcome.previous) }
  }

  #told(key: string, { type, epoch, value: counted }: CountOutcome): AddResult<N> {
    const value = this.#numbers.out(counted)
    if (type === 'bound' || type === 'epoch') {
      tell('counter', this.name, key, 'refused', { refusal: type })
      return { ok: false, refusal: type, value, epoch }
    }
    tell('counter', this.name, key, type)
    return { ok: true, value, epoch, repeated: type === 'repeated' }
  }
}

/** What is added, or what makes the next count. */
type Asked = bigint | ((value: bigint, epoch: number, now: EpochMs, attempt: number) => bigint)

/** The records of counts under one name. `sharded` stands on it as well. */
export class Counts {
  readonly kv: KV<CountRecord>
  readonly rules: CountRules
  readonly #modify: typeof modify

  constructor(kv: KV, name: string, kind: 'counter' | 'sharded', rules: CountRules, change: typeof modify = modify) {
    const ttlMs = rules.ttlMs === 0 ? undefined : rules.ttlMs + rules.rememberMs
    need(
      kv,
      { serverClock: true, sites: 'one', valueBytes: rules.bytesMax + recordBytes, ...(ttlMs === undefined ? undefined : { ttlMs }) },
      `${kind} '${name}'`,
    )
    this.kv = scoped(scoped(kv, kind), name, { codec: countCodec })
    this.rules = rules
    this.#modify = change
  }

  change(key: string, asked: Asked, options: CountOptions): Promise<CountOutcome> {
    const { requestId: id, ifEpoch } = options
    checkRequestId(id)
    checkEpoch(ifEpoch)
    const { rules } = this
    const { ttlMs, slides, rememberMs } = rules
    // The record outlives its count by as long as it remembers the request.
    const extendMs = id !== undefined ? ttlMs + rememberMs : slides ? ttlMs : 0
    if (typeof asked === 'bigint') {
      const ask: Ask = { change: asked, id, ifEpoch }
      return this.run(key, options, extendMs, (record, now) => changeCount(record, now, ask, rules))
    }
    let attempt = 0
    return this.run(key, options, extendMs, (record, now) => {
      attempt++
      return changeCount(record, now, { change: (value, epoch) => asked(value, epoch, now, attempt), id, ifEpoch }, rules)
    })
  }

  /**
   * Answers with what the last run of `decide` said. A count that will end is decided on only by a clock that was read after the call (C4):
   * what `modify` knows from the call before may be older than the end, and the caller younger.
   * `extendMs`: so long the record has to live from now on; 0: as long as it lives already, unless it holds another count by now.
   */
  async run<O>(
    key: string,
    { signal, deadline }: CallOptions,
    extendMs: number,
    decide: (record: CountRecord | undefined, now: EpochMs) => Decision<CountRecord, O>,
  ): Promise<O> {
    const { ttlMs } = this.rules
    let outcome: O | undefined
    let isTooShort = false
    let extend = extendMs
    let fresh = ttlMs > 0
    const deadlineMs: number = deadline === undefined ? modifyLimits.deadlineMs : checkDuration(deadline, 'a deadline', 1)
    const endsAt = performance.now() + deadlineMs
    const change: Change<CountRecord> = (before, { now, entry }) => {
      outcome = undefined
      // One that another process gave an end, whose counter has a ttl.
      if (!fresh && mayHaveEnded(before, now)) return undefined
      const decision = decide(before, now)
      isTooShort =
        extend === 0 && decision.record !== undefined && entry?.expiresAt !== undefined && entry.expiresAt < decision.record.endsAt
      if (isTooShort) return undefined
      outcome = decision.outcome
      return decision.record
    }
    for (let left = deadlineMs; ; left = Math.max(1, Math.ceil(endsAt - performance.now()))) {
      const expiry: Expiry = ttlMs === 0 || extend === 0 ? 'keep' : { extend }
      const ttl = ttlMs === 0 ? undefined : Math.max(ttlMs, extend)
      await this.#modify(this.kv, key, change, { signal, deadline: left, fresh, expiry, ttl })
      if (outcome !== undefined) return outcome
      fresh = true
      if (isTooShort) extend = ttlMs
    }
  }
}

/** @throws KvError INVALID_ARGUMENT. */
export function memoryOf(options: Pick<CounterOptions, 'remember' | 'requestsMax'>): Memory {
  const { requestsMax = defaults.requestsMax } = options
  if (!Number.isSafeInteger(requestsMax) || requestsMax < 1 || requestsMax > requestsMaxMost)
    invalid(`requestsMax must be a whole number from 1 to ${requestsMaxMost}, not ${String(requestsMax)}`)
  const rememberMs = checkDuration(options.remember ?? defaults.remember, 'remember', 1)
  return { rememberMs, requestsMax, bytesMax: requestsMax * bytesARequest }
}

export function checkRequestId(id: AddOptions['requestId']): void {
  if (id === undefined) return
  if (typeof id === 'object' && id !== null) return checkSession(id)
  const bytes = typeof id === 'string' ? utf8Length(id) : 0
  if (bytes < 1 || bytes > idBytesMax) invalid(`requestId must be a string of 1 to ${idBytesMax} bytes in UTF-8`)
}

function checkSession({ session, sequence, done }: SessionRequest): void {
  if (typeof session !== 'string' || !/^[\x20-\x7e]{1,64}$/.test(session))
    invalid('requestId.session must be 1 to 64 printable ASCII characters', 'use a ULID or a UUID')
  if (!Number.isSafeInteger(sequence) || sequence < 1) invalid('requestId.sequence must be a whole number from 1')
  if (!Number.isSafeInteger(done) || done < 0 || done > sequence)
    invalid('requestId.done must be a whole number of at most the sequence: this request itself is not done')
}

function checkEpoch(epoch: number | undefined): void {
  if (epoch !== undefined && (!Number.isSafeInteger(epoch) || epoch < 0))
    invalid(`ifEpoch must be the epoch of an earlier result, not ${String(epoch)}`)
}
