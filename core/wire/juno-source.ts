/**
 * Who sent a message of JunoDB, as he says himself: the content of its source field.
 * Pure. Invariant: bytes that do not fill what they announce are no source. Nothing may be allowed because of one: anybody can say anything.
 *
 *   [ length of the name, 7 bits, and 0x80 for a long address ][ port, 2 ][ address, 4 or 16 ][ name ][ padding ]
 */
import { WireError } from './wire-bytes.ts'

export interface JunoSource {
  /** Of the application. Up to 127 bytes in UTF-8. */
  readonly name: string
  /** 0: not told. */
  readonly port: number
  /** 4 bytes, or 16. The Go client may send 4 as 16 (::ffff:0:0/96). */
  readonly address: Uint8Array
}

const nameBytesMax = 127
const longBit = 0x80
const shortBytes = 4
const longBytes = 16
const addressAt = 3

/** @returns undefined for bytes that are no source */
export function readSource(bytes: Uint8Array): JunoSource | undefined {
  const first = bytes[0]
  if (first === undefined) return undefined
  const nameAt = addressAt + (first & longBit ? longBytes : shortBytes)
  const end = nameAt + (first & nameBytesMax)
  if (end > bytes.length) return undefined
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return { name: buffer.toString('utf8', nameAt, end), port: buffer.readUInt16BE(1), address: bytes.subarray(addressAt, nameAt) }
}

/** The content of the field, without the padding. @throws WireError for a name, a port or an address that it cannot hold */
export function writeSource({ name, port, address }: JunoSource): Buffer {
  const nameBytes = Buffer.from(name)
  if (nameBytes.length > nameBytesMax) throw new WireError(`the name of an application has at most ${nameBytesMax} bytes`)
  if (address.length !== shortBytes && address.length !== longBytes) throw new WireError('an address has 4 bytes or 16')
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new WireError(`${port} is no port`)
  const bytes = Buffer.alloc(addressAt + address.length + nameBytes.length)
  bytes[0] = nameBytes.length | (address.length === longBytes ? longBit : 0)
  bytes.writeUInt16BE(port, 1)
  bytes.set(address, addressAt)
  bytes.set(nameBytes, addressAt + address.length)
  return bytes
}
