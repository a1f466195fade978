/**
 * Whose request it is (R14): what is believed, what is not, and what is said about wrong settings.
 */
import { channel } from 'node:diagnostics_channel'
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { seededRandom } from '../base/random.ts'
import type * as clientKeys from './client-key.ts'
import type { AddressedRequest, ClientKeyEvent, ClientKeyOptions } from './client-key.ts'

const seed = Number(process.env['HAPAX_SEED'] ?? 4711)

const peer = '203.0.113.9'
const from = (remoteAddress: string | undefined, forwarded?: string | string[], more: object = {}): AddressedRequest => ({
  socket: { remoteAddress },
  headers: { ...(forwarded === undefined ? {} : { 'x-forwarded-for': forwarded }), ...more },
})

/** Each test has a process of its own, as far as warnings go. */
let clientKey: typeof clientKeys.clientKey
const warned: string[] = []
const told: ClientKeyEvent[] = []
beforeEach(async () => {
  vi.resetModules()
  ;({ clientKey } = await import('./client-key.ts'))
  warned.length = 0
  told.length = 0
  const spy = vi.spyOn(process, 'emitWarning').mockImplementation((_message, options) => {
    warned.push((options as { code: string }).code)
  })
  const listen = (event: unknown): unknown => told.push(event as ClientKeyEvent)
  channel('hapax:client-key').subscribe(listen)
  onTestFinished(() => {
    spy.mockRestore()
    channel('hapax:client-key').unsubscribe(listen)
  })
})
const keyOf = (options: ClientKeyOptions, request: AddressedRequest): string => clientKey(options)(request)

describe('an address', () => {
  test('of IPv4 is itself, whichever way a socket or a proxy writes it (R14)', () => {
    for (const text of ['203.0.113.9', '::ffff:203.0.113.9', '::ffff:cb00:7109', '0:0:0:0:0:ffff:203.0.113.9'])
      expect(keyOf({}, from(text))).toBe('ip:203.0.113.9')
  })

  test('of IPv4-mapped range never falls into one IPv6 network: two clients have two keys (R14)', () => {
    expect(keyOf({}, from('::ffff:198.51.100.1'))).not.toBe(keyOf({}, from('::ffff:198.51.100.2')))
  })

  test('of IPv6 is its network, so that a client cannot leave its limit by taking another address (R14)', () => {
    expect(keyOf({}, from('2001:db8:aaaa:bb01::1'))).toBe('ip:2001:db8:aaaa:bb00::/56')
    expect(keyOf({}, from('2001:db8:aaaa:bbff:1:2:3:4%eth0'))).toBe('ip:2001:db8:aaaa:bb00::/56')
    expect(keyOf({}, from('2001:db8:aaaa:bc01::1'))).toBe('ip:2001:db8:aaaa:bc00::/56')
    expect(keyOf({ ipv6Prefix: 64 }, from('2001:db8:aaaa:bb01::1'))).toBe('ip:2001:db8:aaaa:bb01::/64')
  })

  test('behind NAT64 is left whole: its last bits are the client (R14)', () => {
    expect(keyOf({}, from('64:ff9b::c000:201'))).not.toBe(keyOf({}, from('64:ff9b::c000:202')))
    expect(keyOf({}, from('64:ff9b::192.0.2.1'))).toBe('ip:64:ff9b:0:0:0:0:c000:201/128')
    expect(keyOf({}, from('64:ff9b:1::1'))).not.toBe(keyOf({}, from('64:ff9b:1::2')))
    expect(keyOf({}, from('64:ff9b:2::1'))).toBe(keyOf({}, from('64:ff9b:2::2')))
  })

  test('that is not known is one key for all, and an event (R14)', () => {
    expect(keyOf({}, from(undefined))).toBe('ip:unknown')
    expect(keyOf({}, { headers: {} })).toBe('ip:unknown')
    expect(keyOf({ trustProxy: 1 }, from(peer, 'unknown'))).toBe('ip:unknown')
    expect(told).toEqual([{ type: 'unknown-address' }, { type: 'unknown-address' }, { type: 'unknown-address' }])
    expect(warned).toEqual([])
  })
})

