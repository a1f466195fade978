/**
 * What is to be written on one socket: joined into one buffer, and one call, a turn of the event loop.
 * Invariant: no more than `bytesMax` bytes wait, here and in the socket together; what has not been handed to the socket can be taken back.
 * Why own bytes and not the socket's queue: a write for each message costs three to five times the CPU, and what a socket has taken may have left.
 */
import type { Socket } from 'node:net'
import type { Ticker } from './ticker.ts'

/** One message on its way. */
export interface Outgoing {
  readonly bytes: Uint8Array
  /** Set when the socket has taken the bytes: whether they arrive is no longer known here. */
  hasLeft: boolean
  /** Set by the owner before that: they are never written. */
  isDropped: boolean
}

export interface JoinedWritesOptions {
  /** Called after each write with the instant of it. */
  readonly onWrite?: (now: number) => void
  /** Called when the socket takes bytes again. */
  readonly onDrain?: () => void
}

export class JoinedWrites {
  readonly #socket: Socket
  readonly #ticker: Ticker
  readonly #options: JoinedWritesOptions
  #queue: Outgoing[] = []
  #queuedBytes = 0
  #isPlanned = false
  #blockedAt: number | undefined
  #writes = 0

  constructor(socket: Socket, ticker: Ticker, options: JoinedWritesOptions = {}) {
    this.#socket = socket
    this.#ticker = ticker
    this.#options = options
    socket.on('drain', () => {
      this.#blockedAt = undefined
      this.flush()
      if (this.#blockedAt === undefined) options.onDrain?.()
    })
  }

  /** Bytes that wait, here and in the socket. */
  get bytes(): number {
    return this.#queuedBytes + this.#socket.writableLength
  }

  /** Bytes that the socket has not been given yet. */
  get queuedBytes(): number {
    return this.#queuedBytes
  }

  /** Calls of `socket.write` so far. */
  get writes(): number {
    return this.#writes
  }

  /** Since when the socket takes nothing, as an instant of the ticker; undefined: it does. */
  get blockedAt(): number | undefined {
    return this.#blockedAt
  }

  push(outgoing: Outgoing): void {
    this.#queue.push(outgoing)
    this.#queuedBytes += outgoing.bytes.byteLength
    if (this.#isPlanned || this.#blockedAt !== undefined) return
    this.#isPlanned = true
    setImmediate(() => this.flush())
  }

  /** Writes what waits, unless the socket takes nothing. */
  flush(): void {
    this.#isPlanned = false
    if (this.#queue.length === 0 || this.#blockedAt !== undefined || !this.#socket.writable) return
    const queue = this.#queue
    this.#queue = []
    this.#queuedBytes = 0
    const parts: Uint8Array[] = []
    for (const outgoing of queue) {
      if (outgoing.isDropped) continue
      outgoing.hasLeft = true
      parts.push(outgoing.bytes)
    }
    if (parts.length === 0) return
    const now = this.#ticker.now()
    this.#writes++
    const joined = parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts)
    if (!this.#socket.write(joined)) this.#blockedAt = now
    this.#options.onWrite?.(now)
  }

  /** Forgets what waits; the socket is at its end. */
  clear(): void {
    this.#queue = []
    this.#queuedBytes = 0
  }
}
