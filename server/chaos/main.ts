/**
 * `npm run chaos`: hurts a cluster of real processes while clients work, and judges what they were told.
 * Invariant: exit status 1 on a violation, on something acknowledged that is not there, on a history that could not be decided, and on a call that
 * failed while one storage server alone was killed or stopped.
 */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { seededRandom } from '../../core/base/random.ts'
import { play } from './play.ts'

const help = `npm run chaos -- [options]
  --minutes N      how long; default 2
  --seed N         of faults and clients; default: drawn from the clock. Real processes do not repeat themselves: it repeats what is tried, not what happens
  --alone          only one storage server at a time is killed or stopped: how slow do calls get?
  --json FILE      writes the report there, too
  --history FILE   writes the calls of the registers there, one JSON line each
  --mutant NAME    plants one of the simulator's mistakes in the processes first: then something should be found
  --quiet          says no fault as it comes`

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '2' },
    seed: { type: 'string' },
    json: { type: 'string' },
    history: { type: 'string' },
    alone: { type: 'boolean', default: false },
    mutant: { type: 'string' },
    quiet: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
    /** Set by tools/chaos.mjs: where the bundles are. */
    bundles: { type: 'string', default: '' },
  },
})

async function run(): Promise<number> {
  if (values.help) {
    process.stdout.write(`${help}\n`)
    return 0
  }
  const minutes = Number(values.minutes)
  const seed = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed)
  if (!(minutes > 0) || !Number.isSafeInteger(seed)) {
    process.stderr.write(`${help}\n`)
    return 2
  }
  if (process.platform !== 'linux') {
    process.stderr.write('chaos tells processes from each other by addresses of the loopback that only Linux has\n')
    return 2
  }
  const startedAt = performance.now()
  const log = (text: string): void => {
    if (!values.quiet) process.stderr.write(`${((performance.now() - startedAt) / 1_000).toFixed(1).padStart(6)} s  ${text}\n`)
  }
  const { report, details } = await play({
    minutes,
    isAlone: values.alone,
    random: seededRandom(seed),
    bundles: { hapax: `${values.bundles}/run/hapax.mjs`, sourceAddress: `${values.bundles}/run/source-address.mjs` },
    log,
    onHistory: (lines) => values.history !== undefined && writeFileSync(values.history, lines),
  })
  const line = JSON.stringify({ seed, minutes, ...report })
  for (const text of details) process.stderr.write(`${text}\n`)
  process.stdout.write(`${line}\n`)
  if (values.json !== undefined) writeFileSync(values.json, `${line}\n`)
  const isGood = report.violations === 0 && report.lost === 0 && report.undecided === 0 && report.failedUnderKill === 0
  return isGood ? 0 : 1
}

process.once('SIGINT', () => process.exit(130))
process.once('SIGTERM', () => process.exit(143))
run().then(
  (status) => process.exit(status),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
    process.exit(1)
  },
)
