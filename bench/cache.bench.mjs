/**
 * A cache's hit in memory, its stampede over four processes and its invalidation against a loader, beside the libraries that there are (P41).
 * Invariant: speed and answers come from the same use of each library, so what is fast because it is wrong is seen to be.
 * Why a hundred hits an operation: one takes less than reading the clock does.
 */
import { Redis } from 'ioredis'
import { peers } from './cache-peers.mjs'
import { answerOf, cacheProcesses, loadsOf } from './cache-process.mjs'
import { staleReads, undefinedAnswer } from './cache-scenarios.mjs'
import { demand, interleaved, median, options, report, shuffled, slice, table, versions } from './harness.mjs'
import { redisServer, redisVersion } from './redis.mjs'

const settings = options()
const { tiny, ms, random, seed } = settings
const keys = Array.from({ length: 1_000 }, (_, number) => `user:${number}`)
const hitsAnOp = 100
const inFlight = 16
const processes = 4
const readers = 500
const coldKeys = tiny ? 2 : 20
const loadMs = 50
const invalidations = tiny ? 2_000 : 100_000
const invalidationsInTwo = tiny ? 300 : 5_000
/** Longer than a message bus takes, and than our own first level may be behind. */
const settleMs = 1_500

/** Hits of random keys that are all there. What comes back is looked at, and a loader that runs is a fault. */
async function hitting(peer) {
  let isWarm = false
  const cache = await peer.memory(async (key) => {
    if (isWarm) throw new Error(`${peer.name} loaded ${key} again`)
    return answerOf(key)
  }, {})
  for (const key of keys) await cache.get(key)
  isWarm = true
  const order = Uint16Array.from({ length: 8_192 }, () => Math.floor(random() * keys.length))
  let at = 0
  const op = async () => {
    let right = true
    for (let hit = 0; hit < hitsAnOp; hit += 1) {
      const key = keys[order[(at = (at + 1) & 8_191)]]
      const value = await cache.get(key)
      right &&= value.id === key
    }
    return right
  }
  return { name: peer.name, kind: peer.kind, run: async () => perHit(await slice({ op, inFlight, ms })), close: cache.close }
}
const perHit = (one) => ({
  ...one,
  ops: one.ops * hitsAnOp,
  opsPerSecond: one.opsPerSecond * hitsAnOp,
  cpuUsPerOp: one.cpuUsPerOp / hitsAnOp,
})

/** The loop without a cache: an await and a look at the answer. */
const answers = new Map(keys.map((key) => [key, answerOf(key)]))
const loopAlone = { name: 'a Map, awaited', kind: 'no cache', memory: () => ({ get: async (key) => answers.get(key) }) }

const hitters = await Promise.all([...peers, loopAlone].map(hitting))
const hits = await interleaved(hitters, settings)
for (const { close } of hitters) await close?.()
const lruHit = hits.find(({ name }) => name === 'lru-cache fetch')
for (const row of hits) Object.assign(row, { ratio: row.cpuUsPerOp / lruHit.cpuUsPerOp, hitNs: row.cpuUsPerOp * 1_000 })

/** Everybody in turn, in another order for each cold key. */
async function stampedes(port) {
  const counter = new Redis({ host: '127.0.0.1', port })
  const group = await cacheProcesses({ count: processes, port })
  const seen = new Map(main.map(({ name }) => [name, []]))
  try {
    for (const { name } of main) await group.prepare(name)
    for (let round = 0; round < coldKeys; round += 1) {
      for (const { name } of shuffled(main, random)) {
        const key = `${name} ${round}`
        const saw = await group.stampede({ name, key, readers, loadMs })
        seen.get(name).push({ loads: Number(await counter.get(loadsOf(key))), saw })
      }
    }
  } finally {
    await group.close()
    counter.disconnect()
  }
  return main.map(({ name, secondLevel }) => {
    const all = seen.get(name)
    const sum = (column) => all.flatMap(({ saw }) => saw).reduce((total, one) => total + one[column], 0)
    const loads = all.map((one) => one.loads)
    return {
      name,
      kind: secondLevel ?? 'memory alone',
      coldKeys,
      loads: median(loads),
      loadsMax: Math.max(...loads),
      answered: sum('right'),
      unanswered: sum('threw'),
      wrong: sum('wrong'),
      allAfterMs: median(all.map(({ saw }) => Math.max(...saw.map(({ tookMs }) => tookMs)))),
    }
  })
}

/** Two processes' caches on one second level: one reads, the other invalidates. */
const twoProcesses = (peer, port) => async (load) => [await peer.shared(load, { port }), await peer.shared(load, { port })]
const oneProcess = (peer) => async (load, context) => {
  const cache = await peer.memory(load, context)
  return [cache, cache]
}

