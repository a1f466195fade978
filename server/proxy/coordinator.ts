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
import type { Answer, Instant, RegisterEvent, Work } from '../register/work.ts'
import { clockBoundMs as clockBoundMsDefault, ProxyClock } from './clock.ts'
import { KeyRounds, type Home } from './key-rounds.ts'
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

export class Coordinator implements Home {
  readonly ballots: Ballots
  readonly random: Random
  readonly rules: CompletionRules
  readonly ageMsMax: number
  readonly #ports: CoordinatorPorts
  readonly #waitingMax: number
  readonly #waitingBytesMax: number
  readonly #zones: number
  readonly #names: ProxyNames
  readonly #clock: ProxyClock
  readonly #roundTrips = new RoundTrips()
  readonly #rows = new Map<number, ShardRow>()
  readonly #keys = new Map<string, KeyRounds>()
  /** The first wish of each key; one that is no longer needed does no harm, for waking twice changes nothing. */
  readonly #wakes = new Heap<{ readonly mono: number; readonly key: string }>((a, b) => a.mono - b.mono)
  #lastId = 0
  #waiting = 0
  #waitingBytes = 0
  #answers: (readonly [Work, Answer])[] = []

  constructor(options: CoordinatorOptions) {
    const { ports, zones, rows, clockBoundMs = clockBoundMsDefault, rules = completionRules } = options
    this.#ports = ports
    this.random = ports.random
    this.rules = rules
    this.ageMsMax = rules.lifeMs - 2 * clockBoundMs
    this.#zones = zones
    this.#waitingMax = options.waitingMax ?? waitingMaxDefault
    this.#waitingBytesMax = options.waitingBytesMax ?? waitingBytesMaxDefault
    this.#names = new ProxyNames(ports.proposerId)
    this.#clock = new ProxyClock({ zones, boundMs: clockBoundMs })
    this.ballots = new Ballots(ports.proposerId)
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
    const rounds = this.#admit(key, work, now)
    if (rounds !== undefined) {
      rounds.read(work, now)
      this.#settle(rounds)
    }
    this.#tell()
  }

  /** Writes a key, or makes what is there chosen when the work has no operation. A request that is not to be remembered is named here. */
  write(key: string, work: Work, now: Instant): void {
    const rounds = this.#admit(key, work, now)
    if (rounds !== undefined) {
      if (work.operation?.request.remember === false) this.#names.name(work, rounds.unanswered)
      rounds.write(work, now)
      this.#settle(rounds)
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
    rounds.receive(answer, now)
    this.#settle(rounds)
    this.#tell()
  }

  /** Takes a row of the map; rounds of its shard that run under an older one begin anew. @returns false when it is not newer, or of another number of zones: its quorums may miss ours */
  learnRow(row: ShardRow, now: Instant): boolean {
    if (row.servers.length !== this.#zones) return false
    if (row.epoch <= (this.#rows.get(row.shard)?.epoch ?? 0)) return false
    this.#rows.set(row.shard, row)
    for (const [key, { shard }] of this.#keys) if (shard === row.shard) this.#wakes.push({ mono: now.mono, key })
    this.#ports.wakeAt(now.mono)
    return true
  }

  /** Every second, and at the start: asks all servers for their clocks, and tells them the time by the median of what was heard. */
  ping(now: Instant): void {
    const servers = new Set([...this.#rows.values()].flatMap((row) => row.servers))
    const id = this.nextId(now)
    for (const server of servers) this.send(server, { type: 'ping', id, clock: this.#clock.storeTime(now) })
  }

  wake(now: Instant): void {
    this.#clock.turn(now)
    const wakes = this.#wakes
    const due = new Set<string>()
    while (wakes.first !== undefined && wakes.first.mono <= now.mono) due.add(wakes.pop()?.key as string)
    for (const key of due) {
      const rounds = this.#keys.get(key)
      if (rounds === undefined) continue
      rounds.wake(now)
      this.#settle(rounds)
    }
    if (wakes.first !== undefined) this.#ports.wakeAt(wakes.first.mono)
    this.#tell()
  }

  rowOf(shard: number): ShardRow {
    return this.#rows.get(shard) as ShardRow
  }
  nearest(row: ShardRow): number {
    return this.#roundTrips.nearest(row.servers)
  }
  get hedgeMs(): number {
    return this.#roundTrips.hedgeMs
  }
  clockIsTrusted(now: Instant): boolean {
    return this.#clock.isTrusted(now)
  }
  count(event: RegisterEvent): void {
    this.#ports.count(event)
  }
  nextId(now: Instant): number {
    this.#roundTrips.sent(++this.#lastId, now.mono)
    return this.#lastId
  }
  send(to: string, message: ReplicaRequest | Ping): void {
    this.#roundTrips.asked(to, message.id)
    this.#ports.send(to, message)
  }
  answered(rounds: KeyRounds, work: Work, answer: Answer): void {
    this.#waiting--
    this.#waitingBytes -= bytesOf(work)
    assert(this.#waiting >= 0, 'a work is answered once')
    const request = work.operation?.request
    if (request?.session === this.#names.session) rounds.unanswered.delete(request.sequence)
    this.#answers.push([work, answer])
  }

  #tell(): void {
    if (this.#answers.length > 0) for (const [work, answer] of this.#answers.splice(0)) this.#ports.answer(work, answer)
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
    const rounds = new KeyRounds(key, shard, this)
    this.#keys.set(key, rounds)
    return rounds
  }

  /** After each step of a key: it is forgotten when nothing is under way, else its next wish is heard. */
  #settle(rounds: KeyRounds): void {
    const { key } = rounds
    if (rounds.isIdle) return void this.#keys.delete(key)
    const mono = rounds.arm()
    if (mono === undefined) return
    this.#wakes.push({ mono, key })
    this.#ports.wakeAt(mono)
  }
}

const bytesOf = ({ operation }: Work): number => (operation !== undefined && 'value' in operation ? operation.value.length : 0)
