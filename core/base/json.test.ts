/** RFC 8785 as far as fingerprints need it: its own examples, and what is not JSON. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { canonicalJson, jsonText, NotJsonError } from './json.ts'

const seed = Number(process.env.HAPAX_SEED)

describe('canonicalJson', () => {
  test('writes the example of RFC 8785, 3.2.2', () => {
    const value = {
      numbers: [Number('333333333.33333329'), 1e30, 4.5, 2e-3, 0.000000000000000000000000001],
      string: '\u20ac$\u000F\u000aA\'\u0042\u0022\u005c\\"/',
      literals: [null, true, false],
    }
    expect(canonicalJson(value)).toBe(
      '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
    )
  })
  test('sorts members by UTF-16 code units, as RFC 8785, 3.2.3 does', () => {
    const value = {
      '\u20ac': 'Euro',
      '\r': 'CR',
      '\ufb33': 'Dalet',
      '1': 'One',
      '\ud83d\ude00': 'Grin',
      '\u0080': 'Control',
      '\u00f6': 'O',
    }
    expect(Object.values(JSON.parse(canonicalJson(value)) as object)).toHaveLength(7)
    expect([...canonicalJson(value).matchAll(/:"(\w+)"/g)].map((match) => match[1])).toEqual([
      'CR',
      'One',
      'Control',
      'O',
      'Euro',
      'Grin',
      'Dalet',
    ])
  })
  test('writes -0 as 0, leaves out undefined members and honours toJSON', () => {
    expect(canonicalJson({ b: -0, a: undefined, c: new Date(0) })).toBe('{"b":0,"c":"1970-01-01T00:00:00.000Z"}')
  })
  test(`gives one text for one value in any order of members (seed ${seed})`, () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = canonicalJson(value)
        expect(canonicalJson(reversed(value))).toBe(text)
        expect(canonicalJson(JSON.parse(text))).toBe(text)
      }),
      { seed, numRuns: 500 },
    )
  })

  const cycle: { self?: unknown } = {}
  cycle.self = [cycle]
  let deep: unknown = 1
  for (let depth = 0; depth < 257; depth++) deep = [deep]
  const notJson: Readonly<Record<string, unknown>> = {
    undefined: undefined,
    'a function': { a: () => 1 },
    'a symbol': [Symbol('s')],
    'a bigint': { a: 1n },
    NaN: { a: Number.NaN },
    Infinity: [Infinity],
    'undefined in a list': [undefined],
    'a cycle': cycle,
    'a nesting of 257': deep,
    'a Map': new Map(),
    'a promise': { a: Promise.resolve() },
    bytes: new Uint8Array(1),
    'an Error': new Error('x'),
  }
  for (const [name, value] of Object.entries(notJson)) {
    test(`refuses ${name}`, () => expect(() => canonicalJson(value)).toThrow(NotJsonError))
  }
  test('says where the trouble is', () => expect(() => canonicalJson({ a: [1, { b: 1n }] })).toThrow('$.a[1].b is a bigint'))
  test('takes an object twice when it is no cycle', () => {
    const one = { a: 1 }
    expect(canonicalJson([one, one])).toBe('[{"a":1},{"a":1}]')
  })
})

describe('jsonText', () => {
  test('keeps the order of members and writes undefined as nothing', () => {
    expect(jsonText({ b: 1, a: [2, 'x'] })).toBe('{"b":1,"a":[2,"x"]}')
    expect(jsonText(undefined)).toBe('')
  })
  test(`agrees with JSON.stringify about all that is JSON (seed ${seed})`, () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(jsonText(value)).toBe(JSON.stringify(value))
      }),
      { seed, numRuns: 500 },
    )
  })
})

/** The same value with every object's members the other way round. */
function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([name, member]) => [name, reversed(member)]),
  )
}
