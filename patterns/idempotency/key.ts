/**
 * Reads the Idempotency-Key header: a String of RFC 8941, as draft-ietf-httpapi-idempotency-key-header-07 wants it, or a bare token,
 * as nearly every client sends it.
 * Pure. Invariant: `"abc"` and `abc` are one key, and nothing that is not clearly one key passes (T22).
 * Why an own parser: one Item that must be a String needs some sixty lines; the tests hold it equal to the package structured-headers.
 */

/** The longest key in characters: what Stripe takes. */
export const keyLengthMax = 255

export type ParsedKey =
  | { readonly type: 'absent' }
  | { readonly type: 'key'; readonly key: string }
  /** `problem` is a sentence for the client, without its input. */
  | { readonly type: 'invalid'; readonly problem: string }

export interface ParseOptions {
  /** Only the quoted form of the draft. Default: false. */
  readonly strict?: boolean | undefined
}

/**
 * @param lines the header's lines, each for itself (Node: `rawHeaders`); a framework's joined string will do, but then two lines
 * with a quote each may look like one key. undefined: there is none.
 */
export function parseKey(lines: string | readonly string[] | undefined, options: ParseOptions = {}): ParsedKey {
  const list = lines === undefined ? [] : typeof lines === 'string' ? [lines] : lines
  const [line] = list
  if (line === undefined) return { type: 'absent' }
  if (list.length > 1) return problem('there is more than one Idempotency-Key')
  // 1 KiB is four times the longest key: enough for escapes, and a bound for the parser.
  if (line.length > 1_024) return problem('the Idempotency-Key is too long')
  const text = line.replace(/^ +| +$/g, '')
  const key = text.startsWith('"') ? quoted(text) : options.strict ? undefined : bare(text)
  if (key === undefined) {
    return problem(
      options.strict
        ? 'the Idempotency-Key must be a quoted string of visible characters (RFC 8941, String)'
        : 'the Idempotency-Key must be one quoted string, or one token without spaces, commas, semicolons and quotes',
    )
  }
  return checkKeyText(key)
}

/** A key that came by another way than the header. */
export function checkKeyText(key: string): ParsedKey {
  if (typeof key !== 'string' || key === '') return problem('the idempotency key is empty')
  if (key.length > keyLengthMax) return problem(`the idempotency key is longer than ${keyLengthMax} characters`)
  if (hasControl(key)) return problem('the idempotency key contains control characters')
  return { type: 'key', key }
}

const problem = (text: string): ParsedKey => ({ type: 'invalid', problem: text })

function hasControl(text: string): boolean {
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    if (unit < 0x20 || unit === 0x7f) return true
  }
  return false
}

/** Visible ASCII without what would make it a list, parameters or a string. */
const bare = (text: string): string | undefined => (/^[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+$/.test(text) ? text : undefined)

/** RFC 8941, 4.2.3 and 4.2.5: a String and its parameters, which mean nothing here but must be well formed. */
function quoted(text: string): string | undefined {
  let value = ''
  let index = 1
  for (; ; index++) {
    const char = text[index]
    if (char === undefined) return undefined
    if (char === '"') break
    if (char === '\\') {
      const next = text[++index]
      if (next !== '"' && next !== '\\') return undefined
      value += next
    } else {
      if (char < ' ' || char > '~') return undefined
      value += char
    }
  }
  return parameters.test(text.slice(index + 1)) ? value : undefined
}

/** RFC 8941, 3.1.2: `;name=value` any number of times, the value being a decimal, integer, string, token, byte sequence or boolean. */
const parameters = new RegExp(
  `^(?:; *[a-z*][a-z0-9_\\-.*]*(?:=(?:${[
    '-?\\d{1,12}\\.\\d{1,3}(?![\\d.])',
    '-?\\d{1,15}(?![\\d.])',
    '"(?:[\\x20\\x21\\x23-\\x5b\\x5d-\\x7e]|\\\\["\\\\])*"',
    "[A-Za-z*][!#$%&'*+\\-.^_`|~0-9A-Za-z:/]*",
    ':[A-Za-z0-9+/=]*:',
    '\\?[01]',
  ].join('|')}))?)*$`,
)
