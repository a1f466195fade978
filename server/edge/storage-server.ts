/**
 * A storage server at work: the pure host between a disk, the map's source, its links to other servers, and the proxies that came.
 * Invariant: what a turn of the event loop brought is decided at its end in one batch; a disk that failed once is never asked again. Proxies
 * are answered on the connections that they opened: whoever comes again is somebody else.
 * Why all work is in one loop: the engine, its cache and the machines need no locks then; more cores run more servers.
 */
import { readFileSync } from 'node:fs'
import type { Random } from '../../core/base/random.ts'
import { epochMs } from '../../core/base/types.ts'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import { addressText, type Address } from '../../core/net/address.ts'
import type { Peer } from '../../core/net/accepted.ts'
import { Listener, type ListenerLimits, type ListenerStats } from '../../core/net/listener.ts'
import { systemTicker } from '../../core/net/ticker.ts'
import type { Credentials } from '../../core/net/tls.ts'
import {
  ClusterCodec,
  clusterVersions,
  negotiate,
  type ClusterMessage,
  type Greeting,
  type Versions,
} from '../../core/wire/cluster-codec.ts'
import type { MapRequest } from '../../core/wire/server-message.ts'
import type { Instant, RegisterEvent } from '../register/work.ts'
import type { Source } from '../cluster/source.ts'
import type { DurabilityMode } from '../storage/boot.ts'
import { Host } from '../storage/host.ts'
import type { StorageEvent, StorageTimes } from '../storage/marks.ts'
import { Links } from './links.ts'
import type { StorageDisk } from './storage-disk.ts'

export interface StorageServerOptions {
  readonly name: string
  readonly cluster: string
  readonly zone: number
  /** 1, 3 or 5. */
  readonly zones: number
  readonly listen: Address
  /** Where the others reach it, as `host:port`. Default: where it listens. */
  readonly advertise?: string | undefined
  readonly security: 'plain' | Credentials
  /** Open, and from now on this server's. */
  readonly disk: StorageDisk
  readonly durability: DurabilityMode
  readonly source: Source
  readonly random: Random
  readonly times?: StorageTimes
  /** How long peers may take for what, and how much of them is kept. */
  readonly limits?: Partial<ListenerLimits>
  /** Of our messages. Default: those of this release. */
  readonly versions?: Versions | undefined
  readonly onEvent?: (event: RegisterEvent | StorageEvent) => void
  /** For a person. */
  readonly onAlarm?: (what: string, shard: number, key: string) => void
  /** The disk failed, or a law of our own was broken: the process has to end. */
  readonly onFailure: (error: unknown) => void
}

/** How often the host looks whether something is due, in milliseconds. */
const tickMs = 10
/** Messages of one proxy that wait for its turn; it is read no further meanwhile. Each is a few hundred bytes, and the host has a bound of its own. */
const inFlightMax = 4_096

export class StorageServer implements AsyncDisposable {
  readonly #options: StorageServerOptions
  readonly #listener: Listener<ClusterMessage, ClusterMessage>
  readonly #links: Links<ClusterMessage>
  readonly #host: Host
  readonly #addresses = new Map<string, string>()
  /** By the name under which the host knows the connection. */
  readonly #proxies = new Map<string, Peer<ClusterMessage>>()
  readonly #names = new Map<Peer<ClusterMessage>, { readonly name: string; readonly isProxy: boolean }>()
  readonly #forget: () => void
  readonly #timer: NodeJS.Timeout
  #connections = 0
  #turnIsDue = false
  /** Closed, or failed. */
  #isOver = false
  #closing: Promise<void> | undefined

  static async open(options: StorageServerOptions): Promise<StorageServer> {
    const { disk, name } = options
    const { identity } = disk.store
    if (identity !== undefined && identity.server !== name)
      throw new KvError('ENGINE_DIFFERS', {
        message: `the directory belongs to storage server '${identity.server}', and this one is '${name}'`,
        hint: 'start it under its own name, or give this one another directory: nothing was changed',
      })
    const ends: { server?: StorageServer } = {}
    const listener = await Listener.open<ClusterMessage, ClusterMessage>({
      address: options.listen,
      security: options.security === 'plain' ? 'plain' : { credentials: options.security, roles: ['proxy', 'storage'] },
      codec: new ClusterCodec(options.versions),
      limits: { inFlightMax, queueBytesClose: 268_435_456, ...options.limits },
      farewell: { type: 'farewell' },
      onRequest(message, reply, peer) {
        reply(undefined)
        ends.server?.hear(message, peer)
      },
      onPeerEnd: (peer) => ends.server?.lose(peer),
    })
    ends.server = new StorageServer(options, listener)
    return ends.server
  }

