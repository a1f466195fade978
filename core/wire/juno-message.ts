/**
 * JunoDB's client protocol: one message as bytes, both ways.
 * Pure. Invariant: what is read from a frame are views of its bytes; nothing is believed that the frame does not hold.
 * Source: juno-reference 1.1 to 1.8 (juno: pkg/proto, docs/wireprotocol.md). Numbers are big-endian.
 *
 *   [ magic 0x5050 ][ version 1 ][ type, RQ ][ size of all, 4 ][ opaque, 4 ][ opcode ][ flags ][ shard, 2 | 0, status ][ components ]
 *   component: [ size, 4, a multiple of 8 ][ tag ][ ... ]   1: payload, 2: meta
 */
import { ownFieldTag } from './own-field.ts'
import { WireError } from './wire-bytes.ts'

export const junoMagic = 0x5050
export const junoHeadBytes = 16

/** What clients send. Everything from 0x08 on is answered with `notSupported`. */
export const Opcode = { nop: 0, create: 1, get: 2, update: 3, set: 4, destroy: 5, udfGet: 6, udfSet: 7 } as const
export const opcodeEnd = 0x08
/** What an answer can say. Proxies of ours never say 26, which calls a half-made write a success; 15, 17 and 27 stay among JunoDB's servers. */
export const Status = {
  ok: 0,
  badMessage: 1,
  serviceDenied: 2,
  noKey: 3,
  dupKey: 4,
  badParam: 7,
  recordLocked: 8,
  noUncommitted: 10,
  noStorage: 12,
  busy: 14,
  inserting: 15,
  alreadyFulfilled: 17,
  versionConflict: 19,
  storageError: 21,
  storageFull: 22,
  ttlExtendFailure: 23,
  requestTimeout: 24,
  commitFailure: 25,
  inconsistent: 26,
  markedDeleted: 27,
  notSupported: 28,
  internal: 255,
} as const

/** The first byte of a payload. What clients have encrypted or compressed comes back as it was stored. */
export const PayloadType = { clear: 0, encryptedByClient: 1, encryptedByProxy: 2, compressed: 3 } as const

/** A flag of nop: the connection may be idle for long. Of other opcodes: replication between sites. */
export const replicationFlag = 1

/** Fields of the meta component; absent and zero, or empty, are the same thing. Numbers have 32 bits on the wire: a larger one is sent as the largest. */
export interface JunoMeta {
  /** Seconds. */
  readonly ttlS?: number | undefined
  readonly version?: number | undefined
  /** Seconds since 1970. */
  readonly createdAtS?: number | undefined
  readonly expiresAtS?: number | undefined
  /** 16 bytes. */
  readonly requestId?: Uint8Array | undefined
  readonly originator?: Uint8Array | undefined
  /** Nanoseconds since 1970. */
  readonly lastModifiedNs?: bigint | undefined
  /** Milliseconds. */
  readonly handlingMs?: number | undefined
  readonly correlationId?: Uint8Array | undefined
  /** As on the wire: flag and length of the name, port, address, name, padding (juno-source.ts). */
  readonly sourceInfo?: Uint8Array | undefined
  readonly udfName?: Uint8Array | undefined
  /** Of clients of ours (own-field.ts). */
  readonly own?: Uint8Array | undefined
}

export interface JunoMessage {
  readonly isRequest: boolean
  readonly opaque: number
  readonly opcode: number
  readonly flags: number
  /** Of an answer; 0 in a request. */
  readonly status: number
  readonly meta: JunoMeta
  readonly namespace: Uint8Array
  readonly key: Uint8Array
  /** The type of the payload and its bytes, as they are stored; undefined: there is none, which is the same as an empty one. */
  readonly payload: Uint8Array | undefined
  /** There was a payload component, if only an empty one. */
  readonly hasPayload: boolean
  /** Its components make no sense: it is to be answered with `badMessage`. */
  readonly isBad?: true | undefined
}

/** Names of fields in their descriptors. */
export const Tag = {
  ttl: 1,
  version: 2,
  createdAt: 3,
  expiresAt: 4,
  requestId: 5,
  sourceInfo: 6,
  lastModified: 7,
  originator: 8,
  correlationId: 9,
  handling: 10,
  udfName: 11,
} as const
export const componentTag = { payload: 1, meta: 2 } as const
export const payloadHeadBytes = 12
export const idBytes = 16
/** A field of variable length has its size in one byte, and is padded to 4. A longer one could be read, and not be sent on. */
export const fieldBytesMax = 252

const empty = new Uint8Array(0)
type Writable<T> = { -readonly [K in keyof T]: T[K] }

/**
 * Reads the frame that stands from `start` to `end`. What cannot be read of its components is told by `isBad`: whoever sent it still waits for an answer.
 * @throws WireError for a message that is not operational
 */
