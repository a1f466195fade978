/**
 * The two hashes of a request: the identity of its key, which names the record, and the fingerprint of what it asks for.
 * Invariant: no two different lists of parts give the same bytes to hash: each part is a JSON string in a JSON list.
 * Why SHA-256: with a weak hash (xxh64, md5) a caller can build two bodies with one fingerprint (T10).
 */
import { createHash, hash } from 'node:crypto'
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
  const [kind, text] = body instanceof Uint8Array ? ['bytes', ''] : body === undefined ? ['none', ''] : ['json', canonicalJson(body)]
  const head = JSON.stringify([fingerprintAlgorithm, operation, query, contentType, kind])
  const digest = body instanceof Uint8Array ? createHash('sha256').update(head).update(body).digest('base64url') : sha256(head + text)
  return `${fingerprintAlgorithm}:${digest}` as Fingerprint
}

/** The store's key for an idempotency key (T8): fixed length, and the scope cannot be read from it. */
export function storeKeyOf(name: string, { scope, key, operation = '' }: KeyRef): string {
  return keyPrefix + sha256(JSON.stringify(['record', name, scope, operation, key]))
}

/** The key of a step for a service downstream: the same in each attempt, different per step. */
export const stepKeyOf = (storeKey: string, step: string): string => sha256(JSON.stringify(['step', storeKey, step]))

/** In one call: a Hash object costs more than hashing so few bytes. */
const sha256 = (text: string): string => hash('sha256', text, 'base64url')
