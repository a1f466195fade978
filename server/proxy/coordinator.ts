/**
 * Coordinator: all keys that have something under way in one proxy, and the map that says whom to ask. W1 to W3 of register/DESIGN.md.
 * Pure. Invariant: at most `waitingMax` operations wait, with `waitingBytesMax` of values; the next one is told `overload` at once, before
 * anything is allocated for it. Each work is answered once, when the step that decided it is over: whoever asks again at once finds no
 * machine at work.
 * Why a proposer and a reader a key: gets go one round trip beside the writes of their key, never behind them.
 */
import { assert } from '../../core/base/assert.ts'
import { Heap } from '../../core/base/collections.ts'
import type { Random } from '../../core/base/random.ts'
import { completionRules, type CompletionRules } from '../../core/record/operation.ts'
import type { ReplicaAnswer, ReplicaRequest, ShardRow } from '../../core/wire/replica-message.ts'
import type { Ping, Pong } from '../../core/wire/server-message.ts'
import { Ballots } from '../register/ballot.ts'
import { Proposer } from '../register/proposer.ts'
import { Reader, type ReaderPorts } from '../register/reader.ts'
import type { Answer, Instant, RegisterEvent, Work } from '../register/work.ts'
import { clockBoundMs as clockBoundMsDefault, ProxyClock } from './clock.ts'
import { ProxyNames } from './names.ts'
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
  /** Default 16,384. */
  readonly waitingMax?: number
  /** Of their values. Default 64 MiB: what a proxy of 512 MiB can hold beside the messages that carry them. */
  readonly waitingBytesMax?: number
}

const waitingMaxDefault = 16_384
const waitingBytesMaxDefault = 67_108_864

interface KeyRounds {
  readonly shard: number
  readonly proposer: Proposer
  readonly reader: Reader
  /** Sequences of the proxy's own session that have no answer yet; they came in rising order. */
  readonly unanswered: Set<number>
}

export class Coordinator {
  readonly #ports: CoordinatorPorts
  readonly #rules: CompletionRules
  readonly #ageMsMax: number
  readonly #waitingMax: number
  readonly #waitingBytesMax: number
  readonly #zones: number
  readonly #names: ProxyNames
  readonly #clock: ProxyClock
  readonly #roundTrips = new RoundTrips()
  readonly #rows = new Map<number, ShardRow>()
  readonly #ballots: Ballots
  readonly #keys = new Map<string, KeyRounds>()
  /** A row a wish; one that is no longer needed does no harm, for waking twice changes nothing. */
  readonly #wakes = new Heap<{ readonly mono: number; readonly key: string }>((a, b) => a.mono - b.mono)
  #lastId = 0
  #waiting = 0
  #waitingBytes = 0
  #answers: (readonly [Work, Answer])[] = []

  constructor(options: CoordinatorOptions) {
    const { ports, zones, rows, clockBoundMs = clockBoundMsDefault, rules = completionRules } = options
    this.#ports = ports
    this.#rules = rules
    this.#ageMsMax = rules.lifeMs - 2 * clockBoundMs
    this.#zones = zones
    this.#waitingMax = options.waitingMax ?? waitingMaxDefault
    this.#waitingBytesMax = options.waitingBytesMax ?? waitingBytesMaxDefault
    this.#names = new ProxyNames(ports.proposerId)
    this.#clock = new ProxyClock({ zones, boundMs: clockBoundMs })
    this.#ballots = new Ballots(ports.proposerId)
    for (const row of rows) if (row.servers.length === zones) this.#rows.set(row.shard, row)
  }

  /** Operations that have no answer yet. */
  get waiting(): number {
    return this.#waiting
  }

  /** Keys with something under way. */
  get keys(): number {
    return this.#keys.size
  }

  /** Reads a key; the answer is `read`, `no-effect` or `unknown`. */
  read(key: string, work: Work, now: Instant): void {
    this.#admit(key, work, now)?.reader.add(work, now)
    this.#tell()
  }

