/**
 * Accepts peers: first as strangers, few and cheap, then as peers with requests.
 * Invariant: a stranger costs a bounded amount of memory for a bounded time, whatever it sends: 64 KiB, and all of them together 64 KiB times as
 * many as there may be. All peers together cost a bounded amount, too.
 * Why one timer for all: times of a peer are coarse, and a timer for each of ten thousand idle ones is not.
 *
 *   connection --> stranger --ClientHello--> handshake --certificate, role--> peer --> gone
 *                  2 s, oldest goes first    2 s                              paused, closed: see accepted.ts
 */
import { createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, type Server as TlsServer, type TLSSocket } from 'node:tls'
import { epochMs, type Clock, type EpochMs } from '../base/types.ts'
import { KvError } from '../kv/errors.ts'
import { Accepted, type AcceptedOptions, type Peer, type PeerEnd, type PeerLimits, type Reply } from './accepted.ts'
import { addressText, isLoopback, needLoopback, plainRefused, type Address } from './address.ts'
import { bind } from './bind.ts'
import type { Codec } from './codec.ts'
import { awaitHello } from './hello.ts'
import { admit, identityOf, type Identity, type Role } from './identity.ts'
import { systemTicker, type Ticker } from './ticker.ts'
import { endOf, type Credentials, type TlsState } from './tls.ts'

export type ListenSecurity =
  /** In the clear; loopback and Unix sockets alone. */
  | 'plain'
  | {
      readonly credentials: Credentials
      /** Who may come. */
      readonly roles: readonly Role[]
    }

export interface ListenerLimits extends PeerLimits {
  /** Connections in all; beyond, a new one is closed. Default 20,000. */
  readonly connectionsMax: number
  /** Of these, such as have not shown a certificate. Beyond, the one that has been silent for longest is closed. Default 1,024. */
  readonly strangersMax: number
  /**
   * Of these, such as are in their handshake; beyond, whoever begins one is closed. Default 384. OpenSSL takes memory for a certificate of up to
   * 100 KiB as soon as it is told of one (SSL_CTX_set_max_cert_list, which Node does not let us lower), so that one of these may cost 160 KiB
   * where the others cost 5: 384 of them are within the 64 KiB of each of 1,024.
   */
  readonly handshakesMax: number
  /** For the first bytes of TLS, and again for its handshake, in milliseconds. Default 2,000. */
  readonly handshakeMs: number
  /** Bytes kept for all peers together, pieces of messages and answers; beyond, whoever has most is closed. Default 256 MiB. */
  readonly bytesMax: number
}

export const listenerLimits: ListenerLimits = {
  connectionsMax: 20_000,
  strangersMax: 1_024,
  handshakesMax: 384,
  handshakeMs: 2_000,
  bytesMax: 268_435_456,
  inFlightMax: 256,
  queueBytesMax: 1_048_576,
  queueBytesClose: 67_108_864,
  readMs: 5_000,
  writeMs: 10_000,
  idleMs: 120_000,
}

export interface ListenerOptions<Out, In> {
  readonly address: Address
  readonly security: ListenSecurity
  readonly codec: Codec<Out, In>
  /** Called for each request, in the order in which they came. Its errors are not caught: they are bugs. */
  readonly onRequest: (request: In, reply: Reply<Out>, peer: Peer<Out>) => void
  readonly onPeer?: (peer: Peer<Out>) => void
  readonly onPeerEnd?: (peer: Peer<Out>, end: PeerEnd) => void
  /** Sent to each peer when this side is about to close; a peer that knows it sends no more. */
  readonly farewell?: Out
  readonly limits?: Partial<ListenerLimits>
  readonly ticker?: Ticker
  readonly clock?: Clock
}

export interface ListenerStats {
  readonly peers: number
  readonly strangers: number
  /** Bytes kept for all peers. */
  readonly bytes: number
  /** Connections that were closed because there were too many. */
  readonly crowded: number
  /** Strangers that took too long, or sent what is no TLS. */
  readonly strange: number
  /** Handshakes that failed: no certificate, a wrong authority, an end that has passed, TLS 1.2. */
  readonly untrusted: number
  /** Certificates in order whose role may not come. */
  readonly unwanted: number
  /** Peers that are gone, by why. */
  readonly ends: Readonly<Partial<Record<PeerEnd, number>>>
}

/** How often the times of peers are looked at, in milliseconds. */
const sweepMs = 250

