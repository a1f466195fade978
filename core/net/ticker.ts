/**
 * Time that no clock step can move.
 * Invariant: a timer belongs to an owner who cancels it, and keeps no process alive.
 * Why handed in: a deadline is tested by moving the time, never by waiting for it.
 */

export interface Ticker {
  /** Milliseconds from any beginning; never goes back. Deadlines of core/net are instants of it. */
  now(): number
  /** Runs `act` once after so many milliseconds. Returns what cancels it. */
  after(ms: number, act: () => void): () => void
}

/** The longest delay that a timer of Node takes; a longer one would fire at once. */
const timerMsMax = 2_147_483_647

/**
 * Keeps the process alive while something is under way: timers of ours do not, and a socket that is not open yet does not either, so a
 * program that waits for an answer would end in silence.
 */
export class Hold {
  readonly #timer = setInterval(() => undefined, timerMsMax).unref()
  #count = 0

  async during<T>(work: () => Promise<T>): Promise<T> {
    this.begin()
    try {
      return await work()
    } finally {
      this.finish()
    }
  }

  /** For whoever counts by himself: each `begin` has its `finish`. */
  begin(): void {
    if (this.#count++ === 0) this.#timer.ref()
  }
  finish(): void {
    if (--this.#count === 0) this.#timer.unref()
  }

  end(): void {
    clearInterval(this.#timer)
  }
}

export const systemTicker: Ticker = {
  now: () => performance.now(),
  after(ms, act) {
    const timer = setTimeout(act, Math.min(Math.max(0, ms), timerMsMax))
    timer.unref()
    return () => clearTimeout(timer)
  },
}
