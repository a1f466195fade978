/**
 * Makes the bytes of one message of JunoDB's client protocol.
 * Pure. Invariant: what `readJuno` has read can be written, and is then read as the same: an answer mirrors what a stranger sent.
 * Why fields are made aside: how many there are stands before them, and one pass over them is enough. An object a field would cost more than its bytes.
 */
import {
  componentTag,
  fieldBytesMax,
  idBytes,
  junoHeadBytes,
  junoMagic,
  payloadHeadBytes,
  Tag,
  type JunoMessage,
  type JunoMeta,
} from './juno-message.ts'
import { ownFieldTag } from './own-field.ts'
import { WireError } from './wire-bytes.ts'

const requestBits = 0x40
const metaHeadBytes = 6
const u32Max = 0xffff_ffff
/** Sizes of fields in their descriptors: 4, 8 and 16 bytes; 0 is a field that says its own. */
const sizeType = { u32: 1 << 5, u64: 2 << 5, id: 3 << 5 } as const
const namespaceBytesMax = 255
const keyBytesMax = 65_535
/** Bytes that have to follow for a multiple of 4, or 8. */
const pad4 = (bytes: number): number => -bytes & 3
const pad8 = (bytes: number): number => -bytes & 7

/**
 * The whole frame, its bytes its own. Fields stand in the order of JunoDB's Go encoder, the meta before the payload.
 * @param opaque instead of the message's own
 * @throws WireError for what does not fit: a request id that has not 16 bytes, a text or source of more than 250, a namespace of more than 255, a key of more than 65,535
 */
export function writeJuno(message: JunoMessage, opaque = message.opaque): Buffer {
  const { isRequest, meta, namespace, key, payload, hasPayload } = message
  if (namespace.length > namespaceBytesMax || key.length > keyBytesMax)
    throw new WireError(`a namespace of ${namespace.length} bytes or a key of ${key.length} is too long to be sent`)
  fields.take(meta)
  const headBytes = metaHeadBytes + fields.count + pad4(metaHeadBytes + fields.count)
  const metaBytes = headBytes + fields.length + pad8(headBytes + fields.length)
  const valueBytes = payload === undefined ? 0 : payload.length
  const content = hasPayload ? payloadHeadBytes + namespace.length + key.length + valueBytes : 0
  const total = junoHeadBytes + metaBytes + content + pad8(content)
  const bytes = Buffer.allocUnsafe(total)
  bytes.writeUInt16BE(junoMagic, 0)
  bytes[2] = 1
  bytes[3] = isRequest ? requestBits : 0
  bytes.writeUInt32BE(total, 4)
  bytes.writeUInt32BE(opaque, 8)
  bytes[12] = message.opcode
  bytes[13] = message.flags
  bytes[14] = 0
  bytes[15] = isRequest ? 0 : message.status
  bytes.writeUInt32BE(metaBytes, junoHeadBytes)
  bytes[junoHeadBytes + 4] = componentTag.meta
  fields.put(bytes, junoHeadBytes + 5, junoHeadBytes + headBytes, junoHeadBytes + metaBytes)
  if (!hasPayload) return bytes
  let at = junoHeadBytes + metaBytes
  bytes.writeUInt32BE(content + pad8(content), at)
  bytes[at + 4] = componentTag.payload
  bytes[at + 5] = namespace.length
  bytes.writeUInt16BE(key.length, at + 6)
  bytes.writeUInt32BE(valueBytes, at + 8)
  at += payloadHeadBytes
  bytes.set(namespace, at)
  at += namespace.length
  bytes.set(key, at)
  at += key.length
  if (payload !== undefined) bytes.set(payload, at)
  zero(bytes, at + valueBytes, total)
  return bytes
}

/** Fewer than eight, or it would be a `fill`. */
function zero(bytes: Uint8Array, from: number, to: number): void {
  for (let at = from; at < to; at++) bytes[at] = 0
}

/** The fields of the message that is being written, and of one alone. */
class Fields {
  /** All that there are, each of its largest size, would fill a half. */
  readonly #bytes = Buffer.alloc(2_048)
  readonly #descriptors = new Uint8Array(16)
  count = 0
  length = 0

  take(meta: JunoMeta): void {
    this.count = 0
    this.length = 0
    this.#number(Tag.handling, meta.handlingMs)
    this.#id(Tag.requestId, meta.requestId)
    this.#id(Tag.originator, meta.originator)
    this.#long(Tag.lastModified, meta.lastModifiedNs)
    this.#number(Tag.ttl, meta.ttlS)
    this.#number(Tag.version, meta.version)
    this.#number(Tag.createdAt, meta.createdAtS)
    this.#number(Tag.expiresAt, meta.expiresAtS)
    this.#text(Tag.correlationId, meta.correlationId)
    this.#raw(Tag.sourceInfo, meta.sourceInfo)
    this.#text(Tag.udfName, meta.udfName)
    this.#raw(ownFieldTag, meta.own)
  }

  /** Their number and descriptors from `at`, the fields from `from`, zeros up to `end`. */
  put(bytes: Buffer, at: number, from: number, end: number): void {
    const { count, length } = this
    bytes[at] = count
    for (let index = 0; index < count; index++) bytes[at + 1 + index] = this.#descriptors[index] as number
    zero(bytes, at + 1 + count, from)
    this.#bytes.copy(bytes, from, 0, length)
    zero(bytes, from + length, end)
  }

  #number(tag: number, value: number | undefined): void {
    if (value === undefined || value === 0) return
    this.#bytes.writeUInt32BE(value > u32Max ? u32Max : value, this.#next(sizeType.u32 | tag, 4))
  }

  #long(tag: number, value: bigint | undefined): void {
    if (value === undefined || value === 0n) return
    this.#bytes.writeBigUInt64BE(value, this.#next(sizeType.u64 | tag, 8))
  }

  #id(tag: number, value: Uint8Array | undefined): void {
    if (value === undefined) return
    if (value.length !== idBytes) throw new WireError(`a request id has ${idBytes} bytes, and not ${value.length}`)
    this.#bytes.set(value, this.#next(sizeType.id | tag, idBytes))
  }

  /** Its length before it. */
  #text(tag: number, value: Uint8Array | undefined): void {
    if (value === undefined || value.length === 0) return
    const at = this.#variable(tag, value, 2)
    this.#bytes[at + 1] = value.length
  }

  #raw(tag: number, value: Uint8Array | undefined): void {
    if (value !== undefined && value.length > 0) this.#variable(tag, value, 1)
  }

  #variable(tag: number, value: Uint8Array, before: number): number {
    const bare = before + value.length
    const size = bare + pad4(bare)
    if (size > fieldBytesMax) throw new WireError(`a field of ${value.length} bytes is too long to be sent`)
    const at = this.#next(tag, size)
    this.#bytes[at] = size
    this.#bytes.set(value, at + before)
    zero(this.#bytes, at + bare, at + size)
    return at
  }

  #next(descriptor: number, size: number): number {
    const at = this.length
    this.#descriptors[this.count++] = descriptor
    this.length = at + size
    return at
  }
}

const fields = new Fields()
