/**
 * Coordinator: all keys that have something under way in one proxy, and the map that says whom to ask.
 * Pure. Invariant: at most `waitingMax` operations wait; the next one is told `overload` at once, before anything is allocated for it.
 * Why a proposer and a reader a key: gets go one round trip beside the writes of their key, never behind them.
 */
import { Heap } from '../../core/base/collections.ts'
import type { Random } from '../../core/base/random.ts'
import { completionRules, type CompletionRules } from '../../core/record/operation.ts'
import type { ReplicaAnswer, ReplicaRequest, ShardRow } from '../../core/wire/replica-message.ts'
import type { Ping, Pong } from '../../core/wire/server-message.ts'
import { Ballots } from '../register/ballot.ts'
import { Proposer } from '../register/proposer.ts'
import { Reader, type ReaderPorts } from '../register/reader.ts'
import type { Answer, Instant, RegisterEvent, Work } from '../register/work.ts'
import { ProxyClock } from './clock.ts'
import { RoundTrips } from './round-trips.ts'

export interface CoordinatorPorts {
  readonly random: Random
  readonly proposerId: number
  /** The shard of a key. */
  shardOf(key: string): number
  send(to: string, message: ReplicaRequest | Ping): void
  /** `wake` is to be called at this monotonic instant, or sooner. */
  wakeAt(mono: number): void
  answer(work: Work, answer: Answer): void
  count(event: RegisterEvent): void
  /** Asks the map's source for a shard's row; `learnRow` follows. */
  wantRow(shard: number): void
}

export interface CoordinatorOptions {
  readonly ports: CoordinatorPorts
  /** 1, 3 or 5. */
  readonly zones: number
  /** As a copy of the map has them. */
  readonly rows: readonly ShardRow[]
  /** The greatest difference of two clocks that is tolerated, in milliseconds. Default 500. */
  readonly clockBoundMs?: number
  readonly rules?: CompletionRules
  /** Default 16,384: at 2 KiB each, 32 MiB. */
  readonly waitingMax?: number
}

const waitingMaxDefault = 16_384

interface KeyRounds {
  readonly shard: number
  readonly proposer: Proposer
  readonly reader: Reader
}

export class Coordinator {
  readonly #ports: CoordinatorPorts
  readonly #rules: CompletionRules
  readonly #waitingMax: number
  readonly #clock: ProxyClock
  readonly #roundTrips = new RoundTrips()
  readonly #rows = new Map<number, ShardRow>()
  readonly #ballots: Ballots
  readonly #keys = new Map<string, KeyRounds>()
  /** A row a wish; one that is no longer needed does no harm, for waking twice changes nothing. */
  readonly #wakes = new Heap<{ readonly mono: number; readonly key: string }>((a, b) => a.mono - b.mono)
  #lastId = 0
  #waiting = 0

  constructor({ ports, zones, rows, clockBoundMs, rules = completionRules, waitingMax = waitingMaxDefault }: CoordinatorOptions) {
    this.#ports = ports
    this.#rules = rules
    this.#waitingMax = waitingMax
    this.#clock = new ProxyClock({ zones, ...(clockBoundMs === undefined ? {} : { boundMs: clockBoundMs }) })
    this.#ballots = new Ballots(ports.proposerId)
    for (const row of rows) this.#rows.set(row.shard, row)
  }

  /** Operations that have no answer yet. */
  get waiting(): number {
    return this.#waiting
  }

  /** Reads a key; the answer is `read`, `no-effect` or `unknown`. */
  read(key: string, work: Work, now: Instant): void {
    this.#admit(key, work, now)?.reader.add(work, now)
  }

  /** Writes a key, or makes what is there chosen when the work has no operation. */
  write(key: string, work: Work, now: Instant): void {
    this.#admit(key, work, now)?.proposer.add(work, now)
  }