describe('X-Forwarded-For', () => {
  test('is not believed unless a proxy is trusted (R14)', () => {
    for (const trustProxy of [undefined, 0, [], ['10.0.0.0/8']])
      expect(keyOf({ trustProxy }, from(peer, '198.51.100.1'))).toBe('ip:203.0.113.9')
  })

  test('is counted from the right, where the trusted proxies write; what a client forges stands on the left (R14)', () => {
    const header = '6.6.6.6, 198.51.100.1, 198.51.100.2'
    expect(keyOf({ trustProxy: 1 }, from(peer, header))).toBe('ip:198.51.100.2')
    expect(keyOf({ trustProxy: 2 }, from(peer, header))).toBe('ip:198.51.100.1')
    const networks = { trustProxy: ['loopback', '198.51.100.2', '203.0.113.0/24'] }
    expect(keyOf(networks, from(peer, header))).toBe('ip:198.51.100.1')
    expect(keyOf(networks, from('::ffff:127.0.0.1', `${header}, 127.0.0.1, ::1`))).toBe('ip:198.51.100.1')
    expect(keyOf(networks, from('192.0.2.7', header))).toBe('ip:192.0.2.7')
  })

  test('may carry ports, brackets, spaces and several lines', () => {
    const key = (header: string | string[]): string => keyOf({ trustProxy: 1 }, from(peer, header))
    expect(key('198.51.100.1:4711')).toBe('ip:198.51.100.1')
    expect(key('[2001:db8::1]:4711')).toBe('ip:2001:db8::/56')
    expect(key('6.6.6.6 ,\t198.51.100.1 ')).toBe('ip:198.51.100.1')
    expect(key(['6.6.6.6', '198.51.100.1'])).toBe('ip:198.51.100.1')
  })

  test('with something unreadable where the client should stand names nobody, and nobody further left (R14)', () => {
    for (const header of ['6.6.6.6, ', '6.6.6.6,,', '6.6.6.6, _x', '6.6.6.6, 1.2.3.4.5', `6.6.6.6, ${'1'.repeat(5_000)}`]) {
      expect(keyOf({ trustProxy: 1 }, from(peer, header))).toBe('ip:unknown')
      expect(keyOf({ trustProxy: [peer] }, from(peer, header))).toBe('ip:unknown')
    }
  })

  test('works behind a Unix socket, whose peer has no address', () => {
    expect(keyOf({ trustProxy: 1 }, from(undefined, '198.51.100.1'))).toBe('ip:198.51.100.1')
  })

  test('that ends too early gives the furthest address there is, and a warning for a number of proxies (R14)', () => {
    expect(keyOf({ trustProxy: ['loopback'] }, from('127.0.0.1'))).toBe('ip:127.0.0.1')
    expect(warned).toEqual([])
    expect(keyOf({ trustProxy: 3 }, from(peer, '198.51.100.1'))).toBe('ip:198.51.100.1')
    expect(keyOf({ trustProxy: 1 }, from(peer))).toBe('ip:203.0.113.9')
    expect(warned).toEqual(['HAPAX_FORWARDED_FOR_SHORT'])
  })

  test('is read to a bound: no header makes much work (R14)', () => {
    const long = Array.from({ length: 4_000 }, () => '10.0.0.1').join(',')
    expect(keyOf({ trustProxy: ['10.0.0.0/8'] }, from('10.0.0.2', `6.6.6.6,${long}`))).toBe('ip:10.0.0.1')
  })

  test(`never lets what stands left of the client change the key, nor throws: 50,000 hostile headers (seed ${seed}) (R14)`, () => {
    const random = seededRandom(seed)
    const bits = [
      '1.2.3.4',
      '::1',
      '10.0.0.1',
      ',',
      ', ',
      '[',
      ']',
      ':',
      '%',
      '"',
      'unknown',
      '\0',
      '\t',
      '1.2.3.4:80',
      '::ffff:9.9.9.9',
      'ä',
      '=',
      ';',
      '999',
      '-',
    ]
    const hops = clientKey({ trustProxy: 1 })
    const networks = clientKey({ trustProxy: ['203.0.113.0/24'] })
    const none = clientKey({ trustProxy: 0 })
    for (let count = 0; count < 50_000; count++) {
      const forged = Array.from({ length: random.int(12) }, () => random.pick(bits)).join('')
      const request = from(peer, `${forged}, 198.51.100.7`)
      const keys = [hops(request), networks(request), none(request)]
      if (keys.join() !== 'ip:198.51.100.7,ip:198.51.100.7,ip:203.0.113.9') expect({ forged, keys }).toEqual({})
      const wild = hops(from(peer, forged))
      if (!/^ip:(unknown|[\d.]+|[\da-f:]+\/(56|128))$/.test(wild)) expect({ forged, wild }).toEqual({})
    }
  })
})