  /** Writes a key, or makes what is there chosen when the work has no operation. A request that is not to be remembered is named here. */
  write(key: string, work: Work, now: Instant): void {
    const rounds = this.#admit(key, work, now)
    if (rounds !== undefined) {
      if (work.operation?.request.remember === false) this.#names.name(work, rounds.unanswered)
      rounds.proposer.add(work, now)
    }
    this.#tell()
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
    this.#tell()
  }

  /** Takes a row of the map; rounds of its shard that run under an older one begin anew. @returns false when it is not newer, or of another number of zones: its quorums may miss ours */
  learnRow(row: ShardRow, now: Instant): boolean {
    if (row.servers.length !== this.#zones) return false
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
    for (const server of servers) this.#send(server, { type: 'ping', id, clock: this.#clock.storeTime(now) })
  }

  wake(now: Instant): void {
    this.#clock.turn(now)
    const wakes = this.#wakes
    const due = new Set<string>()
    while (wakes.first !== undefined && wakes.first.mono <= now.mono) due.add(wakes.pop()?.key as string)
    for (const key of due) {
      const rounds = this.#keys.get(key)
      if (rounds === undefined) continue
      rounds.proposer.wake(now)
      rounds.reader.wake(now)
      this.#forgetIdle(key, rounds)
    }
    if (wakes.first !== undefined) this.#ports.wakeAt(wakes.first.mono)
    this.#tell()
  }

  #send(to: string, message: ReplicaRequest | Ping): void {
    this.#roundTrips.asked(to, message.id)
    this.#ports.send(to, message)
  }

  #tell(): void {
    for (const [work, answer] of this.#answers.splice(0)) this.#ports.answer(work, answer)
  }

  #nextId(now: Instant): number {
    this.#roundTrips.sent(++this.#lastId, now.mono)
    return this.#lastId
  }

  #admit(key: string, work: Work, now: Instant): KeyRounds | undefined {
    const ports = this.#ports
    const shard = ports.shardOf(key)
    const bytes = this.#waitingBytes + bytesOf(work)
    const isFull = this.#waiting >= this.#waitingMax || bytes > this.#waitingBytesMax
    const why = isFull ? 'overload' : this.#rows.has(shard) ? undefined : 'no-quorum'
    if (why !== undefined) {
      if (why === 'no-quorum') ports.wantRow(shard)
      ports.answer(work, { type: 'no-effect', why, now: now.wall })
      return undefined
    }
    this.#waiting++
    this.#waitingBytes = bytes
    return this.#keys.get(key) ?? this.#open(key, shard)
  }

  #open(key: string, shard: number): KeyRounds {
    const ports = this.#ports
    const unanswered = new Set<number>()
    const own: ReaderPorts = {
      ballots: this.#ballots,
      random: ports.random,
      rules: this.#rules,
      ageMsMax: this.#ageMsMax,
      row: () => this.#rows.get(shard) as ShardRow,
      learnRow: (row, now) => this.learnRow(row, now),
      nearest: (row) => this.#roundTrips.nearest(row.servers),
      nextId: (now) => this.#nextId(now),
      send: (zone, row, message) => this.#send(row.servers[zone] as string, message),
      wakeAt: (mono) => {
        this.#wakes.push({ mono, key })
        ports.wakeAt(mono)
      },
      answer: (work, answer) => {
        this.#waiting--
        this.#waitingBytes -= bytesOf(work)
        assert(this.#waiting >= 0, 'a work is answered once')
        const request = work.operation?.request
        if (request?.session === this.#names.session) unanswered.delete(request.sequence)
        this.#answers.push([work, answer])
      },
      count: (event) => ports.count(event),
      clockIsTrusted: (now) => this.#clock.isTrusted(now),
      hedgeMs: () => this.#roundTrips.hedgeMs,
    }
    const proposer = new Proposer(key, own)
    const rounds: KeyRounds = { shard, proposer, reader: new Reader(key, own, (work, now) => proposer.add(work, now)), unanswered }
    this.#keys.set(key, rounds)
    return rounds
  }

  #forgetIdle(key: string, { proposer, reader }: KeyRounds): void {
    if (proposer.isIdle && reader.isIdle) this.#keys.delete(key)
  }
}

const bytesOf = ({ operation }: Work): number => (operation !== undefined && 'value' in operation ? operation.value.length : 0)
