/**
 * Host: one storage server. It hands each message to the machine that it is for, and keeps what the map says of its shards. DESIGN.md, H1 to H9.
 * Pure. Invariant: no answer leaves before the batch that holds the state which it reveals is durable: entries, ceiling, epoch (R1, R3).
 * Why so many small machines: each of them changes for a reason of its own, and each is tested a step at a time.
 */
import type { Random } from '../../core/base/random.ts'
import { unreachable } from '../../core/base/assert.ts'
import type { ReplicaAnswer, ReplicaRequest, ShardRow } from '../../core/wire/replica-message.ts'
import type {
  CopyRequest,
  HoldsRequest,
  KnowRequest,
  MapAnswer,
  MapRequest,
  Ping,
  Pong,
  RepairRequest,
  ServerMessage,
} from '../../core/wire/server-message.ts'
import { sameIncarnation, sinceOf } from '../cluster/map.ts'
import { justAbove, noBallot } from '../register/ballot.ts'
import type { Instant, RegisterEvent } from '../register/work.ts'
import { Boot, type Machine, type Standing } from './boot.ts'
import { ServerClock } from './clock.ts'
import { Expiry, holdsAlike } from './expiry.ts'
import { Giver } from './handover.ts'
import { Journal } from './journal.ts'
import { Learner } from './learner.ts'
import { storageTimes, type DiskPort, type ShardMarks, type StorageTimes, type StoreMarks } from './marks.ts'
import { verdictOf } from './ownership.ts'
import { Receiver } from './receiver.ts'
import { Replicas, type Replica } from './replicas.ts'
import { Scrub } from './scrub.ts'

export interface HostPorts {
  readonly disk: DiskPort
  readonly random: Random
  send(to: string, message: ReplicaAnswer | ServerMessage | RepairRequest | Pong): void
  /** Asks the map's source; `heardMap` follows, or nothing. */
  askMap(request: MapRequest): void
  /** For a person: damage, two records under one ballot, what a recovery lost. `key` '' for a whole shard. */
  alarm(what: string, shard: number, key: string): void
  count(event: RegisterEvent): void
}

export interface HostOptions {
  readonly server: string
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

export class Host {
  readonly #server: string
  readonly #zone: number
  readonly #zones: number
  readonly #ports: HostPorts
  readonly #times: StorageTimes
  readonly #waitingMax: number
  readonly #journal: Journal
  readonly #replicas: Replicas
  readonly #clock: ServerClock
  readonly #boot: Boot
  readonly #receiver: Receiver
  readonly #scrub: Scrub
  readonly #learners = new Map<number, Learner>()
  readonly #givers = new Map<number, Giver>()
  readonly #expiries = new Map<number, Expiry>()
  /** Heard before this server knows whether it may go by them. */
  readonly #rows = new Map<number, ShardRow>()
  #pollMono = -Infinity
  #ceilingMono: number
  #putsTold = 0

  constructor({ server, zone, zones, machine, ports, store, shards, now, times = storageTimes, promisesMax, waitingMax }: HostOptions) {
    this.#server = server
    this.#zone = zone
    this.#zones = zones
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
    this.#receiver = new Receiver(server, zone, this.#replicas, (to, message) => ports.send(to, message))
    this.#scrub = new Scrub(this.#replicas, times)
    const bootPorts = {
      random: ports.random,
      nextId: () => this.#nextId(),
      askMap: (request: MapRequest) => ports.askMap(request),
      send: (to: string, message: KnowRequest) => ports.send(to, message),
      distrust: (why: Standing, rows: readonly ShardRow[]) => this.#distrust(why, rows),
      open: () => this.#open(),
      alarm: (what: string) => ports.alarm(what, -1, ''),
    }
    this.#boot = new Boot(server, zone, zones, machine, this.#replicas, times, bootPorts, now)
  }

