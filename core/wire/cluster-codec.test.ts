/** Our own messages as bytes: round trips of every kind, golden frames, streams cut anywhere, and bytes that make no sense. */
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { epochMs } from '../base/types.ts'
import type { Version } from '../kv/kv.ts'
import { limitPresets } from '../kv/limits.ts'
import { noCompletions, type Completion, type KeyRecord } from '../record/record.ts'
import { ClusterCodec, clusterVersions, frameBytesMax, negotiate, WireError, type ClusterMessage } from './cluster-codec.ts'
import { Kind } from './cluster-message.ts'
import { WireReader } from './wire-bytes.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)
const codec = new ClusterCodec()
const decode = (...chunks: Uint8Array[]): ClusterMessage[] => {
  const decoder = codec.decoder()
  const messages: ClusterMessage[] = []
  for (const chunk of chunks) decoder.push(chunk, (message) => messages.push(message))
  return messages
}

const whole = fc.nat({ max: Number.MAX_SAFE_INTEGER })
const u16 = fc.nat({ max: 0xffff })
const u32 = fc.nat({ max: 0xffff_ffff })
const instant = whole.map((ms) => epochMs(ms))
const zone = fc.nat({ max: 4 })
const bytes = (most: number) => fc.uint8Array({ maxLength: most, size: 'max' })
const latin1 = (most: number) => bytes(most).map((content) => Buffer.from(content).toString('latin1'))
const ascii = (most: number) =>
  fc.string({ maxLength: most, size: 'max', unit: fc.integer({ min: 32, max: 126 }).map((code) => String.fromCharCode(code)) })
const ballot = fc.record({ ms: whole, counter: whole, proposer: whole })
const completion = fc.record({
  session: ascii(64),
  sequence: whole,
  verb: fc.constantFrom('create' as const, 'update' as const, 'set' as const, 'destroy' as const, 'touch' as const),
  outcome: fc.constantFrom('applied' as const, 'exists' as const, 'missing' as const, 'version' as const),
  version: ascii(100).map((text) => text as Version),
  createdAt: instant,
  expiresAt: instant,
  at: instant,
})
const completions = fc.oneof(
  fc.constant(noCompletions),
  fc.record({
    entries: fc.array(completion, { minLength: 1, maxLength: 4 }),
    marks: fc.array(fc.record({ session: ascii(64), below: whole, at: instant }), { maxLength: 3 }),
  }),
)
const record: fc.Arbitrary<KeyRecord> = fc.record({
  value: fc.option(bytes(300), { nil: undefined }),
  version: whole,
  createdAt: instant,
  lastModifiedAt: instant,
  changedAt: instant,
  expiresAt: instant,
  originator: ascii(80),
  lastRequest: ascii(80),
  completions,
})
const entry = fc.oneof(fc.record({ ballot, record }), fc.record({ ballot, record, stub: whole }))
const servers = fc.array(ascii(20), { minLength: 1, maxLength: 5 })
const row = fc
  .tuple(u16, u32, servers, fc.boolean(), fc.boolean(), fc.array(u32, { minLength: 5, maxLength: 5 }))
  .map(([shard, epoch, names, hasSince, hasRecovers, since]) => ({
    shard,
    epoch,
    servers: names,
    ...(hasSince ? { since: since.slice(0, names.length) } : {}),
    ...(hasRecovers ? { recovers: names.map((_, index) => index) } : {}),
  }))
const asked = { id: whole, shard: u16, epoch: u32, key: latin1(100) }
const answered = { ...asked, zone, clock: instant }
const wants = fc.constantFrom('whole' as const, 'bare' as const)
const shown = { entry: fc.option(entry, { nil: undefined }), isWhole: fc.boolean() }
const move = { id: whole, shard: u16 }
const handed = fc.array(fc.record({ key: latin1(60), entry: fc.oneof(entry, fc.constantFrom('damaged' as const, 'absent' as const)) }), {
  maxLength: 5,
})
const after = fc.option(latin1(60), { nil: undefined })
const of = <T extends ClusterMessage['type'], R>(type: T, rest: R) => fc.record({ type: fc.constant(type), ...(rest as object) })

