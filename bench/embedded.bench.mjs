/**
 * The embedded store beside Redis, LMDB and SQLite (G40), and what durable writes do to an HTTP route of the same process.
 * Invariant: only what survives the same (a killed process, a power cut) is compared; each figure says whether a network lies between.
 * Why slices in turn: all contenders then share the machine's good and bad moments.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { contender } from './contender.mjs'
import { demand, interleaved, median, options, report, shuffled, table, versions } from './harness.mjs'
import { redisServer, redisVersion } from './redis.mjs'
import { valueBytes } from './stores.mjs'

const settings = options()
const { tiny, random, seed, ms } = settings
const inFlight = 64
const manyKeys = tiny ? 400 : 100_000
const route = { rate: 200, writesPerSecond: 1_000, ms: tiny ? 100 : 4_000, rounds: tiny ? 1 : 5 }

const closing = []
const notes = []
const dir = mkdtempSync(join(tmpdir(), 'hapax-bench-embedded-'))
const version = redisVersion()
if (version === undefined) notes.push('redis-server is not here: both Redis clients are left out')

/** A store is closed with the others at the end; one that cannot be had here leaves a note. */
async function opened(spec) {
  const made = await contender({ seed, many: manyKeys, ...spec })
  if (made.missing === undefined) closing.push(() => made.close())
  else if (!notes.includes(made.missing)) notes.push(made.missing)
  return made.missing === undefined ? [made] : []
}

async function redisStores(appendfsync, label) {
  if (version === undefined) return []
  const server = await redisServer(appendfsync)
  closing.push(() => server.close())
  return [...(await opened({ open: 'ioredisStore', server, label })), ...(await opened({ open: 'nodeRedisStore', server, label }))]
}

async function stores(durability) {
  const at = (name) => join(dir, `${name}-${durability}`)
  return {
    hapax: await opened({ open: 'hapaxStore', dir: at('hapax'), durability }),
    redis: await redisStores(durability === 'os' ? 'everysec' : 'always', durability === 'os' ? 'AOF everysec' : 'AOF always'),
    embedded: [
      ...(await opened({ open: 'lmdbStore', dir: at('lmdb'), durability })),
      ...(await opened({ open: 'sqliteStore', dir: at('sqlite'), durability })),
    ],
  }
}

async function cell(title, operation, contenders, callers) {
  const rows = await interleaved(
    contenders.map((store) => ({ name: store.name, kind: store.kind, run: () => store.slice(operation, { inFlight: callers, ms }) })),
    settings,
  )
  for (const row of rows) row.ratio = row.opsPerSecond / rows[0].opsPerSecond
  const shown = ['opsPerSecond', 'opsPerSecondMad', 'ratio', 'cpuUsPerOp', 'serverCpuUsPerOp', 'p50Ms', 'p99Ms', 'loopDelayP99Ms', 'wrong']
  console.error(`done: ${title}`)
  return { title: `${title}, ${callers} in flight, ${valueBytes} B`, rows, text: table(rows, shown) }
}

function ask(port) {
  return new Promise((resolve, reject) => {
    const script = fileURLToPath(new URL('open-loop.mjs', import.meta.url))
    const args = [script, String(port), String(route.rate), String(route.ms)]
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
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

/** An idle route of the store's own process: alone, and beside durable writes of that process. */
async function idleRoute(contenders) {
  const modes = []
  for (const store of contenders) {
    const port = await store.tell({ type: 'serve' })
    modes.push(
      { name: `${store.name}, no writes`, store, port, all: [] },
      { name: `${store.name}, 1,000 writes/s`, store, port, all: [], isWriting: true },
    )
  }
  for (let round = -1; round < route.rounds; round += 1) {
    for (const { store, port, all, isWriting } of shuffled(modes, random)) {
      if (isWriting) await store.tell({ type: 'write', rate: route.writesPerSecond })
      const answered = await ask(port)
      const written = isWriting ? await store.tell({ type: 'stop' }) : { writesPerSecond: 0, wrong: 0 }
      if (round >= 0) all.push({ ...answered, ...written })
    }
  }
  const rows = modes.map(({ name, store: { kind }, all }) => {
    const of = (column) => median(all.map((one) => one[column]))
    const sum = (column) => all.reduce((total, one) => total + one[column], 0)
    return {
      name,
      kind,
      requests: sum('requests'),
      p50Ms: of('p50Ms'),
      p99Ms: of('p99Ms'),
      maxMs: of('maxMs'),
      writesPerSecond: of('writesPerSecond'),
      wrong: sum('failed') + sum('wrong'),
    }
  })
  for (const [index, row] of rows.entries()) row.p99AboveMs = row.p99Ms - rows[index - (index % 2)].p99Ms
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
  const uncached = await opened({
    open: 'hapaxStore',
    dir: join(dir, 'hapax-uncached'),
    durability: 'os',
    name: 'hapax os, no record cache',
    cacheBytes: 0,
  })
  const allOs = [...os.hapax, ...os.redis, ...os.embedded, ...unkept]
  const allFsync = [...fsync.hapax, ...fsync.redis, ...fsync.embedded]
  const readers = [...uncached, ...unkept, ...os.embedded]
  for (const store of new Set([...allOs, ...allFsync, ...uncached])) await store.tell({ type: 'fill', hasMany: readers.includes(store) })

  const sections = {
    get: await cell('get, record cache holds all', 'get', [...os.hapax, ...unkept, ...os.embedded], inFlight),
    getMany: await cell(`get, no record cache, ${manyKeys} keys`, 'getMany', readers, inFlight),
    createOs: await cell('create, survives a killed process', 'create', allOs, inFlight),
    updateOs: await cell('update, survives a killed process', 'update', allOs, inFlight),
    updateIfOs: await cell('update if version (Redis: script), survives a killed process', 'updateIf', allOs, inFlight),
    createFsync: await cell('create, survives a power cut', 'create', allFsync, inFlight),
    updateFsync: await cell('update, survives a power cut', 'update', allFsync, inFlight),
    createFsync128: await cell('create, survives a power cut', 'create', allFsync, 128),
    route: await idleRoute([...fsync.hapax, ...fsync.redis.slice(0, 1)]),
  }
  const above = sections.route.rows[1].p99AboveMs
  const mine = Object.values(sections).flatMap(({ rows }) => rows.filter(({ name }) => name.startsWith('hapax')))
  const wrong = mine.reduce((sum, row) => sum + row.wrong, 0)
  const kept = ({ name }) => name.includes('AOF everysec')
  const unkeptRow = ({ name }) => name.includes('no AOF')
  report('embedded', {
    settings,
    versionsUsed: versions(['rocksdb', 'ioredis', 'redis', 'lmdb', 'better-sqlite3'], { 'redis-server': version ?? 'absent' }),
    sections: Object.values(sections),
    demands: [
      ...demandOf('cached get ahead of both Redis clients', ahead(sections.get), 1),
      ...[
        ['create', sections.createOs],
        ['update (SET XX)', sections.updateOs],
        ['update if version (script)', sections.updateIfOs],
      ].flatMap(([verb, section]) => [
        ...demandOf(`${verb} at os ahead of both Redis clients, AOF everysec`, ahead(section, kept), 1),
        ...demandOf(`${verb} at os ahead of both Redis clients, no AOF (survives nothing)`, ahead(section, unkeptRow), 1),
      ]),
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
