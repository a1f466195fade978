/**
 * Host: one storage server. It hands each message to the machine that it is for, and keeps what the map says of its shards. DESIGN.md, H1 to H9.
 * Pure. Invariant: no answer leaves before the batch that holds the state which it reveals is durable: entries, ceiling, epoch (R1, R3).
 * Why so many small machines: each of them changes for a reason of its own, and each is tested a step at a time.
 */
import type { Random } from '../../core/base/random.ts'
import type { ReplicaAnswer, ReplicaRequest, ShardRow } from '../../core/wire/replica-message.ts'
import type { KnowRequest, MapAnswer, MapRequest, Ping, Pong, RepairRequest, ServerMessage } from '../../core/wire/server-message.ts'
import { sameIncarnation } from '../cluster/map.ts'
import { justAbove } from '../register/ballot.ts'
import type { Instant, RegisterEvent } from '../register/work.ts'
import { Boot, type Machine, type Standing } from './boot.ts'
import { ServerClock } from './clock.ts'
import { Journal } from './journal.ts'
import { storageTimes, type DiskPort, type ShardMarks, type StorageEvent, type StorageTimes, type StoreMarks } from './marks.ts'
import { Replicas } from './replicas.ts'
import { Roles } from './roles.ts'
import { Scrub } from './scrub.ts'

export interface HostPorts {
  readonly disk: DiskPort
  readonly random: Random
  send(to: string, message: ReplicaAnswer | ServerMessage | RepairRequest | Pong): void
  /** Asks the map's source; `heardMap` follows, or nothing. */
  askMap(request: MapRequest): void
  /** For a person: damage, two records under one ballot, what a recovery lost. `key` '' for a whole shard. */
  alarm(what: string, shard: number, key: string): void
  count(event: RegisterEvent | StorageEvent): void
}

export interface HostOptions {
  readonly server: string
  /** Where the others reach it. Absent in a simulation. */
  readonly address?: string | undefined
  readonly zone: number
  /** 1, 3 or 5. */
  readonly zones: number
  readonly machine: Machine
  readonly ports: HostPorts
  /** As the disk had them at the start. */
  readonly store: StoreMarks
  readonly shards: readonly ShardMarks[]
  readonly now: Instant
  readonly times?: StorageTimes
  readonly promisesMax?: number
  /** Answers that wait for a batch. Above: REJECT(busy). Default 65,536. */
  readonly waitingMax?: number
}

const waitingMaxDefault = 65_536

/** Why a message does not even come to the register. */
type Refusal = { readonly reason: 'closed' | 'busy' } | { readonly reason: 'epoch'; readonly row: ShardRow }

export class Host {
  readonly #server: string
  readonly #zone: number
  readonly #ports: HostPorts
  readonly #times: StorageTimes
  readonly #waitingMax: number
  readonly #journal: Journal
  readonly #replicas: Replicas
  readonly #clock: ServerClock
  readonly #boot: Boot
  readonly #roles: Roles
  readonly #scrub: Scrub
  #pollMono = -Infinity
  #ceilingMono: number

