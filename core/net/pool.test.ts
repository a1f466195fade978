/**
 * Connections that come and go under requests, over real sockets.
 * Invariant: a request whose bytes left is never sent again; one whose bytes did not, is, as long as its time lasts.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { seededRandom } from '../base/random.ts'
import { isKvError, type KvError } from '../kv/errors.ts'
import { testClock, type TestClock } from '../testing/clock.ts'
import type { Reply } from './accepted.ts'
import type { Address } from './address.ts'
import { Listener, type ListenerOptions } from './listener.ts'
import { Pool, type PoolOptions } from './pool.ts'
import { Folder, makeAuthority, makeCertificate, type Pems } from './testdata/certificates.ts'
import { tickerOf } from './testdata/clock.ts'
import { farewell, frameCodec, paired, ping, type Frame } from './testdata/frame.ts'
import { rough, until, type Rough } from './testdata/until.ts'
import { Credentials, type TlsFiles } from './tls.ts'

let clock: TestClock
let open: AsyncDisposable[]
let servers: Rough[]
/** `server: text` of each request but pings, in order. */
let asked: string[]
/** Requests that wait for the test. */
let kept: Reply<Frame>[]

beforeEach(() => {
  clock = testClock()
  open = []
  servers = []
  asked = []
  kept = []
})
afterEach(async () => {
  for (const each of open.toReversed())
    await (each instanceof Pool || each instanceof Listener ? each.close(0) : each[Symbol.asyncDispose]())
  for (const server of servers) await server.close()
})
const folder = new Folder()
afterAll(() => folder.remove())

const isFarewell = ({ kind }: Frame): boolean => kind === 'farewell'
async function listen(name: string, options: Partial<ListenerOptions<Frame, Frame>> = {}): Promise<Listener<Frame, Frame>> {
  const listener = await Listener.open<Frame, Frame>({
    address: { host: '127.0.0.1', port: 0 },
    security: 'plain',
    codec: frameCodec,
    ticker: tickerOf(clock),
    farewell,
    onRequest: (request, reply) => {
      if (request.text === 'ping') return reply(ping)
      asked.push(`${name}: ${request.text}`)
      if (request.text === 'keep') kept.push(reply)
      else reply(paired(`${name} has ${request.text}`))
    },
    ...options,
  })
  open.push(listener)
  return listener
}
async function listenRough(onSocket: (socket: Socket) => void, port = 0): Promise<Rough> {
  const server = await rough(onSocket, port)
  servers.push(server)
  return server
}
function poolOf(addresses: readonly Address[], options: Partial<PoolOptions<Frame, Frame>> = {}): Pool<Frame, Frame> {
  const pool = new Pool<Frame, Frame>({
    addresses,
    security: 'plain',
    codec: frameCodec,
    random: seededRandom(1),
    ping,
    isFarewell,
    ticker: tickerOf(clock),
    ...options,
  })
  open.push(pool)
  return pool
}
const ask = (pool: Pool<Frame, Frame>, text: string, timeoutMs = 1_000): Promise<string> =>
  pool.request(paired(text), { timeoutMs }).then(
    (answer) => answer.text,
    (error: KvError) => (isKvError(error) ? error.code : String(error)),
  )
/** Lets time pass in small steps until something holds: what the pool waits for is its own time, and bytes. */
async function passUntil(holds: () => boolean, stepMs = 10): Promise<void> {
  while (!holds()) {
    await clock.advance(stepMs)
    await turn()
  }
}

