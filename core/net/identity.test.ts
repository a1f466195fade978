import { expect, test } from 'vitest'
import { addressText, isLoopback, needLoopback, parseAddress } from './address.ts'
import { judgeHello } from './hello.ts'
import { admit, identityOf, identityUri } from './identity.ts'

test('an identity is written and read as one URI', () => {
  const identity = { cluster: 'pay-1.eu', role: 'storage', name: 'zone-2_a' } as const
  expect(identityUri(identity)).toBe('spiffe://pay-1.eu/storage/zone-2_a')
  expect(identityOf(`DNS:localhost, URI:${identityUri(identity)}, IP Address:127.0.0.1`)).toEqual(identity)
})

test.each([
  ['no names', undefined],
  ['no URI', 'DNS:spiffe, IP Address:127.0.0.1'],
  ['two identities', 'URI:spiffe://hapax/client/a, URI:spiffe://hapax/proxy/a'],
  ['a role that does not exist', 'URI:spiffe://hapax/root/a'],
  ['no name', 'URI:spiffe://hapax/proxy/'],
  ['a path that goes on', 'URI:spiffe://hapax/proxy/a/b'],
  ['a query', 'URI:spiffe://hapax/proxy/a?role=admin'],
  ['upper case in the cluster', 'URI:spiffe://Hapax/proxy/a'],
  ['an identity in the quotes of another name', 'DNS:"x, URI:spiffe://hapax/admin/a"'],
  ['what cannot be read whole', 'DNS:"x, URI:spiffe://hapax/admin/a'],
  ['a name as long as nobody has one', `URI:spiffe://hapax/proxy/${'a'.repeat(64)}`],
])('%s is no identity', (_, names) => {
  expect(identityOf(names)).toBeUndefined()
})

test.each([
  { cluster: 'a/b', role: 'proxy', name: 'p' },
  { cluster: 'hapax', role: 'root', name: 'p' },
  { cluster: 'hapax', role: 'proxy', name: 'p/../storage' },
] as const)('%j has no place in a certificate', (identity) => {
  expect(() => identityUri(identity as never)).toThrow('HPX-2001')
})

test('who is not expected is refused, and told what was', () => {
  const client = { cluster: 'hapax', role: 'client', name: 'shop' } as const
  expect(admit(client, { cluster: 'hapax', allowed: ['client', 'proxy'] })).toBe(client)
  expect(() => admit(client, { cluster: 'hapax', allowed: ['proxy'] })).toThrow('is for a client; expected is proxy of cluster hapax')
  expect(() => admit(client, { cluster: 'other', allowed: ['client'] })).toThrow('is for cluster hapax')
  expect(() => admit(undefined, { cluster: 'hapax', allowed: ['client'] })).toThrow('names no role')
})

test.each([
  ['10.0.0.5:5080', { host: '10.0.0.5', port: 5080 }],
  ['[::1]:0', { host: '::1', port: 0 }],
  ['proxy-1.example:65535', { host: 'proxy-1.example', port: 65_535 }],
  ['unix:/run/hapax.sock', { path: '/run/hapax.sock' }],
])('%s is an address', (text, address) => {
  expect(parseAddress(text)).toEqual(address)
  expect(addressText(address)).toBe(text)
})

test.each(['', 'localhost', ':80', 'a:65536', 'a:1x', 'unix:', '::1:80', 'http://a:80', 'a b:1'])('%j is no address', (text) => {
  expect(() => parseAddress(text)).toThrow('HPX-2001')
})

test('only this machine is loopback', () => {
  for (const ip of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1', '::FFFF:127.0.0.1']) expect(isLoopback(ip), ip).toBe(true)
  for (const ip of [undefined, '', '0.0.0.0', '::', '10.0.0.1', '128.0.0.1', '127.0.0.1.example', '::ffff:10.0.0.1'])
    expect(isLoopback(ip), ip).toBe(false)
  expect(() => needLoopback({ host: '0.0.0.0', port: 1 })).toThrow('plain text is allowed on loopback alone, not at 0.0.0.0:1')
  expect(() => needLoopback({ host: 'localhost.example', port: 1 })).toThrow('HPX-2001')
  needLoopback({ host: 'localhost', port: 1 })
  needLoopback({ path: '/run/x' })
})

const head = (length: number, messageBytes: number, type = 22, message = 1) =>
  Uint8Array.of(type, 3, 1, length >> 8, length & 255, message, messageBytes >> 16, (messageBytes >> 8) & 255, messageBytes & 255)

test('the beginning of a ClientHello is told from all else, and from one that asks for too much', () => {
  const hello = head(512, 508)
  for (let length = 0; length < 9; length++) expect(judgeHello(hello.subarray(0, length))).toBe('more')
  expect(judgeHello(hello)).toBe('hello')
  expect(judgeHello(head(16_384, 16_380))).toBe('hello')
  expect(judgeHello(head(16_385, 16_381))).toBe('no')
  expect(judgeHello(head(16_384, 131_396))).toBe('no')
  expect(judgeHello(head(512, 508, 23))).toBe('no')
  expect(judgeHello(head(512, 508, 22, 11))).toBe('no')
  expect(judgeHello(Uint8Array.of(0x50))).toBe('no')
  expect(judgeHello(new TextEncoder().encode('GET / HTTP/1.1'))).toBe('no')
  expect(judgeHello(Uint8Array.of(22, 2))).toBe('no')
})
