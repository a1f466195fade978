/**
 * Expiry on disk: payloads of dead entries become stubs, and dead entries that every zone holds alike go. DESIGN.md, E2 to E9.
 * Pure. Invariant: an entry goes only after all N zones, in one epoch, said that they hold exactly its ballot (or nothing, with `purged` at
 * or above it), and have promised nothing above it that may still be accepted, and in the batch that raises `purged` over it (R14, E9).
 * Why each server asks for itself: there is no leader to lose, and a server drops nothing by another one's clock.
 */
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import { isDead } from '../../core/record/record.ts'
import type { ReplicaEntry } from '../../core/wire/replica-message.ts'
import type { Holds, HoldsRequest } from '../../core/wire/server-message.ts'
import { diesAt, stubOf, type Acceptor } from '../register/acceptor.ts'
import { isAtMost, isBelow, maxBallot, noBallot, sameBallot, type Ballot } from '../register/ballot.ts'
import type { PromiseTable } from '../register/promises.ts'
import type { Instant } from '../register/work.ts'
import type { Due, StorageEvent, StorageTimes } from './marks.ts'
import type { Replica, Replicas } from './replicas.ts'

/** Keys of one turn, and of one question. */
const keysMax = 256

/** From when on an entry may be dropped, if every zone holds it: a touch that was under way when it died is by then below the horizon. */
const purgeAt = ({ record }: ReplicaEntry, { completionsLifeMs, purgeAgeMs }: StorageTimes): EpochMs =>
  epochMs(Math.max(record.changedAt, record.expiresAt) + Math.max(completionsLifeMs, purgeAgeMs))

/** When something is due for an entry; undefined: never. Disks keep an index by it. */
export function dueAt(entry: ReplicaEntry, times: StorageTimes): EpochMs | undefined {
  const dies = diesAt(entry)
  if (dies === undefined) return undefined
  return entry.record.value !== undefined ? dies : purgeAt(entry, times)
}

interface Question {
  readonly id: number
  readonly epoch: number
  readonly below: Ballot
  readonly keys: readonly { readonly key: string; readonly ballot: Ballot }[]
  readonly answers: Map<number, readonly boolean[]>
  readonly endsMono: number
}

export interface ExpiryPorts {
  nextId(): number
  send(to: string, message: HoldsRequest): void
  /** Asks a proxy for write(identity). */
  repair(key: string, now: Instant): void
  count(event: StorageEvent): void
}

/** One shard's dead entries. */
export class Expiry {
  readonly #shard: number
  readonly #zone: number
  readonly #replicas: Replicas
  readonly #times: StorageTimes
  readonly #ports: ExpiryPorts
  #after: Due | undefined
  #question: Question | undefined

  constructor(shard: number, zone: number, replicas: Replicas, times: StorageTimes, ports: ExpiryPorts) {
    this.#shard = shard
    this.#zone = zone
    this.#replicas = replicas
    this.#times = times
    this.#ports = ports
  }

