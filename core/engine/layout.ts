/**
 * The one place that knows the bytes on disk: keys, records, the expiry index and the marker file.
 * Pure. Invariant: bytes that were not written by `encodeRecord` for this very key are never taken for a record.
 * Why a checksum of our own above the engine's: one engine does not verify its blocks when it reads, and none knows which key a value belongs to.
 *
 * A record: format and flags (1 byte each), five numbers as float64, fields as tag (1), length (4), bytes; at its end CRC-32 of the key and all of it.
 * A reader skips a field that it does not know, unless its tag is 128 or more: then the field changes the meaning of the rest.
 */
import { crc32 } from 'node:zlib'
import { epochMs, type EpochMs } from '../base/types.ts'
import { KvError } from '../kv/errors.ts'
import type { Version } from '../kv/kv.ts'
import { noCompletions, type Completion, type Completions, type KeyRecord, type Mark, type Verb } from '../record/record.ts'
import type { EngineName } from './engine.ts'

/** The format of the directory and of its records. A reader accepts this one and, once there is one, the one before. */
export const formatVersion = 1

const recordPrefix = 0x72 // r
const indexPrefix = 0x78 // x

/** All records, in the order of their keys' bytes. */
export const recordRange = { from: Buffer.from([recordPrefix]), to: Buffer.from([recordPrefix + 1]) } as const

export function recordKey(key: string): Buffer {
  const bytes = Buffer.allocUnsafe(1 + Buffer.byteLength(key))
  bytes[0] = recordPrefix
  bytes.write(key, 1, 'utf8')
  return bytes
}

export const keyOfRecord = (bytes: Uint8Array): string => utf8.decode(bytes.subarray(1))

/** An entry of the expiry index: ordered by the instant from which the record may leave. */
export function indexKey(at: EpochMs, key: string): Buffer {
  const bytes = Buffer.allocUnsafe(9 + Buffer.byteLength(key))
  bytes[0] = indexPrefix
  bytes.writeBigUInt64BE(BigInt(at), 1)
  bytes.write(key, 9, 'utf8')
  return bytes
}

/** The lower bound of index entries at `at` and later; as an upper bound it leaves out those at `at`. */
export const indexBound = (at: EpochMs): Buffer => indexKey(at, '')

