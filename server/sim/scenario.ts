/**
 * One history: knobs drawn from the seed, a site, clients and faults; then everything heals, and every key must answer.
 * Invariant: a scenario is a function of its seed and options alone.
 */
import { seededRandom, type Random } from '../../core/base/random.ts'
import type { Answer } from '../register/work.ts'
import { BallotOracle } from './ballots.ts'
import { ChosenOracle } from './chosen.ts'
import { faultKinds, Nemesis, type FaultKind } from './faults.ts'
import { answerOf, Recorder, type Call, type HistoryVerb, type Shown } from './history.ts'
import { Observer } from './observer.ts'
import { attemptMs, retryWindowMs, scaledBoundMs, scaledRules, scaledTimes } from './scale.ts'
import { Site, type Carried, type ClockDraw, type SiteKnobs } from './site.ts'
import { ToldOracle } from './told.ts'
import { VoteOracle } from './votes.ts'
import { bytesOf, valueIn, Workload, type ClientKind } from './workload.ts'
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
  /** The true time at which all zones lost their power in `os` mode: whatever was acknowledged until then may be gone. */
  readonly seamAt: number | undefined
  readonly countingKey: string | undefined
  /** What each key held at the end, as far as it answered. */
  readonly finals: ReadonlyMap<string, Shown | undefined>
  /** What must never be, apart from what the checker finds: alarms, and keys that did not answer after everything healed. */
  readonly problems: readonly string[]
  readonly sometimes: Readonly<Record<string, number>>
  readonly logHash: string
}

const activeMs = 1_600
/** Longer than a purge waits. */
const quietMs = 1_300
/** After everything healed every key must be readable and writable within this time. */
const healMs = 5_000

/** Told of each message as it leaves, with the true time. */
export type Onlooker = (now: number, from: string, to: string, message: Carried) => void

export function play(seed: number, options: ScenarioOptions = {}, onlooker?: Onlooker): Played {
  const draw = seededRandom(seed ^ 0x5bd1e995)
  const zones = options.zones ?? draw.pick([1, 3, 3, 3, 5, 5])
  const share = draw.pick([0.03, 0.1, 0.1, 0.25, 0.4])
  // Half of the histories are a fight for one key under a few faults that come all the time: what takes three things at once is seen there.
  const isFight = draw.chance(0.5)
  const few = Array.from({ length: 1 + draw.int(4) }, () => draw.pick(faultKinds))
  if (draw.chance(0.6)) few.push('late')
  const drawn = isFight ? few : faultKinds.filter(() => draw.chance(share))
  const faults = options.faults ?? drawn
  const kinds = new Set(faults)
  // With several keys a small table of promises lets go of them all the time.
  const evicts = draw.chance(0.15)
  const keys = ['a', 'b', 'c'].slice(0, evicts ? 3 : isFight ? 1 : draw.pick([1, 1, 2, 3]))
  const countingKey = !isFight && draw.chance(0.4) ? 'n' : undefined
  if (countingKey !== undefined) keys.push(countingKey)
  const plainIds = draw.chance(0.3)
  const quiet = draw.chance(0.2) ? { from: activeMs / 2, until: activeMs / 2 + quietMs } : undefined
  const endsAt = activeMs + (quiet === undefined ? 0 : quietMs)
  const world = new World(seed)
  // A history without bytes is the same one, and half again as quick.
  const carriesBytes = seed % 2 === 0
  const knobs = siteKnobs(draw, world.random, zones, kinds, keys, plainIds)
  const site = new Site(world, { ...knobs, ...(evicts ? { promisesMax: draw.pick([1, 2]) } : {}), carriesBytes })
  new Observer(site)
  new BallotOracle(site)
  new ChosenOracle(site)
  new ToldOracle(site)
  new VoteOracle(site)
  if (onlooker !== undefined)
    site.taps.add((from, to, message) => {
      onlooker(world.now, from, to, message)
      return 'goes'
    })
  const recorder = new Recorder()
  const workload = new Workload(
    world,
    site,
    { ...workloadKnobs(draw, keys, plainIds, quiet !== undefined), countingKey, quiet, endsAt },
    recorder,
  )
  const nemesis = new Nemesis(world, site, {
    kinds,
    gapMsMax: isFight ? 50 : draw.pick([50, 150, 400]),
    lengthMsMax: draw.pick([20, 120, 500]),
    quiet: draw.chance(0.5) ? quiet : undefined,
    endsAt,
  })
  workload.start()
  nemesis.start()
  world.runUntil(endsAt + retryWindowMs + attemptMs)
  nemesis.heal()
  const left = new Probe(world, site, keys)
  const problems = [...left.problems, ...site.alarms]
  return {
    seed,
    zones,
    faults,
    calls: recorder.calls,
    faultCounts: nemesis.counts,
    seamAt: site.seamAt,
    countingKey,
    finals: left.finals,
    problems,
    sometimes: site.sometimes,
    logHash: world.logHash,
  }
}