const kinds: Record<ClusterMessage['type'], fc.Arbitrary<unknown>> = {
  greeting: of('greeting', {
    oldest: fc.nat({ max: 255 }),
    newest: fc.nat({ max: 255 }),
    role: fc.constantFrom('proxy', 'storage'),
    name: ascii(63),
    cluster: ascii(63),
  }),
  farewell: of('farewell', {}),
  ping: of('ping', { id: whole, clock: instant }),
  pong: of('pong', { id: whole, zone, clock: instant }),
  repair: of('repair', { shard: u16, key: latin1(100) }),
  prepare: of('prepare', { ...asked, ballot, isRaised: fc.boolean(), wants }),
  accept: of('accept', { ...asked, ballot, record }),
  read: of('read', { ...asked, wants }),
  promised: of('promised', { ...answered, ...shown }),
  accepted: of('accepted', answered),
  shown: of('shown', { ...answered, ...shown }),
  rejected: fc.oneof(
    of('rejected', { ...answered, reason: fc.constantFrom('ballot', 'lasting', 'damaged'), bound: ballot }),
    of('rejected', { ...answered, reason: fc.constant('epoch'), row }),
    of('rejected', { ...answered, reason: fc.constantFrom('clock', 'digest', 'closed', 'busy') }),
  ),
  copy: of('copy', { ...move, row, after, keysMax: u16 }),
  page: of('page', { ...move, zone, epoch: u32, after, keys: handed, isLast: fc.boolean(), purged: ballot, ceiling: ballot }),
  offer: of('offer', { ...move, row }),
  ready: of('ready', move),
  part: of('part', {
    ...move,
    number: u32,
    keys: handed,
    tail: fc.option(fc.record({ purged: ballot, ceiling: ballot }), { nil: undefined }),
  }),
  stored: of('stored', { ...move, number: u32 }),
  refused: of('refused', move),
  holds: of('holds', { ...move, epoch: u32, below: instant, keys: fc.array(fc.record({ key: latin1(60), ballot }), { maxLength: 5 }) }),
  held: of('held', { ...move, zone, epoch: u32, isSame: fc.array(fc.boolean(), { maxLength: 9 }) }),
  know: of('know', { id: whole, server: ascii(63), shards: fc.array(u16, { maxLength: 9 }) }),
  known: of('known', {
    id: whole,
    zone,
    incarnation: fc.option(fc.record({ count: whole, value: u32 }), { nil: undefined }),
    rows: fc.array(row, { maxLength: 4 }),
  }),
}
const anyMessage = fc.oneof(...Object.values(kinds)) as fc.Arbitrary<ClusterMessage>

test.each(Object.keys(kinds) as ClusterMessage['type'][])('%s is read as it was written', (type) => {
  fc.assert(
    fc.property(kinds[type] as fc.Arbitrary<ClusterMessage>, (message) => {
      expect(decode(codec.encode(message))).toEqual([message])
    }),
    { seed, numRuns: 60 },
  )
})

test('a stream may be cut anywhere, also at each byte, and what is held is only what is not whole', () => {
  fc.assert(
    fc.property(fc.array(anyMessage, { minLength: 1, maxLength: 4 }), fc.array(fc.nat(), { maxLength: 6 }), (messages, cuts) => {
      const stream = Buffer.concat(messages.map((message) => codec.encode(message)))
      const at = [...new Set(cuts.map((cut) => cut % stream.length))].toSorted((a, b) => a - b)
      expect(decode(...[0, ...at].map((from, index) => stream.subarray(from, at[index] ?? stream.length)))).toEqual(messages)
      expect(decode(...Array.from(stream, (byte) => new Uint8Array([byte])))).toEqual(messages)
    }),
    { seed, numRuns: 60 },
  )
  const decoder = codec.decoder()
  const frame = codec.encode({ type: 'stored', id: 1, shard: 2, number: 3 })
  decoder.push(Buffer.concat([frame, frame.subarray(0, 5)]), () => undefined)
  expect(decoder.heldBytes).toBe(5)
  decoder.push(frame.subarray(5), () => undefined)
  expect(decoder.heldBytes).toBe(0)
})

