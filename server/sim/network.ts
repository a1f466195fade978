/**
 * The network of a simulated site: one way at a time, with everything that a network does to messages.
 * Invariant: all chance comes from the seed; a message is delivered by the world's event queue or never.
 * Why loss and duplication although TCP has neither: a connection that breaks and is opened again loses what was under way, and a
 * sender that sends again doubles it.
 */
import type { Random } from '../../core/base/random.ts'

/** The end of all links to where the map lives. */
export const mapEnd = 'map'
/** The end of all links of clients. */
export const clientsEnd = 'clients'

export interface NetworkKnobs {
  /** Milliseconds one way, drawn between the two. */
  readonly delayMs: readonly [number, number]
  /** Where the map lives, which may be nearer or further than anything else. Default: as all. */
  readonly mapDelayMs?: readonly [number, number]
  readonly loss: number
  readonly duplication: number
  /** Now and then a message takes longer, and later ones overtake it. */
  readonly late: number
  readonly lateMs: number
}

export class Network {
  readonly #random: Random
  readonly #knobs: NetworkKnobs
  readonly #deliver: (afterMs: number, run: () => void) => void
  /** Links that lose everything, `from>to`, or all of one end, `from>*` and `*>to`. */
  readonly #cut = new Map<string, number>()
  /** Links that hold everything back until an instant. */
  readonly #stalled = new Map<string, number>()
  readonly #now: () => number

  constructor(random: Random, knobs: NetworkKnobs, now: () => number, deliver: (afterMs: number, run: () => void) => void) {
    this.#random = random
    this.#knobs = knobs
    this.#now = now
    this.#deliver = deliver
  }

  send(from: string, to: string, run: () => void): void {
    const { loss, duplication, late, lateMs } = this.#knobs
    const random = this.#random
    if (this.#isUntil(this.#cut, from, to) > this.#now() || random.chance(loss)) return
    const copies = random.chance(duplication) ? 2 : 1
    for (let copy = 0; copy < copies; copy++) {
      let ms = this.#delayMs(from, to)
      if (random.chance(late)) ms += random.next() * lateMs
      const stalledMs = Math.max(0, this.#isUntil(this.#stalled, from, to) - this.#now())
      this.#deliver(ms + stalledMs, run)
    }
  }

  /** As on a connection that lives: slow or lost, never twice. */
  sendOnce(from: string, to: string, run: () => void): void {
    if (this.#isUntil(this.#cut, from, to) > this.#now() || this.#random.chance(this.#knobs.loss)) return
    const stalledMs = Math.max(0, this.#isUntil(this.#stalled, from, to) - this.#now())
    this.#deliver(this.#delayMs(from, to) + stalledMs, run)
  }

  /** Loses what is sent from one end to the other, one way, for a while; `*` is any end. */
  cut(from: string, to: string, untilAt: number): void {
    this.#cut.set(`${from}>${to}`, untilAt)
  }

  /** Holds back what is sent, and lets all of it go at once. */
  stall(from: string, to: string, untilAt: number): void {
    this.#stalled.set(`${from}>${to}`, untilAt)
  }

  heal(): void {
    this.#cut.clear()
    this.#stalled.clear()
  }

  #delayMs(from: string, to: string): number {
    const { delayMs, mapDelayMs = delayMs } = this.#knobs
    const [least, most] = from === mapEnd || to === mapEnd ? mapDelayMs : delayMs
    return least + this.#random.next() * (most - least)
  }

  #isUntil(links: ReadonlyMap<string, number>, from: string, to: string): number {
    if (links.size === 0) return 0
    return Math.max(links.get(`${from}>${to}`) ?? 0, links.get(`${from}>*`) ?? 0, links.get(`*>${to}`) ?? 0)
  }
}
