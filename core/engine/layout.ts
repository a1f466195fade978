/**
 * The one place that knows what lies on disk: keys, checksums, the expiry index and the marker file. A record's own bytes: core/record/record-bytes.ts.
 * Pure. Invariant: bytes that were not written by `encodeRecord` for this very key are never taken for a record.
 * Why a checksum of our own above the engine's: one engine does not verify its blocks when it reads, and none knows which key a value belongs to.
 *
 * Behind a record stands the CRC-32 of its key and all of it.
 */
import { crc32 } from 'node:zlib'
import { epochMs, type EpochMs } from '../base/types.ts'
import { KvError } from '../kv/errors.ts'
import { readRecord, recordSize, writeRecord } from '../record/record-bytes.ts'
import type { KeyRecord } from '../record/record.ts'
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

const checksumBytes = 4

/** Records of up to so many bytes lie in a pool: who keeps them copies them. */
export const pooledMax = 1_024

/**
 * The bytes of a record: small ones in Node's pool, larger ones in a buffer of their own behind the key, so that who keeps them pins nothing else.
 * `key` is the record's key on disk: it is part of the checksum.
 */
export function encodeRecord(key: Uint8Array, record: KeyRecord): Buffer {
  const size = recordSize(record) + checksumBytes
  // The key stands before the record, so that one pass makes the checksum of both.
  const keyed = size > pooledMax ? Buffer.allocUnsafeSlow(key.length + size) : Buffer.allocUnsafe(key.length + size)
  keyed.set(key)
  const end = writeRecord(keyed, key.length, record)
  keyed.writeUInt32BE(crc32(keyed.subarray(0, end)), end)
  return keyed.subarray(key.length)
}

/**
 * The record of bytes that came from disk. Its value is a part of `bytes`.
 * @throws KvError DAMAGED when they are not what was written for `key`; ENGINE_DIFFERS when a newer release wrote them.
 */
export function decodeRecord(key: Uint8Array, bytes: Buffer): KeyRecord {
  const end = bytes.length - checksumBytes
  if (end < 0) throw new KvError('DAMAGED', { message: 'the record is damaged: it is too short' })
  if (bytes.readUInt32BE(end) !== crc32(bytes.subarray(0, end), crc32(key)))
    throw new KvError('DAMAGED', { message: 'the record is damaged: its checksum differs' })
  return readRecord(bytes, 0, end)
}

/** The record of bytes that passed `decodeRecord`, or came from `encodeRecord`. */
export const recordOf = (bytes: Buffer): KeyRecord => readRecord(bytes, 0, bytes.length - checksumBytes)

const newer = (what: string): never => {
  throw new KvError('ENGINE_DIFFERS', {
    message: `the directory was written by a newer release: ${what}`,
    hint: 'open it with that release',
  })
}

/** What the marker file says. It is written before anything else, and replaced as a whole. */
export interface Marker {
  readonly format: number
  readonly engine: Exclude<EngineName, 'volatile'>
  /** True while a snapshot is being restored: the records are not complete. */
  readonly restoring?: true
  /** What stands on the engine; absent: an embedded store. */
  readonly store?: 'storage'
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
  const { format, engine, restoring, store } = marker as Partial<Record<keyof Marker, unknown>>
  if (typeof format !== 'number' || format < 1)
    throw new KvError('ENGINE_DIFFERS', { message: 'the marker file of the directory names no format' })
  if (format > formatVersion) newer(`directory format ${format}`)
  if (engine !== 'rocksdb' && engine !== 'portable')
    throw new KvError('ENGINE_DIFFERS', { message: `the marker file of the directory names an unknown engine: ${String(engine)}` })
  if (store !== undefined && store !== 'storage')
    throw new KvError('ENGINE_DIFFERS', {
      message: `the marker file of the directory is for '${String(store)}', which this release does not know`,
    })
  return { format, engine, ...(restoring === true ? { restoring } : {}), ...(store === undefined ? {} : { store }) }
}
