/**
 * How a limiter speaks with its store: one conditional write for a charge, joined with others' where there are any, within a deadline.
 * Invariant: what is told as done rests on a write on condition of the very state that was judged, or on a state that was read after
 * its caller came; what the store did not say in time is told as unknown, never as allowed or denied.
 * Why two ways: who is alone with a key writes on a guess of its state, one call; who is not goes through `modify`, which joins
 * all callers of the key into one write. A guess that is wrong costs one more call, because its refusal brings the true state along.
 */
import type { EpochMs } from '../../core/base/types.ts'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import type { CreateResult, Entry, KV, UpdateResult, Version } from '../../core/kv/kv.ts'
import { modifier } from '../../core/kv/modify.ts'
import { tell } from './events.ts'
import type { Format } from './record.ts'
import { StoreClock, type KeyState, type Lane } from './recent.ts'
import { blank, endsAt, type LimitRecord, type Plan } from './rules.ts'
import type { Timers, UnknownReason } from './types.ts'

/** What is done to a record. `next` undefined: nothing changes. May be called again, with another record. */
export type Work<Value> = (record: LimitRecord, now: number) => { readonly next?: LimitRecord | undefined; readonly value: Value }

export type Told<Value> =
  | { readonly type: 'done'; readonly value: Value; readonly now: EpochMs }
  | { readonly type: 'unknown'; readonly reason: UnknownReason; readonly cause: unknown }

export interface StoreOptions {
  readonly kv: KV
  readonly name: string
  readonly plan: Plan
  readonly deadlineMs: number
  readonly timers: Timers
}

export interface Asked {
  readonly signal?: AbortSignal | undefined
  readonly deadlineMs?: number | undefined
  /** How far ahead of now it may charge, in milliseconds. */
  readonly aheadMs?: number | undefined
}

/** Writes of one call that is alone; after that many refusals it joins the others. */
const aloneTurnsMax = 2
/** Failures one after the other after which the store is left alone, and for how long: it is away, and each request would wait for the deadline. */
const failuresMax = 10
const pauseMs = 500

interface Base {
  readonly record: LimitRecord
  readonly version: Version | undefined
  readonly now: number
}

export class LimitStore {
  readonly clock = new StoreClock()
  readonly elapsed: () => number
  readonly #options: StoreOptions
  readonly #format: Format
  readonly #modify: ReturnType<typeof modifier>
  /** In the order in which they must end. */
  readonly #alone = new Set<Lane>()
  #hasTimer = false
  #lives: number
  #failures = 0
  #lastCause: unknown
  #pausedUntil = -Infinity