  /** @param due at most `keysMax` keys for which something is due, after `after` @param trusted the time by which things may go */
  tick(now: Instant, trusted: EpochMs | undefined, due: (after: Due | undefined, until: EpochMs, keysMax: number) => readonly Due[]): void {
    if (this.#question !== undefined && now.mono < this.#question.endsMono) return
    if (this.#question !== undefined) this.#ports.count('purge-delayed-by-silence')
    this.#question = undefined // a zone that is away only delays
    const replica = this.#replicas.of(this.#shard)
    if (replica?.acceptor === undefined || trusted === undefined) return
    const found = due(this.#after, trusted, keysMax)
    this.#after = found.length < keysMax ? undefined : found.at(-1)
    const old: { readonly key: string; readonly ballot: Ballot }[] = []
    for (const { key } of found) {
      const stored = this.#replicas.stored(this.#shard, key)
      if (stored.type !== 'entry') continue
      const { entry } = stored
      if (!isDead(entry.record, trusted)) continue
      if (entry.record.value !== undefined) this.#replicas.put(this.#shard, key, stubOf(entry))
      if (purgeAt(entry, this.#times) <= trusted) old.push({ key, ballot: entry.ballot })
    }
    if (old.length > 0) this.#ask(replica, replica.acceptor, old, now, trusted)
  }

  #ask({ marks }: Replica, { promises }: Acceptor, found: Question['keys'], now: Instant, trusted: EpochMs): void {
    if (marks.row?.epoch !== marks.epoch) return
    const { servers } = marks.row
    const id = this.#ports.nextId()
    const { epoch } = marks
    const below: Ballot = { ...noBallot, ms: trusted - this.#times.purgeHorizonMs }
    if (!knowsPromises(promises, found, below)) return this.#ports.count('purge-delayed-by-promises')
    const keys = found.filter(({ key, ballot }) => {
      if (isAtMost(promises.of(key), maxBallot(ballot, below))) return true
      this.#ports.count('purge-delayed-by-promises')
      this.#ports.repair(key, now)
      return false
    })
    if (keys.length === 0) return
    refuse(this.#replicas, promises, below)
    this.#question = { id, epoch, below, keys, answers: new Map(), endsMono: now.mono + this.#times.retryMs }
    for (const [zone, server] of servers.entries())
      if (zone !== this.#zone) this.#ports.send(server, { type: 'holds', id, shard: this.#shard, epoch, below: epochMs(below.ms), keys })
    if (servers.length === 1) this.#drop(this.#question, now)
  }

  heard({ id, zone, epoch, isSame }: Holds, trusted: EpochMs | undefined, now: Instant): void {
    const question = this.#question
    if (question === undefined || question.id !== id || zone === this.#zone) return
    if (epoch !== question.epoch || isSame.length !== question.keys.length) return
    question.answers.set(zone, isSame)
    const zones = this.#replicas.of(this.#shard)?.marks.row?.servers.length ?? Infinity
    if (question.answers.size === zones - 1 && trusted !== undefined) this.#drop(question, now)
  }

  #drop(question: Question, now: Instant): void {
    this.#question = undefined
    const replica = this.#replicas.of(this.#shard)
    if (replica?.acceptor === undefined || replica.marks.epoch !== question.epoch) return
    const answers = [...question.answers.values()]
    let purged = noBallot
    for (const [index, { key, ballot }] of question.keys.entries()) {
      if (!answers.every((isSame) => isSame[index] === true)) {
        this.#ports.count('purge-delayed-by-difference')
        this.#ports.repair(key, now)
        continue
      }
      const stored = this.#replicas.stored(this.#shard, key)
      if (stored.type !== 'entry' || !sameBallot(stored.entry.ballot, ballot)) continue // it lives again
      this.#replicas.put(this.#shard, key, undefined)
      purged = maxBallot(purged, ballot)
    }
    if (sameBallot(purged, noBallot)) return
    this.#ports.count('purge-confirmed')
    // Late ACCEPTs of a touch that was prepared before the entry died are below the horizon, too: all zones said so.
    this.#replicas.mark(this.#shard, { purged: maxBallot(replica.marks.purged, maxBallot(purged, question.below)) })
  }
}

/**
 * Another zone's question, answered by what is here; undefined: nothing can be said yet.
 * What was promised above the ballot and the horizon may still be accepted somewhere, so such a key has to be written anew first.
 */
export function holdsAlike(
  replicas: Replicas,
  { marks, acceptor }: Replica & { readonly acceptor: Acceptor },
  { shard, keys, below: ms }: HoldsRequest,
  now: EpochMs,
): readonly boolean[] | undefined {
  const { promises } = acceptor
  const below: Ballot = { ...noBallot, ms }
  if (ms > now || !knowsPromises(promises, keys, below)) return undefined
  const isSame = keys.map(({ key, ballot }) => {
    if (isBelow(maxBallot(ballot, below), promises.of(key))) return false
    const stored = replicas.stored(shard, key)
    if (stored.type === 'absent') return isAtMost(ballot, marks.purged)
    return stored.type === 'entry' && sameBallot(stored.entry.ballot, ballot)
  })
  refuse(replicas, promises, below)
  return isSame
}

/** After a start, or with more promises than there is room for, it does not know what it promised of old keys; some time later that is below the horizon. */
const knowsPromises = ({ forgotten }: PromiseTable, keys: Question['keys'], below: Ballot): boolean =>
  keys.every(({ ballot }) => isAtMost(forgotten, maxBallot(ballot, below)))

/** Nothing at or below the horizon is accepted here any more, also after a start. */
function refuse(replicas: Replicas, promises: PromiseTable, below: Ballot): void {
  promises.refuse(below)
  replicas.raiseCeiling(below)
}
