/** Q13: the mistakes that a directed test must show. Each is planted in a bundle of the tests that are named with it, and one of them fails. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { mutants, type Mutant } from '../sim/mutants.ts'

/** What tools/collector.mjs exports. */
interface Bundled {
  count(): number
  firstFailure(): Promise<{ readonly test: string; readonly error: unknown } | undefined>
}
const handedOver = Symbol.for('hapax.expect')

const bundles = mkdtempSync(join(tmpdir(), 'hapax-kills-'))
let bundleTests: (files: readonly string[], outfile: string, mutant?: Mutant) => Promise<void>
beforeAll(async () => {
  ;({ bundleTests } = (await import(new URL('../../tools/sim.mjs', import.meta.url).href)) as { bundleTests: typeof bundleTests })
  Reflect.set(globalThis, handedOver, expect)
})
afterAll(() => {
  Reflect.deleteProperty(globalThis, handedOver)
  rmSync(bundles, { recursive: true, force: true })
})

const planted = mutants.flatMap((mutant) => (mutant.killedBy === undefined ? [] : [{ ...mutant, killedBy: mutant.killedBy }]))
let made = 0

async function bundled(file: string, mutant?: Mutant): Promise<Bundled> {
  const outfile = join(bundles, `${++made}.mjs`)
  await bundleTests([file], outfile, mutant)
  return (await import(/* @vite-ignore */ pathToFileURL(outfile).href)) as Bundled
}

test.each([...new Set(planted.map(({ killedBy }) => killedBy))])('without a mistake all of %s passes', async (file) => {
  const tests = await bundled(file)
  expect(tests.count()).toBeGreaterThan(0)
  expect(await tests.firstFailure()).toBeUndefined()
})

test.each(planted.map((mutant) => [mutant.name, mutant.killedBy, mutant.what, mutant] as const))(
  '%s fails in %s: %s',
  async (_name, file, _what, mutant) => {
    const failure = await (await bundled(file, mutant)).firstFailure()
    // An assertion of the test or a law of ours, by its name. A mistake that only crashes would be caught for the wrong reason.
    expect(failure?.error, failure?.test).toMatchObject({ name: 'AssertionError' })
  },
)
