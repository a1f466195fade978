/**
 * How a limiter speaks with its store: one conditional write for a charge, joined with others' where there are any, within a deadline.
 * Invariant: what is told as done rests on a write on condition of the very state that was judged, or on a state that was read after
 * its caller came; what the store did not say in time is told as unknown, never as allowed or denied.
 * Why two ways: who is alone with a key writes on a guess of its state, one call; who is not goes through `modify`, which joins
 * all callers of the key into one write. A guess that is wrong costs one more call, because its refusal brings the true state along.
 */
import type { EpochMs } from '../../core/base/types.ts'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import type { CreateResult, KV, UpdateResult, Version } from '../../core/kv/kv.ts'
import { modifier } from '../../core/kv/modify.ts'
import { tell } from './events.ts'
import type { Format } from './record.ts'
import { Recent, StoreClock } from './recent.ts'
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

/** How far a call has come that is alone. */
interface Progress {
  isRefused: boolean
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
  /** Its state or its time is a guess. */
  readonly isGuess: boolean
}

export class LimitStore {
  readonly recent = new Recent()
  readonly clock = new StoreClock()
  readonly #options: StoreOptions
  readonly #format: Format
  readonly #elapsed: () => number
  readonly #modify: ReturnType<typeof modifier>
  /** Calls under way for each key. */
  readonly #busy = new Map<string, Lane>()
  /** In the order in which they end. */
  readonly #waiting = new Set<Waiting>()
  #hasTimer = false
  #lives: number
  #failures = 0
  #lastCause: unknown
  #pausedUntil = -Infinity

