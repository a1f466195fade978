/**
 * One key that 400 callers count on, in one process and in four, over a real Redis, beside its own INCR (P42); then what a key costs.
 * Invariant: over all processes the numbers given must be 1, 2, 3 ... each once, and the last value the number of adds; else it counts as wrong.
 * Why INCR is the measure: it is the cheapest counter a Node program can have over the network. It is not retry-safe, and the second table shows it.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { bytesInMemory, bytesOnRedis } from './bytes-peers.mjs'
import { counterProcess } from './counter-process.mjs'
import { columnsBesideServer, demand, hapax, interleaved, median, options, report, table, versions } from './harness.mjs'
import { callsOf, commandsSent, usedMemory } from './redis-counts.mjs'
import { redisServer, redisVersion } from './redis.mjs'

const settings = options()
const { tiny, ms, seed } = settings
const callers = 400
const fleets = [1, 4]
const contenders = ['hapax counter', 'hapax counter, autopipelining', 'INCR', 'INCR, autopipelining']
/** With faults: in all, and in flight in each process. */
const faultyAdds = tiny ? 400 : 4_000
const faultyInFlight = 5
const heldKeys = tiny ? 2_000 : 1_000_000
/** Long enough to write a million keys. */
const ttlMs = tiny ? 2_500 : 120_000
/** Commands in flight while keys are written. */
const fillAtOnce = 500

const closing = []

/** One slice of a fleet: sums of what each did at the same time, weighed by its operations. */
function together(slices, before, after, serverUs) {
  const ops = slices.reduce((sum, one) => sum + one.ops, 0)
  const of = (column) => slices.map((one) => one[column])
  const sum = (column) => of(column).reduce((total, value) => total + value, 0)
  const opsInAll = sum('opsInAll')
  const numbers = ((before + 1 + after) * (after - before)) / 2
  return {
    ops,
    opsInAll,
    wrong: sum('wrong') + (after - before === opsInAll ? 0 : Math.abs(after - before - opsInAll)) + (sum('sum') === numbers ? 0 : 1),
    opsPerSecond: sum('opsPerSecond'),
    cpuUsPerOp: slices.reduce((total, one) => total + one.cpuUsPerOp * one.ops, 0) / ops,
    serverCpuUsPerOp: serverUs / opsInAll,
    p50Ms: median(of('p50Ms')),
    p99Ms: Math.max(...of('p99Ms')),
    loopDelayP99Ms: Math.max(...of('loopDelayP99Ms')),
  }
}

async function fleetRows({ size, server, admin, valueOf }) {
  const fleet = Array.from({ length: size }, () => counterProcess())
  closing.push(...fleet.map((tell) => tell.close))
  await Promise.all(fleet.map((tell, index) => tell('open', { port: server.port, seed: seed + index })))
  const rows = []
  const perOp = new Map(contenders.map((name) => [name, []]))
  const running = []
  for (const name of contenders) {
    const slices = (inFlight, length) => Promise.all(fleet.map((tell) => tell('slice', { name, inFlight, ms: length })))
    const commands = await commandsSent(server, admin, () => slices(1, 10))
    const calls = await callsOf(admin, commands)
    running.push({
      name,
      kind: name.startsWith('INCR') ? 'no retry' : 'retry-safe',
      run: async () => {
        const before = await valueOf(name)
        await calls()
        const cpuBefore = server.serverCpu()
        const done = await slices(callers / size, ms)
        const one = together(done, before, await valueOf(name), server.serverCpu() - cpuBefore)
        perOp.get(name).push((await calls()) / one.opsInAll)
        return one
      },
    })
  }
  rows.push(...(await interleaved(running, settings)))
  for (const row of rows) {
    row.storeCallsPerOp = Math.max(...perOp.get(row.name))
    row.ratio = row.opsPerSecond / Math.max(...rows.filter(({ name }) => name.startsWith('INCR')).map(({ opsPerSecond }) => opsPerSecond))
  }
  return { rows, fleet }
}

