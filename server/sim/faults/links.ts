/** Links that lose, hold back or hold for very long what goes over them. */
import { awaitMessage, type Act, type Scene } from './act.ts'

/** What is cut or held for long stays so until it is of another age: older than a purge. */
const longMs = 1_500
/** What a message waits that nobody expects any more. */
const veryLateMs = 4_000
const patienceMs = 200

export const linkActs = {
  'cut-one-way': ({ world, site, lengthMs }) => {
    const ends = oneLink(world.random.pick(site.proxies).name, world.random.pick(site.servers).name, world.random.chance(0.5))
    site.network.cut(...ends, world.now + lengthMs)
    return true
  },
  'cut-zone': ({ world, site, lengthMs }) => {
    const { name } = world.random.pick(site.servers)
    site.network.cut(name, '*', world.now + lengthMs)
    site.network.cut('*', name, world.now + lengthMs)
    return true
  },
  /** One proxy and one server do not hear of each other for long, and all else is quick. */
  'cut-link': ({ world, site, lengthMs }) => {
    const proxy = world.random.pick(site.proxies).name
    const server = world.random.pick(site.servers).name
    const until = world.now + lengthMs + world.random.next() * longMs
    site.network.cut(proxy, server, until)
    site.network.cut(server, proxy, until)
    return true
  },
  'stall-link': ({ world, site, lengthMs }) => {
    const ends = oneLink(world.random.pick(site.proxies).name, world.random.pick(site.servers).name, world.random.chance(0.3))
    site.network.stall(...ends, world.now + lengthMs + world.random.next() * longMs)
    return true
  },
  'stall-proxy': ({ world, site, lengthMs }) => {
    const { random } = world
    const { name } = random.pick(site.proxies)
    const until = world.now + lengthMs + (random.chance(0.3) ? random.next() * longMs : 0)
    site.network.stall(name, '*', until)
    if (random.chance(0.5)) site.network.stall('*', name, until)
    return true
  },
  /** An ACCEPT comes to exactly one zone, which is then cut off. */
  'lone-accept': (scene) => {
    loneAccept(scene)
    return true
  },
  /** An ACCEPT to one zone comes when nobody knows of it any more; now and then a copy of it came in time. */
  'very-late': (scene) => {
    const { random } = scene.world
    const isDoubled = random.chance(0.3)
    awaitMessage(scene, patienceMs, (_from, _to, { type }) =>
      type === 'accept' ? { heldMs: random.next() * veryLateMs, isDoubled } : undefined,
    )
    return true
  },
} satisfies Record<string, Act>

const oneLink = (proxy: string, server: string, isBack: boolean): readonly [string, string] => (isBack ? [server, proxy] : [proxy, server])

function loneAccept({ world, site, lengthMs, later, watch }: Scene): void {
  let round: { readonly from: string; readonly to: string; readonly id: number } | undefined
  const stop = watch((from, to, message) => {
    if (message.type === 'accepted' && from === round?.to) {
      stop()
      const until = world.now + lengthMs + world.random.next() * longMs
      site.network.cut(from, '*', until)
      site.network.cut('*', from, until)
      return 'lost'
    }
    if (message.type !== 'accept') return 'goes'
    round ??= { from, to, id: message.id }
    return from === round.from && message.id === round.id && to !== round.to ? 'lost' : 'goes'
  })
  later(patienceMs, stop)
}
