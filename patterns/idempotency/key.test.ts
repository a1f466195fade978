/** The header's parser against the draft's examples, the traps of T22, and the package structured-headers as a second opinion. */
import fc from 'fast-check'
import { parseItem } from 'structured-headers'
import { describe, expect, test } from 'vitest'
import { parseKey } from './key.ts'

const seed = Number(process.env.HAPAX_SEED)

describe('parseKey', () => {
  const good: readonly (readonly [string, string])[] = [
    ['"8e03978e-40d5-43dd-bc93-6894a57f9324"', '8e03978e-40d5-43dd-bc93-6894a57f9324'],
    ['8e03978e-40d5-43dd-bc93-6894a57f9324', '8e03978e-40d5-43dd-bc93-6894a57f9324'],
    ['  "a b,c"  ', 'a b,c'],
    ['"with \\"quotes\\" and \\\\"', 'with "quotes" and \\'],
    ['"a";version=1;to="b";flag', 'a'],
    ['Zm9v+/==', 'Zm9v+/=='],
    ['order:42/pay', 'order:42/pay'],
    ['x'.repeat(255), 'x'.repeat(255)],
  ]
  for (const [header, key] of good) {
    test(`reads ${header.slice(0, 40)}`, () => expect(parseKey(header)).toEqual({ type: 'key', key }))
  }

  test('takes the quoted and the bare form for one key (T22)', () => expect(parseKey('"abc"')).toEqual(parseKey('abc')))
  test('tells an absent header from an empty one (T22)', () => {
    expect(parseKey(undefined)).toEqual({ type: 'absent' })
    expect(parseKey([])).toEqual({ type: 'absent' })
    expect(parseKey('')).toMatchObject({ type: 'invalid' })
  })

  const bad: readonly (readonly [string, string | readonly string[]])[] = [
    ['two lines', ['a', 'b']],
    ['two equal lines', ['"a"', '"a"']],
    ['lines joined by the framework', 'a, b'],
    ['quoted lines joined by the framework', '"a", "b"'],
    ['an empty string', '""'],
    ['blanks alone', '   '],
    ['more than 255 characters', 'x'.repeat(256)],
    ['more than 255 characters in quotes', `"${'x'.repeat(256)}"`],
    ['more than the parser looks at', 'x'.repeat(5_000)],
    ['a tab', 'a\tb'],
    ['a line feed in quotes', '"a\nb"'],
    ['a NUL', 'a\0'],
    ['a delete character', '"a\x7f"'],
    ['letters beyond ASCII', '"schlüssel"'],
    ['a blank within a bare key', 'a b'],
    ['a quote within a bare key', 'a"b'],
    ['a bare key with a parameter', 'a;b=1'],
    ['an open string', '"a'],
    ['a wrong escape', '"a\\b"'],
    ['something behind the string', '"a"b'],
    ['a broken parameter', '"a";='],
  ]
  for (const [what, header] of bad) test(`refuses ${what} (T22)`, () => expect(parseKey(header)).toMatchObject({ type: 'invalid' }))

  test('takes the quoted form alone when strict', () => {
    expect(parseKey('"abc"', { strict: true })).toEqual({ type: 'key', key: 'abc' })
    expect(parseKey('abc', { strict: true })).toMatchObject({ type: 'invalid' })
  })

  test(`agrees with structured-headers about every string (seed ${seed})`, () => {
    const piece = fc.constantFrom(
      '"',
      '\\',
      ';',
      '=',
      ' ',
      ',',
      'a',
      'B',
      '1',
      '-',
      '.',
      '?',
      ':',
      '*',
      '"a"',
      ';a',
      ';a=1',
      ';a="b"',
      ';b=?1',
      ';c=:YQ==:',
      ';d=1.5',
    )
    const header = fc.array(piece, { maxLength: 8 }).map((pieces) => `"${pieces.join('')}`)
    fc.assert(
      fc.property(header, (text) => {
        const ours = parseKey(text, { strict: true })
        const theirs = secondOpinion(text)
        if (theirs === undefined || theirs === '') expect(ours, text).toMatchObject({ type: 'invalid' })
        else expect(ours, text).toEqual({ type: 'key', key: theirs })
      }),
      { seed, numRuns: 3_000 },
    )
  })
})

function secondOpinion(text: string): string | undefined {
  try {
    const [value] = parseItem(text)
    return typeof value === 'string' ? value : undefined
  } catch {
    return undefined
  }
}
