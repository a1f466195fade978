/**
 * Rate limits in memory and on a real Redis, beside the libraries that there are (P40).
 * Invariant: speed and answers come from the same use of each library, so what is fast because it is wrong is seen to be.
 * Why a limit that is never reached in the timed tables: an answer is then checked by itself; what happens at the limit is the scripts' part.
 */
import { createServer, connect } from 'node:net'
import { Redis } from 'ioredis'
import { columnsBesideServer, demand, interleaved, options, report, slice, table, versions } from './harness.mjs'
import { inMemory, onRedis } from './limit-peers.mjs'
import { columns, judge, scenarios } from './limit-scenarios.mjs'
import { callsOf, commandsSent } from './redis-counts.mjs'
import { redisServer, redisVersion } from './redis.mjs'

const settings = options()
const { tiny, ms, random } = settings
const day = 86_400_000
/** Never reached: some hundred times what a run asks. */
const never = [{ limit: 100_000_000, perMs: day }]
const used = [{ limit: 1, perMs: day }]
const keyCounts = tiny ? [1, 100] : [1, 1_000, 100_000]
const redisKeyCount = tiny ? 100 : 10_000
const callers = 64
const callersInMemory = 16
const keysAScenario = tiny ? 1 : 5
const judgedAtOnce = 6
const timeoutMs = 5_000
const p50UsMax = 3

const keysOf = (count) => Array.from({ length: count }, (_, index) => `client-${index}`)
let opened = 0
const opening = (policies, client) => ({ client, policies, timeoutMs, name: `t${(opened += 1)}` })
const anyOf = (keys) => keys[Math.floor(random() * keys.length)]

async function memoryCell(count) {
  const keys = keysOf(count)
  const contenders = []
  for (const peer of inMemory.filter(({ isTimed }) => isTimed)) {
    const limiter = await peer.open(opening(never))
    for (const key of keys) if ((await limiter.take(key)) !== 'allowed') throw new Error(`${peer.name} refused`)
    contenders.push({ name: peer.name, limiter, op: async () => (await limiter.take(anyOf(keys))) === 'allowed' })
  }
  const run = (slicing) => contenders.map(({ name, op }) => ({ name, run: () => slice({ op, ms, ...slicing }) }))
  const rows = await interleaved(run({ inFlight: callersInMemory }), settings)
  const alone = await interleaved(run({ inFlight: 1, burst: callersInMemory }), settings)
  rows.forEach((row, index) => (row.p50Us = alone[index].p50Ms * 1_000))
  for (const { limiter } of contenders) limiter.close?.()
  return rows
}

const closing = []
const quiet = (client) => client.on('error', () => {})
const clientOf = (port, more = {}) => {
  const client = quiet(new Redis({ host: '127.0.0.1', port, ...more }))
  closing.push(() => client.disconnect())
  return client
}

/** One table on Redis: `expected` is the right answer to each call. */
async function redisCell({ server, admin, clients, peers, keys, policies, expected }) {
  const contenders = []
  for (const peer of peers) {
    for (const [kind, client] of Object.entries(clients)) {
      const limiter = await peer.open(opening(policies, client))
      const op = async () => (await limiter.take(anyOf(keys))) === expected
      /** Until it refuses: a library may let one more through, and learn of its block by it. */
      if (expected === 'denied') for (const key of keys) for (let time = 0; time < 3; time += 1) await limiter.take(key)
      const commands = await commandsSent(server, admin, () => slice({ op, inFlight: 1, ms, count: 5 }))
      const calls = await callsOf(admin, commands)
      const perOp = []
      contenders.push({
        name: `${peer.name} ${kind}`,
        peer: peer.name,
        kind,
        limiter,
        perOp,
        run: async () => {
          await calls()
          const one = await slice({ op, inFlight: callers, ms, serverCpu: server.serverCpu })
          perOp.push((await calls()) / one.opsInAll)
          return one
        },
      })
    }
  }
  const rows = await interleaved(contenders, settings)
  rows.forEach((row, index) => Object.assign(row, { name: contenders[index].peer, storeCallsPerOp: Math.max(...contenders[index].perOp) }))
  for (const { limiter } of contenders) limiter.close?.()
  return rows
}

/** A server of its own behind a door that can hold its answers back, and that falls shut when it dies. */
async function outage() {
  const server = await redisServer('off')
  const sockets = new Set()
  let delayMs = 0
  const door = createServer((near) => {
    const far = connect(server.port, '127.0.0.1')
    let [free, waiting] = [0, 0]
    near.pipe(far)
    far.on('data', (chunk) => {
      if (delayMs === 0 && waiting === 0) return near.write(chunk)
      waiting += 1
      free = Math.max(free, Date.now() + delayMs)
      return setTimeout(() => {
        waiting -= 1
        near.write(chunk)
      }, free - Date.now())
    })
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.once('close', () => {
        sockets.delete(socket)
        near.destroy()
        far.destroy()
      })
    }
  })
  await new Promise((resolve) => door.listen(0, '127.0.0.1', resolve))
  /** As rate-limiter-flexible's documents have it: without a connection a command fails at once instead of waiting for one. */
  const client = clientOf(door.address().port, { enableOfflineQueue: false })
  await new Promise((resolve) => client.once('ready', resolve))
  const die = async () => {
    door.close()
    for (const socket of sockets) socket.destroy()
    await server.close()
    if (client.status === 'ready') await new Promise((resolve) => client.once('close', resolve))
  }
  return {
    client,
    slow: (ms) => (delayMs = ms),
    die,
    close: async () => {
      client.disconnect()
      await die()
    },
  }
}

