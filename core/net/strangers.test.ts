/**
 * What somebody without a certificate can do to a listener: little, and not for long.
 * Invariant: a stranger costs at most 64 KiB, and there are at most as many as there may be. What one costs that goes on after its hello: announcers.test.ts.
 * Why another process: the memory of the strangers' own ends must not be counted.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { testClock, type TestClock } from '../testing/clock.ts'
import { Listener, type ListenerLimits } from './listener.ts'
import { Folder, makeAuthority, makeCertificate, type Pems } from './testdata/certificates.ts'
import { tickerOf } from './testdata/clock.ts'
import { frameCodec, type Frame } from './testdata/frame.ts'
import { rough, until } from './testdata/until.ts'
import { Credentials } from './tls.ts'

const folder = new Folder()
let authority: Pems
let credentials: Credentials
let clock: TestClock
let listener: Listener<Frame, Frame>
let crowd: ChildProcess | undefined
let sockets: Socket[]
/** The first flight of an honest client. */
let hello: Buffer

beforeAll(async () => {
  authority = await makeAuthority()
  credentials = await Credentials.open(folder.write('p', [authority], await makeCertificate(authority)))
  hello = await firstFlight()
})
afterAll(async () => {
  await credentials.close()
  folder.remove()
})
beforeEach(() => {
  clock = testClock()
  sockets = []
})
afterEach(async () => {
  for (const socket of sockets) socket.destroy()
  if (crowd !== undefined) {
    crowd.kill('SIGKILL')
    if (crowd.exitCode === null && crowd.signalCode === null) await once(crowd, 'exit')
    crowd = undefined
  }
  await listener.close(0)
})

async function listen(limits: Partial<ListenerLimits> = {}): Promise<number> {
  listener = await Listener.open<Frame, Frame>({
    address: { host: '127.0.0.1', port: 0 },
    security: { credentials, roles: ['client'] },
    codec: frameCodec,
    onRequest: () => expect.unreachable('a stranger was served'),
    ticker: tickerOf(clock),
    clock,
    limits,
  })
  return (listener.address as { port: number }).port
}

/** What a client of TLS 1.3 sends first. */
async function firstFlight(): Promise<Buffer> {
  let bytes: Buffer | undefined
  const server = await rough((socket) => socket.once('data', (chunk: Buffer) => (bytes = chunk)))
  const client = connectTls({ ...server.address, servername: 'localhost', minVersion: 'TLSv1.3' }).on('error', () => undefined)
  await until(() => bytes !== undefined)
  client.destroy()
  await server.close()
  return bytes as Buffer
}

async function gather(port: number, count: number, bytes: Uint8Array): Promise<void> {
  const script = fileURLToPath(new URL('testdata/strangers.mjs', import.meta.url))
  crowd = fork(script, [String(port), String(count), Buffer.from(bytes).toString('hex')], { execArgv: [] })
  const [told] = (await once(crowd, 'message')) as [unknown]
  expect(told).toEqual({ connected: count })
}
const crowdClosed = async (): Promise<unknown> => ((await once(crowd as ChildProcess, 'message')) as [unknown])[0]

async function connect(port: number, bytes: Uint8Array): Promise<Socket> {
  const socket = createConnection({ port, host: '127.0.0.1' })
  sockets.push(socket)
  socket.on('error', () => undefined).resume()
  await once(socket, 'connect')
  socket.write(bytes)
  return socket
}
const closeOf = (socket: Socket): Promise<void> =>
  socket.closed ? Promise.resolve() : new Promise((resolve) => socket.once('close', () => resolve()))

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void
/** Memory of this process after a collection: all of it, and what JavaScript has of it, which may lie in pages that were there before. */
function memory(): { readonly resident: number; readonly used: number } {
  collect()
  const { rss, heapUsed, external } = process.memoryUsage()
  return { resident: rss, used: heapUsed + external }
}

const strangers = 1_000
const strangerBytesMax = 65_536

