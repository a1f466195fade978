import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { mutants } from './mutants.ts'

const root = new URL('../../', import.meta.url)

test.each(mutants.map((mutant) => [mutant.name, mutant] as const))(
  'the place of %s is there exactly once (Q13)',
  (_, { file, find, replace }) => {
    expect(readFileSync(new URL(file, root), 'utf8').split(find)).toHaveLength(2)
    expect(replace).not.toBe(find)
  },
)

test('mutants have names of their own', () => {
  expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length)
})
