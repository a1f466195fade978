/** Links that lose, hold back or hold for very long what goes over them. */
import { epochMs, type EpochMs } from '../../../core/base/types.ts'
import { isDead, type KeyRecord } from '../../../core/record/record.ts'
import { sameBallot } from '../../register/ballot.ts'
import { wallStart } from '../clock.ts'
import type { Disk } from '../disk.ts'
import { clientsEnd } from '../network.ts'
import type { Carried } from '../site.ts'
import { awaitMessage, type Act, type Scene } from './act.ts'

/** What is cut or held for long stays so until it is of another age: older than a purge. */
const longMs = 1_500
/** Between the first and the last message of a round that is held up. */
const apartMsMax = 60
/** How long all that lets entries live longer is held up. */
const touchesMs = 500
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
    const until = world.now + lengthMs + (world.random.chance(0.2) ? world.random.next() * longMs : 0)
    site.network.cut(name, '*', until)
    site.network.cut('*', name, until)
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
  /** What clients ask of one proxy comes late, and is repeated through another meanwhile. */
  'stall-clients': ({ world, site, lengthMs }) => {
    const { random } = world
    site.network.stall(clientsEnd, random.pick(site.proxies).name, world.now + lengthMs + (random.chance(0.2) ? random.next() * longMs : 0))
    return true
  },
  /** A broken proxy sends another record under a ballot that is taken: the server tells a person, and keeps what it has. */
  'altered-accept': (scene) => {
    const { world, site, later } = scene
    const asked = new Map<string, Carried & { readonly type: 'accept' }>()
    const stop = scene.watch((from, to, message) => {
      if (message.type === 'accept') asked.set(`${from} ${message.id}`, message)
      const accept = message.type === 'accepted' ? asked.get(`${to} ${message.id}`) : undefined
      const server = accept === undefined ? undefined : site.server(from)
      if (accept === undefined || server === undefined || world.random.chance(0.5)) return 'goes'
      stop()
      later(0, () => {
        const held = server.isUp ? server.disk.read(accept.shard, accept.key) : undefined
        if (typeof held !== 'object' || !sameBallot(held.ballot, accept.ballot)) return
        const record = { ...accept.record, version: accept.record.version + 1 }
        site.alteredAccepts++
        server.take('a broken proxy', { ...accept, record })
      })
      return 'goes'
    })
    later(patienceMs, stop)
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
  /** All ACCEPTs of one request come when nobody knows of it any more. */
  'late-round': (scene) => {
    lateRound(scene)
    return true
  },
  'late-touches': (scene) => {
    lateTouches(scene)
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

/** With all repetitions of what it does. */
function lateRound({ world, lengthMs, later, watch }: Scene): void {
  let held: string | undefined
  const stop = watch((_from, _to, message) => {
    if (message.type !== 'accept') return 'goes'
    const name = `${message.key} ${message.record.lastRequest}`
    held ??= name
    return name === held ? { heldMs: lengthMs + world.random.next() * apartMsMax } : 'goes'
  })
  later(patienceMs, () => void (held === undefined && stop()))
}

/** All that lets an entry live longer comes when it would be dead without: it must not wake what somebody was told is dead. */
function lateTouches({ world, site, lengthMs, later, watch }: Scene): void {
  const comesAt = world.now + lengthMs
  const at = epochMs(wallStart + comesAt + apartMsMax)
  const stop = watch((_from, to, message) => {
    if (message.type !== 'accept' || !livesThen(message.record, at)) return 'goes'
    const before = site.server(to)?.disk.read(message.shard, message.key)
    return diesBefore(before, at) ? { heldMs: comesAt - world.now + world.random.next() * apartMsMax } : 'goes'
  })
  later(Math.min(touchesMs, lengthMs), stop)
}

const livesThen = (record: KeyRecord, at: EpochMs): boolean => record.value !== undefined && !isDead(record, at)
const diesBefore = (held: ReturnType<Disk['read']>, at: EpochMs): boolean =>
  typeof held === 'object' && held.record.value !== undefined && isDead(held.record, at)