async function answersOf(peers, world) {
  const answers = []
  for (let from = 0; from < peers.length; from += judgedAtOnce) {
    const group = peers.slice(from, from + judgedAtOnce)
    const judged = await Promise.all(group.map((peer) => judge(peer, keysAScenario, world)))
    judged.forEach((rows, index) => {
      const taken = rows.filter(({ cannot }) => !cannot)
      const sum = (column) => taken.reduce((total, row) => total + row[column], 0)
      answers.push({
        name: group[index].name,
        says: group[index].says,
        ...Object.fromEntries(columns.map((column) => [column, sum(column)])),
        mostAtBoundary: rows[Object.keys(scenarios).indexOf('around the end of a window')].most,
        scenarios: rows,
      })
    })
  }
  return answers
}

const extra = {
  cpuUsPerOpMad: ['+-', 1],
  ratio: ['ratio', 2],
  p50Us: ['p50 us', 2],
  overAdmitted: ['over-admitted', 0],
  wrongRefusals: ['wrong refusals', 0],
  refusedWithRoom: ['refused with room', 0],
  unseen: ['allowed unseen', 0],
  unknown: ['no answer', 0],
  mostAtBoundary: ['most in half a window', 2],
}
const shownAnswers = [...columns, 'mostAtBoundary']
const byScenario = (answers) =>
  Object.keys(scenarios).map((title, index) => ({
    name: title,
    ...Object.fromEntries(
      answers.map(({ scenarios: rows }, number) => {
        const { cannot, allowed, asked, overAdmitted, wrongRefusals, unknown, unseen } = rows[index]
        return [`(${number + 1})`, cannot ? '-' : `${allowed}/${asked} ${overAdmitted}/${wrongRefusals}/${unseen}/${unknown}`]
      }),
    ),
  }))
const answerSections = (where, answers) => {
  const rows = byScenario(answers)
  return [
    {
      title: `answers, ${where}: ${rows.length} scripts of ${keysAScenario} keys, judged by what each library's documents promise`,
      rows: answers,
      text: table(
        answers.map((row, index) => ({ ...row, name: `(${index + 1}) ${row.name}` })),
        shownAnswers,
        extra,
      ),
    },
    {
      title: `by script, ${where}: allowed/asked over-admitted/wrong refusals/allowed unseen/no answer`,
      rows,
      text: table(
        rows,
        answers.map((_, index) => `(${index + 1})`),
      ),
    },
  ]
}
const joined = (rows, answers) => {
  for (const row of rows) {
    const { overAdmitted, wrongRefusals } = answers.find(({ name }) => name === row.name)
    Object.assign(row, { overAdmitted, wrongRefusals })
  }
}

