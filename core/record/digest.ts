/**
 * A number for a whole record: two records under one ballot are the same exactly when their digests are, bad luck of 1 in 2^52 aside.
 * Pure. Source: FNV-1a (draft-eastlake-fnv), twice over 32 bits with different bases.
 * Why not a cryptographic hash: it finds faults of our own, no adversary writes records past a proposer.
 */
import type { KeyRecord } from './record.ts'

export function digestOf(record: KeyRecord): number {
  const { value, version, createdAt, lastModifiedAt, changedAt, expiresAt, originator, lastRequest, completions } = record
  const head = JSON.stringify([
    version,
    createdAt,
    lastModifiedAt,
    changedAt,
    expiresAt,
    originator,
    lastRequest,
    completions,
    value?.length,
  ])
  let low = 0x811c9dc5
  let high = 0x01234567
  const take = (byte: number): void => {
    low = Math.imul(low ^ byte, 0x01000193)
    high = Math.imul(high ^ byte, 0x01000193) + 0x9e37
  }
  for (let at = 0; at < head.length; at++) take(head.charCodeAt(at))
  if (value) for (const byte of value) take(byte)
  return (high >>> 12) * 2 ** 32 + (low >>> 0)
}
