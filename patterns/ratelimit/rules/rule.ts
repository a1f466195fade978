/**
 * What every algorithm can be asked: one kind of policy, as functions of its state, a cost and an instant.
 * Pure. Invariant: a state is a short list of whole numbers; without a charge it only ever gets emptier as time goes on.
 * Why one question, `earliest`: whether a cost fits now, when it fits, and when a reservation may go are the same number,
 * so a retry time can never disagree with a decision.
 */
import { invalid } from '../../../core/kv/errors.ts'
import type { Policy, QuotaUnit } from '../types.ts'

/** Whole numbers below 2^53. What they mean is the rule's own matter. */
export type State = readonly number[]

/** Instants are whole epoch milliseconds on the store's clock. */
export interface Rule {
  readonly kind: Policy['kind']
  /** Names the kind in a record; never changes. */
  readonly code: number
  /** How many numbers a state has; of slots, how many each one has. */
  readonly size: number
  /** Nothing used. */
  readonly fresh: State
  /** The first instant from `at` on at which `cost` fits; Infinity: nobody knows, as of slots. `cost` is at most `limit`. */
  earliest(state: State, policy: Policy, cost: number, at: number): number
  /** The state after `cost` was charged at `at`, whether it fits or not. At most one `limit` of debt is kept. */
  charge(state: State, policy: Policy, cost: number, at: number): State
  /** How much fits at `at`: a whole number from 0. */
  remaining(state: State, policy: Policy, at: number): number
  /** The first instant after `at` at which more than `remaining`, which is what remains at `at`, does; `at` itself when nothing is used; undefined: not known. */
  moreAt(state: State, policy: Policy, at: number, remaining: number): number | undefined
  /** From this instant on the state is as good as fresh. */
  endsAt(state: State, policy: Policy): number
  /** What a receipt must remember of a charge that led to `state`: a whole number. */
  mark(state: State): number
  /** Gives back what is left of a charge of `cost`; undefined: nothing is, its window is over (R7). */
  refund(state: State, policy: Policy, cost: number, mark: number, at: number): State | undefined
  /** The state under changed numbers of the same kind: the share that was used stays used, rounded up (R18). */
  rescale(state: State, from: Policy, to: Policy, at: number): State
}

/** Below it every whole number is exact (R22). */
export const exactMax = Number.MAX_SAFE_INTEGER

/** Some 30 years: twice that in microseconds, after any instant before the year 2190, is exact. */
const windowMsMax = 1e12

/** The share of a part, rounded to the side that allows less. */
export const shareOf = (used: number, from: number, to: number): number => (from === to ? used : Math.ceil((used / from) * to))

/** @throws KvError INVALID_ARGUMENT unless it is a whole number from 1 that stays exact. */
export function checkCount(count: number, what: string): void {
  if (!Number.isSafeInteger(count) || count < 1 || count > 1e12)
    invalid(`${what} must be a whole number from 1 to 10^12, not ${String(count)}`)
}

/** @throws KvError INVALID_ARGUMENT for a unit that headers could not carry. */
export function policyOf(policy: Omit<Policy, 'unit'>, unit: QuotaUnit = 'requests'): Policy {
  if (typeof unit !== 'string' || !/^[a-z][a-z0-9-]{0,63}$/.test(unit))
    invalid(`unit must be 1 to 64 small letters, digits or hyphens, not ${JSON.stringify(unit)}`)
  if (policy.perMs > windowMsMax || (policy.windowMs ?? 0) > windowMsMax) invalid('a limit must come back within 30 years')
  return Object.freeze({ ...policy, unit })
}
