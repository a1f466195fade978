/**
 * What a listener does with peers of every kind, over real sockets and a clock that stands until it is moved.
 * Why `until`: bytes travel when the kernel says so; what is waited for is that they are there, never that a time has passed.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createConnection, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { testClock, type TestClock } from '../testing/clock.ts'
import { isKvError, type KvError } from '../kv/errors.ts'
import type { Reply } from './accepted.ts'
import type { Address } from './address.ts'
import { Listener, type ListenerOptions } from './listener.ts'
import { tickerOf } from './testdata/clock.ts'
import { encodeFrame, farewell, frameCodec, paired, type Frame } from './testdata/frame.ts'
import { until } from './testdata/until.ts'

let clock: TestClock
let listener: Listener<Frame, Frame> | undefined
let clients: Client[]
/** Requests that wait for the test to answer them. */
let asked: [Frame, Reply<Frame>][]

beforeEach(() => {
  clock = testClock()
  clients = []
  asked = []
})
afterEach(async () => {
  for (const { socket } of clients) socket.destroy()
  await listener?.close(0)
  listener = undefined
})

const echo: ListenerOptions<Frame, Frame>['onRequest'] = (request, reply) => reply(paired(request.text))
const keep: ListenerOptions<Frame, Frame>['onRequest'] = (request, reply) => void asked.push([request, reply])

async function listen(options: Partial<ListenerOptions<Frame, Frame>> = {}): Promise<Listener<Frame, Frame>> {
  listener = await Listener.open<Frame, Frame>({
    address: { host: '127.0.0.1', port: 0 },
    security: 'plain',
    codec: frameCodec,
    ticker: tickerOf(clock),
    clock,
    onRequest: echo,
    ...options,
  })
  return listener
}

/** A client that reads frames, with what it got. */
interface Client {
  readonly socket: Socket
  readonly got: Frame[]
  hasEnded: boolean
  isClosed: boolean
}
async function connect(address: Address, allowHalfOpen = true): Promise<Client> {
  const socket = createConnection({ ...address, allowHalfOpen })
  const client: Client = { socket, got: [], hasEnded: false, isClosed: false }
  clients.push(client)
  const decoder = frameCodec.decoder()
  socket.on('data', (bytes) => decoder.push(bytes, (frame) => client.got.push(frame)))
  socket.on('end', () => (client.hasEnded = true))
  socket.on('error', () => undefined)
  socket.on('close', () => (client.isClosed = true))
  await once(socket, 'connect')
  return client
}
/** Our socket may stay half open after the other side has closed it. */
const isGone = ({ hasEnded, isClosed }: Client): boolean => hasEnded || isClosed
const textsOf = ({ got }: Client): string[] => got.map(({ number, text }) => `${number} ${text}`)
const faultOf = (promise: Promise<unknown>): Promise<KvError> =>
  promise.then(
    () => expect.unreachable('it was allowed'),
    (error: KvError) => (isKvError(error) ? error : expect.unreachable(String(error))),
  )

