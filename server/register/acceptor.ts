/**
 * Acceptor: one replica's say in which ballots may still win for a key of its shard. DESIGN.md, sentences A1 to A10.
 * Pure. Invariant: after promising ballot b for a key, no entry below b is ever accepted for it, restarts and lost promises included.
 * Why no lock table: a proposer that dies must leave nothing to clean up.
 *
 * It answers at once; that no answer leaves before the state that it reveals is durable is the host's part (R3, storage/host.ts).
 */
import { unreachable } from '../../core/base/assert.ts'
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import { digestOf } from '../../core/record/digest.ts'
import type { KeyRecord } from '../../core/record/record.ts'
import type { Accept, Prepare, Read, ReplicaAnswer, ReplicaEntry, ReplicaRequest, Wanted } from '../../core/wire/replica-message.ts'
import { ballotAfter, isAtMost, isBelow, maxBallot, noBallot, sameBallot, type Ballot } from './ballot.ts'
import { PromiseTable } from './promises.ts'
import type { RegisterEvent } from './work.ts'

/** How far ahead of the own clock a PREPARE may be: a proposer whose clock is wrong by more must not drag everyone's ballots along. */
export const aheadMsMax = 60_000
/** How far a ceiling is raised beyond the ballot that needs it: about four small writes a second a server. */
export const ceilingStepMs = 250

/** What is on this replica's disk for a key, writes that are under way included. */
export type Stored =
  | { readonly type: 'absent' }
  | { readonly type: 'entry'; readonly entry: ReplicaEntry }
  /** Bytes that are not what was written. `ceiling`: as it stood when they were found. */
  | { readonly type: 'damaged'; readonly ceiling: Ballot }

/** The durable marks of a replica; its host keeps them and makes them durable before any answer that follows a change leaves. */
export interface Marks {
  /** No promise and no entry of this server is above it. One for all shards of a server. */
  readonly ceiling: Ballot
  /** An absent key may have had any entry up to this ballot. One a shard. */
  readonly purged: Ballot
}

export interface AcceptorPorts {
  readonly marks: Marks
  stored(key: string): Stored
  /** To be durable before the answer that follows leaves. */
  put(key: string, entry: ReplicaEntry): void
  raiseCeiling(to: Ballot): void
  alarm(what: 'two records under one ballot', key: string): void
  count(event: RegisterEvent): void
}

export interface AcceptorOptions {
  readonly shard: number
  readonly zone: number
  readonly ports: AcceptorPorts
  /** What the ceiling was when this replica began to serve: whatever was promised before is below it. */
  readonly floor: Ballot
  /** Promises in memory. Default 65,536: some 10 MB. */
  readonly promisesMax?: number
}

const promisesMaxDefault = 65_536

export class Acceptor {
  readonly promises: PromiseTable
  readonly #shard: number
  readonly #zone: number
  readonly #ports: AcceptorPorts

  constructor({ shard, zone, ports, floor, promisesMax = promisesMaxDefault }: AcceptorOptions) {
    this.#shard = shard
    this.#zone = zone
    this.#ports = ports
    this.promises = new PromiseTable(promisesMax, floor)
  }

