/** Q13: the mistakes of the register that a transcript must show. Each is planted in a bundle of its own, and some transcript comes out otherwise. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { mutants as allMutants, type Mutant } from '../sim/mutants.ts'

const folder = new URL('testdata/', import.meta.url)
const texts = readdirSync(folder)
  .filter((name) => name.endsWith('.txt'))
  .map((name) => readFileSync(new URL(name, folder), 'utf8'))
const bundles = mkdtempSync(join(tmpdir(), 'hapax-mutants-'))
let bundle: (entry: string, outfile: string, mutant?: Mutant) => Promise<void>
beforeAll(async () => {
  ;({ bundle } = (await import(new URL('../../tools/sim.mjs', import.meta.url).href)) as { bundle: typeof bundle })
})
afterAll(() => rmSync(bundles, { recursive: true, force: true }))

/** The others are seen by directed tests: server/storage/mutants.test.ts. */
const mutants = allMutants.filter(({ killedBy }) => killedBy === undefined)

/** How many transcripts come out otherwise than they are written; what breaks a law of ours does, too, and what merely crashes does not. */
async function differing(mutant: Mutant | undefined): Promise<number> {
  const outfile = join(bundles, `${mutant?.name ?? 'none'}.mjs`)
  await bundle('server/register/testdata/play.ts', outfile, mutant)
  const { play } = (await import(/* @vite-ignore */ pathToFileURL(outfile).href)) as { play(text: string): string }
  const isOther = (text: string): boolean => {
    try {
      return play(text) !== text
    } catch (error) {
      return error instanceof Error && error.name === 'AssertionError'
    }
  }
  return texts.filter(isOther).length
}

test('without a mistake every transcript comes out as it is written', async () => {
  expect(await differing(undefined)).toBe(0)
})

test.each(mutants.map((mutant) => [mutant.name, mutant.what, mutant] as const))(
  '%s is seen by a transcript: %s',
  async (_name, _what, mutant) => {
    expect(await differing(mutant)).toBeGreaterThan(0)
  },
)
