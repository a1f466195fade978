/**
 * The generic cell rate algorithm: one instant says all. Each unit pushes it on by `per / limit`; a request fits while it is not too far ahead.
 * Pure. Invariant: the instant is a whole number of microseconds and of parts of one, so that no rate is rounded: in any stretch of
 * time t at most `burst + limit * t / per` units are allowed, for every limit.
 * Why it is the default: there is no window whose edge could let twice the limit through at once (R2), and its state is three numbers.
 */
import type { Duration } from '../../../core/base/types.ts'
import { invalid } from '../../../core/kv/errors.ts'
import { checkDuration } from '../../../core/kv/limits.ts'
import type { Policy, QuotaUnit } from '../types.ts'
import { checkCount, exactMax, policyOf, type Rule, type State } from './rule.ts'

export interface GcraOptions {
  /** Units that come back in `per`, evenly. A whole number from 1. */
  readonly limit: number
  readonly per: Duration
  /** The most at once, after a rest. Default: `limit`. */
  readonly burst?: number | undefined
  /** Default: 'requests'. */
  readonly unit?: QuotaUnit | undefined
}

/**
 * An even rate: `limit` units in `per`, and at most `burst` at once.
 * @throws KvError INVALID_ARGUMENT, also for numbers so large that they could not be counted exactly.
 * @example gcra({ limit: 20, per: '1s' })
 */
export function gcra({ limit, per, burst = limit, unit }: GcraOptions): Policy {
  checkCount(limit, 'limit')
  checkCount(burst, 'burst')
  const perMs = checkDuration(per, 'per', 1)
  if ((perMs * 1_000) % limit > 0 && burst * limit > exactMax / 4)
    invalid(
      `gcra: ${limit} in ${perMs} ms, ${burst} at once, cannot be counted exactly in microseconds`,
      'choose rounder or smaller numbers',
    )
  return policyOf({ kind: 'gcra', limit: burst, refill: limit, perMs, windowMs: Math.ceil((burst * perMs) / limit) }, unit)
}

// State: [us, parts, given]. The instant is us + parts / refill microseconds. `given`: all that refunds of this life took off it.
const fresh: State = Object.freeze([0, 0, 0])

/** `cost` units as whole microseconds; the parts that are over. */
const wholeUs = ({ refill = 1, perMs }: Policy, cost: number): number => {
  const perUs = perMs * 1_000
  const part = perUs % refill
  return cost * ((perUs - part) / refill) + Math.floor((cost * part) / refill)
}
const partsOf = ({ refill = 1, perMs }: Policy, cost: number): number => (cost * ((perMs * 1_000) % refill)) % refill

/** How far ahead of `atUs` the instant is, in microseconds, its parts rounded up. */
const aheadOf = (us: number, parts: number, atUs: number): number => (us >= atUs ? us - atUs + (parts > 0 ? 1 : 0) : 0)

/** The instant at which a request of `cost` fits, in whole microseconds rounded up. */
function fitsAtUs(us: number, parts: number, policy: Policy, cost: number): number {
  // instant + cost - burst: exact, with the parts that the subtraction borrows.
  const left = policy.limit - cost
  const rest = parts - partsOf(policy, left)
  return us - wholeUs(policy, left) + (rest > 0 ? 1 : 0)
}

export const gcraRule: Rule = {
  kind: 'gcra',
  code: 1,
  size: 3,
  fresh,
  earliest([us = 0, parts = 0], policy, cost, at) {
    if (cost === 0) return at
    // An instant that has passed counts as now: nobody saves up more than a burst.
    const atMs = Math.ceil(fitsAtUs(us, parts, policy, cost) / 1_000)
    return atMs > at ? atMs : at
  },
  charge([us = 0, parts = 0, given = 0], policy, cost, at) {
    const atUs = at * 1_000
    const isPast = us < atUs
    const { refill = 1 } = policy
    let nextParts = (isPast ? 0 : parts) + partsOf(policy, cost)
    let nextUs = (isPast ? atUs : us) + wholeUs(policy, cost)
    if (nextParts >= refill) {
      nextParts -= refill
      nextUs += 1
    }
    const mostUs = Math.max(us, atUs + wholeUs(policy, policy.limit) * 2)
    return nextUs > mostUs ? [mostUs, 0, given] : [nextUs, nextParts, given]
  },
  remaining([us = 0, parts = 0], policy, at) {
    const atUs = at * 1_000
    if (us < atUs) return policy.limit
    const { limit, refill = 1, perMs } = policy
    // Near by division, then exact.
    let count = Math.max(0, Math.min(limit, Math.floor(limit - (aheadOf(us, parts, atUs) * refill) / (perMs * 1_000))))
    while (count < limit && fitsAtUs(us, parts, policy, count + 1) <= atUs) count++
    while (count > 0 && fitsAtUs(us, parts, policy, count) > atUs) count--
    return count
  },
  moreAt(state, policy, at, remaining) {
    const [us = 0, parts = 0] = state
    if (aheadOf(us, parts, at * 1_000) === 0) return at
    const more = remaining + 1
    return more > policy.limit ? Math.ceil((us + (parts > 0 ? 1 : 0)) / 1_000) : Math.ceil(fitsAtUs(us, parts, policy, more) / 1_000)
  },
  endsAt: ([us = 0, parts = 0]) => Math.ceil((us + (parts > 0 ? 1 : 0)) / 1_000),
  /** The end of the charge's own stretch, counted from the first refund on. */
  mark: ([us = 0, , given = 0]) => us + given,
  refund([us = 0, parts = 0, given = 0], policy, cost, end, at) {
    // Charges run out in their order. Refunds of others count as if all of them stood before this one, so never too much is given back.
    const leftUs = end - given - at * 1_000
    const { refill = 1, perMs } = policy
    let units = Math.max(0, Math.min(cost, Math.floor((leftUs * refill) / (perMs * 1_000))))
    while (units > 0 && wholeUs(policy, units) + (partsOf(policy, units) > 0 ? 1 : 0) > leftUs) units--
    if (units === 0) return undefined
    const rest = parts - partsOf(policy, units)
    const backUs = wholeUs(policy, units) + (rest < 0 ? 1 : 0)
    return [us - backUs, rest < 0 ? rest + refill : rest, given + backUs]
  },
  rescale([us = 0, parts = 0, given = 0], from, to, at) {
    const atUs = at * 1_000
    const ahead = aheadOf(us, parts, atUs)
    if (ahead === 0) return [0, 0, given]
    const share = ahead / wholeUs(from, from.limit)
    return [atUs + Math.ceil(share * wholeUs(to, to.limit)), 0, given]
  },
}
