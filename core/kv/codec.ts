/**
 * Codecs: how the values of a scope become bytes. JSON with or without a schema, text, and bytes as they are.
 * Pure. Invariant: what encode lets through, decode gives back; a value that would come back as another is refused before it is stored.
 * Why so strict: JSON turns NaN, Map or a function into null, {} or nothing without a word, and in a ledger that is a lost amount.
 */
import { KvError } from './errors.ts'
import { utf8Length } from './limits.ts'

export interface Codec<V> {
  /** For messages. */
  readonly name: string
  /** Throws KvError VALUE_INVALID for a value that does not fit. */
  encode(value: V): Uint8Array
  /** Throws KvError VALUE_INVALID for bytes that were not written by this codec or no longer fit its schema. */
  decode(bytes: Uint8Array): V
}

/**
 * What is needed of a Standard Schema (standardschema.dev, version 1), which zod, valibot, arktype and others are.
 * Spelled out here, so that nobody needs the package for its types.
 */
export interface StandardSchema<Output = unknown> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>
    readonly types?: { readonly input: unknown; readonly output: Output } | undefined
  }
}
type SchemaResult<Output> = { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly SchemaIssue[] }
interface SchemaIssue {
  readonly message: string
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}
/** The type of what a schema gives out. */
export type SchemaOutput<S extends StandardSchema> = NonNullable<S['~standard']['types']>['output']

const encoder = new TextEncoder()
/** Fatal: a byte that is no UTF-8 is an error, not U+FFFD. The byte order mark is content. */
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Bytes as they are. */
export const bytes: Codec<Uint8Array> = Object.freeze({
  name: 'bytes',
  encode(value: Uint8Array) {
    return value instanceof Uint8Array ? value : unfit('a value must be a Uint8Array', undefined)
  },
  decode: (stored: Uint8Array) => stored,
})

/** Strings as UTF-8. A lone surrogate is refused: UTF-8 cannot say it. */
export const text: Codec<string> = Object.freeze({
  name: 'text',
  encode(value: string) {
    if (typeof value !== 'string') unfit(`a value must be a string, not ${typeof value}`, undefined)
    if (utf8Length(value) < 0) unfit('a text must be valid Unicode: this one has a lone surrogate', undefined)
    return encoder.encode(value)
  },
  decode: (stored: Uint8Array) => textOf(stored, 'text'),
})

/**
 * JSON. NaN, infinities, bigints, functions, symbols, Map, Set, byte arrays and `undefined` (but for an absent property) are refused.
 * With a schema every value is validated when it is written and again when it is read, and has the schema's output type.
 * What a schema puts out must pass it again after a turn through JSON: z.coerce.date() does, z.date() does not. It is tried with each write.
 * @example scoped(kv, 'order', { codec: json(OrderSchema) })
 * @example scoped(kv, 'order', { codec: json<Order>() })
 */
export function json<S extends StandardSchema>(schema: S): Codec<SchemaOutput<S>>
export function json<T = unknown>(): Codec<T>
export function json(schema?: StandardSchema): Codec<unknown> {
  if (schema === undefined) return plainJson
  const standard = (schema as Partial<StandardSchema> | null)?.['~standard']
  if (standard?.version !== 1 || typeof standard.validate !== 'function') {
    throw new KvError('INVALID_ARGUMENT', {
      message: 'json() takes a Standard Schema of version 1, or nothing',
      hint: 'see standardschema.dev for libraries that have it',
    })
  }
  const validate = (value: unknown, what: string): unknown => {
    const result = attempt(() => standard.validate(value), 'the schema threw')
    if ('then' in result) {
      result.then(undefined, () => undefined) // its rejection is answered by the refusal below
      throw new KvError('INVALID_ARGUMENT', {
        message: `the ${standard.vendor} schema is asynchronous`,
        hint: 'a store validates at once: take asynchronous checks out of the schema',
      })
    }
    return result.issues === undefined ? result.value : unfit(`${what}: ${told(result.issues)}`, result.issues)
  }
  return Object.freeze({
    name: `json (${standard.vendor})`,
    encode(value: unknown) {
      const written = stringify(validate(value, 'the value does not fit its schema'))
      validate(JSON.parse(written), 'the value fits its schema, but what JSON makes of it does not')
      return encoder.encode(written)
    },
    decode: (stored: Uint8Array) => validate(plainJson.decode(stored), 'the stored value does not fit its schema'),
  })
}

