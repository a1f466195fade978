/**
 * Key rounds: one key that has something under way in a proxy: who writes it, who reads it, and when they want to be woken.
 * Pure. Invariant: what its machines ask of the proxy goes through here, so that a key costs one object and a machine that is needed.
 * Why it keeps its wishes to itself: a get wishes to be woken three times and is over long before the second; only the first of them is
 * worth a place among those of all keys.
 */
import { Heap } from '../../core/base/collections.ts'
import type { Random } from '../../core/base/random.ts'
import type { CompletionRules } from '../../core/record/operation.ts'
import type { ReplicaAnswer, ReplicaRequest, ShardRow } from '../../core/wire/replica-message.ts'
import type { Ballots } from '../register/ballot.ts'
import { Proposer } from '../register/proposer.ts'
import { Reader, type ReaderPorts } from '../register/reader.ts'
import type { Answer, Instant, RegisterEvent, Work } from '../register/work.ts'

/** What the proxy is to all its keys. */
export interface Home {
  readonly ballots: Ballots
  readonly random: Random
  readonly rules: CompletionRules
  readonly ageMsMax: number
  readonly hedgeMs: number
  rowOf(shard: number): ShardRow
  learnRow(row: ShardRow, now: Instant): boolean
  nearest(row: ShardRow): number
  nextId(now: Instant): number
  send(to: string, message: ReplicaRequest): void
  answered(rounds: KeyRounds, work: Work, answer: Answer): void
  count(event: RegisterEvent): void
  clockIsTrusted(now: Instant): boolean
}

const earlier = (a: number, b: number): number => a - b

export class KeyRounds implements ReaderPorts {
  readonly key: string
  readonly shard: number
  readonly #home: Home
  /** Sequences of the proxy's own session that have no answer yet; they came in rising order. */
  readonly unanswered = new Set<number>()
  readonly #wishes = new Heap<number>(earlier)
  #armedMono = Infinity
  #proposer: Proposer | undefined
  #reader: Reader | undefined

  constructor(key: string, shard: number, home: Home) {
    this.key = key
    this.shard = shard
    this.#home = home
  }

  get isIdle(): boolean {
    return this.#proposer?.isIdle !== false && this.#reader?.isIdle !== false
  }

  read(work: Work, now: Instant): void {
    this.#reader ??= new Reader(this.key, this, (instead, at) => this.write(instead, at))
    this.#reader.add(work, now)
  }
  write(work: Work, now: Instant): void {
    this.#proposer ??= new Proposer(this.key, this)
    this.#proposer.add(work, now)
  }
  receive(answer: ReplicaAnswer, now: Instant): void {
    this.#proposer?.receive(answer, now)
    this.#reader?.receive(answer, now)
  }
  /** Whichever wishes are due are done with. */
  wake(now: Instant): void {
    while ((this.#wishes.first ?? Infinity) <= now.mono) this.#wishes.pop()
    if (this.#armedMono <= now.mono) this.#armedMono = Infinity
    this.#proposer?.wake(now)
    this.#reader?.wake(now)
  }
  /** When it has to be woken; undefined: at no instant that was not told already. */
  arm(): number | undefined {
    const mono = this.#wishes.first
    if (mono === undefined || mono >= this.#armedMono) return undefined
    this.#armedMono = mono
    return mono
  }

  get ballots(): Ballots {
    return this.#home.ballots
  }
  get random(): Random {
    return this.#home.random
  }
  get rules(): CompletionRules {
    return this.#home.rules
  }
  get ageMsMax(): number {
    return this.#home.ageMsMax
  }
  row(): ShardRow {
    return this.#home.rowOf(this.shard)
  }
  learnRow(row: ShardRow, now: Instant): boolean {
    return this.#home.learnRow(row, now)
  }
  nearest(row: ShardRow): number {
    return this.#home.nearest(row)
  }
  nextId(now: Instant): number {
    return this.#home.nextId(now)
  }
  send(zone: number, row: ShardRow, message: ReplicaRequest): void {
    this.#home.send(row.servers[zone] as string, message)
  }
  wakeAt(mono: number): void {
    this.#wishes.push(mono)
  }
  answer(work: Work, answer: Answer): void {
    this.#home.answered(this, work, answer)
  }
  count(event: RegisterEvent): void {
    this.#home.count(event)
  }
  clockIsTrusted(now: Instant): boolean {
    return this.#home.clockIsTrusted(now)
  }
  hedgeMs(): number {
    return this.#home.hedgeMs
  }
}