const version = redisVersion()
const main = peers.filter(({ isMain }) => isMain)
let herd = []
let staleInTwo = []
if (version !== undefined) {
  const server = await redisServer('off')
  try {
    herd = await stampedes(server.port)
    const inTwo = peers.filter(({ isMain, isInTwo, shared }) => (isMain || isInTwo) && shared !== undefined)
    const judged = inTwo.map(async (peer) => {
      const seen = await staleReads(peer.name, twoProcesses(peer, server.port), { count: invalidationsInTwo, seed, settleMs })
      return { name: peer.name, kind: peer.secondLevel, ...seen }
    })
    staleInTwo = await Promise.all(judged)
  } finally {
    await server.close()
  }
}

const stale = []
const undefineds = []
for (const peer of peers) {
  stale.push({ name: peer.name, ...(await staleReads(peer.name, oneProcess(peer), { count: invalidations, seed })) })
  undefineds.push({ name: peer.name, ...(await undefinedAnswer(peer)) })
}

const extra = {
  hitNs: ['ns a hit', 0],
  ratio: ['to lru-cache', 2],
  coldKeys: ['cold keys', 0],
  loads: ['loads a key', 1],
  loadsMax: ['most', 0],
  allAfterMs: ['all after ms', 0],
  raced: ['met a loader', 0],
  staleAtOnce: ['stale at once', 0],
  staleAfter: ['after the load', 0],
  staleForLong: [`after ${settleMs} ms`, 0],
  staleReads: ['stale reads', 0],
  answer: ['the caller gets'],
}
const staleColumns = ['invalidations', 'raced', 'staleAtOnce', 'staleAfter', 'staleReads']
const undefinedColumns = ['answer', 'loads']
const herdColumns = ['coldKeys', 'loads', 'loadsMax', 'answered', 'unanswered', 'wrong', 'allAfterMs']
const ownHit = hits[0]
const others = hits.filter(({ name, kind }) => !/^(hapax|lru-cache)/.test(name) && kind === undefined)
const fastest = others.reduce((best, row) => (row.cpuUsPerOp < best.cpuUsPerOp ? row : best))
const [ownStale] = stale
const inTwo = (name) => staleInTwo.find((row) => row.name === name)
const section = (title, rows, columns) => ({ title, rows, text: table(rows, columns, extra) })
report('cache', {
  settings,
  versionsUsed: versions(
    ['bentocache', 'cacheable', 'cache-manager', 'async-cache-dedupe', '@epic-web/cachified', 'lru-cache', 'ioredis'],
    {
      'redis-server': version ?? 'absent',
    },
  ),
  sections: [
    section(`a hit in memory, ${keys.length} keys`, hits, ['hitNs', 'ratio', 'opsPerSecond', 'opsPerSecondMad', 'loopDelayP99Ms', 'wrong']),
    ...(version === undefined
      ? []
      : [section(`stampede: ${processes} processes x ${readers} readers on a cold key, a load takes ${loadMs} ms`, herd, herdColumns)]),
    section('invalidations that meet a loader, one process', stale, [...staleColumns, 'unanswered']),
    ...(version === undefined
      ? []
      : [
          section('the same, one process reads and another invalidates, over Redis', staleInTwo, [
            ...staleColumns,
            'staleForLong',
            'unanswered',
          ]),
        ]),
    section('three reads whose loader answers undefined', undefineds, undefinedColumns),
  ],
  demands: [
    demand(
      'P41',
      'a hit ahead of all but lru-cache',
      `${ownHit.hitNs.toFixed(0)} ns, ${fastest.name} ${fastest.hitNs.toFixed(0)} ns`,
      ownHit.hitNs < fastest.hitNs,
    ),
    demand('P41', 'a hit within 2 times of lru-cache fetch', `${ownHit.ratio.toFixed(2)} x`, ownHit.ratio <= 2),
    ...(version === undefined
      ? []
      : [
          demand('P41', `${processes} processes x ${readers} readers: 1 load`, `at most ${herd[0].loadsMax}`, herd[0].loadsMax === 1),
          demand(
            'P41',
            'two processes: nothing stale beyond fresh, nothing at all with fresh: 0',
            `${inTwo('hapax').staleForLong} and ${inTwo('hapax, fresh: 0').staleReads}`,
            inTwo('hapax').staleForLong === 0 && inTwo('hapax, fresh: 0').staleReads === 0,
          ),
        ]),
    demand(
      'P41',
      `${invalidations.toLocaleString('en')} invalidations: 0 stale reads`,
      String(ownStale.staleReads),
      ownStale.staleReads === 0 && ownStale.unanswered === 0,
    ),
  ],
  notes: [
    'all six have an invalidation of one key, so nobody is left out; lru-cache has no second level: in the stampede it is memory alone, and it has no row with two processes.',
    'unanswered: lru-cache fetch rejects the readers whose load an invalidation took away, unless ignoreFetchAbort says otherwise.',
    'two processes: the first level of hapax may be behind for `fresh`, 1 s by default; what is stale within it is counted all the same.',
    'Keyv (cacheable, cache-manager) and cachified reach Redis through adapters of this folder over ioredis; cacheable has no message bus here.',
    ...(version === undefined ? ['redis-server is not here: the stampede and two processes are left out'] : []),
  ],
})
/** A library may have timers that nobody can end. */
process.exit(0)
