/**
 * Peers that mean harm, or stand still, at the ports of a cluster: nothing is taken for what they announce, and they are gone in time.
 * What a stranger costs at most is measured in core/net: strangers.test.ts, announcers.test.ts.
 */
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { connect } from '../../core/client/client.ts'
import type { ListenerStats } from '../../core/net/listener.ts'
import { Folder, makeAuthority, makeCertificate, type Pems } from '../../core/net/testdata/certificates.ts'
import { until } from '../../core/net/testdata/until.ts'
import { Credentials } from '../../core/net/tls.ts'
import { ClusterCodec } from '../../core/wire/cluster-codec.ts'
import { JunoCodec, junoFrameBytesMax } from '../../core/wire/juno-codec.ts'
import { openPolicy } from '../proxy/policy.ts'
import { startCluster, type TestCluster } from './testdata/cluster.ts'

const roles = ['proxy', 'storage'] as const
type Role = (typeof roles)[number]
/** Short, and the last one longer than the second between two pings of the cluster's own. */
const limits = { handshakeMs: 300, readMs: 300, idleMs: 2_500 }

const sockets: Socket[] = []
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
})

function serverOf(cluster: TestCluster, role: Role): { readonly port: number; readonly stats: ListenerStats } {
  const server = role === 'proxy' ? cluster.proxies[0] : cluster.storage.get('s0')
  if (server === undefined) throw new Error(`there is no ${role}`)
  return { port: (server.address as { port: number }).port, stats: server.stats.listener }
}
async function open(cluster: TestCluster, role: Role): Promise<Socket> {
  const socket = createConnection({ port: serverOf(cluster, role).port, host: '127.0.0.1' })
  sockets.push(socket)
  socket.on('error', () => undefined).resume()
  await once(socket, 'connect')
  return socket
}
const closeOf = (socket: Socket): Promise<unknown> =>
  socket.closed ? Promise.resolve() : new Promise((resolve) => socket.once('close', resolve))

/** A whole message of each port, of which tests take the head. */
const nop = (): Buffer => {
  const none = new Uint8Array()
  const head = { isRequest: true, opaque: 0, opcode: 0, flags: 0, status: 0, meta: {} }
  return new JunoCodec().encode({ ...head, namespace: none, key: none, payload: undefined, hasPayload: true }, 1)
}
const wholeOf: Readonly<Record<Role, Buffer>> = { proxy: nop(), storage: Buffer.from(new ClusterCodec().encode({ type: 'farewell' })) }
/** Both protocols say the size of a message at the same place. */
function announcing(role: Role, size: number): Buffer {
  const bytes = Buffer.from(wholeOf[role])
  bytes.writeUInt32BE(size, 4)
  return bytes
}
/** Of what lies outside JavaScript's heap, as buffers do. A MiB is what the tests themselves may take. */
function takesNothing(before: number): void {
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 20)
}

describe.each(roles)('a port of a %s in the clear', (role) => {
  let cluster: TestCluster
  const endsOf = (end: 'protocol' | 'slow' | 'idle'): number => serverOf(cluster, role).stats.ends[end] ?? 0
  beforeAll(async () => {
    cluster = await startCluster({ zones: 1, limits })
    const kv = await connect(cluster.url)
    await kv.set('a', new Uint8Array(1))
    await kv.close()
  })
  afterAll(async () => {
    // The cluster itself has seen nothing of all that.
    const kv = await connect(cluster.url)
    expect((await kv.get('a')).entry?.value).toEqual(new Uint8Array(1))
    await kv.close()
    expect(cluster.failures).toEqual([])
    await cluster.close()
  })

  test.each([2 ** 31, 2 ** 32 - 1, 0, 7])('closes at once whoever announces a message of %i bytes', async (size) => {
    const before = endsOf('protocol')
    const { arrayBuffers } = process.memoryUsage()
    const socket = await open(cluster, role)
    socket.write(announcing(role, size))
    await closeOf(socket)
    takesNothing(arrayBuffers)
    await until(() => endsOf('protocol') === before + 1)
  })

  test('keeps of the largest message what came of it, and closes when the rest does not follow', async () => {
    const before = endsOf('slow')
    const { arrayBuffers } = process.memoryUsage()
    const socket = await open(cluster, role)
    socket.write(announcing(role, junoFrameBytesMax - 100))
    await until(() => serverOf(cluster, role).stats.bytes >= wholeOf[role].byteLength)
    takesNothing(arrayBuffers)
    await closeOf(socket)
    await until(() => endsOf('slow') === before + 1)
  })

  test('closes whoever is not done with a message in time, however steadily it drips', async () => {
    const before = endsOf('slow')
    const socket = await open(cluster, role)
    const bytes = announcing(role, 4_096)
    let sent = 0
    const drip = setInterval(() => socket.write(Uint8Array.of(bytes[sent++] ?? 0)), 10)
    await closeOf(socket)
    clearInterval(drip)
    expect(sent).toBeLessThan(4_096)
    await until(() => endsOf('slow') === before + 1)
  })

  test('closes whoever says nothing at all', async () => {
    const before = endsOf('idle')
    await closeOf(await open(cluster, role))
    await until(() => endsOf('idle') === before + 1)
  })
})