describe('connections', () => {
  test('are as many as asked for, spread over the addresses, and share the requests', async () => {
    const [a, b] = [await listen('a'), await listen('b')]
    const pool = poolOf([a.address, b.address], { size: 4 })
    await until(() => pool.stats.open === 4)
    expect([a.stats.peers, b.stats.peers]).toEqual([2, 2])
    const answers = Array.from({ length: 40 }, () => ask(pool, 'keep'))
    await until(() => kept.length === 40)
    expect(asked.filter((text) => text === 'a: keep').length).toBe(20)
    for (const reply of kept) reply(paired('done'))
    expect(new Set(await Promise.all(answers))).toEqual(new Set(['done']))
  })

  test('with fewer requests under way get the next ones', async () => {
    const byPeer: string[] = []
    const a = await listen('a', {
      onRequest: ({ text }, reply, peer) => {
        if (text !== 'ping') byPeer.push(`${peer.remote} ${text}`)
        if (text === 'keep') kept.push(reply)
        else reply(paired(text))
      },
    })
    const pool = poolOf([a.address], { size: 2 })
    await until(() => pool.stats.open === 2)
    const slow = ask(pool, 'keep', 60_000)
    await until(() => kept.length === 1)
    for (let at = 0; at < 6; at++) await ask(pool, 'quick')
    const busy = byPeer[0]?.split(' ')[0] as string
    expect(byPeer.length).toBe(7)
    expect(byPeer.filter((each) => each.startsWith(busy))).toEqual([`${busy} keep`])
    kept[0]?.(paired('late'))
    expect(await slow).toBe('late')
  })

  test('that were asked and are not heard are passed over, also when they have fewer requests under way', async () => {
    const [a, b] = [await listen('a'), await listen('b')]
    const pool = poolOf([a.address, b.address], { size: 2 })
    await until(() => pool.stats.open === 2)
    const slow = Array.from({ length: 6 }, () => ask(pool, 'keep', 60_000))
    await until(() => kept.length === 6)
    await clock.advance(101)
    kept[0]?.(paired('heard'))
    expect(await slow[0]).toBe('heard')
    const heard = asked[0]?.split(':')[0] as string
    for (let at = 0; at < 6; at++) void ask(pool, 'keep', 60_000)
    await until(() => kept.length === 12)
    expect(asked.slice(6)).toEqual(Array.from({ length: 6 }, () => `${heard}: keep`))
    for (const reply of kept) reply(paired('late'))
    await Promise.all(slow)
  })

  test('that do not answer the first ping are none', async () => {
    const mute = await listenRough((socket) => socket.resume())
    const a = await listen('a')
    const pool = poolOf([mute.address, a.address], { size: 1, random: { ...seededRandom(1), int: () => 0 } })
    await until(() => mute.sockets.length === 1)
    const answer = ask(pool, 'x', 10_000)
    expect(pool.stats.open).toBe(0)
    await passUntil(() => pool.stats.open === 1, 100)
    expect(await answer).toBe('a has x')
    expect(pool.stats).toMatchObject({ dials: 2, failedDials: 1 })
  })

  test('are replaced after their life without a failed request', async () => {
    const a = await listen('a')
    const pool = poolOf([a.address], { size: 2, lifeMs: 10_000 })
    await until(() => pool.stats.open === 2)
    const slow = ask(pool, 'keep', 60_000)
    await until(() => kept.length === 1)
    for (let at = 0; at < 25; at++) {
      await clock.advance(1_000)
      expect(await ask(pool, String(at))).toBe(`a has ${at}`)
    }
    expect(pool.stats).toMatchObject({ open: 2, failedDials: 0 })
    expect(pool.stats.dials).toBeGreaterThanOrEqual(4)
    // It had until its old connection was drained.
    expect(await slow).toBe('UNKNOWN_OUTCOME')
    kept[0]?.(paired('to nobody'))
    await until(() => a.stats.peers === 2)
  })

  test('go back to the address that they began with, when it is there again', async () => {
    const [a, b] = [await listen('a'), await listen('b')]
    const pool = poolOf([a.address, b.address], { size: 2 })
    await until(() => pool.stats.open === 2)
    await b.close(0)
    await passUntil(() => a.stats.peers === 2 && pool.stats.open === 2)
    const back = await listen('b', { address: b.address })
    // A connection that ended soon counts as a failure; these live long enough.
    await clock.advance(2_000)
    pool.recycle()
    await passUntil(() => back.stats.peers === 1 && a.stats.peers === 1 && pool.stats.open === 2)
  })

  test('are replaced after so many requests', async () => {
    const a = await listen('a')
    const pool = poolOf([a.address], { size: 1, lifeRequests: 10 })
    for (let at = 0; at < 100; at++) expect(await ask(pool, String(at))).toBe(`a has ${at}`)
    expect(pool.stats.dials).toBeGreaterThan(3)
    await until(() => a.stats.peers === 1)
  })
})