  constructor({
    server,
    address,
    zone,
    zones,
    machine,
    ports,
    store,
    shards,
    now,
    times = storageTimes,
    promisesMax,
    waitingMax,
  }: HostOptions) {
    this.#server = server
    this.#zone = zone
    this.#ports = ports
    this.#times = times
    this.#waitingMax = waitingMax ?? waitingMaxDefault
    this.#ceilingMono = now.mono + times.ceilingMs
    const journal = new Journal((batch) => ports.disk.commit(batch))
    const alarm = ports.alarm.bind(ports)
    this.#journal = journal
    this.#replicas = new Replicas({
      zone,
      journal,
      disk: ports.disk,
      store,
      shards,
      promisesMax,
      alarm,
      count: (event) => ports.count(event),
    })
    this.#clock = new ServerClock(now, times)
    this.#roles = new Roles(server, zone, zones, this.#replicas, times, {
      disk: ports.disk,
      nextId: () => this.#nextId(),
      send: (to, message) => ports.send(to, message),
      askMap: (request) => ports.askMap(request),
      repair: (shard, key, at) => this.#repair(shard, key, at),
      alarm: (what, shard) => ports.alarm(what, shard, ''),
      count: (event) => ports.count(event),
    })
    this.#scrub = new Scrub(this.#replicas, times)
    const bootPorts = {
      random: ports.random,
      nextId: () => this.#nextId(),
      askMap: (request: MapRequest) => ports.askMap(request),
      send: (to: string, message: KnowRequest) => ports.send(to, message),
      distrust: (why: Standing, rows: readonly ShardRow[]) => this.#roles.distrust(why, rows),
      open: () => this.#roles.open(),
      alarm: (what: string) => ports.alarm(what, -1, ''),
    }
    this.#boot = new Boot(server, address, zone, zones, machine, this.#replicas, times, bootPorts, now)
  }

  /** A proxy's message. What it makes durable is written at the end of the turn. */
  step(from: string, message: ReplicaRequest, now: Instant): void {
    const { shard } = message
    const replica = this.#replicas.of(shard)
    if (replica === undefined) return this.#refuse(from, message, now, 0, { reason: 'closed' })
    const { acceptor, marks } = replica
    const { row, state, epoch } = marks
    const mayTell = acceptor !== undefined || state === 'handed'
    if (mayTell && row !== undefined && message.epoch < row.epoch) {
      this.#ports.count(state === 'handed' ? 'stale-owner-contacted' : 'stale-epoch-refused')
      return this.#refuse(from, message, now, epoch, { reason: 'epoch', row })
    }
    if (state === 'frozen' && message.type === 'accept') this.#ports.count('accept-in-freeze')
    if (acceptor === undefined || message.epoch < epoch) return this.#refuse(from, message, now, epoch, { reason: 'closed' })
    if (this.#journal.waiting >= this.#waitingMax) return this.#refuse(from, message, now, epoch, { reason: 'busy' })
    if (message.epoch > epoch) this.#replicas.mark(shard, { epoch: message.epoch })
    this.#answer(from, acceptor.step(message, Math.max(message.epoch, epoch), now.wall))
  }

  #refuse(from: string, { id, shard, key }: ReplicaRequest, now: Instant, epoch: number, why: Refusal): void {
    this.#answer(from, { id, shard, key, zone: this.#zone, clock: now.wall, epoch, type: 'rejected', ...why })
  }

  /** A message of another storage server, or a proxy's ping. */
  hear(from: string, message: ServerMessage | Ping, now: Instant): void {
    switch (message.type) {
      case 'ping':
        this.#clock.hear(from, message.clock, now)
        return this.#ports.send(from, { type: 'pong', id: message.id, zone: this.#zone, clock: now.wall })
      case 'know':
        return this.#tellKnown(from, message)
      case 'known':
        for (const row of message.rows) this.#roles.learnRow(row)
        return this.#boot.heardKnown(message)
      default:
        return this.#roles.hear(from, message, now, this.#clock.trusted(now))
    }
  }

  /** The map's answer. */
  heardMap(answer: MapAnswer, now: Instant): void {
    this.#noteServers(answer)
    for (const row of answer.rows) this.#roles.learnRow(row)
    this.#boot.heardMap(answer)
    this.#roles.heardMap(answer)
    this.tick(now)
  }

  /** A row of the map, from wherever it comes. */
  learnRow(row: ShardRow): void {
    this.#roles.learnRow(row)
  }

  /** Whether proxies are answered for a shard. */
  isServing(shard: number): boolean {
    return this.#replicas.of(shard)?.acceptor !== undefined
  }

  /** Begins a planned move of a shard to another server of this zone. @returns false when it is not served here, or moves already */
  handOver(shard: number, to: string, now: Instant): boolean {
    return this.#roles.handOver(shard, to, now)
  }

  /** To be called every few milliseconds: whatever had no answer is asked again, and dead entries go. */
  tick(now: Instant): void {
    this.#boot.tick(now)
    if (!this.#boot.isOpen) return
    this.#roles.tick(now, this.#clock.trusted(now))
    const looked = this.#scrub.tick(now)
    if (looked !== undefined) for (const key of looked.keys) this.#repair(looked.shard, key, now)
    if (now.mono >= this.#pollMono) {
      this.#pollMono = now.mono + this.#times.pollMs
      this.#ports.askMap({ type: 'map-read', id: this.#nextId() })
    }
    if (now.mono >= this.#ceilingMono) this.tellCeiling(now)
  }

  /** Tells the map how far this directory is: every few seconds, and when the server stops. */
  tellCeiling(now: Instant): void {
    this.#ceilingMono = now.mono + this.#times.ceilingMs
    const { identity } = this.#replicas.store
    if (identity === undefined || !this.#boot.isRegistered) return
    // Entries below the ceiling do not raise it, nor do marks; a copy of the directory from before this must be seen as older all the same (B8).
    this.#replicas.raiseCeiling(justAbove(this.#replicas.store.ceiling))
    const { ceiling } = this.#replicas.store
    // Only a durable one: a map that is ahead of the disk makes a learner of a good directory.
    const request: MapRequest = { type: 'map-ceiling', id: this.#nextId(), server: this.#server, incarnation: identity.confirmed, ceiling }
    this.#journal.afterAll(() => this.#ports.askMap(request))
  }

  endTurn(): void {
    this.#journal.endTurn()
  }

  /** The batch under way is durable. */
  committed(): void {
    this.#journal.committed()
  }

  #answer(to: string, message: ReplicaAnswer): void {
    this.#journal.afterKey(message.shard, message.key, () => this.#ports.send(to, message))
  }

  /** For a peer that boots while the map is away. Answers may overtake each other: a later start is not forgotten for an earlier one. */
  #noteServers({ servers }: MapAnswer): void {
    const { seen } = this.#replicas.store
    const news = servers.filter(({ server, incarnation }) => {
      const known = seen[server]
      if (server === this.#server) return false
      return known === undefined || (incarnation.count >= known.count && !sameIncarnation(known, incarnation))
    })
    if (news.length === 0) return
    this.#replicas.markStore({ seen: { ...seen, ...Object.fromEntries(news.map(({ server, incarnation }) => [server, incarnation])) } })
  }

  #tellKnown(from: string, { id, server, shards }: KnowRequest): void {
    const rows = shards.flatMap((shard) => this.#replicas.of(shard)?.marks.row ?? [])
    const incarnation = this.#replicas.store.seen[server]
    this.#journal.afterAll(() => this.#ports.send(from, { type: 'known', id, zone: this.#zone, incarnation, rows }))
  }

  #repair(shard: number, key: string, now: Instant): void {
    const proxy = this.#clock.proxy(now)
    if (proxy !== undefined) this.#ports.send(proxy, { type: 'repair', shard, key })
  }

  /** Random: an answer to an earlier life of this server must not be taken for one to this. */
  #nextId(): number {
    return 1 + this.#ports.random.int(2 ** 32 - 1)
  }
}
