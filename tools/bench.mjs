/**
 * `npm run bench`: installs the peers of bench/, builds dist if it is stale, and runs the benchmarks one after another.
 * `npm run bench -- embedded` runs one; further options (`--tiny`, `--out DIR`, `--rounds N`, `--ms N`) go to each.
 * `HAPAX_BENCH_DIST` names another build to measure. Invariant: never two at once: each takes the whole machine. Why the peers are no dependencies of ours: only who measures needs them.
 */
import { spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from './build.mjs'
import { ensureInstalled, npm } from './install.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const bench = join(root, 'bench')
const suffix = '.bench.mjs'
const names = readdirSync(bench)
  .filter((file) => file.endsWith(suffix))
  .map((file) => file.slice(0, -suffix.length))
  .sort()

/** Two minutes on two cores; more on a machine that is busy. */
const compileMsMax = 600_000

/** better-sqlite3 has no binary in its package. Without a compiler the benchmark says so and leaves it out. */
function compileWhatCanBe() {
  const folder = join(bench, 'node_modules/better-sqlite3')
  if (!existsSync(folder) || existsSync(join(folder, 'build/Release/better_sqlite3.node'))) return
  console.error('compiling better-sqlite3 (some minutes)')
  const run = npm(['rebuild', 'better-sqlite3', '--foreground-scripts'], {
    cwd: bench,
    stdio: ['ignore', 'ignore', 'ignore'],
    timeout: compileMsMax,
  })
  if (run.status !== 0) console.error('better-sqlite3 could not be compiled here: it is left out')
}

/** The signal goes on to the child, which ends its servers. */
function run(name, args) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--expose-gc', join(bench, `${name}${suffix}`), ...args], { cwd: root, stdio: 'inherit' })
    const pass = (signal) => child.kill(signal)
    process.on('SIGINT', pass).on('SIGTERM', pass)
    child.once('exit', (code, signal) => {
      process.off('SIGINT', pass).off('SIGTERM', pass)
      resolve(signal === null ? code : 1)
    })
  })
}

const args = process.argv.slice(2)
const wanted = args[0] === undefined || args[0].startsWith('-') ? undefined : args.shift()
if (wanted !== undefined && !names.includes(wanted)) {
  console.error(`there is no benchmark '${wanted}': ${names.join(', ')}`)
  process.exit(1)
}
ensureInstalled()
ensureInstalled(bench)
if (!args.includes('--tiny')) compileWhatCanBe()
if (process.env.HAPAX_BENCH_DIST === undefined) await build()
for (const name of wanted === undefined ? names : [wanted]) {
  const code = await run(name, args)
  if (code !== 0) {
    console.error(`benchmark ${name} ended with ${code}`)
    process.exitCode = 1
  }
}
