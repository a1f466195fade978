/**
 * What all benchmarks share: rounds that interleave the contenders, the columns, and the report with machine and versions.
 * Invariant: a figure is a median over rounds in which every contender had its turn, so noise of the machine meets all alike.
 * Why at most `inFlight` answers a turn of the event loop: an answer from memory would otherwise never let the loop turn, and no server works so.
 */
import { execFileSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { fileURLToPath, pathToFileURL } from 'node:url'

const folder = fileURLToPath(new URL('.', import.meta.url))
const root = fileURLToPath(new URL('..', import.meta.url))

/** The built package, as a user has it. `HAPAX_BENCH_DIST` names another build, to compare two. */
export const distUrl =
  process.env.HAPAX_BENCH_DIST === undefined ? new URL('../dist/', import.meta.url) : pathToFileURL(`${process.env.HAPAX_BENCH_DIST}/`)
export const hapax = (subpath) => import(new URL(subpath, distUrl).href)

/** `--tiny` is for the test: a few milliseconds a slice, so the figures mean nothing and the answers are still checked. */
export function options() {
  const { values } = parseArgs({
    options: {
      tiny: { type: 'boolean', default: false },
      out: { type: 'string', default: join(folder, 'results') },
      rounds: { type: 'string' },
      ms: { type: 'string' },
      only: { type: 'string' },
      minutes: { type: 'string' },
    },
  })
  const seed = Number(process.env.HAPAX_SEED ?? randomInt(2 ** 31))
  return {
    tiny: values.tiny,
    out: values.out,
    rounds: Number(values.rounds ?? (values.tiny ? 1 : 7)),
    ms: Number(values.ms ?? (values.tiny ? 15 : 400)),
    only: values.only,
    minutes: values.minutes === undefined ? undefined : Number(values.minutes),
    seed,
    random: generator(seed),
  }
}

/** A small seeded generator (mulberry32): the order of contenders and the choice of keys can be had again. */
export function generator(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

export function shuffled(items, random) {
  const order = [...items]
  for (let last = order.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1))
    ;[order[last], order[other]] = [order[other], order[last]]
  }
  return order
}

/** Latencies kept of one slice: enough for a p99, and bounded. */
const samplesMax = 200_000
const delayResolutionMs = 1

/** The first part of a slice is not measured: its process has been idle since its last turn, and V8 has given its young heap back meanwhile. */
const warmShare = 0.5

/**
 * One slice: `inFlight` callers call `op(worker)` again and again for `ms` milliseconds after half as long unmeasured, or `count` times in all.
 * `op` resolves to true when the answer was right. `serverCpu` gives the CPU microseconds of a server process, if there is one.
 * `burst`: answers from memory in one turn of the event loop, at most; by default as many as calls are in flight.
 */
export async function slice({ op, inFlight, burst = inFlight, ms, count = Infinity, serverCpu }) {
  globalThis.gc?.()
  const warm = count === Infinity ? await measured({ op, inFlight, burst, ms: ms * warmShare, count }) : { ops: 0, wrong: 0 }
  const one = await measured({ op, inFlight, burst, ms, count, serverCpu })
  return { ...one, wrong: one.wrong + warm.wrong, opsInAll: one.ops + warm.ops }
}

