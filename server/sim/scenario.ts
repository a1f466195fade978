/**
 * One history: knobs drawn from the seed, a site, clients and faults; then everything heals, and every key must answer.
 * Invariant: a scenario is a function of its seed and options alone.
 */
import { seededRandom, type Random } from '../../core/base/random.ts'
import type { CompletionRules } from '../../core/record/operation.ts'
import { faultKinds, Nemesis, type FaultKind } from './faults.ts'
import { Recorder, type Call, type HistoryVerb } from './history.ts'
import { Site } from './site.ts'
import { bytesOf, Workload } from './workload.ts'
import { World } from './world.ts'

export interface ScenarioOptions {
  /** Default: drawn, 1, 3 or 5. */
  readonly zones?: number
  /** Default: a subset drawn from all. */
  readonly faults?: readonly FaultKind[]
}

export interface Played {
  readonly seed: number
  readonly zones: number
  readonly faults: readonly FaultKind[]
  readonly calls: readonly Call[]
  readonly faultCounts: Readonly<Partial<Record<FaultKind, number>>>
  /** What must never be, apart from what the checker finds: alarms, and keys that did not answer after everything healed. */
  readonly problems: readonly string[]
  readonly sometimes: Readonly<Record<string, number>>
  readonly logHash: string
}

/** Scaled down, in their order: message delay < an attempt's life < retry window < completions' life < purge age. */
const attemptMs = 150
const retryWindowMs = 500
export const scaledRules: CompletionRules = { lifeMs: 760, bytesMax: 32_768, countMax: 1_024 }
/** The greatest difference of two clocks that is tolerated. */
export const scaledBoundMs = 30
const activeMs = 1_600
/** After everything healed every key must be readable and writable within this time. */
const healMs = 5_000

export function play(seed: number, options: ScenarioOptions = {}): Played {
  const draw = seededRandom(seed ^ 0x5bd1e995)
  const zones = options.zones ?? draw.pick([1, 3, 3, 3, 5, 5])
  const isQuiet = draw.chance(0.1)
  const faults = options.faults ?? (isQuiet ? [] : faultKinds.filter(() => draw.chance(0.4)))
  const kinds = new Set(faults)
  const keys = ['a', 'b', 'c'].slice(0, draw.pick([1, 1, 2, 3]))
  const world = new World(seed)
  const site = new Site(world, {
    zones,
    keys,
    hasSpares: kinds.has('handover'),
    proxies: draw.pick([1, 2, 3, 3]),
    network: {
      delayMs: [0.2, draw.pick([0.5, 2, 2, 10])],
      loss: kinds.has('loss') ? draw.pick([0.005, 0.02, 0.1]) : 0,
      duplication: kinds.has('duplication') ? draw.pick([0.01, 0.1]) : 0,
      late: kinds.has('late') ? draw.pick([0.01, 0.1]) : 0,
      lateMs: draw.pick([20, 200, 2_000]),
    },
    syncMs: [0.1, kinds.has('slow-sync') ? draw.pick([10, 50, 150]) : 1],
    promisesMax: draw.pick([1, 2, 16, 1_000]),
    rules: draw.chance(0.1) ? { ...scaledRules, bytesMax: 600, countMax: 6 } : scaledRules,
    // The median of the servers is the time; with a quarter of the bound each of them agrees with it, whoever is in the middle.
    serverSkewMs: kinds.has('skew') ? draw.pick([1, scaledBoundMs / 4]) : 0,
    proxySkewMs: kinds.has('skew') ? draw.pick([3, scaledBoundMs / 4, scaledBoundMs]) : 0,
  })
  const recorder = new Recorder()
  const workload = new Workload(world, site, workloadKnobs(draw, keys), recorder)
  const nemesis = new Nemesis(world, site, {
    kinds,
    gapMsMax: draw.pick([50, 150, 400]),
    lengthMsMax: draw.pick([20, 120, 500]),
    endsAt: activeMs,
  })
  workload.start()
  nemesis.start()
  world.runUntil(activeMs + retryWindowMs + attemptMs)
  nemesis.heal()
  const problems = [...site.alarms, ...unanswered(world, site, keys)]
  return {
    seed,
    zones,
    faults,
    calls: recorder.calls,
    faultCounts: nemesis.counts,
    problems,
    sometimes: site.sometimes,
    logHash: world.logHash,
  }
}

function workloadKnobs(draw: Random, keys: readonly string[]) {
  const weights: Record<HistoryVerb, number> = draw.pick([
    { create: 2, get: 3, update: 3, set: 2, destroy: 1 },
    { create: 4, get: 4, update: 0, set: 0, destroy: 2 },
    { create: 1, get: 2, update: 6, set: 0, destroy: 0 },
    { create: 2, get: 5, update: 1, set: 1, destroy: 1 },
  ])
  return {
    clients: draw.pick([2, 4, 4, 8]),
    keys,
    thinkMsMax: draw.pick([5, 40, 200]),
    weights,
    ttlsMs: draw.pick([
      [20, 100],
      [100, 400],
      [50, 1_000],
    ]),
    expiring: draw.pick([0, 0.3, 0.8]),
    conditional: draw.pick([0, 0.5, 0.9]),
    timeoutMs: attemptMs,
    retryWindowMs,
    plainIds: draw.chance(0.3),
    endsAt: activeMs,
  }
}

/** Reads and writes each key until it answers. @returns those that did not in time */
function unanswered(world: World, site: Site, keys: readonly string[]): string[] {
  const waiting = new Set<string>()
  for (const key of keys) {
    for (const verb of ['get', 'set'] as const) {
      const name = `${verb} ${key}`
      waiting.add(name)
      const ask = (sequence: number): void => {
        if (!waiting.has(name)) return
        const request = { session: `probe-${name}`, sequence, remember: true, done: sequence, attempt: 1 }
        const operation =
          verb === 'get' ? undefined : ({ verb, request, value: bytesOf(0), expiry: { type: 'never' }, ifVersion: undefined } as const)
        const answer = ({ type }: { readonly type: string }): void => void ((type === 'read' || type === 'decided') && waiting.delete(name))
        const proxy = world.random.pick(site.proxies)
        site.carryOnce('probe', proxy.name, () => proxy.request({ key, operation, timeoutMs: attemptMs, sentAt: undefined, answer }))
        world.after(attemptMs, () => ask(sequence + 1))
      }
      ask(1)
    }
  }
  world.runUntil(world.now + healMs)
  const left = [...waiting].map((name) => `no answer within ${healMs} ms after everything healed: ${name}`)
  waiting.clear()
  return left
}
