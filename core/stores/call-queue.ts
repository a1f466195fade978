/**
 * The calls that wait for a batch or for its durability, with their deadlines and signals.
 * Invariant: a call is settled once, and from then on holds no listener, no timer and no place in a queue.
 * Why one timer for all calls: a timer a call would cost more than the call; the earliest deadline is enough.
 * Why linked lists and no Sets: a Set that is filled and emptied all the time leaves a chain of dead tables, each with the calls of
 * its moment, and the garbage collector then carries every call into its old generation: a third of the time of a write.
 */
import { KvError } from '../kv/errors.ts'
import type { KvOperation } from '../record/operation.ts'
import type { Answer, Reading, Wait } from './verbs.ts'

/** Time that no clock step can move. Tests hand in their own. */
export interface Ticker {
  /** Milliseconds from any beginning; never goes back. */
  now(): number
  /** Runs `act` once after so many milliseconds and does not keep the process alive. Returns what cancels it. */
  after(ms: number, act: () => void): () => void
}

export const systemTicker: Ticker = {
  now: () => performance.now(),
  after(ms, act) {
    const timer = setTimeout(act, Math.min(ms, 2_147_483_647))
    timer.unref()
    return () => clearTimeout(timer)
  },
}

export interface QueueLimits {
  /** Calls that wait; beyond: BUSY. Each takes about 1 KiB with its promise. */
  readonly callsMax: number
  /** Bytes of their values; beyond: BUSY. */
  readonly bytesMax: number
  /** For calls that bring no deadline of their own, in milliseconds. */
  readonly deadlineMs: number
}

interface Common {
  readonly signal: AbortSignal | undefined
  readonly deadlineAt: number
  readonly bytes: number
  readonly reject: (error: unknown) => void
  state: 'queued' | 'sent' | 'settled'
  /** Neighbours in the list that the call stands in. */
  previous: Call | undefined
  next: Call | undefined
  onAbort: (() => void) | undefined
  fault: KvError | undefined
}
export interface WriteCall extends Common {
  readonly type: 'write'
  readonly key: string
  readonly operation: KvOperation
  readonly resolve: (answer: Answer) => void
  answer: Answer | undefined
  /** Whether the call changed its record; before it is decided: false. */
  changes: boolean
}
/** A read of a key that has a write before it in the queue, or whose record is not in memory. */
export interface ReadCall extends Common {
  readonly type: 'read'
  readonly keys: readonly string[]
  readonly resolve: (reading: Reading) => void
  answer: Reading | undefined
}
export type Call = WriteCall | ReadCall

/** Calls in order of arrival. Links of a removed call are cut, so that it holds no other. */
class CallList {
  size = 0
  first: Call | undefined
  #last: Call | undefined

  push(call: Call): void {
    call.previous = this.#last
    if (this.#last) this.#last.next = call
    else this.first = call
    this.#last = call
    this.size++
  }

  /** The call must be in this list. */
  remove(call: Call): void {
    const { previous, next } = call
    if (previous) previous.next = next
    else this.first = next
    if (next) next.previous = previous
    else this.#last = previous
    call.previous = undefined
    call.next = undefined
    this.size--
  }

  all(): Call[] {
    const calls: Call[] = []
    for (let call = this.first; call; call = call.next) calls.push(call)
    return calls
  }
}

export class CallQueue {
  readonly #limits: QueueLimits
  readonly #ticker: Ticker
  readonly #queued = new CallList()
  readonly #sent = new CallList()
  /** Writes a key that are queued or sent. */
  readonly #writes = new Map<string, number>()
  #bytes = 0
  #cancelTimer: (() => void) | undefined
  #timerAt = Number.POSITIVE_INFINITY

  constructor(limits: QueueLimits, ticker: Ticker) {
    this.#limits = limits
    this.#ticker = ticker
  }

  get queued(): number {
    return this.#queued.size
  }
  /** Queued or sent. */
  get waiting(): number {
    return this.#queued.size + this.#sent.size
  }

  /** A write of this key has not become durable yet. */
  isPending(key: string): boolean {
    return this.#writes.size > 0 && this.#writes.has(key)
  }

