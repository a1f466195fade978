/**
 * What a process counts, and how it is told to Prometheus.
 * Invariant: counting is an addition to a number; names are made when somebody asks. No key, request id or address is a label, so the number
 * of series is fixed.
 * Why the library only at a scrape: its counters take half a microsecond each, which would be a tenth of a request.
 * Source: Prometheus text exposition 0.0.4; docs, reliability, "Metrics".
 */
import type { Registry } from 'prom-client'

/** Upper ends of the buckets, in seconds. */
const bucketsS = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1] as const

interface Timed {
  readonly labels: Readonly<Record<string, string>>
  /** One more than there are ends: the last is what took longer. */
  readonly counts: number[]
  sumS: number
}

export interface Gauge {
  readonly name: string
  readonly help: string
  readonly value: () => number
}

interface Sample {
  readonly metricName?: string
  readonly labels: Readonly<Record<string, string | number>>
  readonly value: number
}

export class Meter {
  readonly #events = new Map<string, number>()
  readonly #requests = new Map<string, Timed>()
  #gauges: readonly Gauge[] = []
  readonly #info: Readonly<Record<string, string>>
  #registry: Registry | undefined

  /** @param info what this process is: role, name, version */
  constructor(info: Readonly<Record<string, string>>) {
    this.#info = info
  }

  /** Numbers that somebody else has. */
  with(gauges: readonly Gauge[]): this {
    this.#gauges = gauges
    return this
  }

  event(name: string): void {
    this.#events.set(name, (this.#events.get(name) ?? 0) + 1)
  }

  /** A request that was answered: with which status of JunoDB's, after how many milliseconds. */
  request(verb: string, status: number, ms: number): void {
    const id = `${verb} ${status}`
    let timed = this.#requests.get(id)
    if (timed === undefined) {
      timed = { labels: { op: verb, status: String(status) }, counts: Array.from({ length: bucketsS.length + 1 }, () => 0), sumS: 0 }
      this.#requests.set(id, timed)
    }
    const s = ms / 1_000
    let bucket = 0
    while (bucket < bucketsS.length && s > (bucketsS[bucket] as number)) bucket++
    timed.counts[bucket] = (timed.counts[bucket] as number) + 1
    timed.sumS += s
  }

  /** How many requests were answered. */
  get requests(): number {
    return [...this.#requests.values()].reduce((sum, { counts }) => sum + counts.reduce((a, b) => a + b, 0), 0)
  }
  get events(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#events)
  }

  /** All of it as text. */
  async text(): Promise<string> {
    this.#registry ??= await this.#register()
    return this.#registry.metrics()
  }

  async #register(): Promise<Registry> {
    const { collectDefaultMetrics, Registry } = (await import('prom-client')).default
    const registry = new Registry()
    collectDefaultMetrics({ register: registry })
    const add = (name: string, help: string, type: string, values: () => readonly Sample[]): void =>
      registry.registerMetric({
        name,
        // The library asks each metric for what it has by `get`; what else it may have, only its own classes use.
        get: async () => ({ name, help, type, aggregator: 'sum', values: [...values()] }),
      } as unknown as Parameters<Registry['registerMetric']>[0])
    add('hapax_build_info', 'What this process is.', 'gauge', () => [{ labels: this.#info, value: 1 }])
    add('hapax_events_total', 'What rounds, replicas and clients did beside the ordinary, by name.', 'counter', () =>
      [...this.#events].map(([event, value]) => ({ labels: { event }, value })),
    )
    add('hapax_request_duration_seconds', "Requests of clients that were answered, by verb and JunoDB's status.", 'histogram', () =>
      [...this.#requests.values()].flatMap((timed) => samplesOf(timed)),
    )
    for (const { name, help, value } of this.#gauges) add(name, help, 'gauge', () => [{ labels: {}, value: value() }])
    return registry
  }
}

/** Buckets hold all that is at most their end. */
function samplesOf({ labels, counts, sumS }: Timed): readonly Sample[] {
  const metric = 'hapax_request_duration_seconds'
  let total = 0
  const buckets = counts.map((count, index): Sample => {
    total += count
    return { metricName: `${metric}_bucket`, labels: { ...labels, le: bucketsS[index] ?? '+Inf' }, value: total }
  })
  return [...buckets, { metricName: `${metric}_sum`, labels, value: sumS }, { metricName: `${metric}_count`, labels, value: total }]
}
