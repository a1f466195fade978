/**
 * A simulated site: storage servers, proxies and the map, joined by the simulated network.
 * Invariant: nothing here decides what a register answers; it only carries messages and time.
 */
import type { CompletionRules } from '../../core/record/operation.ts'
import { ClusterCodec } from '../../core/wire/cluster-codec.ts'
import type { ReplicaAnswer, ReplicaRequest, ShardRow } from '../../core/wire/replica-message.ts'
import type { MapAnswer, MapRequest, Ping, Pong, RepairRequest, ServerMessage } from '../../core/wire/server-message.ts'
import { MemoryMap } from '../cluster/memory-map.ts'
import type { Answer, Work } from '../register/work.ts'
import type { DurabilityMode } from '../storage/boot.ts'
import type { StorageTimes } from '../storage/marks.ts'
import { SkewedClock } from './clock.ts'
import { mapEnd, Network, type NetworkKnobs } from './network.ts'
import { ProxyProcess } from './proxy-process.ts'
import { StorageProcess } from './storage-process.ts'
import type { World } from './world.ts'

export interface SiteKnobs {
  readonly zones: number
  /** What clients ask for. */
  readonly keys: readonly string[]
  /** A second storage server in each zone, to move to. */
  readonly hasSpares: boolean
  readonly mode: DurabilityMode
  /** Between two moments at which the operating system writes what it has, in `os` mode. */
  readonly osSyncMs: number
  readonly proxies: number
  /** A proxy that starts has a copy of the map. */
  readonly proxiesHaveRows: boolean
  readonly network: NetworkKnobs
  /** Messages travel as the bytes that the shipping codec makes of them. */
  readonly carriesBytes: boolean
  /** Of a sync. */
  readonly syncMs: readonly [number, number]
  readonly promisesMax: number
  /** Answers of a storage server that wait for a batch. */
  readonly waitingMax: number
  readonly rules: CompletionRules
  readonly times: StorageTimes
  /** Clients whose ids are plain may send a request again. */
  readonly plainIdsRepeat: boolean
  /** Of a clock of a server, and of a proxy: how far it is off at the start, and its rate. */
  readonly serverClock: () => ClockDraw
  readonly proxyClock: () => ClockDraw
}

export interface ClockDraw {
  readonly offsetMs: number
  /** 1 is true. */
  readonly rate: number
}

/** What processes say to each other. */
export type Message = ReplicaRequest | ReplicaAnswer | ServerMessage | RepairRequest | Ping | Pong
export type Carried = Message | MapRequest | MapAnswer

/** What becomes of a message: the network takes it, it is lost, or it waits before the network takes it; doubled, one of it goes at once. */
export type Fate = 'goes' | 'lost' | { readonly heldMs: number; readonly isDoubled?: boolean }
/** From and to the ends of links, whatever the addresses. */
export type Tap = (from: string, to: string, message: Carried) => Fate

export class Site {
  readonly world: World
  readonly knobs: SiteKnobs
  readonly network: Network
  readonly servers: StorageProcess[] = []
  readonly proxies: ProxyProcess[] = []
  readonly #codec = new ClusterCodec()
  readonly #ends = new Map<string, StorageProcess | ProxyProcess>()
  readonly map: MemoryMap
  /** The map's source does not answer before this true time. */
  mapIsAwayUntil = 0
  /** See, and may hold up or lose, each message that is sent. */
  readonly taps = new Set<Tap>()
  /** The true time at which all zones lost their power in `os` mode: whatever was acknowledged until then may be gone. */
  seamAt: number | undefined
  readonly alarms: string[] = []
  /** Hears what proxies tell their clients. */
  onAnswer: ((proxy: string, key: string, work: Work, answer: Answer) => void) | undefined
  /** Records that a broken proxy sent under a ballot that was taken, and nobody refused yet. */
  alteredAccepts = 0
  /** How often each rare thing was. */
  readonly sometimes: Record<string, number> = {}
  /** Milliseconds of a sync, drawn between the two. */
  syncMs: readonly [number, number]
  readonly #firstRow: ShardRow

