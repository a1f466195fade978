/** JunoDB's messages: round trips, streams cut anywhere, and bytes that make no sense. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { JunoCodec, junoFrameBytesMax } from './juno-codec.ts'
import { Opcode, readJuno, type JunoMessage } from './juno-message.ts'
import { writeJuno } from './juno-writer.ts'
import { WireError } from './wire-bytes.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)
const codec = new JunoCodec()
const decode = (...chunks: Uint8Array[]): JunoMessage[] => {
  const decoder = codec.decoder()
  const messages: JunoMessage[] = []
  for (const chunk of chunks) decoder.push(chunk, (message) => messages.push(message))
  return messages
}

const message: JunoMessage = {
  isRequest: true,
  opaque: 7,
  opcode: Opcode.set,
  flags: 0,
  status: 0,
  meta: { ttlS: 60, requestId: Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex'), correlationId: Buffer.from('corr') },
  namespace: Buffer.from('ns'),
  key: Buffer.from('key'),
  payload: Buffer.from('\0value'),
  hasPayload: true,
}

const bytes = (most: number) => fc.uint8Array({ maxLength: most })
const id = fc.uint8Array({ minLength: 16, maxLength: 16 })
const option = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined })
const number = fc.integer({ min: 1, max: 0xffff_ffff })
const anyMessage: fc.Arbitrary<JunoMessage> = fc
  .record({
    isRequest: fc.boolean(),
    opaque: fc.nat({ max: 0xffff_ffff }),
    opcode: fc.nat({ max: 255 }),
    flags: fc.nat({ max: 255 }),
    status: fc.nat({ max: 255 }),
    meta: fc.record(
      {
        ttlS: number,
        version: number,
        createdAtS: number,
        expiresAtS: number,
        requestId: id,
        originator: id,
        lastModifiedNs: fc.bigInt({ min: 1n, max: 2n ** 64n - 1n }),
        handlingMs: number,
        correlationId: fc.uint8Array({ minLength: 1, maxLength: 250 }),
        udfName: fc.uint8Array({ minLength: 1, maxLength: 60 }),
      },
      { requiredKeys: [] },
    ),
    namespace: bytes(255),
    key: bytes(300),
    payload: option(fc.uint8Array({ minLength: 2, maxLength: 400 })),
  })
  .map((one) => ({ ...one, status: one.isRequest ? 0 : one.status, hasPayload: true }))
/** Views of one kind, so that they compare. */
const plain = (one: JunoMessage): unknown =>
  JSON.parse(
    JSON.stringify(one, (_, value: unknown) =>
      value instanceof Uint8Array ? Buffer.from(value).toString('hex') : typeof value === 'bigint' ? `${value}` : value,
    ),
  )
const shown = (one: JunoMessage): unknown =>
  plain({
    ...one,
    meta: Object.fromEntries(
      Object.entries(one.meta).map(([name, value]) => [name, value instanceof Uint8Array ? new Uint8Array(value) : value]),
    ) as JunoMessage['meta'],
    namespace: new Uint8Array(one.namespace),
    key: new Uint8Array(one.key),
    payload: one.payload && new Uint8Array(one.payload),
  })

test('what is written is read again, and a stream may be cut at each byte', () => {
  fc.assert(
    fc.property(fc.array(anyMessage, { minLength: 1, maxLength: 3 }), (messages) => {
      const stream = Buffer.concat(messages.map((one) => codec.encode(one, one.opaque)))
      expect(stream.length % 8).toBe(0)
      const whole = decode(stream).map(shown)
      expect(whole).toEqual(messages.map(shown))
      expect(decode(...Array.from(stream, (byte) => new Uint8Array([byte]))).map(shown)).toEqual(whole)
    }),
    { seed, numRuns: 80 },
  )
})

test('the number of the connection is the opaque on the wire', () => {
  expect(codec.numberOf(decode(codec.encode(message, 99))[0] as JunoMessage)).toBe(99)
})

describe('sizes', () => {
  const sized = (size: number): Buffer => {
    const head = Buffer.from(writeJuno(message).subarray(0, 12))
    head.writeUInt32BE(size, 4)
    return head
  }
  test.each([0, 11, 12, 15, junoFrameBytesMax + 1, 0xffff_ffff])('%i is refused by its head', (size) => {
    const decoder = codec.decoder()
    expect(() => decoder.push(sized(size), () => undefined)).toThrow(WireError)
    expect(decoder.heldBytes).toBeLessThanOrEqual(12)
  })
  test('the largest one is waited for, and nothing is taken for it in advance', () => {
    const decoder = codec.decoder()
    decoder.push(sized(junoFrameBytesMax), () => undefined)
    expect(decoder.heldBytes).toBe(12)
  })
  test('a smaller bound can be set', () => {
    expect(() => new JunoCodec(79).decoder().push(writeJuno(message), () => undefined)).toThrow(WireError)
  })
})

