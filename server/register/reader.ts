/**
 * Reader: the gets of one key in one proxy; one round trip when a quorum agrees on a ballot. DESIGN.md, sentences G1 to G8.
 * Pure. Invariant: what it answers is held by a quorum at one ballot, which was so at an instant within the call.
 * Why a get never joins a round in flight: its quorum may have been shown before a write that was acknowledged before the get (interleaving 4).
 */
import { entryOf } from '../../core/record/record.ts'
import type { ReplicaAnswer, ReplicaEntry, ShardRow } from '../../core/wire/replica-message.ts'
import { maxBallot, noBallot, quorumOf, sameBallot, type Ballot } from './ballot.ts'
import { phaseMsMax, restsOnExpiry, slowPhaseMsMax } from './proposer.ts'
import type { Answer, Instant, RegisterPorts, Work } from './work.ts'

/** Rounds that may come to nothing before the reads become a write of what is there. */
const roundsMax = 3

export interface ReaderPorts extends RegisterPorts {
  /** How long to wait for the first quorum before the other zones are asked, in milliseconds. */
  hedgeMs(): number
}

interface Held {
  readonly entry: ReplicaEntry | undefined
  readonly isWhole: boolean
}
interface Round {
  readonly id: number
  readonly row: ShardRow
  members: Work[]
  /** The zone that is asked for the payload; the others follow by number. Fixed: a zone that is nearer meanwhile must not be asked twice, and another never. */
  readonly first: number
  readonly beganMono: number
  readonly endsMono: number
  /** Who has not answered by then is not waited for: the others are asked, or what they showed is written back. */
  patienceMono: number
  readonly answers: Map<number, Held>
  refused: ReadonlySet<number>
  /** Zones that refused because they have too much to do. */
  overloaded: ReadonlySet<number>
  isWide: boolean
  step: 'reading' | 'fetching' | 'writing-back'
  /** What is written back, and who holds it. */
  ballot: Ballot
  holders: ReadonlySet<number>
}

/** Of most rounds: no zone refused, and nothing is written back. */
const noZones: ReadonlySet<number> = new Set()
const withZone = (zones: ReadonlySet<number>, zone: number): ReadonlySet<number> => new Set([...zones, zone])

export class Reader {
  readonly key: string
  readonly #ports: ReaderPorts
  readonly #proposeInstead: (work: Work, now: Instant) => void
  #queue: Work[] = []
  #round: Round | undefined
  #failures = 0

  /** @param proposeInstead takes reads that only a write can answer */
  constructor(key: string, ports: ReaderPorts, proposeInstead: (work: Work, now: Instant) => void) {
    this.key = key
    this.#ports = ports
    this.#proposeInstead = proposeInstead
  }

  get isIdle(): boolean {
    return this.#round === undefined && this.#queue.length === 0
  }
  get waiting(): number {
    return this.#queue.length + (this.#round?.members.length ?? 0)
  }