describe('a peer that goes', () => {
  test('with a farewell fails no request', async () => {
    const [a, b] = [await listen('a'), await listen('b')]
    const pool = poolOf([a.address, b.address], { size: 4 })
    await until(() => pool.stats.open === 4)
    const answers = Array.from({ length: 40 }, () => ask(pool, 'keep'))
    await until(() => kept.length === 40)
    const closed = a.close(10_000)
    const later: Promise<string>[] = []
    for (let at = 0; at < 50; at++) {
      later.push(ask(pool, 'x'))
      await turn()
    }
    for (const reply of kept) reply(paired('done'))
    expect(new Set(await Promise.all(answers))).toEqual(new Set(['done']))
    const texts = await Promise.all(later)
    expect(texts.filter((text) => !text.endsWith(' has x'))).toEqual([])
    await passUntil(() => a.stats.peers === 0)
    await closed
    await passUntil(() => pool.stats.open === 4)
    expect(b.stats.peers).toBe(4)
  })

  test('by a crash leaves what it was sent unknown, and what it was not goes elsewhere', async () => {
    const [a, b] = [await listen('a'), await listen('b')]
    const pool = poolOf([a.address, b.address], { size: 2 })
    await until(() => pool.stats.open === 2)
    const sent = [ask(pool, 'keep', 5_000), ask(pool, 'keep', 5_000)]
    await until(() => kept.length === 2)
    for (const peer of a.peers) peer.close()
    await until(() => pool.stats.open === 1)
    for (let at = 0; at < 10; at++) expect(await ask(pool, 'x')).toBe('b has x')
    for (const reply of kept) reply(paired('done'))
    expect((await Promise.all(sent)).toSorted()).toEqual(['UNKNOWN_OUTCOME', 'done'])
    expect(asked.filter((text) => text.endsWith('keep')).length).toBe(2)
    await passUntil(() => pool.stats.open === 2)
  })

  test('in the turn of a request, before its bytes left, costs the request nothing', async () => {
    const [a, b] = [await listen('a'), await listen('b')]
    const sockets: Socket[] = []
    const onSocket = (message: unknown): void => void sockets.push((message as { socket: Socket }).socket)
    subscribe('net.client.socket', onSocket)
    let encoded = 0
    const codec = {
      ...frameCodec,
      encode(frame: Frame, number: number) {
        // Each connection has got one by now, and waits for the end of the turn.
        if (frame.text === 'x' && ++encoded === 2)
          sockets.find(({ remotePort }) => remotePort === (a.address as { port: number }).port)?.destroy()
        return frameCodec.encode(frame, number)
      },
    }
    const pool = poolOf([a.address, b.address], { size: 2, codec })
    await until(() => pool.stats.open === 2)
    unsubscribe('net.client.socket', onSocket)
    expect(await Promise.all([ask(pool, 'x'), ask(pool, 'x')])).toEqual(['b has x', 'b has x'])
    expect(asked).toEqual(['b: x', 'b: x'])
    expect(encoded).toBe(3)
  })

  test('and comes back is dialled again, with pauses that grow', async () => {
    const attempts: number[] = []
    const gone = await listenRough((socket) => {
      attempts.push(clock.elapsed())
      socket.destroy()
    })
    const pool = poolOf([gone.address], { size: 1, ping: undefined as never, backoffMs: 50, backoffMsMax: 1_000 })
    await passUntil(() => attempts.length === 9, 5)
    const pauses = attempts.slice(1).map((at, index) => at - (attempts[index] as number))
    for (const [index, pause] of pauses.entries()) {
      const longest = Math.min(1_000, 50 * 2 ** index)
      // The clock goes in steps of 5 ms, and a close has to be heard.
      expect(pause, `pause ${index}`).toBeGreaterThanOrEqual(longest / 2)
      expect(pause, `pause ${index}`).toBeLessThanOrEqual(longest + 100)
    }
    await pool.close(0)
  })
})