describe(`${strangers} strangers`, () => {
  // The first round warms up: code, tables, arenas of the allocator.
  test.each([
    ['that say nothing', 'silent'],
    ['that stop in the middle of their first bytes', 'cut'],
    ['that stop after their ClientHello', 'hello'],
  ])('%s cost a bounded amount of memory, and are gone in time', async (what, kind) => {
    const bytes = kind === 'silent' ? Buffer.alloc(0) : kind === 'cut' ? hello.subarray(0, 8) : hello
    const port = await listen({ strangersMax: 2 * strangers, handshakesMax: strangers, handshakeMs: kind === 'hello' ? 60_000 : 2_000 })
    await gather(port, 50, bytes)
    await until(() => listener.stats.strangers === 50)
    crowd?.kill('SIGKILL')
    await until(() => listener.stats.strangers === 0)

    const before = memory()
    await gather(port, strangers, bytes)
    await until(() => listener.stats.strangers === strangers)
    const after = memory()
    const each = Math.max(after.resident - before.resident, after.used - before.used) / strangers
    console.log(`a stranger of those ${what} costs ${(each / 1024).toFixed(1)} KiB`)
    expect(each).toBeLessThan(strangerBytesMax)
    if (kind === 'hello') return
    const closed = crowdClosed()
    await clock.advance(2_500)
    expect(await closed).toEqual({ closed: strangers })
    expect(listener.stats).toMatchObject({ strangers: 0, peers: 0 })
  })

  test('beyond the number of strangers push out who has been silent for longest', async () => {
    const port = await listen({ strangersMax: 10 })
    const first = await connect(port, new Uint8Array())
    await until(() => listener.stats.strangers === 1)
    const firstClosed = closeOf(first)
    await gather(port, 10, Buffer.alloc(0))
    await firstClosed
    expect(listener.stats).toMatchObject({ strangers: 10, crowded: 1 })
    // Somebody with a certificate gets in all the same.
    const { cert, key } = await makeCertificate(authority, { uris: ['spiffe://hapax/client/shop'] })
    const honest = connectTls({ port, host: '127.0.0.1', cert, key, ca: authority.cert, servername: 'localhost' })
    sockets.push(honest.on('error', () => undefined))
    await until(() => listener.stats.peers === 1)
  })
})

test('there are no more in their handshake than may be: whoever begins one beyond is closed, and may come when another has ended', async () => {
  const port = await listen({ handshakesMax: 2, handshakeMs: 60_000 })
  const [first] = [await connect(port, hello), await connect(port, hello)]
  await until(() => listener.stats.strangers === 2)
  await closeOf(await connect(port, hello))
  expect(listener.stats).toMatchObject({ strangers: 2, crowded: 1 })
  first?.destroy()
  await until(() => listener.stats.strangers === 1)
  const next = await connect(port, hello)
  await once(next, 'readable').catch(() => undefined)
  expect(listener.stats).toMatchObject({ strangers: 2, crowded: 1 })
})

test.each([
  ['no TLS', Buffer.from('PP\u0001@ a message in the clear')],
  ['a ClientHello that asks for 128 KiB', Buffer.from([22, 3, 1, 0x40, 0, 1, 2, 1, 0x44])],
  ['another handshake message', Buffer.from([22, 3, 3, 0, 100, 11, 0, 0, 96])],
])('whoever begins with %s is closed at once', async (_, bytes) => {
  const port = await listen()
  const socket = await connect(port, bytes)
  await closeOf(socket)
  expect(listener.stats).toMatchObject({ strangers: 0, strange: 1, untrusted: 0 })
})

test('whoever sends the ClientHello one byte at a time gets as far as the handshake, and no further without a certificate', async () => {
  const port = await listen({ handshakeMs: 200 })
  const socket = await connect(port, new Uint8Array())
  let answered = 0
  socket.on('data', (chunk) => (answered += chunk.byteLength))
  for (const byte of hello) {
    socket.write(Uint8Array.of(byte))
    await new Promise((resolve) => setImmediate(resolve))
  }
  await until(() => answered > 0)
  // The handshake has a time of its own, on the machine's clock.
  await closeOf(socket)
  expect(listener.stats).toMatchObject({ strangers: 0, strange: 0, untrusted: 1, peers: 0 })
})

test('whoever leaves in the middle of a handshake is forgotten at once', async () => {
  const port = await listen({ handshakeMs: 60_000 })
  const socket = await connect(port, hello)
  await until(() => listener.stats.strangers === 1)
  await once(socket, 'data').catch(() => undefined)
  socket.end()
  await until(() => listener.stats.strangers === 0)
  expect(listener.stats.untrusted).toBe(1)
})
