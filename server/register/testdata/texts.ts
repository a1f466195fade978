/** Messages, records and answers as transcripts write them. */
import type { Version } from '../../../core/kv/kv.ts'
import type { Outcome } from '../../../core/record/operation.ts'
import type { KeyRecord } from '../../../core/record/record.ts'
import type { ReplicaAnswer, ReplicaEntry, ReplicaRequest } from '../../../core/wire/replica-message.ts'
import type { Ballot } from '../ballot.ts'
import type { Answer } from '../work.ts'

export class Texts {
  readonly #start: number
  /** V1, V2, ...: in the order in which clients saw them. */
  readonly #versions = new Map<string, string>()

  constructor(start: number) {
    this.#start = start
  }

  versionOf(label: string): Version {
    return ([...this.#versions].find(([, one]) => one === label)?.[0] ?? `no version ${label}`) as Version
  }

  ballotText({ ms, counter, proposer }: Ballot): string {
    return ms === 0 ? 'none' : `${ms - this.#start}.${counter}.${proposer}`
  }

  requestText(message: ReplicaRequest): string {
    return `${this.#wordsOf(message)}${message.epoch === 1 ? '' : ` in epoch ${message.epoch}`}`
  }

  #wordsOf(message: ReplicaRequest): string {
    switch (message.type) {
      case 'prepare':
        return `prepare ${this.ballotText(message.ballot)}`
      case 'accept':
        return `accept ${this.ballotText(message.ballot)} ${this.recordText(message.record)}`
      case 'read':
        return `read ${message.wants}`
    }
  }

  replyText(answer: ReplicaAnswer): string {
    if (answer.type === 'accepted') return 'accepted'
    if (answer.type !== 'rejected') return `${answer.type} ${answer.entry === undefined ? 'nothing' : this.entryText(answer.entry, answer.isWhole)}`
    return `rejected, ${answer.reason}${'bound' in answer ? ` ${this.ballotText(answer.bound)}` : ''}${'row' in answer ? ` ${answer.row.epoch}` : ''}`
  }

  entryText({ ballot, record, stub }: ReplicaEntry, isWhole = true): string {
    return `@${this.ballotText(ballot)} ${stub === undefined ? this.recordText(record, isWhole) : 'stub'}`
  }

  recordText(record: KeyRecord, isWhole = true): string {
    const value = record.value === undefined ? (isWhole ? 'dead' : '(bare)') : new TextDecoder().decode(record.value)
    const expiry = record.expiresAt === 0 || value === 'dead' ? '' : ` until ${record.expiresAt - this.#start}`
    const names = record.completions.entries.map(({ session, sequence, outcome }) => `${session}${sequence === 0 ? '' : `.${sequence}`}=${outcome}`)
    const known = names.filter((name) => !/^r\d+=/.test(name))
    return `${value}${expiry}${known.length === 0 ? '' : ` [${known.join(' ')}]`}`
  }

  answerText(answer: Answer): string {
    switch (answer.type) {
      case 'read':
        return answer.entry === undefined ? 'no key' : `${new TextDecoder().decode(answer.entry.value)} ${this.#label(answer.entry.version)}`
      case 'decided':
        return this.#outcomeText(answer.outcome)
      case 'no-effect':
        return `no effect, ${answer.why}`
      case 'unknown':
        return 'unknown'
    }
  }

  #outcomeText(outcome: Outcome): string {
    if (outcome.type === 'fault') return outcome.code
    const entry = 'entry' in outcome ? outcome.entry : undefined
    return entry === undefined ? outcome.type : `${outcome.type} ${new TextDecoder().decode(entry.value)} ${this.#label(entry.version)}`
  }

  #label(version: Version): string {
    const known = this.#versions.get(version) ?? `V${this.#versions.size + 1}`
    this.#versions.set(version, known)
    return known
  }
}
