/**
 * A record as bytes: what lies on disks and travels between servers.
 * Pure. Invariant: what `writeRecord` wrote is read as the same record by this release and by each later one that knows its format.
 * Why fields with tags: a later release may add some, and an earlier one reads on.
 *
 * Format and flags (1 byte each), five numbers as float64, then fields as tag (1), length (4), bytes.
 * A reader skips a field that it does not know, unless its tag is 128 or more: then the field changes the meaning of the rest.
 */
import { epochMs, type EpochMs } from '../base/types.ts'
import { KvError } from '../kv/errors.ts'
import type { Version } from '../kv/kv.ts'
import { noCompletions, type Completion, type Completions, type KeyRecord, type Mark, type Verb } from './record.ts'

/** A reader accepts this one and, once there is one, the one before. */
export const recordFormat = 1

const Tag = { originator: 1, lastRequest: 2, completions: 3, value: 4 } as const
/** Fields from this tag on may not be skipped by a reader that does not know them. */
const tagMustKnow = 128

const flagsAt = 1
const numbersAt = 2
const fieldsAt = numbersAt + 5 * 8
const fieldHead = 5
const hasValue = 1
const loopedMax = 32

/** How many bytes `writeRecord` takes. */
export function recordSize({ value, originator, lastRequest, completions }: KeyRecord): number {
  return (
    fieldsAt +
    fieldHead +
    originator.length +
    (lastRequest === originator ? 0 : fieldHead + lastRequest.length) +
    (isEmpty(completions) ? 0 : fieldHead + completionsSize(completions)) +
    (value ? fieldHead + value.length : 0)
  )
}

/** @param bytes with room for `recordSize` after `start`. @returns where it ends */
export function writeRecord(bytes: Buffer, start: number, record: KeyRecord): number {
  const { value, originator, lastRequest, completions } = record
  bytes[start] = recordFormat
  bytes[start + flagsAt] = value ? hasValue : 0
  let at = bytes.writeDoubleBE(record.version, start + numbersAt)
  at = bytes.writeDoubleBE(record.createdAt, at)
  at = bytes.writeDoubleBE(record.lastModifiedAt, at)
  at = bytes.writeDoubleBE(record.changedAt, at)
  at = bytes.writeDoubleBE(record.expiresAt, at)
  at = writeText(bytes, at, Tag.originator, originator)
  if (lastRequest !== originator) at = writeText(bytes, at, Tag.lastRequest, lastRequest)
  if (!isEmpty(completions)) at = writeCompletions(bytes, writeHead(bytes, at, Tag.completions, completionsSize(completions)), completions)
  if (value) {
    at = writeHead(bytes, at, Tag.value, value.length)
    bytes.set(value, at)
    at += value.length
  }
  return at
}

/**
 * The record that stands from `start` to `end`. Its value is a part of `bytes`.
 * @throws KvError DAMAGED for what is no record; ENGINE_DIFFERS when a newer release wrote it.
 */
export function readRecord(bytes: Buffer, start: number, end: number): KeyRecord {
  if (end - start < fieldsAt || end > bytes.length) return damaged('it is too short')
  if (bytes[start] !== recordFormat) return newer(`record format ${bytes[start]}`)
  let originator = ''
  let lastRequest: string | undefined
  let completions = noCompletions
  let value: Uint8Array | undefined
  for (let at = start + fieldsAt; at < end;) {
    if (at + fieldHead > end) return damaged('a field is cut off')
    const tag = bytes[at] as number
    const from = at + fieldHead
    const to = from + bytes.readUInt32BE(at + 1)
    if (to > end) return damaged('a field is cut off')
    if (tag === Tag.originator) originator = bytes.toString('latin1', from, to)
    else if (tag === Tag.lastRequest) lastRequest = bytes.toString('latin1', from, to)
    else if (tag === Tag.completions) completions = readCompletions(bytes, from, to)
    else if (tag === Tag.value) value = new Uint8Array(bytes.buffer, bytes.byteOffset + from, to - from)
    else if (tag >= tagMustKnow) return newer(`record field ${tag}`)
    at = to
  }
  const isLive = ((bytes[start + flagsAt] as number) & hasValue) !== 0
  if (isLive !== (value !== undefined)) return damaged('its value is missing')
  return {
    value,
    version: bytes.readDoubleBE(start + numbersAt),
    createdAt: instant(bytes, start + numbersAt + 8),
    lastModifiedAt: instant(bytes, start + numbersAt + 16),
    changedAt: instant(bytes, start + numbersAt + 24),
    expiresAt: instant(bytes, start + numbersAt + 32),
    originator,
    lastRequest: lastRequest ?? originator,
    completions,
  }
}

