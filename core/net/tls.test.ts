/**
 * Who gets a connection by TLS and who does not, over real sockets; and certificates that change meanwhile.
 * Invariant: whoever is refused never reaches a request of the other side.
 */
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { connect as connectTls, createServer, type TLSSocket } from 'node:tls'
import type { AddressInfo, Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { isKvError, type KvError } from '../kv/errors.ts'
import { testClock } from '../testing/clock.ts'
import { Connection } from './connection.ts'
import { dial, type Dialled } from './dial.ts'
import type { Reply } from './accepted.ts'
import type { Role } from './identity.ts'
import { Listener, type ListenerOptions } from './listener.ts'
import { tickerOf } from './testdata/clock.ts'
import { Folder, makeAuthority, makeCertificate, type Pems, type Wish } from './testdata/certificates.ts'
import { encodeFrame, frameCodec, paired, type Frame } from './testdata/frame.ts'
import { until } from './testdata/until.ts'
import { systemTicker } from './ticker.ts'
import { Credentials, type TlsFiles } from './tls.ts'

const folder = new Folder()
let authority: Pems
let stranger: Pems
const open: AsyncDisposable[] = []

beforeAll(async () => {
  authority = await makeAuthority()
  stranger = await makeAuthority()
})
afterAll(() => folder.remove())
afterEach(async () => {
  for (const each of open.splice(0).toReversed()) await each[Symbol.asyncDispose]()
})

const kept = <T extends AsyncDisposable>(each: T): T => (open.push(each), each)
const shop: Wish = { uris: ['spiffe://hapax/client/shop'], isClientOnly: true }
let files = 0
async function credentials(wish: Wish = {}, issuer = authority, trusted: readonly Pems[] = [authority]): Promise<Credentials> {
  return kept(await Credentials.open(folder.write(`p${files++}`, trusted, await makeCertificate(issuer, wish))))
}

let served: string[] = []
async function listen(own: Credentials, options: Partial<ListenerOptions<Frame, Frame>> = {}): Promise<Listener<Frame, Frame>> {
  served = []
  return kept(
    await Listener.open<Frame, Frame>({
      address: { host: '127.0.0.1', port: 0 },
      security: { credentials: own, roles: ['client'] },
      codec: frameCodec,
      onRequest: (request, reply, peer) => {
        served.push(`${peer.identity?.role} ${peer.identity?.name}: ${request.text}`)
        reply(paired(request.text))
      },
      ...options,
    }),
  )
}
const dialTo = (to: Listener<Frame, Frame>, own: Credentials, roles: readonly Role[] = ['proxy'], serverName?: string): Promise<Dialled> =>
  dial({
    address: to.address,
    security: { credentials: own, roles, ...(serverName === undefined ? {} : { serverName }) },
    deadline: systemTicker.now() + 10_000,
    ticker: systemTicker,
  })
const closeOf = (socket: Socket): Promise<void> =>
  socket.closed ? Promise.resolve() : new Promise((resolve) => socket.once('close', () => resolve()))
const faultOf = (promise: Promise<unknown>): Promise<KvError> =>
  promise.then(
    () => expect.unreachable('it was let in'),
    (error: KvError) => (isKvError(error) ? error : expect.unreachable(String(error))),
  )
/** What a request on a new connection comes to. */
async function ask(dialled: Promise<Dialled>): Promise<string> {
  const { socket, identity } = await dialled
  const connection = kept(new Connection<Frame, Frame>(socket, { codec: frameCodec, ticker: systemTicker, identity }))
  return connection.request(paired('hi'), { deadline: systemTicker.now() + 10_000 }).then(
    ({ text }) => text,
    (error: KvError) => error.code,
  )
}

describe('both sides', () => {
  test('know each other by TLS 1.3', async () => {
    const server = await listen(await credentials())
    const { socket, identity } = await dialTo(server, await credentials(shop))
    expect((socket as TLSSocket).getProtocol()).toBe('TLSv1.3')
    expect(identity).toEqual({ cluster: 'hapax', role: 'proxy', name: 'p1' })
    expect(await ask(Promise.resolve({ socket, identity }))).toBe('hi')
    expect(served).toEqual(['client shop: hi'])
    expect(server.stats).toMatchObject({ peers: 1, strangers: 0 })
  })

  test('know each other over a Unix socket', async () => {
    const server = await listen(await credentials(), { address: { path: `${folder.path}/tls.sock` } })
    expect(await ask(dialTo(server, await credentials(shop), ['proxy'], 'localhost'))).toBe('hi')
    expect((await faultOf(dialTo(server, await credentials(shop)))).message).toContain('needs the host name')
  })
})

describe('a client refuses a server', () => {
  test.each<[string, Wish, string]>([
    ['with another name', { dns: ['elsewhere'], ips: ['10.0.0.1'] }, 'ERR_TLS_CERT_ALTNAME_INVALID'],
    ['with a certificate of a client', { ...shop, uris: ['spiffe://hapax/proxy/p1'] }, 'INVALID_PURPOSE'],
    ['in another role', { uris: ['spiffe://hapax/storage/s1'] }, 'is for a storage'],
    ['of another cluster', { uris: ['spiffe://other/proxy/p1'] }, 'is for cluster other'],
  ])('%s', async (_, wish, reason) => {
    const server = await listen(await credentials(wish))
    const fault = await faultOf(dialTo(server, await credentials(shop)))
    expect(fault.message).toContain(reason)
    expect(fault).toMatchObject({ code: 'UNAVAILABLE', retry: 'never' })
  })

  test('of another authority', async () => {
    const server = await listen(await credentials({}, stranger, [stranger, authority]))
    expect(await faultOf(dialTo(server, await credentials(shop)))).toMatchObject({ code: 'UNAVAILABLE', retry: 'never' })
  })

  test('with a certificate that has ended, or without a role, which ours would not even start with', async () => {
    for (const [wish, reason] of [
      [{ endsInMs: -3_600_000 }, 'CERT_HAS_EXPIRED'],
      [{ uris: [] }, 'names no role'],
    ] as const) {
      const { cert, key } = await makeCertificate(authority, wish)
      const server = createServer({ cert, key, ca: authority.cert, requestCert: true }, (socket) => socket.on('error', () => undefined))
      server.on('tlsClientError', () => undefined).listen(0, '127.0.0.1')
      await once(server, 'listening')
      const fault = await faultOf(
        dial({
          address: { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
          security: { credentials: await credentials(shop), roles: ['proxy'] },
          deadline: systemTicker.now() + 10_000,
          ticker: systemTicker,
        }),
      )
      expect(fault.message).toContain(reason)
      server.close()
    }
  })

  test('that speaks TLS 1.2 alone', async () => {
    const { cert, key } = await makeCertificate(authority)
    const server = createServer({ cert, key, maxVersion: 'TLSv1.2' }).on('tlsClientError', () => undefined)
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const fault = await faultOf(
      dial({
        address: { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
        security: { credentials: await credentials(shop), roles: ['proxy'] },
        deadline: systemTicker.now() + 10_000,
        ticker: systemTicker,
      }),
    )
    expect(fault.message).toMatch(/ERR_SSL_.*PROTOCOL_VERSION/)
    server.close()
  })
})

describe('a server refuses a client', () => {
  test.each<[string, Wish, 'untrusted' | 'unwanted']>([
    ['in another role', { uris: ['spiffe://hapax/storage/s1'] }, 'unwanted'],
    ['of another cluster', { uris: ['spiffe://other/client/shop'] }, 'unwanted'],
    ['with two roles', { uris: ['spiffe://hapax/client/shop', 'spiffe://hapax/admin/a'] }, 'unwanted'],
    ['without a role', { uris: [] }, 'unwanted'],
    ['whose certificate has ended', { ...shop, endsInMs: -3_600_000 }, 'untrusted'],
  ])('%s', async (_, wish, count) => {
    const server = await listen(await credentials())
    const { port } = server.address as { port: number }
    const { cert, key } = await makeCertificate(authority, wish)
    const socket = connectTls({ port, host: '127.0.0.1', cert, key, ca: authority.cert, servername: 'localhost' })
    socket.on('error', () => undefined).on('secureConnect', () => socket.write('anything'))
    await closeOf(socket)
    await until(() => server.stats[count] === 1)
    expect(server.stats).toMatchObject({ peers: 0, strangers: 0, ends: {} })
    expect(served).toEqual([])
  })

  test.each<[string, () => Promise<object>]>([
    ['of another authority', () => makeCertificate(stranger, shop)],
    ['without a certificate', () => Promise.resolve({})],
    ['that speaks TLS 1.2', async () => ({ ...(await makeCertificate(authority, shop)), maxVersion: 'TLSv1.2' })],
  ])('%s', async (_, options) => {
    const server = await listen(await credentials())
    const { port } = server.address as { port: number }
    const socket = connectTls({ port, host: '127.0.0.1', ca: authority.cert, servername: 'localhost', ...(await options()) })
    socket.on('error', () => undefined).on('secureConnect', () => socket.write('anything'))
    await closeOf(socket)
    await until(() => server.stats.untrusted === 1)
    expect(server.stats).toMatchObject({ peers: 0, strangers: 0, ends: {} })
    expect(served).toEqual([])
  })

  test('whose requests are then unknown or never left, not answered', async () => {
    const server = await listen(await credentials())
    const wrong = await credentials({ uris: ['spiffe://hapax/storage/s1'] })
    expect(['UNKNOWN_OUTCOME', 'UNAVAILABLE']).toContain(await ask(dialTo(server, wrong)))
    expect(served).toEqual([])
  })

  test('whose certificate ends while it is connected', async () => {
    const clock = testClock(new Date())
    const server = await listen(await credentials(), { ticker: tickerOf(clock), clock })
    const { socket } = await dialTo(server, await credentials({ ...shop, endsInMs: 3_600_000 }))
    socket.on('error', () => undefined)
    await until(() => server.stats.peers === 1)
    clock.set(clock.now() + 3_590_000)
    await clock.advance(250)
    expect(server.stats.peers).toBe(1)
    clock.set(clock.now() + 20_000)
    await clock.advance(250)
    expect(server.stats.ends).toEqual({ expired: 1 })
  })
})

describe('peers that were let in before', () => {
  const exchanged = async (own: Credentials, files: TlsFiles, trusted: readonly Pems[]): Promise<void> => {
    const { cert, key } = await makeCertificate(authority)
    writeFileSync(files.cert, cert)
    writeFileSync(files.key, key)
    writeFileSync(files.ca, trusted.map((each) => each.cert).join('\n'))
    expect(await own.reload()).toBe(true)
  }

  test('stay when the certificate changes; when the authorities do, they go as soon as they have nothing under way', async () => {
    const clock = testClock()
    const files = folder.write('kept', [authority], await makeCertificate(authority))
    const own = kept(await Credentials.open(files, { ticker: tickerOf(clock), pollMs: 3_600_000 }))
    const asked: Reply<Frame>[] = []
    const server = await listen(own, { ticker: tickerOf(clock), onRequest: (_, reply) => void asked.push(reply) })
    const client = await credentials(shop)
    const [quiet, busy] = [(await dialTo(server, client)).socket, (await dialTo(server, client)).socket]
    let ended = 0
    for (const socket of [quiet, busy]) socket.on('end', () => ended++).resume()
    busy.write(encodeFrame(paired('long'), 1))
    await until(() => asked.length === 1 && server.stats.peers === 2)

    await exchanged(own, files, [authority])
    await clock.advance(1_000)
    for (let turns = 0; turns < 20; turns++) await turn()
    expect(ended).toBe(0)

    await exchanged(own, files, [authority, stranger])
    await clock.advance(250)
    await until(() => server.stats.peers === 1)
    expect(ended).toBe(1)
    asked[0]?.(paired('answer'))
    await until(() => busy.bytesRead > 0)
    await clock.advance(250)
    await until(() => server.stats.peers === 0)
    expect(server.stats.ends).toEqual({ closed: 2 })
  })
})

describe('the files of a process', () => {
  const write = async (wish: Wish = {}, trusted: readonly Pems[] = [authority]): Promise<TlsFiles> =>
    folder.write(`f${files++}`, trusted, await makeCertificate(authority, wish))
  const refusal = async (own: TlsFiles): Promise<string> => (await faultOf(Credentials.open(own))).message

  test('are refused when they do not fit, by name and without what is in them', async () => {
    const good = await write()
    const other = await write()
    expect(await refusal({ ...good, key: other.key })).toContain(
      `the key in ${other.key} does not belong to the certificate in ${good.cert}`,
    )
    expect(await refusal({ ...good, key: `${folder.path}/none.key` })).toContain('none.key cannot be read')
    expect(await refusal({ ...good, key: good.cert })).toContain('holds no private key')
    expect(await refusal({ ...good, ca: good.key })).toContain('holds no certificate')
    expect(await refusal({ ...good, ca: good.cert })).toContain('that is no authority')
    expect(await refusal(await write({ uris: [] }))).toContain('names no role')
    expect(await refusal(await write({ endsInMs: -1_000 }))).toMatch(/ended at 20/)
    const broken = `${folder.path}/broken.crt`
    writeFileSync(broken, '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
    expect(await refusal({ ...good, cert: broken })).toContain('cannot be read')
  })

  test('are looked at again: a good pair is taken, a half one is not, and what was in use stays', async () => {
    const clock = testClock()
    const problems: string[] = []
    let changes = 0
    const own = await write()
    const live = kept(
      await Credentials.open(own, { ticker: tickerOf(clock), pollMs: 5_000, onProblem: ({ message }) => problems.push(message) }),
    )
    live.onChange(() => changes++)
    const first = live.state
    expect(await live.reload()).toBe(false)

    const next = await makeCertificate(authority, { uris: ['spiffe://hapax/proxy/p2'] })
    writeFileSync(own.cert, next.cert)
    expect(await live.reload()).toBe(false)
    expect(await live.reload()).toBe(false)
    expect(problems.length).toBe(1)
    expect(problems[0]).toContain('does not belong')
    expect(live.state).toBe(first)

    writeFileSync(own.key, next.key)
    await clock.advance(5_000)
    await until(() => changes === 1)
    expect(live.state.identity.name).toBe('p2')
    expect(live.state.sessionIdContext).not.toBe(first.sessionIdContext)

    rmSync(own.key)
    expect(await live.reload()).toBe(false)
    expect(problems[1]).toContain('cannot be read')
    expect(live.state.identity.name).toBe('p2')
  })

  test('are not looked at any more after close', async () => {
    const clock = testClock()
    const live = await Credentials.open(await write(), { ticker: tickerOf(clock) })
    expect(clock.nextTimerMs()).toBe(5_000)
    await live.close()
    expect(clock.nextTimerMs()).toBeUndefined()
  })
})
