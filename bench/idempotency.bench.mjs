/**
 * An idempotent run and its replay in process, beside the libraries that there are (G41).
 * Invariant: speed and answers come from the same use of each library, so what is fast because it is wrong is seen to be.
 * Why CPU time and not requests a second: HTTP would hide all of them behind itself (and behind the machine's noise).
 */
import { demand, interleaved, options, report, slice, table, versions } from './harness.mjs'
import { peers } from './peers.mjs'
import { judge } from './scenarios.mjs'

const settings = options()
const { tiny, ms, random } = settings
const inFlight = 16
const answerBytes = 1_024
const keysAScenario = tiny ? 2 : 20
const replayedKeys = tiny ? 20 : 1_000
const times = { leaseMs: 30_000, retentionMs: 86_400_000 }

const text = 'x'.repeat(answerBytes - 40)
const handler = async () => ({ id: 'ch_0123456789', status: 'succeeded', text })
const requestOf = (number) => ({
  tenant: 'tenant-a',
  path: '/payments',
  key: `0197b4c2-7d1a-4c55-9d0e-${String(number).padStart(12, '0')}`,
  body: { amount: 2_990, currency: 'EUR', source: 'card_0123456789', metadata: { order: String(number) } },
})
const isRight = (result) => result.type === 'answered' && result.value.text.length === text.length

/** Each slice begins with an empty store: what grows would slow down who comes later. */
function running(peer) {
  let number = 0
  return {
    name: peer.name,
    run: () => {
      const process = peer.process(peer.store(), times)
      return slice({ op: async () => isRight(await process.attempt(requestOf((number += 1)), handler)), inFlight, ms })
    },
  }
}

async function replaying(peer) {
  const process = peer.process(peer.store(), times)
  for (let number = 0; number < replayedKeys; number += 1) await process.attempt(requestOf(number), handler)
  const mustNotRun = async () => {
    throw new Error('a replay ran the handler')
  }
  const op = async () => isRight(await process.attempt(requestOf(Math.floor(random() * replayedKeys)), mustNotRun))
  return { name: peer.name, run: () => slice({ op, inFlight, ms }) }
}

async function storeCalls(peer) {
  const store = peer.store()
  const process = peer.process(store, { ...times, isCounted: true })
  await process.attempt(requestOf(0), handler)
  /** A library may store the answer after it has given it. */
  await new Promise((resolve) => setImmediate(resolve))
  const first = store.calls.count
  await process.attempt(requestOf(0), handler)
  return { first, replay: store.calls.count - first }
}

const timed = peers.filter(({ isTimed }) => isTimed)
const runs = await interleaved(timed.map(running), settings)
const replays = await interleaved(await Promise.all(timed.map(replaying)), settings)
const answers = []
for (const peer of peers) {
  const rows = await judge(peer, keysAScenario)
  const sum = (column) => rows.reduce((total, row) => total + row[column], 0)
  const { first, replay } = await storeCalls(peer)
  answers.push({
    name: peer.name,
    executedTwice: sum('executedTwice'),
    wrongReplay: sum('wrongReplay'),
    unanswered: sum('unanswered'),
    storeCallsFirst: first,
    storeCallsReplay: replay,
    scenarios: rows,
  })
}
for (const row of [...runs, ...replays]) {
  const { executedTwice, wrongReplay } = answers.find(({ name }) => name === row.name)
  Object.assign(row, { executedTwice, wrongReplay })
}
for (const rows of [runs, replays]) for (const row of rows) row.ratio = row.cpuUsPerOp / rows[0].cpuUsPerOp

const extra = {
  ratio: ['CPU ratio', 2],
  executedTwice: ['executed twice', 0],
  wrongReplay: ['wrong replay', 0],
  unanswered: ['unanswered', 0],
  storeCallsFirst: ['store calls, first', 0],
  storeCallsReplay: ['replay', 0],
}
const shown = ['cpuUsPerOp', 'cpuUsPerOpMad', 'ratio', 'opsPerSecond', 'p99Ms', 'loopDelayP99Ms', 'wrong', 'executedTwice', 'wrongReplay']
const byScenario = answers[0].scenarios.map(({ title }, index) => ({
  name: title,
  ...Object.fromEntries(
    answers.map(({ name, scenarios }) => [
      name,
      `${scenarios[index].executedTwice}/${scenarios[index].wrongReplay}/${scenarios[index].unanswered}`,
    ]),
  ),
}))
const timedTable = (rows) => table(rows, shown, { ...extra, cpuUsPerOpMad: ['+-', 1] })
const least = (rows) => Math.min(...rows.slice(1).map(({ cpuUsPerOp }) => cpuUsPerOp))
const figure = (rows) => `${rows[0].cpuUsPerOp.toFixed(1)} us, the fastest other ${least(rows).toFixed(1)} us`
const [mine] = answers
report('idempotency', {
  settings,
  versionsUsed: versions([
    '@node-idempotency/core',
    '@node-idempotency/storage-adapter-memory',
    'express-idempotency',
    '@aws-lambda-powertools/idempotency',
  ]),
  sections: [
    { title: `first run, ${answerBytes} B answer, in process, store in memory`, rows: runs, text: timedTable(runs) },
    { title: 'replay', rows: replays, text: timedTable(replays) },
    {
      title: `answers: ${byScenario.length} scenarios of ${keysAScenario} keys`,
      rows: answers,
      text: table(answers, ['executedTwice', 'wrongReplay', 'unanswered', 'storeCallsFirst', 'storeCallsReplay'], extra),
    },
    {
      title: 'by scenario: executed twice / wrong replay / unanswered',
      rows: byScenario,
      text: table(
        byScenario,
        answers.map(({ name }) => name),
      ),
    },
  ],
  demands: [
    demand('G41', 'first run not slower than the fastest', figure(runs), runs[0].cpuUsPerOp <= least(runs)),
    demand('G41', 'replay not slower than the fastest', figure(replays), replays[0].cpuUsPerOp <= least(replays)),
    demand('G41', 'executed twice: 0', String(mine.executedTwice), mine.executedTwice === 0),
    demand('G41', 'wrong replay: 0', String(mine.wrongReplay), mine.wrongReplay === 0),
    demand(
      'G41',
      'store calls: first run 2, replay 1',
      `${mine.storeCallsFirst} and ${mine.storeCallsReplay}`,
      mine.storeCallsFirst === 2 && mine.storeCallsReplay === 1,
    ),
  ],
  notes: [
    'express-idempotency stands behind as much of Express as it touches, with a Map as its store; a replay compares the bodies with deep-equal.',
    'unanswered keys of hapax wait for a person (afterCrash: refuse) or were kept after the handler failed (final: stripe).',
  ],
})
/** Handlers of killed processes wait for ever, and the libraries' timers may be live: nothing is left to do. */
process.exit(0)
