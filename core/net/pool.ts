/**
 * A few connections to one peer, or to several that can do the same.
 * Invariant: a request goes out once. It goes elsewhere only when its bytes never left; else the caller hears UNKNOWN_OUTCOME and decides.
 * Why a place and not a list: each place keeps one connection open by itself (dial, wait a little more after each failure, replace before the
 * old one goes), so there is nothing to count and no state in which nobody dials.
 */
import { setMaxListeners } from 'node:events'
import type { Random } from '../base/random.ts'
import { isKvError, KvError } from '../kv/errors.ts'
import type { Address } from './address.ts'
import { Connection, type ConnectionOptions } from './connection.ts'
import { dial, type DialSecurity } from './dial.ts'
import { systemTicker, type Ticker } from './ticker.ts'

export interface PoolOptions<Out, In> extends Omit<ConnectionOptions<Out, In>, 'ticker' | 'identity' | 'onLeaving'> {
  /** At least one. Each place begins at another one, and goes on to the next when it fails. */
  readonly addresses: readonly Address[]
  readonly security: DialSecurity
  /** Jitter, so that a thousand clients do not come back in one moment. */
  readonly random: Random
  /** Connections, 1 to 64. Default 4: a turn of one is joined into one write, so few are faster than many. */
  readonly size?: number
  /** For a connection to be there, verified, and to answer the ping if there is one. Default 2,000. */
  readonly dialTimeoutMs?: number
  /** The longest wait after the first failure in a row; it doubles with each. Default 50. */
  readonly backoffMs?: number
  /** The longest wait between two attempts. Default 5,000. */
  readonly backoffMsMax?: number
  /** How long a connection lives, give or take a fifth: a balancer in between spreads only new ones. Default 300,000. */
  readonly lifeMs?: number
  /** Requests on one connection before it is replaced. Default: no bound. */
  readonly lifeRequests?: number
  /** How long the requests of a replaced connection may take to end. Default 10,000. */
  readonly drainMs?: number
  /** Requests that wait while nobody is connected; beyond: BUSY. Default 1,024. */
  readonly waitingMax?: number
  readonly ticker?: Ticker
}

export interface PoolRequest {
  /** For everything, the wait for a connection included. */
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

export interface PoolStats {
  /** Connections that take requests. */
  readonly open: number
  readonly inFlight: number
  readonly dials: number
  readonly failedDials: number
  /** Answers that came after their request had ended, on the connections of now. */
  readonly late: number
}

/** A connection and the end of its use. */
interface Held<Out, In> {
  readonly connection: Connection<Out, In>
  readonly openedAt: number
  /** Resolves when another connection should take its place. */
  readonly worn: Promise<void>
  readonly wear: () => void
}
interface Place<Out, In> {
  held: Held<Out, In> | undefined
  /** Failures in a row. */
  failures: number
  /** Which address is next. */
  next: number
  fault: unknown
}
interface Waiter {
  readonly go: () => void
  readonly fail: (error: unknown) => void
}

/** A connection that ends sooner than this after it opened counts as a failure, in milliseconds: else its place would dial without a pause. */
const soonMs = 1_000

export class Pool<Out, In> implements AsyncDisposable {
  readonly #options: PoolOptions<Out, In>
  readonly #ticker: Ticker
  readonly #places: Place<Out, In>[]
  readonly #draining = new Set<Promise<void>>()
  readonly #waiters = new Set<Waiter>()
  readonly #closing = new AbortController()
  readonly #keepers: Promise<void>[]
  readonly #forget: () => void
  #turn = 0
  #dials = 0
  #failedDials = 0
  #closed: Promise<void> | undefined

