/** How another process reaches the store under test: bundled into one file of JavaScript, and given the server's port. */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, stop } from 'esbuild'

const source = `
import { Redis } from 'ioredis'
import { redisKv } from './redis.ts'
export const openKv = (port) => redisKv(new Redis({ port: Number(port) }))
`

/** The module's path and what removes it. It stands in node_modules: an import is found from where the file stands. */
export async function bundleRedis(): Promise<{ readonly path: string; remove(): void }> {
  const cache = fileURLToPath(new URL('../../../node_modules/.cache/hapax-test/', import.meta.url))
  mkdirSync(cache, { recursive: true })
  const path = join(cache, `redis-${process.pid}.mjs`)
  const resolveDir = fileURLToPath(new URL('..', import.meta.url))
  await build({
    stdin: { contents: source, resolveDir, loader: 'ts' },
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
