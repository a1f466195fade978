/**
 * The time box of `npm test`.
 * Invariant: when run() answers, nobody of the group is alive; who had to be killed is named, and who is dead already is not accused.
 * Why no clock is asserted: the processes below wait for ever, so that the box alone can end them.
 */
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'

interface End {
  readonly code: number | null
  readonly timedOut: boolean
  readonly leftBehind: readonly string[]
}
interface Processes {
  run(options: { command: string; args: string[]; cwd: string; env: NodeJS.ProcessEnv; boxMs: number }): Promise<End>
  livingOf(group: number): string[]
}
const { run, livingOf } = (await import(new URL('process.mjs', import.meta.url).href)) as Processes

const folder = mkdtempSync(join(tmpdir(), 'hapax-process-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const node = (code: string, boxMs: number) => run({ command: process.execPath, args: ['-e', code], cwd: folder, env: process.env, boxMs })

/** A killed process stays a zombie until init takes it: both count as dead. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch {
    return false
  }
  const stat = `/proc/${pid}/stat`
  return !(existsSync(stat) && / Z /.test(readFileSync(stat, 'utf8')))
}

test('answers the exit code of a command that ends by itself', async () => {
  expect(await node('process.exitCode = 3', 60_000)).toEqual({ code: 3, timedOut: false, leftBehind: [] })
})

test('answers that a command does not exist', async () => {
  expect(await run({ command: join(folder, 'absent'), args: [], cwd: folder, env: process.env, boxMs: 60_000 })).toMatchObject({
    code: null,
  })
})

test('kills a command that hangs, also one that ignores SIGTERM', async () => {
  const end = await node("process.on('SIGTERM', () => {}); setInterval(() => {}, 1000)", 1_000)
  expect(end).toMatchObject({ code: null, timedOut: true })
})

test('kills what a command left behind and names it', async () => {
  const code = `const child = require('node:child_process').spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' })
    require('node:fs').writeFileSync('pid', String(child.pid)); process.exit(0)`
  const end = await node(code, 60_000)
  const pid = Number(readFileSync(join(folder, 'pid'), 'utf8'))
  const name = process.platform === 'linux' ? `${pid} ${process.execPath} -e setInterval(() => {}, 1000)` : expect.any(String)
  expect(end).toEqual({ code: 0, timedOut: false, leftBehind: [name] })
  expect(isAlive(pid)).toBe(false)
})

test.skipIf(process.platform === 'win32')('accuses nobody who ends by itself when the command has ended', async () => {
  const code = `require('node:child_process').spawn('cat', { stdio: ['pipe', 'ignore', 'ignore'] }); process.exit(0)`
  expect(await node(code, 60_000)).toEqual({ code: 0, timedOut: false, leftBehind: [] })
})

test.runIf(process.platform === 'linux')('counts a zombie as dead, although a signal to it succeeds', async () => {
  const child = spawn('true', { detached: true, stdio: 'ignore' })
  const group = child.pid ?? 0
  // This loop keeps Node from taking the dead child: until it returns the child is a zombie for certain.
  while (isAlive(group));
  expect(process.kill(-group, 0)).toBe(true)
  expect(livingOf(group)).toEqual([])
  await new Promise((resolve) => child.once('exit', resolve))
})
