/**
 * docs/errors.md is the table in core/kv/errors.ts.
 * Invariant: numbers are unique, in their room, and each has a sentence and a hint.
 * Why: people find an error by its number, at night, in a document that must be right.
 */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { errors } from '../../core/kv/errors.ts'

const { errorsMarkdown } = (await import(new URL('../../tools/errors.mjs', import.meta.url).href)) as {
  errorsMarkdown(table: typeof errors): string
}

test('docs/errors.md equals the table of errors: run npm run errors:update (G7)', () => {
  expect(readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')).toBe(errorsMarkdown(errors))
})

test('each error has a number of its own, in a room that exists, a sentence and a hint (G13)', () => {
  const rows = Object.values(errors)
  expect(new Set(rows.map((row) => row.id)).size).toBe(rows.length)
  for (const row of rows) {
    expect(row.id).toMatch(/^HPX-[1234]\d{3}$/)
    expect(row.message).toMatch(/^[^.]+$/)
    expect(row.hint.length).toBeGreaterThan(10)
  }
})