describe('without a connection a request', () => {
  test('waits for one as long as its time lasts, and then says why there was none', async () => {
    const { address, close } = await rough(() => undefined)
    await close()
    const pool = poolOf([address], { size: 2 })
    const ends = pool.request(paired('x'), { timeoutMs: 1_000 }).catch((error: unknown) => error)
    await passUntil(() => pool.stats.failedDials > 2)
    await clock.advance(1_000)
    expect(await ends).toMatchObject({ code: 'UNAVAILABLE', retry: 'safe', cause: { cause: { code: 'ECONNREFUSED' } } })

    const waiting = ask(pool, 'y', 60_000)
    const back = await listen('back', { address })
    await passUntil(() => asked.length > 0, 50)
    expect(await waiting).toBe('back has y')
    expect(back.stats.peers).toBeGreaterThan(0)
  })

  test('is refused when too many wait, when its signal fires, and when the pool closes', async () => {
    const { address, close } = await rough(() => undefined)
    await close()
    const pool = poolOf([address], { size: 1, waitingMax: 2 })
    const first = ask(pool, 'a', 60_000)
    const signal = new AbortController()
    const second = pool.request(paired('b'), { timeoutMs: 60_000, signal: signal.signal }).catch((error: KvError) => error.code)
    expect(await ask(pool, 'c')).toBe('BUSY')
    signal.abort()
    expect(await second).toBe('ABORTED')
    await pool.close()
    expect(await first).toBe('CLOSED')
    expect(await ask(pool, 'd')).toBe('CLOSED')
    expect(() => pool.send(paired('e'))).toThrow('HPX-2004')
    expect(clock.nextTimerMs()).toBeUndefined()
  })
})

test('a pool that closes waits for what is under way', async () => {
  const a = await listen('a')
  const pool = poolOf([a.address], { size: 2 })
  await pool.ready({ timeoutMs: 1_000 })
  const answer = ask(pool, 'keep', 60_000)
  await until(() => kept.length === 1)
  let isClosed = false
  const closed = pool.close(10_000).then(() => (isClosed = true))
  await turn()
  expect(isClosed).toBe(false)
  kept[0]?.(paired('done'))
  expect(await answer).toBe('done')
  await closed
  await until(() => a.stats.peers === 0)
})

test('a pool that closes without time leaves what is under way unknown', async () => {
  const a = await listen('a')
  const pool = poolOf([a.address], { size: 1 })
  const answer = ask(pool, 'keep', 60_000)
  await until(() => kept.length === 1)
  await pool.close(0)
  expect(await answer).toBe('UNKNOWN_OUTCOME')
})