async function measured({ op, inFlight, burst, ms, count, serverCpu }) {
  const samples = new Float64Array(samplesMax)
  const delay = monitorEventLoopDelay({ resolution: delayResolutionMs })
  let [begun, done, wrong, sinceTurn, turning] = [0, 0, 0, 0, undefined]
  const turn = () => {
    turning ??= new Promise((resolve) => {
      setImmediate(() => {
        turning = undefined
        sinceTurn = 0
        resolve()
      })
    })
    return turning
  }
  const worker = async (number) => {
    for (;;) {
      const start = performance.now()
      if (start >= end || begun >= count) return
      begun += 1
      const right = await op(number)
      if (right !== true) wrong += 1
      samples[done % samplesMax] = performance.now() - start
      done += 1
      sinceTurn += 1
      if (sinceTurn >= burst) await turn()
    }
  }
  const serverBefore = serverCpu?.() ?? 0
  const cpuBefore = process.cpuUsage()
  delay.enable()
  const startMs = performance.now()
  const end = startMs + ms
  await Promise.all(Array.from({ length: inFlight }, (_, number) => worker(number)))
  const tookMs = performance.now() - startMs
  delay.disable()
  const cpu = process.cpuUsage(cpuBefore)
  const sorted = samples.subarray(0, Math.min(done, samplesMax)).sort()
  return {
    ops: done,
    wrong,
    opsPerSecond: done / (tookMs / 1000),
    cpuUsPerOp: (cpu.user + cpu.system) / done,
    serverCpuUsPerOp: serverCpu === undefined ? 0 : (serverCpu() - serverBefore) / done,
    p50Ms: at(sorted, 0.5),
    p99Ms: at(sorted, 0.99),
    loopDelayP99Ms: Math.max(0, delay.percentile(99) / 1e6 - delayResolutionMs) || 0,
  }
}

const at = (sorted, quantile) => (sorted.length === 0 ? 0 : sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * quantile))])

