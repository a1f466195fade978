/**
 * `npm run sim`: bundles the simulator from its sources and runs it; `npm run sim -- --help` says what it takes.
 * With --mutants each mutant becomes a bundle of the worker in which one place of the sources reads otherwise: nothing that ships has a switch.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { ensureInstalled } from './install.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))

/** A plugin that patches files on their way into a bundle. Throws when a place is not there exactly once. */
function planted({ name, also, ...first }) {
  const patches = also === undefined ? [first] : [first, also]
  return {
    name: 'planted',
    setup(build) {
      build.onLoad({ filter: /\.ts$/ }, (args) => {
        const ofFile = patches.filter(({ file }) => args.path === join(root, file))
        if (ofFile.length === 0) return undefined
        let contents = readFileSync(args.path, 'utf8')
        for (const { file, find, replace } of ofFile) {
          if (contents.split(find).length !== 2) throw new Error(`mutant ${name}: its place is not there exactly once in ${file}`)
          contents = contents.replace(find, () => replace)
        }
        return { contents, loader: 'ts' }
      })
    },
  }
}

const settings = { bundle: true, platform: 'node', target: 'node20', format: 'esm', packages: 'external', logLevel: 'error' }

/** Bundles an entry of server/sim, with a mutant if one is given. */
export async function bundle(entry, outfile, mutant) {
  const esbuild = await import('esbuild')
  const plugins = mutant === undefined ? [] : [planted(mutant)]
  await esbuild.build({ ...settings, entryPoints: [join(root, entry)], outfile, plugins })
}

/** Bundles files of directed tests with what collects and runs them, collector.mjs, which the bundle exports. */
export async function bundleTests(files, outfile, mutant) {
  const esbuild = await import('esbuild')
  const collector = join(root, 'tools/collector.mjs')
  const contents = [
    `export * from ${JSON.stringify(collector)}`,
    ...files.map((file) => `import ${JSON.stringify(join(root, file))}`),
  ].join('\n')
  const plugins = mutant === undefined ? [] : [planted(mutant)]
  const alias = { vitest: collector }
  // The package says that its files do nothing when they are imported. Test files do.
  await esbuild.build({ ...settings, stdin: { contents, resolveDir: root }, alias, ignoreAnnotations: true, outfile, plugins })
}

async function main(args) {
  ensureInstalled()
  const folder = mkdtempSync(join(tmpdir(), 'hapax-sim-'))
  try {
    await bundle('server/sim/main.ts', join(folder, 'main.mjs'))
    await bundle('server/sim/worker.ts', join(folder, 'worker.mjs'))
    if (args.includes('--mutants') || args.includes('--mutant')) {
      await bundle('server/sim/mutants.ts', join(folder, 'mutants.mjs'))
      const { mutants } = await import(pathToFileURL(join(folder, 'mutants.mjs')).href)
      for (const mutant of mutants) await bundle('server/sim/worker.ts', join(folder, `mutant-${mutant.name}.mjs`), mutant)
    }
    const seeds = join(root, 'server/sim/seeds.txt')
    const run = spawnSync(process.execPath, [join(folder, 'main.mjs'), '--bundles', folder, '--seeds', seeds, ...args], {
      stdio: 'inherit',
    })
    return run.status ?? 1
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = await main(process.argv.slice(2))