/** Each caller repeats what got no answer, under the same id, until it has one. */
async function exactness(fleet, readers) {
  const rows = []
  for (const [name, read] of Object.entries(readers)) {
    const count = faultyAdds / fleet.length
    const told = await Promise.all(fleet.map((tell) => tell('insist', { name, count, inFlight: faultyInFlight })))
    const sum = (column) => told.reduce((total, one) => total + one[column], 0)
    const value = await read()
    rows.push({
      name: name === 'INCR' ? 'INCR, repeated' : `${name}, requestId`,
      adds: faultyAdds,
      attempts: sum('attempts'),
      unknownAfter: sum('unknownAfter'),
      unknownLater: sum('unknownLater'),
      value,
      off: value - faultyAdds,
    })
  }
  return rows
}

/** The keys of all are written one library after the other; then all wait for the end of their keys together. */
async function bytesRows() {
  const notes = []
  /** Nothing to weigh, when the first key has gone before the last one is written. */
  const weighed = (name, started, all) => {
    if (Date.now() - started < ttlMs) return all
    notes.push(`${name} took longer to write ${heldKeys.toLocaleString('en')} keys than they live: they were not weighed`)
    return undefined
  }
  /** Some libraries look two windows back. */
  const expiredAt = () => Date.now() + 2 * ttlMs + 2_000
  const inProcess = []
  for (const { name } of bytesInMemory) {
    const tell = counterProcess()
    closing.push(tell.close)
    const started = Date.now()
    const living = await tell('fill', { name, keys: heldKeys, ttlMs })
    inProcess.push({ name, tell, living: weighed(name, started, living), at: expiredAt() })
  }
  const served = []
  for (const { name, open } of redisVersion() === undefined ? [] : bytesOnRedis) {
    const server = await redisServer('off')
    const client = new Redis({ host: '127.0.0.1', port: server.port, enableAutoPipelining: true })
    closing.push(async () => {
      client.disconnect()
      await server.close()
    })
    const limiter = await open(ttlMs, client)
    await limiter.take('warm')
    const before = await usedMemory(client)
    const started = Date.now()
    for (let from = 0; from < heldKeys; from += fillAtOnce) {
      await Promise.all(Array.from({ length: Math.min(fillAtOnce, heldKeys - from) }, (_, index) => limiter.take(`client-${from + index}`)))
    }
    const living = weighed(`${name} on Redis`, started, (await usedMemory(client)) - before)
    served.push({ name, client, server, before, living, at: expiredAt() })
  }
  const rows = { inProcess: [], served: [], notes }
  const aKey = (all) => (all === undefined ? undefined : all / heldKeys)
  for (const { name, tell, living, at } of inProcess) {
    await pause(Math.max(0, at - Date.now()))
    const expired = await tell('held')
    const again = await tell('again', { keys: heldKeys })
    await tell.close()
    rows.inProcess.push({ name, bytesAKey: aKey(living), bytesExpired: aKey(expired), bytesAgain: aKey(again) })
  }
  for (const { name, client, server, before, living, at } of served) {
    await pause(Math.max(0, at - Date.now()))
    const [expired, left] = [(await usedMemory(client)) - before, await client.dbsize()]
    client.disconnect()
    await server.close()
    rows.served.push({ name, bytesAKey: aKey(living), bytesExpired: aKey(expired), keysLeft: left })
  }
  return rows
}

const extra = {
  adds: ['adds', 0],
  attempts: ['attempts', 0],
  unknownAfter: ['lost after apply', 0],
  unknownLater: ['applied later', 0],
  value: ['value', 0],
  off: ['off by', 0],
  bytesAKey: ['B a key', 0],
  bytesExpired: ['expired, idle', 1],
  bytesAgain: ['and as many new keys', 0],
  keysLeft: ['keys left', 0],
}

