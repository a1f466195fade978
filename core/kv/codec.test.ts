import fc from 'fast-check'
import { describe, expect, expectTypeOf, test } from 'vitest'
import { bytes, json, text, type Codec, type StandardSchema } from './codec.ts'

const invalid = expect.objectContaining({ code: 'VALUE_INVALID' })

describe('json', () => {
  const codec = json()
  test('gives back what it took', () => {
    fc.assert(
      fc.property(fc.jsonValue({ noUnicodeString: false }), (value) => {
        expect(codec.decode(codec.encode(value))).toEqual(JSON.parse(JSON.stringify(value)))
      }),
    )
  })
  test.each([
    ['NaN', { a: [1, Number.NaN] }],
    ['Infinity', Infinity],
    ['a function', { a: () => 1 }],
    ['undefined', undefined],
    ['undefined in a list', [undefined]],
    ['a bigint', { a: 1n }],
    ['a Map', { a: new Map() }],
    ['bytes', { a: new Uint8Array(2) }],
    ['an invalid date', { a: new Date(Number.NaN) }],
    ['a promise', Promise.resolve(1)],
  ])('refuses %s, which JSON would change in silence', (_name, value) => {
    expect(() => codec.encode(value)).toThrow(invalid)
  })
  test('refuses a cycle', () => {
    const loop: { self?: unknown } = {}
    loop.self = loop
    expect(() => codec.encode(loop)).toThrow(invalid)
  })
  test('leaves an absent property out, and says where a value does not fit', () => {
    expect(codec.decode(codec.encode({ a: undefined, b: 1 }))).toEqual({ b: 1 })
    expect(() => codec.encode({ lines: [{ price: Number.NaN }] })).toThrow(/lines\[0\]\.price/)
  })
  test('refuses bytes that are no UTF-8, and text that is no JSON', () => {
    expect(() => codec.decode(Uint8Array.of(0xff, 0xfe))).toThrow(invalid)
    expect(() => codec.decode(new TextEncoder().encode('{'))).toThrow(invalid)
  })
})

describe('json with a Standard Schema', () => {
  const positive: StandardSchema<{ total: number }> = {
    '~standard': {
      version: 1,
      vendor: 'test',
      validate: (value) => {
        const total = (value as { total?: unknown } | null)?.total
        return typeof total === 'number' && total > 0 ? { value: { total } } : { issues: [{ message: 'must be above 0', path: ['total'] }] }
      },
    },
  }
  const codec = json(positive)
  test('validates what is written and what is read, and strips what the schema strips', () => {
    expect(codec.decode(codec.encode({ total: 5, more: 1 } as never))).toEqual({ total: 5 })
    expect(() => codec.encode({ total: -1 })).toThrow(/total: must be above 0/)
    expect(() => codec.decode(new TextEncoder().encode('{"total":0}'))).toThrow(invalid)
  })
  test('has the output type of the schema', () => {
    expectTypeOf(codec).toEqualTypeOf<Codec<{ total: number }>>()
  })
  test('refuses an asynchronous schema, and what is no schema', () => {
    const late: StandardSchema<number> = {
      '~standard': { version: 1, vendor: 'test', validate: async (value) => ({ value: value as number }) },
    }
    expect(() => json(late).encode(1)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
    expect(() => json({} as never)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  })
})

describe('text and bytes', () => {
  test('text gives back every string that UTF-8 can say, and refuses the others', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (value) => {
        expect(text.decode(text.encode(value))).toBe(value)
      }),
    )
    expect(() => text.encode('\ud800')).toThrow(invalid)
    expect(() => text.encode(5 as never)).toThrow(invalid)
    expect(() => text.decode(Uint8Array.of(0xff))).toThrow(invalid)
  })
  test('bytes passes bytes alone', () => {
    expect(bytes.decode(bytes.encode(Uint8Array.of(1, 2)))).toEqual(Uint8Array.of(1, 2))
    expect(() => bytes.encode('a' as never)).toThrow(invalid)
  })
})