  constructor(options: StoreOptions, format: Format, firstLife: number) {
    this.#options = options
    this.#format = format
    this.#elapsed = options.timers.elapsed?.bind(options.timers) ?? (() => performance.now())
    this.#lives = firstLife
    this.#modify = modifier({
      random: Math.random,
      clock: this.#elapsed,
      after: (ms, run, idle) => (idle ? this.#after(ms, run) : pause(ms, run)),
    })
  }

  elapsed(): number {
    return this.#elapsed()
  }

  /**
   * Does `work` on the record of a key.
   * @throws KvError ABORTED or UNKNOWN_OUTCOME by the signal, INVALID_ARGUMENT and TOO_LARGE of the store, and what `work` throws.
   */
  async transact<Value>(key: string, work: Work<Value>, asked: Asked = {}): Promise<Told<Value>> {
    const { signal } = asked
    if (signal?.aborted) throw new KvError('ABORTED', { cause: signal.reason })
    if (this.#failures >= failuresMax && !this.#mayTry()) return { type: 'unknown', reason: 'store', cause: this.#lastCause }
    let lane = this.#busy.get(key)
    const isAlone = lane === undefined && asked.deadlineMs === undefined
    if (lane === undefined) this.#busy.set(key, (lane = { count: 0, alone: undefined }))
    lane.count++
    try {
      const call = isAlone ? (lane.alone = this.#within(key, work, asked)) : this.#behind(lane, key, work, asked)
      const done = await call
      if (this.#failures > 0) this.#succeeded()
      return done
    } catch (error) {
      if (isCallersOwn(error, signal)) throw error
      return this.#failed(error)
    } finally {
      if (--lane.count === 0) this.#busy.delete(key)
      if (isAlone) lane.alone = undefined
    }
  }

  /** Forgets a key. @throws KvError of the store. */
  async destroy(key: string, signal: AbortSignal | undefined, deadlineMs: number): Promise<void> {
    this.recent.forget(key)
    try {
      await this.#options.kv.destroy(key, { signal, deadline: deadlineMs })
    } finally {
      this.recent.forget(key)
    }
  }

  async #alone<Value>(key: string, work: Work<Value>, asked: Asked, progress: Progress): Promise<Told<Value>> {
    let base = this.#guess(key) ?? (await this.#read(key, asked))
    for (let turn = 0; turn <= aloneTurnsMax; turn++) {
      const { record } = base
      const { next, value } = work(record, base.now)
      if (next === undefined) {
        if (!base.isGuess) return { type: 'done', value, now: base.now as EpochMs }
        base = await this.#read(key, asked)
        continue
      }
      const sentAt = this.#elapsed()
      const answer = await this.#write(key, next, base, asked)
      const heardAt = this.#elapsed()
      this.clock.read(answer.now, sentAt, heardAt)
      if (!answer.ok) {
        progress.isRefused = true
        base = this.#baseOf(key, answer.entry, answer.now, heardAt)
        continue
      }
      const { version } = answer.entry
      if (base.isGuess && !this.clock.confirm(base.now, answer.now, heardAt)) {
        // The state is written, but judged at another time than the store's: it is judged again, on top of what stood there before.
        tell(this.#options.name, { type: 'clock-differs' })
        return await this.#judgedAgain(key, work, { record, version, now: answer.now, isGuess: false }, asked)
      }
      this.recent.put(key, { version, record: next, shownAt: heardAt })
      return { type: 'done', value, now: answer.now }
    }
    return await this.#together(key, work, asked)
  }

  async #judgedAgain<Value>(key: string, work: Work<Value>, base: Base, asked: Asked): Promise<Told<Value>> {
    const { next, value } = work(base.record, base.now)
    this.recent.forget(key)
    const answer = await this.#write(key, next ?? { ...base.record, seenAt: Math.max(base.record.seenAt, base.now) }, base, asked)
    return answer.ok ? { type: 'done', value, now: answer.now } : await this.#together(key, work, asked)
  }

  /** Whoever is alone goes first: beside it, one of the two writes would be refused. */
  async #behind<Value>({ alone }: Lane, key: string, work: Work<Value>, asked: Asked): Promise<Told<Value>> {
    if (alone === undefined) return await this.#together(key, work, asked)
    const endsAt = this.#elapsed() + (asked.deadlineMs ?? this.#options.deadlineMs)
    await alone.catch(() => undefined)
    return await this.#together(key, work, { ...asked, deadlineMs: Math.max(1, Math.ceil(endsAt - this.#elapsed())) })
  }

  /** Together with all others of the key in this process. */
  async #together<Value>(key: string, work: Work<Value>, { signal, deadlineMs, aheadMs = 0 }: Asked): Promise<Told<Value>> {
    const { kv, plan } = this.#options
    let value: Value | undefined
    let record: LimitRecord | undefined
    const sentAt = this.#elapsed()
    const { entry, now } = await this.#modify(
      kv,
      key,
      (bytes, context) => {
        const before = bytes === undefined ? this.#blank() : this.#format.decode(bytes, context.now)
        const done = work(before, context.now)
        value = done.value
        record = done.next ?? before
        return done.next === undefined ? undefined : this.#format.encode(done.next)
      },
      { signal, deadline: deadlineMs ?? this.#options.deadlineMs, expiry: { extend: plan.lifeMs + aheadMs } },
    )
    const heardAt = this.#elapsed()
    this.clock.read(now, sentAt, heardAt)
    this.recent.put(key, { version: entry?.version, record: record as LimitRecord, shownAt: heardAt })
    return { type: 'done', value: value as Value, now }
  }

  #guess(key: string): Base | undefined {
    const now = this.clock.reached(this.#elapsed())
    if (now === undefined) return undefined
    const known = this.recent.get(key)
    return { record: known?.record ?? this.#blank(), version: known?.version, now, isGuess: true }
  }

  async #read(key: string, { signal }: Asked): Promise<Base> {
    const sentAt = this.#elapsed()
    const { entry, now } = await this.#options.kv.get(key, { signal, deadline: this.#options.deadlineMs })
    const heardAt = this.#elapsed()
    this.clock.read(now, sentAt, heardAt)
    return this.#baseOf(key, entry, now, heardAt)
  }

  #baseOf(key: string, entry: { readonly value: Uint8Array; readonly version: Version } | undefined, now: EpochMs, shownAt: number): Base {
    const record = entry === undefined ? this.#blank() : this.#format.decode(entry.value, now)
    this.recent.put(key, { version: entry?.version, record, shownAt })
    return { record, version: entry?.version, now, isGuess: false }
  }

  #write(key: string, next: LimitRecord, base: Base, { signal }: Asked): Promise<CreateResult | UpdateResult> {
    const { kv, plan, deadlineMs: deadline } = this.#options
    const value = this.#format.encode(next)
    const ends = endsAt(plan, next)
    return base.version === undefined
      ? kv.create(key, value, { ttl: Math.max(1, ends - base.now), signal, deadline })
      : kv.update(key, value, { ifVersion: base.version, expiry: { until: ends as EpochMs }, signal, deadline })
  }

  #blank(): LimitRecord {
    this.#lives = (this.#lives + 1) >>> 0
    return blank(this.#options.plan, this.#lives)
  }

  /** Ends with the deadline, whatever the store does. One timer for all calls: those that came first end first. */
  #within<Value>(key: string, work: Work<Value>, asked: Asked): Promise<Told<Value>> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { endsAt: this.#elapsed() + this.#options.deadlineMs, reject, isRefused: false }
      this.#waiting.add(waiting)
      if (!this.#hasTimer) this.#startTimer(this.#options.deadlineMs)
      this.#alone(key, work, asked, waiting).then(
        (told) => {
          this.#waiting.delete(waiting)
          resolve(told)
        },
        (error: unknown) => {
          this.#waiting.delete(waiting)
          reject(error)
        },
      )
    })
  }

  #startTimer(ms: number): void {
    this.#hasTimer = true
    this.#after(ms, () => {
      this.#hasTimer = false
      const now = this.#elapsed()
      for (const waiting of this.#waiting) {
        if (waiting.endsAt > now) return this.#startTimer(waiting.endsAt - now)
        this.#waiting.delete(waiting)
        waiting.reject(
          new KvError(waiting.isRefused ? 'CONTENTION' : 'DEADLINE_EXCEEDED', { message: 'the store did not decide within the deadline' }),
        )
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
    const now = this.#elapsed()
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
      if (this.#failures >= failuresMax) this.#pausedUntil = this.#elapsed() + pauseMs
    } else if (this.#failures > 0) this.#succeeded()
    return { type: 'unknown', reason, cause }
  }
}

/** Between two attempts of a write. In real time, as it gives the machine time: under a test clock nobody would end it. */
function pause(ms: number, run: () => void): () => void {
  const timer = setTimeout(run, ms)
  return () => clearTimeout(timer)
}

/** The calls of a key that are under way. */
interface Lane {
  count: number
  /** The one that came first and goes alone. */
  alone: Promise<unknown> | undefined
}

interface Waiting extends Progress {
  readonly endsAt: number
  readonly reject: (error: KvError) => void
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