export function median(values) {
  const sorted = [...values].sort((left, right) => left - right)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** The median's usual distance: the spread that one outlier does not move. */
export const mad = (values) => median(values.map((value) => Math.abs(value - median(values))))

/** The columns of contenders that ask a server, or stand beside one that does. */
export const columnsBesideServer = [
  'opsPerSecond',
  'opsPerSecondMad',
  'ratio',
  'storeCallsPerOp',
  'cpuUsPerOp',
  'serverCpuUsPerOp',
  'p50Ms',
  'p99Ms',
  'loopDelayP99Ms',
  'wrong',
]

/** Medians of the rounds; `wrong` and `ops` are sums. */
export function summary(name, kind, slices) {
  const of = (column) => slices.map((one) => one[column])
  const sum = (column) => of(column).reduce((total, value) => total + value, 0)
  return {
    name,
    kind,
    ops: sum('ops'),
    wrong: sum('wrong'),
    opsPerSecond: median(of('opsPerSecond')),
    opsPerSecondMad: mad(of('opsPerSecond')),
    cpuUsPerOp: median(of('cpuUsPerOp')),
    cpuUsPerOpMad: mad(of('cpuUsPerOp')),
    serverCpuUsPerOp: median(of('serverCpuUsPerOp')),
    p50Ms: median(of('p50Ms')),
    p99Ms: median(of('p99Ms')),
    loopDelayP99Ms: median(of('loopDelayP99Ms')),
    rounds: slices.map((one) => Math.round(one.opsPerSecond)),
  }
}

/**
 * Runs a cell: one slice a contender to warm up, then the rounds, each in another order.
 * A contender has a `name`, a `kind`, and `run()`, which gives one slice.
 */
export async function interleaved(contenders, { rounds, random }) {
  const slices = new Map(contenders.map(({ name }) => [name, []]))
  for (let round = -1; round < rounds; round += 1) {
    for (const { name, run } of shuffled(contenders, random)) {
      const one = await run()
      if (one.wrong > 0) throw new Error(`${name} answered wrongly ${one.wrong} times of ${one.ops}`)
      if (round >= 0) slices.get(name).push(one)
    }
  }
  return contenders.map(({ name, kind }) => summary(name, kind, slices.get(name)))
}

const digits = (value, places) => value.toLocaleString('en', { minimumFractionDigits: places, maximumFractionDigits: places })

/** How columns are shown: heading, places. */
const columns = {
  opsPerSecond: ['ops/s', 0],
  opsPerSecondMad: ['+-', 0],
  ratio: ['ratio', 2],
  cpuUsPerOp: ['CPU us/op', 1],
  serverCpuUsPerOp: ['server us/op', 1],
  p50Ms: ['p50 ms', 2],
  p99Ms: ['p99 ms', 2],
  loopDelayP99Ms: ['loop p99 ms', 1],
  storeCallsPerOp: ['store calls/op', 3],
  wrong: ['wrong', 0],
}

/** Rows as text: names to the left, figures to the right. `extra` adds columns or changes headings. */
export function table(rows, shown, extra = {}) {
  const known = { ...columns, ...extra }
  const cells = rows.map((row) => [
    row.name,
    row.kind ?? '',
    ...shown.map((column) => (typeof row[column] === 'number' ? digits(row[column], known[column]?.[1] ?? 0) : (row[column] ?? '-'))),
  ])
  const head = ['', '', ...shown.map((column) => known[column]?.[0] ?? column)]
  const widths = head.map((text, index) => Math.max(text.length, ...cells.map((row) => row[index].length)))
  const line = (row) => row.map((text, index) => (index < 2 ? text.padEnd(widths[index]) : text.padStart(widths[index]))).join('  ')
  return [line(head), ...cells.map(line)].map((text) => text.trimEnd()).join('\n')
}

/** The machine, without its name: what one needs to compare figures. */
export function machine() {
  const [first, ...more] = cpus()
  return {
    cpu: first.model.trim(),
    cores: more.length + 1,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: `${process.platform} ${release()} ${process.arch}`,
  }
}

const versionIn = (path) => {
  try {
    return JSON.parse(readFileSync(join(path, 'package.json'), 'utf8')).version
  } catch {
    return 'absent'
  }
}

/** Versions of Node, of ours and of the peers that are named. */
export function versions(peers, programs = {}) {
  return {
    node: process.versions.node,
    v8: process.versions.v8,
    hapax: `${versionIn(root)} ${revision()}`.trim(),
    ...Object.fromEntries(peers.map((name) => [name, versionIn(join(name === 'rocksdb' ? root : folder, 'node_modules', name))])),
    ...programs,
  }
}

function revision() {
  try {
    const git = (...args) => execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
    return `${git('rev-parse', '--short', 'HEAD')}${git('status', '--porcelain', '--untracked-files=no', 'core', 'patterns') === '' ? '' : ' and changes'}`
  } catch {
    return ''
  }
}

/** A demand and whether this run met it. `limit` and `figure` are told as they are compared. */
export const demand = (number, text, figure, holds) => ({ number, text, figure, met: holds })

/** Writes NAME.json and NAME.txt and prints the text. The JSON holds all that the text says. */
export function report(name, { settings, versionsUsed, sections, demands, notes = [] }) {
  const { out, tiny, seed, rounds, ms } = settings
  const result = {
    name,
    at: new Date().toISOString(),
    tiny,
    seed,
    rounds,
    sliceMs: ms,
    machine: machine(),
    versions: versionsUsed,
    sections: sections.map(({ title, rows }) => ({ title, rows })),
    demands,
    notes,
  }
  const { cpu, cores, memoryGiB, kernel } = result.machine
  const text = [
    `${name}${tiny ? ' (tiny: these figures mean nothing)' : ''}   ${result.at}`,
    `machine   ${cpu}, ${cores} cores, ${memoryGiB} GiB, ${kernel}`,
    `versions  ${Object.entries(versionsUsed)
      .map(([what, version]) => `${what} ${version}`)
      .join(', ')}`,
    `method    ${rounds} interleaved rounds of ${ms} ms after ${ms * warmShare} ms unmeasured, and after one round to warm up; medians, +- median absolute deviation; HAPAX_SEED=${seed}`,
    ...sections.flatMap((section) => ['', section.title, section.text]),
    '',
    ...demands.map(({ number, text: wanted, figure, met }) => `${met ? 'met   ' : 'MISSED'}  ${number}  ${wanted}: ${figure}`),
    ...(notes.length > 0 ? ['', ...notes.map((note) => `note: ${note}`)] : []),
    '',
  ].join('\n')
  mkdirSync(out, { recursive: true })
  writeFileSync(join(out, `${name}.json`), `${JSON.stringify(result, null, 2)}\n`)
  writeFileSync(join(out, `${name}.txt`), text)
  console.log(text)
}
