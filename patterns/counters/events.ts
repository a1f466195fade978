/**
 * What happens to counters and gauges, told on the diagnostics channel `hapax:counters`.
 * Invariant: an event holds no key and no request id of a caller: `id` is a hash of name and key.
 * Why a channel and not an emitter: while nobody listens it costs a look at a flag, and no option need be passed down.
 */
import { createHash } from 'node:crypto'
import { channel } from 'node:diagnostics_channel'

export type CountersEventType =
  | 'added'
  /** A request id that was here before got its first answer. */
  | 'repeated'
  | 'refused'
  | 'reset'
  | 'acquired'
  | 'full'
  | 'released'
  | 'lost'
  /** A renewal or a release that the store did not take. */
  | 'store-error'

export interface CountersEvent {
  readonly type: CountersEventType
  readonly kind: 'counter' | 'windowed' | 'sharded' | 'gauge'
  /** Of the counter. */
  readonly name: string
  readonly id: string
  readonly refusal?: string | undefined
  /** Of `acquired` and `full`. */
  readonly inUse?: number | undefined
  /** Of `store-error` and `lost`. */
  readonly cause?: unknown
}

const events = channel('hapax:counters')

/** Tells an event, if somebody listens. */
export function tell(
  kind: CountersEvent['kind'],
  name: string,
  key: string,
  type: CountersEventType,
  more?: Pick<CountersEvent, 'refusal' | 'inUse' | 'cause'>,
): void {
  if (!events.hasSubscribers) return
  const id = createHash('sha256')
    .update(JSON.stringify([kind, name, key]))
    .digest('base64url')
    .slice(0, 16)
  events.publish({ ...more, type, kind, name, id } satisfies CountersEvent)
}