const version = redisVersion()
const [sections, demands] = [[], []]
try {
  if (version !== undefined) {
    const server = await redisServer('off')
    closing.push(() => server.close())
    const admin = new Redis({ host: '127.0.0.1', port: server.port })
    closing.push(() => admin.disconnect())
    const { counter } = await hapax('patterns/counters/index.js')
    const { redisKv } = await hapax('core/stores/redis.js')
    const ours = (name, more = {}) => {
      const hits = counter({ kv: redisKv(admin), name, ...more })
      return async () => (await hits.get('hot')).value
    }
    const incr = (key) => async () => Number((await admin.get(key)) ?? 0)
    const readers = {
      'hapax counter': ours('plain'),
      'hapax counter, autopipelining': ours('piped'),
      INCR: incr('incr'),
      'INCR, autopipelining': incr('incr-piped'),
    }
    for (const size of fleets) {
      const { rows, fleet } = await fleetRows({ size, server, admin, valueOf: (name) => readers[name]() })
      sections.push({
        title: `one key on Redis, ${callers} callers in ${size} ${size === 1 ? 'process' : 'processes'}; ratio to the faster INCR`,
        rows,
        text: table(rows, columnsBesideServer),
      })
      const ratio = Math.max(...rows.filter(({ name }) => name.startsWith('hapax')).map((row) => row.ratio))
      demands.push(
        demand('P42', `more a second than INCR, ${size} ${size === 1 ? 'process' : 'processes'}`, `${ratio.toFixed(2)} x`, ratio > 1),
      )
      if (size > 1) {
        const exact = await exactness(fleet, {
          'hapax counter': ours('safe', { remember: '10m', requestsMax: 4_096 }),
          INCR: incr('incr-safe'),
        })
        sections.push({
          title: `delays, duplicates and lost answers, ${size} processes: the value after ${faultyAdds.toLocaleString('en')} adds, each repeated until it was answered`,
          rows: exact,
          text: table(exact, ['adds', 'attempts', 'unknownAfter', 'unknownLater', 'value', 'off'], extra),
        })
        demands.push(demand('P42', 'exact under faults: off by 0', String(exact[0].off), exact[0].off === 0))
      }
      await Promise.all(fleet.map((tell) => tell.close()))
    }
  }
  const { inProcess, served, notes } = await bytesRows()
  const title = `bytes a key, ${heldKeys.toLocaleString('en')} keys`
  sections.push({
    title: `${title}, in memory (heap and buffers of a process of its own)`,
    rows: inProcess,
    text: table(inProcess, ['bytesAKey', 'bytesExpired', 'bytesAgain'], extra),
  })
  if (served.length > 0) {
    sections.push({
      title: `${title}, on Redis (used_memory of a server of its own)`,
      rows: served,
      text: table(served, ['bytesAKey', 'bytesExpired', 'keysLeft'], extra),
    })
  }
  report('counters', {
    settings,
    versionsUsed: versions(
      ['ioredis', 'rate-limiter-flexible', 'express-rate-limit', 'limiter', 'rate-limit-redis', '@upstash/ratelimit'],
      {
        'redis-server': version ?? 'absent',
      },
    ),
    sections,
    demands,
    notes: [
      'wrong: numbers given twice or not at all over all processes, and a last value that is not the number of adds.',
      'INCR has no request ids: a repetition counts again, whoever writes it. The faults are the same for both.',
      `expired: ${((2 * ttlMs + 2_000) / 1_000).toFixed(1)} s after the last key was written. As many new keys: as B a key when the old ones have left, twice that when not.`,
      ...notes,
      'limiter holds no keys itself: its Map is the user’s, as in its documents, and nothing leaves it.',
      ...(version === undefined ? ['redis-server is not here: its parts are left out'] : []),
    ],
  })
} finally {
  for (const close of closing.reverse()) await close()
}
process.exit(0)
