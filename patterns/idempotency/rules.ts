/**
 * What an idempotency record may become, and what it says to a request that finds it.
 * Pure. Invariant: an answer once completed never changes, and a second attempt begins only from `released` or from a lapsed lease.
 * Why states are data and arrows a table: the tests walk every state with every event (DESIGN.md, sentences S1 to S7).
 *
 *   absent   --claim-->    claimed                        released --take-over--> claimed (attempt + 1)
 *   claimed  --renew-->    claimed (later lease end)      claimed, lapsed --take-over--> claimed (attempt + 1)   afterCrash: 'resume'
 *   claimed  --step-->     claimed (one more step)        claimed, lapsed --give-up-->   unknown                 afterCrash: 'refuse'
 *   claimed  --complete--> completed | unstored           claimed  --hand-back-->  released (steps kept), or destroyed without any
 *   claimed  --fail-->     unknown
 */
import { assert, unreachable } from '../../core/base/assert.ts'
import type { Json } from '../../core/base/json.ts'
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import type { Answer, Ending, Finality, Fingerprint, StepRecord, UnstoredReason } from './types.ts'

interface Common {
  readonly fingerprint: Fingerprint
  /** Counts the attempts from 1: the fence. */
  readonly attempt: number
  /** Who wrote this, a name that no other actor has: after an unknown outcome it tells one's own write from another's (T6). */
  readonly owner: string
  /** Counts the writes of this owner, so that no two of its values are equal. */
  readonly writes: number
  readonly steps: readonly StepRecord[]
}

export interface Claimed extends Common {
  readonly state: 'claimed'
  readonly leaseMs: number
  /** On the store's clock. 0: `leaseMs` after the entry's creation, because a first claim is written before any clock was seen. */
  readonly leaseEndsAt: EpochMs
}
export interface Completed extends Common {
  readonly state: 'completed'
  readonly answer: Answer
}
export interface Unstored extends Common {
  readonly state: 'unstored'
  readonly head: Json
  readonly reason: UnstoredReason
}
/** It began, and how it ended nobody knows: a person decides. */
export interface Unknown extends Common {
  readonly state: 'unknown'
}
/** It ended and may run again; its finished steps are kept for the next attempt. */
export interface Released extends Common {
  readonly state: 'released'
}
export type IdempotencyRecord = Claimed | Completed | Unstored | Unknown | Released

export type Event =
  | { readonly type: 'renew'; readonly leaseEndsAt: EpochMs }
  | { readonly type: 'step'; readonly step: StepRecord }
  | { readonly type: 'complete'; readonly answer: Answer }
  | { readonly type: 'unstored'; readonly head: Json; readonly reason: UnstoredReason }
  | { readonly type: 'fail' }
  | { readonly type: 'hand-back' }

export const claimed = (owner: string, fingerprint: Fingerprint, leaseMs: number): Claimed => ({
  state: 'claimed',
  fingerprint,
  attempt: 1,
  owner,
  writes: 1,
  leaseMs,
  leaseEndsAt: epochMs(0),
  steps: [],
})

/** What the owner of a claim makes of it. Only a claim has arrows for its owner. */
export function transition(record: IdempotencyRecord, event: Event): IdempotencyRecord {
  assert(record.state === 'claimed', 'only a claim is changed by its owner')
  const { fingerprint, attempt, owner, steps } = record
  const common = { fingerprint, attempt, owner, writes: record.writes + 1 }
  switch (event.type) {
    case 'renew':
      return { ...record, ...common, leaseEndsAt: event.leaseEndsAt }
    case 'step':
      return { ...record, ...common, steps: [...steps, event.step] }
    case 'complete':
      return { state: 'completed', ...common, steps: namesOf(steps), answer: event.answer }
    case 'unstored':
      return { state: 'unstored', ...common, steps: namesOf(steps), head: event.head, reason: event.reason }
    case 'fail':
      return { state: 'unknown', ...common, steps }
    case 'hand-back':
      return { state: 'released', ...common, steps }
    default:
      return unreachable(event)
  }
}

/** Takes over what may be taken over: the steps stay, the fence rises. */
export function takenOver(record: IdempotencyRecord, owner: string, leaseMs: number, now: EpochMs): Claimed {
  assert(record.state === 'released' || record.state === 'claimed', 'what has ended for good is not taken over')
  const { fingerprint, attempt, steps } = record
  return { state: 'claimed', fingerprint, attempt: attempt + 1, owner, writes: 1, leaseMs, leaseEndsAt: epochMs(now + leaseMs), steps }
}

/** A lapsed claim that is not run again by itself: its late owner's answer will be refused like any other. */
export function givenUp(record: IdempotencyRecord, owner: string): Unknown {
  assert(record.state === 'claimed', 'only a claim is given up')
  const { fingerprint, attempt, steps } = record
  return { state: 'unknown', fingerprint, attempt, owner, writes: 1, steps }
}

export const leaseEndOf = (record: Claimed, createdAt: EpochMs): EpochMs =>
  record.leaseEndsAt === 0 ? epochMs(createdAt + record.leaseMs) : record.leaseEndsAt

export interface Found {
  readonly record: IdempotencyRecord
  readonly createdAt: EpochMs
  /** The store's clock (T23). */
  readonly now: EpochMs
}

export type Judgement =
  | { readonly type: 'mismatch' }
  | { readonly type: 'replay'; readonly answer: Answer; readonly attempt: number }
  | { readonly type: 'unstored'; readonly head: Json; readonly reason: UnstoredReason }
  | { readonly type: 'in-flight'; readonly leftMs: number }
  | { readonly type: 'outcome-unknown' }
  | { readonly type: 'take-over' }
  | { readonly type: 'give-up' }

/** What a record says to a request. The fingerprint comes before the state: a wrong request is told so, even while the first runs (T7). */
export function judge({ record, createdAt, now }: Found, fingerprint: Fingerprint, afterCrash: 'refuse' | 'resume'): Judgement {
  if (record.fingerprint !== fingerprint) return { type: 'mismatch' }
  switch (record.state) {
    case 'completed':
      return { type: 'replay', answer: record.answer, attempt: record.attempt }
    case 'unstored':
      return { type: 'unstored', head: record.head, reason: record.reason }
    case 'unknown':
      return { type: 'outcome-unknown' }
    case 'released':
      return { type: 'take-over' }
    case 'claimed': {
      const leftMs = leaseEndOf(record, createdAt) - now
      if (leftMs > 0) return { type: 'in-flight', leftMs }
      return { type: afterCrash === 'resume' ? 'take-over' : 'give-up' }
    }
    default:
      return unreachable(record)
  }
}

/** Whether an ending is kept and never run again (T13). A handler that called `once.release()` is not asked. */
export function isFinal(final: Finality, ending: Ending): boolean {
  if (typeof final === 'function') return final(ending)
  if (final === 'stripe' || ending.type === 'returned') return true
  if (ending.type === 'threw') return ending.stepBegun
  return ending.status < (final === 'draft' ? 500 : 400)
}

/** After the end the names tell a person what was done; the results are no longer needed. */
const namesOf = (steps: readonly StepRecord[]): StepRecord[] => steps.map(({ name }) => ({ name }))
