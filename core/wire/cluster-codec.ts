/**
 * The bytes of our own messages: between proxies and storage servers, and between storage servers.
 * Pure. Invariant: a frame that is longer than allowed is refused by its head; whatever else the bytes are, only WireErrors come out.
 * Why a greeting with two versions: each side says the oldest and the newest that it speaks, and both take the newest that both have. What
 * stands behind the fields that a release knows is skipped, so a later one can add fields without a new version.
 *
 *   [ 'H' 'X', 2 ][ version, 1 ][ kind, 1 ][ size of all, 4 ][ fields ]
 */
import { Kind, kindOf, readBody, writeBody, type ClusterMessage } from './cluster-message.ts'
import { WireError, WireReader, WireWriter } from './wire-bytes.ts'

export { WireError } from './wire-bytes.ts'
export type { ClusterMessage, Farewell, Greeting } from './cluster-message.ts'

export interface Versions {
  readonly oldest: number
  readonly newest: number
}

/** What this release speaks. */
export const clusterVersions: Versions = Object.freeze({ oldest: 1, newest: 1 })

const magic = 0x4858
const headBytes = 8
/** The largest value (4 MiB) with all that is remembered beside it, a page of a copy, and room. */
export const frameBytesMax = 16_777_216

/** The version that both sides speak; undefined: none. */
export function negotiate(theirs: Versions, ours = clusterVersions): number | undefined {
  const newest = Math.min(theirs.newest, ours.newest)
  return newest >= Math.max(theirs.oldest, ours.oldest) ? newest : undefined
}

/** Implements the port of core/net: no message has a number of the connection, for each has an id of its own where it needs one. */
export class ClusterCodec {
  readonly #writer = new WireWriter()

  /** @throws WireError when it is larger than any peer would take. */
  encode(message: ClusterMessage): Buffer {
    const writer = this.#writer
    try {
      writer.u16(magic)
      writer.u8(clusterVersions.newest)
      writer.u8(kindOf(message))
      writer.u32(0)
      writeBody(writer, message)
      if (writer.length > frameBytesMax) throw new WireError(`a message of ${writer.length} bytes is too long to be sent`)
      writer.patchU32(writer.length, 4)
      return writer.take()
    } catch (error) {
      writer.clear()
      throw error
    }
  }

  decoder(): ClusterDecoder {
    return new ClusterDecoder()
  }

  numberOf(): undefined {
    return undefined
  }
}

/** Pieces of one message that are kept as they came. */
const piecesMax = 1_024

export class ClusterDecoder {
  #held: Buffer[] = []
  #heldBytes = 0
  /** Of the message that has begun; 0: its head is not whole. */
  #size = 0

  get heldBytes(): number {
    return this.#heldBytes
  }

  /** Takes the next bytes of a stream, and gives each message that is whole. Values are parts of these bytes. @throws WireError */
  push(chunk: Uint8Array, each: (message: ClusterMessage) => void): void {
    let bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    if (this.#heldBytes > 0) {
      this.#hold(bytes)
      if (this.#size === 0 && this.#heldBytes >= headBytes) this.#size = sizeOf(this.#join())
      if (this.#size === 0 || this.#heldBytes < this.#size) return
      bytes = this.#join()
      this.#held = []
      this.#heldBytes = 0
    }
    this.#size = 0
    let at = 0
    while (bytes.length - at >= headBytes) {
      const size = sizeOf(bytes.subarray(at))
      if (bytes.length - at < size) {
        this.#size = size
        break
      }
      each(decodeFrame(bytes, at, at + size))
      at += size
    }
    if (at < bytes.length) this.#hold(bytes.subarray(at))
  }

  #hold(bytes: Buffer): void {
    this.#held.push(bytes)
    this.#heldBytes += bytes.length
    // A stream of single bytes must not cost an object each.
    if (this.#held.length > piecesMax) this.#join()
  }

  /** What is held, in one piece. */
  #join(): Buffer {
    if (this.#held.length > 1) this.#held = [Buffer.concat(this.#held, this.#heldBytes)]
    return this.#held[0] as Buffer
  }
}

function sizeOf(head: Buffer): number {
  if (head.readUInt16BE(0) !== magic) throw new WireError('this is no message of ours')
  const size = head.readUInt32BE(4)
  if (size < headBytes || size > frameBytesMax) throw new WireError(`a message cannot have ${size} bytes`)
  return size
}

function decodeFrame(bytes: Buffer, start: number, end: number): ClusterMessage {
  const version = bytes[start + 2] as number
  const kind = bytes[start + 3] as number
  // A greeting is read in every version: it is how a version is found.
  if (kind !== Kind.greeting && (version < clusterVersions.oldest || version > clusterVersions.newest))
    throw new WireError(`version ${version} of a message is none that this release speaks`)
  return readBody(new WireReader(bytes, start + headBytes, end), kind)
}
