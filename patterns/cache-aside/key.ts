/**
 * What an application gives as a key, and what the cache makes of it.
 * Pure. Invariant: two keys that are not equal never share a slot; 1 and '1' are two keys (K12).
 * Why a slot and not the hash: a hit in memory must not hash, and a Map tells primitives apart by type and value.
 */
import { canonicalJson, NotJsonError } from '../../core/base/json.ts'
import { invalid } from '../../core/kv/errors.ts'

/** A primitive, or an object or list that JSON can hold (members in any order). Put the tenant or principal into it, if the value depends on it. */
export type CacheKey = string | number | bigint | boolean | object

/** The place of a key in memory. Strings stand as they are; what begins with U+0000 is tagged. */
export type Slot = string | number | bigint | boolean

/** Only hashed and compared, so the length costs time alone. */
const keyLengthMax = 16_384

/** @throws KvError INVALID_ARGUMENT for what cannot be a key. */
export function slotOf(key: CacheKey): Slot {
  switch (typeof key) {
    case 'string':
      return checked(key.charCodeAt(0) === 0 ? `\0s${key}` : key)
    case 'number':
      return Number.isFinite(key) ? key : invalid(`a cache key must not be ${key}`)
    case 'bigint':
    case 'boolean':
      return key
    case 'object':
      if (key !== null) return checked(`\0j${textOf(key)}`)
  }
  return invalid(`a cache key must be a string, number, bigint, boolean, or an object that JSON can hold, not ${String(key)}`)
}

/** For hashing: unlike for unlike slots, lone surrogates included. */
export const identityOf = (slot: Slot): readonly [string, string] => [typeof slot, String(slot)]

function textOf(key: object): string {
  try {
    return canonicalJson(key)
  } catch (cause) {
    if (!(cause instanceof NotJsonError)) throw cause
    return invalid(`a cache key must be JSON: ${cause.message}`)
  }
}

function checked(text: string): string {
  if (text.length > keyLengthMax) invalid(`a cache key has at most ${keyLengthMax} characters, not ${text.length}`)
  return text
}