describe('requests', () => {
  test('are answered by their numbers, in whatever order their answers come', async () => {
    const server = await listen({ onRequest: keep })
    const client = await connect(server.address)
    client.socket.write(Buffer.concat(['a', 'b', 'c'].map((text, at) => encodeFrame(paired(text), 40 + at))))
    await until(() => asked.length === 3)
    for (const [{ text }, reply] of asked.toReversed()) {
      reply(paired(text.toUpperCase()))
      reply(paired('twice'))
    }
    await until(() => client.got.length === 3)
    expect(textsOf(client)).toEqual(['42 C', '41 B', '40 A'])
  })

  test('are taken whole from a peer that sends one byte at a time', async () => {
    const server = await listen()
    const client = await connect(server.address)
    for (const byte of Buffer.concat([encodeFrame(paired('one'), 1), encodeFrame(paired('two'), 2)])) {
      client.socket.write(Uint8Array.of(byte))
      await turn()
    }
    await until(() => client.got.length === 2)
    expect(textsOf(client)).toEqual(['1 one', '2 two'])
  })

  test('of a turn are answered in one write', async () => {
    const server = await listen({ onRequest: keep })
    const client = await connect(server.address)
    let chunks = 0
    client.socket.on('data', () => chunks++)
    client.socket.write(Buffer.concat(Array.from({ length: 50 }, (_, at) => encodeFrame(paired('x'), at))))
    await until(() => asked.length === 50)
    for (const [, reply] of asked) reply(paired('y'))
    await until(() => client.got.length === 50)
    expect(chunks).toBe(1)
  })

  test('may have no answer', async () => {
    const server = await listen({ onRequest: (_, reply) => reply(undefined) })
    const client = await connect(server.address)
    client.socket.end(encodeFrame({ kind: 'free', text: 'news' }, 0))
    await until(() => client.hasEnded)
    expect(client.got).toEqual([])
  })

  test('of a peer that sends no more are answered before its end', async () => {
    const server = await listen({ onRequest: keep })
    const client = await connect(server.address)
    client.socket.end(encodeFrame(paired('last'), 1))
    await until(() => asked.length === 1)
    await turn()
    expect(client.hasEnded).toBe(false)
    asked[0]?.[1](paired('answer'))
    await until(() => client.isClosed)
    expect(textsOf(client)).toEqual(['1 answer'])
    expect(server.stats.ends).toEqual({ ended: 1 })
  })

  test('of a peer that has gone are answered to nobody', async () => {
    const server = await listen({ onRequest: keep })
    const client = await connect(server.address)
    client.socket.write(encodeFrame(paired('a'), 1))
    await until(() => asked.length === 1)
    client.socket.resetAndDestroy()
    await until(() => server.stats.peers === 0)
    asked[0]?.[1](paired('answer'))
    expect(server.stats).toMatchObject({ bytes: 0, ends: { reset: 1 } })
  })
})

