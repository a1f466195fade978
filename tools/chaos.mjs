/**
 * `npm run chaos`: bundles the command line and what hurts it from their sources, and runs that; `npm run chaos -- --help` says what it takes.
 * Why bundles: a process that is started again in the middle of a run must be what it was, whatever is edited or built meanwhile.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { ensureInstalled } from './install.mjs'
import { findProgram, requirements } from './requirements.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))

/** One of the simulator's mistakes to plant: it says whether this finds anything at all. */
async function mutantOf(name, bundle, folder) {
  await bundle('server/sim/mutants.ts', join(folder, 'mutants.mjs'))
  const { mutants } = await import(pathToFileURL(join(folder, 'mutants.mjs')).href)
  const mutant = mutants.find((one) => one.name === name)
  if (mutant === undefined) throw new Error(`there is no mutant ${name}: server/sim/mutants has them`)
  return mutant
}

async function main(args) {
  ensureInstalled()
  const etcd = await findProgram(requirements.etcd)
  if (etcd.path === undefined) {
    console.error(`chaos needs etcd: ${etcd.missing}`)
    return 1
  }
  const { bundle } = await import('./sim.mjs')
  // Inside the project: bundles find its packages from there. The command line reads package.json three folders up.
  mkdirSync(join(root, '.cache'), { recursive: true })
  const folder = mkdtempSync(join(root, '.cache/chaos-'))
  try {
    const name = args.includes('--mutant') ? args[args.indexOf('--mutant') + 1] : undefined
    await bundle('server/cli/main.ts', join(folder, 'run/hapax.mjs'), name === undefined ? undefined : await mutantOf(name, bundle, folder))
    await bundle('server/chaos/source-address.ts', join(folder, 'run/source-address.mjs'))
    await bundle('server/chaos/main.ts', join(folder, 'run/main.mjs'))
    const run = spawnSync(process.execPath, [join(folder, 'run/main.mjs'), '--bundles', folder, ...args], {
      stdio: 'inherit',
      env: { ...process.env, HAPAX_ETCD: etcd.path },
    })
    return run.status ?? 1
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

process.exitCode = await main(process.argv.slice(2))
