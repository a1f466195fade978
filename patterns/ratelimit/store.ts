/**
 * How a limiter speaks with its store: all callers of a key in this process share one conditional write, within a deadline.
 * Invariant: what is told as done rests on a write on condition of the very state that was judged, or on a state that was read after
 * its caller came; what the store did not say in time is told as unknown, never as allowed or denied.
 * Why one batch of a key at a time: two writes beside each other would refuse each other. Who comes meanwhile is in the next batch. The
 * state that the store showed last is a guess, so most batches need one call; a guess that is wrong costs one more, because its refusal
 * brings the true state along.
 */
import type { EpochMs } from '../../core/base/types.ts'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import type { CreateResult, Entry, KV, UpdateResult } from '../../core/kv/kv.ts'
import { modifier } from '../../core/kv/modify.ts'
import { Deadlines } from './deadlines.ts'
import { tell } from './events.ts'
import type { Format } from './record.ts'
import {
  gathering,
  Job,
  judged,
  patience,
  taken,
  type Base,
  type Batch,
  type Change,
  type KeyState,
  type Told,
  type Work,
} from './key-state.ts'
import { blank, endsAt, type LimitRecord, type Plan } from './rules.ts'
import { StoreClock } from './store-clock.ts'
import type { Timers, UnknownReason } from './types.ts'

export interface StoreOptions {
  readonly kv: KV
  readonly name: string
  readonly plan: Plan
  readonly deadlineMs: number
  readonly timers: Timers
}

/** Callers that wait for one key; beyond, the answer is unknown. */
const waitingMax = 16_384
/** From the second refusal of a batch on it waits a random part of 1, 2, 4 ... ms, so that processes do not go in step. */
const backoffMsMax = 16
/** Failures one after the other after which the store is left alone, and for how long: it is away, and each request would wait for the deadline. */
const failuresMax = 10
const pauseMs = 500

