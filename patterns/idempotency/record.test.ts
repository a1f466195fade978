/**
 * The bytes: golden records of every released format, round trips, and what happens to damage.
 * testdata/v1-*.hex are bytes that a release wrote. They are never made anew: a reader that cannot read them has broken a promise.
 */
import { readdirSync, readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { isKvError } from '../../core/kv/errors.ts'
import { decodeRecord, encodeRecord, formatVersion } from './record.ts'
import { claimed, type IdempotencyRecord } from './rules.ts'
import type { Fingerprint } from './types.ts'

const seed = Number(process.env.HAPAX_SEED)
const fingerprint = 's1:q1w2e3r4t5y6u7i8o9p0a1s2d3f4g5h6j7k8l9z0x1c' as Fingerprint
const common = { fingerprint, attempt: 2, owner: '01JD0000000000000000000000', writes: 3, steps: [] }
const steps = [
  { name: 'charge', result: '{"id":"ch_1"}' },
  { name: 'nothing', result: '' },
]

/** What each golden file of version 1 holds. */
const golden: Readonly<Record<string, IdempotencyRecord>> = {
  'claimed-first': claimed('01JD0000000000000000000000', fingerprint, 30_000),
  'claimed-steps': { ...common, state: 'claimed', leaseMs: 30_000, leaseEndsAt: epochMs(1_767_225_630_000), steps },
  completed: {
    ...common,
    state: 'completed',
    steps: [{ name: 'charge' }],
    answer: { head: { status: 201, headers: [['content-type', 'application/json']] }, body: new TextEncoder().encode('{"paid":"100 €"}') },
  },
  'completed-empty': { ...common, state: 'completed', answer: { head: null, body: new Uint8Array(0) } },
  unstored: { ...common, state: 'unstored', head: { status: 200 }, reason: 'streamed' },
  unknown: { ...common, state: 'unknown', steps },
  released: { ...common, state: 'released', steps },
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const folder = new URL('testdata/', import.meta.url)
const stored = (name: string): string => readFileSync(new URL(`v1-${name}.hex`, folder), 'utf8').replaceAll(/\s/g, '')

describe('golden records', () => {
  for (const [name, record] of Object.entries(golden)) {
    test(`of version 1: ${name} is read as it was written (G25)`, () => {
      expect(decodeRecord(Buffer.from(stored(name), 'hex'))).toEqual(record)
    })
    test(`of version 1: ${name} is written as it was written (G25)`, () => expect(hexOf(encodeRecord(record))).toBe(stored(name)))
  }
  test('of all released versions are there', () => {
    expect(formatVersion).toBe(1)
    expect(
      readdirSync(folder)
        .filter((file) => file.endsWith('.hex'))
        .sort(),
    ).toEqual(
      Object.keys(golden)
        .map((name) => `v1-${name}.hex`)
        .sort(),
    )
  })
})

describe('encodeRecord and decodeRecord', () => {
  test(`are each other's inverse (seed ${seed})`, () => {
    const json = fc.jsonValue({ noUnicodeString: false }).map((value) => JSON.parse(JSON.stringify(value)) as null)
    const records = fc.record({
      attempt: fc.integer({ min: 1, max: 1e9 }),
      writes: fc.integer({ min: 0, max: 1e9 }),
      owner: fc.string(),
      steps: fc.array(fc.record({ name: fc.string(), result: fc.string() }), { maxLength: 3 }),
      answer: fc.record({ head: json, body: fc.uint8Array() }),
    })
    fc.assert(
      fc.property(records, (parts) => {
        const record: IdempotencyRecord = { state: 'completed', fingerprint, ...parts }
        expect(decodeRecord(encodeRecord(record))).toEqual(record)
      }),
      { seed, numRuns: 300 },
    )
  })

  test('read a record that lies within a larger buffer', () => {
    const bytes = encodeRecord(golden['completed']!)
    const larger = new Uint8Array(bytes.length + 20)
    larger.set(bytes, 7)
    expect(decodeRecord(larger.subarray(7, 7 + bytes.length))).toEqual(golden['completed'])
  })
})

describe('a record that cannot be read is RECORD_UNREADABLE, never absent:', () => {
  const good = encodeRecord(golden['claimed-steps']!)
  const changed = (at: number, to: number): Uint8Array => good.map((byte, index) => (index === at ? to : byte))
  const withFields = (change: Record<string, unknown>): Uint8Array => {
    const text = new TextDecoder().decode(good.subarray(6))
    const json = new TextEncoder().encode(JSON.stringify({ ...(JSON.parse(text) as object), ...change }))
    const bytes = new Uint8Array(6 + json.length)
    bytes.set([0x68, 1])
    new DataView(bytes.buffer).setUint32(2, json.length)
    bytes.set(json, 6)
    return bytes
  }
  const cases: Readonly<Record<string, Uint8Array>> = {
    'no bytes': new Uint8Array(0),
    'another magic': changed(0, 0x69),
    'the next format version': changed(1, formatVersion + 1),
    'version 0': changed(1, 0),
    'a header cut short': good.subarray(0, 5),
    'a body cut short': good.subarray(0, good.length - 1),
    'bytes behind the end': new Uint8Array([...good, 0]),
    'a length beyond the end': changed(2, 0xff),
    'broken JSON': changed(6, 0x21),
    'broken UTF-8': changed(10, 0xff),
    'a fingerprint of an unknown algorithm': withFields({ fp: 'x9:abc' }),
    'an unknown state': withFields({ st: 'paid' }),
    'no attempt': withFields({ at: 0 }),
    'a claim without a lease': withFields({ lm: null }),
    'steps that are no list': withFields({ sp: {} }),
    'steps without names': withFields({ sp: [[1]] }),
    'an unstored answer without a reason': withFields({ st: 'unstored' }),
  }
  for (const [name, bytes] of Object.entries(cases)) {
    test(`${name}`, () =>
      expect(() => decodeRecord(bytes)).toThrow(expect.toSatisfy((error: unknown) => isKvError(error, 'RECORD_UNREADABLE'))))
  }
})
