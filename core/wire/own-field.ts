/**
 * What a client of ours says, and is told, beyond JunoDB's protocol: one more meta field, which JunoDB's own parties skip by its size.
 * Pure. Invariant: whatever the bytes are, reading them ends in a value or in undefined, and takes no memory that they do not fill.
 * Why one field: JunoDB's fields know whole seconds, versions that repeat, and names without a count. Why at the end of the 32 tags: theirs
 * begin at 1 (juno-reference, 1.7). Numbers are big-endian, as all of that protocol.
 *
 *   request   format 1 | flags | timeoutMs u32 | [sentAt u64] | [expiry u64] | [session] | [sequence u64, done u64, attempt u8] | [version]
 *   answer    format 1 | flags | now u64 | fault u16 | [version, createdAt u64, expiresAt u64]
 *   limits    format 1 | flags | now u64 | key u32, namespace u32, value u32 | ttl u64
 *   a text has its length before it, u8
 */
import { epochMs, epochMsMax, type EpochMs, type Millis } from '../base/types.ts'
import { errors, type KvErrorCode } from '../kv/errors.ts'
import type { ExpiryChange } from '../kv/expiry.ts'
import type { RequestId, Version } from '../kv/kv.ts'

/** Near the end of what a descriptor of JunoDB can name, where PayPal is least likely to come. */
export const ownFieldTag = 0x1e
/** Bytes of the content. A field says its own length in one byte and is padded to four. */
export const ownFieldBytesMax = 251

export interface OwnRequest {
  /** How long the client waits for this sending, in milliseconds. */
  readonly timeoutMs: number
  /** When the request was first sent, by the store's clock as the client knows it. */
  readonly sentAt?: EpochMs | undefined
  readonly expiry?: ExpiryChange | undefined
  readonly requestId?: RequestId | undefined
  readonly ifVersion?: Version | undefined
}

export interface OwnAnswer {
  /** The store's clock when it decided. */
  readonly now: EpochMs
  /** What is thrown; absent: the answer is a result. */
  readonly fault?: KvErrorCode | undefined
  /** Absent: there is no entry to tell. Its value is the message's payload. */
  readonly entry?: { readonly version: Version; readonly createdAt: EpochMs; readonly expiresAt: EpochMs | undefined } | undefined
}

/** What the answer to a client's first message says of its namespace. */
export interface OwnLimits {
  readonly now: EpochMs
  readonly keyBytesMax: number
  readonly namespaceBytesMax: number
  readonly valueBytesMax: number
  readonly ttlMsMax: number
}

const format = 1
const expiryTypes = ['none', 'keep', 'never', 'set', 'extend', 'until'] as const
const flag = { ifVersion: 1, sentAt: 2, plainId: 4, sessionId: 8, entry: 1 } as const
const expiryShift = 5
const textMax = 128

/** The content of the field. */
export function encodeOwnRequest({ timeoutMs, sentAt, expiry, requestId, ifVersion }: OwnRequest): Buffer {
  const out = new FieldWriter()
  const isPlain = typeof requestId === 'string'
  out.u8(format)
  out.u8(
    (ifVersion === undefined ? 0 : flag.ifVersion) |
      (sentAt === undefined ? 0 : flag.sentAt) |
      (requestId === undefined ? 0 : isPlain ? flag.plainId : flag.sessionId) |
      (expiryTypes.indexOf(expiry?.type ?? 'none') << expiryShift),
  )
  out.u32(Math.min(Math.max(0, Math.ceil(timeoutMs)), 0xffff_ffff))
  if (sentAt !== undefined) out.u64(sentAt)
  if (expiry !== undefined) out.u64(argumentOf(expiry))
  if (requestId !== undefined) out.text(isPlain ? requestId : requestId.session)
  if (requestId !== undefined && !isPlain) {
    out.u64(requestId.sequence)
    out.u64(requestId.done ?? 0)
    // Whoever reads it asks only whether it is the first.
    out.u8(Math.min(requestId.attempt ?? 1, 255))
  }
  if (ifVersion !== undefined) out.text(ifVersion)
  return out.bytes()
}

/** @returns undefined when it is not what `encodeOwnRequest` writes, or of a later format. */
export function decodeOwnRequest(bytes: Uint8Array): OwnRequest | undefined {
  const from = new FieldReader(bytes)
  if (from.u8() !== format) return undefined
  const flags = from.u8()
  const timeoutMs = from.u32()
  const sentAt = flags & flag.sentAt ? from.instant() : undefined
  const type = expiryTypes[flags >> expiryShift]
  const expiry = type === undefined || type === 'none' ? undefined : expiryOf(type, from.u64())
  let requestId: RequestId | undefined
  if (flags & flag.plainId) requestId = from.text()
  if (flags & flag.sessionId) requestId = { session: from.text(), sequence: from.u64(), done: from.u64(), attempt: from.u8() }
  const ifVersion = flags & flag.ifVersion ? (from.text() as Version) : undefined
  if (from.isBroken || type === undefined || !isRequestId(requestId) || ifVersion === '') return undefined
  return { timeoutMs, sentAt, expiry, requestId, ifVersion }
}

