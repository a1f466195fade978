/** The bridge with the real API and SDK of OpenTelemetry: what is told becomes span events and counters. */
import { channel } from 'node:diagnostics_channel'
import { context, metrics, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { AggregationTemporality, InMemoryMetricExporter, MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { channels, observe, type Observation } from './index.ts'

let spans: InMemorySpanExporter
let exported: InMemoryMetricExporter
let reader: PeriodicExportingMetricReader
let observation: Observation
beforeEach(() => {
  spans = new InMemorySpanExporter()
  exported = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
  reader = new PeriodicExportingMetricReader({ exporter: exported, exportIntervalMillis: 1_000_000 })
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] }))
  metrics.setGlobalMeterProvider(new MeterProvider({ readers: [reader] }))
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  observation = observe({ trace, metrics })
})
afterEach(async () => {
  observation.stop()
  await reader.shutdown()
  for (const api of [trace, metrics, context]) api.disable()
})

const tell = (name: string, event: object): void => channel(`hapax:${name}`).publish(event)
const inSpan = async (work: () => void | Promise<void>): Promise<void> => {
  await trace.getTracer('test').startActiveSpan('work', async (span) => {
    await work()
    span.end()
  })
}
const spanEvents = () => spans.getFinishedSpans().flatMap((span) => span.events.map(({ name, attributes }) => ({ name, attributes })))
const counts = async () => {
  await reader.forceFlush()
  const last = exported.getMetrics().at(-1)
  return (last?.scopeMetrics ?? []).flatMap((scope) =>
    scope.metrics.flatMap((metric) =>
      metric.dataPoints.map(({ attributes, value }) => ({ name: metric.descriptor.name, attributes, value })),
    ),
  )
}

describe('an event', () => {
  test('becomes an event of the active span, with what is plain in it', async () => {
    await inSpan(() => {
      tell('idempotency', {
        type: 'claimed',
        name: 'payments',
        id: 'x1',
        attempt: 2,
        refusal: undefined,
        isFirst: true,
        mixed: [1, 'a'],
        nested: {},
      })
      tell('ratelimit', { type: 'denied', name: 'api', violated: ['burst', 'daily'] })
      tell('counters', { type: 'full', kind: 'gauge', name: 'seats', id: 'x2', inUse: 3 })
    })
    expect(spanEvents()).toEqual([
      {
        name: 'hapax.idempotency.claimed',
        attributes: { 'hapax.name': 'payments', 'hapax.id': 'x1', 'hapax.attempt': 2, 'hapax.is_first': true },
      },
      { name: 'hapax.ratelimit.denied', attributes: { 'hapax.name': 'api', 'hapax.violated': ['burst', 'daily'] } },
      { name: 'hapax.counters.full', attributes: { 'hapax.kind': 'gauge', 'hapax.name': 'seats', 'hapax.id': 'x2', 'hapax.in_use': 3 } },
    ])
  })
  test('follows the span over awaits, and leaves an ended one alone', async () => {
    let late = (): void => {}
    await inSpan(async () => {
      await Promise.resolve()
      tell('ratelimit', { type: 'denied', name: 'api' })
      late = context.bind(context.active(), () => tell('ratelimit', { type: 'allowed', name: 'api' }))
    })
    late()
    expect(spanEvents().map((event) => event.name)).toEqual(['hapax.ratelimit.denied'])
  })
  test('tells of an error its code or name, and never its message', async () => {
    const secret = 'card 4242'
    await inSpan(() => {
      for (const cause of [Object.assign(new Error(secret), { code: 'BUSY' }), new RangeError(secret), secret, null, {}])
        tell('idempotency', { type: 'store-error', name: 'payments', cause })
    })
    expect(spanEvents().map((event) => event.attributes?.['error.type'])).toEqual(['BUSY', 'RangeError', 'string', 'object', 'object'])
    expect(JSON.stringify([spanEvents(), await counts()])).not.toContain('4242')
  })
  test('is counted, by what has few values alone', async () => {
    tell('idempotency', { type: 'refused', name: 'payments', id: 'x1', refusal: 'mismatch' })
    tell('idempotency', { type: 'refused', name: 'payments', id: 'x2', refusal: 'mismatch' })
    tell('idempotency', { type: 'released', name: 'payments', id: 'x3', actor: 'ada', reason: 'no charge at the bank', state: 'unknown' })
    tell('client-key', { type: 'misused', code: 'HAPAX_TRUST_PROXY_ALL', message: 'long' })
    expect(await counts()).toEqual([
      {
        name: 'hapax.idempotency.events',
        attributes: { 'hapax.event': 'refused', 'hapax.name': 'payments', 'hapax.refusal': 'mismatch' },
        value: 2,
      },
      { name: 'hapax.idempotency.events', attributes: { 'hapax.event': 'released', 'hapax.name': 'payments' }, value: 1 },
      { name: 'hapax.client-key.events', attributes: { 'hapax.event': 'misused' }, value: 1 },
    ])
  })
  test.each(channels)('of %s is seen, and no longer after the end', async (name) => {
    tell(name.slice(6), { type: 'a', name: 'n' })
    observation.stop()
    tell(name.slice(6), { type: 'a', name: 'n' })
    expect(await counts()).toEqual([{ name: `${name.replace(':', '.')}.events`, attributes: expect.anything() as object, value: 1 }])
    expect(channel(name).hasSubscribers).toBe(false)
  })
})

test('either API alone is enough, and an observation can be disposed of', async () => {
  observation.stop()
  {
    using _spansOnly = observe({ trace })
    await inSpan(() => tell('counters', { type: 'added', name: 'n' }))
  }
  {
    using _countsOnly = observe({ metrics })
    await inSpan(() => tell('counters', { type: 'reset', name: 'n' }))
  }
  expect(spanEvents().map((event) => event.name)).toEqual(['hapax.counters.added'])
  expect((await counts()).map((count) => count.attributes['hapax.event'])).toEqual(['reset'])
  expect(channels.filter((name) => channel(name).hasSubscribers)).toEqual([])
})

test('without a provider of the user nothing happens and nothing fails', async () => {
  for (const api of [trace, metrics, context]) api.disable()
  await inSpan(() => tell('idempotency', { type: 'claimed', name: 'payments' }))
  expect(spanEvents()).toEqual([])
})
