/**
 * What goes wrong in a simulated site. Each seed switches a random subset on: a fault that hides another is off in other seeds.
 * Invariant: `heal` ends all of them, so that what is still wrong afterwards is the register's.
 */
import type { Site } from './site.ts'
import type { World } from './world.ts'

export const faultKinds = [
  'storage-crash',
  'proxy-crash',
  'storage-pause',
  'proxy-pause',
  'cut-one-way',
  'cut-zone',
  'stall-proxy',
  'power-loss',
  'loss',
  'duplication',
  'late',
  'slow-sync',
  'skew',
] as const
export type FaultKind = (typeof faultKinds)[number]

export interface NemesisKnobs {
  readonly kinds: ReadonlySet<FaultKind>
  /** Milliseconds between two faults, at most. */
  readonly gapMsMax: number
  readonly lengthMsMax: number
  readonly endsAt: number
}

/** Brings faults until its end, and counts them by kind. */
export class Nemesis {
  readonly counts: Partial<Record<FaultKind, number>> = {}
  readonly #world: World
  readonly #site: Site
  readonly #knobs: NemesisKnobs
  readonly #acts: readonly FaultKind[]

  constructor(world: World, site: Site, knobs: NemesisKnobs) {
    this.#world = world
    this.#site = site
    this.#knobs = knobs
    this.#acts = faultKinds.filter((kind) => knobs.kinds.has(kind) && kind in acts)
  }

  start(): void {
    if (this.#acts.length > 0) this.#later()
  }

  /** All processes up, all links whole, all disks quick. */
  heal(): void {
    this.#site.network.heal()
    this.#site.syncMs = [0.1, 1]
    for (const process of [...this.#site.servers, ...this.#site.proxies]) {
      process.resume()
      if (!process.isUp) process.start()
    }
  }

  #later(): void {
    const { random } = this.#world
    this.#world.after(random.next() * this.#knobs.gapMsMax, () => {
      if (this.#world.now >= this.#knobs.endsAt) return
      const kind = random.pick(this.#acts)
      const lengthMs = random.next() * this.#knobs.lengthMsMax
      this.#world.log(`${this.#world.now.toFixed(3)} fault ${kind}`)
      if (acts[kind as keyof typeof acts](this.#world, this.#site, lengthMs)) this.counts[kind] = (this.counts[kind] ?? 0) + 1
      this.#later()
    })
  }
}

type Act = (world: World, site: Site, lengthMs: number) => boolean

const acts = {
  'storage-crash': (world, site, lengthMs) => crashServer(world, site, lengthMs, world.random.pick(site.servers)),
  'proxy-crash': (world, site, lengthMs) => {
    const proxy = world.random.pick(site.proxies)
    if (!proxy.isUp) return false
    proxy.kill()
    world.after(lengthMs, () => proxy.isUp || proxy.start())
    return true
  },
  'storage-pause': (world, site, lengthMs) => {
    const server = world.random.pick(site.servers)
    server.pause()
    world.after(lengthMs, () => server.resume())
    return true
  },
  'proxy-pause': (world, site, lengthMs) => {
    const proxy = world.random.pick(site.proxies)
    proxy.pause()
    world.after(lengthMs, () => proxy.resume())
    return true
  },
  'cut-one-way': (world, site, lengthMs) => {
    const ends = [world.random.pick(site.servers).name, world.random.pick(site.proxies).name]
    if (world.random.chance(0.5)) ends.reverse()
    site.network.cut(ends[0] as string, ends[1] as string, world.now + lengthMs)
    return true
  },
  'cut-zone': (world, site, lengthMs) => {
    const { name } = world.random.pick(site.servers)
    site.network.cut(name, '*', world.now + lengthMs)
    site.network.cut('*', name, world.now + lengthMs)
    return true
  },
  'stall-proxy': (world, site, lengthMs) => {
    const { name } = world.random.pick(site.proxies)
    site.network.stall(name, '*', world.now + lengthMs)
    if (world.random.chance(0.5)) site.network.stall('*', name, world.now + lengthMs)
    return true
  },
  'power-loss': (world, site, lengthMs) => {
    for (const server of site.servers) crashServer(world, site, lengthMs, server)
    return true
  },
} satisfies Partial<Record<FaultKind, Act>>

function crashServer(world: World, site: Site, lengthMs: number, server: Site['servers'][number]): boolean {
  if (!server.isUp) return false
  server.crash(world.random.chance(0.5))
  world.after(lengthMs, () => server.isUp || server.start())
  return site.servers.includes(server)
}
