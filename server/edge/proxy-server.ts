/**
 * A proxy at work: the pure coordinator and session between clients that speak JunoDB's protocol and links to storage servers.
 * Invariant: each request gets one answer, on the connection that it came on; and after the process stood still nothing that lay unread is
 * taken (S4): its clients' connections are closed, and they ask anew.
 * Why it keeps nothing: any number of proxies behind any balancer do the same, and one that dies loses nobody's state.
 */
import type { Random } from '../../core/base/random.ts'
import { epochMs } from '../../core/base/types.ts'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import type { Address } from '../../core/net/address.ts'
import type { Peer, Reply } from '../../core/net/accepted.ts'
import { Listener, type ListenerLimits, type ListenerStats } from '../../core/net/listener.ts'
import { systemTicker } from '../../core/net/ticker.ts'
import type { Credentials } from '../../core/net/tls.ts'
import { registerKey, shardOf } from '../../core/record/register-key.ts'
import { ClusterCodec, clusterVersions, type ClusterMessage, type Versions } from '../../core/wire/cluster-codec.ts'
import { JunoCodec } from '../../core/wire/juno-codec.ts'
import type { JunoMessage } from '../../core/wire/juno-message.ts'
import type { Source } from '../cluster/source.ts'
import { Coordinator } from '../proxy/coordinator.ts'
import * as door from '../proxy/juno-door.ts'
import { Admission, openPolicy, type Policy, type PolicyVerb } from '../proxy/policy.ts'
import { gapMsMax, TurnWatch, workOf, type ClientRequest } from '../proxy/session.ts'
import type { Answer, Instant, RegisterEvent, Work } from '../register/work.ts'
import { Links } from './links.ts'
import type { Sealer } from './sealer.ts'
import { misfit, now } from './storage-server.ts'

export interface ProxyServerOptions {
  readonly name: string
  readonly cluster: string
  /** 1, 3 or 5. */
  readonly zones: number
  readonly shards: number
  readonly listen: Address
  readonly security: 'plain' | Credentials
  readonly source: Source
  readonly random: Random
  /** Who may do what. Default on a plain listener, which is on this machine alone: everybody everything. Needed under TLS, where no rule means no. */
  readonly policy?: Policy
  /** Encryption at rest. Absent: values are stored as they come. */
  readonly sealer?: Sealer
  /** JunoDB's clients may send a request again under its id. Default false, see session.ts. */
  readonly plainIdsRepeat?: boolean
  /** How long clients may take for what, and how much of them is kept. */
  readonly limits?: Partial<ListenerLimits>
  /** Of our messages. Default: those of this release. */
  readonly versions?: Versions | undefined
  readonly onEvent?: (event: RegisterEvent | 'unread-dropped') => void
  /** A request was answered: with JunoDB's status, after so many milliseconds. */
  readonly onRequest?: (verb: PolicyVerb, status: number, ms: number) => void
  /** A law of our own was broken: the process has to end. */
  readonly onFailure: (error: unknown) => void
}

const pingMs = 1_000
/** A turn comes at least so often: a third of the longest gap. */
const turnMs = Math.floor(gapMsMax / 3)
const repairMs = 500
/** One connection of JunoDB's clients carries all requests of a process. */
const inFlightMax = 4_096

interface Waiting {
  readonly message: JunoMessage
  readonly name: string
  readonly verb: ClientRequest['verb']
  readonly reply: Reply<JunoMessage>
  readonly startedMono: number
  readonly versionMax: number
}

export class ProxyServer implements AsyncDisposable {
  readonly #options: ProxyServerOptions
  readonly #listener: Listener<JunoMessage, JunoMessage>
  readonly #links: Links<ClusterMessage>
  readonly #coordinator: Coordinator
  readonly #admission: Admission
  readonly #watch = new TurnWatch()
  readonly #waiting = new Map<Work, Waiting>()
  readonly #addresses = new Map<string, string>()
  readonly #forget: () => void
  readonly #timers: readonly NodeJS.Timeout[]
  #wakeAtMono = Infinity
  #wakeTimer: NodeJS.Timeout | undefined
  #asking = false
  #isFailed = false
  #closing: Promise<void> | undefined

  static async open(options: ProxyServerOptions): Promise<ProxyServer> {
    if (options.security !== 'plain' && options.policy === undefined)
      throw new KvError('INVALID_ARGUMENT', {
        message: 'a proxy with certificates needs a policy',
        hint: 'say which clients may do what; without a rule nobody may',
      })
    const proposerId = await options.source.proposerId()
    const ends: { server?: ProxyServer } = {}
    const listener = await Listener.open<JunoMessage, JunoMessage>({
      address: options.listen,
      security: options.security === 'plain' ? 'plain' : { credentials: options.security, roles: ['client', 'admin'] },
      codec: new JunoCodec(),
      limits: { inFlightMax, ...options.limits },
      onRequest: (message, reply, peer) => ends.server?.hear(message, reply, peer),
    })
    ends.server = new ProxyServer(options, listener, proposerId)
    return ends.server
  }

