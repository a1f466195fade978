/**
 * JunoDB's client protocol as a stream: the port of core/net for both of its ends.
 * Pure. Invariant: sizes that cannot be are refused before anything is taken for them: JunoDB itself takes up to 4 GiB for a size below 12.
 */
import { FrameStream, type FrameFormat } from './frame-stream.ts'
import { junoHeadBytes, junoMagic, readJuno, type JunoMessage } from './juno-message.ts'
import { writeJuno } from './juno-writer.ts'
import { WireError } from './wire-bytes.ts'

/** A value of 4 MiB with a key, its seal and all fields. */
export const junoFrameBytesMax = 4_259_840
const sizeHeadBytes = 12

/** Numbers pair by the opaque that a client chooses. */
export class JunoCodec {
  readonly #format: FrameFormat<JunoMessage>

  /** @param frameBytesMax of one message, its head included. Default: what takes the largest value of ours. */
  constructor(frameBytesMax = junoFrameBytesMax) {
    this.#format = {
      headBytes: sizeHeadBytes,
      sizeOf(bytes, start) {
        if (bytes.readUInt16BE(start) !== junoMagic) throw new WireError('this is no message of JunoDB')
        const size = bytes.readUInt32BE(start + 4)
        if (size < junoHeadBytes || size > frameBytesMax) throw new WireError(`a message cannot have ${size} bytes here`)
        return size
      },
      read: readJuno,
    }
  }

  encode(message: JunoMessage, number: number): Buffer {
    return writeJuno(message, number)
  }

  decoder(): FrameStream<JunoMessage> {
    return new FrameStream(this.#format)
  }

  numberOf({ opaque }: JunoMessage): number {
    return opaque
  }
}
