/**
 * Numbers and bigints as callers give and get them; inside, every count is a bigint.
 * Invariant: no unit is ever lost: what a number cannot say exactly is refused on the way in and thrown on the way out (C8, C9).
 * Why bigints inside: one set of rules and one record format, and a counter may be switched to bigints later.
 */
import { invalid, KvError } from '../../core/kv/errors.ts'
import { digitsMax } from './record.ts'

export interface Numbers<N extends number | bigint> {
  readonly least: bigint
  readonly most: bigint
  /** @throws KvError INVALID_ARGUMENT. */
  in(value: N, what: string): bigint
  /** @throws KvError COUNTER_OVERFLOW. */
  out(value: bigint): N
}

const safe = BigInt(Number.MAX_SAFE_INTEGER)
const lowest = -safe
const largest = 10n ** BigInt(digitsMax) - 1n

export const numbers: Numbers<number> = {
  least: lowest,
  most: safe,
  in(value, what) {
    if (!Number.isSafeInteger(value)) invalid(`${what} must be a whole number within 2^53 - 1, not ${String(value)}`)
    return BigInt(value)
  },
  out(value) {
    if (value > safe || value < lowest)
      throw new KvError('COUNTER_OVERFLOW', {
        message: 'the stored count is beyond what a number can say',
        hint: 'read it with bigint: true',
      })
    return Number(value)
  },
}

export const bigints: Numbers<bigint> = {
  least: -largest,
  most: largest,
  in(value, what) {
    if (typeof value !== 'bigint' || value > largest || value < -largest) invalid(`${what} must be a bigint of at most ${digitsMax} digits`)
    return value
  },
  out: (value) => value,
}
