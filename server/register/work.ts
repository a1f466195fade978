/**
 * What proposer and reader share: the operations that wait, their answers, and what they need of the proxy around them.
 * Pure. Invariant: time, chance and messages come through the ports; nothing here reads a clock.
 */
import type { Random } from '../../core/base/random.ts'
import type { EpochMs } from '../../core/base/types.ts'
import type { CompletionRules, Operation, Outcome } from '../../core/record/operation.ts'
import type { Entry } from '../../core/kv/kv.ts'
import type { ReplicaRequest, ShardRow } from '../../core/wire/replica-message.ts'
import type { Ballots } from './ballot.ts'

/** Both clocks of one process at one moment. Deadlines are monotonic, all that stands in records is wall clock. */
export interface Instant {
  readonly wall: EpochMs
  /** Milliseconds since an arbitrary start; never falls. */
  readonly mono: number
}

/** One operation that waits for its answer. */
export interface Work {
  /** Undefined: a read that has to be made chosen, or a repair; it changes nothing itself. The proxy may give its request a name before anything is sent. */
  operation: Operation | undefined
  /** No new ballot for it from here on. */
  readonly deadlineMono: number
  /**
   * When the client first sent it, by the store's clock as the client knew it; of a repetition too, for its age counts from there.
   * Undefined: it did not say.
   */
  readonly sentAt: EpochMs | undefined
  /** Whether an ACCEPT with its effect left, in any round: from then on a deadline means unknown, and a refusal is sealed (R10). */
  acceptWasSent: 'no' | 'next' | 'yes'
  /** Asked for by a storage server: written anew although it is chosen, so that all zones come to hold one ballot. */
  readonly isRepair?: true
}

export type Answer =
  | { readonly type: 'decided'; readonly outcome: Outcome; readonly now: EpochMs }
  | { readonly type: 'read'; readonly entry: Entry | undefined; readonly now: EpochMs }
  /** This attempt did nothing, and never will. */
  | { readonly type: 'no-effect'; readonly why: 'contention' | 'no-quorum' | 'overload' | 'clock' | 'too-old'; readonly now: EpochMs }
  /** It may be applied or not, also later. The same request id may be sent again. */
  | { readonly type: 'unknown'; readonly now: EpochMs }

/** What rounds and replicas do beside the ordinary. Counted: for the operator's metrics, and for a simulation that must have met each. */
export type RegisterEvent =
  | 'duel'
  | 'ballot-ahead'
  | 'payload-fetched'
  | 'completion-hit'
  | 'completion-hit-in-batch'
  | 'completion-hit-on-tombstone'
  | 'completion-hit-on-expired'
  | 'refusal-sealed'
  | 'expiry-sealed'
  | 'late-joiner-accepted'
  | 'short-life-waited'
  | 'batch-split-by-deadline'
  | 'too-old'
  | 'clock-withheld'
  | 'record-locked'
  | 'hedge'
  | 'write-back'
  | 'write-back-refused'
  | 'read-proposed'
  | 'ceiling-raised'
  | 'floor-rejected'
  | 'purged-rejected'
  | 'floor-raised-by-eviction'
  | 'damage-healed'

/** What the proxy gives to the rounds of its keys. None of these may call back into a machine: what comes of them comes later. */
export interface RegisterPorts {
  readonly ballots: Ballots
  readonly random: Random
  readonly rules: CompletionRules
  /** Older requests are not decided: a completion of theirs might be gone. Milliseconds since the first sending. */
  readonly ageMsMax: number
  /** The key's shard as the proxy knows it now. */
  row(): ShardRow
  /** Takes a newer row; false: it is not newer than the known one. */
  learnRow(row: ShardRow, now: Instant): boolean
  /** The zone that is asked for the payload. */
  nearest(row: ShardRow): number
  /** A number for the messages of one phase; an answer to another phase is not taken. */
  nextId(now: Instant): number
  send(zone: number, row: ShardRow, message: ReplicaRequest): void
  /** `wake` is due at this monotonic instant, or sooner. */
  wakeAt(mono: number): void
  answer(work: Work, answer: Answer): void
  count(event: RegisterEvent): void
  /** R15: whoever cannot trust its clock starts no write and shows nothing that expires. */
  clockIsTrusted(now: Instant): boolean
}

/** The middle one; of two the smaller. */
export function medianOf(values: readonly EpochMs[]): EpochMs {
  // A write asks for it, of two or three.
  if (values.length <= 2) return Math.min(...values) as EpochMs
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[(sorted.length - 1) >> 1] as EpochMs
}