test('a record of the largest value and full completions travels whole, in one piece and in many', () => {
  const [sample] = fc.sample(record, { seed, numRuns: 1 }) as [KeyRecord]
  const [one] = fc.sample(completion, { seed, numRuns: 1 })
  const entries = Array.from({ length: 400 }, (_, sequence) => ({ ...(one as Completion), sequence }))
  const value = Buffer.alloc(limitPresets.wide.valueBytesMax, 'payload')
  const large = { ...sample, value: new Uint8Array(value), completions: { entries, marks: [] } }
  const accept = { type: 'accept', id: 1, shard: 0, epoch: 1, key: 'k', ballot: { ms: 1, counter: 1, proposer: 1 }, record: large } as const
  const frame = codec.encode(accept)
  const pieces: Uint8Array[] = []
  // The first 3,000 bytes come one by one, more pieces than are kept as such.
  for (let at = 0; at < frame.length; at += at < 3_000 ? 1 : 65_536) pieces.push(frame.subarray(at, at < 3_000 ? at + 1 : at + 65_536))
  for (const chunks of [[frame], pieces]) {
    const [read] = decode(...chunks) as [typeof accept]
    expect(Buffer.compare(read.record.value, value)).toBe(0)
    expect({ ...read, record: { ...read.record, value: undefined } }).toEqual({ ...accept, record: { ...large, value: undefined } })
  }
})

