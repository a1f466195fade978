/**
 * The name of a key inside the cluster: namespace and key in one string, and the shard that it belongs to.
 * Pure. Invariant: two pairs of namespace and key never make one name, whatever bytes are in them.
 * Why one character a byte: such strings take a byte a character in memory, hash fast, and come from the wire without decoding UTF-8.
 *
 *   [ length of the namespace, 1 ][ namespace ][ key ]
 */
import { murmur3 } from '../base/murmur3.ts'

export const namespaceBytesMax = 255

/** @param namespace at most 255 bytes */
export function registerKey(namespace: Uint8Array, key: Uint8Array): string {
  const bytes = Buffer.allocUnsafe(1 + namespace.length + key.length)
  bytes[0] = namespace.length
  bytes.set(namespace, 1)
  bytes.set(key, 1 + namespace.length)
  return bytes.toString('latin1')
}

/** The bytes that `registerKey` was made of. */
export function partsOf(name: string): { readonly namespace: Buffer; readonly key: Buffer } {
  const bytes = Buffer.from(name, 'latin1')
  const end = 1 + (bytes[0] ?? 0)
  return { namespace: bytes.subarray(1, end), key: bytes.subarray(end) }
}

/** JunoDB's placement: by the key alone, so a key has one shard in all namespaces (juno-reference, 5.1). */
export const shardOf = (key: Uint8Array, shards: number): number => murmur3(key) % shards