  write(key: string, operation: KvOperation, wait: Wait): Promise<Answer> {
    const bytes = operation.verb === 'destroy' ? 0 : operation.value.length
    this.#admit(bytes)
    return new Promise((resolve, reject) => {
      const { signal } = wait
      this.#add({
        type: 'write',
        key,
        operation,
        signal,
        deadlineAt: this.#deadlineOf(wait),
        bytes,
        resolve,
        reject,
        state: 'queued',
        previous: undefined,
        next: undefined,
        onAbort: undefined,
        fault: undefined,
        answer: undefined,
        changes: false,
      })
      this.#writes.set(key, (this.#writes.get(key) ?? 0) + 1)
    })
  }

  read(keys: readonly string[], wait: Wait): Promise<Reading> {
    this.#admit(0)
    return new Promise((resolve, reject) => {
      const { signal } = wait
      this.#add({
        type: 'read',
        keys,
        signal,
        deadlineAt: this.#deadlineOf(wait),
        bytes: 0,
        resolve,
        reject,
        state: 'queued',
        previous: undefined,
        next: undefined,
        onAbort: undefined,
        fault: undefined,
        answer: undefined,
      })
    })
  }

  /** The next calls for a batch, in order; a read counts its keys, and one call always fits. Those whose deadline has passed are refused here, without effect. */
  take(countMax: number, bytesMax: number): Call[] {
    const now = this.#ticker.now()
    const calls: Call[] = []
    let bytes = 0
    let count = 0
    for (let call = this.#queued.first; call; call = this.#queued.first) {
      if (call.deadlineAt <= now) {
        this.#expire(call)
        continue
      }
      const weight = call.type === 'read' ? call.keys.length : 1
      if (calls.length > 0 && (count + weight > countMax || bytes + call.bytes > bytesMax)) break
      bytes += call.bytes
      count += weight
      this.#queued.remove(call)
      this.#sent.push(call)
      call.state = 'sent'
      calls.push(call)
    }
    return calls
  }

  /** Answers a call with what was decided for it. A call that its signal or deadline ended before is left alone. */
  answer(call: Call): void {
    if (call.state === 'settled') return
    this.#settle(call)
    if (call.fault) call.reject(call.fault)
    else if (call.type === 'write') call.resolve(call.answer as Answer)
    else call.resolve(call.answer as Reading)
  }

  refuse(call: Call, error: KvError): void {
    if (call.state === 'settled') return
    this.#settle(call)
    call.reject(error)
  }

  /** A sent call will be decided again in a later batch. */
  sendAgain(call: Call): void {
    if (call.state !== 'sent') return
    this.#sent.remove(call)
    call.state = 'queued'
    this.#queued.push(call)
  }

  /** Ends every call: the store cannot go on. */
  refuseAll(error: KvError): void {
    for (const call of [...this.#sent.all(), ...this.#queued.all()]) this.refuse(call, error)
  }

  /** A sent call that was ended early still counts as a pending write until its batch is over. */
  release(call: Call): void {
    if (call.type !== 'write') return
    const left = (this.#writes.get(call.key) ?? 0) - 1
    if (left > 0) this.#writes.set(call.key, left)
    else this.#writes.delete(call.key)
  }

  #deadlineOf(wait: Wait): number {
    return this.#ticker.now() + (wait.deadlineMs ?? this.#limits.deadlineMs)
  }

  #admit(bytes: number): void {
    if (this.waiting >= this.#limits.callsMax)
      throw new KvError('BUSY', { message: `${this.waiting} calls wait for the disk, which is the most that may` })
    if (this.#bytes > 0 && this.#bytes + bytes > this.#limits.bytesMax)
      throw new KvError('BUSY', { message: `calls with ${this.#bytes} bytes wait for the disk, of at most ${this.#limits.bytesMax}` })
  }

  #add(call: Call): void {
    this.#queued.push(call)
    this.#bytes += call.bytes
    if (call.signal) {
      call.onAbort = () => this.#abort(call)
      call.signal.addEventListener('abort', call.onAbort, { once: true })
    }
    if (call.deadlineAt < this.#timerAt) this.#arm(call.deadlineAt)
  }

  #abort(call: Call): void {
    const cause = call.signal?.reason
    this.#endEarly(
      call,
      call.type === 'write' && call.changes ? new KvError('UNKNOWN_OUTCOME', { cause }) : new KvError('ABORTED', { cause }),
    )
  }

  #expire(call: Call): void {
    this.#endEarly(call, new KvError(call.type === 'write' && call.changes ? 'UNKNOWN_OUTCOME' : 'DEADLINE_EXCEEDED'))
  }

  #endEarly(call: Call, error: KvError): void {
    const wasQueued = call.state === 'queued'
    this.refuse(call, error)
    if (wasQueued) this.release(call)
  }

  #settle(call: Call): void {
    if (call.state === 'queued') this.#queued.remove(call)
    else this.#sent.remove(call)
    this.#bytes -= call.bytes
    call.state = 'settled'
    if (call.onAbort) {
      call.signal?.removeEventListener('abort', call.onAbort)
      call.onAbort = undefined
    }
    if (this.waiting === 0) this.#disarm()
  }

  #arm(at: number): void {
    this.#disarm()
    this.#timerAt = at
    this.#cancelTimer = this.#ticker.after(Math.max(1, Math.ceil(at - this.#ticker.now())), () => this.#onTimer())
  }

  #disarm(): void {
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
    this.#timerAt = Number.POSITIVE_INFINITY
  }

  #onTimer(): void {
    this.#disarm()
    const now = this.#ticker.now()
    let earliest = Number.POSITIVE_INFINITY
    for (const call of [...this.#sent.all(), ...this.#queued.all()]) {
      if (call.deadlineAt <= now) this.#expire(call)
      else earliest = Math.min(earliest, call.deadlineAt)
    }
    if (earliest < Number.POSITIVE_INFINITY) this.#arm(earliest)
  }
}
