/**
 * The simulated world: true time, the queue of what happens next, and processes with clocks of their own.
 * Invariant: the same seed gives the same events in the same order; nothing here asks the machine for time or chance.
 */
import { Heap } from '../../core/base/collections.ts'
import { seededRandom, type Random } from '../../core/base/random.ts'
import type { SkewedClock } from './clock.ts'

interface Event {
  readonly at: number
  readonly number: number
  readonly run: () => void
}

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

/** Who sends: what a client wrote lies unread in a socket until the process gets to it. */
type Sender = 'cluster' | 'client'

/** What all processes share: being up, dead or paused, and an inbox that waits while paused. */
export class Process {
  readonly name: string
  readonly clock: SkewedClock
  /** Changes with every start: whatever an earlier life asked for is not for this one. */
  life = 0
  isUp = false
  #isPaused = false
  #inbox: { readonly run: () => void; readonly sender: Sender }[] = []

  constructor(name: string, clock: SkewedClock) {
    this.name = name
    this.clock = clock
  }

  /** Where messages for it go to. */
  get address(): string {
    return this.name
  }

  /** A process that starts is on a machine that runs. @returns its new life */
  protected begin(): number {
    this.clock.go()
    this.isUp = true
    return ++this.life
  }

  /** Runs in this process: now, when it goes on, or never. */
  deliver(run: () => void, sender: Sender = 'cluster'): void {
    if (!this.isUp) return
    if (this.#isPaused) this.#inbox.push({ run, sender })
    else if (!this.beginTurn() || sender !== 'client') run()
  }

  /** Called before anything is taken. @returns true when what clients wrote and nobody read yet is not to be read any more */
  protected beginTurn(): boolean {
    return false
  }

  pause(): void {
    this.#isPaused = true
  }
  resume(): void {
    this.#isPaused = false
    const inbox = this.#inbox
    this.#inbox = []
    let isDropped = false
    for (const { run, sender } of inbox) {
      if (!this.isUp) return
      if (this.beginTurn()) isDropped = true
      if (!isDropped || sender !== 'client') run()
    }
  }
  kill(): void {
    this.isUp = false
    this.#isPaused = false
    this.#inbox = []
    this.life++
  }
}