export class Listener<Out, In> implements AsyncDisposable {
  readonly #options: ListenerOptions<Out, In>
  readonly #limits: ListenerLimits
  readonly #ticker: Ticker
  readonly #clock: Clock
  readonly #server: Server
  readonly #tls: TlsServer | undefined
  readonly #peers = new Set<Accepted<Out, In>>()
  readonly #sockets = new Set<Socket>()
  /** Those who have sent no ClientHello, the oldest first, with the instant at which they came. */
  readonly #silent = new Map<Socket, number>()
  readonly #counts = { crowded: 0, strange: 0, untrusted: 0, unwanted: 0 }
  readonly #ends: Partial<Record<PeerEnd, number>> = {}
  readonly #forget: () => void
  #address: Address
  #trusted: unknown
  #handshakes = 0
  #bytes = 0
  #cancelSweep: (() => void) | undefined
  #closing: Promise<void> | undefined
  #onEmpty: () => void = () => undefined

  /** @throws KvError INVALID_ARGUMENT for plain text off this machine, UNAVAILABLE when the address cannot be had. */
  static async open<Out, In>(options: ListenerOptions<Out, In>): Promise<Listener<Out, In>> {
    const { address, security } = options
    if (security === 'plain') needLoopback(address)
    const listener = new Listener(options)
    try {
      listener.#address = await bind(listener.#server, address)
    } catch (cause) {
      await listener.close(0)
      throw new KvError('UNAVAILABLE', {
        message: `cannot listen at ${addressText(address)}`,
        hint: 'another process may listen there, or this one may not: look at `cause`',
        retry: 'never',
        cause,
      })
    }
    // A failure to accept one connection (no descriptors left) ends no other.
    listener.#server.on('error', () => listener.#counts.crowded++)
    const bound = listener.#address
    if (security === 'plain' && 'host' in bound && !isLoopback(bound.host)) {
      await listener.close(0)
      throw plainRefused(addressText(bound))
    }
    return listener
  }

  private constructor(options: ListenerOptions<Out, In>) {
    const { security } = options
    this.#options = options
    this.#address = options.address
    this.#limits = { ...listenerLimits, ...options.limits }
    this.#ticker = options.ticker ?? systemTicker
    this.#clock = options.clock ?? { now: () => epochMs(Date.now()) }
    this.#server = createServer({ noDelay: true }, (socket) => this.#arrive(socket))
    this.#tls = security === 'plain' ? undefined : this.#secure(security)
    this.#trusted = security === 'plain' ? undefined : security.credentials.state.context.ca
    this.#forget = security === 'plain' ? () => undefined : security.credentials.onChange(() => this.#exchange(security.credentials))
  }

  /** Where it listens, or has listened, with the port that it was given. */
  get address(): Address {
    return this.#address
  }

  get stats(): ListenerStats {
    return {
      peers: this.#peers.size,
      strangers: this.#strangers,
      bytes: this.#bytes,
      ...this.#counts,
      ends: { ...this.#ends },
    }
  }

  get peers(): Iterable<Peer<Out>> {
    return this.#peers
  }

  get #strangers(): number {
    return this.#silent.size + this.#handshakes
  }

