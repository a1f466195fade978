import { expect, test } from 'vitest'
import { isKvError } from '../kv/errors.ts'
import { parseUrl } from './url.ts'

const tls = { isPlain: false }

test.each([
  [
    'hapax://10.0.0.5:5080,10.0.0.6:5081/pay',
    [
      { host: '10.0.0.5', port: 5080 },
      { host: '10.0.0.6', port: 5081 },
    ],
    'pay',
  ],
  ['hapax://localhost', [{ host: 'localhost', port: 5080 }], 'default'],
  ['hapax://localhost/', [{ host: 'localhost', port: 5080 }], 'default'],
  [
    'hapax://[::1],proxy.internal:7000/a%2Fb',
    [
      { host: '::1', port: 5080 },
      { host: 'proxy.internal', port: 7000 },
    ],
    'a/b',
  ],
  ['hapax+unix:///run/hapax.sock', [{ path: '/run/hapax.sock' }], 'default'],
  ['hapax+unix:///run/my%20hapax.sock?namespace=pay', [{ path: '/run/my hapax.sock' }], 'pay'],
])('%s is read', (url, addresses, namespace) => {
  expect(parseUrl(url, tls)).toEqual({ addresses, namespace })
})

test('without a port it is the one of plain text or of TLS', () => {
  expect(parseUrl('hapax://localhost', { isPlain: true }).addresses).toEqual([{ host: 'localhost', port: 8080 }])
})

test.each([
  '',
  'redis://localhost',
  'hapax://',
  'hapax://a,,b',
  'hapax://a:b',
  'hapax://a:99999',
  'hapax://a:0',
  'hapax://a/b/c',
  'hapax://a/%zz',
  'hapax://a?x=1',
])('%j is refused with the form that is expected', (url) => {
  try {
    expect(parseUrl(url, tls)).toBeUndefined()
  } catch (error) {
    if (!isKvError(error, 'INVALID_ARGUMENT')) throw error
    expect(error.hint).toMatch(/hapax:\/\/|127\.0\.0\.1/)
  }
})

test('a URL with a password is refused without repeating it', () => {
  try {
    expect(parseUrl('hapax://me:s3cret@localhost', tls)).toBeUndefined()
  } catch (error) {
    if (!isKvError(error, 'INVALID_ARGUMENT')) throw error
    expect(error.hint).toMatch(/certificate/)
    expect(`${error.message} ${error.hint} ${error.stack}`).not.toMatch(/s3cret/)
  }
})
