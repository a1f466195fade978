/** The commands of those who run a cluster: status, bench, serve with its log (W18). */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { connect } from '../../core/client/client.ts'
import { AdminServer } from '../edge/admin.ts'
import { Meter } from '../edge/meter.ts'
import { startCluster, type TestCluster } from '../edge/testdata/cluster.ts'
import { runCommand } from './program.ts'

interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}
const jsonOf = (text: string): Record<string, unknown> => JSON.parse(text) as Record<string, unknown>

/** A command that runs until it is ended. `line` is its first one. */
function begun(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  let out = ''
  let err = ''
  let end: () => void = () => undefined
  const ended = new Promise<void>((resolve) => (end = resolve))
  let tell: (line: string) => void = () => undefined
  const line = new Promise<string>((resolve) => (tell = resolve))
  let hear: () => void = () => undefined
  const ready = new Promise<void>((resolve) => (hear = resolve))
  const io = {
    env,
    out: (text: string) => (tell(text), void (out += text)),
    err: (text: string) => {
      err += text
      if (text.includes('"event":"ready"')) hear()
    },
    input: async () => new Uint8Array(0),
    ended: () => ended,
    fail: (error: unknown) => {
      throw error
    },
  }
  const done = runCommand(args, io, '1.2.3').then((code): Ran => (tell(''), { code, out, err }))
  return { line, ready, done, end: () => (end(), done) }
}
const hapax = async (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ran> => {
  const command = begun(args, env)
  return await command.end()
}

const closing: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
})

describe('status', () => {
  async function windowOf(status: object, why?: string): Promise<string> {
    const admin = await AdminServer.open({
      listen: { host: '127.0.0.1', port: 0 },
      meter: new Meter({}),
      live: {},
      ready: { shards: () => why },
      status: () => status,
    })
    closing.push(() => admin.close())
    return admin.address
  }

  test('is a table of the processes, and ends with 0 when all are ready', async () => {
    const one = await windowOf({ role: 'storage', name: 's1', zone: 1, pid: 11, address: '10.0.0.1:5', shards: { owned: 4, serving: 4 } })
    const other = await windowOf({ role: 'proxy', name: 'p1', pid: 12, address: '10.0.0.2:5', requests: 7 })
    const { code, out, err } = await hapax(['status', '--admin', `http://${one}`, other])
    expect({ code, err }).toEqual({ code: 0, err: '' })
    const [head, ...rows] = out.trimEnd().split('\n')
    expect(head).toMatch(/^NAME +ROLE +ZONE +READY +PID +RESTARTS +SHARDS +REQUESTS +VERSION +ADDRESS$/)
    expect(rows.map((row) => row.split(/ +/))).toEqual([
      ['s1', 'storage', '1', 'yes', '11', '-', '4/4', '-', '-', '10.0.0.1:5'],
      ['p1', 'proxy', '-', 'yes', '12', '-', '-', '7', '-', '10.0.0.2:5'],
    ])
  })

  test('says why one is not ready, and which one did not answer, and ends with 1', async () => {
    const one = await windowOf({ role: 'storage', name: 's1' }, 'it votes for 1 of 4 shards')
    const gone = await windowOf({})
    await closing.pop()?.()
    const { code, out } = await hapax(['status', '-o', 'json'], { HAPAX_ADMIN: `${one},${gone}` })
    expect(code).toBe(1)
    expect(jsonOf(out)).toMatchObject({
      ok: false,
      processes: [
        { name: 's1', isReady: false, why: 'shards: it votes for 1 of 4 shards' },
        { admin: `http://${gone}`, isReady: false, why: 'no answer (ECONNREFUSED)' },
      ],
    })
  })

  test('goes from a window over several processes to theirs', async () => {
    const child = await windowOf({ role: 'proxy', name: 'p', pid: 12, requests: 7 })
    const known = { role: 'proxy', state: 'ready', pid: 12, restarts: 3, address: '10.0.0.2:5' }
    const above = await windowOf({
      role: 'supervisor',
      name: 'p',
      children: [
        { ...known, name: 'p/1', admin: child },
        { ...known, name: 'etcd', role: 'etcd' },
        { ...known, name: 'p/2', state: 'waiting', why: 'it ended with SIGKILL' },
      ],
    })
    const { code, out } = await hapax(['status', '--admin', above, '-o', 'json'])
    expect(code).toBe(1)
    expect(jsonOf(out)['processes']).toMatchObject([
      { name: 'p/1', isReady: true, restarts: 3, requests: 7 },
      { name: 'etcd', isReady: true },
      { name: 'p/2', isReady: false, why: 'it ended with SIGKILL' },
    ])
  })

  test.each([
    [[], 'give --admin'],
    [['--admin', 'ftp://x'], 'http://host:port'],
    [['--dev', '/nowhere'], '`hapax dev --data` runs'],
  ])('%j ends with 2 and says %s', async (args, said) => {
    const { code, err } = await hapax(['status', ...args])
    expect({ code, said: err.includes(said) }).toEqual({ code: 2, said: true })
  })
})