  /** A proxy's message. What it makes durable is written at the end of the turn. */
  step(from: string, message: ReplicaRequest, now: Instant): void {
    const { id, shard, key } = message
    const replica = this.#replicas.of(shard)
    const head = { id, shard, key, zone: this.#zone, clock: now.wall, epoch: replica?.marks.epoch ?? 0 }
    if (replica === undefined) return this.#answer(from, { ...head, type: 'rejected', reason: 'closed' })
    const { acceptor, marks } = replica
    const { row, state, epoch } = marks
    const mayTell = acceptor !== undefined || state === 'handed'
    if (mayTell && row !== undefined && message.epoch < row.epoch)
      return this.#answer(from, { ...head, type: 'rejected', reason: 'epoch', row })
    if (acceptor === undefined || message.epoch < epoch) return this.#answer(from, { ...head, type: 'rejected', reason: 'closed' })
    if (this.#journal.waiting >= this.#waitingMax) return this.#answer(from, { ...head, type: 'rejected', reason: 'busy' })
    if (message.epoch > epoch) this.#replicas.mark(shard, { epoch: message.epoch })
    this.#answer(from, acceptor.step(message, Math.max(message.epoch, epoch), now.wall))
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
        for (const row of message.rows) this.learnRow(row)
        return this.#boot.heardKnown(message)
      case 'copy':
        return this.#give(from, message)
      case 'page':
        return this.#learners.get(message.shard)?.heardPage(message, from, now)
      case 'holds':
        return this.#tellHeld(from, message)
      case 'held':
        return this.#expiries.get(message.shard)?.heard(message, this.#clock.trusted(now), now)
      case 'offer':
        return this.#boot.isOpen ? this.#receiver.heardOffer(from, message) : undefined
      case 'part':
        return this.#receiver.heardPart(from, message)
      case 'ready':
        return this.#givers.get(message.shard)?.heardReady(message.id, now)
      case 'stored':
        return this.#givers.get(message.shard)?.heardStored(message.id, message.number, now)
      case 'refused':
        return this.#givers.get(message.shard)?.heardRefused(message.id, now)
      default:
        return unreachable(message)
    }
  }

  /** The map's answer. */
  heardMap(answer: MapAnswer, now: Instant): void {
    const isOurs = answer.servers.filter(({ server }) => server !== this.#server)
    const { seen } = this.#replicas.store
    const isNews = isOurs.some(({ server, incarnation }) => {
      const known = seen[server]
      return known === undefined || (incarnation.count >= known.count && !sameIncarnation(known, incarnation))
    })
    if (isNews) this.#replicas.markStore({ seen: Object.fromEntries(isOurs.map(({ server, incarnation }) => [server, incarnation])) })
    for (const row of answer.rows) this.learnRow(row)
    this.#boot.heardMap(answer)
    for (const learner of this.#learners.values()) learner.heardMap(answer)
    for (const giver of this.#givers.values()) giver.heardMap(answer)
    this.tick(now)
  }

  /** A row of the map, from wherever it comes. */
  learnRow(row: ShardRow): void {
    const { shard } = row
    // Quorums of another number of zones may miss each other.
    if (row.servers.length !== this.#zones) return this.#ports.alarm('a map of another number of zones', shard, '')
    if (!this.#boot.isOpen) {
      if (row.epoch > (this.#rows.get(shard)?.epoch ?? 0)) this.#rows.set(shard, row)
      return
    }
    const marks = this.#replicas.of(shard)?.marks
    const { epoch } = row
    const since = sinceOf(row, this.#zone)
    const verdict = verdictOf(marks, row, this.#zone, this.#server)
    switch (verdict) {
      case 'old':
        return
      case 'note':
        return this.#replicas.mark(shard, { epoch, row })
      case 'found':
        this.#replicas.mark(shard, { epoch, row, since, state: 'serving', purged: noBallot })
        return this.#replicas.serve(shard)
      case 'serve':
        this.#endMachines(shard)
        this.#replicas.mark(shard, { epoch, row, since, state: 'serving' })
        return this.#replicas.serve(shard)
      case 'leave': {
        const isStored = this.#givers.get(shard)?.isStored === true
        this.#endMachines(shard)
        this.#replicas.close(shard)
        this.#replicas.mark(shard, { epoch, row, state: 'handed' })
        if (isStored) this.#replicas.clear(shard)
        return
      }
      case 'learn':
      case 'gather':
      case 'gather-anew': {
        this.#endMachines(shard)
        this.#replicas.mark(shard, { epoch, row, since, state: 'learning', keepsOwn: verdict !== 'learn' })
        this.#replicas.close(shard)
        if (verdict !== 'gather') this.#replicas.clear(shard)
        return this.#learn(shard)
      }
      default:
        return unreachable(verdict)
    }
  }

  /** Begins a planned move of a shard to another server of this zone. @returns false when it is not served here, or moves already */
  handOver(shard: number, to: string, now: Instant): boolean {
    if (this.#replicas.of(shard)?.acceptor === undefined || this.#givers.has(shard) || to === this.#server) return false
    this.#giver(shard, to)
    this.#givers.get(shard)?.tick(now)
    return true
  }

  /** To be called every few milliseconds: whatever had no answer is asked again, and dead entries go. */
  tick(now: Instant): void {
    this.#boot.tick(now)
    if (!this.#boot.isOpen) return
    for (const learner of this.#learners.values()) learner.tick(now)
    for (const giver of this.#givers.values()) giver.tick(now)
    for (const [shard, learner] of this.#learners) if (learner.isDone) this.#learners.delete(shard)
    for (const [shard, giver] of this.#givers) if (giver.isOver) this.#givers.delete(shard)
    const trusted = this.#clock.trusted(now)
    for (const shard of this.#replicas.shards) {
      if (this.#replicas.of(shard)?.acceptor === undefined) continue
      const { disk } = this.#ports
      this.#expiry(shard).tick(now, trusted, (after, until, keysMax) => disk.due(shard, until, after, keysMax))
      for (const key of this.#scrub.tick(shard, now)) this.#repair(shard, key, now)
    }
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
    // Entries below the ceiling do not raise it; a copy of the directory from before them must be seen as older all the same (B8).
    if (this.#journal.puts > this.#putsTold) this.#replicas.raiseCeiling(justAbove(this.#replicas.store.ceiling))
    this.#putsTold = this.#journal.puts
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

  /** L3: the epoch is durable here before anything is read, and whoever does not vote gives nothing. */
  #give(from: string, { id, shard, row, after, keysMax }: CopyRequest): void {
    this.learnRow(row)
    if (!this.#maySource(shard, row)) return
    this.#journal.afterAll(() => {
      const replica = this.#replicas.of(shard)
      if (replica === undefined || !this.#maySource(shard, row)) return
      const { keys, isLast } = this.#replicas.page(shard, after, keysMax)
      const { epoch, purged } = replica.marks
      const { ceiling } = this.#replicas.store
      this.#ports.send(from, { type: 'page', id, shard, zone: this.#zone, epoch, after, keys, isLast, purged, ceiling })
    })
  }

  #maySource(shard: number, { epoch, recovers }: ShardRow): boolean {
    const replica = this.#replicas.of(shard)
    if (replica === undefined || replica.marks.epoch < epoch) return false
    return replica.acceptor !== undefined || (recovers?.includes(this.#zone) === true && replica.marks.keepsOwn)
  }

  /** E6: what is held is said only when it is durable. */
  #tellHeld(from: string, message: HoldsRequest): void {
    const { id, shard } = message
    const replica = this.#replicas.of(shard)
    if (replica?.acceptor === undefined || replica.marks.epoch !== message.epoch) return
    const isSame = holdsAlike(this.#replicas, replica, message)
    this.#journal.afterAll(() => this.#ports.send(from, { type: 'held', id, shard, zone: this.#zone, epoch: message.epoch, isSame }))
  }

  #tellKnown(from: string, { id, server, shards }: KnowRequest): void {
    const rows = shards.flatMap((shard) => this.#replicas.of(shard)?.marks.row ?? [])
    const incarnation = this.#replicas.store.seen[server]
    this.#journal.afterAll(() => this.#ports.send(from, { type: 'known', id, zone: this.#zone, incarnation, rows }))
  }

  #distrust(why: Standing, rows: readonly ShardRow[]): void {
    for (const shard of this.#replicas.shards) {
      this.#endMachines(shard)
      const { state, keepsOwn } = (this.#replicas.of(shard) as Replica).marks
      this.#replicas.close(shard)
      if (why === 'foreign' || state === 'receiving' || state === 'received') this.#replicas.reset(shard)
      else if (state !== 'handed') {
        const keeps = why === 'power-cycle' && (state !== 'learning' || keepsOwn)
        this.#replicas.mark(shard, { state: 'learning', keepsOwn: keeps })
        if (!keeps) this.#replicas.clear(shard)
      }
    }
    for (const { shard, servers } of rows)
      if (servers[this.#zone] === this.#server && this.#replicas.of(shard) === undefined) this.#replicas.reset(shard)
    this.#ports.alarm(`a directory that may not vote: ${why}`, -1, '')
  }

  #open(): void {
    const rows = [...this.#rows.values()]
    this.#rows.clear()
    for (const row of rows) this.learnRow(row)
    for (const shard of this.#replicas.shards) {
      const { marks, acceptor } = this.#replicas.of(shard) as Replica
      if (marks.state === 'serving' && acceptor === undefined) this.#replicas.serve(shard)
      if (marks.state === 'learning' && !this.#learners.has(shard)) this.#learn(shard)
      if (marks.state === 'frozen' && !this.#givers.has(shard)) this.#giver(shard, undefined)
    }
  }

  #learn(shard: number): void {
    const ports = {
      nextId: () => this.#nextId(),
      send: (to: string, message: CopyRequest) => this.#ports.send(to, message),
      askMap: (request: MapRequest) => this.#ports.askMap(request),
      alarm: (what: string) => this.#ports.alarm(what, shard, ''),
    }
    this.#learners.set(shard, new Learner(shard, this.#zone, this.#replicas, this.#times, ports))
  }

  #giver(shard: number, to: string | undefined): void {
    this.#givers.set(
      shard,
      new Giver(shard, this.#zone, to, this.#replicas, this.#times, {
        nextId: () => this.#nextId(),
        send: (server, message) => this.#ports.send(server, message),
        askMap: (request) => this.#ports.askMap(request),
      }),
    )
  }

  #expiry(shard: number): Expiry {
    const known = this.#expiries.get(shard)
    if (known !== undefined) return known
    const expiry = new Expiry(shard, this.#zone, this.#replicas, this.#times, {
      nextId: () => this.#nextId(),
      send: (to, message) => this.#ports.send(to, message),
      repair: (key, now) => this.#repair(shard, key, now),
    })
    this.#expiries.set(shard, expiry)
    return expiry
  }

  #endMachines(shard: number): void {
    this.#learners.get(shard)?.stop()
    this.#learners.delete(shard)
    this.#givers.get(shard)?.stop()
    this.#givers.delete(shard)
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
