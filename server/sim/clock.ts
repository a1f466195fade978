/**
 * The two clocks of a simulated process: the wall clock may be wrong, drift and step; the monotonic one drifts with it, and never falls.
 * Invariant: once corrected a clock shows true time, whatever steps are still to be taken back.
 * Why both can stop: a machine that is suspended, or a virtual one that moves, finds neither of its clocks ahead when it goes on.
 */
import { epochMs } from '../../core/base/types.ts'
import type { Instant } from '../register/work.ts'

/** Where wall clocks stand at true time 0. */
export const wallStart = 1_700_000_000_000

export class SkewedClock {
  readonly #trueTime: () => number
  #rate: number
  /** Wall clock minus monotonic clock, from `wallStart`. */
  #offsetMs: number
  /** Both clocks ran at `rate` since this true time. */
  #since: { readonly at: number; readonly mono: number }
  #isStopped = false
  #isRight = false

  /** @param rate 1 is true */
  constructor(trueTime: () => number, offsetMs: number, rate: number) {
    this.#trueTime = trueTime
    this.#rate = rate
    this.#since = { at: trueTime(), mono: trueTime() }
    this.#offsetMs = offsetMs
  }

  instant(): Instant {
    const mono = this.#mono
    return { wall: epochMs(Math.floor(wallStart + mono + this.#offsetMs)), mono }
  }

  /** The wall clock alone. */
  step(ms: number): void {
    if (!this.#isRight) this.#offsetMs += ms
  }

  /** Both clocks stand still until `go`. */
  stop(): void {
    this.#since = { at: this.#trueTime(), mono: this.#mono }
    this.#isStopped = true
  }
  /** @returns for how long they stood, in milliseconds */
  go(): number {
    const stoodMs = this.#isStopped ? this.#trueTime() - this.#since.at : 0
    this.#since = { at: this.#trueTime(), mono: this.#mono }
    this.#isStopped = false
    return stoodMs
  }

  /** Shows true time from now on. */
  correct(): void {
    this.go()
    this.#rate = 1
    this.#isRight = true
    this.#offsetMs = this.#trueTime() - this.#mono
  }

  /** True milliseconds until a monotonic instant, if the clock does not stop before. */
  trueMsUntil(mono: number): number {
    return Math.max(0, (mono - this.#mono) / this.#rate)
  }

  get #mono(): number {
    const { at, mono } = this.#since
    return this.#isStopped ? mono : mono + (this.#trueTime() - at) * this.#rate
  }
}
