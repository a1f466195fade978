/**
 * Boot: whether the directory that a server was started on is the one that voted last under its name. DESIGN.md, B1 to B9.
 * Pure. Invariant: no replica serves before the map, or a quorum of zones when the map is away, has said that nothing newer is known; and a
 * directory that is not the newest is marked as a learner, durably, before anything in the map says that this server is up.
 * Why more than one incarnation: between the write here and the one in the map a process may end, and any of them may be the one that took.
 */
import type { Random } from '../../core/base/random.ts'
import type { ShardRow } from '../../core/wire/replica-message.ts'
import type { Incarnation, KnowRequest, Known, MapAnswer, MapRequest, ServerRow } from '../../core/wire/server-message.ts'
import { sameIncarnation } from '../cluster/map.ts'
import { isBelow, quorumOf, type Ballot } from '../register/ballot.ts'
import type { Instant } from '../register/work.ts'
import type { Identity, StorageTimes } from './marks.ts'
import type { Replicas } from './replicas.ts'

/** `fsync`: every batch is synced. `os`: it is in the log of the operating system, which a power cycle empties. */
export type DurabilityMode = 'fsync' | 'os'

/** What the directory is. `same`: the newest that there is; all others learn. */
export type Standing = 'same' | 'foreign' | 'behind' | 'backup' | 'power-cycle'

export interface Machine {
  readonly mode: DurabilityMode
  /** Undefined: it cannot be read. */
  readonly bootId: string | undefined
}

/** B2. What the directory and the map say of each other. */
export function standingOf(identity: Identity, ceiling: Ballot, row: ServerRow | undefined, machine: Machine): Standing {
  if (identity.isBackup) return 'backup'
  if (row === undefined || row.server !== identity.server || row.directory !== identity.directory) return 'foreign'
  // Before the next check: the power may have taken the last word of this directory itself, and what is left is still its own.
  if (hasPowerCycled(identity, machine)) return 'power-cycle'
  const isKnown = [identity.confirmed, ...identity.next].some((own) => sameIncarnation(own, row.incarnation))
  return !isKnown || isBelow(ceiling, row.ceiling) ? 'behind' : 'same'
}

/** B6. In `os` mode what was acknowledged may be gone after a power cycle, and whoever cannot tell takes it that there was one. */
const hasPowerCycled = (identity: Identity, { mode, bootId }: Machine): boolean =>
  mode === 'os' && (bootId === undefined || bootId !== identity.bootId)

/** B7. What a peer saw in the map is newer than this directory. An older word of a peer that missed a start says nothing. */
const isOutdatedBy = ({ confirmed, next }: Identity, seen: Incarnation): boolean =>
  seen.count >= confirmed.count && ![confirmed, ...next].some((own) => sameIncarnation(own, seen))

/** Starts that did not come to an end, of which any may still take in the map. */
const nextMax = 16

export interface BootPorts {
  readonly random: Random
  nextId(): number
  askMap(request: MapRequest): void
  send(to: string, message: KnowRequest): void
  /** Makes learners of all replicas, those that `rows` want of this server included, durably with what follows in this turn. */
  distrust(why: Standing, rows: readonly ShardRow[]): void
  /** From now on rows count, and replicas that may serve do. */
  open(): void
  alarm(what: string): void
}

type Step = 'asking' | 'raising' | 'registered'

export class Boot {
  readonly #server: string
  readonly #address: string | undefined
  readonly #zone: number
  readonly #zones: number
  readonly #machine: Machine
  readonly #replicas: Replicas
  readonly #times: StorageTimes
  readonly #ports: BootPorts
  #step: Step = 'asking'
  #isOpen = false
  #id = 0
  #retryMono = -Infinity
  /** The write that has to be durable before the map hears of this start; `sent`: from then on the answer has its time. */
  #write: 'none' | 'under-way' | 'sent' = 'none'
  readonly #startMono: number
  readonly #peers = new Set<number>()

  constructor(
    server: string,
    address: string | undefined,
    zone: number,
    zones: number,
    machine: Machine,
    replicas: Replicas,
    times: StorageTimes,
    ports: BootPorts,
    now: Instant,
  ) {
    this.#server = server
    this.#address = address
    this.#zone = zone
    this.#zones = zones
    this.#machine = machine
    this.#replicas = replicas
    this.#times = times
    this.#ports = ports
    this.#startMono = now.mono
    if (replicas.store.identity === undefined) this.#name()
  }

  /** The map knows that this directory is up. */
  get isRegistered(): boolean {
    return this.#step === 'registered'
  }
  get isOpen(): boolean {
    return this.#isOpen
  }

