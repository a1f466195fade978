/** Two minutes of faults in a cluster of real processes, under a seed of its own: each run tries the same, and none is the same (W17, W45). */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { drawnKinds } from './faults.ts'
import type { Report } from './play.ts'

const seed = 17
const minutes = 2
const timeout = 330_000
/** Elsewhere the loopback has one address, see source-address.ts. */
const isLinux = process.platform === 'linux'

test.skipIf(!isLinux)('no fault of real processes makes an answer wrong, or loses what was acknowledged', { timeout }, async () => {
  const root = fileURLToPath(new URL('../..', import.meta.url))
  const args = ['tools/chaos.mjs', '--minutes', String(minutes), '--seed', String(seed)]
  const child = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  child.stdout.on('data', (bytes: Buffer) => (said += bytes.toString()))
  const [status] = (await once(child, 'close')) as [number | null]
  console.log(said)
  const report = JSON.parse(said) as Report
  expect(report).toMatchObject({ violations: 0, undecided: 0, lost: 0, failedUnderKill: 0 })
  expect(status).toBe(0)
  // The exchange of the authority waits for a quiet moment, which two minutes need not have.
  expect(Object.keys(report.faults)).toEqual(expect.arrayContaining([...drawnKinds, 'rolling-restart']))
  expect(Object.values(report.faults).reduce((sum, count) => sum + count, 0)).toBeGreaterThanOrEqual(minutes * 30)
  expect(report.operations).toBeGreaterThan(1_000)
})
