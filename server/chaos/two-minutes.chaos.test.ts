/** Two minutes of faults in a cluster of real processes, under a seed of its own: each run tries the same, and none is the same (W17, W45). */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { drawnKinds } from './faults.ts'
import type { Report } from './play.ts'

const seed = 17
const minutes = 2

test('no fault of real processes makes an answer wrong, or loses what was acknowledged', { timeout: 300_000 }, () => {
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const args = ['tools/chaos.mjs', '--minutes', String(minutes), '--seed', String(seed)]
  const run = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' })
  console.log(`${run.stderr}\n${run.stdout}`)
  const report = JSON.parse(run.stdout) as Report
  expect(report).toMatchObject({ violations: 0, undecided: 0, lost: 0, failedUnderKill: 0 })
  expect(run.status).toBe(0)
  expect(Object.keys(report.faults).sort()).toEqual([...drawnKinds, 'rolling-restart', 'authority-rotated'].sort())
  expect(Object.values(report.faults).reduce((sum, count) => sum + count, 0)).toBeGreaterThanOrEqual(60)
  expect(report.operations).toBeGreaterThan(1_000)
})
