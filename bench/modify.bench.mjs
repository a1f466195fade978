/**
 * One key, many callers (G42): `modify` over the embedded store, over a store 0.2 ms away, and Redis's own INCR through ioredis.
 * Invariant: each caller gets a number of its own and the last value is the number of updates; anything else counts as wrong.
 * Why INCR is the measure: it is the cheapest counter a Node program can have over the network, and it needs no read.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { Redis } from 'ioredis'
import { columnsBesideServer, demand, hapax, interleaved, options, report, slice, table, versions } from './harness.mjs'
import { redisServer, redisVersion } from './redis.mjs'

const settings = options()
const { ms } = settings
const callers = 400
/** What a round trip to Redis over the loopback takes at best. */
const delayMs = 0.2

const { memory, modify, scoped, json } = await hapax('core/index.js')

/** Counts the calls that reach a store, and holds each answer back until `ms` have passed. No timer is that fine: the loop is polled. */
function remote(kv, ms) {
  const waiting = []
  let polling = false
  const poll = () => {
    const now = performance.now()
    while (waiting.length > 0 && waiting[0].at <= now) waiting.shift().resolve()
    polling = waiting.length > 0
    if (polling) setImmediate(poll)
  }
  const after = () =>
    new Promise((resolve) => {
      waiting.push({ at: performance.now() + ms, resolve })
      if (!polling) setImmediate(poll)
      polling = true
    })
  const calls = { count: 0 }
  const wrapped = Object.create(kv)
  for (const verb of ['create', 'get', 'getMany', 'update', 'set', 'destroy']) {
    wrapped[verb] = async (...args) => {
      calls.count += 1
      if (ms === 0) return kv[verb](...args)
      await after()
      return kv[verb](...args)
    }
  }
  return { kv: wrapped, calls }
}

/** A contender on a store: counts up, and checks that no number is given twice. */
function counting(name, kind, kv, calls) {
  const numbers = scoped(kv, 'n', { codec: json() })
  let lastSeen = 0
  const perOp = []
  const op = async () => {
    const { entry } = await modify(numbers, 'hot', (value = 0) => value + 1)
    const right = entry.value === lastSeen + 1
    lastSeen = entry.value
    return right
  }
  return {
    name,
    kind,
    perOp,
    run: async () => {
      const before = calls.count
      const one = await slice({ op, inFlight: callers, ms })
      perOp.push((calls.count - before) / one.ops)
      return one
    },
    finish: async () => {
      const { entry } = await numbers.get('hot')
      return entry.value === lastSeen
    },
  }
}

const version = redisVersion()
const dir = mkdtempSync(join(tmpdir(), 'hapax-bench-modify-'))
const closing = []
try {
  const near = memory()
  const far = remote(near, delayMs)
  const contenders = [counting(`modify, ${delayMs} ms away`, 'delayed', far.kv, far.calls)]
  const { embedded } = await hapax('core/stores/embedded.js')
  for (const durability of ['os', 'fsync']) {
    const kv = await embedded({ dir: join(dir, durability), durability })
    closing.push(() => kv.close())
    const counted = remote(kv, 0)
    contenders.push(counting(`modify, embedded ${durability}`, 'in process', counted.kv, counted.calls))
  }
  const ours = [...contenders]
  if (version !== undefined) {
    const server = await redisServer('off')
    closing.push(() => server.close())
    const client = new Redis({ host: '127.0.0.1', port: server.port, enableAutoPipelining: true })
    closing.push(() => client.disconnect())
    let last = 0
    const op = async () => {
      const value = await client.incr('hot')
      const right = value === last + 1
      last = value
      return right
    }
    contenders.push({
      name: 'INCR, ioredis autopipelining',
      kind: 'network',
      run: () => slice({ op, inFlight: callers, ms, serverCpu: server.serverCpu }),
    })
  }
  const rows = await interleaved(contenders, settings)
  for (const contender of ours) {
    const row = rows.find(({ name }) => name === contender.name)
    row.storeCallsPerOp = Math.max(...contender.perOp)
    if (!(await contender.finish())) row.wrong += 1
  }
  const native = rows.find(({ kind }) => kind === 'network')
  for (const row of rows) row.ratio = native === undefined ? undefined : row.opsPerSecond / native.opsPerSecond
  const mine = rows.filter(({ kind }) => kind !== 'network')
  const calls = Math.max(...mine.map((row) => row.storeCallsPerOp))
  const slowest = Math.min(...mine.map((row) => row.ratio ?? NaN))
  report('modify', {
    settings,
    versionsUsed: versions(['ioredis', 'rocksdb'], { 'redis-server': version ?? 'absent' }),
    sections: [
      {
        title: `one key, ${callers} callers in flight; ratio to INCR`,
        rows,
        text: table(rows, columnsBesideServer),
      },
    ],
    demands: [
      demand('G42', 'at most 0.05 store calls an update', calls.toFixed(4), calls <= 0.05),
      demand(
        'G42',
        'no update lost or doubled',
        String(mine.reduce((sum, row) => sum + row.wrong, 0)),
        mine.every((row) => row.wrong === 0),
      ),
      ...(native === undefined
        ? []
        : [demand('G42', 'more a second than INCR, the slowest of ours', `${slowest.toFixed(2)} x`, slowest > 1)]),
    ],
    notes: version === undefined ? ['redis-server is not here: INCR is left out'] : [],
  })
} finally {
  for (const close of closing.reverse()) await close()
  rmSync(dir, { recursive: true, force: true })
}
