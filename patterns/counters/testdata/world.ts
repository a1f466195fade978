/**
 * One store, one clock and any number of processes on them, as the tests of counters begin.
 * Invariant: each `world` stands alone, and two processes never join into one write.
 * Why a "process" is a `modify` of its own: joined callers are those of one `modify`.
 */
import { seededRandom } from '../../../core/base/random.ts'
import { modifier, type modify } from '../../../core/kv/modify.ts'
import { memory } from '../../../core/stores/memory.ts'
import { testClock, type TestClock } from '../../../core/testing/clock.ts'
import { counting, type CountingKV } from '../../../core/testing/intercept.ts'

export interface World {
  readonly clock: TestClock
  readonly kv: CountingKV
  /** A `modify` that joins nobody else's callers. Its time is the world's, or that of `timers`. Without a seed it never waits between attempts. */
  process(seed?: number, timers?: TestClock): typeof modify
}

export function world(): World {
  const clock = testClock()
  return {
    clock,
    kv: counting(memory({ clock })),
    process: (seed, timers = clock) =>
      modifier({
        random: seed === undefined ? () => 0 : seededRandom(seed).next,
        clock: () => timers.elapsed(),
        after: (ms, callback) => {
          const timer = timers.setTimeout(callback, ms)
          return () => timers.clearTimeout(timer)
        },
      }),
  }
}

/** Lets time pass until the promise has ended. */
export async function ended<T>(clock: TestClock, promise: Promise<T>, stepMs = 1): Promise<T> {
  let isOver = false
  const watched = promise.finally(() => (isOver = true))
  watched.catch(() => undefined)
  for (let turns = 0; !isOver; turns++) {
    if (turns > 100_000) throw new Error('it does not end')
    await clock.advance(stepMs)
  }
  return await watched
}

/** A promise to be resolved from outside. */
export function gate(): { readonly passed: Promise<void>; open(): void } {
  let open = (): void => {}
  const passed = new Promise<void>((resolve) => {
    open = resolve
  })
  return { passed, open: () => open() }
}
