/**
 * What lies on the disk of a storage server: the one place that knows its keys and values.
 * Pure. Invariant: bytes that were not written for this very key are told as damaged, never as absent and never as an entry.
 * Why a generation in each key: all keys of a shard go at once, in one batch with the marks that say so, however many there are; what is left
 * of an earlier generation is nobody's, and is removed bit by bit.
 *
 *   g shard               -> generation              all numbers big-endian
 *   e shard generation key -> kind, ballot, [digest], record, CRC-32 of key and value
 *   d shard generation at key -> nothing             what is due, in the order of (instant, key)
 *   m shard, s             -> marks as JSON, CRC-32
 */
import { crc32 } from 'node:zlib'
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import { isKvError } from '../../core/kv/errors.ts'
import { readRecord, recordSize, writeRecord } from '../../core/record/record-bytes.ts'
import type { ReplicaEntry } from '../../core/wire/replica-message.ts'
import type { Due, Written } from '../storage/marks.ts'

const prefix = { generation: 0x67, entry: 0x65, due: 0x64, shard: 0x6d, store: 0x73 } as const
const shardBytes = 2
const generationBytes = 4
const headBytes = 1 + shardBytes + generationBytes
const atBytes = 8
const checksumBytes = 4
const ballotBytes = 24

const kinds = { whole: 0, stub: 1, damaged: 2 } as const

function headed(kind: number, shard: number, generation: number, rest: number): Buffer {
  const key = Buffer.allocUnsafe(headBytes + rest)
  key[0] = kind
  key.writeUInt16BE(shard, 1)
  key.writeUInt32BE(generation, 1 + shardBytes)
  return key
}

export function entryKey(shard: number, generation: number, key: string): Buffer {
  const bytes = headed(prefix.entry, shard, generation, key.length)
  bytes.write(key, headBytes, 'latin1')
  return bytes
}
/** The lowest key of a shard that is above this one. */
export const entryAfter = (shard: number, generation: number, key: string): Buffer => entryKey(shard, generation, `${key}\0`)
export const keyOfEntry = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1', headBytes)

export function dueKey(shard: number, generation: number, { at, key }: Due): Buffer {
  const bytes = headed(prefix.due, shard, generation, atBytes + key.length)
  bytes.writeBigUInt64BE(BigInt(at), headBytes)
  bytes.write(key, headBytes + atBytes, 'latin1')
  return bytes
}
/** The lowest key of what is due after this. */
export const dueAfter = (shard: number, generation: number, { at, key }: Due): Buffer => dueKey(shard, generation, { at, key: `${key}\0` })
export function dueOf(bytes: Uint8Array): Due {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return { at: epochMs(Number(view.readBigUInt64BE(headBytes))), key: view.toString('latin1', headBytes + atBytes) }
}
/** Where what is due at an instant ends. */
export const dueEnd = (shard: number, generation: number, until: EpochMs): Buffer =>
  dueKey(shard, generation, { at: epochMs(until + 1), key: '' })

export type KeyParts =
  | { readonly what: 'entry'; readonly shard: number; readonly generation: number; readonly key: string }
  | { readonly what: 'due'; readonly shard: number; readonly generation: number; readonly at: EpochMs; readonly key: string }
  | { readonly what: 'generation' | 'shard'; readonly shard: number }
  | { readonly what: 'store' }

/** What a key of the disk says. @returns undefined for one that is none of ours */
export function keyParts(bytes: Uint8Array): KeyParts | undefined {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const [kind] = view
  const is = (wanted: number, least: number): boolean => kind === wanted && view.length >= least
  if (is(prefix.store, 1) && view.length === 1) return { what: 'store' }
  if (is(prefix.generation, 1 + shardBytes)) return { what: 'generation', shard: shardOfKey(view) }
  if (is(prefix.shard, 1 + shardBytes)) return { what: 'shard', shard: shardOfKey(view) }
  if (!is(prefix.entry, headBytes) && !is(prefix.due, headBytes + atBytes)) return undefined
  const head = { shard: shardOfKey(view), generation: view.readUInt32BE(1 + shardBytes) }
  return kind === prefix.entry ? { what: 'entry', ...head, key: keyOfEntry(view) } : { what: 'due', ...head, ...dueOf(view) }
}