describe('a peer is closed', () => {
  test.each([
    ['garbage', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['a size of 0', Buffer.alloc(16)],
    ['a size of 2^32 - 1', Buffer.alloc(16, 255)],
  ])('that sends %s, after the requests before it', async (_, bytes) => {
    const server = await listen({ onRequest: keep })
    const client = await connect(server.address)
    client.socket.write(Buffer.concat([encodeFrame(paired('good'), 1), bytes]))
    await until(() => isGone(client))
    expect(asked.map(([{ text }]) => text)).toEqual(['good'])
    expect(server.stats).toMatchObject({ peers: 0, bytes: 0, ends: { protocol: 1 } })
  })

  test('whose message is not whole in time, however steadily it drips', async () => {
    const server = await listen()
    const client = await connect(server.address)
    const bytes = encodeFrame(paired('x'.repeat(100)), 1)
    for (let second = 0; second < 4; second++) {
      client.socket.write(bytes.subarray(second, second + 1))
      await until(() => server.stats.bytes === second + 1)
      await clock.advance(1_000)
    }
    expect(server.stats.peers).toBe(1)
    await clock.advance(1_250)
    expect(server.stats).toMatchObject({ peers: 0, bytes: 0, ends: { slow: 1 } })
  })

  test('that is silent for two minutes, but not while it waits for an answer', async () => {
    const server = await listen({ onRequest: keep })
    const [idle, waiting] = [await connect(server.address), await connect(server.address)]
    waiting.socket.write(encodeFrame(paired('long'), 1))
    await until(() => asked.length === 1)
    await clock.advance(119_750)
    expect(idle.hasEnded).toBe(false)
    await clock.advance(500)
    await until(() => idle.hasEnded)
    idle.socket.end()
    await until(() => server.stats.peers === 1)
    expect(server.stats.ends).toEqual({ idle: 1 })
    asked[0]?.[1](paired('answer'))
    waiting.socket.write(encodeFrame(paired('and again'), 2))
    await until(() => asked.length === 2)
    asked[1]?.[1](paired('answer'))
    await until(() => waiting.got.length === 2)
  })

  test('that never sends its own end after ours', async () => {
    const server = await listen()
    const client = await connect(server.address)
    await clock.advance(120_250)
    await until(() => client.hasEnded)
    await clock.advance(9_500)
    expect(server.stats.peers).toBe(1)
    await clock.advance(500)
    expect(server.stats.peers).toBe(0)
  })

  test('that has left, two minutes after, when nobody answers its last request', async () => {
    const server = await listen({ onRequest: keep })
    const client = await connect(server.address, false)
    client.socket.end(encodeFrame(paired('forgotten'), 1))
    await until(() => asked.length === 1)
    await clock.advance(119_500)
    expect(server.stats.peers).toBe(1)
    await clock.advance(1_000)
    expect(server.stats).toMatchObject({ peers: 0, ends: { ended: 1 } })
  })

  test('that does not read its answers: first it is not read, then it is over', async () => {
    const text = 'x'.repeat(100_000)
    let taken = 0
    const server = await listen({ onRequest: (_, reply) => (taken++, reply(paired(text))) })
    const client = await connect(server.address)
    client.socket.pause()
    const requests = Buffer.concat(Array.from({ length: 5_000 }, (_, at) => encodeFrame(paired('more'), at)))
    client.socket.write(requests)
    // The network between takes some megabytes before it stops.
    await until(() => server.stats.bytes >= 1_048_576)
    for (let turns = 0; turns < 20; turns++) await turn()
    expect(server.stats.bytes).toBeLessThan(1_048_576 + 2 * text.length)
    expect(taken).toBeLessThan(500)
    await clock.advance(9_750)
    expect(server.stats.peers).toBe(1)
    await clock.advance(500)
    expect(server.stats).toMatchObject({ peers: 0, bytes: 0, ends: { slow: 1 } })
  })

  test('is none that reads its 5,000 large answers late, but reads them', async () => {
    const server = await listen({ onRequest: (_, reply) => reply(paired('x'.repeat(10_000))) })
    const client = await connect(server.address)
    client.socket.pause()
    client.socket.write(Buffer.concat(Array.from({ length: 5_000 }, (_, at) => encodeFrame(paired('more'), at))))
    await until(() => server.stats.bytes >= 1_048_576)
    client.socket.resume()
    await until(() => client.got.length === 5_000)
    expect(client.got.map(({ number }) => number)).toEqual(Array.from({ length: 5_000 }, (_, at) => at))
    expect(server.stats.bytes).toBe(0)
  })

  test('for whom more answers wait than any peer may have', async () => {
    const server = await listen({ onRequest: keep, limits: { queueBytesClose: 8_000_000 } })
    const client = await connect(server.address)
    client.socket.pause()
    client.socket.write(Buffer.concat(Array.from({ length: 256 }, (_, at) => encodeFrame(paired('more'), at))))
    await until(() => asked.length === 256)
    for (const [, reply] of asked) reply(paired('x'.repeat(200_000)))
    expect(server.stats).toMatchObject({ peers: 0, bytes: 0, ends: { full: 1 } })
  })

  test('that has most, when all together have too much', async () => {
    const server = await listen({ onRequest: keep, limits: { bytesMax: 150_000 } })
    const [small, large] = [await connect(server.address), await connect(server.address)]
    const bytes = encodeFrame(paired('x'.repeat(120_000)), 1)
    small.socket.write(bytes.subarray(0, 50_000))
    await until(() => server.stats.bytes === 50_000)
    large.socket.write(bytes.subarray(0, 110_000))
    await until(() => isGone(large))
    expect(server.stats).toMatchObject({ peers: 1, bytes: 50_000, ends: { full: 1 } })
    small.socket.write(bytes.subarray(50_000))
    await until(() => asked.length === 1)
    expect(server.stats.bytes).toBe(0)
  })
})

describe('a peer is not read', () => {
  test('while it has as many requests as it may, and is again when half of them are answered', async () => {
    const server = await listen({ onRequest: keep, limits: { inFlightMax: 4 } })
    const client = await connect(server.address)
    const request = encodeFrame(paired('r'), 1)
    // The beginning of a fifth comes with the first four.
    client.socket.write(Buffer.concat([request, request, request, request, request.subarray(0, 3)]))
    await until(() => asked.length === 4)
    client.socket.write(Buffer.concat([request.subarray(3), request, request]))
    for (let turns = 0; turns < 20; turns++) await turn()
    expect(asked.length).toBe(4)
    // What is paused by us is not slow.
    await clock.advance(60_000)
    expect(server.stats.peers).toBe(1)
    asked[0]?.[1](paired('a'))
    for (let turns = 0; turns < 20; turns++) await turn()
    expect(asked.length).toBe(4)
    asked[1]?.[1](paired('a'))
    await until(() => asked.length === 6)
    for (let turns = 0; turns < 20; turns++) await turn()
    expect(asked.length).toBe(6)
    for (const [, reply] of asked) reply(paired('a'))
    await until(() => asked.length === 7)
  })
})

describe('a drain', () => {
  test('answers what is under way, takes what still comes, and ends each peer at its first quiet moment', async () => {
    const server = await listen({ onRequest: keep, farewell })
    const [quiet, busy] = [await connect(server.address), await connect(server.address)]
    busy.socket.write(encodeFrame(paired('before'), 1))
    await until(() => asked.length === 1)
    let isClosed = false
    const closed = server.close(10_000).then(() => (isClosed = true))
    await until(() => quiet.got.length === 1 && busy.got.length === 1)
    expect(quiet.got[0]?.kind).toBe('farewell')
    const late = createConnection({ ...server.address })
    await new Promise<void>((resolve) => late.once('error', () => resolve()))
    await clock.advance(20)
    await until(() => quiet.hasEnded)
    expect(busy.hasEnded).toBe(false)
    busy.socket.write(encodeFrame(paired('crossed'), 2))
    await until(() => asked.length === 2)
    for (const [{ text }, reply] of asked) reply(paired(text))
    await until(() => busy.got.length === 3)
    await clock.advance(20)
    await until(() => busy.hasEnded)
    expect(isClosed).toBe(false)
    for (const { socket } of clients) socket.end()
    await closed
    expect(server.stats.ends).toEqual({ closed: 2 })
  })

  test('takes no more after half of its time, and closes at the end of it', async () => {
    const server = await listen({ onRequest: keep })
    const client = await connect(server.address)
    client.socket.write(encodeFrame(paired('endless'), 1))
    await until(() => asked.length === 1)
    const closed = server.close(10_000)
    await clock.advance(5_020)
    client.socket.write(encodeFrame(paired('too late'), 2))
    for (let turns = 0; turns < 20; turns++) await turn()
    expect(asked.length).toBe(1)
    await clock.advance(5_000)
    await closed
    await until(() => isGone(client))
  })

  test('of nobody, or without time, is over at once; and a second one is the first', async () => {
    const server = await listen()
    await connect(server.address)
    const first = server.close(0)
    expect(server.close(60_000)).toBe(first)
    await first
    expect(server.stats.peers).toBe(0)
    expect(clock.nextTimerMs()).toBeUndefined()
  })
})

describe('an address', () => {
  test('off this machine is refused in the clear', async () => {
    for (const host of ['0.0.0.0', '::', '10.1.2.3']) {
      expect(await faultOf(listen({ address: { host, port: 0 } }))).toMatchObject({ code: 'INVALID_ARGUMENT' })
    }
  })

  test('that another has is refused, with the reason', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const fault = await faultOf(listen({ address: { host: '127.0.0.1', port: (other.address() as { port: number }).port } }))
    expect(fault).toMatchObject({ code: 'UNAVAILABLE', retry: 'never', cause: { code: 'EADDRINUSE' } })
    other.close()
  })

  test('may be a Unix socket: for its owner alone, and what a killed process left is no hindrance', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hapax-unix-'))
    const path = join(folder, 'h.sock')
    try {
      const script = `require('node:net').createServer().listen(process.argv[1], () => process.send('there'))`
      const killed = spawn(process.execPath, ['-e', script, path], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
      await once(killed, 'message')
      expect(await faultOf(listen({ address: { path } }))).toMatchObject({ cause: { code: 'EADDRINUSE' } })
      killed.kill('SIGKILL')
      await once(killed, 'exit')
      expect(existsSync(path)).toBe(true)

      const server = await listen({ address: { path } })
      expect(server.address).toEqual({ path })
      expect((statSync(path).mode & 0o777).toString(8)).toBe('600')
      const client = await connect(server.address)
      client.socket.write(encodeFrame(paired('hi'), 1))
      await until(() => client.got.length === 1)
      await server.close(0)
      expect(existsSync(path)).toBe(false)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('that is a file of somebody is refused, and the file stays', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hapax-unix-'))
    const path = join(folder, 'ledger.txt')
    writeFileSync(path, 'mine')
    try {
      expect(await faultOf(listen({ address: { path } }))).toMatchObject({ code: 'UNAVAILABLE', cause: { code: 'EADDRINUSE' } })
      expect(readFileSync(path, 'utf8')).toBe('mine')
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('with as many connections as it may have takes no more', async () => {
    const server = await listen({ limits: { connectionsMax: 2 } })
    const [first] = [await connect(server.address), await connect(server.address)]
    const third = await connect(server.address)
    await until(() => isGone(third))
    expect(server.stats).toMatchObject({ peers: 2, crowded: 1 })
    first.socket.write(encodeFrame(paired('still'), 1))
    await until(() => first.got.length === 1)
  })
})