  constructor(world: World, knobs: SiteKnobs) {
    this.world = world
    this.knobs = knobs
    this.syncMs = knobs.syncMs
    this.network = new Network(
      world.random,
      knobs.network,
      () => world.now,
      (ms, run) => world.after(ms, run),
    )
    const names = Array.from({ length: knobs.zones }, (_, zone) => `s${zone}`)
    this.#firstRow = { shard: 0, epoch: 1, servers: names }
    this.map = new MemoryMap(knobs.zones, 1)
    for (const [zone, name] of names.entries()) this.#add(new StorageProcess(this, name, zone), this.servers)
    if (knobs.hasSpares) this.#addSpares(names.length)
    for (let index = 0; index < knobs.proxies; index++) this.#add(new ProxyProcess(this, `p${index}`), this.proxies)
  }

  /** Once the cluster is founded: before that they would be founders. */
  #addSpares(zones: number): void {
    this.world.after(50, () => {
      if (this.map.rows.length === 0) return this.#addSpares(zones)
      for (let zone = 0; zone < zones; zone++) this.#add(new StorageProcess(this, `t${zone}`, zone), this.servers)
    })
  }

  #add<P extends StorageProcess | ProxyProcess>(process: P, to: P[]): void {
    to.push(process)
    this.#ends.set(process.name, process)
    process.start()
  }

  get keys(): readonly string[] {
    return this.knobs.keys
  }

  /** As a copy of the map has them that is made before the cluster is founded. */
  get rows(): readonly ShardRow[] {
    return this.map.rows.length > 0 ? this.map.rows : [this.#firstRow]
  }

  get mapIsAway(): boolean {
    return this.world.now < this.mapIsAwayUntil
  }

  server(name: string): StorageProcess | undefined {
    return this.servers.find((one) => one.name === name)
  }

  newClock({ offsetMs, rate }: ClockDraw): SkewedClock {
    return new SkewedClock(() => this.world.now, offsetMs, rate)
  }

  /** What a person would be told. Damage, lost directories and broken proxies are planted, so they are none. */
  alarm(what: string, key: string, server: string): void {
    if (what !== 'two records under one ballot') return
    if (this.alteredAccepts-- > 0) this.count('second-record-refused')
    else this.alarms.push(`${what}: ${key} at ${server}`)
  }

  count(event: string): void {
    this.sometimes[event] = (this.sometimes[event] ?? 0) + 1
  }

  /** Carries a message from one address to another, unless it is lost. */
  carry(from: string, to: string, message: Message): void {
    const frame = this.knobs.carriesBytes ? this.#codec.encode(message) : undefined
    this.#travel(endOf(from), endOf(to), message, () => {
      const end = this.#ends.get(endOf(to))
      if (end?.address !== to) return
      if (frame === undefined) end.take(from, message)
      else this.#codec.decoder().push(frame, (arrived) => end.take(from, arrived as Message))
    })
  }

  /** One transaction of the map, unless it is away when it is asked or when it would answer. `take` sees to it that somebody is there to hear. */
  askMap(from: string, request: MapRequest, take: (answer: MapAnswer) => void): void {
    this.#travel(from, mapEnd, request, () => {
      if (this.mapIsAway) return
      const answer = this.map.step(request)
      this.#travel(mapEnd, from, answer, () => take(answer))
    })
  }

  #travel(from: string, to: string, message: Carried, arrive: () => void): void {
    const go = (): void => this.network.send(from, to, arrive)
    const fates = [...this.taps].map((tap) => tap(from, to, message))
    if (fates.includes('lost')) return
    const held = fates.find((fate) => typeof fate === 'object')
    if (held !== undefined) this.world.after(held.heldMs, go)
    if (held === undefined || held.isDoubled === true) go()
  }
}

/** The end of all links of an address. */
const endOf = (address: string): string => address.split('/', 1)[0] as string
