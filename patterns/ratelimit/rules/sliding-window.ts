/**
 * Two windows side by side, the older of which counts less the further time goes on: an estimate of a log, in three numbers.
 * Pure. Invariant: `older * (per - passed) + newer * per` never exceeds `limit * per` by an allowed request; whole numbers alone.
 * Why it is an estimate: the older window is taken as evenly filled. If all of it came at its very end, a stretch of `per` sees up to
 * `2 * limit - 1`; evenly spread traffic sees `limit`. The test measures both. An exact log would keep each request.
 */
import type { Duration } from '../../../core/base/types.ts'
import { invalid } from '../../../core/kv/errors.ts'
import { checkDuration } from '../../../core/kv/limits.ts'
import type { Policy, QuotaUnit } from '../types.ts'
import { checkCount, exactMax, policyOf, shareOf, type Rule, type State } from './rule.ts'

export interface SlidingWindowOptions {
  /** A whole number from 1. */
  readonly limit: number
  readonly per: Duration
  /** Default: 'requests'. */
  readonly unit?: QuotaUnit | undefined
}

/**
 * `limit` units in the last `per`, as estimated from two windows. Error bound: never more than `2 * limit - 1` in any stretch of `per`,
 * and that only when the older window was used up at its very end; never fewer than `limit` after a rest of two windows.
 * @throws KvError INVALID_ARGUMENT, also when limit times milliseconds could not be counted exactly.
 * @example slidingWindow({ limit: 100, per: '1m' })
 */
export function slidingWindow({ limit, per, unit }: SlidingWindowOptions): Policy {
  checkCount(limit, 'limit')
  const perMs = checkDuration(per, 'per', 1)
  if (limit * perMs > exactMax / 4)
    invalid(`slidingWindow: ${limit} in ${perMs} ms cannot be counted exactly`, 'take a shorter window, or fixedWindow')
  return policyOf({ kind: 'sliding-window', limit, perMs, windowMs: perMs }, unit)
}

// State: [start, older, newer].
const fresh: State = Object.freeze([0, 0, 0])

function rolled(state: State, { perMs }: Policy, at: number): State {
  const [start = 0, older = 0, newer = 0] = state
  if (older === 0 && newer === 0) return [at, 0, 0]
  const windows = Math.floor((at - start) / perMs)
  if (windows < 1) return state
  if (windows === 1) return newer === 0 ? [at, 0, 0] : [start + perMs, newer, 0]
  return [at, 0, 0]
}

/** How much fits after `passed` milliseconds of the newer window; below 0 when there is debt. */
const room = (older: number, newer: number, { limit, perMs }: Policy, passed: number): number =>
  limit - newer - Math.ceil((older * (perMs - passed)) / perMs)

/** When `cost` fits within a window of these two counts; undefined: not in it. */
function passedFor(older: number, newer: number, { limit, perMs }: Policy, cost: number): number | undefined {
  const free = limit - newer - cost
  if (free < 0) return undefined
  return older === 0 ? 0 : Math.max(0, perMs - Math.floor((free * perMs) / older))
}

export const slidingWindowRule: Rule = {
  kind: 'sliding-window',
  code: 3,
  size: 3,
  fresh,
  earliest(state, policy, cost, at) {
    if (cost === 0) return at
    const [start = 0, older = 0, newer = 0] = rolled(state, policy, at)
    const { perMs } = policy
    const inThis = passedFor(older, newer, policy, cost)
    if (inThis !== undefined) return Math.max(at, start + inThis)
    const inNext = passedFor(newer, 0, policy, cost)
    return start + perMs + (inNext ?? perMs)
  },
  charge(state, policy, cost, at) {
    const [start = 0, older = 0, newer = 0] = rolled(state, policy, at)
    return [start, older, Math.min(newer + cost, Math.max(newer, policy.limit * 2))]
  },
  remaining(state, policy, at) {
    const [start = 0, older = 0, newer = 0] = rolled(state, policy, at)
    return start > at ? 0 : Math.max(0, room(older, newer, policy, at - start))
  },
  moreAt(state, policy, at, remaining) {
    const [start = 0, older = 0, newer = 0] = rolled(state, policy, at)
    if (older === 0 && newer === 0) return at
    if (start > at) return start
    return remaining >= policy.limit ? this.endsAt(state, policy) : this.earliest(state, policy, remaining + 1, at)
  },
  endsAt: ([start = 0, older = 0, newer = 0], { perMs }) => (newer > 0 ? start + 2 * perMs : older > 0 ? start + perMs : 0),
  mark: ([start = 0]) => start,
  refund(state, policy, cost, mark, at) {
    const [start = 0, older = 0, newer = 0] = rolled(state, policy, at)
    if (cost === 0) return undefined
    if (mark === start && newer > 0) return [start, older, Math.max(0, newer - cost)]
    // The window that was charged is the older one now, and still counts.
    if (mark === start - policy.perMs && older > 0) return [start, Math.max(0, older - cost), newer]
    return undefined
  },
  rescale(state, from, to, at) {
    const [start = 0, older = 0, newer = 0] = rolled(state, from, at)
    return [start, shareOf(older, from.limit, to.limit), shareOf(newer, from.limit, to.limit)]
  },
}
