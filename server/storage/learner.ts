/**
 * Learner: how a server whose store cannot be trusted comes to vote again for one shard. DESIGN.md, L1 to L8.
 * Pure. Invariant: it votes only in epochs above the one that it took itself, and holds for each key at least the highest ballot that
 * N - quorum + 1 voting zones held when they had made that epoch durable (R11).
 * Why not a quorum of sources, or "one healthy zone": a value may have been chosen by the lost votes and any quorum - 1 others; each of
 * those sets meets N - quorum + 1 of the others, and smaller sets of sources it may miss (interleaving 9).
 */
import { assert } from '../../core/base/assert.ts'
import type { ReplicaEntry, ShardRow } from '../../core/wire/replica-message.ts'
import type { CopyPage, CopyRequest, HandedKey, MapAnswer, MapRequest } from '../../core/wire/server-message.ts'
import { nextEpoch } from '../cluster/map.ts'
import type { Stored } from '../register/acceptor.ts'
import { isBelow, maxBallot, noBallot, sameBallot, sourcesOf, type Ballot } from '../register/ballot.ts'
import type { Instant } from '../register/work.ts'
import type { StorageEvent, StorageTimes } from './marks.ts'
import type { Replicas } from './replicas.ts'

/** Keys of a page. */
const keysMax = 256
/** Keys that some source could not read, which are remembered; further ones are damaged here, too. */
const unreadMax = 4_096
/** Polls of the map without enough voting zones, until a person is told that it may have to be recovered. */
const patiencePolls = 10

export interface LearnerPorts {
  nextId(): number
  send(to: string, message: CopyRequest): void
  askMap(request: MapRequest): void
  alarm(what: string): void
  count(event: StorageEvent): void
}

interface Source {
  readonly zone: number
  /** What is asked for after; undefined: from the first. */
  after: string | undefined
  /** It votes, and has made our epoch durable. */
  isFenced: boolean
  isWhole: boolean
  /** An answer to an earlier request of it is not taken. */
  id: number
  retryMono: number
}

type Step = 'marking' | 'taking' | 'fencing' | 'copying' | 'done'

export class Learner {
  readonly #shard: number
  readonly #zone: number
  readonly #replicas: Replicas
  readonly #times: StorageTimes
  readonly #ports: LearnerPorts
  /** Zones that put together what is left of a shard; undefined: an ordinary learner. */
  readonly #recovers: readonly number[] | undefined
  #step: Step = 'marking'
  #swapId: number | undefined
  #retryMono = -Infinity
  /** By server: a zone's new server begins anew. */
  readonly #sources = new Map<string, Source>()
  /** Keys that a source could not read, with those sources: for such a key they are none. */
  readonly #unread = new Map<string, Set<string>>()
  #enoughMono: number | undefined
  #fencingMono: number | undefined
  #isTold = false
  #ceiling: Ballot = noBallot
  #purged: Ballot = noBallot