export class LimitStore {
  readonly clock = new StoreClock()
  readonly elapsed: () => number
  readonly #options: StoreOptions
  readonly #format: Format
  readonly #modify: ReturnType<typeof modifier>
  readonly #timed: Deadlines<Job>
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
    this.#timed = new Deadlines(
      this.elapsed,
      (ms, run) => this.#after(ms, run),
      (job) => {
        const code = job.batch?.isRefused ? 'CONTENTION' : 'DEADLINE_EXCEEDED'
        this.#giveUp(job, new KvError(code, { message: 'the store did not decide within the deadline' }), false)
      },
    )
    this.#modify = modifier({
      random: Math.random,
      clock: this.elapsed,
      after: (ms, run, idle) => (idle ? this.#after(ms, run) : pause(ms, run)),
    })
  }

  /**
   * Does `work` on the record of a key within the deadline of all. Calls back once. To `failed` goes a KvError ABORTED or UNKNOWN_OUTCOME by the
   * signal, INVALID_ARGUMENT and TOO_LARGE of the store, and what `work` throws.
   */
  ask<Value extends Change>(
    key: KeyState,
    work: Work<Value>,
    told: (told: Told<Value>) => void,
    failed: (error: unknown) => void,
    signal: AbortSignal | undefined,
  ): void {
    if (!this.#mayAsk(told, failed, signal)) return
    const { deadlineMs } = this.#options
    const job = new Job(key, work, told as Job['told'], failed, this.elapsed() + deadlineMs)
    this.#timed.add(job, deadlineMs)
    if (signal !== undefined) {
      const onAbort = (): void => this.#giveUp(job, new KvError(job.isSent ? 'UNKNOWN_OUTCOME' : 'ABORTED', { cause: signal.reason }), true)
      signal.addEventListener('abort', onAbort, { once: true })
      job.unlisten = () => signal.removeEventListener('abort', onAbort)
    }
    this.#enter(job)
  }

  /** As `ask`, with a deadline of its own. While the outcome is unknown the store is asked again: what is given back should not be lost. */
  change<Value extends Change>(
    key: KeyState,
    work: Work<Value>,
    deadlineMs: number,
    signal?: AbortSignal | undefined,
  ): Promise<Told<Value>> {
    const endsAt = this.elapsed() + deadlineMs
    return new Promise((resolve, reject) => {
      if (!this.#mayAsk(resolve, reject, signal)) return
      const serve = async (): Promise<void> => {
        try {
          resolve(await this.#modified(key, work, Math.max(1, Math.ceil(endsAt - this.elapsed())), signal))
          if (this.#failures > 0) this.#succeeded()
        } catch (error) {
          if (isCallersOwn(error, signal)) reject(error)
          else resolve(this.#failed(error))
        }
      }
      this.#enter(new Job(key, work, resolve as Job['told'], reject, endsAt, serve))
    })
  }

  /** Forgets a key, when no other call of it is under way: an answer that is older than this may not be believed after it. @throws KvError of the store. */
  destroy(key: KeyState, signal: AbortSignal | undefined, deadlineMs: number): Promise<void> {
    const endsAt = this.elapsed() + deadlineMs
    return new Promise((resolve, reject) => {
      const serve = async (): Promise<void> => {
        try {
          await this.#options.kv.destroy(key.storeKey, { signal, deadline: Math.max(1, Math.ceil(endsAt - this.elapsed())) })
          resolve()
        } catch (error) {
          reject(error)
        }
        key.forget()
      }
      this.#enter(new Job(key, unchanged, (told) => told.type === 'unknown' && reject(told.cause), reject, endsAt, serve))
    })
  }

  #mayAsk(told: (told: Told<never>) => void, failed: (error: unknown) => void, signal: AbortSignal | undefined): boolean {
    if (signal?.aborted) failed(new KvError('ABORTED', { cause: signal.reason }))
    else if (this.#failures >= failuresMax && !this.#mayTry()) told({ type: 'unknown', reason: 'store', cause: this.#lastCause })
    else return true
    return false
  }

  #enter(job: Job): void {
    const { key } = job
    if (key.waiting.length >= waitingMax) {
      this.#end(job)
      return job.told({
        type: 'unknown',
        reason: 'store',
        cause: new KvError('BUSY', { message: `${waitingMax} callers wait for this key` }),
      })
    }
    key.waiting.push(job)
    if (key.batch !== undefined) return
    key.batch = gathering
    if (key.isCrowded) process.nextTick(() => this.#serve(key))
    else void this.#serve(key)
  }

  /** One batch after the other, until nobody waits. */
  async #serve(key: KeyState): Promise<void> {
    for (;;) {
      const batch = (key.batch = taken(key))
      if (batch === undefined) return
      try {
        await (batch.jobs[0]?.serve === undefined ? this.#decide(key, batch) : Promise.all(batch.jobs.map((job) => job.serve?.())))
      } catch (error) {
        this.#failAll(batch, error)
      }
      if (key.batch !== batch) return // it took too long, and others have been served since
      key.isCrowded = batch.jobs.length > 1
      // Callers that were answered together come back before the turn is over, and are together again.
      if (key.isCrowded) await new Promise<void>((resolve) => process.nextTick(resolve))
    }
  }

  /** Brings a batch from what is known of its key to its answers. */
  async #decide(key: KeyState, batch: Batch): Promise<void> {
    let sentAt = this.elapsed()
    let base = this.#guess(key, sentAt) ?? (await this.#read(key, batch))
    let isOverwriting = false
    for (let refusals = 0; batch.count > 0 || isOverwriting;) {
      let next = judged(batch.jobs, base)
      if (next === undefined) {
        if (base.isGuess) {
          base = await this.#read(key, batch)
          continue
        }
        if (!isOverwriting) return this.#done(batch, base.now as EpochMs)
        next = { ...base.record, seenAt: Math.max(base.record.seenAt, base.now) }
      }
      sentAt = this.elapsed()
      const answer = await this.#write(key, next, base, isOverwriting ? this.#options.deadlineMs : patience(batch, sentAt))
      const heardAt = this.elapsed()
      const agrees = this.clock.read(answer.now, sentAt, heardAt)
      if (answer.ok && base.isGuess && !(agrees && answer.now >= base.now)) {
        // Written, but judged at another time than the store's: it is judged again, on top of what stood there before. Also when nobody
        // waits any more: at a time to come that stands in a record, everybody is judged.
        tell(this.#options.name, { type: 'clock-differs' })
        this.clock.distrust(heardAt)
        key.forget()
        base = { record: base.record, version: answer.entry.version, now: answer.now, isGuess: false }
        isOverwriting = true
        continue
      }
      if (key.batch !== batch) return
      if (answer.ok) {
        key.show(next, answer.entry, heardAt)
        return this.#done(batch, answer.now)
      }
      for (const job of batch.jobs) job.isSent = false
      batch.isRefused = true
      isOverwriting = false
      base = this.#baseOf(key, batch, answer.entry, answer.now, heardAt)
      if (++refusals < 2) continue
      await new Promise<void>((resolve) => pause(Math.random() * Math.min(2 ** (refusals - 2), backoffMsMax), resolve))
      base = await this.#read(key, batch) // others have gone on meanwhile
    }
  }

  /** The work of one that is patient: `modify` names its write, and so may send it again. */
  async #modified<Value extends Change>(
    key: KeyState,
    work: Work<Value>,
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Told<Value>> {
    const { kv, plan } = this.#options
    let value: Value | undefined
    let record: LimitRecord | undefined
    const sentAt = this.elapsed()
    const { entry, now } = await this.#modify(
      kv,
      key.storeKey,
      (bytes, context) => {
        const before = bytes === undefined ? this.#blank() : this.#format.decode(bytes, context.now)
        value = work(before, context.now)
        record = value.next ?? before
        return value.next === undefined ? undefined : this.#format.encode(value.next)
      },
      { signal, deadline: deadlineMs, expiry: { extend: plan.lifeMs } },
    )
    const heardAt = this.elapsed()
    this.clock.read(now, sentAt, heardAt)
    key.show(record as LimitRecord, entry, heardAt)
    return { type: 'done', value: value as Value, now }
  }

  #guess({ record, version, expiresAt }: KeyState, elapsed: number): Base | undefined {
    const now = this.clock.reached(elapsed)
    if (now === undefined) return undefined
    return record === undefined || expiresAt <= now
      ? { record: this.#blank(), version: undefined, now, isGuess: true }
      : { record, version, now, isGuess: true }
  }

  async #read(key: KeyState, batch: Batch): Promise<Base> {
    const sentAt = this.elapsed()
    const { entry, now } = await this.#options.kv.get(key.storeKey, { deadline: patience(batch, sentAt) })
    const heardAt = this.elapsed()
    this.clock.read(now, sentAt, heardAt)
    return this.#baseOf(key, batch, entry, now, heardAt)
  }

  #baseOf(key: KeyState, batch: Batch, entry: Entry | undefined, now: EpochMs, shownAt: number): Base {
    const record = entry === undefined ? this.#blank() : this.#format.decode(entry.value, now)
    if (key.batch === batch) key.show(record, entry, shownAt)
    return { record, version: entry?.version, now, isGuess: false }
  }

  #write(key: KeyState, next: LimitRecord, base: Base, deadline: number): Promise<CreateResult | UpdateResult> {
    const { kv, plan } = this.#options
    const value = this.#format.encode(next)
    const ends = endsAt(plan, next)
    return base.version === undefined
      ? kv.create(key.storeKey, value, { ttl: Math.max(1, ends - base.now), deadline })
      : kv.update(key.storeKey, value, { ifVersion: base.version, expiry: { until: ends as EpochMs }, deadline })
  }

  #blank(): LimitRecord {
    this.#lives = (this.#lives + 1) >>> 0
    return blank(this.#options.plan, this.#lives)
  }

  #done(batch: Batch, now: EpochMs): void {
    if (this.#failures > 0) this.#succeeded()
    for (const job of batch.jobs) {
      if (job.isOver) continue
      this.#end(job)
      job.told({ type: 'done', value: job.value as Change, now })
    }
  }

  #failAll(batch: Batch, error: unknown): void {
    for (const job of batch.jobs) this.#giveUp(job, error, isCallersOwn(error, undefined))
  }

  #giveUp(job: Job, error: unknown, isOwn: boolean): void {
    if (job.isOver) return
    this.#end(job)
    const { key, batch } = job
    if (isOwn) job.failed(error)
    else {
      const told = batch?.hasFailed === false ? this.#failed(error) : unknown(error)
      if (batch !== undefined) batch.hasFailed = true
      job.told(told)
    }
    // The store is late with an answer that nobody waits for: whoever comes next does not wait for it either.
    if (batch?.count !== 0 || key.batch !== batch) return
    key.forget()
    void this.#serve(key)
  }

  #end(job: Job): void {
    job.isOver = true
    this.#timed.remove(job)
    job.unlisten?.()
    if (job.batch !== undefined) job.batch.count--
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
    const { reason } = unknown(cause)
    if (reason === 'store' || reason === 'deadline') {
      this.#failures++
      this.#lastCause = cause
      if (this.#failures === failuresMax) tell(this.#options.name, { type: 'paused', reason, cause })
      if (this.#failures >= failuresMax) this.#pausedUntil = this.elapsed() + pauseMs
    } else if (this.#failures > 0) this.#succeeded()
    return { type: 'unknown', reason, cause }
  }
}

const unchanged = (): Change => ({})

const unknown = (cause: unknown): Told<never> & { type: 'unknown' } => ({ type: 'unknown', reason: reasonOf(cause), cause })

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