test('bytes changed anywhere end in a WireError, or in messages that can be sent on as they are', () => {
  fc.assert(
    fc.property(anyMessage, fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 8 }), (one, changes) => {
      const frame = writeJuno(one)
      for (const [at, byte] of changes) frame[2 + (at % (frame.length - 2))] = byte
      const read = ((): JunoMessage[] => {
        try {
          return decode(frame)
        } catch (error) {
          if (error instanceof WireError) return []
          throw error
        }
      })()
      // A proxy mirrors pings, and what it does not know: that must not end it.
      for (const message of read) {
        const sent = writeJuno(message)
        expect(writeJuno(readJuno(sent, 0, sent.length)).toString('hex')).toBe(sent.toString('hex'))
      }
    }),
    { seed, numRuns: 5_000 },
  )
})

describe('what a field can hold', () => {
  /** A frame whose meta component is one field of variable length. */
  const withField = (tag: number, size: number, length: number): Buffer => {
    const metaBytes = 8 + 256
    const frame = Buffer.alloc(16 + metaBytes)
    frame.writeUInt32BE(0x5050_0140, 0)
    frame.writeUInt32BE(frame.length, 4)
    frame.writeUInt32BE(metaBytes, 16)
    frame.set([2, 1, tag, 0, size, length], 20)
    return frame
  }
  test.each([
    ['source', 0x06],
    ['correlation id', 0x09],
    ['UDF name', 0x0b],
    ['field of our own', 0x1e],
  ])('a %s of 252 bytes can be mirrored, and a longer one, which could not, is bad', (_, tag) => {
    const largest = withField(tag, 252, 250)
    expect(writeJuno(readJuno(largest, 0, largest.length))).toHaveLength(16 + 8 + 252 + 4)
    for (const size of [253, 254, 255]) {
      const frame = withField(tag, size, 250)
      expect(decode(frame)).toMatchObject([{ isBad: true }])
    }
  })
  test('numbers beyond 32 bits are sent as the largest: lives of more than 136 years', () => {
    const sent = writeJuno({ ...message, meta: { ttlS: 2 ** 40, expiresAtS: 2 ** 32, createdAtS: 2 ** 32 - 1 } })
    expect(readJuno(sent, 0, sent.length).meta).toMatchObject({ ttlS: 0xffff_ffff, expiresAtS: 0xffff_ffff, createdAtS: 0xffff_ffff })
  })
  test('a correlation id without bytes is none', () => {
    const frame = withField(0x09, 4, 0)
    expect(decode(frame)[0]?.meta.correlationId).toBeUndefined()
    expect(writeJuno({ ...message, meta: { correlationId: new Uint8Array(0) } })[16 + 5]).toBe(0)
  })
  test.each<[string, Partial<JunoMessage>]>([
    ['a request id of 15 bytes', { meta: { requestId: new Uint8Array(15) } }],
    ['a source of 252 bytes', { meta: { sourceInfo: new Uint8Array(252) } }],
    ['a correlation id of 251 bytes', { meta: { correlationId: new Uint8Array(251) } }],
    ['a namespace of 256 bytes', { namespace: new Uint8Array(256) }],
    ['a key of 65,536 bytes', { key: new Uint8Array(65_536) }],
  ])('%s is not sent, and the next message is whole', (_, change) => {
    expect(() => writeJuno({ ...message, ...change })).toThrow(WireError)
    expect(decode(writeJuno(message))).toEqual([message])
  })
})

test('components that lie about their lengths are told as bad', () => {
  const changed = (change: (frame: Buffer) => void): JunoMessage => {
    const frame = writeJuno(message)
    change(frame)
    return decode(frame)[0] as JunoMessage
  }
  const payloadAt = 16 + 40
  expect(changed((frame) => frame.writeUInt16BE(60_000, payloadAt + 6))).toMatchObject({ isBad: true }) // key
  expect(changed((frame) => frame.writeUInt32BE(0xffff_ffff, payloadAt + 8))).toMatchObject({ isBad: true }) // payload
  expect(changed((frame) => frame.writeUInt8(255, 16 + 5))).toMatchObject({ isBad: true }) // number of fields
  expect(changed((frame) => frame.writeUInt8(0x25, 16 + 6))).toMatchObject({ isBad: true }) // a request id of 4 bytes
  expect(changed((frame) => frame.writeUInt32BE(4, 16))).toMatchObject({ isBad: true }) // a component of 4 bytes
  expect(changed((frame) => frame.writeUInt8(0xc0, 3))).toMatchObject({ isRequest: true }) // one way
  expect(() => changed((frame) => frame.writeUInt8(0x41, 3))).toThrow(WireError) // not operational
})
