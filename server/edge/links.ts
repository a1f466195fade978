/**
 * Links: from this process to storage servers, one connection each, opened when it is first needed and again whenever it is lost.
 * Invariant: a message leaves once or never. Nothing waits for a server that is away: whoever needs an answer asks again (P10, B2, L4).
 * Why one connection and not a pool: what goes to one server in a turn is joined into one write, so a second connection only makes two of it.
 */
import type { Random } from '../../core/base/random.ts'
import { isKvError } from '../../core/kv/errors.ts'
import { parseAddress } from '../../core/net/address.ts'
import type { Codec } from '../../core/net/codec.ts'
import { Connection } from '../../core/net/connection.ts'
import { dial, type DialSecurity } from '../../core/net/dial.ts'
import type { Ticker } from '../../core/net/ticker.ts'

export interface LinksOptions<Message> {
  readonly codec: Codec<Message, Message>
  readonly security: DialSecurity
  readonly random: Random
  readonly ticker: Ticker
  /** Said first on each connection, and again when nothing was heard for long: the other side says its own in return. */
  readonly hello: Message
  /**
   * Whether the first message of a server is one that both understand, and comes from the server that was meant.
   * @returns why not; undefined: it is.
   */
  readonly judge: (server: string, first: Message) => string | undefined
  /** Whether it says that the server is about to stop. */
  readonly isFarewell: (message: Message) => boolean
  /** Where a server is reached; undefined: nobody knows yet. */
  readonly addressOf: (server: string) => string | undefined
  readonly onMessage: (server: string, message: Message) => void
  /** A link came up or went down. */
  readonly onChange?: (server: string, isUp: boolean, why: string) => void
}

/** For a connection and the greeting, in milliseconds. */
const dialMs = 2_000
/** The first wait after a failure, and the longest; each is drawn between half of it and the whole, in milliseconds. */
const backoffMs = 20
const backoffMsMax = 1_000
/** What a link may have waiting; beyond, messages are dropped. Two batches of the largest records. */
const queueBytesMax = 16_777_216

interface Link<Message> {
  readonly server: string
  connection: Connection<Message, Message> | undefined
  isUp: boolean
  /** The other side leaves: what is under way ends, and nothing more is sent. */
  isLeaving: boolean
  failures: number
  readonly end: AbortController
}

export class Links<Message> implements AsyncDisposable {
  readonly #options: LinksOptions<Message>
  readonly #links = new Map<string, Link<Message>>()
  readonly #running = new Set<Promise<void>>()
  #dropped = 0
  #isClosed = false

  constructor(options: LinksOptions<Message>) {
    this.#options = options
  }

  /** Messages that were not sent, for nobody was there to take them. */
  get dropped(): number {
    return this.#dropped
  }

  isUp(server: string): boolean {
    const link = this.#links.get(server)
    return link?.isUp === true && !link.isLeaving
  }

  /** Opens links to these servers, and closes those to all others. */
  want(servers: Iterable<string>): void {
    const wanted = new Set(servers)
    for (const [server, link] of this.#links) if (!wanted.has(server)) this.#drop(server, link)
    for (const server of wanted) this.#open(server)
  }

  /** @returns false: it was not sent. True: it may arrive. */
  send(server: string, message: Message): boolean {
    const link = this.#links.get(server) ?? this.#open(server)
    if (link?.connection !== undefined && link.isUp) {
      try {
        link.connection.send(message)
        return true
      } catch (error) {
        if (!isKvError(error)) throw error
      }
    }
    this.#dropped++
    return false
  }

  async close(): Promise<void> {
    this.#isClosed = true
    for (const [server, link] of this.#links) this.#drop(server, link)
    await Promise.all(this.#running)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #open(server: string): Link<Message> | undefined {
    const known = this.#links.get(server)
    if (known !== undefined || this.#isClosed) return known
    const link: Link<Message> = { server, connection: undefined, isUp: false, isLeaving: false, failures: 0, end: new AbortController() }
    this.#links.set(server, link)
    const running = this.#keep(link).finally(() => this.#running.delete(running))
    this.#running.add(running)
    return link
  }

  #drop(server: string, link: Link<Message>): void {
    this.#links.delete(server)
    link.end.abort()
  }

  /** Dials as long as the link is wanted. */
  async #keep(link: Link<Message>): Promise<void> {
    const { signal } = link.end
    while (!signal.aborted) {
      const why = await this.#connect(link)
      if (signal.aborted) return
      this.#options.onChange?.(link.server, false, why)
      link.failures++
      const most = Math.min(backoffMs * 2 ** (link.failures - 1), backoffMsMax)
      await this.#pause(most / 2 + this.#options.random.next() * (most / 2), signal)
    }
  }

  /** One connection from its beginning to its end. @returns why it ended. */
  async #connect(link: Link<Message>): Promise<string> {
    const { codec, security, ticker, hello, judge, isFarewell, addressOf, onMessage, onChange } = this.#options
    const { server, end } = link
    const address = addressOf(server)
    if (address === undefined) return 'its address is not known'
    let refusal: string | undefined
    let cancel: () => void = () => undefined
    const take = (message: Message): void => {
      if (link.isUp) return onMessage(server, message)
      refusal = judge(server, message)
      if (refusal !== undefined) return void connection?.close()
      cancel()
      link.isUp = true
      link.failures = 0
      onChange?.(server, true, 'connected')
    }
    let connection: Connection<Message, Message> | undefined
    try {
      const deadline = ticker.now() + dialMs
      const { socket, identity } = await dial({ address: parseAddress(address), security, deadline, ticker, signal: end.signal })
      connection = new Connection(socket, {
        codec,
        ticker,
        identity,
        queueBytesMax,
        ping: hello,
        onMessage: take,
        isFarewell,
        onLeaving: () => (link.isLeaving = true),
      })
      const { closed } = connection
      // A certificate is for one server: whoever has another one is not it, whatever it says.
      if (identity !== undefined && identity.name !== server) {
        await connection.close()
        return `the certificate there is for ${identity.name}`
      }
      link.connection = connection
      const close = (): void => void connection?.close()
      end.signal.addEventListener('abort', close, { once: true })
      cancel = ticker.after(deadline - ticker.now(), close)
      connection.send(hello)
      const reason = await closed
      end.signal.removeEventListener('abort', close)
      return refusal ?? `the connection ended (${reason})`
    } catch (error) {
      await connection?.close()
      if (!isKvError(error)) throw error
      return error.message
    } finally {
      cancel()
      link.connection = undefined
      link.isUp = false
      link.isLeaving = false
    }
  }

  #pause(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const over = (): void => {
        cancel()
        signal.removeEventListener('abort', over)
        resolve()
      }
      const cancel = this.#options.ticker.after(ms, over)
      signal.addEventListener('abort', over, { once: true })
    })
  }
}
