/**
 * MurmurHash3, x86, 32 bits: the hash by which JunoDB chooses a shard.
 * Pure. Source: Austin Appleby, smhasher, MurmurHash3.cpp (public domain). It resists no attacker: whoever chooses keys can put them all in one shard.
 */

const c1 = 0xcc9e2d51
const c2 = 0x1b873593

const mixed = (k: number): number => {
  const first = Math.imul(k, c1)
  return Math.imul((first << 15) | (first >>> 17), c2)
}

/** @returns 0 to 2^32 - 1 */
export function murmur3(bytes: Uint8Array, seed = 0): number {
  const { length } = bytes
  const blocks = length & ~3
  const at = (index: number): number => bytes[index] as number
  let hash = seed | 0
  for (let index = 0; index < blocks; index += 4) {
    const block = at(index) | (at(index + 1) << 8) | (at(index + 2) << 16) | (at(index + 3) << 24)
    hash ^= mixed(block)
    hash = (hash << 13) | (hash >>> 19)
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0
  }
  let tail = 0
  for (let index = length - 1; index >= blocks; index--) tail = (tail << 8) | at(index)
  if (blocks < length) hash ^= mixed(tail)
  hash ^= length
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