const needSpares: readonly FaultKind[] = ['handover', 'fault-in-move']

/** Silly values included. */
function siteKnobs(
  draw: Random,
  random: Random,
  zones: number,
  kinds: ReadonlySet<FaultKind>,
  keys: readonly string[],
  plainIds: boolean,
): Omit<SiteKnobs, 'carriesBytes'> {
  const isSkewed = kinds.has('skew')
  // With half of the bound all servers are within the bound of each other.
  const serverSkewMs = isSkewed ? draw.pick([1, scaledBoundMs / 4, scaledBoundMs / 2]) : 0
  const proxySkewMs = isSkewed ? draw.pick([3, scaledBoundMs / 4, scaledBoundMs]) : 0
  const isAtBound = isSkewed && draw.chance(0.3)
  const driftMax = kinds.has('drift') ? draw.pick([0.000_1, 0.001, 0.003]) : 0
  const clock = (skewMs: number) => (): ClockDraw => {
    const share = random.next() * 2 - 1
    return { offsetMs: isAtBound ? Math.sign(share) * skewMs : share * skewMs, rate: 1 + (random.next() * 2 - 1) * driftMax }
  }
  return {
    zones,
    keys,
    hasSpares: needSpares.some((kind) => kinds.has(kind)),
    mode: draw.chance(kinds.has('total-loss') || kinds.has('power-loss') ? 0.5 : 0.1) ? 'os' : 'fsync',
    osSyncMs: draw.pick([5, 50, 500]),
    proxies: draw.pick([1, 2, 3, 3]),
    proxiesHaveRows: draw.chance(0.8),
    network: {
      delayMs: [0.2, draw.pick([0.5, 2, 2, 10])],
      // As near as on the same machine: a start is then over in milliseconds.
      ...(draw.chance(0.3) ? { mapDelayMs: [0.05, 0.1] as const } : {}),
      loss: kinds.has('loss') ? draw.pick([0.005, 0.02, 0.1]) : 0,
      duplication: kinds.has('duplication') ? draw.pick([0.01, 0.1]) : 0,
      late: kinds.has('late') ? draw.pick([0.01, 0.1]) : 0,
      // As long as a round, as an attempt, as a retry window, and longer than anybody waits.
      lateMs: draw.pick([20, 60, 200, 2_000, 6_000]),
    },
    syncMs: [0.1, kinds.has('slow-sync') ? draw.pick([10, 50, 150]) : 1],
    promisesMax: draw.pick([1, 2, 16, 1_000]),
    waitingMax: draw.chance(0.05) ? 4 : 65_536,
    rules: draw.chance(0.1) ? { ...scaledRules, bytesMax: 600, countMax: 6 } : scaledRules,
    times: {
      ...scaledTimes,
      ...(draw.chance(0.1) ? { freezeMs: 5 } : {}),
      // The least that a site may set, and less than completions live, which then counts.
      ...(draw.chance(0.2) ? { purgeAgeMs: draw.pick([scaledRules.lifeMs + 1, 150]) } : {}),
    },
    plainIdsRepeat: plainIds,
    serverClock: clock(serverSkewMs),
    proxyClock: clock(proxySkewMs),
  }
}

