/** Hashes: what they tell apart, what they do not, and two fixed values, so that a release cannot change them unseen. */
import { describe, expect, test } from 'vitest'
import { fingerprintOf, stepKeyOf, storeKeyBytes, storeKeyOf } from './fingerprint.ts'

const parts = { operation: 'POST /payments', query: 'a=1', contentType: 'application/json', body: { amount: 100 } }

describe('a fingerprint', () => {
  test('is SHA-256 with the id of its algorithm, and stays what it is (T10)', () => {
    expect(fingerprintOf(parts)).toMatch(/^s1:[\w-]{43}$/)
    expect(fingerprintOf(parts)).toBe('s1:glRilznQKYs62_ffNoD6b85Ww3K4unIZLj0amYe6xmA')
  })
  test('does not see the order of members (T9)', () => {
    expect(fingerprintOf({ ...parts, body: { a: 1, b: { c: 2, d: 3 } } })).toBe(
      fingerprintOf({ ...parts, body: { b: { d: 3, c: 2 }, a: 1 } }),
    )
  })
  test('sees every part, and whether a body is bytes, JSON or absent (T9)', () => {
    const all = [
      parts,
      { ...parts, operation: 'POST /refunds' },
      { ...parts, query: '' },
      { ...parts, contentType: 'text/plain' },
      { ...parts, body: { amount: 101 } },
      { ...parts, body: '{"amount":100}' },
      { ...parts, body: new TextEncoder().encode('{"amount":100}') },
      { ...parts, body: undefined },
      { ...parts, body: null },
      { ...parts, body: new Uint8Array(0) },
      { ...parts, operation: 'POST /payments","a=1' },
    ]
    expect(new Set(all.map(fingerprintOf)).size).toBe(all.length)
  })
})

describe('an identity', () => {
  const key = { scope: 'tenant', operation: 'POST /payments', key: 'k' }
  test('has a fixed length that a JunoDB takes, and stays what it is (T8)', () => {
    const longest = storeKeyOf('n'.repeat(64), { scope: 's'.repeat(1_000), operation: 'o'.repeat(1_000), key: 'k'.repeat(255) })
    expect(longest.length).toBe(storeKeyBytes)
    expect(storeKeyBytes).toBeLessThanOrEqual(128)
    expect(storeKeyOf('payments', key)).toBe('idempotency:DM-L7nW8zvFOSqsA_z5bMQ4tq6Z5i1xnFs2QnNQIQtQ')
    expect(stepKeyOf(storeKeyOf('payments', key), 'charge')).toBe('krvevQY78lMp3gPdqNqrdZ1_MgKqOyutYSfdZCIaAI4')
  })
  test('never makes one key of two lists of parts (T8)', () => {
    const all = [
      ['a', { scope: 'b', operation: 'c', key: 'd' }],
      ['a', { scope: 'bc', operation: '', key: 'd' }],
      ['ab', { scope: '', operation: 'c', key: 'd' }],
      ['a', { scope: 'b","c', operation: '', key: 'd' }],
      ['a', { scope: 'b', operation: 'cd', key: '' }],
    ] as const
    expect(new Set(all.map(([name, ref]) => storeKeyOf(name, ref))).size).toBe(all.length)
  })
})
