/** Q13: the mistakes of the register that a transcript must show. Each is planted in a bundle of its own, and some transcript comes out otherwise. */
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { expect, test } from 'vitest'
import type { Mutant } from '../sim/mutants.ts'
import { roundMutants } from '../sim/mutants/rounds.ts'
import { registerMutants } from '../sim/mutants/register.ts'

const folder = new URL('testdata/', import.meta.url)
const texts = readdirSync(folder)
  .filter((name) => name.endsWith('.txt'))
  .map((name) => readFileSync(new URL(name, folder), 'utf8'))
/** R1 and R2 are mistakes of a host. */
const mutants = [...registerMutants, ...roundMutants].filter(({ file }) => !file.startsWith('server/storage/'))

/** How many transcripts come out otherwise than they are written; what throws does, too. */
async function differing(mutant: Mutant | undefined): Promise<number> {
  const path = fileURLToPath(new URL(`../../${mutant?.file}`, import.meta.url))
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('play.ts', folder))],
    bundle: true,
    write: false,
    platform: 'node',
    format: 'esm',
    logLevel: 'silent',
    plugins: [
      {
        name: 'plant',
        setup: (plugins) =>
          plugins.onLoad({ filter: /\.ts$/ }, (file) =>
            mutant && file.path === path
              ? { contents: readFileSync(path, 'utf8').replace(mutant.find, () => mutant.replace), loader: 'ts' as const }
              : undefined,
          ),
      },
    ],
  })
  const code = Buffer.from(outputFiles[0]?.contents ?? []).toString('base64')
  const { play } = (await import(/* @vite-ignore */ `data:text/javascript;base64,${code}`)) as { play(text: string): string }
  const isOther = (text: string): boolean => {
    try {
      return play(text) !== text
    } catch {
      return true
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
