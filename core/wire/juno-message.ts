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
/** What proxies of ours answer, and what clients must know. 26 is never sent: it calls a half-made write a success. */
export const Status = {
  ok: 0,
  badMessage: 1,
  serviceDenied: 2,
  noKey: 3,
  dupKey: 4,
  badParam: 7,
  recordLocked: 8,
  noStorage: 12,
  busy: 14,
  versionConflict: 19,
  commitFailure: 25,
  inconsistent: 26,
  notSupported: 28,
  internal: 255,
} as const

/** A flag of nop: the connection may be idle for long. Of other opcodes: replication between sites. */
export const replicationFlag = 1

/** Fields of the meta component; absent and zero are the same thing. */
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
  /** As on the wire: flag and length of the name, port, address, name. */
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

const empty = new Uint8Array(0)
const Tag = {
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
const componentTag = { payload: 1, meta: 2 } as const
const payloadHeadBytes = 12
const requestBits = 0x40
const idBytes = 16
const pad = (bytes: number, to: number): number => (to - (bytes % to)) % to

/**
 * Reads the frame that stands from `start` to `end`. What cannot be read of its components is told by `isBad`: whoever sent it still waits for an answer.
 * @throws WireError for a message that is not operational
 */
export function readJuno(bytes: Buffer, start: number, end: number): JunoMessage {
  const kind = bytes[start + 3] as number
  if ((kind & 0x3f) !== 0) throw new WireError('JunoDB has operational messages alone')
  const isRequest = kind >> 6 !== 0
  const head = {
    isRequest,
    opaque: bytes.readUInt32BE(start + 8),
    opcode: bytes[start + 12] as number,
    flags: bytes[start + 13] as number,
    status: isRequest ? 0 : (bytes[start + 15] as number),
  }
  let meta: JunoMeta = {}
  let content: Pick<JunoMessage, 'namespace' | 'key' | 'payload'> | undefined
  let isBad = false
  for (let at = start + junoHeadBytes; at + 5 < end && !isBad;) {
    const size = bytes.readUInt32BE(at)
    const tag = bytes[at + 4]
    if (size < 8 || size > end - at) isBad = true
    else if (tag === componentTag.meta) {
      const read = readMeta(bytes, at, at + size)
      if (read === undefined) isBad = true
      else meta = read
    } else if (tag === componentTag.payload) {
      content = readPayload(bytes, at, at + size)
      isBad = content === undefined
    }
    at += size
  }
  const { namespace = empty, key = empty, payload } = content ?? {}
  const message = { ...head, meta, namespace, key, payload, hasPayload: content !== undefined }
  return isBad ? { ...message, isBad } : message
}

function readPayload(bytes: Buffer, at: number, end: number): Pick<JunoMessage, 'namespace' | 'key' | 'payload'> | undefined {
  if (end - at < payloadHeadBytes) return undefined
  const keyAt = at + payloadHeadBytes + (bytes[at + 5] as number)
  const payloadAt = keyAt + bytes.readUInt16BE(at + 6)
  const length = bytes.readUInt32BE(at + 8)
  if (payloadAt > end || length > end - payloadAt) return undefined
  return {
    namespace: bytes.subarray(at + payloadHeadBytes, keyAt),
    key: bytes.subarray(keyAt, payloadAt),
    // A type without bytes is an empty value, as none is.
    payload: length > 1 ? bytes.subarray(payloadAt, payloadAt + length) : undefined,
  }
}

type Writable<T> = { -readonly [K in keyof T]: T[K] }

function readMeta(bytes: Buffer, at: number, end: number): JunoMeta | undefined {
  const count = bytes[at + 5] as number
  let from = at + 6 + count
  if (from > end) return undefined
  from += pad(from - at, 4)
  const meta: Writable<JunoMeta> = {}
  for (let index = 0; index < count; index++) {
    const descriptor = bytes[at + 6 + index] as number
    const sizeType = descriptor >> 5
    if (from >= end) return undefined
    const size = sizeType === 0 ? (bytes[from] as number) : 2 ** (sizeType + 1)
    if (size === 0 || from + size > end) return undefined
    if (!take(meta, descriptor & 0x1f, bytes, from, size, sizeType === 0)) return undefined
    from += size
  }
  return meta
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
      return isVariable && (meta.correlationId = textAt(bytes, from, size)) !== undefined
    case Tag.udfName:
      return isVariable && (meta.udfName = textAt(bytes, from, size)) !== undefined
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

/** Its length stands before it. */
function textAt(bytes: Buffer, from: number, size: number): Uint8Array | undefined {
  const length = bytes[from + 1] as number
  return size >= 2 && 2 + length <= size ? bytes.subarray(from + 2, from + 2 + length) : undefined
}

/** The whole frame. Fields stand in the order of JunoDB's Go encoder, with meta and payload both, the meta first. */
export function writeJuno({ isRequest, opaque, opcode, flags, status, meta, namespace, key, payload, hasPayload }: JunoMessage): Buffer {
  const fields = fieldsOf(meta)
  const headBytes = 6 + fields.length + pad(6 + fields.length, 4)
  const bare = fields.reduce((sum, { size }) => sum + size, headBytes)
  const metaBytes = bare + pad(bare, 8)
  const value = payload ?? empty
  const content = hasPayload ? payloadHeadBytes + namespace.length + key.length + value.length : 0
  const total = junoHeadBytes + metaBytes + content + pad(content, 8)
  const bytes = Buffer.alloc(total)
  bytes.writeUInt16BE(junoMagic, 0)
  bytes[2] = 1
  bytes[3] = isRequest ? requestBits : 0
  bytes.writeUInt32BE(total, 4)
  bytes.writeUInt32BE(opaque, 8)
  bytes[12] = opcode
  bytes[13] = flags
  if (!isRequest) bytes[15] = status
  let at = junoHeadBytes
  bytes.writeUInt32BE(metaBytes, at)
  bytes[at + 4] = componentTag.meta
  bytes[at + 5] = fields.length
  for (const [index, { descriptor }] of fields.entries()) bytes[at + 6 + index] = descriptor
  let field = at + headBytes
  for (const { size, write } of fields) {
    write(bytes, field)
    field += size
  }
  at += metaBytes
  if (!hasPayload) return bytes
  bytes.writeUInt32BE(content + pad(content, 8), at)
  bytes[at + 4] = componentTag.payload
  bytes[at + 5] = namespace.length
  bytes.writeUInt16BE(key.length, at + 6)
  bytes.writeUInt32BE(value.length, at + 8)
  at += payloadHeadBytes
  bytes.set(namespace, at)
  bytes.set(key, at + namespace.length)
  bytes.set(value, at + namespace.length + key.length)
  return bytes
}

interface Field {
  readonly descriptor: number
  /** With its padding. */
  readonly size: number
  readonly write: (bytes: Buffer, at: number) => void
}

function fieldsOf(meta: JunoMeta): Field[] {
  const fields: Field[] = []
  const number = (tag: number, value: number | undefined): void => {
    if (value !== undefined && value !== 0)
      fields.push({ descriptor: (1 << 5) | tag, size: 4, write: (bytes, at) => void bytes.writeUInt32BE(value, at) })
  }
  const id = (tag: number, value: Uint8Array | undefined): void => {
    if (value !== undefined) fields.push({ descriptor: (3 << 5) | tag, size: idBytes, write: (bytes, at) => bytes.set(value, at) })
  }
  const variable = (tag: number, value: Uint8Array | undefined, hasLength: boolean): void => {
    if (value === undefined) return
    const bare = 1 + (hasLength ? 1 : 0) + value.length
    const size = bare + pad(bare, 4)
    if (size > 255) throw new WireError(`a field of ${value.length} bytes is too long to be sent`)
    fields.push({
      descriptor: tag,
      size,
      write(bytes, at) {
        bytes[at] = size
        if (hasLength) bytes[at + 1] = value.length
        bytes.set(value, at + (hasLength ? 2 : 1))
      },
    })
  }
  number(Tag.handling, meta.handlingMs)
  id(Tag.requestId, meta.requestId)
  id(Tag.originator, meta.originator)
  const { lastModifiedNs } = meta
  if (lastModifiedNs !== undefined && lastModifiedNs !== 0n)
    fields.push({ descriptor: (2 << 5) | Tag.lastModified, size: 8, write: (bytes, at) => void bytes.writeBigUInt64BE(lastModifiedNs, at) })
  number(Tag.ttl, meta.ttlS)
  number(Tag.version, meta.version)
  number(Tag.createdAt, meta.createdAtS)
  number(Tag.expiresAt, meta.expiresAtS)
  variable(Tag.correlationId, meta.correlationId, true)
  variable(Tag.sourceInfo, meta.sourceInfo, false)
  variable(Tag.udfName, meta.udfName, true)
  variable(ownFieldTag, meta.own, false)
  return fields
}