  receive(from: string, answer: ReplicaAnswer | Pong, now: Instant): void {
    const askedMono = this.#roundTrips.sentAt(answer.id)
    if (askedMono !== undefined) {
      this.#clock.hear(answer.zone, answer.clock, askedMono, now)
      this.#roundTrips.heard(from, now.mono - askedMono, answer.type === 'shown')
    }
    if (answer.type === 'pong') return
    const rounds = this.#keys.get(answer.key)
    if (rounds === undefined) return
    rounds.proposer.receive(answer, now)
    rounds.reader.receive(answer, now)
    this.#forgetIdle(answer.key, rounds)
  }

  /** Takes a row of the map; rounds of its shard that run under an older one begin anew. @returns false when it is not newer */
  learnRow(row: ShardRow, now: Instant): boolean {
    if (row.epoch <= (this.#rows.get(row.shard)?.epoch ?? 0)) return false
    this.#rows.set(row.shard, row)
    for (const [key, rounds] of this.#keys) if (rounds.shard === row.shard) this.#wakes.push({ mono: now.mono, key })
    this.#ports.wakeAt(now.mono)
    return true
  }

  /** Every second, and at the start: asks all servers for their clocks, and tells them the time by the median of what was heard. */
  ping(now: Instant): void {
    const servers = new Set([...this.#rows.values()].flatMap((row) => row.servers))
    const id = this.#nextId(now)
    for (const server of servers) this.#ports.send(server, { type: 'ping', id, clock: this.#clock.storeTime(now) })
  }

  wake(now: Instant): void {
    this.#clock.turn(now)
    const wakes = this.#wakes
    while (wakes.first !== undefined && wakes.first.mono <= now.mono) {
      const key = wakes.pop()?.key as string
      const rounds = this.#keys.get(key)
      if (rounds === undefined) continue
      rounds.proposer.wake(now)
      rounds.reader.wake(now)
      this.#forgetIdle(key, rounds)
    }
    if (wakes.first !== undefined) this.#ports.wakeAt(wakes.first.mono)
  }

  #nextId(now: Instant): number {
    this.#roundTrips.sent(++this.#lastId, now.mono)
    return this.#lastId
  }

  #admit(key: string, work: Work, now: Instant): KeyRounds | undefined {
    const ports = this.#ports
    const shard = ports.shardOf(key)
    const why = this.#waiting >= this.#waitingMax ? 'overload' : this.#rows.has(shard) ? undefined : 'no-quorum'
    if (why !== undefined) {
      if (why === 'no-quorum') ports.wantRow(shard)
      ports.answer(work, { type: 'no-effect', why, now: now.wall })
      return undefined
    }
    this.#waiting++
    return this.#keys.get(key) ?? this.#open(key, shard)
  }

  #open(key: string, shard: number): KeyRounds {
    const ports = this.#ports
    const own: ReaderPorts = {
      ballots: this.#ballots,
      random: ports.random,
      rules: this.#rules,
      row: () => this.#rows.get(shard) as ShardRow,
      learnRow: (row, now) => this.learnRow(row, now),
      nearest: (row) => this.#roundTrips.nearest(row.servers),
      nextId: (now) => this.#nextId(now),
      send: (zone, row, message) => ports.send(row.servers[zone] as string, message),
      wakeAt: (mono) => {
        this.#wakes.push({ mono, key })
        ports.wakeAt(mono)
      },
      answer: (work, answer) => {
        this.#waiting--
        ports.answer(work, answer)
      },
      count: (event) => ports.count(event),
      clockIsTrusted: (now) => this.#clock.isTrusted(now),
      hedgeMs: () => this.#roundTrips.hedgeMs,
    }
    const proposer = new Proposer(key, own)
    const rounds: KeyRounds = { shard, proposer, reader: new Reader(key, own, (work, now) => proposer.add(work, now)) }
    this.#keys.set(key, rounds)
    return rounds
  }

  #forgetIdle(key: string, { proposer, reader }: KeyRounds): void {
    if (proposer.isIdle && reader.isIdle) this.#keys.delete(key)
  }
}
