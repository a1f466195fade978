/**
 * Cuts a stream of bytes into frames, whatever pieces it comes in.
 * Pure. Invariant: a frame that is longer than allowed is refused by its head; what is kept are the bytes that came, and nothing in advance.
 */

export interface FrameFormat<Message> {
  /** Bytes that say how long a frame is. */
  readonly headBytes: number
  /** The size of the frame whose head begins here. @throws WireError for what is no frame, or too long a one */
  sizeOf(bytes: Buffer, start: number): number
  /** @throws WireError */
  read(bytes: Buffer, start: number, end: number): Message
}

/** Pieces of one message that are kept as they came. */
const piecesMax = 1_024

export class FrameStream<Message> {
  readonly #format: FrameFormat<Message>
  #held: Buffer[] = []
  #heldBytes = 0
  /** Of the message that has begun; 0: its head is not whole. */
  #size = 0

  constructor(format: FrameFormat<Message>) {
    this.#format = format
  }

  get heldBytes(): number {
    return this.#heldBytes
  }

  /** Takes the next bytes, and gives each message that is whole. Messages are made of views of these bytes. @throws WireError */
  push(chunk: Uint8Array, each: (message: Message) => void): void {
    const { headBytes } = this.#format
    let bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    if (this.#heldBytes > 0) {
      this.#hold(bytes)
      if (this.#size === 0 && this.#heldBytes >= headBytes) this.#size = this.#format.sizeOf(this.#join(), 0)
      if (this.#size === 0 || this.#heldBytes < this.#size) return
      bytes = this.#join()
      this.#held = []
      this.#heldBytes = 0
    }
    this.#size = 0
    let at = 0
    while (bytes.length - at >= headBytes) {
      const size = this.#format.sizeOf(bytes, at)
      if (bytes.length - at < size) {
        this.#size = size
        break
      }
      each(this.#format.read(bytes, at, at + size))
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