describe('the frames of each release are read by all later ones', () => {
  const lines = readFileSync(new URL('testdata/cluster-frames.txt', import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
  const frames = lines.map((line) => {
    const [hex = '', text = ''] = line.split('  ')
    return [JSON.parse(text) as { type: string }, hex] as const
  })

  test.each(frames)('%j', (message, hex) => {
    const [read] = decode(Buffer.from(hex, 'hex'))
    const plain = JSON.parse(
      JSON.stringify(read, (_, value: unknown) => (value instanceof Uint8Array ? Buffer.from(value).toString('utf8') : value)),
    )
    expect(plain).toEqual(message)
    expect(codec.encode(read as ClusterMessage).toString('hex')).toBe(hex)
  })

  test('each kind has one', () => {
    expect(new Set(frames.map(([{ type }]) => type))).toEqual(new Set(Object.keys(Kind)))
  })
})

test('fields of a later release behind the known ones are skipped', () => {
  const frame = codec.encode({ type: 'ready', id: 7, shard: 1 })
  const longer = Buffer.concat([frame, Buffer.from('something new')])
  longer.writeUInt32BE(longer.length, 4)
  expect(decode(longer)).toEqual([{ type: 'ready', id: 7, shard: 1 }])
})

test('two releases speak the newest version that both know, or do not speak', () => {
  expect(negotiate({ oldest: 1, newest: 1 })).toBe(1)
  expect(negotiate({ oldest: 1, newest: 9 })).toBe(clusterVersions.newest)
  expect(negotiate({ oldest: 2, newest: 5 }, { oldest: 1, newest: 3 })).toBe(3)
  expect(negotiate({ oldest: 1, newest: 2 }, { oldest: 2, newest: 4 })).toBe(2)
  expect(negotiate({ oldest: 4, newest: 5 }, { oldest: 1, newest: 3 })).toBeUndefined()
  expect(negotiate({ oldest: 1, newest: 1 }, { oldest: 2, newest: 3 })).toBeUndefined()
  const frame = codec.encode({ type: 'greeting', oldest: 2, newest: 9, role: 'proxy', name: 'p', cluster: 'c' })
  frame[2] = 9
  expect(decode(frame)).toHaveLength(1) // a greeting is read in every version
  const other = codec.encode({ type: 'farewell' })
  other[2] = 9
  expect(() => decode(other)).toThrow(WireError)
})

describe('a release and its peer', () => {
  const release = { oldest: 1, newest: 3 }
  const greeting = (versions: { readonly oldest: number; readonly newest: number }) =>
    ({ type: 'greeting', ...versions, role: 'storage', name: 's', cluster: 'c' }) as const
  const hear = (by: ClusterCodec, frame: Uint8Array): ClusterMessage[] => {
    const messages: ClusterMessage[] = []
    by.decoder().push(frame, (message) => messages.push(message))
    return messages
  }

  test.each([
    [{ oldest: 1, newest: 1 }, 1],
    [{ oldest: 1, newest: 2 }, 2],
    [{ oldest: 2, newest: 9 }, 3],
  ])('that speaks %j are spoken to in version %i, both ways', (older, version) => {
    const [ours, theirs] = [new ClusterCodec(release).ofStream(), new ClusterCodec(older).ofStream()]
    // Before anything was heard each writes what the other is likeliest to know; greetings are read in any case.
    expect(ours.encode({ type: 'farewell' })[2]).toBe(1)
    expect(hear(theirs, ours.encode(greeting(release)))).toEqual([greeting(release)])
    expect(hear(ours, theirs.encode(greeting(older)))).toEqual([greeting(older)])
    for (const [from, to] of [
      [ours, theirs],
      [theirs, ours],
    ] as const) {
      const frame = from.encode({ type: 'repair', shard: 1, key: 'k' })
      expect(frame[2]).toBe(version)
      expect(hear(to, frame)).toEqual([{ type: 'repair', shard: 1, key: 'k' }])
    }
  })

  test('find a version for each stream: an old one beside a new one changes nothing for the new one', () => {
    const all = new ClusterCodec(release)
    const [one, other] = [all.ofStream(), all.ofStream()]
    hear(one, new ClusterCodec({ oldest: 1, newest: 1 }).encode(greeting({ oldest: 1, newest: 1 })))
    hear(other, new ClusterCodec(release).encode(greeting(release)))
    expect([one.version, other.version]).toEqual([1, 3])
  })

  test('do not read a version that they do not speak', () => {
    const newer = new ClusterCodec({ oldest: 4, newest: 4 })
    expect(() => hear(new ClusterCodec(release), newer.encode({ type: 'farewell' }))).toThrow(WireError)
  })
})

describe('what is no message', () => {
  const good = codec.encode({ type: 'read', id: 1, shard: 2, epoch: 3, key: 'key', wants: 'whole' })
  const changed = (change: (frame: Buffer) => void, from = good): Buffer => {
    const frame = Buffer.from(from)
    change(frame)
    return frame
  }

  test.each<[string, Buffer]>([
    ['another magic number', changed((frame) => frame.writeUInt16BE(0x5050, 0))],
    ['a size of 0', changed((frame) => frame.writeUInt32BE(0, 4))],
    ['a size below the head', changed((frame) => frame.writeUInt32BE(7, 4), codec.encode({ type: 'farewell' }))],
    ['a size above the largest', changed((frame) => frame.writeUInt32BE(frameBytesMax + 1, 4))],
    ['the largest size of 32 bits', changed((frame) => frame.writeUInt32BE(0xffff_ffff, 4))],
    ['an unknown kind', changed((frame) => frame.writeUInt8(200, 3))],
    ['a key longer than the message', changed((frame) => frame.writeUInt16BE(500, 22))],
    ['a choice that nobody knows', changed((frame) => frame.writeUInt8(9, frame.length - 1))],
    ['a number that is none', changed((frame) => frame.writeDoubleBE(Number.NaN, 8))],
    ['fewer fields than its kind has, at the end of the stream', changed((frame) => frame.writeUInt32BE(10, 4)).subarray(0, 10)],
    [
      'fewer fields than its kind has, before another message',
      changed(
        (frame) => frame.writeUInt32BE(21, 4),
        Buffer.concat([codec.encode({ type: 'stored', id: 1, shard: 2, number: 3 }).subarray(0, 21), good]),
      ),
    ],
    [
      'a list longer than the message',
      (() => {
        const frame = codec.encode({ type: 'held', id: 1, shard: 1, zone: 0, epoch: 1, isSame: [true] })
        frame.writeUInt16BE(65_535, frame.length - 3)
        return frame
      })(),
    ],
  ])('%s is refused', (_what, frame) => {
    expect(() => decode(frame)).toThrow(WireError)
  })

  test.each<[string, string, ClusterMessage['type']]>([
    ['a replica that shows damage', 'damaged', 'shown'],
    ['a promise of a key that a copy lacks', 'absent', 'promised'],
    ['a copied key without a word', 'none', 'page'],
  ])('%s is refused', (_what, entry, type) => {
    const said = { none: 0, damaged: 3, absent: 4 }
    const head = { id: 1, shard: 2, epoch: 3, zone: 0 }
    const ballot = { ms: 1, counter: 2, proposer: 3 }
    const page = { after: undefined, isLast: true, purged: ballot, ceiling: ballot, keys: [{ key: 'k', entry: 'absent' as const }] }
    const frame = codec.encode(
      type === 'page'
        ? { type, ...head, ...page }
        : { type: type as 'shown', ...head, key: 'k', clock: epochMs(1), isWhole: true, entry: undefined },
    )
    expect(decode(frame)).toHaveLength(1)
    frame[frame.length - 1] = said[entry as keyof typeof said]
    expect(() => decode(frame)).toThrow(WireError)
  })

  test('a record with a number that is none is refused, also among its completions', () => {
    const [sample] = fc.sample(record, { seed, numRuns: 1 }) as [KeyRecord]
    const [entry] = fc.sample(completion, { seed, numRuns: 1 }) as [Completion]
    const sent = (change: Partial<KeyRecord>): Buffer =>
      codec.encode({
        type: 'accept',
        id: 1,
        shard: 0,
        epoch: 1,
        key: 'k',
        ballot: { ms: 1, counter: 1, proposer: 1 },
        record: { ...sample, ...change },
      })
    const marks = [{ session: 's', below: 1, at: epochMs(1) }]
    expect(decode(sent({ completions: { entries: [entry], marks } }))).toHaveLength(1)
    for (const frame of [
      sent({ version: Number.NaN }),
      sent({ expiresAt: epochMs(Infinity) }),
      sent({ completions: { entries: [{ ...entry, at: epochMs(Number.NaN) }], marks } }),
      sent({ completions: { entries: [entry], marks: [{ ...marks[0]!, below: Number.NaN }] } }),
    ])
      expect(() => decode(frame)).toThrow(WireError)
  })

  test('nothing is made of a count that cannot be true', () => {
    const reader = new WireReader(Buffer.alloc(11), 0, 11)
    let made = 0
    expect(() => reader.list(3, 4, () => made++)).toThrow(WireError)
    expect(made).toBe(0)
  })

  test('a size is refused as soon as its head is there, and nothing is taken for it', () => {
    const decoder = codec.decoder()
    const head = changed((frame) => frame.writeUInt32BE(0xffff_ffff, 4)).subarray(0, 8)
    for (const byte of head.subarray(0, 7)) decoder.push(new Uint8Array([byte]), () => undefined)
    expect(() => decoder.push(head.subarray(7), () => undefined)).toThrow(WireError)
    expect(decoder.heldBytes).toBeLessThan(16)
  })

  test('bytes changed anywhere end in messages or in a WireError', () => {
    fc.assert(
      fc.property(
        anyMessage,
        fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 8 }),
        fc.nat(),
        (message, changes, cut) => {
          const frame = codec.encode(message)
          for (const [at, byte] of changes) frame[2 + (at % (frame.length - 2))] = byte
          try {
            decode(frame.subarray(0, frame.length - (cut % 3)))
          } catch (error) {
            if (!(error instanceof WireError)) throw error
          }
        },
      ),
      { seed, numRuns: 3_000 },
    )
  })

  test('random bytes do, too', () => {
    fc.assert(
      fc.property(bytes(200), fc.constantFrom(...Object.values(Kind)), (body, kind) => {
        const head = Buffer.from([0x48, 0x58, 1, kind, 0, 0, 0, 8 + body.length])
        try {
          decode(Buffer.concat([head, body]))
        } catch (error) {
          if (!(error instanceof WireError)) throw error
        }
      }),
      { seed, numRuns: 5_000 },
    )
  })
})

