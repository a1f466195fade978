/** Disks that fail, fill up, lose what they had, or have what is another's. */
import type { Snapshot } from '../disk.ts'
import type { Tap } from '../site.ts'
import type { DiskHealth, StorageProcess } from '../storage-process.ts'
import { awaitMessage, type Act, type Scene } from './act.ts'
import { mayLose } from './losses.ts'

const patienceMs = 300
/** A directory that is lost right after it acknowledged something is gone so soon. */
const soonMs = 5

export const diskActs = {
  'lost-directory': (scene) => loseDirectory(scene, scene.world.random.pick(scene.site.servers)),
  'lost-after-accepted': (scene) => {
    const { world, site, later } = scene
    awaitMessage(scene, patienceMs, (from, _, message) => {
      if (message.type !== 'accepted') return undefined
      const server = site.server(from)
      if (server !== undefined) later(world.random.next() * soonMs, () => loseDirectory(scene, server))
      return 'goes'
    })
    return true
  },
  'failing-sync': (scene) => sicken(scene, 'sync-fails'),
  'torn-write': (scene) => sicken(scene, 'tears'),
  /** Until somebody makes room. */
  'full-disk': (scene) => {
    const server = scene.world.random.pick(scene.site.servers)
    server.diskHealth = 'full'
    scene.later(scene.lengthMs, () => void (server.diskHealth = 'sound'))
    return true
  },
  'foreign-directory': (scene) => {
    const { world, site } = scene
    const server = world.random.pick(site.servers)
    const others = site.servers.filter(({ zone }) => zone !== server.zone)
    return others.length > 0 && putIn(scene, server, world.random.pick(others).disk.snapshot())
  },
  /** A copy that was made a while before, and put back. */
  'old-snapshot': (scene) => {
    const { world, site, lengthMs, later } = scene
    const server = world.random.pick(site.servers)
    const madeAt = world.now
    const old = server.disk.snapshot()
    later(world.random.next() * (lengthMs + patienceMs), () => putBack(scene, server, old, madeAt))
    return site.map.rows.length > 0
  },
  /** One key or two, stubs included. */
  damage: ({ world, site }) => {
    const { random } = world
    const server = random.pick(site.servers)
    if (!mayLose(site, server)) return false
    const stubs = server.disk.stubs(0)
    const keys = [random.pick(stubs.length > 0 && random.chance(0.3) ? stubs : site.keys)]
    if (random.chance(0.2)) keys.push(random.pick(site.keys))
    return keys.map((key) => server.disk.damage(0, key)).includes(true)
  },
} satisfies Record<string, Act>

export function loseDirectory({ site, lengthMs, later }: Scene, server: StorageProcess): boolean {
  if (!mayLose(site, server)) return false
  server.loseDirectory()
  later(lengthMs, () => server.isUp || server.start())
  return true
}

/** One write fails, or is torn: the process ends by it. */
function sicken({ world, site }: Scene, how: DiskHealth): boolean {
  const server = world.random.pick(site.servers)
  if (server.diskHealth !== 'sound') return false
  server.diskHealth = how
  return true
}

function putIn({ site, lengthMs, later }: Scene, server: StorageProcess, directory: Snapshot): boolean {
  if (!mayLose(site, server)) return false
  server.replaceDirectory(directory)
  later(lengthMs, () => server.isUp || server.start())
  return true
}

/**
 * Whoever has to know that a copy is an old one knows it: the map has had a later word of this server since it was made.
 * Servers that may be asked while the map is away know of starts alone, and of those that they saw in the map. A copy that they cannot tell
 * from the newest is put back only where the map answers: no server asks its peers about it.
 */
function putBack(scene: Scene, server: StorageProcess, old: Snapshot, madeAt: number): boolean {
  const { site } = scene
  const told = server.toldAt
  if (madeAt >= told || !putIn(scene, server, old)) return false
  const known = site.map.map.servers.find((one) => one.server === server.name)?.incarnation.value
  const { confirmed, next } = old.content.store.identity ?? { confirmed: undefined, next: [] }
  const isOfThisLife = [confirmed, ...next].some((one) => one?.value === known)
  const isKnown = site.servers.every((peer) => peer === server || peer.disk.store.seen[server.name]?.value === known)
  if (isOfThisLife || !isKnown) {
    const tap: Tap = (from, _, message) => {
      if (server.toldAt > told) site.taps.delete(tap)
      return from === server.name && message.type === 'know' ? 'lost' : 'goes'
    }
    site.taps.add(tap)
  }
  return true
}
