/**
 * One history of a peer: clients, the simulated network, and no fault but the time that messages take.
 * Invariant: a history is a function of its seed and knobs.
 */
import { Recorder, type Call, type HistoryVerb, type Shown } from '../history.ts'
import { Network } from '../network.ts'
import { wallStart } from '../clock.ts'
import { World } from '../world.ts'
import { junodb } from './junodb.ts'
import type { Peer, PeerPorts, PeerServer } from './peer.ts'
import { twoPhaseCommit } from './two-phase-commit.ts'

export interface PeerKnobs {
  readonly zones: number
  readonly proxies: number
  readonly clients: number
  readonly requests: number
  /** Drawn from; one that stands here twice is asked for twice as often. */
  readonly verbs: readonly HistoryVerb[]
  /** Milliseconds between an answer and the next request, at most. */
  readonly thinkMsMax: number
  /** Milliseconds that a message takes. Two on one link may overtake each other: JunoDB runs each in a goroutine of its own. */
  readonly delayMs: readonly [number, number]
  /** How many messages take up to `lateMs` longer: a pause of a process, a packet sent again. */
  readonly late: number
  readonly lateMs: number
}

/** A contended key: four clients, 0 to 60 ms between their requests. */
export const hotKey: PeerKnobs = {
  zones: 3,
  proxies: 2,
  clients: 4,
  requests: 100,
  verbs: ['create', 'get', 'get', 'get', 'update', 'update', 'set', 'destroy'],
  thinkMsMax: 60,
  delayMs: [0.2, 3],
  late: 0,
  lateMs: 0,
}
export const coolKey: PeerKnobs = { ...hotKey, thinkMsMax: 400 }
/** The hot key on a network on which one message in fifty is late. */
export const unevenKey: PeerKnobs = { ...hotKey, late: 0.02, lateMs: 50 }

/** By the names of the command: each on the network on which it shows what it is. */
export const peers = {
  junodb: (seed: number, zones: number) => playPeer(junodb, seed, { ...hotKey, zones }),
  'two-phase-commit': (seed: number, zones: number) => playPeer(twoPhaseCommit, seed, { ...unevenKey, zones }),
} as const satisfies Record<string, (seed: number, zones: number) => readonly Call[]>

export function playPeer<M>(peer: Peer<M>, seed: number, knobs: PeerKnobs = hotKey): readonly Call[] {
  const { zones, proxies, clients, thinkMsMax, delayMs, late, lateMs } = knobs
  const world = new World(seed)
  const { random } = world
  const network = new Network(
    random,
    { delayMs, loss: 0, duplication: 0, late, lateMs },
    () => world.now,
    (ms, run) => world.after(ms, run),
  )
  const clock = (): number => wallStart + world.now
  const members = new Map<string, PeerServer<M>>()
  const portsOf = (name: string): PeerPorts<M> => ({
    send: (to, message) => network.send(name, to, () => members.get(to)?.receive(name, message, clock())),
    after: (ms, token) => world.after(ms, () => members.get(name)?.wake(token, clock())),
  })
  const servers = Array.from({ length: zones }, (_, zone) => `s${zone}`)
  for (const name of servers) members.set(name, peer.server(portsOf(name)))
  const entrances = Array.from({ length: proxies }, (_, index) => {
    const name = `p${index}`
    const proxy = peer.proxy(portsOf(name), servers)
    members.set(name, proxy)
    return { name, proxy }
  })

  const recorder = new Recorder()
  let left = knobs.requests
  let values = 0
  for (let index = 0; index < clients; index++) {
    const client = `c${index}`
    let known: Shown | undefined
    const next = (): void => {
      if (left-- <= 0) return
      const verb = random.pick(knobs.verbs)
      const value = verb === 'get' || verb === 'destroy' ? undefined : ++values
      const ifVersion = verb === 'update' && known !== undefined ? known.version : undefined
      const sent = { ...(value === undefined ? {} : { value }), ...(ifVersion === undefined ? {} : { ifVersion }) }
      const number = recorder.sent({ client, key: 'k', verb, calledAt: world.now, ...sent })
      const { name, proxy } = random.pick(entrances)
      network.sendOnce(client, name, () =>
        proxy.request({ verb, value, ifVersion, requestId: `${client}-${number}` }, clock(), (answer) =>
          network.sendOnce(name, client, () => {
            recorder.answered(number, world.now, answer)
            if ('entry' in answer && answer.entry) known = answer.entry
            world.after(random.next() * thinkMsMax, next)
          }),
        ),
      )
    }
    world.after(random.next() * thinkMsMax, next)
  }
  world.runUntil(3_600_000)
  return recorder.calls
}