  add(work: Work, now: Instant): void {
    this.#queue.push(work)
    this.#ports.wakeAt(work.deadlineMono)
    if (this.#round === undefined) this.#begin(now)
  }

  wake(now: Instant): void {
    this.#endLate(now)
    const round = this.#round
    if (round === undefined) return
    if (round.members.length === 0) return this.#next(now)
    if (round.row.epoch !== this.#ports.row().epoch || now.mono >= round.endsMono) return this.#again(now)
    if (now.mono >= round.patienceMono && round.step === 'reading') this.#settle(round, now)
  }

  receive(answer: ReplicaAnswer, now: Instant): void {
    const round = this.#round
    if (round === undefined || answer.id !== round.id) return
    if (answer.type === 'rejected') return this.#rejected(answer, round, now)
    if (answer.epoch !== round.row.epoch) return
    if (answer.type === 'shown' && round.step !== 'writing-back') {
      const { entry, isWhole, zone } = answer
      if (round.step === 'fetching' && !(isWhole && sameBallot(entry?.ballot ?? noBallot, round.ballot))) {
        // A late first answer of another zone changes nothing; the fetched one has moved on.
        if (isWhole) this.#again(now)
        return
      }
      if (!isWhole && round.answers.get(zone)?.isWhole) return // the whole answer and the bare one crossed
      round.step = 'reading' // what was fetched is there
      round.answers.set(zone, { entry, isWhole })
      this.#settle(round, now)
    } else if (answer.type === 'accepted' && round.step === 'writing-back') {
      round.holders = withZone(round.holders, answer.zone)
      if (round.holders.size >= this.#quorum) this.#answerFrom(round, round.ballot, now)
    }
  }

  get #quorum(): number {
    return quorumOf(this.#ports.row().servers.length)
  }

  #begin(now: Instant): void {
    this.#endLate(now)
    if (this.#queue.length === 0) return
    const row = this.#ports.row()
    const id = this.#ports.nextId(now)
    const first = this.#ports.nearest(row)
    const round: Round = {
      id,
      row,
      members: this.#queue.splice(0),
      first,
      beganMono: now.mono,
      endsMono: now.mono + Math.min(phaseMsMax * 2 ** this.#failures, slowPhaseMsMax),
      patienceMono: now.mono + this.#ports.hedgeMs(),
      answers: new Map(),
      refused: noZones,
      overloaded: noZones,
      isWide: false,
      step: 'reading',
      ballot: noBallot,
      holders: noZones,
    }
    this.#round = round
    this.#ports.wakeAt(round.endsMono)
    this.#ports.wakeAt(round.patienceMono)
    const count = row.servers.length
    for (let index = 0; index < this.#quorum; index++) this.#ask(round, (first + index) % count, index === 0 ? 'whole' : 'bare')
  }

  #ask(round: Round, zone: number, wants: 'whole' | 'bare'): void {
    const { id, row } = round
    this.#ports.send(zone, row, { type: 'read', id, shard: row.shard, epoch: row.epoch, key: this.key, wants })
  }

  /** The other zones as well: the hedge, and the tie-break. Of them the first is asked for the payload: the one that should have it may be gone. */
  #widen(round: Round, now: Instant): void {
    if (round.isWide) return
    round.isWide = true
    round.patienceMono = now.mono + this.#ports.hedgeMs() // they get as long as the first
    this.#ports.wakeAt(round.patienceMono)
    this.#ports.count('hedge')
    const { first, row } = round
    const count = row.servers.length
    for (let index = this.#quorum; index < count; index++)
      this.#ask(round, (first + index) % count, index === this.#quorum ? 'whole' : 'bare')
  }

  #settle(round: Round, now: Instant): void {
    const { answers } = round
    const quorum = this.#quorum
    // Fewer than a quorum cannot hold anything together.
    for (const { entry } of answers.size < quorum ? [] : answers.values()) {
      const ballot = entry?.ballot ?? noBallot
      if (holderCount(answers, ballot) >= quorum) return this.#answerFrom(round, ballot, now)
    }
    let heard = answers.size
    for (const zone of round.refused) if (!answers.has(zone)) heard++
    const missing = round.row.servers.length - heard
    if (answers.size < quorum) {
      if (now.mono >= round.patienceMono || heard >= quorum) this.#widen(round, now)
      if (round.row.servers.length - round.overloaded.size < quorum) this.#endOverloaded(round, now)
      else if (answers.size + missing < quorum) this.#again(now)
      return
    }
    if (!round.isWide) return this.#widen(round, now)
    if (missing === 0 || now.mono >= round.patienceMono) this.#writeBack(round, now)
  }

  /** The highest ballot may be chosen: those that lag get it, and may refuse it. */
  #writeBack(round: Round, now: Instant): void {
    const { answers, row } = round
    const ballot = [...answers.values()].reduce<Ballot>((highest, { entry }) => maxBallot(highest, entry?.ballot ?? noBallot), noBallot)
    const holders = holdersOf(answers, ballot)
    const entry = holders.find(([, held]) => held.isWhole)?.[1].entry
    if (entry === undefined) return this.#fetch(round, ballot)
    if (restsOnExpiry(entry, now.wall)) return this.#propose(round, now)
    this.#ports.count('write-back')
    round.step = 'writing-back'
    round.ballot = ballot
    round.refused = noZones
    round.holders = new Set(holders.map(([zone]) => zone))
    const { id } = round
    for (const zone of row.servers.keys())
      if (!round.holders.has(zone))
        this.#ports.send(zone, row, { type: 'accept', id, shard: row.shard, epoch: row.epoch, key: this.key, ballot, record: entry.record })
  }

  #fetch(round: Round, ballot: Ballot): void {
    if (round.step === 'fetching') return
    round.step = 'fetching'
    round.ballot = ballot
    const holder = holdersOf(round.answers, ballot)[0]
    if (holder) this.#ask(round, holder[0], 'whole')
  }

  /** A quorum holds the ballot: its record is chosen, and nothing above it was when the round began. */
  #answerFrom(round: Round, ballot: Ballot, now: Instant): void {
    const holders = holdersOf(round.answers, ballot)
    const whole = holders.find(([, { isWhole }]) => isWhole)
    if (whole === undefined) return this.#fetch(round, ballot)
    const { entry } = whole[1]
    if (holders.some(([, held]) => held.entry !== undefined && restsOnExpiry(held.entry, now.wall))) return this.#propose(round, now)
    const answer: Answer =
      entry !== undefined && entry.record.expiresAt !== 0 && entry.record.value !== undefined && !this.#ports.clockIsTrusted(now)
        ? { type: 'no-effect', why: 'clock', now: now.wall }
        : { type: 'read', entry: entryOf(entry?.record, now.wall), now: now.wall }
    for (const work of round.members) this.#ports.answer(work, answer)
    this.#failures = 0
    this.#next(now)
  }

