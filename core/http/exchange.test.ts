/** What is read from a request, and what an answer becomes for a client that does not take its encoding. */
import type { IncomingMessage } from 'node:http'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { headerLines, hasBody, inEncodingOf, isUnparsed, joinedVary, mediaType, splitTarget } from './exchange.ts'
import type { Reply } from './problem.ts'

const request = (parts: Partial<IncomingMessage>): IncomingMessage => parts as IncomingMessage

test('headerLines gives each line of a header for itself, whatever its case', () => {
  const req = request({ rawHeaders: ['A', '1', 'KEY', 'x', 'key', 'y, z', 'Other', 'key'] })
  expect(headerLines(req, 'Key')).toEqual(['x', 'y, z'])
  expect(headerLines(req, 'none')).toEqual([])
})

test.each([
  ['/a/b?c=d&e', '/a/b', 'c=d&e'],
  ['/a', '/a', ''],
  ['/a?', '/a', ''],
  ['/a?b?c', '/a', 'b?c'],
  ['/a?b#c', '/a', 'b'],
  ['http://host:80/a?b', '/a', 'b'],
  ['HTTP://host', '/', ''],
  ['http://host?b', '/', 'b'],
  ['//host/a', '//host/a', ''],
  ['*', '*', ''],
])('splitTarget takes %s for path %s and query %j', (target, path, query) => {
  expect(splitTarget(target)).toEqual({ path, query })
})

test.each([
  [undefined, ''],
  ['', ''],
  ['application/json', 'application/json'],
  ['Multipart/Form-Data; boundary=abc', 'multipart/form-data'],
])('mediaType of %j is %j', (header, type) => expect(mediaType(header)).toBe(type))

test.each([
  [{}, false],
  [{ 'content-length': '0' }, false],
  [{ 'content-length': '00' }, false],
  [{ 'content-length': '1' }, true],
  [{ 'transfer-encoding': 'chunked' }, true],
])('hasBody with %j is %s (RFC 9112, 6.3)', (headers, has) => expect(hasBody(request({ headers }))).toBe(has))

test('isUnparsed is a body that nobody has read to its end, or of which nothing was left', () => {
  const headers = { 'content-length': '1' }
  expect(isUnparsed(request({ headers, readableEnded: true }), {})).toBe(false)
  expect(isUnparsed(request({ headers, readableEnded: true }), undefined)).toBe(true)
  expect(isUnparsed(request({ headers, readableEnded: false }), {})).toBe(true) // Express 4, a type that no parser takes
  expect(isUnparsed(request({ headers: {}, readableEnded: false }), undefined)).toBe(false)
})

test.each([
  [[undefined, 'Accept-Encoding'], 'Accept-Encoding'],
  [['Origin, accept-encoding', 'Accept-Encoding'], 'Origin, accept-encoding'],
  [[['Origin', 'Accept'], 'X'], 'Origin, Accept, X'],
  [['*', 'X'], '*'],
])('joinedVary of %j is %s', (values, joined) => expect(joinedVary(...values)).toBe(joined))

const stored = (encoding: string, body: Uint8Array, more: Reply['headers'] = []): Reply => ({
  status: 200,
  headers: [['content-type', 'text/plain'], ['content-encoding', encoding], ['etag', '"zipped"'], ...more],
  body,
})
const encoded = { gzip: gzipSync('hello'), 'x-gzip': gzipSync('hello'), deflate: deflateSync('hello'), br: brotliCompressSync('hello') }

test.each(Object.entries(encoded))('inEncodingOf gives plain bytes to a client that does not take %s (T26)', async (encoding, body) => {
  for (const accept of [undefined, '', 'identity', `${encoding};q=0`, `${encoding}; q=0.000, *`, 'zstd']) {
    const plain = await inEncodingOf(stored(encoding, body, [['vary', 'Origin']]), accept)
    expect(Buffer.from(plain.body).toString()).toBe('hello')
    expect(plain.headers).toEqual([
      ['content-type', 'text/plain'],
      ['Vary', 'Origin, Accept-Encoding'],
    ]) // not the tag of other bytes
  }
})

test.each(['gzip', 'zstd, GZIP;q=0.1', '*', 'br, *;q=0.5'])(
  'inEncodingOf leaves gzip as it is stored for a client that takes %s (T26)',
  async (accept) => {
    const reply = stored('gzip', encoded.gzip)
    expect(await inEncodingOf(reply, accept)).toBe(reply)
  },
)

test.each([
  ['that it does not know', stored('zstd', encoded.gzip)],
  ['of two layers', stored('gzip, br', encoded.gzip)],
  ['that the body is not in', stored('gzip', Buffer.from('hello'))],
  ['of an empty body', stored('gzip', new Uint8Array(0))],
  ['that is none', stored('identity', Buffer.from('hello'))],
])('inEncodingOf leaves an answer in an encoding %s', async (_what, reply) => {
  expect(await inEncodingOf(reply, 'identity')).toBe(reply)
})

test('inEncodingOf leaves what would become too large', async () => {
  const reply = stored('gzip', gzipSync(Buffer.alloc(67_108_865)))
  expect(await inEncodingOf(reply, undefined)).toBe(reply)
})
