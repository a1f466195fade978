/** Bytes as a Buffer, without a copy. It stands apart so that the types of the stores name no Buffer, and compile without @types/node. */
export const asBuffer = (bytes: Uint8Array): Buffer =>
  bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