describe('certificates', () => {
  let authority: Pems
  const own = async (wish: object, name: string, trusted: readonly Pems[]): Promise<{ files: TlsFiles; live: Credentials }> => {
    const files = folder.write(name, trusted, await makeCertificate(authority, wish))
    const live = await Credentials.open(files, { ticker: tickerOf(clock) })
    open.push(live)
    return { files, live }
  }
  beforeEach(async () => {
    authority = await makeAuthority()
  })
  const shop = { uris: ['spiffe://hapax/client/shop'], isClientOnly: true }

  test('and their authority change under traffic, and no request fails', async () => {
    const server = await own({}, 'server', [authority])
    const client = await own(shop, 'client', [authority])
    const listener = await listen('a', { security: { credentials: server.live, roles: ['client'] } })
    const pool = poolOf([listener.address], { size: 4, security: { credentials: client.live, roles: ['proxy'] } })
    await until(() => pool.stats.open === 4)
    let isOver = false
    const failures: string[] = []
    let answered = 0
    const traffic = Array.from({ length: 8 }, async () => {
      while (!isOver) {
        const text = await ask(pool, 'x', 60_000)
        if (text === 'a has x') answered++
        else failures.push(text)
        await turn()
      }
    })
    const change = async (trusted: readonly Pems[], issuer: Pems): Promise<void> => {
      for (const [{ files, live }, wish] of [
        [server, {}],
        [client, shop],
      ] as const) {
        const { cert, key } = await makeCertificate(issuer, wish)
        writeFileSync(files.cert, cert)
        writeFileSync(files.key, key)
        writeFileSync(files.ca, trusted.map((each) => each.cert).join('\n'))
        expect(await live.reload()).toBe(true)
      }
      const before = answered
      // Four new connections, and the four old ones gone.
      const dials = pool.stats.dials
      await passUntil(() => listener.stats.peers === 4 && pool.stats.open === 4 && answered > before + 100)
      expect(pool.stats.dials).toBeGreaterThanOrEqual(dials)
    }
    const next = await makeAuthority('next')
    await change([authority, next], authority)
    await change([authority, next], next)
    await change([next], next)
    expect(pool.stats.dials).toBeGreaterThanOrEqual(16)
    isOver = true
    await Promise.all(traffic)
    expect(failures).toEqual([])
    expect(pool.stats.failedDials).toBe(0)
  })

  test('that nobody trusts make a request fail at once, for good', async () => {
    const stranger = await makeAuthority('stranger')
    const server = await own({}, 'untrusted', [authority])
    const listener = await listen('a', { security: { credentials: server.live, roles: ['client'] } })
    const mine = await makeCertificate(stranger, shop)
    const live = await Credentials.open(folder.write('mine', [stranger], mine), { ticker: tickerOf(clock) })
    open.push(live)
    const pool = poolOf([listener.address], { size: 2, security: { credentials: live, roles: ['proxy'] } })
    const fault = await pool.request(paired('x'), { timeoutMs: 60_000 }).catch((error: unknown) => error)
    expect(fault).toMatchObject({ code: 'UNAVAILABLE', retry: 'never' })
    expect(clock.elapsed()).toBe(0)
  })
})

test('a peer that cannot be trusted is no reason to give up another', async () => {
  const [authority, stranger] = [await makeAuthority(), await makeAuthority()]
  const live = async (name: string, issuer: Pems, wish = {}): Promise<Credentials> => {
    const credentials = await Credentials.open(folder.write(name, [authority, stranger], await makeCertificate(issuer, wish)), {
      ticker: tickerOf(clock),
    })
    open.push(credentials)
    return credentials
  }
  const wish = { uris: ['spiffe://hapax/client/shop'] }
  const wrong = await listen('wrong', {
    security: { credentials: await live('wrong', authority, { dns: ['x'], ips: [] }), roles: ['client'] },
  })
  const good = await listen('good', {
    security: { credentials: await live('good', authority), roles: ['client'] },
    onRequest: ({ text }, reply) => (text === 'ping' ? kept.push(reply) : reply(paired(`good has ${text}`))),
  })
  const security = { credentials: await live('shop', authority, wish), roles: ['proxy'] as const }
  const pool = poolOf([wrong.address, good.address], { size: 2, security })
  const answer = ask(pool, 'x', 60_000)
  // The answer to the ping comes after the other place has failed.
  await until(() => kept.length === 1 && pool.stats.failedDials === 1)
  kept[0]?.(ping)
  expect(await answer).toBe('good has x')
})

test('many places warn of no leak, and leave none', async () => {
  const warnings: string[] = []
  const onWarning = (warning: Error): void => void warnings.push(warning.name)
  process.on('warning', onWarning)
  const a = await listen('a')
  const pool = poolOf([a.address], { size: 64 })
  await until(() => pool.stats.open === 64)
  await Promise.all(Array.from({ length: 200 }, () => ask(pool, 'x')))
  await pool.close()
  await until(() => a.stats.peers === 0)
  process.off('warning', onWarning)
  expect(warnings).toEqual([])
})
