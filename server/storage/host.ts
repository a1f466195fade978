/**
 * Host: one storage server's replicas, and the one durable batch at a time that all of them share.
 * Pure. Invariant: no answer leaves before the batch that holds the state which it reveals is durable: entries, ceiling, epoch (R1, R3).
 * Why answers wait for the youngest batch that touches their key or any mark, and not for the exact one: marks change a few times a
 * second, and a rule without cases cannot have the wrong one.
 */
import { assert } from '../../core/base/assert.ts'
import type { ReplicaAnswer, ReplicaEntry, ReplicaRequest, ShardRow } from '../../core/wire/replica-message.ts'
import { Acceptor, type Marks, type Stored } from '../register/acceptor.ts'
import { isBelow, maxBallot, noBallot, type Ballot } from '../register/ballot.ts'
import type { Instant } from '../register/work.ts'

/** What a shard's replica here may do. Durable. Only `serving` answers proxies. */
export type ReplicaState = 'serving' | 'learning' | 'receiving' | 'frozen' | 'handed'

/** Durable, one a shard that this server has or had. */
export interface ShardMarks {
  readonly shard: number
  readonly epoch: number
  readonly state: ReplicaState
  readonly purged: Ballot
}

/** Durable, one a server. */
export interface StoreMarks {
  readonly ceiling: Ballot
}

/** What is written at once, in one synced write. */
export interface Batch {
  readonly entries: ReadonlyMap<string, { readonly shard: number; readonly key: string; readonly entry: ReplicaEntry | undefined }>
  readonly store: StoreMarks | undefined
  readonly shards: ReadonlyMap<number, ShardMarks>
}

export interface HostPorts {
  /** What the disk has; the host lays its own unfinished writes over it. */
  read(shard: number, key: string): ReplicaEntry | 'damaged' | undefined
  /** Begins a durable write; `committed` follows. A write that fails ends the process: it is never tried again. */
  commit(batch: Batch): void
  send(to: string, message: ReplicaAnswer): void
  alarm(what: string, shard: number, key: string): void
}

export interface HostOptions {
  readonly server: string
  readonly zone: number
  readonly ports: HostPorts
  /** As the disk had them at the start. */
  readonly store: StoreMarks
  readonly shards: readonly ShardMarks[]
  readonly promisesMax?: number
  /** Answers that wait for a batch. Above: REJECT(busy). Default 65,536. */
  readonly waitingMax?: number
}

interface Replica {
  marks: ShardMarks
  row: ShardRow | undefined
  readonly acceptor: Acceptor
  /** Keys whose bytes are not what was written, with the ceiling when that was found. */
  readonly damaged: Map<string, Ballot>
}

interface Gathering {
  readonly entries: Map<string, { readonly shard: number; readonly key: string; readonly entry: ReplicaEntry | undefined }>
  readonly shards: Map<number, ShardMarks>
  hasStoreMarks: boolean
  readonly answers: { readonly to: string; readonly message: ReplicaAnswer }[]
}

const waitingMaxDefault = 65_536
const newBatch = (): Gathering => ({ entries: new Map(), shards: new Map(), hasStoreMarks: false, answers: [] })
const isEmpty = (batch: Gathering): boolean => batch.entries.size === 0 && batch.shards.size === 0 && !batch.hasStoreMarks
const touches = (batch: Gathering | undefined, id: string): batch is Gathering =>
  batch !== undefined && (batch.hasStoreMarks || batch.shards.size > 0 || batch.entries.has(id))
const idOf = (shard: number, key: string): string => `${shard}/${key}`

export class Host {
  readonly #zone: number
  readonly #ports: HostPorts
  readonly #promisesMax: number | undefined
  readonly #waitingMax: number
  readonly #replicas = new Map<number, Replica>()
  #ceiling: Ballot
  #gathering = newBatch()
  #inFlight: Gathering | undefined

  constructor({ zone, ports, store, shards, promisesMax, waitingMax = waitingMaxDefault }: HostOptions) {
    this.#zone = zone
    this.#ports = ports
    this.#ceiling = store.ceiling
    this.#promisesMax = promisesMax
    this.#waitingMax = waitingMax
    // Promises are gone: whatever was promised, the ceiling was above it (R2).
    for (const marks of shards) this.#open(marks, store.ceiling)
  }

