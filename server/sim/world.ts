/**
 * The simulated world: true time, the queue of what happens next, and processes with clocks of their own.
 * Invariant: the same seed gives the same events in the same order; nothing here asks the machine for time or chance.
 */
import { Heap } from '../../core/base/collections.ts'
import { seededRandom, type Random } from '../../core/base/random.ts'
import { epochMs } from '../../core/base/types.ts'
import type { Instant } from '../register/work.ts'

interface Event {
  readonly at: number
  readonly number: number
  readonly run: () => void
}

/** Where wall clocks stand at true time 0. */
export const wallStart = 1_700_000_000_000

export class World {
  readonly random: Random
  /** True milliseconds since the world began. */
  now = 0
  #events = new Heap<Event>((a, b) => a.at - b.at || a.number - b.number)
  #number = 0
  /** What happened, as one number: two runs of a seed end with the same. */
  #hash = 0x811c9dc5

  constructor(seed: number) {
    this.random = seededRandom(seed)
  }

  get logHash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, '0')
  }

  /** Takes a line into the log's hash. */
  log(line: string): void {
    for (let at = 0; at < line.length; at++) this.#hash = Math.imul(this.#hash ^ line.charCodeAt(at), 0x01000193)
  }

  after(ms: number, run: () => void): void {
    this.#events.push({ at: this.now + Math.max(0, ms), number: ++this.#number, run })
  }

  /** Runs what happens up to and at `until`. */
  runUntil(until: number): void {
    const events = this.#events
    while (events.first !== undefined && events.first.at <= until) {
      const event = events.pop() as Event
      this.now = event.at
      event.run()
    }
    this.now = Math.max(this.now, until)
  }
}

/** The clocks of one process: the wall clock may be wrong, drift and step; the monotonic one drifts alone. */
export class SkewedClock {
  readonly #world: World
  #offsetMs: number
  #isRight = false
  readonly #rate: number

  /** @param rate 1 is true */
  constructor(world: World, offsetMs: number, rate: number) {
    this.#world = world
    this.#offsetMs = offsetMs
    this.#rate = rate
  }

  instant(): Instant {
    const mono = this.#world.now * this.#rate
    return { wall: epochMs(Math.floor(wallStart + mono + this.#offsetMs)), mono }
  }

  step(ms: number): void {
    if (!this.#isRight) this.#offsetMs += ms
  }
  /** Shows true time from now on, whatever steps are still to be taken back. */
  correct(): void {
    this.#isRight = true
    this.#offsetMs = this.#world.now * (1 - this.#rate)
  }

  /** True milliseconds until a monotonic instant. */
  trueMsUntil(mono: number): number {
    return Math.max(0, mono / this.#rate - this.#world.now)
  }
}

/** What all processes share: being up, dead or paused, and an inbox that waits while paused. */
export class Process {
  readonly name: string
  readonly clock: SkewedClock
  /** Changes with every start: whatever an earlier life asked for is not for this one. */
  life = 0
  isUp = false
  #isPaused = false
  #inbox: (() => void)[] = []

  constructor(name: string, clock: SkewedClock) {
    this.name = name
    this.clock = clock
  }

  /** Runs in this process: now, when it goes on, or never. */
  deliver(run: () => void): void {
    if (!this.isUp) return
    if (this.#isPaused) this.#inbox.push(run)
    else run()
  }

  pause(): void {
    this.#isPaused = true
  }
  resume(): void {
    this.#isPaused = false
    const inbox = this.#inbox
    this.#inbox = []
    for (const run of inbox) this.deliver(run)
  }
  kill(): void {
    this.isUp = false
    this.#isPaused = false
    this.#inbox = []
    this.life++
  }
}