const damaged = (why: string): never => {
  throw new KvError('DAMAGED', { message: `the record is damaged: ${why}` })
}
const newer = (what: string): never => {
  throw new KvError('ENGINE_DIFFERS', { message: `a newer release wrote this: ${what}`, hint: 'read it with that release' })
}

function writeHead(bytes: Buffer, at: number, tag: number, length: number): number {
  bytes[at] = tag
  return bytes.writeUInt32BE(length, at + 1)
}

/** Names of requests are ASCII (core/stores/verbs.ts), so a character is a byte. */
function writeText(bytes: Buffer, at: number, tag: number, text: string): number {
  return writeLatin1(bytes, writeHead(bytes, at, tag, text.length), text)
}

/** A character is a byte. @returns where it ends */
export function writeLatin1(bytes: Buffer, at: number, text: string): number {
  // For a short text a call into Node costs more than the text.
  if (text.length > loopedMax) return at + bytes.write(text, at, 'latin1')
  for (let index = 0; index < text.length; index++) bytes[at + index] = text.charCodeAt(index)
  return at + text.length
}

const instant = (bytes: Buffer, at: number): EpochMs => epochMs(bytes.readDoubleBE(at))

const verbs = ['create', 'update', 'set', 'destroy', 'touch'] as const satisfies readonly Verb[]
const outcomes = ['applied', 'exists', 'missing', 'version'] as const satisfies readonly Completion['outcome'][]

const isEmpty = ({ entries, marks }: Completions): boolean => entries.length === 0 && marks.length === 0

/** Of one that is remembered, without its texts. */
const entryBytesMin = 36

function completionsSize({ entries, marks }: Completions): number {
  let size = 4
  for (const { session, version } of entries) size += entryBytesMin + session.length + version.length
  for (const { session } of marks) size += 17 + session.length
  return size
}

/** Both lists: a count of 2 bytes, then each item. A text has a length byte, a number is a float64. */
function writeCompletions(bytes: Buffer, start: number, { entries, marks }: Completions): number {
  let at = bytes.writeUInt16BE(entries.length, start)
  for (const one of entries) {
    at = writeName(bytes, at, one.session)
    at = bytes.writeDoubleBE(one.sequence, at)
    at = bytes.writeUInt8(verbs.indexOf(one.verb), at)
    at = bytes.writeUInt8(outcomes.indexOf(one.outcome), at)
    at = writeName(bytes, at, one.version)
    at = bytes.writeDoubleBE(one.createdAt, at)
    at = bytes.writeDoubleBE(one.expiresAt, at)
    at = bytes.writeDoubleBE(one.at, at)
  }
  at = bytes.writeUInt16BE(marks.length, at)
  for (const mark of marks) {
    at = writeName(bytes, at, mark.session)
    at = bytes.writeDoubleBE(mark.below, at)
    at = bytes.writeDoubleBE(mark.at, at)
  }
  return at
}

const writeName = (bytes: Buffer, at: number, name: string): number => writeLatin1(bytes, bytes.writeUInt8(name.length, at), name)

/** The lists that stand from `start` to `end`. */
function readCompletions(bytes: Buffer, start: number, end: number): Completions {
  const text = (from: number): string => bytes.toString('latin1', from + 1, from + 1 + (bytes[from] as number))
  let at = start + 2
  const count = bytes.readUInt16BE(start)
  if (count * entryBytesMin > end - start) return damaged('its completions are cut off')
  const entries: Completion[] = []
  entries.length = count // grown one by one it takes more than what it holds
  for (let index = 0; index < count; index++) {
    const session = text(at)
    at += 1 + session.length
    const sequence = bytes.readDoubleBE(at)
    const verb = verbs[bytes.readUInt8(at + 8)] ?? newer('a verb')
    const outcome = outcomes[bytes.readUInt8(at + 9)] ?? newer('an outcome')
    const version = text(at + 10) as Version
    at += 11 + version.length
    entries[index] = {
      session,
      sequence,
      verb,
      outcome,
      version,
      createdAt: instant(bytes, at),
      expiresAt: instant(bytes, at + 8),
      at: instant(bytes, at + 16),
    }
    at += 24
  }
  const marks: Mark[] = []
  let left = bytes.readUInt16BE(at)
  for (at += 2; left > 0; left--) {
    const session = text(at)
    at += 1 + session.length
    marks.push({ session, below: bytes.readDoubleBE(at), at: instant(bytes, at + 8) })
    at += 16
  }
  if (at > end) return damaged('its completions are cut off')
  return { entries, marks }
}
