/** What this package is, and where its parts lie, from the sources as from what is built. */
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** From the sources the package is one floor nearer than from dist. */
const manifest = ['../../package.json', '../../../package.json']
  .map((path) => new URL(path, import.meta.url))
  .find((url) => existsSync(url))

export const packageVersion =
  manifest === undefined ? 'unknown' : (JSON.parse(readFileSync(manifest, 'utf8')) as { readonly version: string }).version

/** What a child process runs; it is there once the package is built. */
export const childFile = fileURLToPath(new URL('child-main.js', import.meta.url))
