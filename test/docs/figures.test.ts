/**
 * The figures of README.md are those of bench/results.
 * Why: a figure that nobody measured, or that was measured long ago, is worse than none (G6).
 */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const { figuresIn, figuresMarkdown } = (await import(new URL('../../tools/figures.mjs', import.meta.url).href)) as {
  figuresIn(readme: string): string
  figuresMarkdown(): string
}
const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')

test('the table of README.md equals the results: run npm run figures:update (G6)', () => {
  expect(figuresIn(readme)).toBe(figuresMarkdown())
})

test('no other figure of speed stands in README.md (G6)', () => {
  const rest = readme.replace(figuresIn(readme), '')
  expect(rest).not.toMatch(/\d\s*k?\/s\b|\d\s*(?:us|µs)\b|requests a second|times faster/)
})
