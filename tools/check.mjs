/**
 * `npm run check`: format, lint with the walls, types, names. Prints one line a step and what is wrong.
 * Invariant: every step runs, also after one has failed; exit code 1 when any has.
 * Why the walls are not here: they stand in .oxlintrc.json alone. Only what a linter cannot say (file names) is checked below.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

const bannedNames = /^(utils?|helpers?|commons?|managers?|services?)$/
const sourceNames = /\.(ts|tsx|mts|cts|js|mjs|cjs)$/
const skippedFolders = new Set(['node_modules', 'dist', 'coverage', '.git', '.cache', 'data'])

/** Files whose names say nothing: `x-utils.ts` is as bad as `utils.ts`, and so is a folder of that name. */
export function badNames(folder, base = folder) {
  const found = []
  for (const item of readdirSync(folder, { withFileTypes: true })) {
    if (skippedFolders.has(item.name)) continue
    const path = join(folder, item.name)
    if (item.isDirectory()) {
      if (bannedNames.test(item.name)) found.push(relative(base, path))
      found.push(...badNames(path, base))
    } else if (sourceNames.test(item.name)) {
      const words = basename(item.name).split('.')[0].split('-')
      if (words.some((word) => bannedNames.test(word))) found.push(relative(base, path))
    }
  }
  return found
}

/** Runs a binary of node_modules with this Node. @returns its output when it failed, else undefined. */
function failureOf(binary, args) {
  const run = spawnSync(process.execPath, [join(root, 'node_modules', binary), ...args], { cwd: root, encoding: 'utf8' })
  if (run.status === 0) return undefined
  return `${run.stdout ?? ''}${run.stderr ?? ''}${run.error?.message ?? ''}`.trim() || `${binary} ended with ${run.status ?? run.signal}`
}

/** Each step answers undefined when all is well, else what is wrong. */
const steps = {
  format: () => failureOf('oxfmt/bin/oxfmt', ['--check']),
  'lint and walls': () => failureOf('oxlint/bin/oxlint', ['--deny-warnings']),
  types: () => failureOf('typescript/bin/tsc', ['-p', 'tsconfig.json']),
  'types of the page': () =>
    existsSync(join(root, 'examples/payments/page/tsconfig.json'))
      ? failureOf('typescript/bin/tsc', ['-p', 'examples/payments/page/tsconfig.json', '--noEmit'])
      : undefined,
  names: () => {
    const found = badNames(root)
    return found.length > 0 ? `these names say nothing about what is inside: ${found.join(', ')}` : undefined
  },
}

function main() {
  const reportPath = process.argv.find((arg) => arg.startsWith('--report='))?.slice('--report='.length)
  const report = { passed: 0, failed: 0 }
  for (const [name, step] of Object.entries(steps)) {
    const startMs = Date.now()
    const failure = step()
    report[failure === undefined ? 'passed' : 'failed'] += 1
    console.log(`${failure === undefined ? 'ok    ' : 'FAILED'} ${name} (${((Date.now() - startMs) / 1000).toFixed(1)} s)`)
    if (failure !== undefined) console.log(failure)
  }
  if (reportPath !== undefined) writeFileSync(reportPath, JSON.stringify(report))
  process.exitCode = report.failed > 0 ? 1 : 0
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) main()
