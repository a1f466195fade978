/**
 * Every benchmark runs, answers rightly and leaves a report of the known shape. Nothing here looks at a clock or a speed.
 * Why through `tools/bench.mjs`: it is what `npm run bench` calls, with its own set-up.
 */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const redis = process.env.HAPAX_REDIS_SERVER ?? 'redis-server'
const hasRedis = spawnSync(redis, ['--version']).status === 0
/** Some 60 s on a quiet machine of two cores, with a build. */
const runMsMax = 300_000
const names = readdirSync(join(root, 'bench'))
  .filter((file) => file.endsWith('.bench.mjs'))
  .map((file) => file.slice(0, -'.bench.mjs'.length))

interface Row {
  readonly name: string
  readonly kind?: string
  readonly wrong?: number
  readonly [column: string]: unknown
}
interface Report {
  readonly name: string
  readonly tiny: boolean
  readonly seed: number
  readonly machine: Readonly<Record<string, unknown>>
  readonly versions: Readonly<Record<string, string>>
  readonly sections: readonly { readonly title: string; readonly rows: readonly Row[] }[]
  readonly demands: readonly { readonly number: string; readonly text: string; readonly figure: string; readonly met: boolean }[]
  readonly notes: readonly string[]
}

describe('npm run bench', () => {
  const out = mkdtempSync(join(tmpdir(), 'hapax-bench-test-'))
  const temporary = mkdtempSync(join(tmpdir(), 'hapax-bench-tmp-'))
  const reports = new Map<string, Report>()
  const reportOf = (name: string): Report => {
    const report = reports.get(name)
    if (!report) throw new Error(`there is no report of ${name}`)
    return report
  }

  beforeAll(async () => {
    const env = { ...process.env, TMPDIR: temporary }
    const child = spawn(process.execPath, ['tools/bench.mjs', '--tiny', '--out', out], {
      cwd: root,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: runMsMax,
    })
    let said = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (said = `${said}${chunk}`.slice(-20_000)))
    const status = await new Promise((resolve) => child.once('close', resolve))
    if (status !== 0) throw new Error(`the benchmarks ended with ${String(status)}:\n${said}`)
    for (const name of names) reports.set(name, JSON.parse(readFileSync(join(out, `${name}.json`), 'utf8')) as Report)
  }, runMsMax + 10_000)
  afterAll(() => {
    rmSync(out, { recursive: true, force: true })
    rmSync(temporary, { recursive: true, force: true })
  })

  test('there are the benchmarks of G40, G41, G42, P40, P41, P42, of the cluster (W40 to W48), and of the wire', () => {
    expect(names.sort()).toEqual(['cache', 'cluster', 'counters', 'embedded', 'idempotency', 'limits', 'modify', 'wire'])
  })

  test.each(names)('%s reports machine, versions, seed, rows and demands', (name) => {
    const report = reportOf(name)
    expect(report).toMatchObject({ name, tiny: true, seed: expect.any(Number) })
    expect(report.machine).toMatchObject({
      cpu: expect.any(String),
      cores: expect.any(Number),
      memoryGiB: expect.any(Number),
      kernel: expect.any(String),
    })
    expect(report.versions).toMatchObject({ node: process.versions.node, hapax: expect.any(String) })
    expect(report.sections.length).toBeGreaterThan(0)
    for (const { title, rows } of report.sections) {
      expect(title).not.toBe('')
      for (const row of rows) expect(row.name).not.toBe('')
    }
    for (const { number, text, figure } of report.demands) expect([number, text, figure].every((part) => part.length > 0)).toBe(true)
    expect(readFileSync(join(out, `${name}.txt`), 'utf8')).toContain(report.sections[0]?.title)
  })

  test.each(names)('%s gets right answers from everybody, in every timed row', (name) => {
    const timed = reportOf(name).sections.flatMap(({ rows }) => rows.filter((row) => 'opsPerSecond' in row))
    expect(timed.length).toBeGreaterThan(0)
    for (const row of timed)
      expect(row, row.name).toMatchObject({ wrong: 0, cpuUsPerOp: expect.any(Number), loopDelayP99Ms: expect.any(Number) })
  })

  test('a run of ours executes nothing twice and replays nothing wrongly; the store is called 2 and 1 times (G41)', () => {
    const answers = reportOf('idempotency').sections[2]?.rows
    expect(answers?.[0]).toMatchObject({ name: 'hapax', executedTwice: 0, wrongReplay: 0, storeCallsFirst: 2, storeCallsReplay: 1 })
  })

  test('the scenarios can fail: what the peers are known to do is seen', () => {
    const answers = reportOf('idempotency').sections[2]?.rows ?? []
    const of = (name: string) => answers.find((row) => row.name === name)
    expect(of('node-idempotency')?.wrongReplay).toBeGreaterThan(0)
    expect(of('express-idempotency')?.wrongReplay).toBeGreaterThan(0)
    expect(of('Powertools')?.executedTwice).toBeGreaterThan(0)
  })

  test('modify joins callers: at most 0.05 store calls an update (G42)', () => {
    const ours = reportOf('modify').sections[0]?.rows.filter((row) => 'storeCallsPerOp' in row) ?? []
    expect(ours).toHaveLength(3)
    for (const row of ours) expect(row.storeCallsPerOp, row.name).toBeLessThanOrEqual(0.05)
  })

  test('no read of ours is stale after an invalidation, and an answer undefined is kept; what the peers are known to do is seen (P41)', () => {
    const { sections } = reportOf('cache')
    const rowsOf = (title: string) => sections.find((section) => section.title.startsWith(title))?.rows ?? []
    const stale = rowsOf('invalidations')
    expect(stale[0]).toMatchObject({ name: 'hapax', staleReads: 0, unanswered: 0 })
    expect(stale[0]?.raced).toBeGreaterThan(0)
    expect(stale.find(({ name }) => name === 'lru-cache fetch')?.staleReads).toBe(0)
    for (const peer of ['bentocache', 'cacheable', 'cache-manager', 'async-cache-dedupe', 'cachified'])
      expect(stale.find(({ name }) => name === peer)?.staleReads, peer).toBeGreaterThan(0)
    expect(rowsOf('three reads')[0]).toMatchObject({ name: 'hapax', answer: 'undefined', loads: 1 })
  })

  test.skipIf(!hasRedis)(
    'a herd of four processes loads a cold key once through ours, and all are answered (P41; skipped without redis-server)',
    () => {
      const { sections } = reportOf('cache')
      const herd = sections.find(({ title }) => title.startsWith('stampede'))?.rows ?? []
      expect(herd[0]).toMatchObject({ name: 'hapax', loadsMax: 1, answered: 4_000, unanswered: 0, wrong: 0 })
      expect(herd.find(({ name }) => name === 'cache-manager')?.loads).toBeGreaterThan(1)
    },
  )

  test('a limit of ours admits nothing beyond what it promises and refuses nothing that fits; what the peers are known to do is seen (P40)', () => {
    const answers = reportOf('limits').sections.filter(({ title }) => title.startsWith('answers'))
    const rows = answers.flatMap((section) => section.rows)
    const ours = rows.filter(({ name }) => name.startsWith('hapax'))
    expect(ours).toHaveLength(hasRedis ? 6 : 3)
    for (const row of ours) expect(row, row.name).toMatchObject({ overAdmitted: 0, wrongRefusals: 0, unseen: 0 })
    const of = (name: string) => rows.find((row) => row.name === name)
    expect(of('rate-limiter-flexible')?.overAdmitted).toBeGreaterThan(0)
    expect(of('rate-limiter-flexible')?.wrongRefusals).toBeGreaterThan(0)
    expect(of('express-rate-limit, its store')?.overAdmitted).toBeGreaterThan(0)
    if (!hasRedis) return
    expect(of('rate-limit-redis')?.overAdmitted).toBeGreaterThan(0)
    expect(of('@upstash/ratelimit, sliding window')?.unseen).toBeGreaterThan(0)
  })

  test.skipIf(!hasRedis)('on a hot key callers share store calls, and a refusal needs none (P40; skipped without redis-server)', () => {
    const timed = (title: string) => {
      const section = reportOf('limits').sections.find((one) => one.title.startsWith('on Redis') && one.title.includes(title))
      return section?.rows.filter(({ name }) => name.startsWith('hapax')) ?? []
    }
    expect(timed('one hot key')).toHaveLength(2)
    for (const row of timed('one hot key')) expect(row.storeCallsPerOp, row.name).toBeLessThan(0.5)
    for (const row of timed('refusals')) expect(row.storeCallsPerOp, row.name).toBeLessThan(0.5)
  })

  test('a key is weighed in every library, living and expired (P42)', () => {
    const weighed = reportOf('counters').sections.filter(({ title }) => title.startsWith('bytes a key'))
    expect(weighed).toHaveLength(hasRedis ? 2 : 1)
    for (const { rows } of weighed) {
      expect(rows.some(({ name }) => name.startsWith('hapax'))).toBe(true)
      for (const row of rows) expect(row, row.name).toMatchObject({ bytesAKey: expect.any(Number), bytesExpired: expect.any(Number) })
    }
  })

  test.skipIf(!hasRedis)(
    'a counter of four processes is exact under faults, where INCR that is repeated is not (P42; skipped without redis-server)',
    () => {
      const exact = reportOf('counters').sections.find(({ title }) => title.startsWith('delays'))?.rows ?? []
      expect(exact.map(({ name }) => name)).toEqual(['hapax counter, requestId', 'INCR, repeated'])
      expect(exact[0]).toMatchObject({ adds: 400, value: 400, off: 0 })
      expect(exact[1]?.off).toBeGreaterThan(0)
      for (const row of exact) expect(Number(row.unknownAfter) + Number(row.unknownLater), row.name).toBeGreaterThan(0)
    },
  )

  test.skipIf(!hasRedis)('Redis takes part through both clients (skipped without redis-server)', () => {
    const clients = reportOf('embedded').sections.flatMap(({ rows }) =>
      rows.filter((row) => row.kind === 'network').map((row) => row.name.split(' ')[0]),
    )
    expect(new Set(clients)).toEqual(new Set(['ioredis', 'redis']))
    expect(reportOf('modify').sections[0]?.rows.some((row) => row.name.startsWith('INCR'))).toBe(true)
  })

  test('nothing is left in the temporary directory', () => {
    expect(readdirSync(temporary)).toEqual([])
  })
})