  tick(now: Instant): void {
    if (this.#step === 'registered' || this.#write === 'under-way') return
    if (this.#write === 'none' && now.mono < this.#retryMono) return
    this.#retryMono = now.mono + this.#times.retryMs
    if (this.#write === 'sent') {
      this.#write = 'none'
      return
    }
    // An answer to an earlier question may have been overtaken by our own writes.
    this.#step = 'asking'
    this.#id = this.#ports.nextId()
    this.#ports.askMap({ type: 'map-read', id: this.#id })
    if (!this.#isOpen && now.mono - this.#startMono >= this.#times.pollMs) this.#askPeers()
  }

  heardMap(answer: MapAnswer): void {
    if (answer.id !== this.#id) return
    if (this.#step === 'raising') return this.#raised(answer)
    if (this.#step !== 'asking') return
    const { identity, ceiling } = this.#replicas.store
    const row = answer.servers.find(({ server }) => server === this.#server)
    if (identity === undefined) return
    if (row === undefined || answer.rows.length === 0) return this.#join(identity, row, answer)
    const standing = standingOf(identity, ceiling, row, this.#machine)
    if (standing === 'same') return this.#raise(identity, row)
    if (standing === 'power-cycle' && this.#zones === 1) {
      this.#ports.alarm('a power cycle: writes of the last moments may be gone, and there is no other zone to ask')
      return this.#raise(identity, row)
    }
    this.#ports.distrust(standing, answer.rows)
    this.#isOpen = false
    // A foreign directory takes the name's place; the mark above is in the same batch, before the map hears of it (B3).
    this.#raise({ ...identity, directory: standing === 'foreign' ? this.#newName() : identity.directory, isBackup: false }, row)
  }

  /** B7. Without the map: a quorum of zones, this one among them, knows of nothing newer. */
  heardKnown({ id, zone, incarnation }: Known): void {
    const { identity } = this.#replicas.store
    if (id !== this.#id || this.#isOpen || identity === undefined || zone === this.#zone) return
    if (incarnation !== undefined && isOutdatedBy(identity, incarnation)) return this.#ports.distrust('behind', [])
    this.#peers.add(zone)
    this.#openByPeers()
  }

  #openByPeers(): void {
    if (this.#peers.size + 1 >= quorumOf(this.#zones)) this.#open()
  }

  #askPeers(): void {
    const { identity } = this.#replicas.store
    const { shards } = this.#replicas
    if (identity === undefined || shards.length === 0) return
    if (identity.server !== this.#server) return this.#ports.distrust('foreign', [])
    if (identity.isBackup) return this.#ports.distrust('backup', [])
    if (hasPowerCycled(identity, this.#machine) && this.#zones > 1) return this.#ports.distrust('power-cycle', [])
    const peers = new Set(shards.flatMap((shard) => this.#replicas.of(shard)?.marks.row?.servers ?? []))
    peers.delete(this.#server)
    for (const peer of peers) this.#ports.send(peer, { type: 'know', id: this.#id, server: this.#server, shards })
    this.#openByPeers()
  }

  /** An empty directory gets a name; nothing is asked before it is durable. */
  #name(): void {
    const first: Incarnation = { count: 1, value: this.#ports.random.int(2 ** 32) }
    const { bootId } = this.#machine
    const server = this.#server
    this.#replicas.markStore({ identity: { directory: this.#newName(), server, confirmed: first, next: [], bootId, isBackup: false } })
  }

  /** B4. No place in the map yet. Replicas that are here all the same are another cluster's. */
  #join(identity: Identity, row: ServerRow | undefined, answer: MapAnswer): void {
    if (row?.directory === identity.directory && answer.rows.length === 0) return // waits for the other zones
    if (this.#replicas.shards.length > 0) this.#ports.distrust('foreign', answer.rows)
    const { directory, confirmed } = identity
    const { ceiling } = this.#replicas.store
    const server: ServerRow = { server: this.#server, zone: this.#zone, directory, incarnation: confirmed, ceiling, address: this.#address }
    this.#replicas.journal.afterAll(() => this.#ports.askMap({ type: 'map-join', id: this.#ports.nextId(), server }))
  }

  /** B5. Here first, durably, then in the map. Until the map knows it stays a directory of before the power cycle (B6). */
  #raise({ directory, isBackup, bootId, confirmed, next: earlier }: Identity, { incarnation: from }: ServerRow): void {
    this.#step = 'raising'
    this.#write = 'under-way'
    const next: Incarnation = { count: from.count + 1, value: this.#ports.random.int(2 ** 32) }
    const { ceiling } = this.#replicas.store // durable with the identity
    // What an earlier start asked for takes only from the incarnation that it found.
    const late = sameIncarnation(confirmed, from) ? earlier.slice(1 - nextMax) : []
    this.#replicas.markStore({ identity: { directory, server: this.#server, confirmed: from, next: [...late, next], bootId, isBackup } })
    const id = this.#ports.nextId()
    this.#id = id
    this.#replicas.journal.afterAll(() => {
      this.#write = 'sent'
      const server: ServerRow = { server: this.#server, zone: this.#zone, directory, incarnation: next, ceiling, address: this.#address }
      this.#ports.askMap({ type: 'map-raise', id, from, server })
    })
  }

  #raised({ isDone }: MapAnswer): void {
    this.#retryMono = -Infinity
    if (!isDone) {
      this.#step = 'asking'
      return
    }
    this.#step = 'registered'
    const { identity } = this.#replicas.store
    const confirmed = identity?.next.at(-1)
    if (identity !== undefined && confirmed !== undefined)
      this.#replicas.markStore({ identity: { ...identity, confirmed, next: [], bootId: this.#machine.bootId } })
    this.#open()
  }

  #open(): void {
    this.#isOpen = true
    this.#ports.open()
  }

  #newName(): string {
    const { random } = this.#ports
    return [0, 1, 2, 3]
      .map(() =>
        random
          .int(2 ** 32)
          .toString(16)
          .padStart(8, '0'),
      )
      .join('')
  }
}
