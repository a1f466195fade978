/**
 * One socket, many requests: each has a number, and the answer finds it by that.
 * Invariant: each request ends exactly once, by its deadline at the latest; one whose bytes have left is never reported as safe to repeat.
 * Why one timer a connection: a timer a request costs more than the request. It runs at the earliest deadline and looks at all that wait.
 *
 *   request --> queued --flush, once a turn--> left --answer--> resolved
 *                  |                             |
 *                  +- deadline, close: safe      +- deadline, close: UNKNOWN_OUTCOME; an answer after that is counted and dropped
 */
import type { Socket } from 'node:net'
import { KvError } from '../kv/errors.ts'
import type { Codec, Decoder } from './codec.ts'
import type { Identity } from './identity.ts'
import { JoinedWrites, type Outgoing } from './joined-writes.ts'
import type { Ticker } from './ticker.ts'

/** Why a connection ended: `closed` here, `ended` by the peer, `reset` by trouble, `protocol` by bytes that make no sense, `silent` by a ping without an echo. */
export type CloseReason = 'closed' | 'ended' | 'reset' | 'protocol' | 'silent'

export interface ConnectionOptions<Out, In> {
  readonly codec: Codec<Out, In>
  readonly ticker: Ticker
  readonly identity?: Identity | undefined
  /** Sent when nothing was heard for a while; whatever comes back is a sign of life. Absent: a peer that vanished is seen by TCP alone. */
  readonly ping?: Out
  /** Milliseconds of silence before a ping. Default 15,000. A request that runs out unheard asks at once. */
  readonly pingAfterMs?: number
  /** Milliseconds that a ping may go unheard. Default 2,000. */
  readonly pingTimeoutMs?: number
  /** Requests without an answer; beyond: BUSY. Default 16,384. */
  readonly inFlightMax?: number
  /** Bytes that wait to be written; beyond: BUSY. Default 4 MiB. */
  readonly queueBytesMax?: number
  /** Messages that answer nothing. */
  readonly onMessage?: (message: In) => void
  /** Whether a message says that the peer will close: then no request is taken any more, and the connection ends when all are answered. */
  readonly isFarewell?: (message: In) => boolean
  /** Once, when no request is taken any more: the peer said farewell, or the connection ended. */
  readonly onLeaving?: () => void
}

export interface RequestOptions {
  /** An instant of the ticker. It is noticed up to 4 ms later. */
  readonly deadline: number
  readonly signal?: AbortSignal | undefined
}

export interface ConnectionStats {
  readonly requests: number
  /** Calls of `socket.write`. */
  readonly writes: number
  /** Answers that came after their request had ended. */
  readonly late: number
  /** Messages that nobody takes. */
  readonly unexpected: number
}

interface Waiting<In> extends Outgoing {
  readonly deadline: number
  readonly signal: AbortSignal | undefined
  readonly onAbort: (() => void) | undefined
  readonly resolve: (answer: In) => void
  readonly reject: (error: unknown) => void
}

/** Deadlines that lie closer together than this are looked at together, in milliseconds. */
const grainMs = 4
/** Answers of a sound peer come within some milliseconds, and something is heard of a busy one all the time. */
const quietMs = 100
/** How long a closing socket may take to hand its last bytes to the network, in milliseconds. */
const lastBytesMs = 2_000

export class Connection<Out, In> implements AsyncDisposable {
  readonly #socket: Socket
  readonly #options: ConnectionOptions<Out, In>
  readonly #ticker: Ticker
  readonly #codec: Codec<Out, In>
  readonly #decoder: Decoder<In>
  readonly #out: JoinedWrites
  readonly #waiting = new Map<number, Waiting<In>>()
  readonly #inFlightMax: number
  readonly #queueBytesMax: number
  readonly #closed: Promise<CloseReason>
  #reason: CloseReason | undefined
  #cause: unknown
  #isLeaving = false
  #number = 0
  #heardAt: number
  /** The first write since anything was heard. */
  #unheardSince: number | undefined
  #pingedAt: number | undefined
  #pingNumber: number | undefined
  #timerAt = Infinity
  #cancelTimer: () => void = () => undefined
  #requests = 0
  #late = 0
  #unexpected = 0