describe('bench', () => {
  let cluster: TestCluster
  beforeAll(async () => {
    cluster = await startCluster({ zones: 1 })
  })
  afterAll(() => cluster.close())

  test('counts what it did, and says on which machine and with which seed', async () => {
    const args = ['bench', '--url', cluster.url, '--time', '200ms', '--in-flight', '8', '--keys', '10', '--seed', '7']
    const { code, out } = await hapax([...args, '-o', 'json'])
    expect(code).toBe(0)
    const kind = { count: expect.any(Number), perSecond: expect.any(Number), p50Ms: expect.any(Number), p99Ms: expect.any(Number) }
    const told = jsonOf(out) as { readonly reads: { readonly count: number }; readonly writes: { readonly count: number } }
    expect(told).toMatchObject({
      ok: true,
      loop: 'closed',
      reads: kind,
      writes: kind,
      faults: {},
      load: { inFlight: 8, keys: 10, size: 100, readPercent: 50, seed: 7 },
      machine: { cores: expect.any(Number), cpu: expect.any(String) },
      versions: { node: process.versions.node, hapax: '1.2.3' },
    })
    expect(Math.min(told.reads.count, told.writes.count)).toBeGreaterThan(0)
    const kv = await connect(cluster.url)
    closing.push(() => kv.close())
    const { entries } = await kv.getMany(Array.from({ length: 10 }, (_, index) => `hapax-bench/7/${index}`))
    expect(entries.size).toBeGreaterThan(0)
    for (const { expiresAt } of entries.values()) expect(expiresAt).toBeDefined()
  })

  test('prints the same for people', async () => {
    const { code, out } = await hapax(['bench', '--url', cluster.url, '--time', '50ms', '--reads', '0'])
    expect(code).toBe(0)
    expect(out).toMatch(/^\d+ calls a second, 0 faults\n/)
    expect(out).toMatch(/^reads +0 +0 +0 +0 +0$/m)
    expect(out).toContain('a closed loop')
    expect(out).toContain('seed 1')
  })

  test.each([
    [['--time', 'soon'], "not 'soon'"],
    [['--in-flight', '0'], 'from 1 to 4096'],
    [['--reads', '101'], 'from 0 to 100'],
  ])('%j ends with 2 and says %s', async (args, said) => {
    const { code, err } = await hapax(['bench', '--url', cluster.url, ...args])
    expect({ code, said: err.includes(said) }).toEqual({ code: 2, said: true })
  })
})

describe('serve', () => {
  test('writes a log of JSON lines in which no key, value or secret of anybody stands, at any level', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'hapax-serve-'))
    closing.push(async () => rmSync(dir, { recursive: true, force: true }))
    const common = [
      '--cluster',
      'c',
      '--plain',
      '--zones',
      '1',
      '--shards',
      '2',
      '--map-file',
      join(dir, 'map.json'),
      '--log-level',
      'debug',
    ]
    const storage = begun(['serve', 'storage', '--name', 's1', '--zone', '1', '--memory', ...common, '-o', 'json'])
    expect(jsonOf(await storage.line)).toMatchObject({ ok: true, role: 'storage', zone: 1 })
    expect(await hapax(['cert', 'key', '--file', join(dir, 'keys')])).toMatchObject({ code: 0 })
    const proxy = begun(['serve', 'proxy', '--name', 'p1', '--keys', join(dir, 'keys'), ...common, '-o', 'json'])
    const { address, admin } = jsonOf(await proxy.line)
    const kv = await connect(`hapax://${String(address)}/canary-namespace`)
    await kv.create('canary-key', Uint8Array.from(Buffer.from('canary-value')), { requestId: 'canary-request' })
    await kv.get('canary-key')
    await kv.close()
    const asked = await hapax(['status', '--admin', String(admin), '-o', 'json'])
    expect(jsonOf(asked.out)).toMatchObject({ processes: [{ role: 'proxy', name: 'p1', pid: process.pid }] })
    await Promise.all([storage.ready, proxy.ready])
    const logs = [await proxy.end(), await storage.end()].map(({ code, err }) => {
      expect(code).toBe(0)
      return err
    })
    for (const log of logs) {
      expect(log).not.toMatch(/canary|[0-9a-f]{64}/)
      const events = log
        .trimEnd()
        .split('\n')
        .map((line) => jsonOf(line)['event'])
      expect(events.filter((event) => event !== 'event' && event !== 'setting' && event !== 'not-ready')).toEqual([
        'listening',
        'ready',
        'draining',
        'closed',
      ])
    }
    expect(jsonOf(logs[0]?.split('\n')[0] ?? '')).toMatchObject({ level: 'debug', role: 'proxy', name: 'p1', event: 'setting' })
  })
})
