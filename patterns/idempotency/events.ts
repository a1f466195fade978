/**
 * What happens to idempotency keys, told on the diagnostics channel `hapax:idempotency`.
 * Invariant: an event holds no payload and no client's key: `id` is the first 16 characters of the record's hashed name.
 * Why a channel and not an emitter: while nobody listens it costs a look at a flag, and no option need be passed down.
 */
import { channel } from 'node:diagnostics_channel'

export type IdempotencyEventType =
  | 'claimed'
  | 'taken-over'
  | 'replayed'
  | 'refused'
  | 'renewed'
  | 'step-saved'
  | 'lost'
  | 'completed'
  | 'unstored'
  | 'handed-back'
  | 'unknown'
  | 'unsaved'
  | 'store-error'
  /** A person gave a key free: the audit event. */
  | 'released'

export interface IdempotencyEvent {
  readonly type: IdempotencyEventType
  /** Of the idempotency. */
  readonly name: string
  readonly id: string
  readonly attempt?: number | undefined
  readonly refusal?: string | undefined
  /** Of `released`: the state that was given up, and who did it, why. */
  readonly state?: string | undefined
  readonly actor?: string | undefined
  readonly reason?: string | undefined
  /** Of `store-error`, `unsaved` and `lost`. */
  readonly cause?: unknown
}

const events = channel('hapax:idempotency')

/** Tells an event, if somebody listens. */
export function tell(name: string, storeKey: string, event: Omit<IdempotencyEvent, 'name' | 'id'>): void {
  if (events.hasSubscribers) events.publish({ ...event, name, id: storeKey.slice(-43, -27) } satisfies IdempotencyEvent)
}
