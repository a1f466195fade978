/** Clocks that jump. Drift and skew are there from the start: scenario.ts. */
import type { Site } from '../site.ts'
import type { StorageProcess } from '../storage-process.ts'
import type { Act, Scene } from './act.ts'

/** The zone whose clocks may be wrong: the time is what most of the zones say, so it is always the same one. */
const oddZone = 0

export const clockActs = {
  /** Of a proxy, of one server of the odd zone, or of all of that zone at once. */
  'clock-step': (scene) => {
    const { world, site } = scene
    const { random } = world
    const odd = oddServers(site)
    const those = random.chance(0.3) && odd.length > 0 ? odd : [random.pick([...site.proxies, ...odd])]
    const ms = stepMs(scene)
    for (const { clock } of those) clock.step(ms)
    scene.later(scene.lengthMs, () => {
      for (const { clock } of those) clock.step(-ms)
    })
    return true
  },
  /** A machine comes back with another time than it had, and is set right some time later. */
  'step-at-boot': (scene) => {
    const { world, site, lengthMs, later } = scene
    const process = world.random.pick([...site.proxies, ...oddServers(site)])
    if (!process.isUp) return false
    const ms = stepMs(scene)
    if ('crash' in process) process.crash(world.random.chance(0.5))
    else process.kill()
    process.clock.step(ms)
    later(world.random.next() * 50, () => process.isUp || process.start())
    later(50 + lengthMs, () => process.clock.step(-ms))
    return true
  },
} satisfies Record<string, Act>

/** None where there is one zone: its time is the time. */
export const oddServers = ({ knobs, servers }: Site): readonly StorageProcess[] =>
  knobs.zones > 1 ? servers.filter(({ zone }) => zone === oddZone) : []

/** Less than the bound, a little more, or of another age. */
const stepMs = ({ world: { random } }: Scene): number => (random.next() * 2 - 1) * random.pick([5, 50, 2_000])
