/**
 * Slots that are held while something runs. Each one is a lease: who dies without giving it back loses it when the lease ends.
 * Pure. Invariant: at most `limit` leases are alive at once; a lease is ended by its holder or by the store's clock, by nobody else.
 * Why leases and not a count: a count never comes down again after a crash.
 */
import type { Duration } from '../../../core/base/types.ts'
import { invalid } from '../../../core/kv/errors.ts'
import { checkDuration } from '../../../core/kv/limits.ts'
import type { Policy } from '../types.ts'
import { checkCount, policyOf, type Rule, type State } from './rule.ts'

export interface ConcurrencyOptions {
  /** Slots. A whole number from 1 to 1,024: each one that is taken stands in the record. */
  readonly limit: number
  /** How long a slot is held without being renewed; it is renewed at a third. At least 100 ms. */
  readonly lease: Duration
}

const slotsMax = 1_024

/**
 * At most `limit` at the same time. For `acquire`.
 * @throws KvError INVALID_ARGUMENT.
 * @example concurrency({ limit: 10, lease: '30s' })
 */
export function concurrency({ limit, lease }: ConcurrencyOptions): Policy {
  checkCount(limit, 'limit')
  if (limit > slotsMax) invalid(`concurrency: limit must be at most ${slotsMax}, not ${limit}`)
  return policyOf({ kind: 'concurrency', limit, perMs: checkDuration(lease, 'lease', 100) }, 'concurrent-requests')
}

/** Who holds a slot: the limiter's own number, and which of its slots. */
export type Holder = readonly [holder: number, sequence: number]

// State: [holder, sequence, endsAt] for each slot that is taken.
const size = 3
const fresh: State = Object.freeze([])

/** Without the leases that have ended. At its very instant a lease has ended. */
function alive(state: State, at: number): number[] {
  const left: number[] = []
  for (let index = 0; index < state.length; index += size)
    if ((state[index + 2] as number) > at) left.push(state[index] as number, state[index + 1] as number, state[index + 2] as number)
  return left
}

const indexOf = (state: State, [holder, sequence]: Holder): number => {
  for (let index = 0; index < state.length; index += size) if (state[index] === holder && state[index + 1] === sequence) return index
  return -1
}

/** Takes a slot. Whether one is free, `earliest` says. */
export const taken = (state: State, { perMs }: Policy, [holder, sequence]: Holder, at: number): State => [
  ...alive(state, at),
  holder,
  sequence,
  at + perMs,
]

/** Renews a slot; undefined: it is not there any more. One whose lease has ended may be renewed while nobody has taken its place. */
export function renewed(state: State, { perMs }: Policy, holder: Holder, at: number): State | undefined {
  const index = indexOf(state, holder)
  if (index < 0) return undefined
  const next = [...state]
  next[index + 2] = Math.max(next[index + 2] as number, at + perMs)
  return next
}

/** Gives a slot back; undefined: it is not there. */
export function released(state: State, holder: Holder): State | undefined {
  const index = indexOf(state, holder)
  return index < 0 ? undefined : state.filter((_, at) => at < index || at >= index + size)
}

/** `cost` is 1 here, whatever the other policies are charged. */
export const concurrencyRule: Rule = {
  kind: 'concurrency',
  code: 5,
  size,
  fresh,
  earliest: (state, { limit }, _cost, at) => (alive(state, at).length / size < limit ? at : Infinity),
  charge: (state) => state,
  remaining: (state, { limit }, at) => Math.max(0, limit - alive(state, at).length / size),
  moreAt: (state, _policy, at) => (alive(state, at).length === 0 ? at : undefined),
  endsAt: (state) => {
    let end = 0
    for (let index = 2; index < state.length; index += size) end = Math.max(end, state[index] as number)
    return end
  },
  mark: () => 0,
  refund: () => undefined,
  rescale: (state) => state,
}
