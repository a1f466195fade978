/**
 * The bytes of a cache's records: entries, the generations of a cache, and the epoch of a tag.
 * Pure. Invariant: what cannot be read is said to be newer or damaged, and never taken for a value or thrown at a reader (K18).
 * Why the schema version stands in the record and not in the key: an old process's invalidation must hit what a new process stored (P12).
 *
 *   0     magic 0x63 ('c')
 *   1     format version: 1
 *   2..5  length of the JSON in bytes, big-endian
 *   6..   JSON. An entry: sv schema version, le lease [owner, endsAt, 1 if a pause after a failure],
 *         hd held [kind, freshUntil, staleUntil, keptUntil, deltaMs, era, epoch, ...tags].  Generations: er era, ep epoch, lf lifeMs.  A tag: at epoch
 *   then  the body of a held value
 *
 * A release that changes the format raises the version and goes on reading the one before; testdata/ holds golden records of each.
 */
import { jsonString } from '../../core/base/json.ts'
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import type { CacheRecord, Generations, Held, HeldKind, Lease } from './rules.ts'

const magic = 0x63
export const formatVersion = 1
const headerBytes = 6
/** What a lease takes beside a value: 39 characters around an instant of at most 16. */
export const leaseBytes = 55

/** `newer`: by a later release, which must be left alone. `damaged`: not ours, or broken: it is replaced. */
export type Decoded<T> =
  | { readonly type: 'read'; readonly value: T }
  | { readonly type: 'newer' }
  | { readonly type: 'damaged'; readonly why: string }

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true })
const noBody = new Uint8Array(0)

/** Neither value nor lease: what an invalidation leaves, so that the key goes on in a new version (K4). */
export const tombstone = (version: number): Uint8Array => encodeRecord({ version })

export function encodeRecord({ version, lease, held }: CacheRecord): Uint8Array {
  let json = `{"sv":${version}`
  if (lease !== undefined) json += `,"le":[${jsonString(lease.owner)},${lease.endsAt},${lease.isBackoff ? 1 : 0}]`
  if (held !== undefined) {
    const { kind, freshUntil, staleUntil, keptUntil, deltaMs, stamp, tags } = held
    json += `,"hd":["${kind}",${freshUntil},${staleUntil},${keptUntil},${deltaMs},${jsonString(stamp.era)},${stamp.epoch}`
    for (const tag of tags) json += `,${jsonString(tag)}`
    json += ']'
  }
  return framed(`${json}}`, held?.body ?? noBody)
}

export const encodeGenerations = ({ era, epoch, lifeMs }: Generations): Uint8Array =>
  framed(`{"er":${jsonString(era)},"ep":${epoch},"lf":${lifeMs}}`, noBody)

export const encodeTagEpoch = (epoch: number): Uint8Array => framed(`{"at":${epoch}}`, noBody)

/** The body is a view of `bytes`. */
export const decodeRecord = (bytes: Uint8Array): Decoded<CacheRecord> => unframed(bytes, recordOf)

export const decodeGenerations = (bytes: Uint8Array): Decoded<Generations> =>
  unframed(bytes, ({ er: era, ep: epoch, lf: lifeMs }) =>
    typeof era === 'string' && isCount(epoch) && isCount(lifeMs) ? { era, epoch, lifeMs } : 'these are no generations',
  )

export const decodeTagEpoch = (bytes: Uint8Array): Decoded<number> =>
  unframed(bytes, ({ at }) => (isCount(at) ? at : 'this is no epoch of a tag'))

function framed(json: string, body: Uint8Array): Uint8Array {
  const text = encoder.encode(json)
  const bytes = new Uint8Array(headerBytes + text.length + body.length)
  bytes[0] = magic
  bytes[1] = formatVersion
  new DataView(bytes.buffer).setUint32(2, text.length)
  bytes.set(text, headerBytes)
  bytes.set(body, headerBytes + text.length)
  return bytes
}

type Fields = Readonly<Record<string, unknown>>

function unframed<T>(bytes: Uint8Array, read: (fields: Fields, body: Uint8Array) => T | string): Decoded<T> {
  if (bytes[0] !== magic || bytes.length < 2) return damaged('it does not begin as a record of a cache')
  if ((bytes[1] as number) > formatVersion) return { type: 'newer' }
  if (bytes[1] !== formatVersion) return damaged(`its format version is ${bytes[1]}`)
  if (bytes.length < headerBytes) return damaged('it is cut short')
  const bodyAt = headerBytes + new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(2)
  if (bodyAt > bytes.length) return damaged('it is cut short')
  let fields: unknown
  try {
    fields = JSON.parse(decoder.decode(bytes.subarray(headerBytes, bodyAt)))
  } catch {
    return damaged('its JSON is damaged')
  }
  if (typeof fields !== 'object' || fields === null) return damaged('its fields are not those of a cache')
  const value = read(fields as Fields, new Uint8Array(bytes.buffer, bytes.byteOffset + bodyAt, bytes.length - bodyAt))
  return typeof value === 'string' ? damaged(value) : { type: 'read', value }
}

function recordOf({ sv: version, le, hd }: Fields, body: Uint8Array): CacheRecord | string {
  if (!isCount(version)) return 'it has no schema version'
  const lease = le === undefined ? undefined : leaseOf(le)
  const held = hd === undefined ? undefined : heldOf(hd, body)
  if (le !== undefined && lease === undefined) return 'its lease is none'
  if (hd !== undefined && held === undefined) return 'its value is none'
  if (held === undefined && body.length > 0) return 'there is a body where none belongs'
  return { version, ...(lease && { lease }), ...(held && { held }) }
}

function leaseOf(list: unknown): Lease | undefined {
  if (!Array.isArray(list)) return undefined
  const [owner, endsAt, pause] = list as readonly unknown[]
  return typeof owner === 'string' && isCount(endsAt) ? { owner, endsAt: epochMs(endsAt), isBackoff: pause === 1 } : undefined
}

const kinds: readonly unknown[] = ['value', 'undefined', 'missing', 'oversize'] satisfies HeldKind[]

function heldOf(list: unknown, body: Uint8Array): Held | undefined {
  if (!Array.isArray(list)) return undefined
  const [kind, freshUntil, staleUntil, keptUntil, deltaMs, era, epoch, ...tags] = list as readonly unknown[]
  if (!kinds.includes(kind) || typeof era !== 'string' || ![freshUntil, staleUntil, keptUntil, deltaMs, epoch].every(isCount))
    return undefined
  if (!tags.every((tag) => typeof tag === 'string')) return undefined
  return {
    kind: kind as HeldKind,
    freshUntil: freshUntil as EpochMs,
    staleUntil: staleUntil as EpochMs,
    keptUntil: keptUntil as EpochMs,
    deltaMs: deltaMs as number,
    stamp: { era, epoch: epoch as number },
    tags,
    body,
  }
}

const isCount = (value: unknown): value is number => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0

const damaged = (why: string) => ({ type: 'damaged', why }) as const
