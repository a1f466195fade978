/**
 * A cluster of three zones on this machine, beside Redis and beside what a real JunoDB did on the same kind of machine (W40 to W48).
 * Invariant: servers, clients and peers share the cores; each row says what its servers took of them, so a figure can be had for more cores.
 * Why all run at once: the cores of a small machine are never quiet, and only slices of the same minutes can be compared.
 */
import { mkdtempSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { demand, interleaved, options, report, table, versions } from './harness.mjs'
import { asking, fill, ioredisClient, junoFrames, keysOf, nodeRedisClient, ownClient, withCpu } from './cluster-load.mjs'
import { hotKey, openLoop, strangers } from './cluster-events.mjs'
import { profilesIn, startCluster } from './cluster-processes.mjs'
import { forget, whereItGoes } from './cluster-profile.mjs'
import { redisServer, redisVersion } from './redis.mjs'

const settings = options()
const { tiny, ms, random, only } = settings
const inFlight = 128
const keys = keysOf(tiny ? 200 : 10_000, random)
const processCounts = tiny ? [1, 2] : [1, 2, 4]
const coresOfScale = 32
/** W46: --minutes 5 is what is asked for. */
const openLoopMs = tiny ? 500 : (settings.minutes ?? 0.5) * 60_000
const openLoopRate = tiny ? 100 : 1_000
const crowd = tiny ? { idle: 50, slow: 10 } : { idle: 10_000, slow: 1_000 }
const writersOfOneKey = 64
/** A real JunoDB: three storage servers, one proxy, its log never synced, on two cores, 128 in flight; the middle of what it did. */
const juno = { reads: 19_500, writes: 10_000, readUs: 100, writeUs: 200 }

const shown = [
  'opsPerSecond',
  'opsPerSecondMad',
  'cpuUsPerOp',
  'serverCpuUsPerOp',
  'proxyUsPerOp',
  'storageUsPerOp',
  'p50Ms',
  'p99Ms',
  'wrong',
]
const extra = {
  proxyUsPerOp: ['proxy us/op', 1],
  storageUsPerOp: ['storage us/op', 1],
  share: ['% of busy', 1],
  p999Ms: ['p99.9 ms', 2],
  maxMs: ['max ms', 1],
  lagMs: ['generator late ms', 1],
}
const closing = []
const opened = (one) => {
  closing.push(() => one.close())
  return one
}
const wants = (part) => only === undefined || only.split(',').includes(part)
const section = (title, rows, columns = shown) => ({ title, rows, text: table(rows, columns, extra) })
const run = async (contenders) => withCpu(await interleaved(contenders, settings), contenders)
const named = (rows, name) => rows.find((row) => row.name === name)
const perSecond = (value) => `${Math.round(value).toLocaleString('en')}/s`

async function cluster(options) {
  const servers = opened(await startCluster(options))
  const client = opened(await ownClient(servers))
  await fill(keys, client.set)
  return { servers, client }
}

async function peers() {
  if (redisVersion() === undefined) return []
  const found = []
  for (const appendfsync of ['off', 'always']) {
    const servers = opened(await redisServer(appendfsync))
    for (const [name, open] of [
      ['ioredis autopipelining', ioredisClient],
      ['node-redis', nodeRedisClient],
    ]) {
      const client = opened(await open(servers))
      await fill(keys, client.set)
      found.push({ name, appendfsync, servers, client })
    }
  }
  return found
}

const sections = []
const demands = []
const met = (number, text, figure, holds) => demands.push(demand(number, text, figure, holds))
const kindOf = { os: 'three replicas, os', fsync: 'three replicas, fsync' }

/** W40, W43: everything that can be asked at once, in the same rounds. */
async function throughput({ os, fsync, frames, redis }) {
  const base = { keys, inFlight, ms }
  const redisOf = (verb, wanted) =>
    redis
      .filter(({ appendfsync }) => wanted.includes(appendfsync))
      .map(({ name, appendfsync, servers, client }) =>
        asking({ ...base, name: `${name}, Redis ${appendfsync}`, kind: `one copy, AOF ${appendfsync}`, verb, client, servers }),
      )
  const own = (verb, durability, { servers, client }, at = inFlight) =>
    asking({ ...base, name: `hapax ${durability}, ${at} in flight`, kind: kindOf[durability], verb, client, servers, inFlight: at })
  const plain = (verb) => asking({ ...base, name: 'hapax os, JunoDB frames', kind: kindOf.os, verb, client: frames, servers: os.servers })
  const reads = await run([own('get', 'os', os), own('get', 'os', os, 256), plain('get'), ...redisOf('get', ['off'])])
  sections.push(section(`reads of ${keys.keys.length.toLocaleString('en')} hot keys of 200 B`, reads))
  const writes = await run([
    own('set', 'os', os, 64),
    own('set', 'os', os),
    own('set', 'os', os, 256),
    own('set', 'fsync', fsync),
    own('set', 'fsync', fsync, 256),
    plain('set'),
    ...redisOf('set', ['off', 'always']),
  ])
  sections.push(section('writes of 200 B', writes))

  const best = (rows, start) => Math.max(...rows.filter(({ name }) => name.startsWith(start)).map(({ opsPerSecond }) => opsPerSecond))
  const own128 = (rows, durability) => best(rows, `hapax ${durability}, `)
  const figure = (text, value, least) => met('W40', `${text} at least ${perSecond(least)}`, perSecond(value), value >= least)
  figure('hot reads', own128(reads, 'os'), 70_000)
  figure(
    'writes at os',
    best(
      writes.filter(({ name }) => !name.includes('JunoDB')),
      'hapax os',
    ),
    20_000,
  )
  figure('writes at fsync', own128(writes, 'fsync'), 18_000)
  const [read, write] = [named(reads, 'hapax os, JunoDB frames'), named(writes, 'hapax os, JunoDB frames')]
  const times = (value) => `${value.toFixed(2)} x`
  met(
    'W40',
    "through JunoDB's frames at least 3 times its reads",
    times(read.opsPerSecond / juno.reads),
    read.opsPerSecond >= 3 * juno.reads,
  )
  met(
    'W40',
    "through JunoDB's frames at least 2 times its writes",
    times(write.opsPerSecond / juno.writes),
    write.opsPerSecond >= 2 * juno.writes,
  )
  const cpu = (row, theirs) => `${row.serverCpuUsPerOp.toFixed(1)} us, ${times(row.serverCpuUsPerOp / theirs)}`
  met('W40', "a third of its servers' CPU a read", cpu(read, juno.readUs), read.serverCpuUsPerOp <= juno.readUs / 3)
  met('W40', "half of its servers' CPU a write", cpu(write, juno.writeUs), write.serverCpuUsPerOp <= juno.writeUs / 2)
  if (redis.length === 0) return
  const bestRedis = (rows, kind) => Math.max(...rows.filter((row) => row.kind === kind).map(({ opsPerSecond }) => opsPerSecond))
  const ahead = own128(reads, 'os') / bestRedis(reads, 'one copy, AOF off')
  met('W43', 'ahead of Redis on reads', times(ahead), ahead > 1)
  const durable = own128(writes, 'fsync') / bestRedis(writes, 'one copy, AOF always')
  met('W43', 'writes at fsync at least half of appendfsync always', times(durable), durable >= 0.5)
}

/** W41: one call at a time. */
async function unloaded({ os, fsync, redis }) {
  const base = { keys, inFlight: 1, ms }
  const rows = await run([
    asking({ ...base, name: 'hapax get', kind: kindOf.os, verb: 'get', ...os }),
    asking({ ...base, name: 'hapax set, os', kind: kindOf.os, verb: 'set', ...os }),
    asking({ ...base, name: 'hapax set, fsync', kind: kindOf.fsync, verb: 'set', ...fsync }),
    ...redis
      .filter(({ name }) => name.startsWith('ioredis'))
      .flatMap(({ appendfsync, servers, client }) =>
        (appendfsync === 'off' ? ['get', 'set'] : ['set']).map((verb) =>
          asking({ ...base, name: `ioredis ${verb}, Redis ${appendfsync}`, kind: `one copy, AOF ${appendfsync}`, verb, client, servers }),
        ),
      ),
  ])
  sections.push(section('one call at a time', rows))
  for (const [name, most] of [
    ['hapax get', 0.4],
    ['hapax set, os', 0.5],
    ['hapax set, fsync', 1.5],
  ]) {
    const { p50Ms } = named(rows, name)
    met('W41', `${name}, unloaded p50 at most ${most} ms`, `${p50Ms.toFixed(2)} ms`, p50Ms <= most)
  }
}

/** W42: what a request costs with more processes, which on these cores cannot be faster, and what that is on many. */
async function scale(first) {
  const contenders = { get: [], set: [] }
  for (const count of processCounts) {
    const { servers, client } = count === 1 ? first : await cluster({ proxies: count, servers: count })
    for (const verb of ['get', 'set'])
      contenders[verb].push(
        asking({
          name: `${verb}, ${count} proxies, ${3 * count} storage`,
          kind: kindOf.os,
          verb,
          client,
          servers,
          keys,
          inFlight: 256,
          ms,
        }),
      )
  }
  for (const [verb, theirs] of [
    ['get', 'reads'],
    ['set', 'writes'],
  ]) {
    const rows = await run(contenders[verb])
    for (const row of rows) row.on32 = (coresOfScale * 1e6) / row.serverCpuUsPerOp
    const columns = [...shown, 'on32']
    sections.push({
      title: `${theirs} with more processes, os`,
      rows,
      text: table(rows, columns, { ...extra, on32: ['servers alone on 32 cores', 0] }),
    })
    const most = rows.at(-1).on32
    met('W42', `${theirs} on 32 cores beyond JunoDB's 80,000/s, by the servers' CPU an operation`, perSecond(most), most > 80_000)
  }
}

/** W42: a profile of each role, in a cluster of its own, since profiling costs. */
async function profile() {
  for (const verb of ['get', 'set']) {
    const folder = mkdtempSync(join(tmpdir(), 'hapax-bench-profile-'))
    try {
      const servers = await startCluster({ profile: folder })
      const client = await ownClient(servers)
      await fill(keys, client.set)
      const one = asking({ name: verb, verb, client, servers, keys, inFlight, ms: tiny ? ms : 3_000 })
      await one.run()
      await client.close()
      await servers.close()
      for (const role of ['proxy', 'storage']) {
        const { byRoom, byFunction } = whereItGoes(profilesIn(folder).filter(({ file }) => file.startsWith(role)))
        sections.push(section(`where the CPU of the ${role} goes, ${verb}: by part`, byRoom, ['share']))
        sections.push(section(`where the CPU of the ${role} goes, ${verb}: by function`, byFunction, ['share']))
      }
    } finally {
      forget(folder)
    }
  }
}

/** W44: beside the same cluster in the clear. */
async function secure({ os }) {
  const safe = await cluster({ secure: true })
  for (const [verb, least] of [
    ['get', 0.5],
    ['set', 0.6],
  ]) {
    const base = { verb, keys, inFlight, ms, kind: kindOf.os }
    const rows = await run([
      asking({ ...base, name: 'in the clear', ...os }),
      asking({ ...base, name: 'TLS and encryption at rest', ...safe }),
    ])
    for (const row of rows) row.ratio = row.opsPerSecond / rows[0].opsPerSecond
    sections.push(section(`${verb} with TLS and encryption at rest`, rows, ['opsPerSecond', 'ratio', ...shown.slice(2)]))
    met(
      'W44',
      `${verb} with TLS and encryption at rest at least ${least} of plain`,
      `${rows[1].ratio.toFixed(2)} x`,
      rows[1].ratio >= least,
    )
  }
}

/** W46, W47: what comes at a fixed rate, alone and in a crowd. */
async function atRate() {
  const { servers, client } = await cluster({ durability: 'os' })
  const loop = (name) => openLoop(name, client, keys, { rate: openLoopRate, ms: openLoopMs })
  const alone = await loop('alone')
  const others = await strangers(servers.proxyAddresses[0], crowd)
  const crowded = await loop('in a crowd')
  crowded.closed = others.closed()
  others.end()
  const columns = ['requests', 'bad', 'wrong', 'p50Ms', 'p99Ms', 'p999Ms', 'maxMs', 'lagMs', 'closed']
  const title = `half reads, half writes at ${openLoopRate}/s for ${openLoopMs / 1_000} s; alone, and beside ${crowd.idle} idle and ${crowd.slow} slow connections`
  sections.push(section(title, [alone, crowded], columns))
  const ofRun = ({ isVoid }, text) => (isVoid ? `void, the generator was late: ${text}` : text)
  const figure = `${alone.bad} bad of ${alone.requests}, p99 ${alone.p99Ms.toFixed(1)} ms`
  met('W46', '0 bad, p99 at most 15 ms', ofRun(alone, figure), !alone.isVoid && alone.bad === 0 && alone.p99Ms <= 15)
  const ratio = crowded.p99Ms / alone.p99Ms
  const isVoid = alone.isVoid || crowded.isVoid
  met(
    'W47',
    'p99 of the good at most 1.5 times in a crowd',
    ofRun({ isVoid }, `${ratio.toFixed(2)} x, ${crowded.bad} bad`),
    !isVoid && ratio <= 1.5,
  )
}

/** W48: one key that everybody writes. */
async function oneKey({ os }) {
  const contenders = await hotKey(os.client, { inFlight: writersOfOneKey, ms })
  const rows = await interleaved(contenders, settings)
  for (const row of rows) row.refused = contenders.find(({ name }) => name === row.name).refused
  sections.push(
    section(`one key, ${writersOfOneKey} writers: increments`, rows, [
      'opsPerSecond',
      'opsPerSecondMad',
      'refused',
      'p50Ms',
      'p99Ms',
      'wrong',
    ]),
  )
  for (const { name, opsPerSecond, refused } of rows)
    met(
      'W48',
      `${name}: 500 increments/s, 0 refused`,
      `${perSecond(opsPerSecond)}, ${refused} refused`,
      opsPerSecond >= 500 && refused === 0,
    )
}

const version = redisVersion()
const [loadBefore] = loadavg()
try {
  const os = await cluster({ durability: 'os' })
  const fsync = await cluster({ durability: 'fsync' })
  const frames = opened(await junoFrames(os.servers))
  const all = { os, fsync, frames, redis: await peers() }
  if (wants('throughput')) await throughput(all)
  if (wants('unloaded')) await unloaded(all)
  if (wants('secure')) await secure(all)
  if (wants('hot')) await oneKey(all)
  if (wants('rate')) await atRate()
  if (wants('scale')) await scale(os)
  if (wants('profile')) await profile()
  report('cluster', {
    settings,
    versionsUsed: versions(['rocksdb', 'ioredis', 'redis'], { 'redis-server': version ?? 'absent' }),
    sections,
    demands,
    notes: [
      `before the run the load of this machine was ${loadBefore.toFixed(1)}: beyond 0.5 others took a part of the cores, and rates say less than CPU an operation.`,
      'all rows: clients, proxies, storage servers and Redis on the same cores. hapax: one proxy, three storage servers, RocksDB, three replicas of each value.',
      'server us/op: the CPU of all its servers, of /proc/PID/stat. CPU us/op: of this process, client and harness.',
      `JunoDB's figures are not of this run: ${juno.reads.toLocaleString('en')} reads/s and ${juno.writes.toLocaleString('en')} writes/s, ${juno.readUs} and ${juno.writeUs} us of its servers' CPU, measured on such a machine.`,
      "on 32 cores: 32 s of CPU a second over the servers' CPU an operation, the clients elsewhere; a bound, not a measurement.",
      ...(version === undefined ? ['redis-server is not here: that part is left out'] : []),
    ],
  })
} finally {
  for (const close of closing.reverse()) await close()
}
process.exit(0)
