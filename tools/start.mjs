/**
 * `npm start`: installs and builds what is missing, then becomes the payments example.
 * Invariant: stdout belongs to the example alone; PORT and DATA_DIR reach it as they are.
 * Why in this process and not in a child: signals and the exit code then need no forwarding, and nothing can be left behind.
 */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { ensureInstalled } from './install.mjs'

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`hapax needs Node 20.19 or later; this is ${process.versions.node}`)
  process.exit(1)
}

ensureInstalled()
// In a child, so that the compilers leave no memory and no helper process behind in the example.
const built = spawnSync(process.execPath, [fileURLToPath(new URL('build.mjs', import.meta.url))], { stdio: ['ignore', 2, 2] })
if (built.status !== 0) process.exit(1)

const main = fileURLToPath(new URL('../dist/examples/payments/main.js', import.meta.url))
if (!existsSync(main)) {
  console.error(`there is no ${main}`)
  process.exit(1)
}
process.argv[1] = main
await import(pathToFileURL(main).href)