export function readJuno(bytes: Buffer, start: number, end: number): JunoMessage {
  const kind = bytes[start + 3] as number
  if ((kind & 0x3f) !== 0) throw new WireError('JunoDB has operational messages alone')
  const isRequest = kind >> 6 !== 0
  // Made once, with all of its fields, and then filled: a spread copy costs more than all the rest.
  const message: Writable<JunoMessage> = {
    isRequest,
    opaque: bytes.readUInt32BE(start + 8),
    opcode: bytes[start + 12] as number,
    flags: bytes[start + 13] as number,
    status: isRequest ? 0 : (bytes[start + 15] as number),
    meta: noFields,
    namespace: empty,
    key: empty,
    payload: undefined,
    hasPayload: false,
    isBad: undefined,
  }
  for (let at = start + junoHeadBytes; at + 5 < end;) {
    const size = bytes.readUInt32BE(at)
    const tag = bytes[at + 4]
    const isRead =
      size >= componentBytesMin &&
      size <= end - at &&
      (tag === componentTag.meta
        ? readMeta(message, bytes, at, at + size)
        : tag !== componentTag.payload || readPayload(message, bytes, at, at + size))
    if (!isRead) {
      message.isBad = true
      break
    }
    at += size
  }
  return message
}

const noFields: JunoMeta = Object.freeze({})
const componentBytesMin = 8

function readPayload(message: Writable<JunoMessage>, bytes: Buffer, at: number, end: number): boolean {
  if (end - at < payloadHeadBytes) return false
  const keyAt = at + payloadHeadBytes + (bytes[at + 5] as number)
  const payloadAt = keyAt + bytes.readUInt16BE(at + 6)
  const length = bytes.readUInt32BE(at + 8)
  if (payloadAt > end || length > end - payloadAt) return false
  message.namespace = bytes.subarray(at + payloadHeadBytes, keyAt)
  message.key = bytes.subarray(keyAt, payloadAt)
  // A type without bytes is an empty value, as none is.
  message.payload = length > 1 ? bytes.subarray(payloadAt, payloadAt + length) : undefined
  message.hasPayload = true
  return true
}

function readMeta(message: Writable<JunoMessage>, bytes: Buffer, at: number, end: number): boolean {
  const count = bytes[at + 5] as number
  const headEnd = at + 6 + count
  if (headEnd > end) return false
  let from = headEnd + ((at - headEnd) & 3)
  const meta: Writable<JunoMeta> = {}
  for (let index = 0; index < count; index++) {
    const descriptor = bytes[at + 6 + index] as number
    const sizeType = descriptor >> 5
    if (from >= end) return false
    const size = sizeType === 0 ? (bytes[from] as number) : 2 ** (sizeType + 1)
    // Padded to 4, it cannot have more. Who mirrored it could not send it.
    if (sizeType === 0 && size > fieldBytesMax) return false
    if (size === 0 || from + size > end) return false
    if (!take(meta, descriptor & 0x1f, bytes, from, size, sizeType === 0)) return false
    from += size
  }
  message.meta = meta
  return true
}

/** @returns false for a field that is not as long as it has to be. One that is not known is skipped. */
function take(meta: Writable<JunoMeta>, tag: number, bytes: Buffer, from: number, size: number, isVariable: boolean): boolean {
  switch (tag) {
    case Tag.ttl:
      meta.ttlS = numberAt(bytes, from, size)
      return size === 4
    case Tag.version:
      meta.version = numberAt(bytes, from, size)
      return size === 4
    case Tag.createdAt:
      meta.createdAtS = numberAt(bytes, from, size)
      return size === 4
    case Tag.expiresAt:
      meta.expiresAtS = numberAt(bytes, from, size)
      return size === 4
    case Tag.handling:
      meta.handlingMs = numberAt(bytes, from, size)
      return size === 4
    case Tag.requestId:
      if (size === idBytes) meta.requestId = bytes.subarray(from, from + size)
      return size === idBytes
    case Tag.originator:
      if (size === idBytes) meta.originator = bytes.subarray(from, from + size)
      return size === idBytes
    case Tag.lastModified:
      if (size === 8) meta.lastModifiedNs = bytes.readBigUInt64BE(from) || undefined
      return size === 8
    case Tag.correlationId:
      meta.correlationId = textAt(bytes, from)
      return isVariable && hasText(bytes, from, size)
    case Tag.udfName:
      meta.udfName = textAt(bytes, from)
      return isVariable && hasText(bytes, from, size)
    case Tag.sourceInfo:
      if (isVariable) meta.sourceInfo = bytes.subarray(from + 1, from + size)
      return isVariable
    case ownFieldTag:
      if (isVariable) meta.own = bytes.subarray(from + 1, from + size)
      return true
    default:
      return true
  }
}

const numberAt = (bytes: Buffer, from: number, size: number): number | undefined =>
  size === 4 ? bytes.readUInt32BE(from) || undefined : undefined

/** Its length stands before it, and is not believed. */
const hasText = (bytes: Buffer, from: number, size: number): boolean => size >= 2 && 2 + (bytes[from + 1] as number) <= size
function textAt(bytes: Buffer, from: number): Uint8Array | undefined {
  const length = bytes[from + 1] as number
  return length === 0 ? undefined : bytes.subarray(from + 2, from + 2 + length)
}