  /**
   * Takes no new connections; lets each peer go at the first moment at which it has nothing under way, after half of the time as soon as what
   * is under way is answered; and closes what is left after `drainMs`. Default 10,000; 0 closes at once.
   */
  close(drainMs = 10_000): Promise<void> {
    this.#closing ??= this.#close(drainMs)
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #close(drainMs: number): Promise<void> {
    this.#forget()
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    for (const socket of this.#silent.keys()) socket.destroy()
    const { farewell } = this.#options
    if (drainMs > 0 && this.#sockets.size > 0) {
      for (const peer of this.#peers) if (farewell !== undefined) peer.send(farewell)
      await this.#drain(drainMs)
    }
    for (const peer of this.#peers) peer.close()
    for (const socket of this.#sockets) socket.destroy()
    await closed
    this.#cancelSweep?.()
    this.#tls?.removeAllListeners()
  }

  /** Resolves when all are gone, or the time is over. */
  async #drain(drainMs: number): Promise<void> {
    const start = this.#ticker.now()
    const empty = new Promise<void>((resolve) => (this.#onEmpty = resolve))
    let cancel: () => void = () => undefined
    const over = new Promise<void>((resolve) => {
      const look = (): void => {
        const passedMs = this.#ticker.now() - start
        if (passedMs >= drainMs) return resolve()
        for (const peer of this.#peers) {
          if (passedMs >= drainMs / 2) peer.finish()
          else peer.finishIfQuiet()
        }
        cancel = this.#ticker.after(Math.min(drainLookMs, drainMs - passedMs), look)
      }
      // The farewell and what crosses it come first.
      cancel = this.#ticker.after(0, look)
    })
    await Promise.race([empty, over])
    cancel()
  }

  #secure({ credentials, roles }: Exclude<ListenSecurity, 'plain'>): TlsServer {
    const server = createTlsServer({
      ...contextOf(credentials.state),
      requestCert: true,
      rejectUnauthorized: true,
      handshakeTimeout: this.#limits.handshakeMs,
    })
    // Of each handshake exactly one of the two events tells the end.
    server.on('secureConnection', (socket) => {
      this.#handshakes--
      this.#identify(socket, credentials, roles)
    })
    server.on('tlsClientError', (_, socket) => {
      this.#handshakes--
      this.#counts.untrusted++
      socket.destroy()
    })
    return server
  }

  /** New connections use the new certificates. Peers that another bundle of authorities let in go at their next quiet moment and come anew. */
  #exchange({ state }: Credentials): void {
    this.#tls?.setSecureContext(contextOf(state))
    const isTrustKept = state.context.ca === this.#trusted
    this.#trusted = state.context.ca
    if (isTrustKept) return
    const { farewell } = this.#options
    for (const peer of this.#peers) {
      if (farewell !== undefined) peer.send(farewell)
      peer.retire()
    }
  }

  #arrive(socket: Socket): void {
    if (this.#closing !== undefined) return void socket.destroy()
    if (this.#sockets.size >= this.#limits.connectionsMax || !this.#makeRoom()) {
      this.#counts.crowded++
      return void socket.destroy()
    }
    this.#sockets.add(socket)
    socket.on('error', () => undefined)
    socket.once('close', () => {
      this.#sockets.delete(socket)
      this.#silent.delete(socket)
      if (this.#sockets.size === 0) this.#onEmpty()
    })
    if (this.#cancelSweep === undefined) this.#planSweep()
    const tls = this.#tls
    if (tls === undefined) return this.#admit(socket, undefined, undefined)
    this.#silent.set(socket, this.#ticker.now())
    awaitHello(socket, (isHello) => {
      this.#silent.delete(socket)
      if (!isHello) {
        this.#counts.strange++
        return void socket.destroy()
      }
      if (this.#handshakes >= this.#limits.handshakesMax) {
        this.#counts.crowded++
        return void socket.destroy()
      }
      this.#handshakes++
      tls.emit('connection', socket)
    })
  }

  /** Whether there is room for one more stranger; the oldest silent one makes it. Honest peers speak at once. */
  #makeRoom(): boolean {
    if (this.#tls === undefined || this.#strangers < this.#limits.strangersMax) return true
    const [oldest] = this.#silent.keys()
    if (oldest === undefined) return false
    this.#silent.delete(oldest)
    this.#counts.crowded++
    oldest.destroy()
    return true
  }

  #identify(socket: TLSSocket, credentials: Credentials, allowed: readonly Role[]): void {
    const certificate = socket.getPeerX509Certificate()
    try {
      if (certificate === undefined || !socket.authorized) throw new KvError('UNAVAILABLE')
      const identity = admit(identityOf(certificate.subjectAltName), { cluster: credentials.state.identity.cluster, allowed })
      this.#admit(socket, identity, endOf(certificate))
    } catch {
      this.#counts.unwanted++
      socket.on('error', () => undefined)
      socket.destroy()
    }
  }

  #admit(socket: Socket, identity: Identity | undefined, expiresAt: EpochMs | undefined): void {
    if (this.#closing !== undefined) return void socket.destroy()
    const { codec, onRequest, onPeer, onPeerEnd } = this.#options
    const options: AcceptedOptions<Out, In> = {
      codec,
      ticker: this.#ticker,
      limits: this.#limits,
      identity,
      expiresAt,
      onRequest,
      onBytes: (change) => this.#count(change),
      onEnd: (end) => {
        this.#peers.delete(peer)
        this.#ends[end] = (this.#ends[end] ?? 0) + 1
        onPeerEnd?.(peer, end)
      },
    }
    // Only from here on: a stranger that ends is gone, a peer that sends no more may still wait for answers.
    socket.allowHalfOpen = true
    const peer = new Accepted(socket, options)
    this.#peers.add(peer)
    onPeer?.(peer)
  }

  #count(change: number): void {
    this.#bytes += change
    while (this.#bytes > this.#limits.bytesMax) {
      let largest: Accepted<Out, In> | undefined
      for (const peer of this.#peers) if (largest === undefined || peer.bytes > largest.bytes) largest = peer
      if (largest === undefined) return
      largest.shed()
    }
  }

  #planSweep(): void {
    this.#cancelSweep = this.#ticker.after(sweepMs, () => {
      const now = this.#ticker.now()
      const wall = this.#clock.now()
      for (const [socket, arrivedAt] of this.#silent) {
        if (now - arrivedAt < this.#limits.handshakeMs) break
        this.#counts.strange++
        socket.destroy()
      }
      for (const peer of this.#peers) peer.sweep(now, wall)
      this.#cancelSweep = undefined
      if (this.#sockets.size > 0) this.#planSweep()
    })
  }
}

/** How often a draining listener looks for peers with nothing under way, in milliseconds. */
const drainLookMs = 20

const contextOf = (state: TlsState) => ({ ...state.context, sessionIdContext: state.sessionIdContext })