  /** Begins to dial at once. */
  constructor(options: PoolOptions<Out, In>) {
    const { addresses, size = 4, security, random } = options
    if (addresses.length === 0) throw new KvError('INVALID_ARGUMENT', { message: 'a pool needs an address' })
    if (!Number.isInteger(size) || size < 1 || size > 64)
      throw new KvError('INVALID_ARGUMENT', { message: `a pool has 1 to 64 connections, not ${size}` })
    // One place listens at most once, but there may be more places than Node takes for a leak.
    setMaxListeners(0, this.#closing.signal)
    this.#options = options
    this.#ticker = options.ticker ?? systemTicker
    const first = random.int(addresses.length)
    this.#places = Array.from({ length: size }, (_, at) => ({ held: undefined, failures: 0, next: first + at, fault: undefined }))
    this.#forget = security === 'plain' ? () => undefined : security.credentials.onChange(() => this.recycle())
    this.#keepers = this.#places.map((place, at) => this.#keep(place, first + at))
  }

  get stats(): PoolStats {
    const open = this.#places.flatMap(({ held }) => (held?.connection.isOpen === true ? [held.connection] : []))
    return {
      open: open.length,
      inFlight: open.reduce((sum, { inFlight }) => sum + inFlight, 0),
      dials: this.#dials,
      failedDials: this.#failedDials,
      late: open.reduce((sum, { stats }) => sum + stats.late, 0),
    }
  }

  /**
   * Sends a message on the connection with the fewest requests, of those that answer, and waits for its answer.
   * @throws KvError BUSY, UNAVAILABLE, DEADLINE_EXCEEDED, ABORTED, CLOSED: nothing was sent. UNKNOWN_OUTCOME: it was.
   */
  async request(message: Out, { timeoutMs, signal }: PoolRequest): Promise<In> {
    const deadline = this.#ticker.now() + timeoutMs
    for (;;) {
      const connection = this.#pick() ?? (await this.#wait(deadline, signal))
      try {
        return await connection.request(message, { deadline, signal })
      } catch (error) {
        // The connection went before the bytes did. Whoever is closed is not picked again.
        if (!isKvError(error, 'UNAVAILABLE')) throw error
      }
    }
  }

  /**
   * Sends a message that has no answer.
   * @throws KvError BUSY, UNAVAILABLE when no connection is open now.
   */
  send(message: Out): void {
    const connection = this.#pick()
    if (connection === undefined) throw new KvError('UNAVAILABLE', { message: 'no connection is open', cause: this.#fault() })
    connection.send(message)
  }

  /** Waits until a connection is open. */
  async ready({ timeoutMs, signal }: PoolRequest): Promise<void> {
    if (this.#pick() === undefined) await this.#wait(this.#ticker.now() + timeoutMs, signal)
  }

  /** Replaces each connection by a new one, which is open before the old one takes no more. */
  recycle(): void {
    for (const { held } of this.#places) held?.wear()
  }

  /** Takes no more requests, waits for those under way until `drainMs` has passed, and closes. */
  close(drainMs = this.#options.drainMs ?? 10_000): Promise<void> {
    this.#closed ??= this.#close(drainMs)
    return this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #close(drainMs: number): Promise<void> {
    this.#closing.abort()
    this.#forget()
    for (const { fail } of this.#waiters) fail(new KvError('CLOSED'))
    await Promise.all(this.#keepers)
    for (const place of this.#places) if (place.held !== undefined) this.#retire(place.held.connection, drainMs)
    await Promise.all(this.#draining)
  }

  #pick(): Connection<Out, In> | undefined {
    if (this.#closing.signal.aborted) throw new KvError('CLOSED')
    const { lifeRequests = Infinity } = this.#options
    const count = this.#places.length
    this.#turn = (this.#turn + 1) % count
    const now = this.#ticker.now()
    let best: Held<Out, In> | undefined
    let isBestQuiet = false
    for (let step = 0; step < count; step++) {
      const held = this.#places[(this.#turn + step) % count]?.held
      if (held?.connection.isOpen !== true) continue
      const { connection } = held
      const isQuiet = connection.isQuiet(now)
      const isBetter =
        best === undefined || (isQuiet === isBestQuiet ? connection.inFlight < best.connection.inFlight : isBestQuiet && !isQuiet)
      if (!isBetter) continue
      best = held
      isBestQuiet = isQuiet
    }
    if (best !== undefined && best.connection.stats.requests >= lifeRequests) best.wear()
    return best?.connection
  }

  /** Waits for a connection. */
  async #wait(deadline: number, signal: AbortSignal | undefined): Promise<Connection<Out, In>> {
    const { waitingMax = 1_024 } = this.#options
    for (;;) {
      if (this.#waiters.size >= waitingMax) throw new KvError('BUSY', { message: 'too many requests wait for a connection' })
      this.#refuseHopeless()
      await new Promise<void>((resolve, reject) => {
        if (signal?.aborted === true) throw new KvError('ABORTED', { cause: signal.reason })
        const end = (): void => {
          cancel()
          signal?.removeEventListener('abort', onAbort)
          this.#waiters.delete(waiter)
        }
        const waiter: Waiter = {
          go: () => (end(), resolve()),
          fail: (error) => (end(), reject(error)),
        }
        const onAbort = (): void => waiter.fail(new KvError('ABORTED', { cause: signal?.reason }))
        const cancel = this.#ticker.after(deadline - this.#ticker.now(), () =>
          waiter.fail(new KvError('UNAVAILABLE', { message: 'nobody could be reached within the deadline', cause: this.#fault() })),
        )
        signal?.addEventListener('abort', onAbort, { once: true })
        this.#waiters.add(waiter)
      })
      const connection = this.#pick()
      if (connection !== undefined) return connection
    }
  }

  /** The last failure of any place that has no connection. */
  #fault(): unknown {
    return this.#places.find(({ fault }) => fault !== undefined)?.fault
  }

  /** Waiting does not help where every place met a peer that it must not trust. */
  #refuseHopeless(): void {
    const isHopeless = this.#places.every(({ fault }) => isKvError(fault) && fault.retry === 'never')
    if (isHopeless) throw this.#fault()
  }

  /** Keeps one place filled until the pool closes. */
  async #keep(place: Place<Out, In>, home: number): Promise<void> {
    const { signal } = this.#closing
    while (!signal.aborted) {
      let held: Held<Out, In>
      try {
        held = await this.#open(place.next)
      } catch (error) {
        if (signal.aborted) return
        place.fault = error
        this.#failedDials++
        this.#tellHopeless()
        await this.#fail(place)
        continue
      }
      const old = place.held
      place.held = held
      place.fault = undefined
      if (old !== undefined) this.#retire(old.connection)
      for (const { go } of this.#waiters) go()
      await held.worn
      if (held.connection.isOpen) place.next = home
      const isSoon = this.#ticker.now() - held.openedAt < soonMs
      if (!held.connection.isOpen && isSoon) await this.#fail(place)
      else place.failures = 0
    }
  }

  /** Goes on to the next address, after a pause that grows with each failure in a row. */
  async #fail(place: Place<Out, In>): Promise<void> {
    const { backoffMs = 50, backoffMsMax = 5_000, random } = this.#options
    const { signal } = this.#closing
    place.next++
    const longestMs = Math.min(backoffMsMax, backoffMs * 2 ** Math.min(place.failures++, 30))
    if (signal.aborted) return
    await new Promise<void>((resolve) => {
      const end = (): void => {
        cancel()
        signal.removeEventListener('abort', end)
        resolve()
      }
      const cancel = this.#ticker.after(Math.ceil(longestMs * (0.5 + random.next() / 2)), end)
      signal.addEventListener('abort', end, { once: true })
    })
  }

  #tellHopeless(): void {
    try {
      this.#refuseHopeless()
    } catch (error) {
      for (const { fail } of this.#waiters) fail(error)
    }
  }

  async #open(next: number): Promise<Held<Out, In>> {
    const { addresses, security, dialTimeoutMs = 2_000, lifeMs = 300_000, random, ping } = this.#options
    const { signal } = this.#closing
    const ticker = this.#ticker
    const deadline = ticker.now() + dialTimeoutMs
    const address = addresses[next % addresses.length] as Address
    this.#dials++
    const { socket, identity } = await dial({ address, security, deadline, ticker, signal })
    let wear: () => void = () => undefined
    const worn = new Promise<void>((resolve) => (wear = resolve))
    const connection = new Connection<Out, In>(socket, { ...this.#options, ticker, identity, onLeaving: wear })
    // Under TLS 1.3 a server that refuses our certificate does so after we believe to be connected; and a balancer may have nobody behind it.
    // Who has answered once is there, and has let us in.
    if (ping !== undefined) {
      try {
        await connection.request(ping, { deadline, signal })
      } catch (cause) {
        await connection.close()
        throw new KvError('UNAVAILABLE', {
          message: 'the peer took the connection but did not answer on it',
          hint: 'it may not know the authority of our certificate, be at its limit, or speak another protocol: look at its log',
          cause,
        })
      }
    }
    const cancelLife = ticker.after(lifeMs * (0.8 + random.next() * 0.4), wear)
    signal.addEventListener('abort', wear, { once: true })
    if (signal.aborted) wear()
    void worn.then(() => {
      cancelLife()
      signal.removeEventListener('abort', wear)
    })
    return { connection, openedAt: ticker.now(), worn, wear }
  }

  #retire(connection: Connection<Out, In>, drainMs = this.#options.drainMs ?? 10_000): void {
    const drained: Promise<void> = connection.drain(this.#ticker.now() + drainMs).finally(() => this.#draining.delete(drained))
    this.#draining.add(drained)
  }
}
