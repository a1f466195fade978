/**
 * Roles: what this server is for each of its shards at the moment, and the machine that does it: voter, learner, giver, receiver, source.
 * Pure. Invariant: a shard has at most one learner or giver, and none of an earlier role acts on.
 * Why apart from the host: roles change with the map, messages of proxies do not know of them.
 */
import { unreachable } from '../../core/base/assert.ts'
import type { EpochMs } from '../../core/base/types.ts'
import type { ShardRow } from '../../core/wire/replica-message.ts'
import type { CopyRequest, HoldsRequest, MapAnswer, MapRequest, ServerMessage } from '../../core/wire/server-message.ts'
import { sinceOf } from '../cluster/map.ts'
import { noBallot } from '../register/ballot.ts'
import type { Instant } from '../register/work.ts'
import type { Standing } from './boot.ts'
import { Expiry, holdsAlike } from './expiry.ts'
import { Giver } from './handover.ts'
import { Learner } from './learner.ts'
import type { DiskPort, StorageEvent, StorageTimes } from './marks.ts'
import { verdictOf } from './ownership.ts'
import { Receiver } from './receiver.ts'
import type { Replica, Replicas } from './replicas.ts'

export interface RolesPorts {
  readonly disk: DiskPort
  nextId(): number
  send(to: string, message: ServerMessage): void
  askMap(request: MapRequest): void
  /** Asks a proxy for write(identity). */
  repair(shard: number, key: string, now: Instant): void
  alarm(what: string, shard: number): void
  count(event: StorageEvent): void
}

/** What is about one shard, between storage servers. */
type ShardMessage = Exclude<ServerMessage, { type: 'know' | 'known' }>

/** Ticks in which every shard is swept once: with one each 10 ms, in less than a second. */
const sweepTicks = 64

export class Roles {
  readonly #server: string
  readonly #zone: number
  readonly #zones: number
  readonly #replicas: Replicas
  readonly #times: StorageTimes
  readonly #ports: RolesPorts
  readonly #receiver: Receiver
  readonly #learners = new Map<number, Learner>()
  readonly #givers = new Map<number, Giver>()
  readonly #expiries = new Map<number, Expiry>()
  /** Heard before this server knows whether it may go by them. */
  readonly #rows = new Map<number, ShardRow>()
  /** The place of the shard that was swept last. */
  #swept = -1
  #isOpen = false

  constructor(server: string, zone: number, zones: number, replicas: Replicas, times: StorageTimes, ports: RolesPorts) {
    this.#server = server
    this.#zone = zone
    this.#zones = zones
    this.#replicas = replicas
    this.#times = times
    this.#ports = ports
    this.#receiver = new Receiver(server, zone, replicas, (to, message) => ports.send(to, message))
  }

  /** @param trusted the time by which things may go; undefined: nothing may */
  hear(from: string, message: ShardMessage, now: Instant, trusted: EpochMs | undefined): void {
    const { shard } = message
    switch (message.type) {
      case 'copy':
        return this.#give(from, message)
      case 'page':
        return this.#learners.get(shard)?.heardPage(message, from, now)
      case 'holds':
        return this.#tellHeld(from, message, now)
      case 'held':
        return this.#expiries.get(shard)?.heard(message, trusted, now)
      case 'offer':
        return this.#isOpen ? this.#receiver.heardOffer(from, message) : undefined
      case 'part':
        return this.#receiver.heardPart(from, message)
      case 'ready':
        return this.#givers.get(shard)?.heardReady(message.id, now)
      case 'stored':
        return this.#givers.get(shard)?.heardStored(message.id, message.number, now)
      case 'refused':
        return this.#givers.get(shard)?.heardRefused(message.id, now)
      default:
        return unreachable(message)
    }
  }

