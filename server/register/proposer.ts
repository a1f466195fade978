/**
 * Proposer: all operations that wait for one key in one proxy, one round of PREPARE and ACCEPT at a time. DESIGN.md, sentences P1 to P15.
 * Pure. Invariant: whatever it answers rests on a state that a quorum holds at one ballot within one epoch.
 * Why all that wait go into one round: a hot key costs two round trips for everybody, and writers of one proxy never duel.
 */
import { assert } from '../../core/base/assert.ts'
import type { EpochMs } from '../../core/base/types.ts'
import { apply, tombstone } from '../../core/record/operation.ts'
import { entryOf, isDead, type KeyRecord } from '../../core/record/record.ts'
import type { ReplicaAnswer, ReplicaEntry, ShardRow } from '../../core/wire/replica-message.ts'
import { maxBallot, noBallot, quorumOf, sameBallot, type Ballot } from './ballot.ts'
import { medianOf, type Answer, type Instant, type RegisterPorts, type Work } from './work.ts'

/** After either phase began: whoever has not answered by then is not waited for. */
export const phaseMsMax = 60
/** Each phase that ended so doubles it up to this: servers that are slow for everybody must not keep all requests from ever ending. */
export const slowPhaseMsMax = 240
/** The longest wait between two rounds. */
const backOffMsMax = 40
/** Operations of one round: their completions must find room in one record, beside those of other proxies. */
export const roundOperationsMax = 64

interface Preparing {
  readonly type: 'preparing'
  readonly round: Round
  /** Who waited already when the PREPARE left: they alone may be answered from its promises (interleaving 4). */
  readonly early: ReadonlySet<Work>
  readonly promises: Map<number, { readonly entry: ReplicaEntry | undefined; readonly isWhole: boolean; readonly clock: EpochMs }>
}
/** The highest entry came without its payload: it is asked for, and a late promise that brings it is as good. */
interface Fetching extends Omit<Preparing, 'type'> {
  readonly type: 'fetching'
  readonly ballot: Ballot
  readonly prepareId: number
}
interface Accepting {
  readonly type: 'accepting'
  readonly round: Round
  readonly record: KeyRecord
  readonly answers: Map<Work, Answer>
  readonly accepted: Set<number>
}
interface BackingOff {
  readonly type: 'backing-off'
  readonly untilMono: number
}
type Phase = { readonly type: 'idle' } | Preparing | Fetching | Accepting | BackingOff

interface Round {
  readonly ballot: Ballot
  readonly row: ShardRow
  /** Of the messages of this phase: an answer to another one is not for us. */
  readonly id: number
  readonly endsMono: number
  /** Zones that said no, and why. */
  readonly refused: Map<number, Why>
}

/** Why a round came to nothing. */
type Why = 'contention' | 'no-quorum' | 'overload'
const whyOf: Partial<Record<string, Why>> = { ballot: 'contention', lasting: 'contention', busy: 'overload' }

export class Proposer {
  readonly key: string
  readonly #ports: RegisterPorts
  #queue: Work[] = []
  #phase: Phase = { type: 'idle' }
  /** The highest bound of a REJECT. Own ballots do not count: after a step of the clock they would carry its fault on. */
  #seen: Ballot = noBallot
  #failures = 0
  /** Phases in a row that ended by time. */
  #timeouts = 0
  #why: Why = 'no-quorum'

  constructor(key: string, ports: RegisterPorts) {
    this.key = key
    this.#ports = ports
  }

  /** Nothing waits and nothing is under way: it may be forgotten. */
  get isIdle(): boolean {
    return this.#phase.type === 'idle' && this.#queue.length === 0
  }
  get waiting(): number {
    return this.#queue.length + (this.#phase.type === 'accepting' ? this.#phase.answers.size : 0)
  }

