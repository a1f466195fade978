/**
 * A network of TCP links that can be hurt: every connection of the cluster goes through here, and each pair of processes is a link of its own.
 * Invariant: a link loses no byte and changes none, as TCP does not: what is held comes late, in its order, its end included, or the connection
 * is reset.
 * Why late and not never: a packet that a cut network dropped is sent again after the cut, so old messages arrive in a newer world.
 */
import { createConnection, createServer, type AddressInfo, type Server, type Socket } from 'node:net'

/** `up`: to the one who was dialled. */
export const ways = ['up', 'down'] as const
export type Way = (typeof ways)[number]

/** The two ends of one connection. */
interface Joined {
  readonly dialler: Socket
  readonly dialled: Socket
  /** Whose last bytes went, although he who sends them does not know. */
  readonly closed: Set<Way>
}

/** From one process to another. Hurts add up: a link is held as long as anybody holds it. */
export class Link {
  readonly source: string
  readonly target: string
  readonly #joined = new Set<Joined>()
  readonly #held = { up: 0, down: 0 }
  #delayMs = 0
  #waiting: (() => void)[] = []

  constructor(source: string, target: string) {
    this.source = source
    this.target = target
  }

  get connections(): number {
    return this.#joined.size
  }

  /** Nothing passes, nor the end of anything. @returns what lets it go */
  hold(held: readonly Way[]): () => void {
    for (const way of held) this.#held[way]++
    return once(() => {
      for (const way of held) this.#held[way]--
      for (const go of this.#waiting.splice(0)) go()
    })
  }

  /** Each piece takes so much longer. @returns what ends that */
  slow(ms: number): () => void {
    this.#delayMs += ms
    return once(() => void (this.#delayMs -= ms))
  }

  reset(): void {
    for (const { dialler, dialled } of this.#joined) {
      dialler.resetAndDestroy()
      dialled.resetAndDestroy()
    }
  }

  /** One side hears the end of the connections that are there, the other does not. @returns what resets them */
  halfClose(way: Way): () => void {
    const hurt = [...this.#joined]
    for (const { dialler, dialled, closed } of hurt) {
      closed.add(way)
      ;(way === 'up' ? dialled : dialler).end()
    }
    return once(() => {
      for (const { dialler, dialled } of hurt) {
        dialler.resetAndDestroy()
        dialled.resetAndDestroy()
      }
    })
  }

  async join(dialler: Socket, port: number): Promise<void> {
    await this.#passes('up')
    const dialled = createConnection({ host: '127.0.0.1', port, noDelay: true, allowHalfOpen: true }).on('error', () => undefined)
    const joined: Joined = { dialler, dialled, closed: new Set() }
    this.#joined.add(joined)
    await Promise.all([this.#carry(dialler, dialled, 'up', joined), this.#carry(dialled, dialler, 'down', joined)])
    this.#joined.delete(joined)
  }

  async #carry(from: Socket, to: Socket, way: Way, { closed }: Joined): Promise<void> {
    try {
      for await (const bytes of from.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        await this.#passes(way)
        if (closed.has(way) || to.destroyed) continue
        if (!to.write(bytes)) await drained(to)
      }
      await this.#passes(way)
      to.end()
    } catch {
      await this.#passes(way)
      to.resetAndDestroy()
    }
  }

  async #passes(way: Way): Promise<void> {
    if (this.#delayMs > 0) await new Promise((go) => setTimeout(go, this.#delayMs))
    while (this.#held[way] > 0) await new Promise<void>((go) => this.#waiting.push(go))
  }
}

const drained = (to: Socket): Promise<void> =>
  new Promise((resolve) => {
    const over = (): void => {
      to.off('drain', over).off('close', over)
      resolve()
    }
    to.on('drain', over).on('close', over)
  })

function once(act: () => void): () => void {
  let isDone = false
  return () => {
    if (isDone) return
    isDone = true
    act()
  }
}

/** All links, and the ports through which they go. */
export class Links implements AsyncDisposable {
  readonly #links = new Map<string, Link>()
  readonly #servers: Server[] = []
  readonly #sockets = new Set<Socket>()
  /** Who dials from which address of the loopback. */
  readonly #sources = new Map<string, string>()

  /** A process that dials from an address of its own is known by it. */
  knowSource(address: string, source: string): void {
    this.#sources.set(address, source)
  }

  /**
   * Opens a port that leads to another one.
   * @param source who dials it; absent: it is told by the address that is dialled from
   */
  async open(target: string, port: number, source?: string): Promise<number> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket)).on('error', () => undefined)
      const from = source ?? this.#sources.get(socket.remoteAddress ?? '') ?? 'somebody'
      void this.link(from, target).join(socket, port)
    })
    this.#servers.push(server)
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve))
    return (server.address() as AddressInfo).port
  }

  link(source: string, target: string): Link {
    const name = `${source} ${target}`
    const known = this.#links.get(name)
    if (known !== undefined) return known
    const link = new Link(source, target)
    this.#links.set(name, link)
    return link
  }

  async close(): Promise<void> {
    for (const server of this.#servers) server.close()
    for (const socket of this.#sockets) socket.destroy()
    for (const link of this.#links.values()) link.reset()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