const plainJson: Codec<unknown> = Object.freeze({
  name: 'json',
  encode: (value: unknown) => encoder.encode(stringify(value)),
  decode(stored: Uint8Array) {
    const written = textOf(stored, 'JSON')
    return attempt(() => JSON.parse(written) as unknown, 'the stored bytes are not JSON')
  },
})

function stringify(value: unknown): string {
  const written = attempt(() => JSON.stringify(value) as string | undefined, 'the value cannot be written as JSON')
  // After JSON.stringify, which has found cycles and bigints, so that this walk ends.
  const lost = loss(value, '')
  if (lost !== undefined || written === undefined) unfit(`JSON cannot hold ${lost ?? typeof value}`, undefined)
  return written
}

/** What JSON would silently change in `value`, with its place; undefined: nothing. */
function loss(value: unknown, place: string): string | undefined {
  switch (typeof value) {
    case 'number':
      return Number.isFinite(value) ? undefined : at(String(value), place)
    case 'undefined':
    case 'function':
    case 'symbol':
      return at(typeof value, place)
    case 'object':
      return value === null ? undefined : lossWithin(value, place)
    default:
      return undefined
  }
}

function lossWithin(value: object, place: string): string | undefined {
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      const lost = loss(value[index], `${place}[${index}]`)
      if (lost !== undefined) return lost
    }
    return undefined
  }
  if ('toJSON' in value && typeof value.toJSON === 'function') {
    const said: unknown = value.toJSON()
    return said === null ? at('an invalid date', place) : loss(said, place) // what a date says that is none
  }
  for (const [kind, is] of opaque) if (is(value)) return at(kind, place)
  for (const key in value) {
    const child: unknown = (value as Record<string, unknown>)[key]
    if (child === undefined || !Object.hasOwn(value, key)) continue
    const lost = loss(child, place === '' ? key : `${place}.${key}`)
    if (lost !== undefined) return lost
  }
  return undefined
}

/** Objects whose content JSON does not see, or spells as something else. */
const opaque: readonly (readonly [string, (value: object) => boolean])[] = [
  ['a Map', (value) => value instanceof Map],
  ['a Set', (value) => value instanceof Set],
  ['bytes', (value) => ArrayBuffer.isView(value) || value instanceof ArrayBuffer],
  ['a Promise', (value) => value instanceof Promise],
]

const at = (what: string, place: string): string => (place === '' ? what : `${what} (at ${place})`)

function textOf(stored: Uint8Array, what: string): string {
  return attempt(() => decoder.decode(stored), `the stored bytes are not ${what}`)
}

function attempt<T>(action: () => T, message: string): T {
  try {
    return action()
  } catch (cause) {
    return unfit(message, cause)
  }
}

function unfit(message: string, cause: unknown): never {
  throw new KvError('VALUE_INVALID', cause === undefined ? { message } : { message, cause })
}

/** The first issues, each with its place: enough to find the mistake, bounded for the log. */
function told(issues: readonly SchemaIssue[]): string {
  const first = issues.slice(0, 3).map(({ message, path = [] }) => {
    const place = path.map((part) => String(typeof part === 'object' ? part.key : part)).join('.')
    return place === '' ? message : `${place}: ${message}`
  })
  return (issues.length > first.length ? [...first, `and ${issues.length - first.length} more`] : first).join('; ')
}