  constructor(shard: number, zone: number, replicas: Replicas, times: StorageTimes, ports: LearnerPorts) {
    this.#shard = shard
    this.#zone = zone
    this.#replicas = replicas
    this.#times = times
    this.#ports = ports
    const { row } = this.#marks
    this.#recovers = this.#marks.keepsOwn ? row?.recovers : undefined
    // L1: on the disk it is a learner before the map hears of it. Of a recovery the operator took the epoch already.
    replicas.journal.afterAll(() => {
      if (this.#step === 'marking') this.#step = this.#recovers === undefined ? 'taking' : 'copying'
    })
  }

  get isDone(): boolean {
    return this.#step === 'done'
  }
  /** Another learner begins, or the shard is not ours any more. */
  stop(): void {
    this.#step = 'done'
  }

  tick(now: Instant): void {
    if (this.#step === 'marking' || this.#step === 'done') return
    const { row } = this.#marks
    if (row === undefined) return
    if (this.#step === 'taking') return this.#take(row, now)
    for (const [zone, server] of row.servers.entries()) if (this.#mayGive(zone)) this.#request(server, zone, row, now)
    if (this.#step === 'fencing') this.#complain(now)
    this.#settle(now)
  }

  /** D5: it goes on asking, but zones that all lost what they had will never answer. */
  #complain(now: Instant): void {
    this.#fencingMono ??= now.mono
    if (this.#isTold || now.mono - this.#fencingMono < patiencePolls * this.#times.pollMs) return
    this.#isTold = true
    this.#ports.count('closed-for-loss')
    this.#ports.alarm('too few voting zones to learn from: closed until they are back, or until `recover --accept-loss`')
  }

  /** The map's word on the epoch that was asked for. Only the own transaction counts: an older life may have voted in any other epoch. */
  heardMap({ id, isDone }: MapAnswer): void {
    if (this.#step !== 'taking' || this.#swapId !== id) return
    this.#swapId = undefined
    this.#retryMono = -Infinity
    if (isDone) this.#step = 'fencing'
  }

  heardPage(page: CopyPage, from: string, now: Instant): void {
    const source = this.#sources.get(from)
    if (source === undefined || source.id !== page.id || source.isWhole || this.#step === 'done') return
    source.id = 0
    source.isFenced = true
    if (this.#step === 'fencing') return this.#fenced(now)
    for (const handed of page.keys) this.#keep(handed, from)
    this.#ceiling = maxBallot(this.#ceiling, page.ceiling)
    this.#purged = maxBallot(this.#purged, page.purged)
    source.after = page.keys.at(-1)?.key ?? source.after
    // The next page is asked for when this one is on the disk: that bounds what is in memory.
    this.#replicas.journal.afterAll(() => {
      if (this.#step === 'done') return
      source.isWhole = page.isLast
      source.retryMono = -Infinity
      this.tick(now)
    })
  }

  get #marks() {
    const replica = this.#replicas.of(this.#shard)
    assert(replica?.marks.state === 'learning', 'a learner is marked as one')
    return replica.marks
  }

  #mayGive(zone: number): boolean {
    return zone !== this.#zone && (this.#recovers === undefined || this.#recovers.includes(zone))
  }
  get #sourcesNeeded(): number {
    if (this.#recovers !== undefined) return this.#recovers.length - 1
    return sourcesOf(this.#marks.row?.servers.length ?? Infinity)
  }

  #take(row: ShardRow, now: Instant): void {
    if (now.mono < this.#retryMono) return
    this.#retryMono = now.mono + this.#times.retryMs
    this.#swapId = this.#ports.nextId()
    this.#ports.askMap({ type: 'map-swap', id: this.#swapId, row: nextEpoch(row) })
  }

  #request(server: string, zone: number, row: ShardRow, now: Instant): void {
    const source = this.#sources.get(server) ?? { zone, after: undefined, isFenced: false, isWhole: false, id: 0, retryMono: -Infinity }
    this.#sources.set(server, source)
    const isServed = this.#step === 'fencing' ? source.isFenced : source.isWhole
    if (isServed || now.mono < source.retryMono) return
    source.id = this.#ports.nextId()
    source.retryMono = now.mono + this.#times.retryMs
    const most = this.#step === 'fencing' ? 0 : keysMax
    this.#ports.send(server, { type: 'copy', id: source.id, shard: this.#shard, row, after: source.after, keysMax: most })
  }

  /** Enough voting zones are there and fenced: now what is here may go. Before that it might be the last that is left of something. */
  #fenced(now: Instant): void {
    const { row } = this.#marks
    const fenced = [...this.#sources].filter(([server, { zone, isFenced }]) => isFenced && row?.servers[zone] === server)
    if (fenced.length < this.#sourcesNeeded) return
    this.#step = 'copying'
    this.#replicas.clear(this.#shard)
    for (const source of this.#sources.values()) source.retryMono = -Infinity
    this.tick(now)
  }

  #keep({ key, entry }: HandedKey, from: string): void {
    if (entry === 'absent') return
    const stored = this.#replicas.stored(this.#shard, key)
    const isRecovery = this.#recovers !== undefined
    if (stored.type === 'damaged' && !isRecovery) return // stays so until an ACCEPT above the ceiling
    if (entry === 'damaged' && this.#unread.size >= unreadMax && !this.#unread.has(key)) {
      if (!isRecovery) this.#replicas.put(this.#shard, key, 'damaged')
    } else if (entry === 'damaged') this.#unread.set(key, (this.#unread.get(key) ?? new Set()).add(from))
    else {
      if (stored.type === 'entry' && !sameBallot(stored.entry.ballot, entry.ballot)) this.#ports.count('learner-met-difference')
      if (isNewer(entry, stored)) this.#replicas.put(this.#shard, key, entry)
    }
  }

  #settle(now: Instant): void {
    const { row, keepsOwn } = this.#marks
    if (this.#step !== 'copying' || row === undefined) return
    const needed = this.#sourcesNeeded
    const sources = [...this.#sources].filter(([server, { zone }]) => row.servers[zone] === server)
    const whole = sources.filter(([, { isWhole }]) => isWhole)
    if (whole.length < needed) return
    const isUnknown = ([key, servers]: [string, Set<string>]): boolean =>
      this.#recovers === undefined
        ? whole.filter(([server]) => !servers.has(server)).length < needed
        : this.#replicas.stored(this.#shard, key).type === 'damaged'
    const unknown = [...this.#unread].filter(isUnknown)
    this.#enoughMono ??= now.mono
    // One more zone may have read it; a zone that is away is not waited for.
    if (unknown.length > 0 && whole.length < sources.length && now.mono - this.#enoughMono < this.#times.pollMs) return
    // The loss of a recovery is accepted: a key that nobody can read would stay closed for ever.
    for (const [key] of unknown) this.#replicas.put(this.#shard, key, this.#recovers === undefined ? 'damaged' : undefined)
    this.#step = 'done'
    const purged = maxBallot(this.#purged, keepsOwn ? this.#marks.purged : noBallot)
    this.#replicas.raiseCeiling(this.#ceiling)
    this.#replicas.mark(this.#shard, { state: 'serving', purged, keepsOwn: false })
    if (this.#recovers !== undefined) this.#ports.alarm('what only lost stores had of this shard is gone, as it was accepted')
    this.#ports.count(this.#recovers === undefined ? 'learner-served' : 'shard-recovered')
    // Its first answers wait for these marks, and with them for all copies (L6).
    this.#replicas.serve(this.#shard)
  }
}

/** Highest ballot wins; a stub wins over its own payload, for it was seen dead. */
function isNewer(entry: ReplicaEntry, stored: Stored): boolean {
  if (stored.type !== 'entry') return true
  if (sameBallot(entry.ballot, stored.entry.ballot)) return entry.stub !== undefined && stored.entry.stub === undefined
  return isBelow(stored.entry.ballot, entry.ballot)
}
