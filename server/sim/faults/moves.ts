/** Shards that move, stores that are replaced one after the other, and what goes wrong at each step of that. */
import { mapEnd } from '../network.ts'
import type { Carried } from '../site.ts'
import { awaitMessage, type Act, type Scene } from './act.ts'
import { loseDirectory } from './disks.ts'
import { isWhole } from './losses.ts'

/** A join or a handover that has not come to its step by then does not come to it. */
const patienceMs = 1_000
/** How often it is looked whether a replaced store is whole again. */
const lookMs = 2
/** Messages of joins, handovers and boots: something may happen at each of them. */
const stepsMax = 24

export const moveActs = {
  handover: (scene) => handOver(scene),
  'map-away': ({ world, site, lengthMs }) => {
    site.mapIsAwayUntil = Math.max(site.mapIsAwayUntil, world.now + lengthMs)
    return true
  },
  /** The second goes at the moment at which the first is whole. */
  'replaced-in-turn': (scene) => {
    const { world, site, later } = scene
    const row = world.random.pick(site.rows)
    const owners = row.servers.flatMap((name) => site.server(name) ?? [])
    const first = world.random.pick(owners)
    if (!loseDirectory({ ...scene, lengthMs: world.random.next() * 10 }, first)) return false
    const second = world.random.pick(owners.filter((one) => one !== first))
    const look = (): void => (isWhole(first, row.shard) ? void loseDirectory(scene, second) : later(lookMs, look))
    later(lookMs, look)
    return true
  },
  /** A join or a handover begins; at some step of it an end crashes, or the map goes away. */
  'fault-in-move': (scene) => {
    const { world, site } = scene
    const { random } = world
    const hasBegun = random.chance(0.5) ? handOver(scene) : loseDirectory(scene, random.pick(site.servers))
    if (!hasBegun) return false
    let left = random.int(stepsMax)
    awaitMessage(scene, patienceMs, (from, to, message) => {
      if (!isOfMove(message) || left-- > 0) return undefined
      return breakAt(scene, from, to)
    })
    return true
  },
} satisfies Record<string, Act>

function handOver({ world, site }: Scene): boolean {
  const row = world.random.pick(site.rows)
  const giver = site.server(world.random.pick(row.servers))
  const takers = site.servers.filter((one) => one.zone === giver?.zone && one !== giver && one.isUp)
  if (giver === undefined || !giver.isUp || takers.length === 0) return false
  giver.handOver(world.random.pick(takers).name)
  return true
}

const steps: readonly Carried['type'][] = [
  ...(['copy', 'page', 'offer', 'ready', 'part', 'stored', 'refused'] as const),
  ...(['know', 'known', 'map', 'map-join', 'map-raise', 'map-swap'] as const),
]
const isOfMove = ({ type }: Carried): boolean => steps.includes(type)

/** The message may be the last word of its sender, or the last that its receiver never heard; or it was said, and the map went away. */
function breakAt(scene: Scene, from: string, to: string): 'goes' | 'lost' {
  const { world, site, lengthMs, later } = scene
  const { random } = world
  const server = site.server(random.chance(0.5) ? from : to)
  if (random.chance(0.3) || server === undefined || from === mapEnd)
    site.mapIsAwayUntil = Math.max(site.mapIsAwayUntil, world.now + lengthMs)
  // The sender is in the middle of a step, which ends before the process does.
  else later(0, () => crashNow(server, random.chance(0.5), () => later(random.next() * lengthMs, () => server.isUp || server.start())))
  return random.chance(0.5) ? 'goes' : 'lost'
}

function crashNow(server: { isUp: boolean; crash(keepsWrite: boolean): void }, keepsWrite: boolean, then: () => void): void {
  if (!server.isUp) return
  server.crash(keepsWrite)
  then()
}
