/**
 * The bytes of an idempotency record.
 * Pure. Invariant: what cannot be read is RECORD_UNREADABLE, never an absent key: taking it for absent would be a second charge.
 * Why JSON before the body: the person on call can read it with any tool, and the body needs no base64.
 *
 *   0     magic 0x68 ('h')
 *   1     format version: 1
 *   2..5  length of the JSON in bytes, big-endian
 *   6..   JSON: st state, fp fingerprint, at attempt, ow owner, wr writes, and where they apply
 *         lm leaseMs, le leaseEndsAt, sp steps [[name, result?]], hd head, rs reason
 *   then  the body of a completed answer
 *
 * A release that changes the format raises the version and goes on reading the one before; testdata/ holds golden records of each.
 */
import { jsonString, type Json } from '../../core/base/json.ts'
import type { EpochMs } from '../../core/base/types.ts'
import { KvError } from '../../core/kv/errors.ts'
import type { IdempotencyRecord } from './rules.ts'
import type { Fingerprint, UnstoredReason } from './types.ts'

const magic = 0x68
export const formatVersion = 1
const headerBytes = 6

const decoder = new TextDecoder('utf-8', { fatal: true })
const noBody = new Uint8Array(0)

interface Fields {
  readonly st: IdempotencyRecord['state']
  readonly fp: Fingerprint
  readonly at: number
  readonly ow: string
  readonly wr: number
  readonly lm?: number
  readonly le?: EpochMs
  readonly sp?: readonly (readonly [name: string, result?: string])[]
  readonly hd?: Json
  readonly rs?: UnstoredReason
}

export function encodeRecord(record: IdempotencyRecord): Uint8Array {
  const json = jsonOf(record)
  const jsonBytes = Buffer.byteLength(json)
  const body = record.state === 'completed' ? record.answer.body : noBody
  // From Node's pool: a buffer of its own for each record costs more than all else here.
  const bytes = Buffer.allocUnsafe(headerBytes + jsonBytes + body.length)
  bytes[0] = magic
  bytes[1] = formatVersion
  bytes.writeUInt32BE(jsonBytes, 2)
  bytes.write(json, headerBytes)
  bytes.set(body, headerBytes + jsonBytes)
  return bytes
}

/** The body is a view of `bytes`, a plain one also when they are a Buffer. @throws KvError RECORD_UNREADABLE. */
export function decodeRecord(bytes: Uint8Array): IdempotencyRecord {
  if (bytes[0] !== magic) return unreadable('it does not begin as an idempotency record')
  if (bytes[1] !== formatVersion) return unreadable(`its format version is ${bytes[1] ?? 'missing'}, this release reads ${formatVersion}`)
  if (bytes.length < headerBytes) return unreadable('it is cut short')
  const bodyAt = headerBytes + new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(2)
  if (bodyAt > bytes.length) return unreadable('it is cut short')
  let fields: unknown
  try {
    fields = JSON.parse(decoder.decode(bytes.subarray(headerBytes, bodyAt)))
  } catch (cause) {
    return unreadable('its JSON is damaged', cause)
  }
  if (!hasCommonFields(fields)) return unreadable('its fields are not those of an idempotency record')
  return recordOf(fields, new Uint8Array(bytes.buffer, bytes.byteOffset + bodyAt, bytes.length - bodyAt))
}

/** Put together by hand, which takes a fifth of the time of an object and JSON.stringify: it is written twice a run. */
function jsonOf(record: IdempotencyRecord): string {
  const { state, fingerprint, attempt, owner, writes, steps } = record
  let json = `{"st":"${state}","fp":${jsonString(fingerprint)},"at":${attempt},"ow":${jsonString(owner)},"wr":${writes}`
  if (steps.length > 0) json += `,"sp":${JSON.stringify(steps.map(({ name, result }) => (result === undefined ? [name] : [name, result])))}`
  if (state === 'claimed') json += `,"lm":${record.leaseMs},"le":${record.leaseEndsAt}`
  else if (state === 'completed') json += `,"hd":${JSON.stringify(record.answer.head)}`
  else if (state === 'unstored') json += `,"hd":${JSON.stringify(record.head)},"rs":"${record.reason}"`
  return `${json}}`
}

function recordOf(fields: Fields, body: Uint8Array): IdempotencyRecord {
  const { fp: fingerprint, at: attempt, ow: owner, wr: writes, hd = null, rs } = fields
  const steps = (fields.sp ?? []).map(([name, result]) => (result === undefined ? { name } : { name, result }))
  const common = { fingerprint, attempt, owner, writes, steps }
  if (fields.st !== 'completed' && body.length > 0) return unreadable('there is a body where none belongs')
  switch (fields.st) {
    case 'claimed':
      if (!isCount(fields.lm) || !isCount(fields.le)) return unreadable('a claim has no lease')
      return { state: 'claimed', ...common, leaseMs: fields.lm, leaseEndsAt: fields.le }
    case 'completed':
      return { state: 'completed', ...common, answer: { head: hd, body } }
    case 'unstored':
      if (rs !== 'too-large' && rs !== 'streamed' && rs !== 'not-json') return unreadable('an unstored answer has no reason')
      return { state: 'unstored', ...common, head: hd, reason: rs }
    case 'unknown':
    case 'released':
      return { state: fields.st, ...common }
    default:
      return unreadable('its state is not known')
  }
}

function hasCommonFields(value: unknown): value is Fields {
  if (typeof value !== 'object' || value === null) return false
  const { fp, at, ow, wr, sp = [] } = value as Record<keyof Fields, unknown>
  // A fingerprint of an unknown algorithm cannot be compared: neither a match nor a mismatch.
  if (typeof fp !== 'string' || !fp.startsWith('s1:') || typeof ow !== 'string') return false
  if (!isCount(at) || at < 1 || !isCount(wr) || !Array.isArray(sp)) return false
  return sp.every(
    (pair: unknown) => Array.isArray(pair) && typeof pair[0] === 'string' && (pair[1] === undefined || typeof pair[1] === 'string'),
  )
}

const isCount = (value: unknown): value is EpochMs => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0

function unreadable(why: string, cause?: unknown): never {
  throw new KvError('RECORD_UNREADABLE', { message: `the stored idempotency record cannot be read: ${why}`, cause })
}
