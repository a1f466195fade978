/**
 * What a call may do to an expiry, as a caller says it and as the rules take it.
 * Pure. Invariant: 0 is never, and stands nowhere outside records; every other expiry is an instant.
 * Why a file: `apply` and `modify`, which folds the expiries of joined callers, must come to the same instant.
 */
import { unreachable } from '../base/assert.ts'
import { epochMs, epochMsMax, type EpochMs, type Millis } from '../base/types.ts'
import { invalid } from './errors.ts'
import type { Expiry } from './kv.ts'
import { checkInstant, checkTtl, type Limits } from './limits.ts'

/** An expiry change in milliseconds and instants. */
export type ExpiryChange =
  /** `ttlMs`: how long an entry lives that the call makes; absent: for ever. JunoDB's set without a time to live. */
  | { readonly type: 'keep'; readonly ttlMs?: Millis }
  | { readonly type: 'never' }
  | { readonly type: 'set'; readonly ttlMs: Millis }
  | { readonly type: 'extend'; readonly ttlMs: Millis }
  | { readonly type: 'until'; readonly at: EpochMs }

export const neverExpires: ExpiryChange = Object.freeze({ type: 'never' })
const keep: ExpiryChange = Object.freeze({ type: 'keep' })

/** Reads what a caller gave; throws INVALID_ARGUMENT and TOO_LARGE. */
export function expiryChange(expiry: Expiry | undefined, limits: Limits): ExpiryChange {
  if (expiry === undefined || expiry === 'keep') return keep
  if (expiry === 'never') return neverExpires
  if (typeof expiry === 'object' && expiry !== null && Object.keys(expiry).length === 1) {
    if ('set' in expiry) return { type: 'set', ttlMs: checkTtl(expiry.set, limits) }
    if ('extend' in expiry) return { type: 'extend', ttlMs: checkTtl(expiry.extend, limits) }
    if ('until' in expiry) return { type: 'until', at: epochMs(Math.max(1, checkInstant(expiry.until, 'expiry.until'))) }
  }
  return invalid(`expiry must be 'keep', 'never', { set }, { extend } or { until }, not ${JSON.stringify(expiry)}`)
}

/**
 * The expiry after a change; 0 is never. `before` undefined: there was no entry. `extend` never shortens: an entry that never dies
 * goes on so, and one that is made by the call lives for the time given.
 */
export function expiryAfter(change: ExpiryChange, before: EpochMs | undefined, now: EpochMs): EpochMs {
  switch (change.type) {
    case 'keep':
      return before ?? (change.ttlMs === undefined ? epochMs(0) : expiryAfter({ type: 'set', ttlMs: change.ttlMs }, before, now))
    case 'never':
      return epochMs(0)
    case 'set':
      return epochMs(Math.min(now + change.ttlMs, epochMsMax))
    case 'extend':
      return before === 0 ? before : epochMs(Math.min(Math.max(before ?? 0, now + change.ttlMs), epochMsMax))
    case 'until':
      return change.at
    default:
      return unreachable(change)
  }
}
