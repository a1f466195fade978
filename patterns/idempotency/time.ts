/**
 * Time as the engine uses it: alarms, of which most are taken back before they ring, and budgets of time on top of them.
 * Invariant: an alarm rings when its time has passed, never before; nothing here keeps a process alive.
 * Why not a timer for each: a run sets three and takes all three back, a tenth of what it costs. Alarms of one length ring in the order in
 * which they were set, so one timer serves them all.
 */
import { KvError } from '../../core/kv/errors.ts'
import type { Timers } from './types.ts'

/** What may ring. The holder makes it and gives it to `Time.set`. */
export interface Alarm {
  /** On the local clock; set by `Time.set`. */
  dueAt: number
  ring(): void
}

/** Lengths of alarms that have a queue of their own: an engine uses three or four. */
const queuesMax = 16

export class Time {
  readonly timers: Timers
  readonly elapsed: () => number
  readonly random: () => number
  readonly #queues = new Map<number, AlarmQueue>()

  constructor(timers: Timers, random: () => number) {
    this.timers = timers
    this.elapsed = timers.elapsed?.bind(timers) ?? (() => performance.now())
    this.random = random
  }

  /** The alarms of one length, for many to come. */
  every(ms: number): AlarmQueue {
    let queue = this.#queues.get(ms)
    if (queue === undefined) {
      queue = new AlarmQueue(this, ms)
      if (this.#queues.size < queuesMax) this.#queues.set(ms, queue)
    }
    return queue
  }

  /** A timer of its own, after whole milliseconds. */
  after(ms: number, run: () => void): unknown {
    const timer = this.timers.setTimeout(run, Math.ceil(ms))
    if (typeof timer === 'object' && timer !== null && 'unref' in timer && typeof timer.unref === 'function') timer.unref()
    return timer
  }

  /** Also for what `after` never gave. */
  cancel(timer: unknown): void {
    this.timers.clearTimeout(timer as never)
  }
}

export class AlarmQueue {
  readonly #time: Time
  readonly #ms: number
  /** In the order of their ends. */
  readonly #waiting = new Set<Alarm>()
  /** What the timer is set for; undefined: it is not set. */
  #timerAt: number | undefined
  #timer: unknown

  constructor(time: Time, ms: number) {
    this.#time = time
    this.#ms = ms
  }

  set(alarm: Alarm): void {
    alarm.dueAt = this.#time.elapsed() + this.#ms
    this.#waiting.add(alarm)
    if (this.#timerAt === undefined) this.#arm(alarm.dueAt, this.#ms)
  }

  /** While others wait, the timer stays as it is: it looks for itself who is next. */
  cancel(alarm: Alarm): void {
    if (!this.#waiting.delete(alarm) || this.#waiting.size > 0) return
    this.#time.cancel(this.#timer)
    this.#timerAt = undefined
  }

  #arm(dueAt: number, ms: number): void {
    this.#timerAt = dueAt
    this.#timer = this.#time.after(ms, () => this.#ring(dueAt))
  }

  /** The timer's word counts for the instant that it was set for, whatever the clock says: the two may differ by a little. */
  #ring(timerAt: number): void {
    const now = Math.max(timerAt, this.#time.elapsed())
    this.#timerAt = undefined
    for (const alarm of this.#waiting) {
      if (alarm.dueAt > now) {
        if (this.#timerAt === undefined) this.#arm(alarm.dueAt, alarm.dueAt - now)
        return
      }
      this.#waiting.delete(alarm)
      alarm.ring()
    }
  }
}

/** The first pause before a store call is tried again; doubled each time, drawn between half and the whole of it. */
const pauseMsFirst = 20
const pauseMsMax = 1_000

/** A length of time within which something must be done. It holds one alarm until `end`. */
export class Budget implements Alarm {
  readonly #time: Time
  readonly #alarms: AlarmQueue
  dueAt = 0
  #isOver = false
  #cancel: (() => void) | undefined
  #pauseMs = pauseMsFirst

  constructor(time: Time, ms: number) {
    this.#time = time
    this.#alarms = time.every(ms)
    this.#alarms.set(this)
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** Gives up what is waited for, and gives the timer back. */
  end(): void {
    this.#alarms.cancel(this)
    this.ring()
  }

  ring(): void {
    this.#isOver = true
    this.#cancel?.()
  }

  /** A call that ends with the budget, with UNKNOWN_OUTCOME. One at a time. */
  guard<T>(call: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const giveUp = (): void => reject(new KvError('UNKNOWN_OUTCOME', { message: 'the store did not answer within the deadline' }))
      if (this.#isOver) return giveUp()
      this.#cancel = giveUp
      call().then(
        (result) => {
          this.#cancel = undefined
          resolve(result)
        },
        (error: unknown) => {
          this.#cancel = undefined
          reject(error)
        },
      )
    })
  }

  /** Waits a little longer each time. False: the time is over. `wake` is given what ends the pause early. */
  async pause(wake?: (end: () => void) => void): Promise<boolean> {
    if (this.#isOver) return false
    const ms = this.#pauseMs * (1 + this.#time.random()) * 0.5
    this.#pauseMs = Math.min(this.#pauseMs * 2, pauseMsMax)
    let timer: unknown
    await new Promise<void>((resolve) => {
      timer = this.#time.after(ms, resolve)
      this.#cancel = resolve
      wake?.(resolve)
    })
    this.#time.cancel(timer)
    return !this.#isOver
  }
}