export function encodeOwnAnswer({ now, fault, entry }: OwnAnswer): Buffer {
  const out = new FieldWriter()
  out.u8(format)
  out.u8(entry === undefined ? 0 : flag.entry)
  out.u64(now)
  out.u16(fault === undefined ? 0 : Number(errors[fault].id.slice('HPX-'.length)))
  if (entry !== undefined) {
    out.text(entry.version)
    out.u64(entry.createdAt)
    out.u64(entry.expiresAt ?? 0)
  }
  return out.bytes()
}

/** @returns undefined when it is not what `encodeOwnAnswer` writes; a fault that this release does not know is `UNAVAILABLE`. */
export function decodeOwnAnswer(bytes: Uint8Array): OwnAnswer | undefined {
  const from = new FieldReader(bytes)
  if (from.u8() !== format) return undefined
  const hasEntry = (from.u8() & flag.entry) !== 0
  const now = from.instant()
  const number = from.u16()
  const fault = number === 0 ? undefined : (codeOf.get(number) ?? 'UNAVAILABLE')
  if (!hasEntry) return from.isBroken ? undefined : { now, fault }
  const version = from.text() as Version
  const createdAt = from.instant()
  const expiresAt = from.instant()
  if (from.isBroken || version === '') return undefined
  return { now, fault, entry: { version, createdAt, expiresAt: expiresAt === 0 ? undefined : expiresAt } }
}

export function encodeOwnLimits({ now, keyBytesMax, namespaceBytesMax, valueBytesMax, ttlMsMax }: OwnLimits): Buffer {
  const out = new FieldWriter()
  out.u8(format)
  out.u8(0)
  out.u64(now)
  for (const bytes of [keyBytesMax, namespaceBytesMax, valueBytesMax]) out.u32(bytes)
  out.u64(ttlMsMax)
  return out.bytes()
}

/** @returns undefined when it is not what `encodeOwnLimits` writes. */
export function decodeOwnLimits(bytes: Uint8Array): OwnLimits | undefined {
  const from = new FieldReader(bytes)
  if (from.u8() !== format) return undefined
  from.u8()
  const now = from.instant()
  const [keyBytesMax, namespaceBytesMax, valueBytesMax, ttlMsMax] = [from.u32(), from.u32(), from.u32(), from.u64()]
  return from.isBroken ? undefined : { now, keyBytesMax, namespaceBytesMax, valueBytesMax, ttlMsMax }
}

const codeOf = new Map(Object.entries(errors).map(([code, { id }]) => [Number(id.slice('HPX-'.length)), code as KvErrorCode]))

function argumentOf(expiry: ExpiryChange): number {
  if (expiry.type === 'until') return expiry.at
  return 'ttlMs' in expiry && expiry.ttlMs !== undefined ? expiry.ttlMs : 0
}

function expiryOf(type: ExpiryChange['type'], argument: number): ExpiryChange {
  if (type === 'keep' || type === 'never') return { type }
  if (type === 'until') return { type, at: epochMs(Math.min(argument, epochMsMax)) }
  return { type, ttlMs: argument as Millis }
}

/** As the stores check it (core/stores/verbs.ts): a session is printable ASCII, so that a line feed ends it. */
function isRequestId(id: RequestId | undefined): boolean {
  if (id === undefined) return true
  const session = typeof id === 'string' ? id : id.session
  if (!/^[\x20-\x7e]{1,64}$/.test(session)) return false
  return typeof id === 'string' || (id.sequence >= 1 && (id.done ?? 0) <= id.sequence && (id.attempt ?? 1) >= 1)
}

class FieldWriter {
  readonly #bytes = Buffer.allocUnsafe(ownFieldBytesMax)
  #at = 0

  u8(value: number): void {
    this.#at = this.#bytes.writeUInt8(value, this.#at)
  }
  u16(value: number): void {
    this.#at = this.#bytes.writeUInt16BE(value, this.#at)
  }
  u32(value: number): void {
    this.#at = this.#bytes.writeUInt32BE(value, this.#at)
  }
  u64(value: number): void {
    this.u32(Math.floor(value / 2 ** 32))
    this.u32(value % 2 ** 32)
  }
  /** ASCII. */
  text(text: string): void {
    this.u8(text.length)
    this.#at += this.#bytes.write(text, this.#at, 'latin1')
  }
  bytes(): Buffer {
    return this.#bytes.subarray(0, this.#at)
  }
}

/** Reads zeros past the end, and numbers beyond what is exact, and says so. */
class FieldReader {
  readonly #bytes: Buffer
  #at = 0
  isBroken = false

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  u8(): number {
    const byte = this.#bytes[this.#at++]
    if (byte === undefined) this.isBroken = true
    return byte ?? 0
  }
  u16(): number {
    return this.u8() * 256 + this.u8()
  }
  u32(): number {
    return this.u16() * 2 ** 16 + this.u16()
  }
  /** Up to 2^53 - 1. */
  u64(): number {
    const value = this.u32() * 2 ** 32 + this.u32()
    if (value > Number.MAX_SAFE_INTEGER) this.isBroken = true
    return value
  }
  instant(): EpochMs {
    return epochMs(Math.min(this.u64(), epochMsMax))
  }
  text(): string {
    const length = this.u8()
    if (length > textMax || this.#at + length > this.#bytes.length) {
      this.isBroken = true
      return ''
    }
    this.#at += length
    return this.#bytes.toString('latin1', this.#at - length, this.#at)
  }
}
