import fc from 'fast-check'
import { expect, test } from 'vitest'
import { epochMs } from '../base/types.ts'
import { digestOf } from './digest.ts'
import type { KeyRecord } from './record.ts'

const instant = fc.integer({ min: 0, max: 9 }).map(epochMs)
const name = fc.constantFrom('a', 'b', 'ab', '')
const record: fc.Arbitrary<KeyRecord> = fc.record({
  value: fc.option(fc.uint8Array({ maxLength: 3, max: 2 }), { nil: undefined }),
  version: fc.integer({ min: 0, max: 3 }),
  createdAt: instant,
  lastModifiedAt: instant,
  changedAt: instant,
  expiresAt: instant,
  originator: name,
  lastRequest: name,
  completions: fc.constantFrom(
    { entries: [], marks: [] },
    { entries: [], marks: [{ session: 'a', below: 2, at: epochMs(1) }] },
    { entries: [], marks: [{ session: 'a', below: 1, at: epochMs(1) }] },
  ),
})

test('two records have one digest exactly when they are the same', () => {
  fc.assert(
    fc.property(record, record, (a, b) => {
      const isSame = JSON.stringify({ ...a, value: a.value && [...a.value] }) === JSON.stringify({ ...b, value: b.value && [...b.value] })
      expect(digestOf(a) === digestOf(b)).toBe(isSame)
    }),
    { numRuns: 2_000 },
  )
})

test('each single change changes the digest, and it is a whole number of 52 bits', () => {
  fc.assert(
    fc.property(record, fc.constantFrom('version', 'createdAt', 'lastModifiedAt', 'changedAt', 'expiresAt'), (a, field) => {
      const digest = digestOf(a)
      expect(Number.isSafeInteger(digest) && digest >= 0 && digest < 2 ** 52).toBe(true)
      expect(digestOf({ ...a, [field]: a[field] + 1 })).not.toBe(digest)
      if (a.value !== undefined && a.value.length > 0) {
        const value = new Uint8Array(a.value)
        value[0] = (value[0] as number) + 1
        expect(digestOf({ ...a, value })).not.toBe(digest)
      }
    }),
  )
})
