/** Processes that end, stop for a while, or lose their power. */
import type { Site } from '../site.ts'
import type { StorageProcess } from '../storage-process.ts'
import { recoveredBy } from '../../cluster/map.ts'
import { sourcesOf } from '../../register/ballot.ts'
import { awaitMessage, type Act, type Scene } from './act.ts'
import { oddServers } from './clocks.ts'
import { isWhole, mayLose } from './losses.ts'

/** A restart that nobody notices, boot apart. */
const quickMs = 3
const heldMsMax = 20
const patienceMs = 200
/** After a suspend the clocks stay wrong for so long, at most. */
const correctionMsMax = 200
/**
 * No clock can tell a shorter suspend from an answer that took as long, which a round waits for up to 240 ms. With the real constants, where
 * the bound is twice that, such a suspend is within it.
 */
const suspendMsMin = 250
/** An operator looks again so often. */
const operatorMs = 100

export const processActs = {
  'storage-crash': (scene) => crash(scene, scene.world.random.pick(scene.site.servers), scene.lengthMs),
  /** Back before anybody noticed: what a start forgets has to be forgotten safely. */
  'quick-restart': (scene) => crash(scene, scene.world.random.pick(scene.site.servers), scene.world.random.next() * quickMs),
  /** The same right after a promise has left, while ACCEPTs of others are on their way to it. */
  'restart-after-promise': (scene) => {
    const { world, site, later } = scene
    const { random } = world
    awaitMessage(scene, patienceMs, (from, _, { type }) => {
      const server = type === 'promised' && random.chance(0.5) ? site.server(from) : undefined
      if (server === undefined) return undefined
      const heldMs = quickMs + random.next() * heldMsMax
      const stop = scene.watch((_from, to, message) => (to === server.name && message.type === 'accept' ? { heldMs } : 'goes'))
      later(heldMs, stop)
      later(random.next(), () => crash(scene, server, random.next() * quickMs))
      return 'goes'
    })
    return true
  },
  'proxy-crash': ({ world, site, lengthMs, later }) => {
    const proxy = world.random.pick(site.proxies)
    if (!proxy.isUp) return false
    proxy.kill()
    later(lengthMs, () => proxy.isUp || proxy.start())
    return true
  },
  'storage-pause': ({ world, site, lengthMs, later }) => {
    const server = world.random.pick(site.servers)
    server.pause()
    later(lengthMs, () => server.resume())
    return true
  },
  'proxy-pause': ({ world, site, lengthMs, later }) => {
    const proxy = world.random.pick(site.proxies)
    proxy.pause()
    later(lengthMs, () => proxy.resume())
    return true
  },
  /** Both clocks stand meanwhile, and the wall clock is set right some time later, or never. */
  suspend: (scene) => {
    const { world, site, later } = scene
    const { random } = world
    const lengthMs = suspendMsMin + scene.lengthMs
    const process = random.pick([...site.proxies, ...site.proxies, ...oddServers(site)])
    process.pause()
    process.clock.stop()
    later(lengthMs, () => {
      const stoodMs = process.clock.go()
      process.resume()
      if (random.chance(0.8)) later(random.next() * correctionMsMax, () => process.clock.step(stoodMs))
    })
    return true
  },
  /** Where each write is synced all machines lose their power. Otherwise one, for what it had is gone. */
  'power-loss': (scene) => {
    const { world, site } = scene
    if (site.knobs.mode === 'fsync') {
      for (const server of site.servers) if (server.isUp) losePower(scene, server, scene.lengthMs * world.random.next())
      return true
    }
    const server = world.random.pick(site.servers)
    return server.isUp && mayLose(site, server) && losePower(scene, server, scene.lengthMs)
  },
  /** In `os` mode: what is gone is gone. Once a history, for it is checked before and after. */
  'total-loss': (scene) => {
    const { world, site, lengthMs } = scene
    if (site.knobs.mode === 'fsync' || site.seamAt !== undefined || site.map.rows.length === 0) return false
    for (const server of site.servers) losePower(scene, server, lengthMs * world.random.next())
    site.seamAt = world.now
    recover(scene) // a single zone opens by itself, unless its directory is empty
    return true
  },
} satisfies Record<string, Act>

function crash({ world, later }: Scene, server: StorageProcess, lengthMs: number): boolean {
  if (!server.isUp) return false
  server.crash(world.random.chance(0.5))
  later(lengthMs, () => server.isUp || server.start())
  return true
}

function losePower({ later }: Scene, server: StorageProcess, lengthMs: number): boolean {
  server.losePower()
  later(lengthMs, () => server.isUp || server.start())
  return true
}

/** The operator accepts the loss for the zones that are there, and looks again: until learners come back by themselves, or something ended before that. */
function recover(scene: Scene): void {
  const { world, site, lengthMs } = scene
  const look = (): void => {
    const row = site.rows[0]
    if (row === undefined) return
    const owners = row.servers.map((name) => site.server(name))
    const voters = owners.filter((one) => one !== undefined && (isWhole(one, row.shard) || hasReopened(site, one)))
    if (voters.length >= sourcesOf(site.knobs.zones)) return
    world.after(operatorMs + world.random.next() * operatorMs, look)
    const there = owners.flatMap((one, zone) => (one?.isUp === true ? [zone] : []))
    const isForAll = there.length === owners.length || world.random.chance(0.2)
    if (site.mapIsAway || there.length === 0 || !isForAll || voters.some((one) => one?.isUp === false)) return
    const { isDone } = site.map.step({ type: 'map-swap', id: 0, row: recoveredBy(row, there) })
    if (isDone) site.count('loss-accepted')
  }
  world.after(lengthMs + operatorMs, look)
}

/** A single zone goes on with what it has, in the epoch that it had. */
const hasReopened = ({ knobs }: Site, { disk }: StorageProcess): boolean => knobs.zones === 1 && disk.shards[0]?.state === 'serving'
