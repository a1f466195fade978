/**
 * The embedded store beside Redis, LMDB and SQLite (G40), and what durable writes do to an HTTP route of the same process.
 * Invariant: only what survives the same (a killed process, a power cut) is compared; each figure says whether a network lies between.
 * Why one process for all: they then share the machine's good and bad moments, slice by slice.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { demand, interleaved, median, options, report, shuffled, table, versions } from './harness.mjs'
import { redisServer, redisVersion } from './redis.mjs'
import { hapaxStore, ioredisStore, lmdbStore, nodeRedisStore, sqliteStore, valueBytes } from './stores.mjs'

const settings = options()
const { tiny, random } = settings
const inFlight = 64
const keysAWorker = 16
const manyKeys = tiny ? 400 : 100_000
const route = { rate: 200, writesPerSecond: 1_000, ms: tiny ? 100 : 4_000, rounds: tiny ? 1 : 5 }

const closing = []
const notes = []
const dir = mkdtempSync(join(tmpdir(), 'hapax-bench-embedded-'))
const version = redisVersion()
if (version === undefined) notes.push('redis-server is not here: both Redis clients are left out')

/** A store is closed with the others at the end; one that cannot be had here leaves a note. */
async function opened(store) {
  const made = await store
  if (made.missing === undefined) closing.push(() => made.close())
  else if (!notes.includes(made.missing)) notes.push(made.missing)
  return made.missing === undefined ? [made] : []
}

async function redisStores(appendfsync, label) {
  if (version === undefined) return []
  const server = await redisServer(appendfsync)
  closing.push(() => server.close())
  return [...(await opened(ioredisStore(server, label))), ...(await opened(nodeRedisStore(server, label)))]
}

async function stores(durability) {
  const at = (name) => join(dir, `${name}-${durability}`)
  return [
    ...(await opened(hapaxStore({ dir: at('hapax'), durability }))),
    ...(await redisStores(durability === 'os' ? 'everysec' : 'always', durability === 'os' ? 'AOF everysec' : 'AOF always')),
    ...(await opened(lmdbStore({ dir: at('lmdb'), durability }))),
    ...(await opened(sqliteStore({ dir: at('sqlite'), durability }))),
  ]
}

/** Each worker has keys of its own: a refused version is then a fault and not a race. */
const ownKey = (worker) => `u:${worker}:${Math.floor(random() * keysAWorker)}`
let number = 0
const operations = {
  create: (store) => () => store.create(`c:${(number += 1)}`, number),
  update: (store) => (worker) => store.update(ownKey(worker), (number += 1)),
  updateIf: (store) => (worker) => store.updateIf(ownKey(worker), (number += 1)),
  get: (store) => (worker) => store.get(ownKey(worker)),
  getMany: (store) => () => store.get(`m:${Math.floor(random() * manyKeys)}`),
}

async function fill(store, keys) {
  for (let from = 0; from < keys.length; from += 500) await Promise.all(keys.slice(from, from + 500).map((key) => store.create(key, 7)))
}

async function cell(title, operation, contenders, callers) {
  const rows = await interleaved(
    contenders.map((store) => ({ name: store.name, kind: store.kind, serverCpu: store.serverCpu, op: operations[operation](store) })),
    { ...settings, inFlight: callers },
  )
  for (const row of rows) row.ratio = row.opsPerSecond / rows[0].opsPerSecond
  const shown = ['opsPerSecond', 'opsPerSecondMad', 'ratio', 'cpuUsPerOp', 'serverCpuUsPerOp', 'p50Ms', 'p99Ms', 'loopDelayP99Ms', 'wrong']
  console.error(`done: ${title}`)
  return { title: `${title}, ${callers} in flight, ${valueBytes} B`, rows, text: table(rows, shown) }
}

/** Writes at a fixed rate until told to stop, in step with the clock whatever the store does. */
function writing(store) {
  const start = performance.now()
  const pending = new Set()
  let [sent, wrong] = [0, 0]
  const timer = setInterval(() => {
    for (; start + (sent * 1000) / route.writesPerSecond <= performance.now(); sent += 1) {
      const write = store.create(`c:${(number += 1)}`, number).then((right) => {
        if (right !== true) wrong += 1
        pending.delete(write)
      })
      pending.add(write)
    }
  }, 1)
  return async () => {
    clearInterval(timer)
    const seconds = (performance.now() - start) / 1000
    await Promise.all(pending)
    return { writesPerSecond: sent / seconds, wrong }
  }
}

