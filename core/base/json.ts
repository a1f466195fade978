/**
 * JSON in one form: canonical text for fingerprints (RFC 8785), and the check whether a value is JSON at all.
 * Pure. Invariant: two values that are equal as JSON give the same text, whatever the order of their members.
 * Why not JSON.stringify alone: it keeps the order of members, turns NaN into null and drops functions in silence.
 */

export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json }

/** Nesting beyond this is refused, so that hostile input ends in an answer and not in a full stack. */
const depthMax = 256

/** Why a value is not JSON: a sentence with the place, `$` being the value itself. */
export class NotJsonError extends Error {
  override readonly name = 'NotJsonError'
  readonly #what: string
  #path = ''

  constructor(what: string) {
    super(`$ ${what}`)
    this.#what = what
  }

  /** The value stands at `step` in another one. The place is put together while the error rises, so that it costs nothing without one. */
  rises(step: string): this {
    this.#path = step + this.#path
    this.message = `$${this.#path} ${this.#what}`
    return this
  }
}

/**
 * The canonical text: members sorted by UTF-16 code units, no white space, numbers and strings as ECMAScript writes them
 * (RFC 8785, 3.2). Members that are undefined do not count; `toJSON` is honoured, as JSON.stringify does.
 * A lone surrogate, which RFC 8785 refuses, is written as its escape: a fingerprint must exist for what a parser let in.
 * @throws NotJsonError for functions, symbols, bigints, NaN and infinities, built-in objects such as Map without `toJSON`, cycles,
 * undefined in a list, and nesting beyond 256.
 * @example canonicalJson({ b: 1, a: 2 }) // '{"a":2,"b":1}'
 */
export function canonicalJson(value: unknown): string {
  return write(value, [], true)
}

/**
 * The JSON text of a value with its members in their own order; '' for undefined.
 * @throws NotJsonError as `canonicalJson`.
 */
export function jsonText(value: unknown): string {
  return value === undefined ? '' : write(value, [], false)
}

/** The value of such a text; of undefined, too, it is undefined. */
export const jsonValue = (text: string | undefined): unknown => (text === undefined || text === '' ? undefined : JSON.parse(text))

function write(given: unknown, above: object[], sorted: boolean): string {
  const value = hasToJson(given) ? given.toJSON() : given
  switch (typeof value) {
    case 'string':
      return jsonString(value)
    case 'number':
      if (!Number.isFinite(value)) throw new NotJsonError(`is ${value}`)
      return String(value === 0 ? 0 : value) // -0 is 0
    case 'boolean':
      return value ? 'true' : 'false'
    case 'object':
      break
    default:
      throw new NotJsonError(`is ${value === undefined ? 'undefined' : `a ${typeof value}`}`)
  }
  if (value === null) return 'null'
  if (above.length >= depthMax) throw new NotJsonError(`is nested deeper than ${depthMax}`)
  if (above.includes(value)) throw new NotJsonError('contains itself')
  // A Map, a Promise or bytes would become {} or a list of numbers in silence.
  const kind = Object.prototype.toString.call(value)
  if (kind !== '[object Object]' && kind !== '[object Array]') throw new NotJsonError(`is ${kind}`)
  above.push(value)
  const text = Array.isArray(value) ? listText(value, above, sorted) : objectText(value, above, sorted)
  above.pop()
  return text
}

function listText(list: readonly unknown[], above: object[], sorted: boolean): string {
  let text = ''
  let index = 0
  try {
    for (; index < list.length; index++) text += (index === 0 ? '' : ',') + write(list[index], above, sorted)
  } catch (error) {
    throw error instanceof NotJsonError ? error.rises(`[${index}]`) : error
  }
  return `[${text}]`
}

function objectText(value: object, above: object[], sorted: boolean): string {
  const names = Object.keys(value)
  if (sorted) sort(names)
  let text = ''
  let name = ''
  try {
    for (name of names) {
      const member = (value as Record<string, unknown>)[name]
      if (member === undefined) continue
      text += `${text === '' ? '' : ','}${jsonString(name)}:${write(member, above, sorted)}`
    }
  } catch (error) {
    throw error instanceof NotJsonError ? error.rises(`.${name}`) : error
  }
  return `{${text}}`
}

/** By UTF-16 code units, as RFC 8785 wants it. A few names are sorted in place: Array's sort makes three lists of them. */
function sort(names: string[]): void {
  if (names.length > 16) {
    names.sort()
    return
  }
  for (let index = 1; index < names.length; index++) {
    const name = names[index] as string
    let at = index
    for (; at > 0 && (names[at - 1] as string) > name; at--) names[at] = names[at - 1] as string
    names[at] = name
  }
}

/** A string's JSON text. Printable ASCII without quote and backslash stands as it is: to find that out takes less than half the time of JSON.stringify. */
export const jsonString = (text: string): string => (/^[ !#-[\]-~]*$/.test(text) ? `"${text}"` : JSON.stringify(text))

const hasToJson = (value: unknown): value is { toJSON(): unknown } =>
  typeof value === 'object' && value !== null && typeof (value as { toJSON?: unknown }).toJSON === 'function'
