/**
 * What goes wrong in a simulated site. Each seed switches a random subset on: a fault that hides another is off in other seeds.
 * Invariant: `heal` ends all of them, so that what is still wrong afterwards is the register's.
 */
import type { Act, Scene } from './faults/act.ts'
import { clockActs } from './faults/clocks.ts'
import { diskActs } from './faults/disks.ts'
import { linkActs } from './faults/links.ts'
import { moveActs } from './faults/moves.ts'
import { processActs } from './faults/processes.ts'
import type { Site, Tap } from './site.ts'
import type { World } from './world.ts'

const acts = { ...processActs, ...linkActs, ...diskActs, ...clockActs, ...moveActs } satisfies Record<string, Act>
/** They are there from the start: scenario.ts draws how much. */
const conditions = ['loss', 'duplication', 'late', 'slow-sync', 'skew', 'drift'] as const

type ActKind = keyof typeof acts
export type FaultKind = ActKind | (typeof conditions)[number]
export const faultKinds: readonly FaultKind[] = [...(Object.keys(acts) as ActKind[]), ...conditions]

export interface NemesisKnobs {
  readonly kinds: ReadonlySet<FaultKind>
  /** Milliseconds between two faults, at most. */
  readonly gapMsMax: number
  readonly lengthMsMax: number
  /** No faults between these true times. */
  readonly quiet: { readonly from: number; readonly until: number } | undefined
  readonly endsAt: number
}

/** When a quiet phase begins so many milliseconds later, at most, what waits for a message may still meet one. */
const beforeQuiet = [
  ['lone-accept', 80],
  ['late-round', 80],
  ['late-touches', 500],
] as const
const afterQuietMs = 200

/** Brings faults until its end, and counts them by kind. */
export class Nemesis {
  readonly counts: Partial<Record<FaultKind, number>> = {}
  readonly #world: World
  readonly #site: Site
  readonly #knobs: NemesisKnobs
  readonly #kinds: readonly ActKind[]
  readonly #taps: Tap[] = []
  #isOver = false

  constructor(world: World, site: Site, knobs: NemesisKnobs) {
    this.#world = world
    this.#site = site
    this.#knobs = knobs
    this.#kinds = (Object.keys(acts) as ActKind[]).filter((kind) => knobs.kinds.has(kind))
  }

  start(): void {
    if (this.#kinds.length > 0) this.#next()
    const { quiet } = this.#knobs
    if (quiet === undefined) return
    // What one zone alone accepted, or nobody yet, and a silence in which all else dies: whatever was told then has to hold when it comes.
    const { random } = this.#world
    for (const [kind, beforeMs] of beforeQuiet)
      if (random.chance(0.5))
        this.#world.after(quiet.from - random.next() * beforeMs, () =>
          this.#act(kind, quiet.until - this.#world.now + random.next() * afterQuietMs),
        )
  }

  /** All processes up, all links whole, all disks quick and sound, all clocks right. */
  heal(): void {
    const site = this.#site
    this.#isOver = true
    site.network.heal()
    for (const tap of this.#taps) site.taps.delete(tap)
    site.mapIsAwayUntil = 0
    site.syncMs = [0.1, 1]
    for (const server of site.servers) server.diskHealth = 'sound'
    for (const process of [...site.servers, ...site.proxies]) {
      process.clock.correct()
      process.resume()
      if (!process.isUp) process.start()
    }
  }

  #next(): void {
    const { random } = this.#world
    const { gapMsMax, lengthMsMax, quiet, endsAt } = this.#knobs
    this.#world.after(random.next() * gapMsMax, () => {
      const { now } = this.#world
      if (now >= endsAt) return
      if (quiet !== undefined && now >= quiet.from && now < quiet.until) return this.#next()
      const kind = random.pick(this.#kinds)
      this.#act(kind, random.next() * lengthMsMax)
      this.#next()
    })
  }

  #act(kind: ActKind, lengthMs: number): void {
    const act: Act = acts[kind]
    this.#world.log(`${this.#world.now.toFixed(3)} fault ${kind}`)
    if (act(this.#sceneOf(lengthMs))) this.counts[kind] = (this.counts[kind] ?? 0) + 1
  }

  #sceneOf(lengthMs: number): Scene {
    const later = (ms: number, run: () => void): void => this.#world.after(ms, () => this.#isOver || run())
    const watch = (tap: Tap): (() => void) => {
      this.#taps.push(tap)
      this.#site.taps.add(tap)
      return () => void this.#site.taps.delete(tap)
    }
    return { world: this.#world, site: this.#site, lengthMs, later, watch }
  }
}