/** From and to of all keys of one generation of a shard. */
export const entriesOf = (shard: number, generation: number): readonly [Buffer, Buffer] => [
  headed(prefix.entry, shard, generation, 0),
  headed(prefix.entry, shard, generation + 1, 0),
]
export const duesOf = (shard: number, generation: number): readonly [Buffer, Buffer] => [
  headed(prefix.due, shard, generation, 0),
  headed(prefix.due, shard, generation + 1, 0),
]
/** From and to of all generations before this one. */
export const olderThan = (shard: number, generation: number): readonly (readonly [Buffer, Buffer])[] => [
  [headed(prefix.entry, shard, 0, 0), headed(prefix.entry, shard, generation, 0)],
  [headed(prefix.due, shard, 0, 0), headed(prefix.due, shard, generation, 0)],
]

function numbered(kind: number, shard: number): Buffer {
  const key = Buffer.alloc(1 + shardBytes)
  key[0] = kind
  key.writeUInt16BE(shard, 1)
  return key
}
export const generationKey = (shard: number): Buffer => numbered(prefix.generation, shard)
export const shardKey = (shard: number): Buffer => numbered(prefix.shard, shard)
export const shardOfKey = (key: Uint8Array): number => ((key[1] as number) << 8) | (key[2] as number)
export const allGenerations: readonly [Buffer, Buffer] = [Buffer.from([prefix.generation]), Buffer.from([prefix.generation + 1])]
export const allShards: readonly [Buffer, Buffer] = [Buffer.from([prefix.shard]), Buffer.from([prefix.shard + 1])]
export const storeKey = Buffer.from([prefix.store])

export function encodeEntry(key: Uint8Array, entry: Exclude<Written, undefined>): Buffer {
  const stubBytes = entry !== 'damaged' && entry.stub !== undefined ? 8 : 0
  const size = entry === 'damaged' ? 1 : 1 + ballotBytes + stubBytes + recordSize(entry.record)
  const bytes = Buffer.allocUnsafe(size + checksumBytes)
  bytes[0] = entry === 'damaged' ? kinds.damaged : entry.stub === undefined ? kinds.whole : kinds.stub
  if (entry !== 'damaged') {
    const { ballot, stub, record } = entry
    let at = bytes.writeDoubleBE(ballot.ms, 1)
    at = bytes.writeDoubleBE(ballot.counter, at)
    at = bytes.writeDoubleBE(ballot.proposer, at)
    if (stub !== undefined) at = bytes.writeDoubleBE(stub, at)
    writeRecord(bytes, at, record)
  }
  bytes.writeUInt32BE(crc32(bytes.subarray(0, size), crc32(key)), size)
  return bytes
}

/** The entry's value is a part of `bytes`. */
export function decodeEntry(key: Uint8Array, bytes: Uint8Array): ReplicaEntry | 'damaged' {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const end = view.length - checksumBytes
  if (end < 1 || view.readUInt32BE(end) !== crc32(view.subarray(0, end), crc32(key))) return 'damaged'
  return entryIn(view, end)
}

/** What an entry says, whoever's it is: for `hapax inspect`, where the key may not be at hand. */
export const uncheckedEntry = (bytes: Uint8Array): ReplicaEntry | 'damaged' =>
  bytes.length <= checksumBytes
    ? 'damaged'
    : entryIn(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), bytes.length - checksumBytes)

function entryIn(view: Buffer, end: number): ReplicaEntry | 'damaged' {
  const kind = view[0]
  if (kind !== kinds.whole && kind !== kinds.stub) return 'damaged'
  try {
    const ballot = { ms: view.readDoubleBE(1), counter: view.readDoubleBE(9), proposer: view.readDoubleBE(17) }
    if (kind === kinds.whole) return { ballot, record: readRecord(view, 1 + ballotBytes, end) }
    return { ballot, stub: view.readDoubleBE(1 + ballotBytes), record: readRecord(view, 1 + ballotBytes + 8, end) }
  } catch (error) {
    if (isKvError(error) || error instanceof RangeError) return 'damaged'
    throw error
  }
}

export function encodeMarks(key: Uint8Array, marks: unknown): Buffer {
  const text = Buffer.from(JSON.stringify(marks))
  const checksum = Buffer.alloc(checksumBytes)
  checksum.writeUInt32BE(crc32(text, crc32(key)))
  return Buffer.concat([text, checksum])
}

/** Whether they begin as marks do: an entry begins with its kind. */
export const isMarks = (bytes: Uint8Array): boolean => bytes[0] === 0x7b

/** @returns undefined when the bytes are not what was written for the key */
export function decodeMarks<T>(key: Uint8Array, bytes: Uint8Array): T | undefined {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const end = view.length - checksumBytes
  if (end < 0 || view.readUInt32BE(end) !== crc32(view.subarray(0, end), crc32(key))) return undefined
  return JSON.parse(view.toString('utf8', 0, end)) as T
}
