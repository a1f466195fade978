/** Frames as what they say: every golden frame of both protocols, several of them, and bytes that are none (W3). */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { ClusterCodec } from './cluster-codec.ts'
import { dumpFrames, isFrame, payloadOf } from './dump.ts'
import { WireError } from './wire-bytes.ts'

const linesOf = (name: string): string[] =>
  readFileSync(new URL(`testdata/${name}`, import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
const ours = linesOf('cluster-frames.txt').map((line) => {
  const [hex = '', json = ''] = line.split('  ')
  return [JSON.parse(json) as { readonly type: string }, Buffer.from(hex, 'hex')] as const
})
const junos = linesOf('juno-frames.txt').map((line) => {
  const [hex = '', json = '', why = ''] = line.split('  ')
  return [
    why,
    JSON.parse(json) as { readonly opaque: number; readonly isRequest: boolean },
    Buffer.from(hex.slice(1).replaceAll(' ', ''), 'hex'),
  ] as const
})

test.each(ours)('of our own: %j', ({ type }, frame) => {
  expect(isFrame(frame)).toBe(true)
  const [shown, ...rest] = dumpFrames(frame)
  expect(rest).toEqual([])
  expect(shown).toMatchObject({ protocol: 'cluster', offset: 0, bytes: frame.length, version: 1, type })
  expect(JSON.parse(JSON.stringify(shown))).toEqual(shown)
})

test.each(junos)("of JunoDB's clients: %s", (_why, { opaque, isRequest }, frame) => {
  const [shown] = dumpFrames(frame)
  expect(shown).toMatchObject({ protocol: 'junodb', bytes: frame.length, type: isRequest ? 'request' : 'answer', opaque })
  expect(JSON.parse(JSON.stringify(shown))).toEqual(shown)
})

test('a frame says what its fields are, by name', () => {
  const [shown] = dumpFrames(junos[0]?.[2] as Buffer)
  expect(shown).toMatchObject({
    opcode: 'create',
    type: 'request',
    meta: {
      requestId: 'ecca2148ff4b11e799ea000c29cadc31',
      ttlS: 1_800,
      sourceInfo: { name: 'DummyAppName', port: 56_588, address: '7f000001' },
    },
  } satisfies object)
})

test('several frames stand after each other, each with its place', () => {
  const [one, other] = [ours[0]?.[1] as Buffer, junos[0]?.[2] as Buffer]
  expect(dumpFrames(Buffer.concat([one, other, one]))).toMatchObject([
    { protocol: 'cluster', offset: 0 },
    { protocol: 'junodb', offset: one.length },
    { protocol: 'cluster', offset: one.length + other.length },
  ])
})

test('a key of the cluster is its namespace and its key; a value is a payload', () => {
  const codec = new ClusterCodec()
  const [shown] = dumpFrames(codec.encode({ type: 'repair', shard: 1, key: '\u0003paykey' }))
  expect(shown).toMatchObject({ shard: 1, key: { namespace: 'pay', key: 'key' } })
  expect(payloadOf(Buffer.from('\0text'))).toEqual({ type: 'clear', bytes: 4, content: 'text' })
  expect(payloadOf(Buffer.from([3, 0xff]))).toEqual({ type: 'compressed', bytes: 1, content: 'ff' })
  expect(payloadOf(Buffer.from([0, 0xff]))).toEqual({ type: 'clear', bytes: 1, content: { hex: 'ff' } })
})

test('what is sealed says so, and under which key, and not what it holds', () => {
  const sealed = Buffer.alloc(60, 'canary')
  sealed[0] = 2
  sealed.writeUInt32BE(7, 1)
  expect(payloadOf(sealed)).toEqual({ type: 'encryptedByProxy', bytes: 59, isSealed: true, keyVersion: 7 })
  expect(payloadOf(sealed.subarray(0, 20))).toMatchObject({ isSealed: true, isTooShort: true })
})

test('what is long is cut, and its length is told', () => {
  const { content } = payloadOf(Buffer.alloc(5_001, 'x').fill(0, 0, 1)) as { readonly content: string }
  expect(content).toMatch(/^x{1024}\.\.\. \(5000 bytes\)$/)
})

describe('what is no whole frame is an error with its place', () => {
  const frame = ours[0]?.[1] as Buffer
  const changed = (change: (bytes: Buffer) => void): Buffer => {
    const bytes = Buffer.from(frame)
    change(bytes)
    return bytes
  }
  test.each<[string, Buffer, RegExp]>([
    ['another beginning', Buffer.from('GET / HTTP/1.1'), /^at byte 0: neither 5050/],
    ['rest behind a frame', Buffer.concat([frame, Buffer.from([1, 2])]), new RegExp(`^at byte ${frame.length}: neither`)],
    ['half a head', frame.subarray(0, 6), /^at byte 0: the head of a frame is not whole/],
    ['half a frame', frame.subarray(0, frame.length - 1), new RegExp(`^at byte 0: it has ${frame.length - 1} of ${frame.length} bytes`)],
    ['a size that cannot be', changed((bytes) => bytes.writeUInt32BE(3, 4)), /^at byte 0: a message cannot have 3 bytes/],
    ['a kind that nobody knows', changed((bytes) => (bytes[3] = 99)), /^at byte 0: kind 99/],
    ['a version of a later release', changed((bytes) => ((bytes[2] = 9), (bytes[3] = 2))), /^at byte 0: version 9/],
  ])('%s', (_what, bytes, said) => {
    expect(() => dumpFrames(bytes)).toThrow(WireError)
    expect(() => dumpFrames(bytes)).toThrow(said)
  })
})