  /** Takes over a socket that is connected (see dial.ts). */
  constructor(socket: Socket, options: ConnectionOptions<Out, In>) {
    this.#socket = socket
    this.#options = options
    this.#ticker = options.ticker
    this.#codec = options.codec.ofStream?.() ?? options.codec
    this.#decoder = this.#codec.decoder()
    this.#inFlightMax = options.inFlightMax ?? 16_384
    this.#queueBytesMax = options.queueBytesMax ?? 4_194_304
    this.#heardAt = this.#ticker.now()
    this.#out = new JoinedWrites(socket, this.#ticker, { onWrite: (now) => (this.#unheardSince ??= now) })
    this.#closed = new Promise((resolve) => socket.once('close', () => resolve(this.#end('ended'))))
    socket.on('data', (bytes) => this.#hear(bytes))
    socket.on('end', () => this.#end('ended'))
    socket.on('error', (error) => this.#end('reset', error))
    this.#arm()
  }

  /** Whether it takes requests. */
  get isOpen(): boolean {
    return this.#reason === undefined && !this.#isLeaving
  }
  /** Something was sent, and for longer than answers take nothing was heard: it may have vanished, and a ping has not found out yet. */
  isQuiet(now: number): boolean {
    return this.#unheardSince !== undefined && now - this.#unheardSince > quietMs
  }
  /** Requests without an answer. */
  get inFlight(): number {
    return this.#waiting.size
  }
  /** Bytes that wait to be written. */
  get queuedBytes(): number {
    return this.#out.bytes
  }
  get identity(): Identity | undefined {
    return this.#options.identity
  }
  /** Resolves when the socket is gone. */
  get closed(): Promise<CloseReason> {
    return this.#closed
  }
  get stats(): ConnectionStats {
    return { requests: this.#requests, writes: this.#out.writes, late: this.#late, unexpected: this.#unexpected }
  }

  /**
   * Sends a message and waits for its answer.
   * @throws KvError BUSY, UNAVAILABLE, DEADLINE_EXCEEDED, ABORTED: the bytes never left. UNKNOWN_OUTCOME: they did. What the codec throws: nothing was sent.
   */
  request(message: Out, { deadline, signal }: RequestOptions): Promise<In> {
    return new Promise<In>((resolve, reject) => {
      if (signal?.aborted === true) throw new KvError('ABORTED', { cause: signal.reason })
      if (deadline <= this.#ticker.now()) throw new KvError('DEADLINE_EXCEEDED')
      if (!this.isOpen) throw this.#unavailable()
      if (this.#waiting.size >= this.#inFlightMax) throw new KvError('BUSY', { message: 'the connection has as many requests as it may' })
      const number = this.#nextNumber()
      const bytes = this.#encode(message, number)
      const onAbort = signal === undefined ? undefined : (): void => this.#abandon(number, 'ABORTED', signal.reason)
      const waiting: Waiting<In> = { bytes, deadline, signal, onAbort, resolve, reject, hasLeft: false, isDropped: false }
      this.#requests++
      this.#waiting.set(number, waiting)
      this.#out.push(waiting)
      if (onAbort !== undefined) signal?.addEventListener('abort', onAbort, { once: true })
      if (deadline < this.#timerAt) this.#armAt(deadline)
    })
  }

  /**
   * Sends a message that has no answer. Whether it arrives is not known.
   * @throws KvError BUSY, UNAVAILABLE
   */
  send(message: Out): void {
    if (!this.isOpen) throw this.#unavailable()
    this.#out.push({ bytes: this.#encode(message, this.#nextNumber()), hasLeft: false, isDropped: false })
  }

  /** Takes no more requests, and closes when all that wait have ended; at the deadline (an instant of the ticker) in any case. */
  async drain(deadline: number): Promise<void> {
    this.#leave()
    if (deadline <= this.#ticker.now()) this.#end('closed')
    else if (this.#reason === undefined) this.#closeWhenIdle()
    const cancel = this.#ticker.after(deadline - this.#ticker.now(), () => this.#end('closed'))
    await this.#closed
    cancel()
  }

  /** Closes at once: what waits ends with UNAVAILABLE or UNKNOWN_OUTCOME. */
  async close(): Promise<void> {
    this.#end('closed')
    await this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #encode(message: Out, number: number): Uint8Array {
    const bytes = this.#codec.encode(message, number)
    if (this.#out.bytes + bytes.byteLength > this.#queueBytesMax)
      throw new KvError('BUSY', { message: 'the peer does not take what is sent to it fast enough' })
    return bytes
  }

  #nextNumber(): number {
    do this.#number = (this.#number + 1) >>> 0
    while (this.#waiting.has(this.#number) || this.#number === this.#pingNumber)
    return this.#number
  }

  #hear(bytes: Uint8Array): void {
    if (this.#reason !== undefined) return
    this.#heardAt = this.#ticker.now()
    this.#unheardSince = undefined
    this.#pingedAt = undefined
    const messages: In[] = []
    let fault: unknown
    let isFaulty = false
    try {
      this.#decoder.push(bytes, (message) => messages.push(message))
    } catch (error) {
      fault = error
      isFaulty = true
    }
    for (const message of messages) {
      if (this.#reason !== undefined) return
      this.#take(message)
    }
    if (isFaulty) this.#end('protocol', fault)
  }

  #take(message: In): void {
    if (this.#options.isFarewell?.(message) === true) {
      this.#leave()
      return this.#closeWhenIdle()
    }
    const number = this.#codec.numberOf(message)
    if (number === undefined) {
      if (this.#options.onMessage === undefined) this.#unexpected++
      return this.#options.onMessage?.(message)
    }
    if (number === this.#pingNumber) {
      this.#pingNumber = undefined
      return
    }
    const waiting = this.#remove(number)
    if (waiting === undefined) this.#late++
    else waiting.resolve(message)
    if (this.#isLeaving) this.#closeWhenIdle()
  }

  #remove(number: number): Waiting<In> | undefined {
    const waiting = this.#waiting.get(number)
    if (waiting === undefined) return undefined
    this.#waiting.delete(number)
    if (waiting.onAbort !== undefined) waiting.signal?.removeEventListener('abort', waiting.onAbort)
    return waiting
  }

  /** Ends a request without an answer. */
  #abandon(number: number, code: 'ABORTED' | 'DEADLINE_EXCEEDED', cause?: unknown): void {
    const waiting = this.#remove(number)
    if (waiting === undefined) return
    waiting.isDropped = true
    waiting.reject(new KvError(waiting.hasLeft ? 'UNKNOWN_OUTCOME' : code, cause === undefined ? {} : { cause }))
    if (this.#isLeaving) this.#closeWhenIdle()
  }

  /** Plans the next look at deadlines and at silence. */
  #arm(earliest = Infinity): void {
    if (this.#reason !== undefined) return
    const { ping, pingAfterMs = 15_000, pingTimeoutMs = 2_000 } = this.#options
    const silentAt = this.#pingedAt === undefined ? this.#heardAt + pingAfterMs : this.#pingedAt + pingTimeoutMs
    const at = ping === undefined ? earliest : Math.min(earliest, silentAt)
    if (at < this.#timerAt) this.#armAt(at)
  }

  #armAt(at: number): void {
    this.#cancelTimer()
    this.#timerAt = at
    this.#cancelTimer = this.#ticker.after(Math.max(at - this.#ticker.now(), grainMs), () => this.#due())
  }

  #due(): void {
    this.#timerAt = Infinity
    const now = this.#ticker.now()
    let earliest = Infinity
    let hasExpired = false
    for (const [number, { deadline, hasLeft }] of this.#waiting) {
      if (deadline > now) earliest = Math.min(earliest, deadline)
      else {
        hasExpired ||= hasLeft
        this.#abandon(number, 'DEADLINE_EXCEEDED')
      }
    }
    this.#listen(now, hasExpired)
    this.#arm(earliest)
  }

  /** Asks for a sign of life, or gives the peer up. */
  #listen(now: number, hasExpired: boolean): void {
    const { ping, pingAfterMs = 15_000, pingTimeoutMs = 2_000 } = this.#options
    if (ping === undefined || this.#reason !== undefined) return
    const pingedAt = this.#pingedAt
    if (pingedAt !== undefined) {
      if (now < pingedAt + pingTimeoutMs) return
      // After what may lie in the socket already: a process that stood still itself must not blame its peer.
      setImmediate(() => {
        if (this.#pingedAt === pingedAt) this.#end('silent')
      })
    } else if (now >= this.#heardAt + pingAfterMs || (hasExpired && this.#unheardSince !== undefined)) {
      this.#pingedAt = now
      this.#pingNumber = this.#nextNumber()
      const bytes = this.#codec.encode(ping, this.#pingNumber)
      this.#out.push({ bytes, hasLeft: false, isDropped: false })
    }
  }

  #leave(): void {
    if (this.#isLeaving || this.#reason !== undefined) return
    this.#isLeaving = true
    this.#options.onLeaving?.()
  }

  #closeWhenIdle(): void {
    if (this.#waiting.size === 0) this.#end('closed')
  }

  #unavailable(): KvError {
    const message = this.#reason === undefined ? 'the connection takes no more requests' : `the connection is gone (${this.#reason})`
    return new KvError('UNAVAILABLE', this.#cause === undefined ? { message } : { message, cause: this.#cause })
  }

  /** The end, once. @returns why. */
  #end(reason: CloseReason, cause?: unknown): CloseReason {
    if (this.#reason !== undefined) return this.#reason
    const wasLeaving = this.#isLeaving
    this.#reason = reason
    this.#cause = cause
    this.#cancelTimer()
    for (const number of this.#waiting.keys()) {
      const waiting = this.#remove(number) as Waiting<In>
      waiting.isDropped = true
      const message = `the connection ended (${reason}) before the answer came`
      waiting.reject(waiting.hasLeft ? new KvError('UNKNOWN_OUTCOME', { message, cause }) : this.#unavailable())
    }
    if (reason === 'closed') {
      this.#out.flush()
      this.#socket.destroySoon()
      const cancel = this.#ticker.after(lastBytesMs, () => this.#socket.destroy())
      this.#socket.once('close', cancel)
    } else {
      this.#socket.destroy()
    }
    this.#out.clear()
    if (!wasLeaving) this.#options.onLeaving?.()
    return reason
  }
}