function workloadKnobs(draw: Random, keys: readonly string[], plainIds: boolean, hasQuiet: boolean) {
  const named: ClientKind = plainIds ? 'plain' : 'session'
  const weights: Record<HistoryVerb, number> = draw.pick([
    { create: 2, get: 3, update: 3, set: 2, destroy: 1 },
    { create: 4, get: 4, update: 0, set: 0, destroy: 2 },
    { create: 1, get: 2, update: 6, set: 0, destroy: 0 },
    { create: 2, get: 5, update: 1, set: 1, destroy: 1 },
  ])
  // Everything is always about to die: what a request is told depends on the very instant.
  const isMortal = draw.chance(0.15)
  // What is alive when a silence begins dies in it, and who touched it last does not come back to see.
  const diesInQuiet = hasQuiet && draw.chance(0.5)
  return {
    // Few clients leave the room in which rare interleavings are seen; many make keys hot.
    clients: draw.chance(0.05) ? 16 : draw.pick([2, 4, 4, 8]),
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
    // Who does not wait for the answer has two sendings under way.
    patienceMs: draw.pick([attemptMs + 20, attemptMs + 20, 30]),
    retryWindowMs,
    // One kind alone, or all beside each other: what one client does must not undo what another one rests on.
    kinds: draw.chance(0.8)
      ? [named]
      : draw.pick<readonly ClientKind[]>([
          [named, 'nameless'],
          [named, 'plain-once', 'session', 'nameless'],
        ]),
    ...(isMortal ? mortal : {}),
    ...(diesInQuiet ? dyingInQuiet : {}),
  }
}

const mortal = { weights: { create: 3, get: 3, update: 4, set: 1, destroy: 0 }, ttlsMs: [20, 60, 120], expiring: 0.9 }
const dyingInQuiet = {
  weights: { create: 1, get: 4, update: 4, set: 0, destroy: 0 },
  // Longer than an attempt: who was not heard does not find it dead.
  ttlsMs: [250, 350],
  expiring: 0.6,
  kinds: ['nameless'] as readonly ClientKind[],
}

/** Reads each key until it answers, and then writes it. */
class Probe {
  readonly #world: World
  readonly #site: Site
  readonly #waiting = new Set<string>()
  /** What each key held when nothing was under way any more. */
  readonly finals = new Map<string, Shown | undefined>()
  /** Of keys that did not answer in time. */
  readonly problems: readonly string[]

  constructor(world: World, site: Site, keys: readonly string[]) {
    this.#world = world
    this.#site = site
    for (const key of keys) {
      this.#ask('get', key, (answer) => {
        const told = answerOf(answer, valueIn)
        if (told.type !== 'read') return false
        this.finals.set(key, told.entry)
        this.#ask('set', key, ({ type }) => type === 'decided')
        return true
      })
    }
    const endsAt = world.now + healMs
    while (this.#waiting.size > 0 && world.now < endsAt) world.runUntil(world.now + attemptMs)
    this.problems = [...this.#waiting].map((name) => `no answer within ${healMs} ms after everything healed: ${name}`)
    this.#waiting.clear()
  }

  #ask(verb: 'get' | 'set', key: string, take: (answer: Answer) => boolean): void {
    const name = `${verb} ${key}`
    this.#waiting.add(name)
    const send = (sequence: number): void => {
      if (!this.#waiting.has(name)) return
      const requestId = { session: `probe-${name}`, sequence, done: sequence, attempt: 1 }
      const write = { verb: 'set', requestId, value: bytesOf(0), expiry: { type: 'never' } } as const
      const request = { ...(verb === 'get' ? { verb } : write), timeoutMs: attemptMs }
      const answer = (given: Answer): void => void (this.#waiting.has(name) && take(given) && this.#waiting.delete(name))
      this.#world.random.pick(this.#site.proxies).ask({ key, request, answer })
      this.#world.after(attemptMs, () => send(sequence + 1))
    }
    send(1)
  }
}
