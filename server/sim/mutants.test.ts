import { readFileSync } from 'node:fs'
import { transformSync } from 'esbuild'
import { expect, test } from 'vitest'
import { mutants } from './mutants.ts'
import { pageItems, type PageItem } from './mutants/page.ts'

const root = new URL('../../', import.meta.url)
const named = mutants.flatMap(({ also, ...mutant }) =>
  [mutant, ...(also === undefined ? [] : [also])].map((patch) => [mutant.name, patch] as const),
)

test.each(named)('the place of %s is there exactly once, and reads on (Q13)', (_, { file, find, replace }) => {
  const source = readFileSync(new URL(file, root), 'utf8')
  expect(source.split(find)).toHaveLength(2)
  expect(replace).not.toBe(find)
  // Else it would be caught for the wrong reason.
  expect(() =>
    transformSync(
      source.replace(find, () => replace),
      { loader: 'ts', logLevel: 'silent' },
    ),
  ).not.toThrow()
})

test('mutants have names of their own', () => {
  expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length)
})

/** Nobody can see them, for another rule of ours makes them harmless; DESIGN.md says which. */
const harmless: readonly PageItem[] = ['Expiry: `now` of arrival used in a later round']

test.each(pageItems)('the page\u2019s mistake is planted: %s', (item) => {
  const planted = mutants.filter(({ page }) => page?.includes(item))
  expect(planted).not.toEqual([])
  // In brackets there: random search does not find it. What stands without them it has to find.
  expect(planted.some(({ isRare }) => isRare === undefined)).toBe(!/: \(.*\)$/.test(item) && !harmless.includes(item))
})
