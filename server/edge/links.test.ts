/** Links to storage servers: opened, refused, lost, left and opened again, over real sockets. */
import { afterEach, expect, test } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import { addressText, type Address } from '../../core/net/address.ts'
import type { Peer } from '../../core/net/accepted.ts'
import { Listener } from '../../core/net/listener.ts'
import { systemTicker } from '../../core/net/ticker.ts'
import { ClusterCodec, type ClusterMessage, type Greeting } from '../../core/wire/cluster-codec.ts'
import { Links } from './links.ts'
import { misfit } from './storage-server.ts'

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
})

const greeting = (more: Partial<Greeting> = {}): Greeting => ({
  type: 'greeting',
  oldest: 1,
  newest: 1,
  role: 'storage',
  name: 's0',
  cluster: 'test',
  ...more,
})
const ready = (id: number): ClusterMessage => ({ type: 'ready', id, shard: 0 })

/** Something that greets as it is told, and keeps what it hears. */
async function server(says: ClusterMessage | undefined, address: Address = { host: '127.0.0.1', port: 0 }) {
  const heard: ClusterMessage[] = []
  const peers = new Set<Peer<ClusterMessage>>()
  const listener = await Listener.open<ClusterMessage, ClusterMessage>({
    address,
    security: 'plain',
    codec: new ClusterCodec(),
    onPeer: (peer) => void peers.add(peer),
    onPeerEnd: (peer) => void peers.delete(peer),
    onRequest(message, reply, peer) {
      reply(undefined)
      if (message.type === 'greeting') {
        if (says !== undefined) peer.send(says)
      } else heard.push(message)
    },
  })
  let isOpen = true
  const close = async (): Promise<void> => {
    if (isOpen) await listener.close(0)
    isOpen = false
  }
  closing.push(close)
  return { heard, peers, close, address: listener.address }
}

function linksTo(addressOf: (name: string) => Address | undefined) {
  const changes: string[] = []
  const taken: ClusterMessage[] = []
  const waiting = new Set<() => void>()
  const links = new Links<ClusterMessage>({
    codec: new ClusterCodec(),
    security: 'plain',
    random: seededRandom(1),
    ticker: systemTicker,
    hello: greeting({ role: 'proxy', name: 'p0' }),
    judge: (name, first) => misfit(first, { name, cluster: 'test', roles: ['storage'] }),
    isFarewell: ({ type }) => type === 'farewell',
    addressOf: (name) => {
      const address = addressOf(name)
      return address && addressText(address)
    },
    onMessage: (_name, message) => void taken.push(message),
    onChange(name, isUp, why) {
      changes.push(`${name} ${isUp ? 'up' : 'down'}: ${why}`)
      for (const look of waiting) look()
    },
  })
  closing.push(() => links.close())
  const until = (isSeen: () => boolean): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (!isSeen()) return
        waiting.delete(look)
        resolve()
      }
      waiting.add(look)
      look()
    })
  return { links, changes, taken, until }
}
const eventually = async (isSeen: () => boolean): Promise<void> => {
  while (!isSeen()) await new Promise((go) => setTimeout(go, 2))
}

test('a link comes up once both have greeted; what was sent before is not kept', async () => {
  const { heard, peers, address } = await server(greeting())
  const { links, taken, until } = linksTo(() => address)
  expect(links.send('s0', ready(1))).toBe(false)
  await until(() => links.isUp('s0'))
  expect(links.send('s0', ready(2))).toBe(true)
  await eventually(() => heard.length > 0)
  expect(heard).toEqual([ready(2)])
  for (const peer of peers) peer.send({ type: 'pong', id: 1, zone: 0, clock: 5 as never })
  await eventually(() => taken.length > 0)
  expect(taken).toEqual([{ type: 'pong', id: 1, zone: 0, clock: 5 }])
  expect(links.dropped).toBe(1)
})

test.each<[string, ClusterMessage, RegExp]>([
  ['another name', greeting({ name: 's1' }), /it is 's1'/],
  ['another cluster', greeting({ cluster: 'other' }), /cluster 'other'/],
  ['another role', greeting({ role: 'proxy' }), /it is a proxy/],
  ['no version that we speak', greeting({ oldest: 7, newest: 9 }), /versions 7 to 9/],
  ['something else first', { type: 'farewell' }, /ended/],
])('a server that says %s is not taken, and tried again', async (_what, says, why) => {
  const { address } = await server(says)
  const { links, changes, until } = linksTo(() => address)
  links.want(['s0'])
  await until(() => changes.length >= 2)
  expect(changes[0]).toMatch(why)
  expect(changes.every((change) => change.includes('down'))).toBe(true)
  expect(links.send('s0', ready(1))).toBe(false)
})

test('a server that comes back is linked again', async () => {
  const first = await server(greeting())
  const { links, changes, until } = linksTo(() => first.address)
  links.want(['s0'])
  await until(() => links.isUp('s0'))
  await first.close()
  await until(() => changes.some((change) => change.includes('down')))
  const second = await server(greeting(), first.address)
  await until(() => links.isUp('s0'))
  links.send('s0', ready(3))
  await eventually(() => second.heard.length > 0)
  expect(second.heard).toEqual([ready(3)])
})

test('a server that says farewell gets nothing more', async () => {
  const { peers, address } = await server(greeting())
  const { links, until } = linksTo(() => address)
  links.want(['s0'])
  await until(() => links.isUp('s0'))
  for (const peer of peers) peer.send({ type: 'farewell' })
  await eventually(() => !links.isUp('s0'))
  expect(links.send('s0', ready(4))).toBe(false)
})

test('links that nobody wants any more are closed, and an address that is not known yet is asked for again', async () => {
  const { peers, address } = await server(greeting())
  let isKnown = false
  const { links, changes, until } = linksTo(() => (isKnown ? address : undefined))
  links.want(['s0'])
  await until(() => changes.some((change) => change.includes('its address is not known')))
  isKnown = true
  await until(() => links.isUp('s0'))
  links.want([])
  await eventually(() => peers.size === 0)
  expect(links.isUp('s0')).toBe(false)
})