  private constructor(options: ProxyServerOptions, listener: Listener<JunoMessage, JunoMessage>, proposerId: number) {
    const { name, cluster, zones, shards, security, source, random, policy, versions = clusterVersions } = options
    this.#options = options
    this.#listener = listener
    this.#admission = new Admission(policy ?? openPolicy)
    this.#links = new Links({
      codec: new ClusterCodec(versions),
      security: security === 'plain' ? 'plain' : { credentials: security, roles: ['storage'] },
      random,
      ticker: systemTicker,
      hello: { type: 'greeting', ...versions, role: 'proxy', name, cluster },
      judge: (server, first) => misfit(first, { name: server, cluster, roles: ['storage'], versions }),
      isFarewell: ({ type }) => type === 'farewell',
      addressOf: (server) => this.#addresses.get(server),
      onMessage: (server, message) => this.#turn(() => this.#take(server, message)),
      onChange: (_server, isUp) => {
        // It tells its clock first, and hears ours: without a ping it answers no write.
        if (isUp) this.#turn(() => this.#coordinator.ping(now()))
      },
    })
    this.#coordinator = new Coordinator({
      zones,
      rows: [],
      ports: {
        random,
        proposerId,
        shardOf: (key) => shardOf(Buffer.from(key, 'latin1').subarray(1 + key.charCodeAt(0)), shards),
        send: (to, message) => void this.#links.send(to, message),
        wakeAt: (mono) => this.#wakeAt(mono),
        answer: (work, answer) => this.#answer(work, answer),
        count: (event) => options.onEvent?.(event),
        wantRow: () => void this.#readMap(),
      },
    })
    this.#forget = source.watch(({ rows, servers }) => {
      for (const { server, address } of servers) if (address !== undefined) this.#addresses.set(server, address)
      this.#turn(() => {
        const at = now()
        for (const row of rows) this.#coordinator.learnRow(row, at)
        this.#links.want(rows.flatMap((row) => row.servers))
      })
    })
    this.#timers = [
      setInterval(() => this.#turn(() => this.#coordinator.ping(now())), pingMs),
      setInterval(() => this.#turn(() => undefined), turnMs),
    ]
  }

  get address(): Address {
    return this.#listener.address
  }
  get stats(): { readonly listener: ListenerStats; readonly waiting: number; readonly keys: number; readonly droppedMessages: number } {
    const { waiting, keys } = this.#coordinator
    return { listener: this.#listener.stats, waiting, keys, droppedMessages: this.#links.dropped }
  }
  /** Whether a quorum of the zones of each shard can be reached. */
  isReady(servers: readonly (readonly string[])[]): boolean {
    return servers.every((zones) => zones.filter((server) => this.#links.isUp(server)).length > zones.length / 2)
  }

  /** Takes effect at once, also for connections that are open. */
  replacePolicy(policy: Policy): void {
    this.#admission.replace(policy)
  }

  /** Takes no new connections, answers what is under way, and closes. */
  close(drainMs = 10_000): Promise<void> {
    this.#closing ??= this.#close(drainMs)
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #close(drainMs: number): Promise<void> {
    await this.#listener.close(drainMs)
    for (const timer of this.#timers) clearInterval(timer)
    clearTimeout(this.#wakeTimer)
    this.#forget()
    await this.#links.close()
  }

  /** A message of a client. */
  hear(message: JunoMessage, reply: Reply<JunoMessage>, peer: Peer<JunoMessage>): void {
    this.#turn((isStale) => {
      // It lay unread for nobody knows how long; its connection is closed already.
      if (isStale) return reply(undefined)
      const at = now()
      const reading = door.readRequest(message, at.wall)
      if (reading.type === 'answer') return reply(reading.answer)
      if (reading.type === 'nop') return reply(this.#nop(message, reading.wantsLimits, at))
      const { namespace, key, payload } = message
      const verdict = this.#admission.judge(
        {
          client: peer.identity?.name ?? '',
          namespace: Buffer.from(namespace).toString('utf8'),
          verb: reading.verb,
          namespaceBytes: namespace.length,
          keyBytes: key.length,
          valueBytes: payload === undefined ? 0 : payload.length - 1,
          ttlMs: reading.ttlMs,
        },
        at.mono,
      )
      if (!verdict.isAllowed) return this.#tell(reading.verb, reply, door.deniedMessage(message, verdict, at.wall), at.mono)
      const name = registerKey(namespace, key)
      const { request, plainIdsRepeat = this.#options.plainIdsRepeat } = door.requestOf(
        message,
        reading,
        this.#stored(name, payload),
        verdict.limits,
      )
      const work = workOf(request, at, plainIdsRepeat === undefined ? {} : { plainIdsRepeat })
      this.#waiting.set(work, { message, name, verb: request.verb, reply, startedMono: at.mono, versionMax: verdict.limits.versionMax })
      if (work.operation === undefined) this.#coordinator.read(name, work, at)
      else this.#coordinator.write(name, work, at)
    })
  }

  #nop(message: JunoMessage, wantsLimits: boolean, at: Instant): JunoMessage {
    if (!wantsLimits) return door.echoOf(message)
    const namespace = Buffer.from(message.namespace).toString('utf8')
    return door.limitsMessage(message, this.#admission.limitsOf(namespace), epochMs(at.wall))
  }

  /** What lies on the disks: the payload with its type, sealed where there is a ring. An empty value is empty. */
  #stored(name: string, payload: Uint8Array | undefined): Uint8Array {
    const bare = payload ?? empty
    return this.#options.sealer === undefined ? bare : this.#options.sealer.seal(name, bare)
  }

  #answer(work: Work, answer: Answer): void {
    const waiting = this.#waiting.get(work)
    this.#waiting.delete(work)
    if (waiting === undefined) return // a repair
    const { message, name, verb, reply, startedMono, versionMax } = waiting
    const entry = door.entryOf(answer)
    try {
      const payload = entry === undefined ? undefined : this.#opened(name, entry.value)
      const telling = { handlingMs: performance.now() - startedMono, versionMax }
      this.#tell(verb, reply, door.answerMessage(message, verb, answer, payload, telling), startedMono)
    } catch (error) {
      if (!isKvError(error)) throw error
      this.#tell(verb, reply, door.faultMessage(message, error.code, internalStatus, answer.now), startedMono)
    }
  }

  #tell(verb: PolicyVerb | 'touch', reply: Reply<JunoMessage>, message: JunoMessage, startedMono: number): void {
    reply(message)
    this.#options.onRequest?.(verb === 'touch' ? 'get' : verb, message.status, performance.now() - startedMono)
  }

  #opened(name: string, value: Uint8Array): Uint8Array | undefined {
    const bare = this.#options.sealer === undefined ? value : this.#options.sealer.open(name, value)
    return bare.length === 0 ? undefined : bare
  }

  #take(from: string, message: ClusterMessage): void {
    const at = now()
    switch (message.type) {
      case 'promised':
      case 'accepted':
      case 'shown':
      case 'rejected':
      case 'pong':
        return this.#coordinator.receive(from, message, at)
      case 'repair': {
        const work: Work = {
          operation: undefined,
          deadlineMono: at.mono + repairMs,
          sentAt: undefined,
          acceptWasSent: 'no',
          isRepair: true,
        }
        return this.#coordinator.write(message.key, work, at)
      }
      default: // nobody says anything else to a proxy
    }
  }

  async #readMap(): Promise<void> {
    if (this.#asking) return
    this.#asking = true
    try {
      const { rows } = await this.#options.source.ask({ type: 'map-read', id: 1 })
      this.#turn(() => {
        for (const row of rows) this.#coordinator.learnRow(row, now())
      })
    } catch (error) {
      if (!isKvError(error)) this.#fail(error)
    } finally {
      this.#asking = false
    }
  }

  #wakeAt(mono: number): void {
    if (mono >= this.#wakeAtMono) return
    this.#wakeAtMono = mono
    clearTimeout(this.#wakeTimer)
    this.#wakeTimer = setTimeout(
      () => {
        this.#wakeAtMono = Infinity
        this.#turn(() => this.#coordinator.wake(now()))
      },
      Math.max(0, Math.ceil(mono - performance.now())),
    )
  }

  /** Every entry into the machines. `isStale`: the process stood still before it. */
  #turn(run: (isStale: boolean) => void): void {
    if (this.#isFailed) return
    try {
      const isStale = this.#watch.begin(now())
      if (isStale) {
        this.#options.onEvent?.('unread-dropped')
        for (const peer of this.#listener.peers) peer.close()
      }
      run(isStale)
    } catch (error) {
      this.#fail(error)
    }
  }

  #fail(error: unknown): void {
    if (this.#isFailed) return
    this.#isFailed = true
    this.#options.onFailure(error)
  }
}

const empty = new Uint8Array(0)
const internalStatus = 255