  #rejected(answer: ReplicaAnswer & { type: 'rejected' }, round: Round, now: Instant): void {
    if (answer.reason === 'epoch') {
      if (this.#ports.learnRow(answer.row, now)) this.#again(now)
      return
    }
    if (answer.reason === 'lasting' && round.step === 'writing-back') {
      this.#ports.count('write-back-refused')
      return this.#propose(round, now)
    }
    round.refused = withZone(round.refused, answer.zone)
    if (answer.reason === 'busy') round.overloaded = withZone(round.overloaded, answer.zone)
    if (round.step === 'reading') return this.#settle(round, now)
    if (round.step === 'fetching' || round.row.servers.length - round.refused.size < this.#quorum) this.#again(now)
  }

  #again(now: Instant): void {
    const round = this.#round
    if (round === undefined) return
    const tookMs = now.mono - round.beganMono
    // With slow links the third failure may come too late for anybody, time and again: nobody would ever settle what is there.
    const isLate = round.members.every(({ deadlineMono }) => deadlineMono - now.mono < 2 * tookMs)
    if (++this.#failures >= roundsMax || isLate) return this.#propose(round, now)
    this.#queue = [...round.members, ...this.#queue]
    this.#next(now)
  }

  /** More rounds would be more load. */
  #endOverloaded(round: Round, now: Instant): void {
    for (const work of round.members) this.#ports.answer(work, { type: 'no-effect', why: 'overload', now: now.wall })
    this.#next(now)
  }

  #propose(round: Round, now: Instant): void {
    this.#failures = 0
    this.#round = undefined
    this.#ports.count('read-proposed')
    for (const work of round.members) this.#proposeInstead(work, now)
    this.#begin(now)
  }

  #next(now: Instant): void {
    this.#round = undefined
    this.#begin(now)
  }

  #endLate(now: Instant): void {
    const end = (work: Work): boolean => {
      if (now.mono < work.deadlineMono) return true
      this.#ports.answer(work, { type: 'no-effect', why: 'no-quorum', now: now.wall })
      return false
    }
    if (this.#queue.length > 0) this.#queue = this.#queue.filter(end)
    const round = this.#round
    if (round) round.members = round.members.filter(end)
  }
}

function holderCount(answers: ReadonlyMap<number, Held>, ballot: Ballot): number {
  let count = 0
  for (const { entry } of answers.values()) if (sameBallot(entry?.ballot ?? noBallot, ballot)) count++
  return count
}

const holdersOf = (answers: ReadonlyMap<number, Held>, ballot: Ballot): (readonly [number, Held])[] =>
  [...answers].filter(([, { entry }]) => sameBallot(entry?.ballot ?? noBallot, ballot))
