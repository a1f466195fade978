/**
 * The bytes: golden records of every released format, round trips, what happens to damage, and what an old and a new process make of each other's.
 * testdata/v1-*.hex are bytes that a release wrote. They are never made anew: a reader that cannot read them has broken a promise.
 */
import { readdirSync, readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isKvError } from '../../core/kv/errors.ts'
import { Format, formatVersion } from './record.ts'
import { charged, planOf, standing, type LimitRecord, type Plan } from './rules.ts'
import { concurrency } from './rules/concurrency.ts'
import { fixedWindow } from './rules/fixed-window.ts'
import { gcra } from './rules/gcra.ts'
import { slidingWindow } from './rules/sliding-window.ts'
import { tokenBucket } from './rules/token-bucket.ts'

const seed = Number(process.env.HAPAX_SEED)
const at = 1_767_225_600_000
const common = { life: 0xdead_beef, seenAt: at, others: [] }
const all = planOf({
  burst: gcra({ limit: 7, per: '1s', burst: 20 }),
  bucket: tokenBucket({ capacity: 100, refill: 10, per: '1m' }),
  sliding: slidingWindow({ limit: 50, per: '1h' }),
  daily: fixedWindow({ limit: 10_000, per: '1d' }),
  slots: concurrency({ limit: 3, lease: '30s' }),
})
const one = planOf({ burst: gcra({ limit: 20, per: '1s' }) })

/** What each golden file of version 1 holds. */
const golden: Readonly<Record<string, { readonly plan: Plan; readonly record: LimitRecord }>> = {
  one: { plan: one, record: { ...common, states: [[at * 1_000 + 150_000, 0, 50_000]] } },
  all: {
    plan: all,
    record: {
      ...common,
      states: [
        [at * 1_000 + 142_857, 1, 0],
        [at - 5_000, 33, 7],
        [at - 60_000, 12, 4],
        [at - 3_600_000, 9_999],
        [281_474_976_710_655, 3, at + 30_000],
      ],
    },
  },
  others: {
    plan: one,
    record: {
      ...common,
      states: [[at * 1_000, 0, 0]],
      others: [{ name: 'daily', policy: { kind: 'fixed-window', limit: 9, perMs: 86_400_000, unit: 'requests' }, state: [at, 4] }],
    },
  },
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const folder = new URL('testdata/', import.meta.url)
const stored = (name: string): string => readFileSync(new URL(`v1-${name}.hex`, folder), 'utf8').replaceAll(/\s/g, '')

describe('golden records', () => {
  for (const [name, { plan, record }] of Object.entries(golden)) {
    test(`of version 1: ${name} is read as it was written (P12)`, () => {
      expect(new Format(plan).decode(Buffer.from(stored(name), 'hex'), at)).toEqual(record)
    })
    test(`of version 1: ${name} is written as it was written (P12)`, () => {
      expect(hexOf(new Format(plan).encode(record))).toBe(stored(name))
    })
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

describe('encode and decode', () => {
  test(`are each other's inverse (seed ${seed})`, () => {
    const whole = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })
    const numbers = (count: number) => fc.array(whole, { minLength: count, maxLength: count })
    const records = fc.record({
      life: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      seenAt: whole,
      states: fc.tuple(
        numbers(3),
        numbers(3),
        numbers(3),
        numbers(2),
        fc.integer({ min: 0, max: 3 }).chain((count) => numbers(count * 3)),
      ),
    })
    fc.assert(
      fc.property(records, (parts) => {
        const record: LimitRecord = { ...parts, others: [] }
        const format = new Format(all)
        const bytes = format.encode(record)
        expect(format.decode(bytes, at)).toEqual(record)
        expect(bytes.length).toBeLessThanOrEqual(format.bytesMax)
      }),
      { seed, numRuns: 200 },
    )
  })

  test('read a record that lies within a larger buffer', () => {
    const { plan, record } = golden['one']!
    const bytes = new Format(plan).encode(record)
    const larger = new Uint8Array(bytes.length + 20)
    larger.set(bytes, 7)
    expect(new Format(plan).decode(larger.subarray(7, 7 + bytes.length), at)).toEqual(record)
  })

  test('take less than 80 bytes for one policy, and always as many (R21, R22)', () => {
    const format = new Format(one)
    const fresh = format.encode({ ...common, states: [[0, 0, 0]] })
    const used = format.encode(golden['one']!.record)
    expect(used.length).toBe(fresh.length)
    expect(used.length).toBeLessThan(80)
  })
})

describe('an old and a new process on one record (P12):', () => {
  const newer = planOf({ burst: gcra({ limit: 40, per: '1s' }), daily: fixedWindow({ limit: 100, per: '1d' }) })
  test('a policy that only one of them has is kept by the other, and charged by its owner', () => {
    const [oldFormat, newFormat] = [new Format(one), new Format(newer)]
    let bytes = newFormat.encode(charged(newer, newFormat.decode(oldFormat.encode({ ...common, states: [[0, 0, 0]] }), at), 30, at))
    bytes = oldFormat.encode(charged(one, oldFormat.decode(bytes, at), 1, at))
    const shown = standing(newer, newFormat.decode(bytes, at), at, [])
    expect(shown['daily']?.remaining).toBe(70)
    expect(shown['burst']?.remaining).toBe(8)
  })
  test('a limit that changes back and forth loses nothing of what was used (R18)', () => {
    const [oldFormat, newFormat] = [new Format(one), new Format(newer)]
    let record = charged(one, { ...common, states: [[0, 0, 0]] }, 10, at)
    for (let round = 0; round < 50; round++) {
      const there = newFormat.decode(oldFormat.encode(record), at)
      record = oldFormat.decode(newFormat.encode(there), at)
    }
    expect(standing(one, record, at, [])['burst']?.remaining).toBe(10)
  })
})

describe('a record that cannot be read is LIMIT_UNREADABLE, never absent:', () => {
  const { plan, record } = golden['all']!
  const good = new Format(plan).encode(record)
  const changed = (index: number, to: number): Uint8Array => good.map((byte, place) => (place === index ? to : byte))
  const numbersOf = (write: (view: DataView) => void): Uint8Array => {
    const bytes = new Uint8Array(good)
    write(new DataView(bytes.buffer))
    return bytes
  }
  const cases: Readonly<Record<string, Uint8Array>> = {
    'no bytes': new Uint8Array(0),
    'another magic': changed(0, 0x68),
    'the next format version': changed(1, formatVersion + 1),
    'version 0': changed(1, 0),
    'a header cut short': good.subarray(0, 15),
    'a policy cut short': good.subarray(0, 30),
    'a state cut short': good.subarray(0, good.length - 1),
    'bytes behind the end': new Uint8Array([...good, 0]),
    'more policies than there are': changed(2, 6),
    'fewer policies than there are': changed(2, 4),
    'far too many policies': changed(2, 17),
    'a kind that is not known': changed(16, 99),
    'a kind with a state of another length': changed(16, 4),
    'a time that is not whole': numbersOf((view) => view.setFloat64(8, 0.5)),
    'a time that is not a number': numbersOf((view) => view.setFloat64(8, Number.NaN)),
    'a state below 0': numbersOf((view) => view.setFloat64(good.length - 8, -1)),
    'a limit of 0': numbersOf((view) => view.setFloat64(16 + 2 + 5, 0)),
  }
  test.each(Object.entries(cases))('%s', (_what, bytes) => {
    for (const reader of [plan, one])
      expect(() => new Format(reader).decode(bytes, at)).toThrow(expect.toSatisfy((error: unknown) => isKvError(error, 'LIMIT_UNREADABLE')))
  })
})