  heardMap(answer: MapAnswer): void {
    for (const learner of this.#learners.values()) learner.heardMap(answer)
    for (const giver of this.#givers.values()) giver.heardMap(answer)
  }

  tick(now: Instant, trusted: EpochMs | undefined): void {
    for (const learner of this.#learners.values()) learner.tick(now)
    for (const giver of this.#givers.values()) giver.tick(now)
    for (const [shard, learner] of this.#learners) if (learner.isDone) this.#learners.delete(shard)
    for (const [shard, giver] of this.#givers) if (giver.isOver) this.#givers.delete(shard)
    this.#sweep(now, trusted)
  }

  /** Looks for what is due. It asks the disk, so of many shards a few at a time: each has its turn about once in `sweepTicks`. */
  #sweep(now: Instant, trusted: EpochMs | undefined): void {
    const { disk } = this.#ports
    const { shards } = this.#replicas
    for (let left = Math.ceil(shards.length / sweepTicks); left > 0; left--) {
      this.#swept = (this.#swept + 1) % shards.length
      const shard = shards[this.#swept] as number
      if (this.#replicas.of(shard)?.acceptor === undefined) continue
      this.#expiry(shard).tick(now, trusted, (after, until, keysMax) => disk.due(shard, until, after, keysMax))
    }
  }

  /** A row of the map, from wherever it comes. */
  learnRow(row: ShardRow): void {
    const { shard } = row
    // Quorums of another number of zones may miss each other.
    if (row.servers.length !== this.#zones) return this.#ports.alarm('a map of another number of zones', shard)
    if (!this.#isOpen) {
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
        this.#ports.count(this.#serveEvent(shard))
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

  #serveEvent(shard: number): StorageEvent {
    if (this.#replicas.of(shard)?.marks.state === 'frozen') return 'handover-aborted'
    return this.#receiver.knows(shard) ? 'handover-served' : 'handover-served-after-restart'
  }

  /** Begins a planned move of a shard to another server of this zone. @returns false when it is not served here, or moves already */
  handOver(shard: number, to: string, now: Instant): boolean {
    if (this.#replicas.of(shard)?.acceptor === undefined || this.#givers.has(shard) || to === this.#server) return false
    this.#giver(shard, to)
    this.#givers.get(shard)?.tick(now)
    return true
  }

  /** B3. Makes learners of all replicas, those that `rows` want of this server included. */
  distrust(why: Standing, rows: readonly ShardRow[]): void {
    this.#isOpen = false
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
    this.#ports.alarm(`a directory that may not vote: ${why}`, -1)
  }

  /** From now on rows count, and what may serve does. */
  open(): void {
    this.#isOpen = true
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
      nextId: () => this.#ports.nextId(),
      send: (to: string, message: CopyRequest) => this.#ports.send(to, message),
      askMap: (request: MapRequest) => this.#ports.askMap(request),
      alarm: (what: string) => this.#ports.alarm(what, shard),
      count: (event: StorageEvent) => this.#ports.count(event),
    }
    this.#learners.set(shard, new Learner(shard, this.#zone, this.#replicas, this.#times, ports))
  }

  #giver(shard: number, to: string | undefined): void {
    this.#givers.set(
      shard,
      new Giver(shard, this.#zone, to, this.#replicas, this.#times, {
        nextId: () => this.#ports.nextId(),
        send: (server, message) => this.#ports.send(server, message),
        askMap: (request) => this.#ports.askMap(request),
      }),
    )
  }

  #expiry(shard: number): Expiry {
    const known = this.#expiries.get(shard)
    if (known !== undefined) return known
    const expiry = new Expiry(shard, this.#zone, this.#replicas, this.#times, {
      nextId: () => this.#ports.nextId(),
      send: (to, message) => this.#ports.send(to, message),
      repair: (key, now) => this.#ports.repair(shard, key, now),
      count: (event) => this.#ports.count(event),
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

  /** L3: the epoch is durable here before anything is read, and whoever does not vote gives nothing. */
  #give(from: string, { id, shard, row, after, keysMax }: CopyRequest): void {
    this.learnRow(row)
    if (!this.#maySource(shard, row)) return
    this.#replicas.journal.afterAll(() => {
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
  #tellHeld(from: string, message: HoldsRequest, now: Instant): void {
    const { id, shard } = message
    const replica = this.#replicas.of(shard)
    if (replica?.acceptor === undefined || replica.marks.epoch !== message.epoch) return
    const isSame = holdsAlike(this.#replicas, { ...replica, acceptor: replica.acceptor }, message, now.wall)
    if (isSame === undefined) return this.#ports.count('purge-delayed-by-promises')
    this.#replicas.journal.afterAll(() =>
      this.#ports.send(from, { type: 'held', id, shard, zone: this.#zone, epoch: message.epoch, isSame }),
    )
  }
}
