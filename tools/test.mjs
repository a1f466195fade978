/**
 * `npm test [-- group ...]`: installs, builds, runs the groups one after another and counts.
 * Invariant: the last line is the count, and the exit code is 1 when anything failed, crashed, hung or ran nothing.
 * Plain JavaScript without dependencies: it must start on a machine that has Node alone.
 */
import { spawnSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { groups, groupOf, order, testFiles } from './groups.mjs'
import { ensureInstalled } from './install.mjs'
import { run } from './process.mjs'
import { countGroup, failedGroup, lastLine, missingGroup } from './report.mjs'
import { findProgram, requirements } from './requirements.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const ci = process.env.CI === 'true'
const seed = process.env.HAPAX_SEED ?? String(randomInt(2 ** 31))
const minutesSince = (startMs) => ((Date.now() - startMs) / 60_000).toFixed(2)

/** The environment of a group, or why it cannot run. */
async function environment(group, scratch) {
  const env = { ...process.env, HAPAX_SEED: seed, TMPDIR: scratch, FORCE_COLOR: '0' }
  for (const need of group.needs ?? []) {
    const row = requirements[need]
    const found = await findProgram(row)
    if (found.path === undefined) return { missing: found.missing }
    env[row.env] = found.path
    env.PATH = `${env.PATH ?? ''}${delimiter}${dirname(found.path)}`
  }
  return { env }
}

/** Runs one group. @returns its count */
async function runGroup(group, files, reports, scratch) {
  const { env, missing } = await environment(group, scratch)
  if (missing !== undefined) return missingGroup(missing, ci)
  if (group.command === undefined && files.length === 0) return failedGroup('has no test')
  const reportPath = join(reports, `${group.name}.json`)
  const args =
    group.command === undefined
      ? ['node_modules/vitest/vitest.mjs', 'run', ...files, '--reporter=default', '--reporter=json', `--outputFile.json=${reportPath}`]
      : [...group.command, `--report=${reportPath}`]
  const end = await run({ command: process.execPath, args, cwd: root, env, boxMs: group.boxMs })
  const report = existsSync(reportPath) ? JSON.parse(readFileSync(reportPath, 'utf8')) : undefined
  const count = countGroup(report, end)
  for (const who of end.leftBehind) count.notes.push(`left behind, and killed: ${who}`)
  const left = readdirSync(scratch)
  if (left.length > 0) count.notes.push(`left in the temporary folder: ${left.slice(0, 5).join(', ')}`)
  return count
}

async function main() {
  const startMs = Date.now()
  const asked = process.argv.slice(2)
  const unknown = asked.filter((name) => !order.includes(name))
  if (unknown.length > 0) {
    console.error(`no such group: ${unknown.join(', ')}. Groups: ${order.join(', ')}`)
    return 2
  }
  console.log(`seed: HAPAX_SEED=${seed}  node ${process.version}  ${process.platform}-${process.arch}`)
  ensureInstalled()
  const built = spawnSync(process.execPath, ['tools/build.mjs'], { cwd: root, stdio: 'inherit' })
  console.log(`install and build: ${minutesSince(startMs)} min`)

  const counts = []
  const summary = []
  if (built.status !== 0) {
    counts.push(failedGroup('the build failed'))
    summary.push('build        FAILED')
  }
  // Short path: a Unix socket's path has 107 bytes.
  const home = mkdtempSync(join(tmpdir(), 'hapax-test-'))
  const reports = join(home, 'reports')
  mkdirSync(reports)
  const files = testFiles(root)
  try {
    for (const name of order) {
      if (asked.length > 0 && !asked.includes(name)) continue
      const group = groups.find((candidate) => candidate.name === name)
      const scratch = join(home, name)
      mkdirSync(scratch)
      console.log(`\n== ${name}`)
      const groupStartMs = Date.now()
      const own = files.filter((path) => groupOf(path) === name)
      const count = await runGroup(group, own, reports, scratch)
      counts.push(count)
      const numbers = `${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`
      summary.push(
        `${name.padEnd(12)} ${minutesSince(groupStartMs).padStart(5)} min  ${numbers}`,
        ...count.notes.map((note) => `             ${note}`),
      )
    }
  } finally {
    rmSync(home, { recursive: true, force: true })
  }
  console.log(`\n${summary.join('\n')}`)
  console.log(`total ${minutesSince(startMs)} min, HAPAX_SEED=${seed}`)
  console.log(lastLine(counts))
  return counts.some((count) => count.failed > 0) ? 1 : 0
}

process.exitCode = await main()
