/**
 * Frames as what they say, for people and for programs: JunoDB's client protocol and our own messages, told apart by their first two bytes.
 * Pure. Invariant: nothing is guessed: bytes that are no frame, or not whole, are an error with their place. What is sealed stays sealed: who sees
 * it sees under which key it lies.
 */
import { ClusterCodec, type ClusterMessage } from './cluster-codec.ts'
import { JunoCodec } from './juno-codec.ts'
import { Opcode, PayloadType, Status, type JunoMessage } from './juno-message.ts'
import { readSource } from './juno-source.ts'
import { decodeOwnAnswer, decodeOwnLimits, decodeOwnRequest } from './own-field.ts'
import { partsOf } from '../record/register-key.ts'
import { WireError } from './wire-bytes.ts'

export type Plain = string | number | boolean | null | readonly Plain[] | { readonly [name: string]: Plain }
type Fields = Record<string, Plain>

/** Of both kinds of frame: magic, and the size of all as the second word. */
const headBytes = 8
const magics = { junodb: 0x5050, cluster: 0x4858 } as const
/** Of bytes that are no text, and of texts. What is longer is cut, and its length is told. */
const shownMax = 1_024
/** Type, key version, nonce and tag around what is sealed (server/edge/sealer.ts). */
const sealedBytesMin = 33

/** Whether the bytes begin as a frame does. */
export const isFrame = (bytes: Uint8Array): boolean => protocolOf(bytes, 0) !== undefined

/** Every frame of a piece of a stream. @throws WireError for the first thing that is no whole frame, with its place */
export function dumpFrames(bytes: Uint8Array): readonly Plain[] {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const frames: Plain[] = []
  for (let at = 0; at < view.length;) {
    const protocol = protocolOf(view, at)
    if (protocol === undefined) throw new WireError(`at byte ${at}: neither 5050 (JunoDB's clients) nor 4858 (our own messages)`)
    if (view.length - at < headBytes) throw new WireError(`at byte ${at}: the head of a frame is not whole`)
    const size = view.readUInt32BE(at + 4)
    const frame = view.subarray(at, at + size)
    if (size < headBytes) throw new WireError(`at byte ${at}: a message cannot have ${size} bytes`)
    try {
      const shown = protocol === 'junodb' ? junoFrame(frame) : clusterFrame(frame)
      if (shown === undefined) throw new WireError(`it has ${frame.length} of ${size} bytes`)
      frames.push({ protocol, offset: at, bytes: size, ...shown })
    } catch (error) {
      throw error instanceof WireError ? new WireError(`at byte ${at}: ${error.message}`) : error
    }
    at += size
  }
  return frames
}

function protocolOf(bytes: Uint8Array, at: number): keyof typeof magics | undefined {
  const magic = ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)
  return magic === magics.junodb ? 'junodb' : magic === magics.cluster ? 'cluster' : undefined
}

function first<Message>(decoder: { push(bytes: Uint8Array, each: (message: Message) => void): void }, frame: Buffer): Message | undefined {
  let found: Message | undefined
  decoder.push(frame, (message) => (found = message))
  return found
}

function junoFrame(frame: Buffer): Fields | undefined {
  const message = first<JunoMessage>(new JunoCodec().decoder(), frame)
  if (message === undefined) return undefined
  const { isRequest, opcode, opaque, status, flags, namespace, key, payload, meta, hasPayload, isBad } = message
  return {
    version: frame[2] as number,
    type: isRequest ? 'request' : 'answer',
    opcode: nameIn(Opcode, opcode),
    opaque,
    flags,
    ...(isRequest ? { shard: frame.readUInt16BE(14) } : { status: nameIn(Status, status) }),
    ...(hasPayload ? { namespace: textOf(namespace), key: textOf(key) } : {}),
    ...(payload === undefined ? {} : { payload: payloadOf(payload) }),
    meta: metaOf(message, meta),
    ...(isBad === true ? { isBad: true } : {}),
  }
}

function metaOf({ isRequest, opcode }: JunoMessage, meta: JunoMessage['meta']): Plain {
  const own = meta.own === undefined ? undefined : (ownOf(isRequest, opcode, meta.own) as Plain)
  const source = meta.sourceInfo === undefined ? undefined : readSource(meta.sourceInfo)
  const shown = source === undefined ? undefined : { name: source.name, port: source.port, address: hex(source.address) }
  return plain({
    ...meta,
    lastModifiedNs: meta.lastModifiedNs === undefined ? undefined : String(meta.lastModifiedNs),
    correlationId: meta.correlationId === undefined ? undefined : textOf(meta.correlationId),
    udfName: meta.udfName === undefined ? undefined : textOf(meta.udfName),
    ...(shown === undefined ? {} : { sourceInfo: shown }),
    ...(own === undefined ? {} : { own }),
  })
}

/** A request, an answer, and what is said to a client that begins, have formats of their own. */
function ownOf(isRequest: boolean, opcode: number, own: Uint8Array): Plain {
  const read = isRequest ? decodeOwnRequest(own) : opcode === Opcode.nop ? decodeOwnLimits(own) : decodeOwnAnswer(own)
  return read === undefined ? { unreadable: hex(own) } : plain(read)
}

function clusterFrame(frame: Buffer): Fields | undefined {
  const message = first<ClusterMessage>(new ClusterCodec().decoder(), frame)
  return message === undefined ? undefined : { version: frame[2] as number, ...(plain(message) as Fields) }
}

/** Any message, record or row as JSON has it. Names of keys in the cluster are their two parts, values are payloads. */
export function plain(value: unknown, name = ''): Plain {
  if (typeof value === 'string') return name === 'key' || name === 'after' ? keyOf(value) : value
  if (typeof value === 'number' || typeof value === 'boolean') return value
  if (value instanceof Uint8Array) return name === 'value' ? payloadOf(value) : hex(value)
  if (Array.isArray(value)) return value.map((item) => plain(item))
  if (typeof value !== 'object' || value === null) return null
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, content]) => content !== undefined)
      .map(([field, content]) => [field, plain(content, field)]),
  )
}

/** The name of a key in the cluster, as namespace and key. */
export function keyOf(name: string): Plain {
  const { namespace, key } = partsOf(name)
  return { namespace: textOf(namespace), key: textOf(key) }
}

/** What lies in a payload: its type, and its bytes when anybody may read them. */
export function payloadOf(payload: Uint8Array): Plain {
  const [type] = payload
  if (type === undefined) return { bytes: 0 }
  const content = payload.subarray(1)
  const known = { type: nameIn(PayloadType, type), bytes: content.length }
  if (type === PayloadType.clear) return { ...known, content: textOf(content) }
  if (type !== PayloadType.encryptedByProxy) return { ...known, content: hex(content) }
  if (payload.length < sealedBytesMin) return { ...known, isSealed: true, isTooShort: true }
  const keyVersion = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).readUInt32BE(1)
  return { ...known, isSealed: true, keyVersion }
}

const nameIn = (table: Readonly<Record<string, number>>, number: number): string =>
  Object.keys(table).find((name) => table[name] === number) ?? `unknown ${number}`

function hex(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.subarray(0, shownMax)).toString('hex')
  return bytes.length > shownMax ? `${text}... (${bytes.length} bytes)` : text
}

/** As text where it is one, and else as hex. */
function textOf(bytes: Uint8Array): Plain {
  const whole = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const text = whole.toString('utf8')
  if (!Buffer.from(text, 'utf8').equals(whole)) return { hex: hex(bytes) }
  return text.length > shownMax ? `${text.slice(0, shownMax)}... (${bytes.length} bytes)` : text
}
