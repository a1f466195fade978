/** The field of our own in JunoDB's messages: round trips, golden bytes, and bytes that make no sense. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { epochMs, epochMsMax, type Millis } from '../base/types.ts'
import { errors, type KvErrorCode } from '../kv/errors.ts'
import type { ExpiryChange } from '../kv/expiry.ts'
import type { Version } from '../kv/kv.ts'
import {
  decodeOwnAnswer,
  decodeOwnLimits,
  decodeOwnRequest,
  encodeOwnAnswer,
  encodeOwnLimits,
  encodeOwnRequest,
  ownFieldBytesMax,
  type OwnRequest,
} from './own-field.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)
const whole = fc.nat({ max: Number.MAX_SAFE_INTEGER })
const instant = whole.map((ms) => epochMs(Math.min(ms, epochMsMax)))
const text = (most: number) =>
  fc.string({ minLength: 1, maxLength: most, unit: fc.integer({ min: 32, max: 126 }).map((code) => String.fromCharCode(code)) })
const version = text(110).map((one) => one as Version)
const expiry: fc.Arbitrary<ExpiryChange> = fc.oneof(
  fc.constantFrom({ type: 'keep' } as const, { type: 'never' } as const),
  fc.record({ type: fc.constantFrom('set' as const, 'extend' as const), ttlMs: whole.map((ms) => ms as Millis) }),
  fc.record({ type: fc.constant('until' as const), at: instant }),
)
const sequence = fc.tuple(whole, whole).map(([a, b]) => ({ sequence: Math.max(a, b, 1), done: Math.min(a, b) }))
const requestId = fc.oneof(
  text(64),
  fc.tuple(text(64), sequence, fc.integer({ min: 1, max: 255 })).map(([session, numbers, attempt]) => ({ session, ...numbers, attempt })),
)
const request: fc.Arbitrary<OwnRequest> = fc.record({
  timeoutMs: fc.nat({ max: 0xffff_ffff }),
  sentAt: fc.option(instant, { nil: undefined }),
  expiry: fc.option(expiry, { nil: undefined }),
  requestId: fc.option(requestId, { nil: undefined }),
  ifVersion: fc.option(version, { nil: undefined }),
})
const codes = Object.keys(errors) as KvErrorCode[]

test('what is written is read again, and fits a field of JunoDB', () => {
  fc.assert(
    fc.property(request, (asked) => {
      const bytes = encodeOwnRequest(asked)
      expect(bytes.length).toBeLessThanOrEqual(ownFieldBytesMax)
      expect(decodeOwnRequest(bytes)).toEqual(asked)
    }),
    { seed, numRuns: 500 },
  )
  const entry = fc.record({
    version,
    createdAt: instant,
    expiresAt: fc.option(
      instant.filter((at) => at > 0),
      { nil: undefined },
    ),
  })
  const answer = fc.record({
    now: instant,
    fault: fc.option(fc.constantFrom(...codes), { nil: undefined }),
    entry: fc.option(entry, { nil: undefined }),
  })
  fc.assert(
    fc.property(answer, (given) => {
      expect(decodeOwnAnswer(encodeOwnAnswer(given))).toEqual(given)
    }),
    { seed, numRuns: 500 },
  )
  const limits = { now: epochMs(5), keyBytesMax: 256, namespaceBytesMax: 64, valueBytesMax: 204_800, ttlMsMax: Number.MAX_SAFE_INTEGER }
  expect(decodeOwnLimits(encodeOwnLimits(limits))).toEqual(limits)
})

test('bytes of the first release are read as they were meant', () => {
  const asked =
    '01' + // format
    '6b' + // version, sentAt, session, expiry 'set'
    '000001f4' + // 500 ms
    '0000019b76daa800' + // 2026-01-01
    '000000000000ea60' + // one minute
    '027331' + // session s1
    '0000000000000007' + // sequence
    '0000000000000005' + // done
    '02' + // attempt
    '03312e61' // version 1.a
  expect(decodeOwnRequest(Buffer.from(asked, 'hex'))).toEqual({
    timeoutMs: 500,
    sentAt: 1_767_225_600_000,
    expiry: { type: 'set', ttlMs: 60_000 },
    requestId: { session: 's1', sequence: 7, done: 5, attempt: 2 },
    ifVersion: '1.a',
  })
  const told = '01' + '01' + '0000019b76daa800' + '07d7' + '03312e61' + '0000000000000001' + '0000000000000000'
  expect(decodeOwnAnswer(Buffer.from(told, 'hex'))).toEqual({
    now: 1_767_225_600_000,
    fault: 'UNKNOWN_OUTCOME',
    entry: { version: '1.a', createdAt: 1, expiresAt: undefined },
  })
})

test('a fault of a later release is a fault all the same', () => {
  const bytes = encodeOwnAnswer({ now: epochMs(1), fault: 'BUSY' })
  bytes.writeUInt16BE(9_999, 10)
  expect(decodeOwnAnswer(bytes)).toEqual({ now: 1, fault: 'UNAVAILABLE' })
})

test('what is cut short, of another format, or says the impossible is no field', () => {
  fc.assert(
    fc.property(request, fc.nat(), (asked, cut) => {
      const bytes = encodeOwnRequest(asked)
      expect(decodeOwnRequest(bytes.subarray(0, cut % bytes.length))).toBeUndefined()
    }),
    { seed },
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: ownFieldBytesMax }), (bytes) => {
      decodeOwnRequest(bytes)
      decodeOwnAnswer(bytes)
      decodeOwnLimits(bytes)
    }),
    { seed, numRuns: 2_000 },
  )
  const good = encodeOwnRequest({ timeoutMs: 1, requestId: { session: 's', sequence: 2, done: 1 } })
  expect(decodeOwnRequest(good)).toBeDefined()
  const broken = (change: (bytes: Buffer) => void): unknown => {
    const bytes = Buffer.from(good)
    change(bytes)
    return decodeOwnRequest(bytes)
  }
  expect(broken((bytes) => bytes.writeUInt8(2, 0))).toBeUndefined() // format
  expect(broken((bytes) => bytes.writeUInt8(10, 7))).toBeUndefined() // a line feed in a session
  expect(broken((bytes) => bytes.writeUInt32BE(0, 12))).toBeUndefined() // sequence 0
  expect(broken((bytes) => bytes.writeUInt32BE(3, 20))).toBeUndefined() // done beyond it
  expect(broken((bytes) => bytes.writeUInt32BE(0x20_0000, 8))).toBeUndefined() // more than a number holds exactly
})