  #open(marks: ShardMarks, floor: Ballot): Replica {
    const { shard } = marks
    const replica: Replica = {
      marks,
      row: undefined,
      damaged: new Map(),
      acceptor: new Acceptor({
        shard,
        zone: this.#zone,
        floor,
        ...(this.#promisesMax === undefined ? {} : { promisesMax: this.#promisesMax }),
        ports: {
          marks: this.#marksOf(shard),
          stored: (key) => this.#stored(replica, key),
          put: (key, entry) => this.#put(shard, key, entry),
          raiseCeiling: (to) => this.#raiseCeiling(to),
          alarm: (what, key) => this.#ports.alarm(what, shard, key),
        },
      }),
    }
    this.#replicas.set(shard, replica)
    return replica
  }

  /** Takes one message; what it makes durable is written at the end of the turn. */
  step(from: string, message: ReplicaRequest, now: Instant): void {
    const replica = this.#replicas.get(message.shard)
    const head = {
      id: message.id,
      shard: message.shard,
      key: message.key,
      zone: this.#zone,
      clock: now.wall,
      epoch: replica?.marks.epoch ?? 0,
    }
    if (replica === undefined || replica.marks.state !== 'serving')
      return this.#answer(from, { ...head, type: 'rejected', reason: 'closed' })
    if (this.#gathering.answers.length >= this.#waitingMax) return this.#answer(from, { ...head, type: 'rejected', reason: 'busy' })
    if (message.epoch < replica.marks.epoch) {
      if (replica.row?.epoch !== replica.marks.epoch) return this.#answer(from, { ...head, type: 'rejected', reason: 'closed' })
      return this.#answer(from, { ...head, type: 'rejected', reason: 'epoch', row: replica.row })
    }
    if (message.epoch > replica.marks.epoch) this.#mark(replica, { epoch: message.epoch })
    this.#answer(from, replica.acceptor.step(message, replica.marks.epoch, now.wall))
  }

  /** Rows of the map, as they come. */
  learnRow(row: ShardRow): void {
    const replica = this.#replicas.get(row.shard)
    if (replica === undefined || row.epoch < (replica.row?.epoch ?? 0)) return
    replica.row = row
    if (row.epoch > replica.marks.epoch) this.#mark(replica, { epoch: row.epoch })
  }

  /** Writes what the turn gathered, if no write is under way: a slow disk makes larger batches and not a longer line. */
  endTurn(): void {
    if (this.#inFlight !== undefined || isEmpty(this.#gathering)) return
    const batch = this.#gathering
    this.#inFlight = batch
    this.#gathering = newBatch()
    this.#ports.commit({
      entries: batch.entries,
      shards: batch.shards,
      store: batch.hasStoreMarks ? { ceiling: this.#ceiling } : undefined,
    })
  }

  /** The batch under way is durable. */
  committed(): void {
    const batch = this.#inFlight
    assert(batch !== undefined, 'only a batch under way becomes durable')
    this.#inFlight = undefined
    for (const { to, message } of batch.answers) this.#ports.send(to, message)
    this.endTurn()
  }

  #answer(to: string, message: ReplicaAnswer): void {
    const id = idOf(message.shard, message.key)
    if (touches(this.#gathering, id)) this.#gathering.answers.push({ to, message })
    else if (touches(this.#inFlight, id)) this.#inFlight.answers.push({ to, message })
    else this.#ports.send(to, message)
  }

  #stored({ marks: { shard }, damaged }: Replica, key: string): Stored {
    const id = idOf(shard, key)
    const written = this.#gathering.entries.get(id) ?? this.#inFlight?.entries.get(id)
    const found = written === undefined ? this.#ports.read(shard, key) : written.entry
    if (found === undefined) return { type: 'absent' }
    if (found !== 'damaged') return { type: 'entry', entry: found }
    if (!damaged.has(key)) {
      damaged.set(key, this.#ceiling)
      this.#ports.alarm('a damaged record', shard, key)
    }
    return { type: 'damaged', ceiling: damaged.get(key) as Ballot }
  }

  #put(shard: number, key: string, entry: ReplicaEntry): void {
    this.#gathering.entries.set(idOf(shard, key), { shard, key, entry })
    this.#replicas.get(shard)?.damaged.delete(key)
  }

  #raiseCeiling(to: Ballot): void {
    assert(isBelow(this.#ceiling, to), 'a ceiling only rises')
    this.#ceiling = maxBallot(this.#ceiling, to)
    this.#gathering.hasStoreMarks = true
  }

  #mark(replica: Replica, change: Partial<ShardMarks>): void {
    replica.marks = { ...replica.marks, ...change }
    this.#gathering.shards.set(replica.marks.shard, replica.marks)
  }

  #marksOf(shard: number): Marks {
    const ceiling = (): Ballot => this.#ceiling
    const purged = (): Ballot => this.#replicas.get(shard)?.marks.purged ?? noBallot
    return {
      get ceiling() {
        return ceiling()
      },
      get purged() {
        return purged()
      },
    }
  }
}