export function parseIndexKey(bytes: Uint8Array): { readonly at: EpochMs; readonly key: string } {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return { at: epochMs(Number(view.readBigUInt64BE(1))), key: utf8.decode(bytes.subarray(9)) }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

const Tag = { originator: 1, lastRequest: 2, completions: 3, value: 4 } as const
/** Fields from this tag on may not be skipped by a reader that does not know them. */
const tagMustKnow = 128

const flagsAt = 1
const numbersAt = 2
const fieldsAt = numbersAt + 5 * 8
const fieldHead = 5
const checksumBytes = 4
const hasValue = 1

/** Records of up to so many bytes lie in a pool: who keeps them copies them. */
export const pooledMax = 1_024

/**
 * The bytes of a record: small ones in Node's pool, larger ones in a buffer of their own behind the key, so that who keeps them pins nothing else.
 * `key` is the record's key on disk: it is part of the checksum.
 */
export function encodeRecord(key: Uint8Array, record: KeyRecord): Buffer {
  const { value, originator, lastRequest } = record
  const sameRequest = lastRequest === originator
  const completions =
    record.completions === noCompletions || isEmpty(record.completions) ? undefined : encodeCompletions(record.completions)
  const size =
    fieldsAt +
    fieldHead +
    originator.length +
    (sameRequest ? 0 : fieldHead + lastRequest.length) +
    (completions ? fieldHead + completions.length : 0) +
    (value ? fieldHead + value.length : 0) +
    checksumBytes
  // The key stands before the record, so that one pass makes the checksum of both.
  const keyed = size > pooledMax ? Buffer.allocUnsafeSlow(key.length + size) : Buffer.allocUnsafe(key.length + size)
  keyed.set(key)
  const bytes = keyed.subarray(key.length)
  bytes[0] = formatVersion
  bytes[flagsAt] = value ? hasValue : 0
  let at = bytes.writeDoubleBE(record.version, numbersAt)
  at = bytes.writeDoubleBE(record.createdAt, at)
  at = bytes.writeDoubleBE(record.lastModifiedAt, at)
  at = bytes.writeDoubleBE(record.changedAt, at)
  at = bytes.writeDoubleBE(record.expiresAt, at)
  at = writeText(bytes, at, Tag.originator, originator)
  if (!sameRequest) at = writeText(bytes, at, Tag.lastRequest, lastRequest)
  if (completions) at = writeBytes(bytes, at, Tag.completions, completions)
  if (value) at = writeBytes(bytes, at, Tag.value, value)
  bytes.writeUInt32BE(crc32(keyed.subarray(0, key.length + at)), at)
  return bytes
}

/**
 * The record of bytes that came from disk. Its value is a part of `bytes`.
 * @throws KvError DAMAGED when they are not what was written for `key`; ENGINE_DIFFERS when a newer release wrote them.
 */
export function decodeRecord(key: Uint8Array, bytes: Buffer): KeyRecord {
  const end = bytes.length - checksumBytes
  if (end < fieldsAt) return damaged('it is too short')
  if (bytes.readUInt32BE(end) !== crc32(bytes.subarray(0, end), crc32(key))) return damaged('its checksum differs')
  return readRecord(bytes)
}

/** The record of bytes that passed `decodeRecord`, or came from `encodeRecord`. */
export function readRecord(bytes: Buffer): KeyRecord {
  if (bytes[0] !== formatVersion) return newer(`record format ${bytes[0]}`)
  const end = bytes.length - checksumBytes
  let originator = ''
  let lastRequest: string | undefined
  let completions = noCompletions
  let value: Uint8Array | undefined
  for (let at = fieldsAt; at < end;) {
    if (at + fieldHead > end) return damaged('a field is cut off')
    const tag = bytes[at] as number
    const from = at + fieldHead
    const to = from + bytes.readUInt32BE(at + 1)
    if (to > end) return damaged('a field is cut off')
    if (tag === Tag.originator) originator = bytes.toString('latin1', from, to)
    else if (tag === Tag.lastRequest) lastRequest = bytes.toString('latin1', from, to)
    else if (tag === Tag.completions) completions = decodeCompletions(bytes.subarray(from, to))
    else if (tag === Tag.value) value = new Uint8Array(bytes.buffer, bytes.byteOffset + from, to - from)
    else if (tag >= tagMustKnow) return newer(`record field ${tag}`)
    at = to
  }
  if (((bytes[flagsAt] as number) & hasValue) === 0 ? value !== undefined : value === undefined) return damaged('its value is missing')
  return {
    value,
    version: bytes.readDoubleBE(numbersAt),
    createdAt: epochMs(bytes.readDoubleBE(numbersAt + 8)),
    lastModifiedAt: epochMs(bytes.readDoubleBE(numbersAt + 16)),
    changedAt: epochMs(bytes.readDoubleBE(numbersAt + 24)),
    expiresAt: epochMs(bytes.readDoubleBE(numbersAt + 32)),
    originator,
    lastRequest: lastRequest ?? originator,
    completions,
  }
}

const damaged = (why: string): never => {
  throw new KvError('DAMAGED', { message: `the record is damaged: ${why}` })
}
const newer = (what: string): never => {
  throw new KvError('ENGINE_DIFFERS', {
    message: `the directory was written by a newer release: ${what}`,
    hint: 'open it with that release',
  })
}

function writeHead(bytes: Buffer, at: number, tag: number, length: number): number {
  bytes[at] = tag
  return bytes.writeUInt32BE(length, at + 1)
}

/** Names of requests are ASCII (core/stores/verbs.ts), so a character is a byte. */
function writeText(bytes: Buffer, at: number, tag: number, text: string): number {
  const from = writeHead(bytes, at, tag, text.length)
  return from + bytes.write(text, from, 'latin1')
}

function writeBytes(bytes: Buffer, at: number, tag: number, content: Uint8Array): number {
  const from = writeHead(bytes, at, tag, content.length)
  bytes.set(content, from)
  return from + content.length
}

const verbs = ['create', 'update', 'set', 'destroy', 'touch'] as const satisfies readonly Verb[]
const outcomes = ['applied', 'exists', 'missing', 'version'] as const satisfies readonly Completion['outcome'][]

const isEmpty = ({ entries, marks }: Completions): boolean => entries.length === 0 && marks.length === 0

/** Both lists: a count of 2 bytes, then each item. A text has a length byte, a number is a float64. */
function encodeCompletions({ entries, marks }: Completions): Buffer {
  const size =
    entries.reduce((sum, one) => sum + 36 + one.session.length + one.version.length, 4) +
    marks.reduce((sum, one) => sum + 17 + one.session.length, 0)
  const bytes = Buffer.allocUnsafe(size)
  let at = bytes.writeUInt16BE(entries.length, 0)
  const text = (content: string): void => {
    at = bytes.writeUInt8(content.length, at)
    at += bytes.write(content, at, 'latin1')
  }
  for (const one of entries) {
    text(one.session)
    at = bytes.writeDoubleBE(one.sequence, at)
    at = bytes.writeUInt8(verbs.indexOf(one.verb), at)
    at = bytes.writeUInt8(outcomes.indexOf(one.outcome), at)
    text(one.version)
    for (const number of [one.createdAt, one.expiresAt, one.at]) at = bytes.writeDoubleBE(number, at)
  }
  at = bytes.writeUInt16BE(marks.length, at)
  for (const mark of marks) {
    text(mark.session)
    at = bytes.writeDoubleBE(mark.below, at)
    at = bytes.writeDoubleBE(mark.at, at)
  }
  return bytes
}

function decodeCompletions(bytes: Buffer): Completions {
  let at = 0
  const byte = (): number => bytes.readUInt8(at++)
  const count = (): number => bytes.readUInt16BE((at += 2) - 2)
  const number = (): number => bytes.readDoubleBE((at += 8) - 8)
  const text = (): string => {
    const length = byte()
    return bytes.toString('latin1', at, (at += length))
  }
  const entries: Completion[] = []
  for (let left = count(); left > 0; left--) {
    entries.push({
      session: text(),
      sequence: number(),
      verb: verbs[byte()] ?? newer('a verb'),
      outcome: outcomes[byte()] ?? newer('an outcome'),
      version: text() as Version,
      createdAt: epochMs(number()),
      expiresAt: epochMs(number()),
      at: epochMs(number()),
    })
  }
  const marks: Mark[] = []
  for (let left = count(); left > 0; left--) marks.push({ session: text(), below: number(), at: epochMs(number()) })
  return { entries, marks }
}

/** What the marker file says. It is written before anything else, and replaced as a whole. */
export interface Marker {
  readonly format: number
  readonly engine: Exclude<EngineName, 'volatile'>
  /** True while a snapshot is being restored: the records are not complete. */
  readonly restoring?: true
}

export const encodeMarker = (marker: Marker): string => `${JSON.stringify({ what: 'hapax embedded store', ...marker })}\n`

/** @throws KvError ENGINE_DIFFERS when the text is no marker that this release understands. */
export function decodeMarker(text: string): Marker {
  let marker: unknown
  try {
    marker = JSON.parse(text)
  } catch (cause) {
    throw new KvError('ENGINE_DIFFERS', { message: 'the marker file of the directory cannot be read', cause })
  }
  const { format, engine, restoring } = marker as Partial<Record<keyof Marker, unknown>>
  if (typeof format !== 'number' || format < 1)
    throw new KvError('ENGINE_DIFFERS', { message: 'the marker file of the directory names no format' })
  if (format > formatVersion) newer(`directory format ${format}`)
  if (engine !== 'rocksdb' && engine !== 'portable')
    throw new KvError('ENGINE_DIFFERS', { message: `the marker file of the directory names an unknown engine: ${String(engine)}` })
  return restoring === true ? { format, engine, restoring } : { format, engine }
}
