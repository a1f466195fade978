/**
 * A payment, its repetition and a mistake, as a trace: what hapax did stands on the spans of the application.
 * Run `npm run build`, then `node dist/examples/opentelemetry/main.js`.
 * Why an exporter of our own: a tree on a terminal says more than JSON; in production an OTLP exporter takes its place.
 */
import { pathToFileURL } from 'node:url'
import { context, metrics, trace, type HrTime } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { AggregationTemporality, InMemoryMetricExporter, MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor, type ReadableSpan } from '@opentelemetry/sdk-trace-base'
import { memory } from 'hapax'
import { idempotency } from 'hapax/idempotency'
import { observe } from 'hapax/opentelemetry'

export async function main(print: (line: string) => void): Promise<void> {
  // What an application has anyway: providers, registered once.
  const spans = new InMemorySpanExporter()
  const counts = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
  const reader = new PeriodicExportingMetricReader({ exporter: counts, exportIntervalMillis: 60_000 })
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] }))
  metrics.setGlobalMeterProvider(new MeterProvider({ readers: [reader] }))

  // The one line that hapax needs.
  using _observation = observe({ trace, metrics })

  const payments = idempotency({ kv: memory(), name: 'payments' })
  const tracer = trace.getTracer('shop')
  const pay = (amount: number) =>
    tracer.startActiveSpan('POST /payments', async (span) => {
      await payments.run({ scope: 'ada', key: 'order-7', operation: 'POST /payments', input: { amount } }, (once) =>
        once.step('charge', ({ key }) =>
          tracer.startActiveSpan('charge', (charge) => {
            charge.end()
            return { amount, idempotencyKey: key }
          }),
        ),
      )
      span.end()
    })
  await tracer.startActiveSpan('three requests', async (span) => {
    await pay(2990) // runs
    await pay(2990) // is replayed
    await pay(1) // is another request under the same key
    span.end()
  })

  for (const line of treeOf(spans.getFinishedSpans())) print(line)
  await reader.forceFlush()
  print('')
  for (const { scopeMetrics } of counts.getMetrics())
    for (const { descriptor, dataPoints } of scopeMetrics.flatMap((scope) => scope.metrics))
      for (const { attributes, value } of dataPoints) print(`${descriptor.name} ${JSON.stringify(attributes)}: ${JSON.stringify(value)}`)
  await reader.shutdown()
  for (const api of [trace, metrics, context]) api.disable()
}

/** Spans below their parents, and what was told on each. */
function treeOf(spans: readonly ReadableSpan[], parent?: string, indent = ''): string[] {
  return spans
    .filter((span) => span.parentSpanContext?.spanId === parent)
    .sort((a, b) => nanos(a.startTime) - nanos(b.startTime))
    .flatMap((span) => [
      `${indent}${span.name}`,
      ...span.events.map(({ name, attributes }) => `${indent}  . ${name} ${JSON.stringify(attributes)}`),
      ...treeOf(spans, span.spanContext().spanId, `${indent}  `),
    ])
}

const nanos = ([seconds, nanoseconds]: HrTime): number => seconds * 1e9 + nanoseconds

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) await main((line) => console.log(line))
