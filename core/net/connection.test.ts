import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { setImmediate as turn } from 'node:timers/promises'
import dns from 'node:dns'
import type { Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { seededRandom } from '../base/random.ts'
import { isKvError } from '../kv/errors.ts'
import { testClock, type TestClock } from '../testing/clock.ts'
import { Connection, type ConnectionOptions } from './connection.ts'
import { dial } from './dial.ts'
import { Folder, makeAuthority, makeCertificate } from './testdata/certificates.ts'
import { tickerOf } from './testdata/clock.ts'
import { encodeFrame, farewell, frameCodec, paired, ping, type Frame } from './testdata/frame.ts'
import { rough, until, type Rough } from './testdata/until.ts'
import type { Ticker } from './ticker.ts'
import { Credentials } from './tls.ts'

let clock: TestClock
let ticker: Ticker
let server: Rough | undefined
let connection: Connection<Frame, Frame> | undefined
/** Frames that the server got and does with as the test says. */
let got: Frame[]

beforeEach(() => {
  clock = testClock()
  ticker = tickerOf(clock)
  got = []
})
afterEach(async () => {
  await connection?.close()
  await server?.close()
  connection = undefined
  server = undefined
})

/** A connection to a server that does `act` with each frame. */
async function open(
  act: (frame: Frame, socket: Socket) => void = () => undefined,
  options: Partial<ConnectionOptions<Frame, Frame>> = {},
): Promise<Connection<Frame, Frame>> {
  server = await rough((socket) => {
    const decoder = frameCodec.decoder()
    socket.on('data', (bytes) =>
      decoder.push(bytes, (frame) => {
        got.push(frame)
        act(frame, socket)
      }),
    )
  })
  const { socket } = await dial({ address: server.address, security: 'plain', deadline: ticker.now() + 1_000, ticker })
  connection = new Connection(socket, { codec: frameCodec, ticker, ...options })
  return connection
}
const echo = (frame: Frame, socket: Socket): void => void socket.write(encodeFrame(frame, frame.number ?? 0))
const serverSocket = (): Socket => server?.sockets[0] as Socket
const in1s = () => ({ deadline: ticker.now() + 1_000 })
const codeOf = async (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'answered',
    (error: unknown) => (isKvError(error) ? error.code : String(error)),
  )

describe('requests', () => {
  test('find their answers in whatever order 10,000 of them come back', async () => {
    const frames: [Frame, Socket][] = []
    const link = await open((frame, socket) => void frames.push([frame, socket]))
    const random = seededRandom(7)
    const answers = Array.from({ length: 10_000 }, (_, at) => link.request(paired(`request ${at}`), in1s()))
    await until(() => frames.length === 10_000)
    expect(link.inFlight).toBe(10_000)
    expect(frames.map(([{ text }]) => text)).toEqual(answers.map((_, at) => `request ${at}`))
    for (let at = frames.length - 1; at > 0; at--) {
      const other = random.int(at + 1)
      const swap = frames[at] as [Frame, Socket]
      frames[at] = frames[other] as [Frame, Socket]
      frames[other] = swap
    }
    for (const [frame, socket] of frames) echo(frame, socket)
    const texts = (await Promise.all(answers)).map(({ text }) => text)
    expect(texts).toEqual(answers.map((_, at) => `request ${at}`))
    expect(link.inFlight).toBe(0)
  })

  test('of one turn leave in one write', async () => {
    const link = await open(echo)
    await Promise.all(Array.from({ length: 100 }, (_, at) => link.request(paired(String(at)), in1s())))
    expect(link.stats).toMatchObject({ requests: 100, writes: 1 })
    await link.request(paired('later'), in1s())
    expect(link.stats.writes).toBe(2)
  })

  test('are answered by a peer that sends one byte at a time', async () => {
    const link = await open((frame, socket) => {
      void (async () => {
        for (const byte of encodeFrame(frame, frame.number ?? 0)) {
          socket.write(Uint8Array.of(byte))
          await turn()
        }
      })()
    })
    expect((await link.request(paired('slowly'), in1s())).text).toBe('slowly')
  })

  test('beyond the bound of requests are refused at once', async () => {
    const link = await open(undefined, { inFlightMax: 2 })
    const first = [link.request(paired('a'), in1s()), link.request(paired('b'), in1s())].map(codeOf)
    expect(await codeOf(link.request(paired('c'), in1s()))).toBe('BUSY')
    await link.close()
    expect(await Promise.all(first)).toEqual(['UNAVAILABLE', 'UNAVAILABLE'])
    expect(got).toEqual([])
  })

  test('beyond the bound of bytes are refused at once, when the peer does not read', async () => {
    const link = await open(undefined, { queueBytesMax: 400_000, inFlightMax: 100_000 })
    await until(() => server?.sockets.length === 1)
    serverSocket().pause()
    const text = 'x'.repeat(100_000)
    const ends: Promise<string>[] = []
    let refused: string | undefined
    // The network between takes some megabytes before it stops.
    while (refused === undefined && ends.length < 1_000) {
      const end = codeOf(link.request(paired(text), in1s()))
      ends.push(end)
      refused = await Promise.race([end, turn().then(() => undefined)])
      expect(link.queuedBytes).toBeLessThanOrEqual(400_000)
    }
    expect(refused).toBe('BUSY')
    serverSocket().destroy()
    const codes = new Set(await Promise.all(ends))
    // What the socket has taken may have arrived; what waited here has not.
    expect(codes).toEqual(new Set(['BUSY', 'UNKNOWN_OUTCOME', 'UNAVAILABLE']))
  })

  test('that waited while the peer did not read leave when it does', async () => {
    const link = await open(echo, { queueBytesMax: 64_000_000 })
    await until(() => server?.sockets.length === 1)
    serverSocket().pause()
    const answers: Promise<Frame>[] = []
    for (let at = 0; at < 100; at++) {
      answers.push(link.request(paired(`${at} ${'x'.repeat(100_000)}`), in1s()))
      await turn()
    }
    expect(link.queuedBytes).toBeGreaterThan(1_000_000)
    serverSocket().resume()
    expect((await Promise.all(answers)).map(({ text }) => parseInt(text, 10))).toEqual(answers.map((_, at) => at))
  })

  test('are refused when their signal has fired, and given up when it fires', async () => {
    const link = await open()
    expect(await codeOf(link.request(paired('a'), { ...in1s(), signal: AbortSignal.abort() }))).toBe('ABORTED')
    const early = new AbortController()
    const unsent = codeOf(link.request(paired('b'), { ...in1s(), signal: early.signal }))
    early.abort()
    expect(await unsent).toBe('ABORTED')
    const late = new AbortController()
    const sent = codeOf(link.request(paired('c'), { ...in1s(), signal: late.signal }))
    await until(() => got.length > 0)
    late.abort()
    expect(await sent).toBe('UNKNOWN_OUTCOME')
    expect(got.map(({ text }) => text)).toEqual(['c'])
  })
})

describe('a deadline', () => {
  test('that passes before the bytes have left says that nothing happened', async () => {
    const link = await open()
    expect(await codeOf(link.request(paired('a'), { deadline: ticker.now() }))).toBe('DEADLINE_EXCEEDED')
    expect(got).toEqual([])
  })

  test('that passes after that says that nobody knows, and a late answer is dropped and counted', async () => {
    const link = await open()
    const ended = codeOf(link.request(paired('a'), { deadline: ticker.now() + 200 }))
    const other = link.request(paired('b'), { deadline: ticker.now() + 2_000 })
    await until(() => got.length === 2)
    await clock.advance(199)
    expect(link.inFlight).toBe(2)
    await clock.advance(10)
    expect(await ended).toBe('UNKNOWN_OUTCOME')
    for (const frame of got) echo(frame, serverSocket())
    expect((await other).text).toBe('b')
    expect(link.stats.late).toBe(1)
  })

  test('has one timer for all requests of a connection', async () => {
    let timers = 0
    const counting: Ticker = { now: ticker.now, after: (ms, act) => (timers++, ticker.after(ms, act)) }
    const link = await open(echo, { ticker: counting })
    timers = 0
    for (let round = 0; round < 5; round++) {
      await Promise.all(Array.from({ length: 1_000 }, () => link.request(paired('a'), in1s())))
    }
    expect(timers).toBe(1)
    await clock.advance(1_100)
    expect(clock.nextTimerMs()).toBeUndefined()
  })

  test('of the earliest request counts, in whatever order they came', async () => {
    const link = await open()
    const order: string[] = []
    for (const ms of [500, 100, 300]) {
      void link.request(paired('a'), { deadline: ticker.now() + ms }).catch(() => order.push(`${ms} at ${ticker.now()}`))
    }
    await until(() => got.length === 3)
    await clock.advance(600)
    expect(order).toEqual(['100 at 100', '300 at 300', '500 at 500'])
  })
})

describe('the end of a connection', () => {
  test('leaves a request whose bytes left unknown, and one that still waited safe', async () => {
    const link = await open()
    const sent = codeOf(link.request(paired('a'), in1s()))
    await until(() => got.length === 1)
    serverSocket().resetAndDestroy()
    expect(await sent).toBe('UNKNOWN_OUTCOME')
    expect(await link.closed).toBe('reset')
    expect(await codeOf(link.request(paired('b'), in1s()))).toBe('UNAVAILABLE')
  })

  test('comes when the peer sends no more: no answer can follow', async () => {
    const link = await open()
    const sent = codeOf(link.request(paired('a'), in1s()))
    await until(() => got.length === 1)
    serverSocket().end()
    expect(await sent).toBe('UNKNOWN_OUTCOME')
    expect(await link.closed).toBe('ended')
  })

  test('comes then also when the peer reads no more either', async () => {
    const link = await open(undefined, { queueBytesMax: 64_000_000 })
    await until(() => server?.sockets.length === 1)
    serverSocket().pause()
    const ends = Array.from({ length: 200 }, () => codeOf(link.request(paired('x'.repeat(200_000)), in1s())))
    await turn()
    expect(link.queuedBytes).toBeGreaterThan(1_000_000)
    serverSocket().end()
    expect(new Set(await Promise.all(ends))).toEqual(new Set(['UNKNOWN_OUTCOME']))
    expect(await link.closed).toBe('ended')
  })

  test('comes with garbage, after the answers before it were heard', async () => {
    const link = await open((frame, socket) =>
      socket.write(Buffer.concat([encodeFrame(frame, frame.number ?? 0), Buffer.from('HTTP/1.1 400')])),
    )
    const [first, second] = [link.request(paired('a'), in1s()), codeOf(link.request(paired('b'), in1s()))]
    expect((await first).text).toBe('a')
    expect(await second).toBe('UNKNOWN_OUTCOME')
    expect(await link.closed).toBe('protocol')
  })

  test('waits for answers after a farewell, and takes no request meanwhile', async () => {
    let left = 0
    const link = await open(undefined, { isFarewell: ({ kind }) => kind === 'farewell', onLeaving: () => left++ })
    const sent = link.request(paired('a'), in1s())
    await until(() => got.length === 1)
    serverSocket().write(encodeFrame(farewell, 0))
    await until(() => !link.isOpen)
    expect(left).toBe(1)
    expect(await codeOf(link.request(paired('b'), in1s()))).toBe('UNAVAILABLE')
    echo(got[0] as Frame, serverSocket())
    expect((await sent).text).toBe('a')
    expect(await link.closed).toBe('closed')
    expect(left).toBe(1)
  })

  test('comes at the deadline of a drain, when an answer does not', async () => {
    const link = await open()
    const sent = codeOf(link.request(paired('a'), { deadline: ticker.now() + 60_000 }))
    await until(() => got.length === 1)
    const drained = link.drain(ticker.now() + 5_000)
    await clock.advance(4_999)
    expect(link.inFlight).toBe(1)
    await clock.advance(1)
    await drained
    expect(await sent).toBe('UNKNOWN_OUTCOME')
  })

  test('sends what was to be sent without an answer', async () => {
    const link = await open()
    link.send({ kind: 'free', text: 'last words' })
    await link.close()
    await until(() => got.length === 1)
    expect(got[0]?.text).toBe('last words')
    expect(() => link.send(paired('more'))).toThrow('HPX-2012')
  })
})

describe('silence', () => {
  const options = { ping, pingAfterMs: 15_000, pingTimeoutMs: 2_000 }

  test('is broken by a ping, and its echo is life enough', async () => {
    let echoes = 0
    const numberOf = (frame: Frame): number | undefined => (echoes++, frameCodec.numberOf(frame))
    const link = await open(echo, { ...options, codec: { ...frameCodec, numberOf } })
    await clock.advance(14_999)
    expect(got).toEqual([])
    await clock.advance(1)
    await until(() => echoes === 1)
    await clock.advance(14_999)
    expect(link.isOpen).toBe(true)
    expect(got.length).toBe(1)
    expect(link.stats.late).toBe(0)
  })

  test('after a ping ends the connection', async () => {
    const link = await open(undefined, options)
    await clock.advance(15_000)
    await until(() => got.length === 1)
    await clock.advance(1_999)
    expect(link.isOpen).toBe(true)
    await clock.advance(10)
    expect(await link.closed).toBe('silent')
  })

  test('of a peer that lets requests run out is asked about at once', async () => {
    const link = await open(undefined, options)
    const sent = codeOf(link.request(paired('a'), { deadline: ticker.now() + 200 }))
    await until(() => got.length === 1)
    await clock.advance(200)
    expect(await sent).toBe('UNKNOWN_OUTCOME')
    await until(() => got.length === 2)
    expect(got[1]?.text).toBe('ping')
    await clock.advance(2_010)
    expect(await link.closed).toBe('silent')
  })

  test('is none while other answers come', async () => {
    const link = await open((frame, socket) => (frame.text === 'yes' ? echo(frame, socket) : undefined), options)
    const lost = codeOf(link.request(paired('no'), { deadline: ticker.now() + 200 }))
    await until(() => got.length === 1)
    await link.request(paired('yes'), in1s())
    await clock.advance(250)
    expect(await lost).toBe('UNKNOWN_OUTCOME')
    await turn()
    expect(got.map(({ text }) => text)).toEqual(['no', 'yes'])
  })
})

describe('dialling', () => {
  test('in the clear off this machine is refused, by address and by what a name turns out to be', async () => {
    const own = Object.values(networkInterfaces()).flatMap((each) => each ?? [])
    const outside = own.find(({ family, internal }) => family === 'IPv4' && !internal)?.address
    if (outside === undefined) return
    server = await rough(() => undefined, 0, '0.0.0.0')
    const { port } = server.address
    const faultOf = (host: string): Promise<unknown> =>
      dial({ address: { host, port }, security: 'plain', ...in1s(), ticker }).catch((error: unknown) => error)
    const refused = { code: 'INVALID_ARGUMENT', message: expect.stringContaining('plain text is allowed on loopback alone') }
    expect(await faultOf(outside)).toMatchObject(refused)
    for (let turns = 0; turns < 20; turns++) await turn()
    expect(server.sockets.length).toBe(0)
    const lookup = dns.lookup
    dns.lookup = ((_: string, options: { all?: boolean }, done: (...args: unknown[]) => void) =>
      options.all ? done(null, [{ address: outside, family: 4 }]) : done(null, outside, 4)) as never
    try {
      expect(await faultOf('localhost')).toMatchObject(refused)
    } finally {
      dns.lookup = lookup
    }
  })

  test('ends at its deadline, and at its signal', async () => {
    server = await rough((socket) => socket.resume())
    const folder = new Folder()
    const authority = await makeAuthority()
    const credentials = await Credentials.open(folder.write('p', [authority], await makeCertificate(authority)))
    const security = { credentials, roles: ['proxy'] as const }
    try {
      const late = dial({ address: server.address, security, ...in1s(), ticker }).catch((error: unknown) => error)
      await until(() => server?.sockets.length === 1)
      await clock.advance(1_000)
      expect(await late).toMatchObject({ code: 'UNAVAILABLE', retry: 'safe' })
      await until(() => serverSocket().readableEnded || serverSocket().destroyed)

      const signal = new AbortController()
      const given = dial({ address: server.address, security, ...in1s(), ticker, signal: signal.signal }).catch((error: unknown) => error)
      await until(() => server?.sockets.length === 2)
      signal.abort()
      expect(await given).toMatchObject({ code: 'UNAVAILABLE' })
      expect(clock.nextTimerMs()).toBeUndefined()
    } finally {
      await credentials.close()
      folder.remove()
    }
  })
})

test('messages that answer nothing go to whoever takes them, else they are counted', async () => {
  const heard: string[] = []
  const link = await open(undefined, { onMessage: ({ text }) => heard.push(text) })
  await until(() => server?.sockets.length === 1)
  serverSocket().write(encodeFrame({ kind: 'free', text: 'news' }, 0))
  await until(() => heard.length === 1)
  expect(heard).toEqual(['news'])
  await link.close()
  await server?.close()

  const deaf = await open()
  await until(() => server?.sockets.length === 1)
  serverSocket().write(encodeFrame({ kind: 'free', text: 'news' }, 0))
  await until(() => deaf.stats.unexpected === 1)
})
