/**
 * Runs actors that share a store, one store call at a time, in an order that a seed or a list decides.
 * Invariant: no two calls overlap, and the next one is chosen only when every actor waits for its turn, has ended or waits for time.
 * Why store calls are the only points: what an actor does between two calls touches nothing that another actor sees.
 */
import { seededRandom } from '../base/random.ts'
import { invalid } from '../kv/errors.ts'
import type { KV } from '../kv/kv.ts'
import { realSleep, settle, type TestClock } from './clock.ts'
import { intercept } from './intercept.ts'

/**
 * One of those who race. It must use the store that it is given: the calls on it are the scheduling points.
 * `point()` is one more, for an actor that does something else, such as advancing the clock.
 */
export type Actor<V = Uint8Array, Result = unknown> = (kv: KV<V>, point: () => Promise<void>) => Promise<Result>

export interface RaceOptions<V = Uint8Array> {
  readonly kv: KV<V>
  /** Decides the order. Default: 1. */
  readonly seed?: number
  /** The order itself: which of the waiting actors (counted from 0, in their own order) goes next, at each point. Beyond its end: the first. */
  readonly schedule?: readonly number[]
  /** When all actors wait for time, it advances to the next timer. */
  readonly clock?: TestClock
}

export interface Race<Result = unknown> {
  readonly results: readonly PromiseSettledResult<Result>[]
  /** What was chosen at each point: give it as `schedule` to see the same run again. */
  readonly schedule: readonly number[]
  /** Among how many it was chosen. */
  readonly choices: readonly number[]
  /** The actors in the order of their store calls. */
  readonly order: readonly number[]
}

/** Turns without a call after which actors are given real time, for stores with a disk or a socket. */
const idleTurnsMax = 50
/** How long real time is given, in milliseconds, before a race is called stuck. */
const stuckMs = 20_000

interface Parked {
  readonly actor: number
  readonly go: () => Promise<void>
}

/**
 * One race in one order.
 * @throws Error when actors wait for something that no store call and no timer of `clock` gives.
 * @example const { results } = await race({ kv, seed: 7 }, [(kv) => pay(kv), (kv) => pay(kv)])
 */
export async function race<V, Result>(options: RaceOptions<V>, actors: readonly Actor<V, Result>[]): Promise<Race<Result>> {
  const random = seededRandom(options.seed ?? 1)
  const parked: Parked[] = []
  const schedule: number[] = []
  const choices: number[] = []
  const order: number[] = []
  let running = actors.length

  const park = <Answer>(actor: number, run: () => Promise<Answer>): Promise<Answer> =>
    new Promise<Answer>((resolve, reject) => {
      parked.push({ actor, go: () => run().then(resolve, reject) })
    })
  const ended = Promise.allSettled(
    actors.map(async (actor, index) => {
      const kv = intercept(options.kv, (_call, run) => park(index, run))
      try {
        return await actor(kv, () => park(index, async () => {}))
      } finally {
        running -= 1
      }
    }),
  )

  for (;;) {
    await settle()
    if (parked.length === 0) {
      if (running === 0) break
      await untilParked(() => parked.length > 0 || running === 0, options.clock)
      continue
    }
    // The order in which they arrived may depend on the store's speed; their own order does not.
    parked.sort((left, right) => left.actor - right.actor)
    const chosen = options.schedule ? (options.schedule[schedule.length] ?? 0) : random.int(parked.length)
    const [next] = parked.splice(chosen, 1)
    if (!next) return invalid(`race: the schedule chooses ${chosen} at point ${schedule.length}, where ${parked.length} wait`)
    schedule.push(chosen)
    choices.push(parked.length + 1)
    order.push(next.actor)
    await next.go()
  }
  return { results: await ended, schedule, choices, order }
}

async function untilParked(isReady: () => boolean, clock: TestClock | undefined): Promise<void> {
  for (let turns = 0; turns < idleTurnsMax; turns++) {
    if (isReady()) return
    await settle(1)
  }
  const nextMs = clock?.nextTimerMs()
  if (clock && nextMs !== undefined) return await clock.advance(nextMs)
  for (let waitedMs = 0; waitedMs < stuckMs; waitedMs += 2) {
    if (isReady()) return
    await realSleep(2)
  }
  throw new Error('race: actors wait for something that no store call and no timer of the clock gives')
}

export interface RacesOptions<V = Uint8Array> {
  /** A new store for each run, with its clock when time matters. */
  readonly make: () => Made<V> | Promise<Made<V>>
  /** Throws when a run went wrong. It sees the store as the actors left it. */
  readonly check: (race: Race, kv: KV<V>) => void | Promise<void>
  /** Default: 1. */
  readonly seed?: number
  /** Runs at most. Default: 1,000. */
  readonly runs?: number
}
export type Made<V> = KV<V> | { readonly kv: KV<V>; readonly clock: TestClock }

export interface Races {
  readonly runs: number
  /** Every possible order was run. False: there were too many; half of the runs were drawn by the seed. */
  readonly exhaustive: boolean
}

const runsDefault = 1_000

/**
 * Races the actors in every order, or, where there are more than `runs`, in half as many in turn and half as many at random.
 * @throws Error naming the seed and the schedule of the first run that `check` refuses; its `cause` is what `check` threw.
 * @example await races({ make: () => memory(), check: (race) => assert.equal(winners(race), 1) }, () => [claim, claim, claim])
 */
export async function races<V>(options: RacesOptions<V>, actors: () => readonly Actor<V>[]): Promise<Races> {
  const { seed = 1, runs = runsDefault } = options
  const random = seededRandom(seed)
  const once = async (order: { readonly seed: number } | { readonly schedule: readonly number[] }): Promise<Race> => {
    const made = await options.make()
    const { kv, clock } = 'kv' in made ? made : { kv: made, clock: undefined }
    const run = await race({ kv, ...order, ...(clock ? { clock } : {}) }, actors())
    try {
      await options.check(run, kv)
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause)
      throw new Error(`race: ${reason} (seed ${seed}, schedule [${run.schedule.join(', ')}], actors in order ${run.order.join(' ')})`, {
        cause,
      })
    } finally {
      await kv.close()
    }
    return run
  }

  let schedule: readonly number[] | undefined = []
  let done = 0
  while (schedule !== undefined && done < Math.ceil(runs / 2)) {
    schedule = following(await once({ schedule }))
    done += 1
  }
  const exhaustive = schedule === undefined
  if (!exhaustive) for (; done < runs; done++) await once({ seed: random.int(2 ** 32) })
  return { runs: done, exhaustive }
}

/** The next schedule of a depth-first walk through all; undefined after the last. */
function following({ schedule, choices }: Race): readonly number[] | undefined {
  for (let point = schedule.length - 1; point >= 0; point--) {
    const chosen = (schedule[point] as number) + 1
    if (chosen < (choices[point] as number)) return [...schedule.slice(0, point), chosen]
  }
  return undefined
}
