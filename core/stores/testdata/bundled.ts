/**
 * A store as one file of JavaScript, for tests that start it in a process of its own.
 * Invariant: `remove` leaves nothing of it behind, and a build leaves no process.
 * Why it stands in node_modules: beside the packages that it loads; an addon is found from where the file stands.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, stop } from 'esbuild'

export interface Bundle {
  readonly path: string
  remove(): void
}

/** @param name of the test file's own, so that two test files at once do not meet. @param source imports as a file of core/stores does. */
export async function bundle(name: string, source: string): Promise<Bundle> {
  const cache = fileURLToPath(new URL('../../../node_modules/.cache/hapax-test/', import.meta.url))
  mkdirSync(cache, { recursive: true })
  const path = join(cache, `${name}-${process.pid}.mjs`)
  await build({
    stdin: { contents: source, resolveDir: fileURLToPath(new URL('..', import.meta.url)), loader: 'ts' },
    outfile: path,
    bundle: true,
    platform: 'node',
    format: 'esm',
    packages: 'external',
    logLevel: 'silent',
  })
  // Its service would outlive this process, and stay a zombie until the system takes it.
  await stop()
  return { path, remove: () => rmSync(path, { force: true }) }
}

export const bundleEmbedded = (name: string): Promise<Bundle> => bundle(name, "export * from './embedded.ts'")
