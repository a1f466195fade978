/**
 * What sockets need to know of messages: where one ends, and which answer belongs to which request.
 * Invariant: core/net sees numbers and bytes alone; whoever knows an offset stands in core/wire and implements this port.
 * Why a decoder is an object: what came of a message that is not whole belongs to one stream and dies with it.
 */

/** `Out`: what this side sends. `In`: what it receives. A client and its server have the two the other way round. */
export interface Codec<Out, In> {
  /** The codec of one stream, where what is written depends on what was read there. Absent: this one is for all. */
  ofStream?(): Codec<Out, In>
  /** A new one for each stream. */
  decoder(): Decoder<In>
  /** The bytes of a message. `number` (0 to 2^32 - 1) pairs request and answer; the bytes belong to the connection from then on. */
  encode(message: Out, number: number): Uint8Array
  /** Of a request its number, of an answer the number of its request; undefined for a message that belongs to no other. */
  numberOf(message: In): number | undefined
}

export interface Decoder<In> {
  /**
   * Takes the next bytes of the stream, which are the decoder's from then on, and gives each message that they make whole, in order.
   * @throws anything when the stream makes no sense; the connection is closed then. A size beyond what is allowed is refused here, before memory is taken for it.
   */
  push(bytes: Uint8Array, each: (message: In) => void): void
  /** Bytes that it keeps because their message is not whole yet. Bounded by the longest message that it allows. */
  readonly heldBytes: number
}