  constructor(options: StoreOptions, format: Format, firstLife: number) {
    const { timers } = options
    this.#options = options
    this.#format = format
    this.elapsed = timers.elapsed?.bind(timers) ?? (() => performance.now())
    this.#lives = firstLife
    this.#modify = modifier({
      random: Math.random,
      clock: this.elapsed,
      after: (ms, run, idle) => (idle ? this.#after(ms, run) : pause(ms, run)),
    })
  }

  /**
   * Does `work` on the record of a key.
   * @throws KvError ABORTED or UNKNOWN_OUTCOME by the signal, INVALID_ARGUMENT and TOO_LARGE of the store, and what `work` throws.
   */
  transact<Value>(key: KeyState, work: Work<Value>, asked: Asked = {}): Promise<Told<Value>> {
    const { signal } = asked
    if (signal?.aborted) return Promise.reject(new KvError('ABORTED', { cause: signal.reason }))
    if (this.#failures >= failuresMax && !this.#mayTry())
      return Promise.resolve({ type: 'unknown', reason: 'store', cause: this.#lastCause })
    const { lane } = key
    return lane === undefined && asked.deadlineMs === undefined ? this.#first(key, work, asked) : this.#joined(lane, key, work, asked)
  }

  /** Forgets a key. @throws KvError of the store. */
  async destroy(key: KeyState, signal: AbortSignal | undefined, deadlineMs: number): Promise<void> {
    key.forget()
    try {
      await this.#options.kv.destroy(key.storeKey, { signal, deadline: deadlineMs })
    } finally {
      key.forget()
    }
  }

  /** Alone with the key: with one write on a guess, if there is one. Without async functions, each of which would cost as much as the rules do. */
  #first<Value>(key: KeyState, work: Work<Value>, asked: Asked): Promise<Told<Value>> {
    const sentAt = this.elapsed()
    const lane: Lane = {
      count: 1,
      alone: undefined,
      endsAt: sentAt + this.#options.deadlineMs,
      isRefused: false,
      isCrowded: false,
      giveUp: undefined,
    }
    key.lane = lane
    this.#alone.add(lane)
    if (!this.#hasTimer) this.#startTimer(this.#options.deadlineMs)
    const call = new Promise<Told<Value>>((resolve, reject) => {
      let isOver = false
      const end = (): boolean => {
        if (isOver) return false
        isOver = true
        lane.giveUp = undefined
        lane.alone = undefined
        this.#alone.delete(lane)
        this.#leave(key, lane)
        return true
      }
      const settle = (told: Told<Value>): void => {
        if (!end()) return
        if (this.#failures > 0) this.#succeeded()
        resolve(told)
      }
      const fail = (error: unknown): void => {
        if (!end()) return
        if (isCallersOwn(error, asked.signal)) reject(error)
        else resolve(this.#failed(error))
      }
      lane.giveUp = fail
      try {
        const guess = this.#guess(key, sentAt)
        const done = guess && work(guess.record, guess.now)
        if (guess === undefined || done?.next === undefined) return void this.#shown(key, work, asked, lane, undefined).then(settle, fail)
        const { next, value } = done
        const heard = (answer: CreateResult | UpdateResult): void => {
          const heardAt = this.elapsed()
          this.clock.read(answer.now, sentAt, heardAt)
          if (answer.ok && this.clock.confirm(guess.now, answer.now, heardAt)) {
            key.show(next, answer.entry, heardAt)
            return settle({ type: 'done', value, now: answer.now })
          }
          const goesOn = answer.ok
            ? this.#judgedAgain(key, work, { record: guess.record, version: answer.entry.version, now: answer.now }, asked)
            : this.#refused(key, work, asked, lane, answer, heardAt)
          void goesOn.then(settle, fail)
        }
        this.#write(key, next, guess, asked).then(heard, fail)
      } catch (error) {
        fail(error)
      }
    })
    if (lane.giveUp !== undefined) lane.alone = call
    return call
  }

  /** The guess was wrong, and its refusal brought the state along. */
  async #refused<Value>(
    key: KeyState,
    work: Work<Value>,
    asked: Asked,
    lane: Lane,
    { entry, now }: CreateResult | UpdateResult,
    heardAt: number,
  ): Promise<Told<Value>> {
    lane.isRefused = true
    return await this.#shown(key, work, asked, lane, this.#baseOf(key, entry, now, heardAt))
  }

  /** Alone with the key, from a state that the store has shown. */
  async #shown<Value>(key: KeyState, work: Work<Value>, asked: Asked, lane: Lane, from: Base | undefined): Promise<Told<Value>> {
    let base = from ?? (await this.#read(key, asked))
    for (let turn = 1; turn <= aloneTurnsMax; turn++) {
      const { next, value } = work(base.record, base.now)
      if (next === undefined) return { type: 'done', value, now: base.now as EpochMs }
      const sentAt = this.elapsed()
      const answer = await this.#write(key, next, base, asked)
      const heardAt = this.elapsed()
      this.clock.read(answer.now, sentAt, heardAt)
      if (answer.ok) {
        key.show(next, answer.entry, heardAt)
        return { type: 'done', value, now: answer.now }
      }
      lane.isRefused = true
      base = this.#baseOf(key, answer.entry, answer.now, heardAt)
    }
    return await this.#together(key, work, asked)
  }

  /** It is written, but was judged at another time than the store's: it is judged again, on top of what stood there before. */
  async #judgedAgain<Value>(key: KeyState, work: Work<Value>, base: Base, asked: Asked): Promise<Told<Value>> {
    tell(this.#options.name, { type: 'clock-differs' })
    const { record, now } = base
    const { next = { ...record, seenAt: Math.max(record.seenAt, now) }, value } = work(record, now)
    key.forget()
    const answer = await this.#write(key, next, base, asked)
    return answer.ok ? { type: 'done', value, now: answer.now } : await this.#together(key, work, asked)
  }

  /** Behind whoever is alone with the key, for beside it one of the two writes would be refused; and then together with all others. */
  async #joined<Value>(found: Lane | undefined, key: KeyState, work: Work<Value>, asked: Asked): Promise<Told<Value>> {
    const deadlineMs = asked.deadlineMs ?? this.#options.deadlineMs
    const endsAt = this.elapsed() + deadlineMs
    const lane: Lane = found ?? { count: 0, alone: undefined, endsAt, isRefused: false, isCrowded: false, giveUp: undefined }
    key.lane = lane
    if (lane.count > 0) lane.isCrowded = true
    lane.count++
    try {
      if (lane.alone !== undefined) await lane.alone.catch(() => undefined)
      const left = Math.max(1, Math.ceil(endsAt - this.elapsed()))
      const told = await this.#together(key, work, { ...asked, deadlineMs: left })
      if (this.#failures > 0) this.#succeeded()
      return told
    } catch (error) {
      if (isCallersOwn(error, asked.signal)) throw error
      return this.#failed(error)
    } finally {
      this.#leave(key, lane)
    }
  }

  /**
   * Callers that were answered together come back in the same turn: the first of them is not alone. Its guess would outdate what
   * `modify` knows of the key, and the next joined write would be refused and wait.
   */
  #leave(key: KeyState, lane: Lane): void {
    if (--lane.count > 0) return
    if (!lane.isCrowded) {
      if (key.lane === lane) key.lane = undefined
      return
    }
    lane.isCrowded = false
    setImmediate(() => {
      if (lane.count === 0 && key.lane === lane) key.lane = undefined
    })
  }

  /** Together with all others of the key in this process. */
  async #together<Value>(key: KeyState, work: Work<Value>, { signal, deadlineMs, aheadMs = 0 }: Asked): Promise<Told<Value>> {
    const { kv, plan } = this.#options
    let value: Value | undefined
    let record: LimitRecord | undefined
    const sentAt = this.elapsed()
    const { entry, now } = await this.#modify(
      kv,
      key.storeKey,
      (bytes, context) => {
        const before = bytes === undefined ? this.#blank() : this.#format.decode(bytes, context.now)
        const done = work(before, context.now)
        value = done.value
        record = done.next ?? before
        return done.next === undefined ? undefined : this.#format.encode(done.next)
      },
      { signal, deadline: deadlineMs ?? this.#options.deadlineMs, expiry: { extend: plan.lifeMs + aheadMs } },
    )
    const heardAt = this.elapsed()
    this.clock.read(now, sentAt, heardAt)
    key.show(record as LimitRecord, entry, heardAt)
    return { type: 'done', value: value as Value, now }
  }

  #guess({ record, version, expiresAt }: KeyState, elapsed: number): Base | undefined {
    const now = this.clock.reached(elapsed)
    if (now === undefined) return undefined
    return record === undefined || expiresAt <= now ? { record: this.#blank(), version: undefined, now } : { record, version, now }
  }

  async #read(key: KeyState, { signal }: Asked): Promise<Base> {
    const sentAt = this.elapsed()
    const { entry, now } = await this.#options.kv.get(key.storeKey, { signal, deadline: this.#options.deadlineMs })
    const heardAt = this.elapsed()
    this.clock.read(now, sentAt, heardAt)
    return this.#baseOf(key, entry, now, heardAt)
  }

  #baseOf(key: KeyState, entry: Entry | undefined, now: EpochMs, shownAt: number): Base {
    const record = entry === undefined ? this.#blank() : this.#format.decode(entry.value, now)
    key.show(record, entry, shownAt)
    return { record, version: entry?.version, now }
  }

  #write(key: KeyState, next: LimitRecord, base: Base, { signal }: Asked): Promise<CreateResult | UpdateResult> {
    const { kv, plan, deadlineMs: deadline } = this.#options
    const value = this.#format.encode(next)
    const ends = endsAt(plan, next)
    return base.version === undefined
      ? kv.create(key.storeKey, value, { ttl: Math.max(1, ends - base.now), signal, deadline })
      : kv.update(key.storeKey, value, { ifVersion: base.version, expiry: { until: ends as EpochMs }, signal, deadline })
  }

  #blank(): LimitRecord {
    this.#lives = (this.#lives + 1) >>> 0
    return blank(this.#options.plan, this.#lives)
  }

  /** One timer for all calls that are alone: those that came first end first, whatever the store does. The others have `modify`'s. */
  #startTimer(ms: number): void {
    this.#hasTimer = true
    this.#after(ms, () => {
      this.#hasTimer = false
      const now = this.elapsed()
      for (const { giveUp, endsAt, isRefused } of this.#alone) {
        if (endsAt > now) return this.#startTimer(endsAt - now)
        giveUp?.(new KvError(isRefused ? 'CONTENTION' : 'DEADLINE_EXCEEDED', { message: 'the store did not decide within the deadline' }))
      }
    })
  }

  /** A timer that keeps no process alive, and lets answers that are there already come first: when this process stood still, not the store was late. */
  #after(ms: number, run: () => void): () => void {
    const { timers } = this.#options
    let isOver = false
    const timer = timers.setTimeout(() => {
      setImmediate(() => {
        if (!isOver) run()
      })
    }, Math.ceil(ms))
    if (typeof timer === 'object' && timer !== null && 'unref' in timer && typeof timer.unref === 'function') timer.unref()
    return () => {
      isOver = true
      timers.clearTimeout(timer as never)
    }
  }

  #mayTry(): boolean {
    const now = this.elapsed()
    if (now < this.#pausedUntil) return false
    this.#pausedUntil = now + pauseMs // this one tries; the others wait for what it finds
    return true
  }

  #succeeded(): void {
    if (this.#failures >= failuresMax) tell(this.#options.name, { type: 'resumed' })
    this.#failures = 0
    this.#lastCause = undefined
  }

  #failed(cause: unknown): Told<never> {
    const reason = reasonOf(cause)
    if (reason === 'store' || reason === 'deadline') {
      this.#failures++
      this.#lastCause = cause
      if (this.#failures === failuresMax) tell(this.#options.name, { type: 'paused', reason, cause })
      if (this.#failures >= failuresMax) this.#pausedUntil = this.elapsed() + pauseMs
    } else if (this.#failures > 0) this.#succeeded()
    return { type: 'unknown', reason, cause }
  }
}

/** Between two attempts of a write. In real time, as it gives the machine time: under a test clock nobody would end it. */
function pause(ms: number, run: () => void): () => void {
  const timer = setTimeout(run, ms)
  return () => clearTimeout(timer)
}

/** The caller's mistake, or its own signal. */
const isCallersOwn = (error: unknown, signal: AbortSignal | undefined): boolean =>
  isKvError(error) &&
  (error.code === 'INVALID_ARGUMENT' ||
    error.code === 'TOO_LARGE' ||
    (signal?.aborted === true && (error.code === 'ABORTED' || error.code === 'UNKNOWN_OUTCOME')))

function reasonOf(error: unknown): UnknownReason {
  if (!isKvError(error)) return 'store'
  switch (error.code) {
    case 'CONTENTION':
      return 'contention'
    case 'DEADLINE_EXCEEDED':
      return 'deadline'
    case 'LIMIT_UNREADABLE':
      return 'unreadable'
    default:
      return 'store'
  }
}
