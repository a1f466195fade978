/**
 * The command line and the cluster from the packed package, as a user has them (W9).
 * Invariant: all processes that were started are gone when the one that started them is.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { install, pack, runJson, scratch } from './packed.ts'

const folder = scratch('cli')
const user = join(folder, 'user')
const hapax = join(user, 'node_modules/.bin/hapax')
const running: ChildProcess[] = []
beforeAll(() => {
  install(user, [pack(folder).path])
}, 300_000)
afterAll(() => {
  for (const child of running) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})

interface Announced {
  readonly kv: string
  readonly admin: string
  readonly processes: readonly {
    readonly role: string
    readonly name: string
    readonly zone?: number
    readonly pid: number
    readonly address: string
    readonly admin: string
  }[]
}

/** Starts `hapax dev` and waits for its line. */
async function dev(...args: readonly string[]): Promise<{ readonly child: ChildProcess; readonly told: Announced }> {
  const child = spawn(hapax, ['dev', '--port', '0', '-o', 'json', ...args], { cwd: user, stdio: ['ignore', 'pipe', 'inherit'] })
  running.push(child)
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })
  const [line] = (await once(lines, 'line')) as [string]
  return { child, told: JSON.parse(line) as Announced }
}
async function ended(child: ChildProcess, { processes }: Announced): Promise<number | null> {
  const gone = once(child, 'exit') as Promise<[number | null]>
  child.kill('SIGTERM')
  const [code] = await gone
  for (const { pid } of processes) expect(() => process.kill(pid, 0), `process ${pid}`).toThrow(/ESRCH/)
  return code
}
const isThere = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
const run = (args: readonly string[], url: string) => {
  const { status, stdout, stderr } = spawnSync(hapax, args, { cwd: user, encoding: 'utf8', env: { ...process.env, HAPAX_URL: url } })
  return { status, stdout, stderr }
}

test('dev starts three zones and two proxies on RocksDB, keeps what was written, and ends with all of them', async () => {
  const data = join(folder, 'data')
  const first = await dev('--data', data)
  expect(first.told.processes.map(({ name }) => name)).toEqual(['storage-1', 'storage-2', 'storage-3', 'proxy-1', 'proxy-2'])
  expect(run(['create', 'orders/1', 'paid'], first.told.kv)).toMatchObject({ status: 0, stderr: '' })
  expect(run(['create', 'orders/1', 'again'], first.told.kv)).toMatchObject({ status: 4 })
  let status = run(['status', '--dev', data, '-o', 'json'], first.told.kv)
  while (status.status !== 0) status = run(['status', '--dev', data, '-o', 'json'], first.told.kv) // the last of them may not be ready yet
  const { processes } = JSON.parse(status.stdout) as { readonly processes: readonly object[] }
  expect(processes).toMatchObject(first.told.processes.map(({ name, pid, admin }) => ({ name, pid, admin, isReady: true })))
  expect(await ended(first.child, first.told)).toBe(0)

  const second = await dev('--data', data)
  expect(run(['get', 'orders/1'], second.told.kv)).toEqual({ status: 0, stdout: 'paid\n', stderr: '' })
  expect(await ended(second.child, second.told)).toBe(0)
}, 60_000)

test.each([
  ['SIGTERM', 'proxy'],
  ['SIGTERM', 'storage'],
  ['SIGKILL', 'proxy'],
  ['SIGKILL', 'storage'],
] as const)(
  '%s to the one above several processes ends all of them (%s)',
  async (signal, role) => {
    const map = join(folder, `map-${signal}-${role}.json`)
    const own = role === 'proxy' ? ['--encryption', 'off'] : ['--zone', '1', '--memory']
    const args = [
      'serve',
      role,
      '--cluster',
      'c',
      '--name',
      'n',
      '--zones',
      '1',
      '--shards',
      '2',
      '--plain',
      '--map-file',
      map,
      '--processes',
      '2',
      ...own,
    ]
    const child = spawn(hapax, [...args, '-o', 'json'], { cwd: user, stdio: ['ignore', 'pipe', 'pipe'] })
    running.push(child)
    const errors: string[] = []
    createInterface({ input: child.stderr as NodeJS.ReadableStream }).on('line', (line) => errors.push(line))
    const [line] = (await once(createInterface({ input: child.stdout as NodeJS.ReadableStream }), 'line')) as [string]
    const { processes } = JSON.parse(line) as { readonly processes: readonly { readonly pid: number }[] }
    expect(processes).toHaveLength(2)
    const gone = once(child, 'close')
    child.kill(signal)
    // Its stderr is theirs, too: it is closed when the last one has ended.
    const [code] = (await gone) as [number | null]
    expect(code).toBe(signal === 'SIGTERM' ? 0 : null)
    // One whose parent is gone is there until the system has taken note of its end.
    while (processes.some(({ pid }) => isThere(pid))) await new Promise((resolve) => setTimeout(resolve, 10))
    for (const text of errors) expect(JSON.parse(text)).toHaveProperty('event')
  },
  30_000,
)

test('who waits for a cluster that is not there is told so, and does not end in silence', () => {
  const { status, stderr } = run(['get', 'a'], 'hapax://127.0.0.1:1')
  expect(status).toBe(1)
  expect(stderr).toContain('HPX-')
}, 30_000)

test("a user's test has a cluster by startDev, and the process ends by itself", () => {
  const code = `
    import { connect } from 'hapax/client'
    import { startDev } from 'hapax/server'
    import { counter } from 'hapax/counters'
    const cluster = await startDev({ memory: true, zones: 1, proxies: 1 })
    const kv = await connect(cluster.url)
    const seats = counter({ kv, name: 'seats', min: 0, max: 3 })
    await Promise.all([1, 2, 3, 4].map((buyer) => seats.add('flight-7', 1, { requestId: 'order-' + buyer })))
    const { value } = await seats.get('flight-7')
    await kv.close()
    await cluster.close()
    console.log(JSON.stringify({ value }))`
  writeFileSync(join(user, 'package.json'), JSON.stringify({ name: 'user', private: true, type: 'module' }))
  expect(runJson(process.execPath, user, 'dev.mjs', code)).toEqual({ value: 3 })
}, 60_000)