function ask(port) {
  return new Promise((resolve, reject) => {
    const script = fileURLToPath(new URL('open-loop.mjs', import.meta.url))
    const child = spawn(process.execPath, [script, String(port), String(route.rate), String(route.ms)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const kill = () => child.kill('SIGKILL')
    process.once('exit', kill)
    let text = ''
    child.stdout.on('data', (chunk) => (text += chunk))
    child.once('error', reject).once('close', (code) => {
      process.off('exit', kill)
      if (code === 0) resolve(JSON.parse(text))
      else reject(new Error(`open-loop.mjs ended with ${code}`))
    })
  })
}

/** An idle route of this process: alone, beside our durable writes, and beside the same writes sent to Redis. */
async function idleRoute(contenders) {
  const server = createServer((request, response) => response.end('ok'))
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  const modes = [
    { name: 'no writes' },
    ...contenders.map((store) => ({ name: `beside 1,000 writes/s, ${store.name}`, kind: store.kind, store })),
  ]
  const rounds = new Map(modes.map(({ name }) => [name, []]))
  try {
    for (let round = -1; round < route.rounds; round += 1) {
      for (const mode of shuffled(modes, random)) {
        const stop = mode.store === undefined ? async () => ({ writesPerSecond: 0, wrong: 0 }) : writing(mode.store)
        const answered = await ask(port)
        const written = await stop()
        if (round >= 0) rounds.get(mode.name).push({ ...answered, ...written })
      }
    }
  } finally {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  const rows = modes.map(({ name, kind }) => {
    const all = rounds.get(name)
    const of = (column) => median(all.map((one) => one[column]))
    return {
      name,
      kind,
      requests: all.reduce((sum, one) => sum + one.requests, 0),
      p50Ms: of('p50Ms'),
      p99Ms: of('p99Ms'),
      maxMs: of('maxMs'),
      writesPerSecond: of('writesPerSecond'),
      wrong: all.reduce((sum, one) => sum + one.failed + one.wrong, 0),
    }
  })
  for (const row of rows) row.p99AboveMs = row.p99Ms - rows[0].p99Ms
  const extra = { requests: ['requests'], maxMs: ['max ms', 2], writesPerSecond: ['writes/s', 0], p99AboveMs: ['p99 above ms', 2] }
  return {
    title: `idle HTTP route, asked ${route.rate} times a second from another process, latency from the instant it was due`,
    rows,
    text: table(rows, ['requests', 'p50Ms', 'p99Ms', 'maxMs', 'p99AboveMs', 'writesPerSecond', 'wrong'], extra),
  }
}

/** How much faster ours is than the fastest of the Redis clients in a section. */
function ahead({ rows }, of = (row) => row.kind === 'network') {
  const others = rows.filter((row) => row !== rows[0] && of(row))
  return others.length === 0 ? undefined : rows[0].opsPerSecond / Math.max(...others.map((row) => row.opsPerSecond))
}

function demandOf(text, ratio, least) {
  return ratio === undefined ? [] : [demand('G40', text, `${ratio.toFixed(2)} x`, least === 1 ? ratio > 1 : ratio >= least)]
}

try {
  const os = await stores('os')
  const fsync = await stores('fsync')
  const unkept = await redisStores('off', 'no AOF')
  const [uncached] = await opened(
    hapaxStore({ dir: join(dir, 'hapax-uncached'), durability: 'os', name: 'hapax os, no record cache', cacheBytes: 0 }),
  )
  const own = Array.from({ length: 128 * keysAWorker }, (_, index) => `u:${Math.floor(index / keysAWorker)}:${index % keysAWorker}`)
  for (const store of [...os, ...fsync, ...unkept]) await fill(store, own)
  const many = Array.from({ length: manyKeys }, (_, index) => `m:${index}`)
  const readers = [uncached, ...unkept, ...os.filter(({ name }) => /lmdb|sqlite/.test(name))]
  for (const store of readers) await fill(store, many)

  const sections = {
    get: await cell('get, record cache holds all', 'get', [os[0], ...unkept, ...os.slice(3)], inFlight),
    getMany: await cell(`get, no record cache, ${manyKeys} keys`, 'getMany', readers, inFlight),
    createOs: await cell('create, survives a killed process', 'create', [...os, ...unkept], inFlight),
    updateOs: await cell('update, survives a killed process', 'update', [...os, ...unkept], inFlight),
    updateIfOs: await cell('update if version (Redis: script), survives a killed process', 'updateIf', [...os, ...unkept], inFlight),
    createFsync: await cell('create, survives a power cut', 'create', fsync, inFlight),
    updateFsync: await cell('update, survives a power cut', 'update', fsync, inFlight),
    createFsync128: await cell('create, survives a power cut', 'create', fsync, 128),
    route: await idleRoute(fsync.filter(({ name }) => /hapax|ioredis/.test(name))),
  }
  const above = sections.route.rows.find(({ name }) => name.includes('hapax')).p99AboveMs
  const wrong = Object.values(sections).reduce(
    (sum, { rows }) => sum + rows[0].wrong + (rows[1]?.name.includes('hapax') ? rows[1].wrong : 0),
    0,
  )
  report('embedded', {
    settings,
    versionsUsed: versions(['rocksdb', 'ioredis', 'redis', 'lmdb', 'better-sqlite3'], { 'redis-server': version ?? 'absent' }),
    sections: Object.values(sections),
    demands: [
      ...demandOf('cached get ahead of both Redis clients', ahead(sections.get), 1),
      ...demandOf('create at os ahead of both Redis clients, AOF everysec or none', ahead(sections.createOs), 1),
      ...demandOf('update at os ahead of both Redis clients (SET XX), AOF everysec or none', ahead(sections.updateOs), 1),
      ...demandOf('update if version at os ahead of both Redis clients (script)', ahead(sections.updateIfOs), 1),
      ...demandOf(
        'create at fsync, 128 in flight, at least 0.6 of Redis appendfsync always through ioredis',
        ahead(sections.createFsync128, ({ name }) => name.startsWith('ioredis')),
        0.6,
      ),
      demand('G40', 'p99 of an idle route beside 1,000 durable writes/s at most 5 ms above', `${above.toFixed(2)} ms`, above <= 5),
      demand('G40', 'no wrong answer of ours', String(wrong), wrong === 0),
    ],
    notes,
  })
} finally {
  for (const close of closing.reverse()) await close()
  rmSync(dir, { recursive: true, force: true })
}
