/**
 * 'hapax/opentelemetry': what hapax tells on its diagnostics channels, as events of the active span and as counters.
 * Invariant: nothing here throws into the code that tells an event, and no key, no payload and no error message leaves.
 * Why the API is handed in: hapax loads no OpenTelemetry by itself, and what the caller has registered is what is used.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { Attributes, AttributeValue, Counter, MetricsAPI, TraceAPI } from '@opentelemetry/api'

/** Every channel of hapax. docs/events.md says what is told there. */
export const channels = ['hapax:cache-aside', 'hapax:client-key', 'hapax:counters', 'hapax:idempotency', 'hapax:ratelimit'] as const

export interface ObserveOptions {
  /** `trace` of '@opentelemetry/api'. Without it there are no span events. */
  readonly trace?: Pick<TraceAPI, 'getActiveSpan'> | undefined
  /** `metrics` of '@opentelemetry/api'. Without it there are no counters. */
  readonly metrics?: Pick<MetricsAPI, 'getMeter'> | undefined
}

/** Ends the observing. */
export interface Observation extends Disposable {
  stop(): void
}

/** Members of an event that may be attributes of a counter: each has few values. A member that is not here is for spans only. */
const countedBy = new Set(['name', 'kind', 'refusal', 'outcome'])

/**
 * From now on each event becomes an event of the active span, if one is recorded: `hapax.idempotency.replayed`, with the event's members as
 * attributes `hapax.*`; and it is counted: counter `hapax.idempotency.events`, by `hapax.event`, `hapax.name` and `hapax.refusal`.
 * Of an error its code, else its name, becomes `error.type`. Counters are made when the first event comes: register a provider before.
 * @example const observation = observe({ trace, metrics }) // of '@opentelemetry/api'
 */
export function observe({ trace, metrics }: ObserveOptions): Observation {
  const counters = new Map<string, Counter | undefined>()
  const counterOf = (pattern: string): Counter | undefined => {
    if (!counters.has(pattern)) {
      const description = `What happened in ${pattern} of hapax`
      counters.set(pattern, metrics?.getMeter('hapax').createCounter(`${pattern}.events`, { unit: '{event}', description }))
    }
    return counters.get(pattern)
  }
  const onEvent = (message: unknown, channel: string | symbol): void => {
    const pattern = String(channel).replace(':', '.')
    const event = message as { readonly type: string }
    const span = trace?.getActiveSpan()
    if (span?.isRecording()) span.addEvent(`${pattern}.${event.type}`, attributesOf(event))
    counterOf(pattern)?.add(1, { 'hapax.event': event.type, ...attributesOf(event, countedBy) })
  }
  for (const channel of channels) subscribe(channel, onEvent)
  const stop = (): void => {
    for (const channel of channels) unsubscribe(channel, onEvent)
  }
  return { stop, [Symbol.dispose]: stop }
}

/** What of an event is plain, under OpenTelemetry's kind of names. */
function attributesOf(event: object, only?: ReadonlySet<string>): Attributes {
  const attributes: Attributes = {}
  for (const [name, value] of Object.entries(event) as [string, unknown][]) {
    if (name === 'type' || value === undefined || (only !== undefined && name !== 'cause' && !only.has(name))) continue
    if (name === 'cause') attributes['error.type'] = kindOf(value)
    else if (isPlain(value)) attributes[`hapax.${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`] = value
  }
  return attributes
}

const isPlain = (value: unknown): value is AttributeValue =>
  typeof value === 'string' ||
  typeof value === 'number' ||
  typeof value === 'boolean' ||
  (Array.isArray(value) && value.every((item) => typeof item === 'string'))

/** An error's message may hold what a customer sent; its code and name do not. */
function kindOf(cause: unknown): string {
  if (typeof cause !== 'object' || cause === null) return typeof cause
  const { code, name } = cause as { code?: unknown; name?: unknown }
  return typeof code === 'string' ? code : typeof name === 'string' ? name : 'object'
}
