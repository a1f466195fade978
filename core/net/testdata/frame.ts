/** A codec for tests: size (u32, all of it), number (u32), kind (u8), text. */
import type { Codec } from '../codec.ts'

export interface Frame {
  readonly kind: 'paired' | 'free' | 'farewell'
  readonly text: string
  /** Set by the decoder. */
  readonly number?: number
}
export const paired = (text: string): Frame => ({ kind: 'paired', text })
export const ping: Frame = { kind: 'paired', text: 'ping' }
export const farewell: Frame = { kind: 'farewell', text: '' }

const kinds = ['paired', 'free', 'farewell'] as const
const headBytes = 9
export const frameBytesMax = 262_144

export function encodeFrame({ kind, text }: Frame, number: number): Buffer {
  const bytes = Buffer.allocUnsafe(headBytes + Buffer.byteLength(text))
  bytes.writeUInt32BE(bytes.byteLength, 0)
  bytes.writeUInt32BE(number, 4)
  bytes[8] = kinds.indexOf(kind)
  bytes.write(text, headBytes)
  return bytes
}

export const frameCodec: Codec<Frame, Frame> = {
  encode: encodeFrame,
  numberOf: ({ kind, number }) => (kind === 'paired' ? number : undefined),
  decoder() {
    let held: Buffer = Buffer.alloc(0)
    return {
      get heldBytes() {
        return held.byteLength
      },
      push(chunk, each) {
        const bytes = held.byteLength === 0 ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength) : Buffer.concat([held, chunk])
        let at = 0
        while (bytes.byteLength - at >= 4) {
          const size = bytes.readUInt32BE(at)
          if (size < headBytes || size > frameBytesMax) throw new Error(`a frame of ${size} bytes`)
          if (bytes.byteLength - at < size) break
          const kind = kinds[bytes[at + 8] as number]
          if (kind === undefined) throw new Error('no such kind')
          each({ kind, number: bytes.readUInt32BE(at + 4), text: bytes.toString('utf8', at + headBytes, at + size) })
          at += size
        }
        held = Buffer.from(bytes.subarray(at))
      },
    }
  },
}
