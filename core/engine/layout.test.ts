/** The bytes on disk (G17, G18): a record comes back as it was, a changed one never does, and this release's bytes stay readable. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { epochMs } from '../base/types.ts'
import type { Version } from '../kv/kv.ts'
import { noCompletions, type KeyRecord } from '../record/record.ts'
import {
  decodeMarker,
  decodeRecord,
  encodeMarker,
  encodeRecord,
  formatVersion,
  indexBound,
  indexKey,
  keyOfRecord,
  parseIndexKey,
  recordKey,
  recordRange,
} from './layout.ts'

const instant = fc.integer({ min: 0, max: 8_640_000_000_000_000 }).map(epochMs)
const name = fc.string({ unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)), minLength: 1, maxLength: 64 })
const completion = fc.record({
  session: name,
  sequence: fc.nat(),
  verb: fc.constantFrom('create' as const, 'update' as const, 'set' as const, 'destroy' as const),
  outcome: fc.constantFrom('applied' as const, 'exists' as const, 'missing' as const, 'version' as const),
  version: name.map((text) => text as Version),
  createdAt: instant,
  expiresAt: instant,
  at: instant,
})
const record: fc.Arbitrary<KeyRecord> = fc.record({
  value: fc.option(fc.uint8Array({ maxLength: 300 }), { nil: undefined }),
  version: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
  createdAt: instant,
  lastModifiedAt: instant,
  changedAt: instant,
  expiresAt: instant,
  originator: name,
  lastRequest: name,
  completions: fc.oneof(
    fc.constant(noCompletions),
    fc.record({
      entries: fc.array(completion, { minLength: 1, maxLength: 4 }),
      marks: fc.array(fc.record({ session: name, below: fc.nat(), at: instant }), { maxLength: 3 }),
    }),
  ),
})
const key = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 })
/** Fields of our own, without how they are kept in memory. */
const plain = ({ value, completions, ...rest }: KeyRecord): object => ({
  ...rest,
  value: value && [...value],
  entries: completions.entries,
  marks: completions.marks,
})

describe('records', () => {
  test('come back as they were written', () => {
    fc.assert(
      fc.property(key, record, (key, record) => {
        const disk = recordKey(key)
        expect(plain(decodeRecord(disk, encodeRecord(disk, record)))).toEqual(plain(record))
      }),
    )
  })
  test('with any bit turned, cut short, made longer, or under another key are damaged and never another record', () => {
    fc.assert(
      fc.property(key, record, fc.nat(), fc.integer({ min: 0, max: 7 }), (key, record, at, bit) => {
        const disk = recordKey(key)
        const bytes = encodeRecord(disk, record)
        const turned = Buffer.from(bytes)
        turned[at % turned.length] = (turned[at % turned.length] as number) ^ (1 << bit)
        for (const bad of [turned, bytes.subarray(0, at % bytes.length), Buffer.concat([bytes, Buffer.of(0)])])
          expect(() => decodeRecord(disk, Buffer.from(bad))).toThrow(expect.objectContaining({ name: 'KvError' }))
        expect(() => decodeRecord(recordKey(`${key}x`), Buffer.from(bytes))).toThrow(expect.objectContaining({ code: 'DAMAGED' }))
      }),
    )
  })
  test('keys and instants keep their order as bytes', () => {
    fc.assert(
      fc.property(key, instant, instant, (key, one, other) => {
        expect(keyOfRecord(recordKey(key))).toBe(key)
        expect(parseIndexKey(indexKey(one, key))).toEqual({ at: one, key })
        expect(Math.sign(Buffer.compare(indexKey(one, ''), indexKey(other, '')))).toBe(Math.sign(one - other))
        expect(Buffer.compare(recordKey(key), recordRange.from)).toBeGreaterThan(0)
        expect(Buffer.compare(recordKey(key), recordRange.to)).toBeLessThan(0)
        expect(Buffer.compare(indexKey(one, key), indexBound(one))).toBeGreaterThanOrEqual(0)
      }),
    )
  })
})

describe(`golden bytes of format ${formatVersion}`, () => {
  const golden: readonly KeyRecord[] = [
    {
      value: Uint8Array.of(0, 1, 254, 255),
      version: 3,
      createdAt: epochMs(1_795_000_000_000),
      lastModifiedAt: epochMs(1_795_000_000_500),
      changedAt: epochMs(1_795_000_000_501),
      expiresAt: epochMs(1_795_000_086_400),
      originator: '01M87KXJN763W43SY4JFBYY4DE',
      lastRequest: 'order-7',
      completions: noCompletions,
    },
    {
      value: undefined,
      version: 4,
      createdAt: epochMs(1_795_000_000_000),
      lastModifiedAt: epochMs(1_795_000_000_600),
      changedAt: epochMs(1_795_000_000_600),
      expiresAt: epochMs(0),
      originator: 'a',
      lastRequest: 's\n12',
      completions: {
        entries: [
          {
            session: 's',
            sequence: 12,
            verb: 'destroy',
            outcome: 'applied',
            version: '',
            createdAt: epochMs(0),
            expiresAt: epochMs(0),
            at: epochMs(1_795_000_000_600),
          },
        ],
        marks: [{ session: 's', below: 11, at: epochMs(1_795_000_000_600) }],
      },
    },
  ]
  const file = fileURLToPath(new URL(`testdata/records-${formatVersion}.txt`, import.meta.url))
  test('are written as ever, and read', () => {
    const disk = recordKey('golden')
    const lines = golden.map((record) => encodeRecord(disk, record).toString('hex'))
    const kept = readFileSync(file, 'utf8').trim().split('\n')
    expect(lines).toEqual(kept)
    expect(kept.map((line) => plain(decodeRecord(disk, Buffer.from(line, 'hex'))))).toEqual(golden.map(plain))
  })
  test('the marker is read as it was written, and a newer one is refused', () => {
    expect(decodeMarker(encodeMarker({ format: 1, engine: 'rocksdb' }))).toEqual({ format: 1, engine: 'rocksdb' })
    expect(() => decodeMarker(encodeMarker({ format: formatVersion + 1, engine: 'rocksdb' }))).toThrow(
      expect.objectContaining({ code: 'ENGINE_DIFFERS' }),
    )
  })
})
