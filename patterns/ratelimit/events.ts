/**
 * What happens at rate limits and their doors, told on the diagnostics channel `hapax:ratelimit`.
 * Invariant: an event holds no key of a client: who needs it has it from the decision's own caller.
 * Why allowed requests are not told: there are too many, and the decision itself says all.
 */
import { channel } from 'node:diagnostics_channel'
import type { UnknownReason } from './types.ts'

export type RateLimitEventType =
  /** A request was refused. */
  | 'denied'
  /** The store did not decide; `reason` and `cause` say why. */
  | 'unknown'
  /** The store failed so often that it is left alone for a moment. */
  | 'paused'
  /** It answered again. */
  | 'resumed'
  /** The lease of a slot ended before it was renewed. */
  | 'slot-lost'
  /** The store's clock and this process's went apart: it is asked before each decision for a while. */
  | 'clock-differs'
  /** A key was reset. */
  | 'reset'
  /** Of a door: the limiter did not know, and its `onUnknown` let the request pass. */
  | 'passed-unknown'
  /** Of a door: the limiter did not know, and its `onUnknown` did not let it. */
  | 'refused-unknown'
  /** Of a door: the limiter is mounted twice for this request, and counted it once. */
  | 'counted-before'
  /** Of a door: what the request should cost after all was not heard by the store. */
  | 'not-settled'

export interface RateLimitEvent {
  readonly type: RateLimitEventType
  /** Of the limiter. */
  readonly name: string
  /** Of `denied`: the policies that denied. */
  readonly violated?: readonly string[] | undefined
  /** Of `denied`: decided in this process. */
  readonly local?: boolean | undefined
  readonly reason?: UnknownReason | undefined
  readonly cause?: unknown
}

const events = channel('hapax:ratelimit')

/** Tells an event, if somebody listens. */
export function tell(name: string, event: Omit<RateLimitEvent, 'name'>): void {
  if (events.hasSubscribers) events.publish({ ...event, name } satisfies RateLimitEvent)
}
