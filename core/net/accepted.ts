/**
 * One peer that was let in: its requests, the answers to them, and how much of both may wait.
 * Invariant: a peer that does not read its answers is not read either; what waits for it is bounded, and what it sends in pieces is there in time or is over.
 * Why pausing and not refusing: TCP tells the sender to wait, which costs nobody a failed request.
 */
import type { Socket } from 'node:net'
import type { EpochMs } from '../base/types.ts'
import type { Codec, Decoder } from './codec.ts'
import type { Identity } from './identity.ts'
import { JoinedWrites } from './joined-writes.ts'
import type { Ticker } from './ticker.ts'

/** Ends a request with its answer, or with none. The second call does nothing. */
export type Reply<Out> = (answer: Out | undefined) => void

/** The other end of an accepted connection. */
export interface Peer<Out> {
  /** Absent on a plain connection. */
  readonly identity: Identity | undefined
  /** Its IP address and port; empty for a Unix socket. */
  readonly remote: string
  /** Sends a message that answers nothing. @returns false when the connection is gone: it never arrives. */
  send(message: Out): boolean
  close(): void
}

/** Why a peer was let go. `protocol`: bytes that make no sense. `slow`: a message or an answer took too long. `full`: too much waited for it. */
export type PeerEnd = 'ended' | 'reset' | 'protocol' | 'slow' | 'full' | 'idle' | 'expired' | 'closed'

export interface PeerLimits {
  /** Requests of one peer without an answer; beyond, it is not read. Default 256. */
  readonly inFlightMax: number
  /** Bytes of answers that wait for one peer; beyond, it is not read. Default 1 MiB. */
  readonly queueBytesMax: number
  /** Bytes of answers that wait for one peer; beyond, it is closed. Default 64 MiB: 256 answers of 200 KiB fit, so it takes more than slowness. */
  readonly queueBytesClose: number
  /** From the first byte of a message to its last, in milliseconds. Default 5,000. */
  readonly readMs: number
  /** How long a peer may take no byte of its answers, in milliseconds. Default 10,000. */
  readonly writeMs: number
  /** Silence without a request under way, in milliseconds. Default 120,000, as JunoDB's. */
  readonly idleMs: number
}

export interface AcceptedOptions<Out, In> {
  readonly codec: Codec<Out, In>
  readonly ticker: Ticker
  readonly limits: PeerLimits
  readonly identity: Identity | undefined
  /** When the certificate of the peer ends. */
  readonly expiresAt: EpochMs | undefined
  readonly onRequest: (request: In, reply: Reply<Out>, peer: Peer<Out>) => void
  /** What is kept for this peer has grown or shrunk by so much. */
  readonly onBytes: (change: number) => void
  readonly onEnd: (end: PeerEnd) => void
}

/** How long a peer that should come anew may go on without a quiet moment, in milliseconds. */
const retireMs = 60_000

export class Accepted<Out, In> implements Peer<Out> {
  readonly identity: Identity | undefined
  readonly remote: string
  readonly #socket: Socket
  readonly #options: AcceptedOptions<Out, In>
  readonly #codec: Codec<Out, In>
  readonly #decoder: Decoder<In>
  readonly #out: JoinedWrites
  #inFlight = 0
  /** What the last read held, and how much of it has been handed on. */
  #requests: In[] = []
  #next = 0
  #isWorking = false
  #isPaused = false
  #isFaulty = false
  /** Set when it takes no more requests, with the instant. */
  #isEnding = false
  #leftAt = 0
  #retiredAt: number | undefined
  /** When the end was sent. */
  #endedAt: number | undefined
  #end: PeerEnd | undefined
  #why: PeerEnd = 'ended'
  #counted = 0
  #heardAt: number
  /** When the first byte of the message came that is not whole yet. */
  #heldAt: number | undefined