  add(work: Work, now: Instant): void {
    this.#queue.push(work)
    this.#ports.wakeAt(work.deadlineMono)
    if (this.#phase.type === 'idle') this.#begin(now)
  }

  /** Some instant that was asked for has come, or another row of the map is known. */
  wake(now: Instant): void {
    this.#endLate(now)
    const phase = this.#phase
    switch (phase.type) {
      case 'idle':
        return
      case 'backing-off':
        if (now.mono >= phase.untilMono) this.#begin(now)
        return
      default:
        if (this.waiting === 0) return this.#rest()
        if (phase.round.row.epoch !== this.#ports.row().epoch) return this.#again(now, 0)
        if (now.mono < phase.round.endsMono) return
        this.#timeouts++
        this.#lost('no-quorum', now)
    }
  }

  receive(answer: ReplicaAnswer, now: Instant): void {
    const phase = this.#phase
    if (phase.type === 'idle' || phase.type === 'backing-off') return
    const isLate = phase.type === 'fetching' && answer.id === phase.prepareId && bringsPayload(answer, phase.ballot)
    if (answer.id !== phase.round.id && !isLate) return
    if (answer.type === 'rejected') return this.#rejected(answer, phase, now)
    if (answer.epoch !== phase.round.row.epoch) return // votes are counted within one epoch (R11)
    if (answer.type === 'promised' && (phase.type === 'preparing' || isLate)) {
      const { entry, isWhole, clock, zone } = answer
      phase.promises.set(zone, { entry, isWhole, clock })
      if (phase.promises.size >= this.#quorum) this.#decide(phase, now)
    } else if (answer.type === 'shown' && phase.type === 'fetching') {
      const { entry, isWhole, clock, zone } = answer
      // Ballot and record always come from one answer; another ballot means that we were outbid (interleaving 11).
      if (!isWhole || entry === undefined || !sameBallot(entry.ballot, phase.ballot)) return this.#lost('contention', now)
      phase.promises.set(zone, { entry, isWhole, clock })
      this.#decide(phase, now)
    } else if (answer.type === 'accepted' && phase.type === 'accepting') {
      phase.accepted.add(answer.zone)
      if (phase.accepted.size >= this.#quorum) this.#chosen(phase, now)
    }
  }

  get #quorum(): number {
    return quorumOf(this.#ports.row().servers.length)
  }

  #begin(now: Instant): void {
    this.#endLate(now)
    if (this.#queue.length === 0) return this.#rest()
    if (!this.#ports.clockIsTrusted(now)) {
      this.#endWhere(() => true, 'clock', now)
      return this.#rest()
    }
    const ballot = this.#ports.ballots.above(this.#seen, now.wall)
    const isRaised = ballot.ms > now.wall // then other replicas have these milliseconds already
    if (isRaised) this.#ports.count('ballot-ahead')
    const round = this.#round(ballot, now)
    this.#phase = { type: 'preparing', round, early: new Set(this.#queue), promises: new Map() }
    const { row, id } = round
    const first = this.#ports.nearest(row)
    for (const zone of row.servers.keys()) {
      const wants = zone === first ? 'whole' : 'bare'
      this.#ports.send(zone, row, { type: 'prepare', id, shard: row.shard, epoch: row.epoch, key: this.key, ballot, isRaised, wants })
    }
  }

  #round(ballot: Ballot, now: Instant): Round {
    const endsMono = now.mono + Math.min(phaseMsMax * 2 ** this.#timeouts, slowPhaseMsMax)
    this.#ports.wakeAt(endsMono)
    return { ballot, row: this.#ports.row(), id: this.#ports.nextId(now), endsMono, refused: new Map() }
  }

  /** A quorum promised: nothing that is not shown here can have been chosen below our ballot, or ever will be. */
  #decide(phase: Preparing | Fetching, now: Instant): void {
    const { round, early, promises } = phase
    const shown = [...promises.values()]
    const highest = shown.reduce<Ballot>((ballot, { entry }) => maxBallot(ballot, entry?.ballot ?? noBallot), noBallot)
    const holders = shown.filter(({ entry }) => sameBallot(entry?.ballot ?? noBallot, highest))
    // Where one zone has dropped the payload the record is dead, also by a clock that is behind.
    const whole = holders.find((one) => one.entry?.stub !== undefined) ?? holders.find(({ isWhole }) => isWhole)
    if (whole === undefined) return this.#fetch(phase, highest, now)
    const isChosen = holders.length >= this.#quorum
    const { entry } = whole
    const clocks = shown.map(({ clock }) => clock)

    this.#endLate(now)
    this.#endWhere((work) => this.#isTooOld(work, clocks, now), 'too-old', now)
    if (!this.#ports.clockIsTrusted(now)) this.#endWhere(() => true, 'clock', now)

    if (this.#queue.length === 0) return this.#rest()

    const before = entry?.record
    const trimAt = Math.min(now.wall, medianOf(clocks)) as EpochMs
    const answers = new Map<Work, Answer>()
    let record = before
    for (const work of this.#queue.slice(0, roundOperationsMax)) {
      if (mayEndUnchosen(record, isChosen ? before : undefined, this.#ports.ageMsMax, now.wall)) {
        this.#ports.count('short-life-waited')
        break
      }
      const decision = this.#apply(work, record, before, now, trimAt)
      if (decision.record !== record) work.acceptWasSent = 'next'
      record = decision.record
      answers.set(work, decision.answer)
    }
    this.#queue.splice(0, answers.size)
    if (record === before && entry !== undefined && restsOnExpiry(entry, now.wall)) {
      record = sealed(entry.record, now.wall)
      this.#ports.count('expiry-sealed')
    }
    // A refusal that is remembered changes the record, and its expiry must not come back to life under another clock (R13).
    if (record !== before && record?.value !== undefined && isDead(record, now.wall)) record = sealed(record, now.wall)
    if (record === before) {
      // Nothing changed. Who waited before the PREPARE left may be answered from a state that is chosen already.
      for (const [work, answer] of answers) {
        if (!isChosen || !early.has(work) || work.acceptWasSent !== 'no' || work.isRepair) continue
        answers.delete(work)
        this.#ports.answer(work, answer)
      }
      if (answers.size === 0 && isChosen) return this.#succeeded(now)
    }
    if (record === before && [...answers.keys()].some((work) => !early.has(work))) this.#ports.count('late-joiner-accepted')
    if (record === before && [...answers.keys()].some((work) => work.acceptWasSent === 'yes')) this.#ports.count('refusal-sealed')
    this.#accept(round, record ?? blank(answers, now.wall), answers, now)
  }

  #apply(
    work: Work,
    record: KeyRecord | undefined,
    before: KeyRecord | undefined,
    now: Instant,
    trimAt: EpochMs,
  ): { readonly record: KeyRecord | undefined; readonly answer: Answer } {
    if (work.operation === undefined) return { record, answer: { type: 'read', entry: entryOf(record, now.wall), now: now.wall } }
    const decision = apply(work.operation, record, now.wall, this.#ports.rules, trimAt)
    if (decision.isRecalled) this.#countHit(record, before, now)
    if (decision.outcome.type === 'fault' && decision.outcome.code === 'RECORD_LOCKED') this.#ports.count('record-locked')
    return { record: decision.record, answer: { type: 'decided', outcome: decision.outcome, now: decision.decidedAt ?? now.wall } }
  }

  #countHit(record: KeyRecord | undefined, before: KeyRecord | undefined, now: Instant): void {
    const ports = this.#ports
    ports.count('completion-hit')
    if (record !== before) ports.count('completion-hit-in-batch')
    else if (record?.value === undefined) ports.count('completion-hit-on-tombstone')
    else if (isDead(record, now.wall)) ports.count('completion-hit-on-expired')
  }

  #fetch(phase: Preparing | Fetching, ballot: Ballot, now: Instant): void {
    if (phase.type === 'fetching') return this.#lost('contention', now)
    this.#ports.count('payload-fetched')
    const { row, id } = phase.round
    const round = { ...this.#round(phase.round.ballot, now), row }
    this.#phase = { ...phase, type: 'fetching', round, ballot, prepareId: id }
    for (const [zone, { entry }] of phase.promises) {
      if (entry === undefined || !sameBallot(entry.ballot, ballot)) continue
      this.#ports.send(zone, row, { type: 'read', id: round.id, shard: row.shard, epoch: row.epoch, key: this.key, wants: 'whole' })
      return
    }
  }

  #accept({ ballot, row }: Round, record: KeyRecord, answers: Map<Work, Answer>, now: Instant): void {
    const round = { ...this.#round(ballot, now), row } // the epoch in which it prepared, whatever the map says meanwhile
    for (const work of answers.keys()) if (work.acceptWasSent === 'next') work.acceptWasSent = 'yes'
    this.#phase = { type: 'accepting', round, record, answers, accepted: new Set() }
    for (const zone of row.servers.keys())
      this.#ports.send(zone, row, { type: 'accept', id: round.id, shard: row.shard, epoch: row.epoch, key: this.key, ballot, record })
  }

  #chosen({ answers }: Accepting, now: Instant): void {
    for (const [work, answer] of answers) this.#ports.answer(work, answer)
    this.#succeeded(now)
  }

  #succeeded(now: Instant): void {
    this.#failures = 0
    this.#timeouts = 0
    this.#why = 'no-quorum'
    this.#rest()
    this.#begin(now)
  }

  #rejected(answer: ReplicaAnswer & { type: 'rejected' }, phase: Preparing | Fetching | Accepting, now: Instant): void {
    const { round } = phase
    if (answer.reason === 'epoch') {
      if (this.#ports.learnRow(answer.row, now)) this.#again(now, 0)
      return
    }
    if ('bound' in answer) {
      if (phase.type !== 'accepting' && sameBallot(answer.bound, round.ballot)) return // a PREPARE that came twice
      this.#seen = maxBallot(this.#seen, answer.bound)
    }
    round.refused.set(answer.zone, whyOf[answer.reason] ?? 'no-quorum')
    // Of a payload one zone was asked: it has it no longer, or does not say.
    if (phase.type !== 'fetching' && round.row.servers.length - round.refused.size >= this.#quorum) return
    const why = whyOfRound(round, this.#quorum)
    if (why === 'contention') this.#ports.count('duel')
    this.#lost(why, now)
  }

  #lost(why: Why, now: Instant): void {
    this.#why = why
    // Whoever is overloaded is not asked again for those of whom nothing left: that would be more load.
    if (why === 'overload') this.#endWhere(({ acceptWasSent }) => acceptWasSent === 'no', why, now)
    const waitMsMax = Math.min(4 * 2 ** Math.min(this.#failures++, 10), backOffMsMax)
    this.#again(now, 1 + this.#ports.random.next() * (waitMsMax - 1))
  }

  /** What is not answered yet goes to the head of the line. */
  #again(now: Instant, waitMs: number): void {
    if (this.#phase.type === 'accepting') this.#queue = [...this.#phase.answers.keys(), ...this.#queue]
    this.#phase = { type: 'idle' }
    if (waitMs === 0) return this.#begin(now)
    const untilMono = now.mono + waitMs
    this.#phase = { type: 'backing-off', untilMono }
    this.#ports.wakeAt(untilMono)
  }

  #rest(): void {
    this.#phase = { type: 'idle' }
  }

  /** Answers those whose time is over, and takes them out, so that no later ACCEPT carries them. */
  #endLate(now: Instant): void {
    const isLate = (work: Work): boolean => now.mono >= work.deadlineMono
    this.#endWhere(isLate, this.#why, now)
    if (this.#phase.type !== 'accepting') return
    const { answers } = this.#phase
    for (const work of [...answers.keys()].filter(isLate)) {
      this.#ports.count('batch-split-by-deadline')
      answers.delete(work)
      this.#end(work, this.#why, now)
    }
  }

  /** Answers those of the queue that must not go on. */
  #endWhere(isOver: (work: Work) => boolean, why: NoEffect, now: Instant): void {
    const over = this.#queue.filter(isOver)
    if (over.length === 0) return
    this.#queue = this.#queue.filter((work) => !isOver(work))
    for (const work of over) this.#end(work, why, now)
  }

  #isTooOld({ sentAt }: Work, clocks: readonly EpochMs[], now: Instant): boolean {
    if (sentAt === undefined) return false
    return Math.max(now.wall, medianOf(clocks)) - sentAt > this.#ports.ageMsMax
  }

  #end(work: Work, why: NoEffect, now: Instant): void {
    assert(work.acceptWasSent !== 'next', 'what is about to be sent is not ended')
    if (why === 'too-old') this.#ports.count('too-old')
    if (why === 'clock') this.#ports.count('clock-withheld')
    this.#ports.answer(work, work.acceptWasSent === 'yes' ? { type: 'unknown', now: now.wall } : { type: 'no-effect', why, now: now.wall })
  }
}

const bringsPayload = (answer: ReplicaAnswer, ballot: Ballot): boolean =>
  answer.type === 'promised' && answer.isWhole && sameBallot(answer.entry?.ballot ?? noBallot, ballot)

type NoEffect = (Answer & { type: 'no-effect' })['why']

/** One word for a round that several zones refused. Overload only if its zones alone leave no quorum: then nothing is asked again. */
function whyOfRound({ refused, row }: Round, quorum: number): Why {
  const all = [...refused.values()]
  if (row.servers.length - all.filter((why) => why === 'overload').length < quorum) return 'overload'
  return all.includes('contention') ? 'contention' : 'no-quorum'
}

/** Dead by time alone, or without the payload that would say more: another zone may hold a later expiry (R13). */
export const restsOnExpiry = (entry: ReplicaEntry, now: EpochMs): boolean =>
  entry.stub !== undefined || (entry.record.value !== undefined && isDead(entry.record, now))

/**
 * The record is alive now, and may be dead before it is chosen: its life is not that of a chosen state, and ends while a request that was
 * decided on it may still be told so. Others see the state before it until then, so nothing may rest on that life (P15).
 */
function mayEndUnchosen(record: KeyRecord | undefined, chosen: KeyRecord | undefined, withinMs: number, now: EpochMs): boolean {
  if (record === undefined || record.expiresAt === 0 || isDead(record, now) || record.expiresAt - now > withinMs) return false
  return chosen === undefined || isDead(chosen, now) || chosen.expiresAt !== record.expiresAt
}

/** The tombstone that makes an expiry chosen. It keeps all but the payload. */
const sealed = (record: KeyRecord, now: EpochMs): KeyRecord => ({ ...record, value: undefined, changedAt: now })

/** Seals "no key" for a key of which nothing is known. */
function blank(answers: ReadonlyMap<Work, Answer>, now: EpochMs): KeyRecord {
  const [work] = answers.keys()
  return tombstone(work?.operation?.request ?? { session: 'identity', sequence: 0 }, now)
}
