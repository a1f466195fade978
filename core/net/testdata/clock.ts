import type { TestClock } from '../../testing/clock.ts'
import type { Ticker } from '../ticker.ts'

/** The time of a test clock as core/net takes it. */
export function tickerOf(clock: TestClock): Ticker {
  return {
    now: () => clock.elapsed(),
    after(ms, act) {
      const timer = clock.setTimeout(act, ms)
      return () => clock.clearTimeout(timer)
    },
  }
}