  private constructor(options: StorageServerOptions, listener: Listener<ClusterMessage, ClusterMessage>) {
    const { name, cluster, zone, zones, security, disk, durability, source, random, times } = options
    this.#options = options
    this.#listener = listener
    const address = options.advertise ?? addressText(listener.address)
    this.#addresses.set(name, address)
    this.#links = new Links({
      codec: new ClusterCodec(options.versions),
      security: security === 'plain' ? 'plain' : { credentials: security, roles: ['storage'] },
      random,
      ticker: systemTicker,
      hello: this.#greeting(),
      judge: (server, first) => misfit(first, { name: server, cluster, roles: ['storage'], versions: options.versions }),
      isFarewell: ({ type }) => type === 'farewell',
      addressOf: (server) => this.#addresses.get(server),
      onMessage: (server, message) => this.#take(server, message),
    })
    this.#host = new Host({
      server: name,
      address,
      zone,
      zones,
      machine: { mode: durability, bootId: bootId() },
      store: disk.store,
      shards: disk.shards,
      now: now(),
      ...(times === undefined ? {} : { times }),
      ports: {
        random,
        disk: {
          read: (shard, key) => disk.read(shard, key),
          page: (shard, after, keysMax) => disk.page(shard, after, keysMax),
          due: (shard, until, after, keysMax) => disk.due(shard, until, after, keysMax),
          commit: (batch) => this.#commit(batch),
        },
        send: (to, message) => this.#send(to, message),
        askMap: (request) => void this.#askMap(request),
        alarm: (what, shard, key) => options.onAlarm?.(what, shard, key),
        count: (event) => options.onEvent?.(event),
      },
    })
    this.#forget = source.watch(({ rows, servers }) => {
      for (const row of servers) if (row.address !== undefined && row.server !== name) this.#addresses.set(row.server, row.address)
      this.#turn(() => {
        for (const row of rows) this.#host.learnRow(row)
      })
    })
    this.#timer = setInterval(() => this.#turn(() => this.#host.tick(now())), tickMs)
    this.#turn(() => this.#host.tick(now()))
  }

  /** Where it listens. */
  get address(): Address {
    return this.#listener.address
  }
  get stats(): { readonly listener: ListenerStats; readonly disk: StorageDisk['stats']; readonly droppedMessages: number } {
    return { listener: this.#listener.stats, disk: this.#options.disk.stats, droppedMessages: this.#links.dropped }
  }

  /** Whether it answers proxies for a shard. */
  isServing(shard: number): boolean {
    return this.#host.isServing(shard)
  }

  /** Begins a planned move of a shard to another server of this zone. @returns false when it is not served here, or moves already */
  handOver(shard: number, to: string): boolean {
    let began = false
    this.#turn(() => (began = this.#host.handOver(shard, to, now())))
    return began
  }

  /** Says farewell, finishes what is written, and closes the disk. */
  close(drainMs = 5_000): Promise<void> {
    this.#closing ??= this.#close(drainMs)
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #close(drainMs: number): Promise<void> {
    // Its word on how far the directory is reaches the map while there is still somebody to hear the answer.
    this.#turn(() => this.#host.tellCeiling(now()))
    await this.#listener.close(drainMs)
    clearInterval(this.#timer)
    this.#forget()
    await this.#links.close()
    // What is under way is written; nothing is begun any more.
    this.#isOver = true
    await this.#options.disk.close()
  }

  /** A message on a connection that somebody opened to us. */
  hear(message: ClusterMessage, peer: Peer<ClusterMessage>): void {
    const known = this.#names.get(peer)
    if (known === undefined) return this.#greet(message, peer)
    if (message.type === 'greeting') return void peer.send(this.#greeting())
    if (message.type !== 'farewell') this.#take(known.name, message)
  }

  lose(peer: Peer<ClusterMessage>): void {
    const known = this.#names.get(peer)
    this.#names.delete(peer)
    if (known?.isProxy === true) this.#proxies.delete(known.name)
  }

  #greeting(): Greeting {
    const { name, cluster, versions = clusterVersions } = this.#options
    return { type: 'greeting', ...versions, role: 'storage', name, cluster }
  }

  #greet(message: ClusterMessage, peer: Peer<ClusterMessage>): void {
    const { cluster, versions } = this.#options
    const why = misfit(message, { name: peer.identity?.name, cluster, roles: ['proxy', 'storage'], versions })
    if (why !== undefined || message.type !== 'greeting' || (peer.identity !== undefined && peer.identity.role !== message.role))
      return peer.close()
    const isProxy = message.role === 'proxy'
    const name = isProxy ? `${message.name}#${++this.#connections}` : message.name
    this.#names.set(peer, { name, isProxy })
    if (isProxy) this.#proxies.set(name, peer)
    peer.send(this.#greeting())
  }

  #take(from: string, message: ClusterMessage): void {
    this.#turn(() => {
      switch (message.type) {
        case 'prepare':
        case 'accept':
        case 'read':
          return this.#host.step(from, message, now())
        case 'greeting':
        case 'farewell':
        case 'promised':
        case 'accepted':
        case 'shown':
        case 'rejected':
        case 'pong':
        case 'repair':
          return // nobody says this to a storage server
        default:
          return this.#host.hear(from, message, now())
      }
    })
  }

  #send(to: string, message: ClusterMessage): void {
    const proxy = this.#proxies.get(to)
    if (proxy !== undefined) return void proxy.send(message)
    // A proxy that is gone by now asks again when it comes back.
    if (!to.includes('#')) this.#links.send(to, message)
  }

  #commit(batch: Parameters<StorageDisk['commit']>[0]): void {
    this.#options.disk.commit(batch).then(
      () => this.#turn(() => this.#host.committed()),
      (error: unknown) => this.#fail(error),
    )
  }

  async #askMap(request: MapRequest): Promise<void> {
    try {
      const answer = await this.#options.source.ask(request)
      this.#turn(() => this.#host.heardMap(answer, now()))
    } catch (error) {
      // Away: the host asks again by itself.
      if (!isKvError(error)) this.#fail(error)
    }
  }

  /** Runs something of the host, and ends the turn once all that came with it was taken. */
  #turn(run: () => void): void {
    if (this.#isOver) return
    try {
      run()
    } catch (error) {
      return this.#fail(error)
    }
    if (this.#turnIsDue) return
    this.#turnIsDue = true
    setImmediate(() => {
      this.#turnIsDue = false
      if (this.#isOver) return
      try {
        this.#host.endTurn()
      } catch (error) {
        this.#fail(error)
      }
    })
  }

  /** Nothing is answered from here on. */
  #fail(error: unknown): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#options.onFailure(error)
  }
}

/** Why a first message is not the greeting of somebody who may be there; undefined: it is. */
export function misfit(
  message: ClusterMessage,
  expected: {
    readonly name: string | undefined
    readonly cluster: string
    readonly roles: readonly Greeting['role'][]
    readonly versions?: Versions | undefined
  },
): string | undefined {
  const { versions = clusterVersions } = expected
  if (message.type !== 'greeting') return `it began with '${message.type}' and not with a greeting`
  if (negotiate(message, versions) === undefined)
    return `it speaks versions ${message.oldest} to ${message.newest}, and this release ${versions.oldest} to ${versions.newest}`
  if (message.cluster !== expected.cluster) return `it belongs to cluster '${message.cluster}'`
  if (!expected.roles.includes(message.role)) return `it is a ${message.role}`
  if (expected.name !== undefined && message.name !== expected.name) return `it is '${message.name}'`
  return undefined
}

export const now = (): Instant => ({ wall: epochMs(Date.now()), mono: performance.now() })

/** Of this start of the machine. Undefined: the system does not say. */
function bootId(): string | undefined {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return undefined
  }
}
