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
  'lost-directory',
  'handover',
  'damage',
  'map-away',
  'clock-step',
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

  /** All processes up, all links whole, all disks quick, all clocks right. */
  heal(): void {
    this.#site.network.heal()
    this.#site.mapIsAway = false
    this.#site.syncMs = [0.1, 1]
    for (const process of [...this.#site.servers, ...this.#site.proxies]) {
      process.resume()
      process.clock.correct()
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
    for (const server of site.servers) {
      server.bootId++
      crashServer(world, site, lengthMs, server)
    }
    return true
  },
  'lost-directory': (world, site, lengthMs) => {
    const server = world.random.pick(site.servers)
    if (!mayLose(site, server)) return false
    server.loseDirectory()
    world.after(lengthMs, () => server.isUp || server.start())
    return true
  },
  handover: (world, site) => {
    const row = world.random.pick(site.rows)
    const giver = site.servers.find(({ name }) => name === row.servers[world.random.int(row.servers.length)])
    const takers = site.servers.filter((one) => one.zone === giver?.zone && one !== giver && one.isUp)
    if (giver === undefined || !giver.isUp || takers.length === 0) return false
    giver.handOver(world.random.pick(takers).name)
    return true
  },
  damage: (world, site) => {
    const server = world.random.pick(site.servers)
    return mayLose(site, server) && server.disk.damage(0, world.random.pick(site.keys))
  },
  'map-away': (world, site, lengthMs) => {
    site.mapIsAway = true
    world.after(lengthMs, () => void (site.mapIsAway = false))
    return true
  },
  'clock-step': (world, site, lengthMs) => {
    const { random } = world
    // Of the servers always the same one: the time is what most of them say.
    const odd = site.knobs.zones > 1 ? site.servers.slice(0, 1) : []
    const { clock } = random.pick([...site.proxies, ...odd])
    const ms = (random.next() * 2 - 1) * random.pick([5, 50, 2_000])
    clock.step(ms)
    world.after(lengthMs, () => clock.step(-ms))
    return true
  },
} satisfies Partial<Record<FaultKind, Act>>

/**
 * The promise is that nothing is lost while fewer than a quorum of zones lost what they had. So what one server holds may go only while
 * all the others of its shard have what is theirs.
 */
function mayLose(site: Site, server: Site['servers'][number]): boolean {
  if (site.knobs.zones === 1) return false
  return site.rows.every(({ shard, servers }) =>
    site.servers
      .filter((one) => one !== server && servers.includes(one.name))
      .every(({ disk }) => disk.shards.some((marks) => marks.shard === shard && marks.state === 'serving') && !disk.isDamaged),
  )
}

function crashServer(world: World, site: Site, lengthMs: number, server: Site['servers'][number]): boolean {
  if (!server.isUp) return false
  server.crash(world.random.chance(0.5))
  world.after(lengthMs, () => server.isUp || server.start())
  return site.servers.includes(server)
}
