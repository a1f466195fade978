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
  return write(value, '$', 0, [], true)
}

/**
 * The JSON text of a value with its members in their own order; '' for undefined.
 * @throws NotJsonError as `canonicalJson`.
 */
export function jsonText(value: unknown): string {
  return value === undefined ? '' : write(value, '$', 0, [], false)
}

/** The value of such a text; of undefined, too, it is undefined. */
export const jsonValue = (text: string | undefined): unknown => (text === undefined || text === '' ? undefined : JSON.parse(text))

function write(given: unknown, path: string, depth: number, above: object[], sorted: boolean): string {
  const value = hasToJson(given) ? given.toJSON() : given
  switch (typeof value) {
    case 'string':
      return stringText(value)
    case 'number':
      if (!Number.isFinite(value)) throw new NotJsonError(`${path} is ${value}`)
      return String(value === 0 ? 0 : value) // -0 is 0
    case 'boolean':
      return value ? 'true' : 'false'
    case 'object':
      break
    default:
      throw new NotJsonError(`${path} is ${value === undefined ? 'undefined' : `a ${typeof value}`}`)
  }
  if (value === null) return 'null'
  if (depth >= depthMax) throw new NotJsonError(`${path} is nested deeper than ${depthMax}`)
  if (above.includes(value)) throw new NotJsonError(`${path} contains itself`)
  // A Map, a Promise or bytes would become {} or a list of numbers in silence.
  const kind = Object.prototype.toString.call(value)
  if (kind !== '[object Object]' && kind !== '[object Array]') throw new NotJsonError(`${path} is ${kind}`)
  above.push(value)
  const text = Array.isArray(value) ? listText(value, path, depth, above, sorted) : objectText(value, path, depth, above, sorted)
  above.pop()
  return text
}

function listText(list: readonly unknown[], path: string, depth: number, above: object[], sorted: boolean): string {
  let text = ''
  for (let index = 0; index < list.length; index++) {
    text += (index === 0 ? '' : ',') + write(list[index], `${path}[${index}]`, depth + 1, above, sorted)
  }
  return `[${text}]`
}

function objectText(value: object, path: string, depth: number, above: object[], sorted: boolean): string {
  const names = Object.keys(value)
  if (sorted) names.sort() // by UTF-16 code units, as RFC 8785 wants it
  let text = ''
  for (const name of names) {
    const member = (value as Record<string, unknown>)[name]
    if (member === undefined) continue
    text += `${text === '' ? '' : ','}${stringText(name)}:${write(member, `${path}.${name}`, depth + 1, above, sorted)}`
  }
  return `{${text}}`
}

/** Printable ASCII without quote and backslash stands as it is: to find that out takes less than half the time of JSON.stringify. */
const stringText = (text: string): string => (/^[ !#-[\]-~]*$/.test(text) ? `"${text}"` : JSON.stringify(text))

const hasToJson = (value: unknown): value is { toJSON(): unknown } =>
  typeof value === 'object' && value !== null && typeof (value as { toJSON?: unknown }).toJSON === 'function'