describe.each(roles)('a port of a %s under TLS', (role) => {
  const folder = new Folder()
  const credentials: Credentials[] = []
  let authority: Pems
  let cluster: TestCluster
  const stats = (): ListenerStats => serverOf(cluster, role).stats
  beforeAll(async () => {
    authority = await makeAuthority()
    cluster = await startCluster({
      zones: 1,
      limits,
      policy: openPolicy,
      async credentialsOf(of, name) {
        const files = folder.write(name, [authority], await makeCertificate(authority, { uris: [`spiffe://test/${of}/${name}`] }))
        const made = await Credentials.open(files)
        credentials.push(made)
        return made
      },
    })
  })
  afterAll(async () => {
    // Nothing of a stranger came further than TLS.
    expect(stats().ends.protocol).toBeUndefined()
    expect(cluster.failures).toEqual([])
    await cluster.close()
    for (const one of credentials) await one.close()
    folder.remove()
  })

  test.each<[string, (of: Role) => Buffer]>([
    ['speaks in the clear, of a message of 2 GiB', (of) => announcing(of, 2 ** 31)],
    ['announces a hello of 16 MB', () => Buffer.from([22, 3, 1, 0x40, 0, 1, 255, 255, 255])],
    ['announces a record of 64 KB', () => Buffer.from([22, 3, 1, 255, 255, 1, 0, 2, 0])],
  ])('closes at once whoever %s', async (_, bytes) => {
    const before = stats().strange
    const socket = await open(cluster, role)
    socket.write(bytes(role))
    await closeOf(socket)
    await until(() => stats().strange === before + 1)
  })

  test('closes whoever says nothing, or the head of a hello byte by byte, in the time of a handshake', async () => {
    const before = stats().strange
    const [silent, slow] = [await open(cluster, role), await open(cluster, role)]
    for (const byte of [22, 3, 1, 1]) {
      slow.write(Uint8Array.of(byte))
      await new Promise((resolve) => setImmediate(resolve))
    }
    await Promise.all([closeOf(silent), closeOf(slow)])
    await until(() => stats().strange === before + 2)
  })

  test('lets nobody in who shows no certificate, or one of another authority, and reads nothing of what they send', async () => {
    const before = stats()
    const uris = [`spiffe://test/${role === 'proxy' ? 'client/shop' : 'proxy/p0'}`]
    const other = await makeCertificate(await makeAuthority('another'), { uris })
    const { port } = serverOf(cluster, role)
    for (const own of [{}, other]) {
      const socket = connectTls({ port, host: '127.0.0.1', ca: authority.cert, servername: 'localhost', ...own })
      sockets.push(socket.on('error', () => undefined).resume())
      socket.write(announcing(role, 2 ** 31))
      await closeOf(socket)
    }
    await until(() => stats().untrusted === before.untrusted + 2)
    expect(stats().strangers).toBe(0)
  })
})