  constructor(socket: Socket, options: AcceptedOptions<Out, In>) {
    this.#socket = socket
    this.#options = options
    this.identity = options.identity
    this.remote = socket.remoteAddress === undefined ? '' : `${socket.remoteAddress}:${socket.remotePort}`
    this.#codec = options.codec.ofStream?.() ?? options.codec
    this.#decoder = this.#codec.decoder()
    this.#heardAt = options.ticker.now()
    this.#out = new JoinedWrites(socket, options.ticker, {
      onDrain: () => this.#settle(),
      onWrite: () => this.#settle(),
    })
    socket.on('data', (bytes) => this.#hear(bytes))
    socket.on('end', () => this.#leave('ended'))
    socket.on('error', () => this.#close('reset'))
    socket.on('close', () => this.#close(this.#why))
  }

  get inFlight(): number {
    return this.#inFlight
  }
  /** What is kept for this peer: pieces of a message, and answers. */
  get bytes(): number {
    return this.#decoder.heldBytes + this.#out.bytes
  }

  send(message: Out): boolean {
    if (this.#end !== undefined || !this.#socket.writable) return false
    this.#write(this.#codec.encode(message, 0))
    return this.#end === undefined
  }

  close(): void {
    this.#close('closed')
  }

  /** Takes no more requests, answers those under way, and ends; at once when none is. */
  finish(): void {
    this.#leave('closed')
  }

  /** Ends when nothing is under way at this moment, else leaves it as it is. */
  finishIfQuiet(): void {
    const isQuiet = this.#inFlight === 0 && this.#next === this.#requests.length && this.#heldAt === undefined && this.#out.bytes === 0
    if (isQuiet) this.#leave('closed')
  }

  /** Lets go at the next quiet moment, and after a minute in any case. */
  retire(): void {
    this.#retiredAt ??= this.#options.ticker.now()
  }

  /** Looks at the times. `now` is the ticker's, `wall` the time of day. */
  sweep(now: number, wall: EpochMs): void {
    const { limits, expiresAt } = this.#options
    if (expiresAt !== undefined && expiresAt <= wall) return this.#close('expired')
    const blockedAt = this.#out.blockedAt
    if (blockedAt !== undefined && now - blockedAt >= limits.writeMs) return this.#close('slow')
    if (this.#isEnding) {
      // A request that is never answered must not keep its connection for ever.
      const isOver = this.#endedAt === undefined ? now - this.#leftAt >= limits.idleMs : now - this.#endedAt >= limits.writeMs
      return isOver ? this.#close(this.#why) : undefined
    }
    if (this.#retiredAt !== undefined) {
      if (now - this.#retiredAt >= retireMs) this.#leave('closed')
      else this.finishIfQuiet()
    }
    // While it is paused, by us, it cannot finish its message.
    if (this.#isPaused) return
    if (this.#heldAt !== undefined && now - this.#heldAt >= limits.readMs) return this.#close('slow')
    if (this.#inFlight === 0 && now - this.#heardAt >= limits.idleMs) this.#leave('idle')
  }

  /** Lets go, because too much waits in all. */
  shed(): void {
    this.#close('full')
  }

  #hear(bytes: Uint8Array): void {
    // After the farewell bytes are read and thrown away, so that the peer sees an end and not a reset.
    if (this.#isEnding || this.#end !== undefined) return
    this.#heardAt = this.#options.ticker.now()
    // All of the last read has been handed on, or nothing would be read.
    this.#requests = []
    this.#next = 0
    try {
      this.#decoder.push(bytes, (request) => this.#requests.push(request))
    } catch {
      this.#isFaulty = true
    }
    if (this.#decoder.heldBytes === 0) this.#heldAt = undefined
    else if (this.#heldAt === undefined || this.#requests.length > 0) this.#heldAt = this.#heardAt
    this.#settle()
  }

  /** Hands on requests, as many as may be under way. */
  #work(): void {
    if (this.#isWorking || this.#isEnding) return
    this.#isWorking = true
    while (this.#next < this.#requests.length && !this.#isFull && this.#end === undefined) {
      this.#take(this.#requests[this.#next++] as In)
    }
    this.#isWorking = false
    if (this.#isFaulty && this.#next === this.#requests.length) this.#close('protocol')
  }

  get #isFull(): boolean {
    const { inFlightMax, queueBytesMax } = this.#options.limits
    return this.#inFlight >= inFlightMax || this.#out.bytes >= queueBytesMax
  }

  #take(request: In): void {
    const number = this.#codec.numberOf(request) ?? 0
    let isDone = false
    this.#inFlight++
    this.#options.onRequest(
      request,
      (answer) => {
        if (isDone) return
        isDone = true
        this.#inFlight--
        if (answer !== undefined && this.#end === undefined) this.#write(this.#codec.encode(answer, number))
        this.#settle()
      },
      this,
    )
  }

  #write(bytes: Uint8Array): void {
    this.#out.push({ bytes, hasLeft: false, isDropped: false })
    const { queueBytesMax, queueBytesClose } = this.#options.limits
    if (this.#out.bytes > queueBytesMax) this.#out.flush()
    if (this.#out.bytes > queueBytesClose) this.#close('full')
    this.#count()
  }

  /** Goes on as far as it may: hands on requests, pauses or resumes reading, ends when it is time. */
  #settle(): void {
    if (this.#end === undefined) this.#work()
    if (this.#end !== undefined) return
    this.#count()
    if (this.#isEnding) return this.#inFlight === 0 ? this.#farewell() : undefined
    const { inFlightMax, queueBytesMax } = this.#options.limits
    const hasMore = this.#next < this.#requests.length
    if (!this.#isPaused && (hasMore || this.#isFull)) {
      this.#isPaused = true
      this.#socket.pause()
    } else if (this.#isPaused && !hasMore && this.#inFlight <= inFlightMax / 2 && this.#out.bytes <= queueBytesMax / 2) {
      this.#isPaused = false
      this.#heardAt = this.#options.ticker.now()
      if (this.#heldAt !== undefined) this.#heldAt = this.#heardAt
      this.#socket.resume()
    }
  }

  #leave(why: PeerEnd): void {
    if (this.#isEnding || this.#end !== undefined) return
    this.#isEnding = true
    this.#leftAt = this.#options.ticker.now()
    this.#why = why
    this.#socket.resume()
    if (this.#inFlight === 0) this.#farewell()
  }

  /** Sends the end, when all answers are with the socket. The peer's own end is waited for as long as for a write. */
  #farewell(): void {
    if (this.#endedAt !== undefined || this.#end !== undefined) return
    this.#out.flush()
    if (this.#out.queuedBytes > 0 || this.#endedAt !== undefined) return
    this.#endedAt = this.#options.ticker.now()
    this.#socket.end()
  }

  #close(end: PeerEnd): void {
    if (this.#end !== undefined) return
    this.#end = end
    this.#out.clear()
    this.#socket.destroy()
    this.#count()
    this.#options.onEnd(end)
  }

  /** Tells by how much what is kept has changed. */
  #count(): void {
    const bytes = this.#end === undefined ? this.bytes : 0
    const change = bytes - this.#counted
    if (change === 0) return
    this.#counted = bytes
    this.#options.onBytes(change)
  }
}