  /** Answers one message of the present epoch; `now` is the server's wall clock. */
  step(message: ReplicaRequest, epoch: number, now: EpochMs): ReplicaAnswer {
    const stored = this.#ports.stored(message.key)
    // Never "no key": a read of damage would hide what was acknowledged, and a promise would let another value win over it.
    if (stored.type === 'damaged' && !(message.type === 'accept' && isBelow(stored.ceiling, message.ballot)))
      return { ...this.#head(message, epoch, now), type: 'rejected', reason: 'damaged', bound: stored.ceiling }
    switch (message.type) {
      case 'prepare':
        return this.#prepare(message, stored, epoch, now)
      case 'accept':
        return this.#accept(message, stored, epoch, now)
      case 'read':
        return this.#read(message, stored, epoch, now)
      default:
        return unreachable(message)
    }
  }

  #prepare(message: Prepare, stored: Stored, epoch: number, now: EpochMs): ReplicaAnswer {
    const { id, key, ballot, isRaised, wants } = message
    const { promises } = this
    const entry = entryIn(stored)
    const bound = maxBallot(maxBallot(promises.of(key), ballotIn(entry)), promises.floor)
    if (isAtMost(ballot, bound)) {
      if (sameBallot(bound, promises.floor)) this.#ports.count('floor-rejected')
      return { ...this.#head(message, epoch, now), type: 'rejected', reason: 'ballot', bound }
    }
    const known = maxBallot(bound, this.#ports.marks.ceiling)
    if (ballot.ms > now + aheadMsMax && ballot.ms > known.ms && !isRaised)
      return { ...this.#head(message, epoch, now), type: 'rejected', reason: 'clock' }
    if (isBelow(this.#ports.marks.ceiling, ballot)) {
      this.#ports.raiseCeiling(ballotAfter(ballot, ceilingStepMs))
      this.#ports.count('ceiling-raised')
    }
    const { evictions } = promises
    promises.make(key, ballot)
    if (promises.evictions > evictions) this.#ports.count('floor-raised-by-eviction')
    const isWhole = isWholeIn(entry, wants)
    const shown = isWhole ? entry : bare(entry)
    return { type: 'promised', id, shard: this.#shard, epoch, key, zone: this.#zone, clock: now, isWhole, entry: shown }
  }

  #accept(message: Accept, stored: Stored, epoch: number, now: EpochMs): ReplicaAnswer {
    const { id, key, ballot, record } = message
    const { promises } = this
    const entry = entryIn(stored)
    const accepted = ballotIn(entry)
    const bound = maxBallot(promises.of(key), accepted)
    if (isBelow(ballot, bound)) return { ...this.#head(message, epoch, now), type: 'rejected', reason: 'ballot', bound }
    // The entry's own ballot may come again below the floor: that is what keeps repair alive.
    if (isAtMost(ballot, promises.floor) && !sameBallot(ballot, accepted)) {
      this.#ports.count('floor-rejected')
      return { ...this.#head(message, epoch, now), type: 'rejected', reason: 'lasting', bound: promises.floor }
    }
    const { purged } = this.#ports.marks
    if (stored.type === 'absent' && isAtMost(ballot, purged)) {
      this.#ports.count('purged-rejected')
      return { ...this.#head(message, epoch, now), type: 'rejected', reason: 'lasting', bound: purged }
    }
    if (entry !== undefined && sameBallot(ballot, accepted)) {
      if (digestOf(record) === (entry.stub ?? digestOf(entry.record)))
        return { type: 'accepted', id, shard: this.#shard, epoch, key, zone: this.#zone, clock: now }
      this.#ports.alarm('two records under one ballot', key)
      return { ...this.#head(message, epoch, now), type: 'rejected', reason: 'digest' }
    }
    if (isBelow(this.#ports.marks.ceiling, ballot)) this.#ports.raiseCeiling(ballot)
    if (stored.type === 'damaged') this.#ports.count('damage-healed')
    this.#ports.put(key, { ballot, record })
    promises.fulfil(key, ballot)
    return { type: 'accepted', id, shard: this.#shard, epoch, key, zone: this.#zone, clock: now }
  }

  #read({ id, key, wants }: Read, stored: Stored, epoch: number, now: EpochMs): ReplicaAnswer {
    const entry = entryIn(stored)
    const isWhole = isWholeIn(entry, wants)
    const shown = isWhole ? entry : bare(entry)
    return { type: 'shown', id, shard: this.#shard, epoch, key, zone: this.#zone, clock: now, isWhole, entry: shown }
  }

  /** What an answer begins with. The ordinary ones write it out: a copy of it with more fields takes ten times the memory. */
  #head({ id, key }: ReplicaRequest, epoch: number, clock: EpochMs) {
    return { id, shard: this.#shard, epoch, key, zone: this.#zone, clock }
  }
}

const entryIn = (stored: Stored): ReplicaEntry | undefined => (stored.type === 'entry' ? stored.entry : undefined)
const ballotIn = (entry: ReplicaEntry | undefined): Ballot => entry?.ballot ?? noBallot

const isWholeIn = (entry: ReplicaEntry | undefined, wants: Wanted): boolean => wants === 'whole' || entry?.record.value === undefined

/** Without its payload. Each field by itself, which takes a fraction of what a copy with one changed does. */
function bare(entry: ReplicaEntry | undefined): ReplicaEntry | undefined {
  if (entry === undefined) return undefined
  const { version, createdAt, lastModifiedAt, changedAt, expiresAt, originator, lastRequest, completions } = entry.record
  return {
    ...entry,
    record: { value: undefined, version, createdAt, lastModifiedAt, changedAt, expiresAt, originator, lastRequest, completions },
  }
}

/** A dead entry without its payload. Its ballot and its digest stay: it still votes, and still knows a second record under its ballot. */
export function stubOf(entry: ReplicaEntry): ReplicaEntry {
  const record: KeyRecord = { ...entry.record, value: undefined }
  return { ballot: entry.ballot, record, stub: entry.stub ?? digestOf(entry.record) }
}

/** When an entry may become a stub: an expired one, or one that is a tombstone anyhow. Undefined: it lives until it is changed. */
export const diesAt = ({ record }: ReplicaEntry): EpochMs | undefined =>
  record.value === undefined ? epochMs(0) : record.expiresAt === 0 ? undefined : record.expiresAt