test.each<[string, ClusterMessage]>([
  ['a byte', { type: 'pong', id: 1, zone: 256, clock: epochMs(1) }],
  ['two', { type: 'repair', shard: 65_536, key: 'k' }],
  ['four', { type: 'stored', id: 1, shard: 1, number: 2 ** 32 }],
  ['a byte from below', { type: 'pong', id: 1, zone: -1, clock: epochMs(1) }],
])('a number that does not fit %s is not sent', (_what, message) => {
  expect(() => codec.encode(message)).toThrow(WireError)
})

test('what is too long to be sent is refused here, and the next message is whole', () => {
  const value = new Uint8Array(frameBytesMax)
  const large = { ...(fc.sample(record, { seed, numRuns: 1 })[0] as KeyRecord), value }
  const accept = { type: 'accept', id: 1, shard: 0, epoch: 1, key: 'k', ballot: { ms: 1, counter: 1, proposer: 1 }, record: large } as const
  expect(() => codec.encode(accept)).toThrow(WireError)
  expect(() => codec.encode({ type: 'repair', shard: 0, key: 'x'.repeat(70_000) })).toThrow(WireError)
  expect(() => codec.encode({ type: 'know', id: 1, server: 'x'.repeat(300), shards: [] })).toThrow(WireError)
  expect(decode(codec.encode({ type: 'farewell' }))).toEqual([{ type: 'farewell' }])
})
