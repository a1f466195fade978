/**
 * The two hashes of a request: the identity of its key, which names the record, and the fingerprint of what it asks for.
 * Invariant: no two different lists of parts give the same bytes to hash: each part is a JSON string in a JSON list.
 * Why SHA-256: with a weak hash (xxh64, md5) a caller can build two bodies with one fingerprint (T10).
 */
import { createHash } from 'node:crypto'
import { canonicalJson } from '../../core/base/json.ts'
import type { Fingerprint, KeyRef } from './types.ts'

/** Stands before each fingerprint: a later algorithm gets another, and a record's own says how to compare. */
export const fingerprintAlgorithm = 's1'

const keyPrefix = 'idempotency:'

/** Bytes of a store key: the prefix and 43 characters of base64url, which JunoDB's 128 take easily. */
export const storeKeyBytes = keyPrefix.length + 43

export interface FingerprintParts {
  /** 'POST /payments', or a given name. */
  readonly operation: string
  /** Of a URL, without the question mark. */
  readonly query?: string | undefined
  /** Without parameters, in lower case. */
  readonly contentType?: string | undefined
  /** Bytes as they came; or what a parser made of them, taken in canonical form (RFC 8785); undefined: no body. */
  readonly body?: unknown
}

/**
 * SHA-256 over canonical JSON or raw bytes, and what stands around them. Take it before a handler can change the body (T9).
 * @throws NotJsonError when the body is neither bytes nor JSON.
 */
export function fingerprintOf({ operation, query = '', contentType = '', body }: FingerprintParts): Fingerprint {
  const hash = createHash('sha256')
  if (body instanceof Uint8Array) {
    hash.update(JSON.stringify([fingerprintAlgorithm, operation, query, contentType, 'bytes'])).update(body)
  } else {
    const [kind, text] = body === undefined ? ['none', ''] : ['json', canonicalJson(body)]
    hash.update(JSON.stringify([fingerprintAlgorithm, operation, query, contentType, kind]) + text)
  }
  return `${fingerprintAlgorithm}:${hash.digest('base64url')}` as Fingerprint
}

/** The store's key for an idempotency key (T8): fixed length, and the scope cannot be read from it. */
export function storeKeyOf(name: string, { scope, key, operation = '' }: KeyRef): string {
  return keyPrefix + sha256(['record', name, scope, operation, key])
}

/** The key of a step for a service downstream: the same in each attempt, different per step. */
export const stepKeyOf = (storeKey: string, step: string): string => sha256(['step', storeKey, step])

const sha256 = (parts: readonly string[]): string => createHash('sha256').update(JSON.stringify(parts)).digest('base64url')
