/** Codecs give back what they let through, and refuse what would come back as something else. */
import fc from 'fast-check'
import { expect, expectTypeOf, test } from 'vitest'
import { bytes, json, text, type Codec, type StandardSchema } from './codec.ts'
import { isKvError, type KvError } from './errors.ts'
import { utf8Length } from './limits.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)

function fault(action: () => unknown): KvError {
  try {
    action()
  } catch (error) {
    if (isKvError(error)) return error
    throw error
  }
  throw new Error('nothing was thrown')
}
/** A schema of the test's own: no library is needed to have one. */
const schema = <T>(validate: (value: unknown) => T): StandardSchema<T> => ({
  '~standard': {
    version: 1,
    vendor: 'test',
    validate: (value) => {
      try {
        return { value: validate(value) }
      } catch (error) {
        return { issues: [{ message: (error as Error).message, path: ['order', { key: 'total' }] }] }
      }
    },
  },
})
const whole = schema((value) => {
  if (!Number.isInteger(value)) throw new Error('must be whole')
  return value as number
})

test('json gives back any JSON value', () => {
  const codec = json()
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const plain: unknown = JSON.parse(JSON.stringify(value))
      expect(codec.decode(codec.encode(value))).toEqual(plain)
    }),
    { seed },
  )
})

const lost: readonly [string, unknown, string][] = [
  ['undefined', undefined, 'undefined'],
  ['NaN', Number.NaN, 'NaN'],
  ['an infinity deep down', { a: [1, { b: Infinity }] }, 'Infinity (at a[1].b)'],
  ['a function in an object', { f: () => 1 }, 'function (at f)'],
  ['a symbol', { s: Symbol('s') }, 'symbol (at s)'],
  ['undefined in an array', [undefined], 'undefined (at [0])'],
  ['a hole in an array', Object.assign([], { length: 1 }), 'undefined (at [0])'],
  ['a Map', { m: new Map([[1, 2]]) }, 'a Map (at m)'],
  ['a Set', new Set([1]), 'a Set'],
  ['bytes', { b: new Uint8Array(2) }, 'bytes (at b)'],
  ['a Promise', { p: Promise.resolve(1) }, 'a Promise (at p)'],
  ['an invalid date', { d: new Date(Number.NaN) }, 'an invalid date (at d)'],
]
for (const [what, value, told] of lost) {
  test(`json refuses ${what}, which JSON would change without a word`, () => {
    const error = fault(() => json().encode(value))
    expect(error.code).toBe('VALUE_INVALID')
    expect(error.message).toContain(told)
  })
}

test('json refuses a bigint, a cycle and what throws, with the cause', () => {
  const cycle: { self?: unknown } = {}
  cycle.self = cycle
  for (const value of [
    1n,
    cycle,
    {
      toJSON: () => {
        throw new Error('no')
      },
    },
  ]) {
    const error = fault(() => json().encode(value))
    expect(error.code).toBe('VALUE_INVALID')
    expect(error.cause).toBeInstanceOf(Error)
  }
})

test('json takes an absent property, a date and an object without prototype', () => {
  const codec = json()
  expect(codec.decode(codec.encode({ a: undefined, b: 1 }))).toEqual({ b: 1 })
  expect(codec.decode(codec.encode(new Date(0)))).toBe('1970-01-01T00:00:00.000Z')
  expect(codec.decode(codec.encode(Object.assign(Object.create(null), { a: 1 })))).toEqual({ a: 1 })
})

test('json refuses bytes that are no JSON or no UTF-8', () => {
  for (const stored of [new Uint8Array(), new TextEncoder().encode('{'), new Uint8Array([0x22, 0xff, 0x22])]) {
    expect(fault(() => json().decode(stored)).code).toBe('VALUE_INVALID')
  }
})

test('a schema is asked when a value is written and when it is read, and says why with its place', () => {
  const codec = json(whole)
  expect(codec.decode(codec.encode(3))).toBe(3)
  const written = fault(() => codec.encode(1.5))
  expect(written).toMatchObject({ code: 'VALUE_INVALID', cause: [{ message: 'must be whole' }] })
  expect(written.message).toContain('order.total: must be whole')
  expect(fault(() => codec.decode(json().encode('x'))).code).toBe('VALUE_INVALID')
})

test('what a schema gives out is what is stored', () => {
  const codec = json(schema((value) => ({ name: String((value as { name: string }).name).trim() })))
  const stored = codec.encode({ name: ' Ada ', secret: 1 } as never)
  expect(json().decode(stored)).toEqual({ name: 'Ada' })
})

test('a schema that refuses what JSON makes of its value is found at the first write, not at the first read', () => {
  const dates = schema((value) => {
    if (!(value instanceof Date)) throw new Error('must be a Date')
    return value
  })
  const error = fault(() => json(dates).encode(new Date(0)))
  expect(error.message).toContain('what JSON makes of it does not')
})

test('an asynchronous schema is refused in words, and its rejection is nobody’s surprise', () => {
  const later: StandardSchema = { '~standard': { version: 1, vendor: 'later', validate: () => Promise.reject(new Error('late')) } }
  const error = fault(() => json(later).encode(1))
  expect(error.code).toBe('INVALID_ARGUMENT')
  expect(error.message).toContain('asynchronous')
})

test('a schema that throws is a value that does not fit, with the cause', () => {
  const broken: StandardSchema = {
    '~standard': {
      version: 1,
      vendor: 'broken',
      validate: () => {
        throw new Error('inside')
      },
    },
  }
  expect(fault(() => json(broken).encode(1))).toMatchObject({ code: 'VALUE_INVALID', cause: { message: 'inside' } })
})

test('json refuses what is no schema, and takes one that is a function', () => {
  for (const wrong of [null, {}, 1, { '~standard': { version: 2 } }]) {
    expect(fault(() => json(wrong as never)).code).toBe('INVALID_ARGUMENT')
  }
  expect(json(Object.assign(() => 1, whole)).decode(json().encode(4))).toBe(4)
})

test('the type of a codec is the output of its schema', () => {
  expectTypeOf(json(whole)).toEqualTypeOf<Codec<number>>()
  expectTypeOf(json<{ a: 1 }>()).toEqualTypeOf<Codec<{ a: 1 }>>()
})

test('text gives back any well-formed string, the empty one and a byte order mark included', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (value) => {
      if (utf8Length(value) >= 0) expect(text.decode(text.encode(value))).toBe(value)
    }),
    { seed },
  )
  expect(text.decode(text.encode('\ufeffa'))).toBe('\ufeffa')
})

test('text refuses a lone surrogate, what is no string, and bytes that are no UTF-8', () => {
  expect(fault(() => text.encode('\ud800')).code).toBe('VALUE_INVALID')
  expect(fault(() => text.encode(1 as never)).code).toBe('VALUE_INVALID')
  expect(fault(() => text.decode(new Uint8Array([0xc3]))).code).toBe('VALUE_INVALID')
})

test('bytes are themselves, and nothing else is bytes', () => {
  const value = new Uint8Array([1, 2])
  expect(bytes.decode(bytes.encode(value))).toBe(value)
  expect(fault(() => bytes.encode('x' as never)).code).toBe('VALUE_INVALID')
})