const version = redisVersion()
try {
  const memoryAnswers = await answersOf(inMemory, { open: (peer, given) => peer.open(given) })
  const cells = []
  for (const count of keyCounts) cells.push({ count, rows: await memoryCell(count) })
  const flexible = (rows) => rows.find(({ name }) => name === 'rate-limiter-flexible')
  for (const { rows } of cells) {
    const { opsPerSecond } = flexible(rows)
    for (const row of rows) row.ratio = row.opsPerSecond / opsPerSecond
    joined(rows, memoryAnswers)
  }
  const memoryShown = [
    'opsPerSecond',
    'opsPerSecondMad',
    'ratio',
    'cpuUsPerOp',
    'p50Us',
    'loopDelayP99Ms',
    'wrong',
    'overAdmitted',
    'wrongRefusals',
  ]
  const sections = cells.map(({ count, rows }) => ({
    title: `in memory, ${count.toLocaleString('en')} ${count === 1 ? 'key' : 'keys'}, ${callersInMemory} callers (p50: of one); ratio to rate-limiter-flexible`,
    rows,
    text: table(rows, memoryShown, extra),
  }))
  sections.push(...answerSections('in memory', memoryAnswers))
  const own = (rows) => rows.filter(({ name }) => name.startsWith('hapax'))
  const slowest = Math.min(...cells.map(({ rows }) => rows[0].ratio))
  const worst = Math.max(...cells.map(({ rows }) => rows[0].p50Us))
  const demands = [
    demand('P40', 'in memory at least half of rate-limiter-flexible', `${slowest.toFixed(2)} x`, slowest >= 0.5),
    demand('P40', `in memory p50 at most ${p50UsMax} us`, `${worst.toFixed(2)} us`, worst <= p50UsMax),
  ]
  const allOwn = [...own(memoryAnswers)]
  if (version !== undefined) {
    const server = await redisServer('off')
    closing.push(() => server.close())
    const admin = clientOf(server.port)
    const shared = clientOf(server.port)
    const open = (peer, { outage: own, isOwn, ...given }) =>
      peer.open({ ...given, client: own?.client ?? (isOwn ? clientOf(server.port) : shared) })
    const world = { open, outage }
    const answers = await answersOf(onRedis, world)
    allOwn.push(...own(answers))
    const clients = { plain: clientOf(server.port), autopipelining: clientOf(server.port, { enableAutoPipelining: true }) }
    const peers = onRedis.filter(({ isTimed }) => isTimed)
    const hot = await redisCell({ server, admin, clients, peers, keys: keysOf(1), policies: never, expected: 'allowed' })
    const many = await redisCell({ server, admin, clients, peers, keys: keysOf(redisKeyCount), policies: never, expected: 'allowed' })
    const refusing = onRedis.filter(({ isTimed, isTimedRefusing }) => isTimed || isTimedRefusing)
    const refused = await redisCell({
      server,
      admin,
      clients: { plain: clients.plain },
      peers: refusing,
      keys: keysOf(1),
      policies: used,
      expected: 'denied',
    })
    const redisShown = [...columnsBesideServer, 'overAdmitted', 'wrongRefusals']
    const best = (rows, wanted) => Math.max(...rows.filter(wanted).map(({ opsPerSecond }) => opsPerSecond))
    const isOurs = ({ name }) => name.startsWith('hapax')
    const ratio = (rows) => best(rows, isOurs) / best(rows, (row) => !isOurs(row))
    for (const [title, rows] of [
      ['one hot key', hot],
      [`${redisKeyCount.toLocaleString('en')} keys`, many],
      ['one key that is over its limit: refusals', refused],
    ]) {
      const { opsPerSecond } = flexible(rows)
      for (const row of rows) row.ratio = row.opsPerSecond / opsPerSecond
      joined(rows, answers)
      sections.push({
        title: `on Redis, ${callers} callers, ${title}; ratio to rate-limiter-flexible, plain`,
        rows,
        text: table(rows, redisShown, extra),
      })
    }
    sections.push(...answerSections('on Redis', answers))
    const callsOn = (rows) => Math.max(...own(rows).map(({ storeCallsPerOp }) => storeCallsPerOp))
    demands.push(
      demand('P40', 'on Redis ahead on the hot key, best beside best', `${ratio(hot).toFixed(2)} x`, ratio(hot) > 1),
      demand('P40', 'on Redis equal on many keys, best beside best', `${ratio(many).toFixed(2)} x`, ratio(many) >= 0.9),
      demand(
        'P40',
        'store calls at most 1 on many keys, less on a hot key',
        `${callsOn(many).toFixed(3)} and ${callsOn(hot).toFixed(3)}`,
        callsOn(many) <= 1.001 && callsOn(hot) < 1,
      ),
    )
  }
  const wrong = allOwn.reduce((sum, { overAdmitted, wrongRefusals }) => sum + overAdmitted + wrongRefusals, 0)
  const over = allOwn.reduce((sum, { overAdmitted }) => sum + overAdmitted, 0)
  demands.push(
    demand('P40', 'over-admission 0', String(over), over === 0),
    demand('P40', 'wrong refusals 0', String(wrong - over), wrong === over),
  )
  report('limits', {
    settings,
    versionsUsed: versions(
      ['rate-limiter-flexible', 'express-rate-limit', 'limiter', 'rate-limit-redis', '@upstash/ratelimit', 'ioredis'],
      {
        'redis-server': version ?? 'absent',
      },
    ),
    sections,
    demands,
    notes: [
      'each library is judged by its own documents, and each doubt about time is decided for it. What they promise:',
      ...new Set([...inMemory, ...onRedis].map(({ name, says }) => `${name.startsWith('hapax') ? 'hapax' : name}: ${says}`)),
      'refused with room: measured by what was served, also where the documents say that refused requests count.',
      'allowed unseen: let through without an answer of the store, where the documents say so or an insurance answers.',
      'most in half a window: what the protected service felt around the end of a window, 1.00 being the limit.',
      'two policies as one limiter: a request that one policy refuses may not use up the other, for nobody.',
      '@upstash/ratelimit runs on ioredis through a shim, without the round trip over HTTP that it was made for.',
      'express-rate-limit is its store and its rule (totalHits > limit), without Express.',
      ...(version === undefined ? ['redis-server is not here: that part is left out'] : []),
    ],
  })
} finally {
  for (const close of closing.reverse()) await close()
}
/** The libraries' timers and the handles of dead servers may be live: nothing is left to do. */
process.exit(0)
