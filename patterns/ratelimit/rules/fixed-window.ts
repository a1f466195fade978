/**
 * A quota that begins with the first charge, and begins anew when `per` has passed.
 * Pure. Invariant: within one window at most `limit` is allowed.
 * Why to prefer another one for short limits: around the edge of two windows up to twice the limit comes through at once (R2).
 * That is what a quota a day means; against bursts use gcra.
 */
import type { Duration } from '../../../core/base/types.ts'
import { checkDuration } from '../../../core/kv/limits.ts'
import type { Policy, QuotaUnit } from '../types.ts'
import { checkCount, policyOf, shareOf, type Rule, type State } from './rule.ts'

export interface FixedWindowOptions {
  /** A whole number from 1. */
  readonly limit: number
  readonly per: Duration
  /** Default: 'requests'. */
  readonly unit?: QuotaUnit | undefined
}

/**
 * `limit` units in a window of `per`, which begins with its first charge. Any stretch of `per` can see up to twice the limit.
 * @throws KvError INVALID_ARGUMENT.
 * @example fixedWindow({ limit: 10_000, per: '1d' })
 */
export function fixedWindow({ limit, per, unit }: FixedWindowOptions): Policy {
  checkCount(limit, 'limit')
  const perMs = checkDuration(per, 'per', 1)
  return policyOf({ kind: 'fixed-window', limit, perMs, windowMs: perMs }, unit)
}

// State: [start, used]. More than `limit` is debt, which the next window begins with.
const fresh: State = Object.freeze([0, 0])

/** The window that `at` lies in. One that was charged ahead of time stays as it is. */
function rolled(state: State, { limit, perMs }: Policy, at: number): State {
  const [start = 0, used = 0] = state
  if (used === 0) return [at, 0]
  const windows = Math.floor((at - start) / perMs)
  if (windows < 1) return state
  const left = used - windows * limit
  return left > 0 ? [start + windows * perMs, left] : [at, 0]
}

export const fixedWindowRule: Rule = {
  kind: 'fixed-window',
  code: 4,
  size: 2,
  fresh,
  earliest(state, policy, cost, at) {
    if (cost === 0) return at
    const [start = 0, used = 0] = rolled(state, policy, at)
    const { limit, perMs } = policy
    const windows = Math.max(0, Math.ceil((used + cost - limit) / limit))
    return windows === 0 ? Math.max(at, start) : start + windows * perMs
  },
  charge(state, policy, cost, at) {
    const [start = 0, used = 0] = rolled(state, policy, at)
    return [start, Math.min(used + cost, Math.max(used, policy.limit * 2))]
  },
  remaining(state, policy, at) {
    const [start = 0, used = 0] = rolled(state, policy, at)
    return start > at ? 0 : Math.max(0, policy.limit - used)
  },
  moreAt(state, policy, at) {
    const [start = 0, used = 0] = rolled(state, policy, at)
    if (used === 0) return at
    const { limit, perMs } = policy
    return start > at && used < limit ? start : start + Math.max(1, Math.ceil((used - limit + 1) / limit)) * perMs
  },
  endsAt: ([start = 0, used = 0], { limit, perMs }) => (used === 0 ? 0 : start + Math.ceil(used / limit) * perMs),
  mark: ([start = 0]) => start,
  refund(state, policy, cost, start, at) {
    const now = rolled(state, policy, at)
    const [begun = 0, used = 0] = now
    if (begun !== start || used === 0 || cost === 0) return undefined
    return [begun, Math.max(0, used - cost)]
  },
  rescale(state, from, to, at) {
    const [start = 0, used = 0] = rolled(state, from, at)
    return [start, shareOf(used, from.limit, to.limit)]
  },
}
