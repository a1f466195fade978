/**
 * The bytes of our own messages: between proxies and storage servers, and between storage servers.
 * Pure. Invariant: a frame that is longer than allowed is refused by its head; whatever else the bytes are, only WireErrors come out.
 * Why a greeting with two versions: each side says the oldest and the newest that it speaks, and both take the newest that both have; until
 * the other side has said its own, the oldest is written. What
 * stands behind the fields that a release knows is skipped, so a later one can add fields without a new version; one that must not be
 * skipped needs a new version or kind, and whoever does not know that ends the connection.
 *
 *   [ 'H' 'X', 2 ][ version, 1 ][ kind, 1 ][ size of all, 4 ][ fields ]
 */
import { Kind, kindOf, readBody, writeBody, type ClusterMessage } from './cluster-message.ts'
import { FrameStream } from './frame-stream.ts'
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
  readonly #versions: Versions
  readonly #writer: WireWriter
  #version: number

  /** @param versions what this side speaks; those of this release but in tests. */
  constructor(versions = clusterVersions, writer = new WireWriter()) {
    this.#versions = versions
    this.#writer = writer
    this.#version = versions.oldest
  }

  /** What is written: as the other side's greeting allows. */
  get version(): number {
    return this.#version
  }

  /** One stream's own, for each has its own peer. The memory that messages are made in is shared. */
  ofStream(): ClusterCodec {
    return new ClusterCodec(this.#versions, this.#writer)
  }

  /** @throws WireError when it is larger than any peer would take. */
  encode(message: ClusterMessage): Buffer {
    const writer = this.#writer
    try {
      writer.u16(magic)
      writer.u8(this.#version)
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

  decoder(): FrameStream<ClusterMessage> {
    return new FrameStream({ headBytes, sizeOf, read: (bytes, start, end) => this.#read(bytes, start, end) })
  }

  numberOf(): undefined {
    return undefined
  }

  #read(bytes: Buffer, start: number, end: number): ClusterMessage {
    const version = bytes[start + 2] as number
    const kind = bytes[start + 3] as number
    const { oldest, newest } = this.#versions
    // A greeting is read in every version: it is how a version is found.
    if (kind !== Kind.greeting && (version < oldest || version > newest))
      throw new WireError(`version ${version} of a message is none that this release speaks`)
    const message = readBody(new WireReader(bytes, start + headBytes, end), kind)
    // Whoever has none in common with us is told so by whoever judges greetings.
    if (message.type === 'greeting') this.#version = negotiate(message, this.#versions) ?? oldest
    return message
  }
}

function sizeOf(bytes: Buffer, start: number): number {
  if (bytes.readUInt16BE(start) !== magic) throw new WireError('this is no message of ours')
  const size = bytes.readUInt32BE(start + 4)
  if (size < headBytes || size > frameBytesMax) throw new WireError(`a message cannot have ${size} bytes`)
  return size
}