describe('a misuse is said once per process, as a warning and an event (R14)', () => {
  test('X-Forwarded-For comes and trustProxy is not set', () => {
    const key = clientKey()
    for (let count = 0; count < 3; count++) key(from(peer, '198.51.100.1'))
    clientKey()(from(peer, '198.51.100.1'))
    expect(warned).toEqual(['HAPAX_TRUST_PROXY_MISSING'])
    expect(told).toEqual([{ type: 'misused', code: 'HAPAX_TRUST_PROXY_MISSING', message: expect.stringContaining('trustProxy') as string }])
  })

  test('and not when trustProxy says that there is no proxy', () => {
    keyOf({ trustProxy: 0 }, from(peer, '198.51.100.1'))
    expect(warned).toEqual([])
  })

  test('the Forwarded header comes, which is not read', () => {
    expect(keyOf({ trustProxy: 1 }, from(peer, '198.51.100.1', { forwarded: 'for=6.6.6.6' }))).toBe('ip:198.51.100.1')
    expect(warned).toEqual(['HAPAX_FORWARDED_IGNORED'])
  })

  test("Express believes everybody ('trust proxy': true)", () => {
    const app = (value: unknown): object => ({ get: (name: string) => (name === 'trust proxy' ? value : undefined) })
    const request = from(peer, '6.6.6.6, 198.51.100.1')
    for (const value of [false, 1, 'loopback']) clientKey({ trustProxy: 1 })({ ...request, app: app(value) } as AddressedRequest)
    expect(warned).toEqual([])
    expect(clientKey({ trustProxy: 1 })({ ...request, app: app(true) } as AddressedRequest)).toBe('ip:198.51.100.1')
    expect(warned).toEqual(['HAPAX_TRUST_PROXY_ALL'])
  })

  test('Koa believes everybody (proxy: true without maxIpsCount)', () => {
    const key = clientKey({ trustProxy: 1 })
    const context = (app: object) => ({ app, req: from(peer, '6.6.6.6, 198.51.100.1') })
    expect(key(context({ proxy: false, maxIpsCount: 0 }))).toBe('ip:198.51.100.1')
    expect(key(context({ proxy: true, maxIpsCount: 1 }))).toBe('ip:198.51.100.1')
    expect(warned).toEqual([])
    expect(key(context({ proxy: true, maxIpsCount: 0 }))).toBe('ip:198.51.100.1')
    expect(warned).toEqual(['HAPAX_TRUST_PROXY_ALL'])
  })
})

describe('options', () => {
  test.each<[string, object]>([
    ['trust in everybody', { trustProxy: true }],
    ['too many proxies', { trustProxy: 33 }],
    ['a broken number', { trustProxy: 1.5 }],
    ['a negative number', { trustProxy: -1 }],
    ['a network that is none', { trustProxy: ['10.0.0.1/8'] }],
    ['all of IPv4', { trustProxy: ['0.0.0.0/0'] }],
    ['all of IPv6', { trustProxy: ['::/0'] }],
    ['all of IPv4 in a large network', { trustProxy: ['::/8'] }],
    ['no prefix', { ipv6Prefix: 0 }],
    ['a prefix too long', { ipv6Prefix: 129 }],
  ])('refuse %s when the key is made', (_what, options) => {
    expect(() => clientKey(options as ClientKeyOptions)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  })
})
