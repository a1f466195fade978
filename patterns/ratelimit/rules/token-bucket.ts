/**
 * A bucket that is refilled in steps: `refill` tokens together each time that `per` has passed.
 * Pure. Invariant: in any stretch of time t at most `capacity + refill * ceil(t / per)` tokens are taken.
 * Why steps: that is what plans say ("100 a minute on top"). An even trickle is gcra with a `burst`.
 */
import type { Duration } from '../../../core/base/types.ts'
import { checkDuration } from '../../../core/kv/limits.ts'
import type { Policy, QuotaUnit } from '../types.ts'
import { checkCount, policyOf, shareOf, type Rule, type State } from './rule.ts'

export interface TokenBucketOptions {
  /** The most that the bucket holds. A whole number from 1. */
  readonly capacity: number
  /** Tokens that come back together at each `per`. A whole number from 1. */
  readonly refill: number
  readonly per: Duration
  /** Default: 'requests'. */
  readonly unit?: QuotaUnit | undefined
}

/**
 * A bucket of `capacity` tokens, refilled by `refill` each `per`, counted from the first token that is taken from the full bucket.
 * @throws KvError INVALID_ARGUMENT.
 * @example tokenBucket({ capacity: 100, refill: 10, per: '1s' })
 */
export function tokenBucket({ capacity, refill, per, unit }: TokenBucketOptions): Policy {
  checkCount(capacity, 'capacity')
  checkCount(refill, 'refill')
  const perMs = checkDuration(per, 'per', 1)
  return policyOf({ kind: 'token-bucket', limit: capacity, refill, perMs, windowMs: Math.ceil(capacity / refill) * perMs }, unit)
}

// State: [since, used, gone]. `since`: the last step. `gone`: all that was refilled or refunded in this life, which tells whose charge is over.
const fresh: State = Object.freeze([0, 0, 0])

function rolled(state: State, { refill = 1, perMs }: Policy, at: number): State {
  const [since = 0, used = 0, gone = 0] = state
  if (used === 0) return [at, 0, gone]
  const steps = Math.floor((at - since) / perMs)
  if (steps < 1) return state
  const back = Math.min(used, steps * refill)
  return back === used ? [at, 0, gone + used] : [since + steps * perMs, used - back, gone + back]
}

export const tokenBucketRule: Rule = {
  kind: 'token-bucket',
  code: 2,
  size: 3,
  fresh,
  earliest(state, policy, cost, at) {
    if (cost === 0) return at
    const [since = 0, used = 0] = rolled(state, policy, at)
    const { limit, refill = 1, perMs } = policy
    const steps = Math.max(0, Math.ceil((used + cost - limit) / refill))
    return Math.max(at, since + steps * perMs)
  },
  charge(state, policy, cost, at) {
    const [since = 0, used = 0, gone = 0] = rolled(state, policy, at)
    return [since, Math.min(used + cost, Math.max(used, policy.limit * 2)), gone]
  },
  remaining(state, policy, at) {
    const [since = 0, used = 0] = rolled(state, policy, at)
    return since > at ? 0 : Math.max(0, policy.limit - used)
  },
  moreAt(state, policy, at) {
    const [since = 0, used = 0] = rolled(state, policy, at)
    if (used === 0) return at
    const { limit, refill = 1, perMs } = policy
    return since > at && used < limit ? since : since + Math.max(1, Math.ceil((used - limit + 1) / refill)) * perMs
  },
  endsAt: ([since = 0, used = 0], { refill = 1, perMs }) => (used === 0 ? 0 : since + Math.ceil(used / refill) * perMs),
  /** The end of the charge's own stretch of tokens. */
  mark: ([, used = 0, gone = 0]) => used + gone,
  refund(state, policy, cost, end, at) {
    const [since = 0, used = 0, gone = 0] = rolled(state, policy, at)
    // Charges are refilled in their order. Refunds of others count as if all of them stood before this one.
    const back = Math.min(cost, end - gone, used)
    return back <= 0 ? undefined : [since, used - back, gone + back]
  },
  rescale(state, from, to, at) {
    const [since = 0, used = 0, gone = 0] = rolled(state, from, at)
    return [since, shareOf(used, from.limit, to.limit), gone]
  },
}
