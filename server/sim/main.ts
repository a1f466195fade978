/**
 * `npm run sim`: plays histories on every core until the time or the number is up, and says what was found.
 * Invariant: exit status 1 on a violation, on a mutant that nobody caught, and on a "sometimes" that never was.
 * `tools/sim.mjs` bundles it and the workers; each mutant is a bundle of the worker with one patched line.
 */
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import { faultKinds, type FaultKind } from './faults.ts'
import { operationsOf } from './history.ts'
import { checkAll } from './linearizable.ts'
import { mutants, type Mutant } from './mutants.ts'
import { peers } from './peers/play.ts'
import type { ScenarioOptions } from './scenario.ts'
import { meaningOf, sometimesNames } from './sometimes.ts'
import { transcriptOf } from './transcript.ts'
import type { Trial } from './trial.ts'
import { wallStart } from './clock.ts'

const help = `npm run sim -- [options]
  --seed N         the first seed; default: drawn from the clock
  --histories N    how many; default 3,000, or as many as the minutes allow
  --minutes N      how long, instead of how many
  --zones 1|3|5    default: drawn for each history
  --faults a,b     only these: ${faultKinds.join(' ')}
  --mutants        hunts each mutant, with --histories as the bound for each (default 3,000)
  --mutant NAME    hunts this one
  --peer NAME      plays a model of another protocol instead, without faults: ${Object.keys(peers).join(', ')}
  --replay N       plays one seed, twice, and prints what it found, with all that was said about a key that went wrong
  --json FILE      writes the report there`

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    histories: { type: 'string' },
    minutes: { type: 'string' },
    zones: { type: 'string' },
    faults: { type: 'string' },
    mutants: { type: 'boolean', default: false },
    mutant: { type: 'string' },
    replay: { type: 'string' },
    peer: { type: 'string' },
    json: { type: 'string' },
    help: { type: 'boolean', default: false },
    /** Set by tools/sim.mjs: where the bundles are, and the seeds that once failed. */
    bundles: { type: 'string' },
    seeds: { type: 'string' },
  },
})

/** Histories that a worker plays between two reports. */
const chunk = 20
const peerHistoriesMax = 1_000
const progressMs = 5_000

interface Totals {
  histories: number
  operations: number
  undecided: number
  faults: Partial<Record<FaultKind, number>>
  sometimes: Record<string, number>
  violations: { readonly seed: number; readonly text: string }[]
  /** Sum of all log hashes: the same whatever worker played what. */
  logHash: number
}
const newTotals = (): Totals => ({ histories: 0, operations: 0, undecided: 0, faults: {}, sometimes: {}, violations: [], logHash: 0 })

function numberOf(text: string | undefined, name: string, least: number): number | undefined {
  if (text === undefined) return undefined
  const number = Number(text)
  if (Number.isFinite(number) && number >= least) return number
  return stop(`--${name} must be a number of at least ${least}, not '${text}'`)
}

function stop(what: string): never {
  console.error(`${what}\n\n${help}`)
  process.exit(2)
}

function optionsOf(): ScenarioOptions {
  const zones = numberOf(values.zones, 'zones', 1)
  if (zones !== undefined && ![1, 3, 5].includes(zones)) stop(`a cluster has 1, 3 or 5 zones, not ${zones}`)
  const faults = values.faults?.split(',').filter((one) => one !== '') as FaultKind[] | undefined
  for (const fault of faults ?? []) if (!faultKinds.includes(fault)) stop(`there is no fault '${fault}'`)
  return { ...(zones === undefined ? {} : { zones }), ...(faults === undefined ? {} : { faults }) }
}

/** Plays seeds on all cores until `next` has no more, or `isOver` says so. */
async function playOn(
  bundle: string,
  options: ScenarioOptions,
  next: () => readonly number[],
  take: (trial: Trial) => boolean,
): Promise<void> {
  await Promise.all(
    Array.from({ length: availableParallelism() }, async () => {
      const worker = new Worker(`${values.bundles}/${bundle}.mjs`)
      try {
        for (let seeds = next(); seeds.length > 0; seeds = next()) {
          const answer = once(worker, 'message') // rejects when the worker fails
          worker.postMessage({ seeds, options })
          const [trials] = (await answer) as [Trial[]]
          if (!trials.map(take).every(Boolean)) return
        }
      } finally {
        await worker.terminate()
      }
    }),
  )
}

function add(totals: Totals, trial: Trial): void {
  totals.histories++
  totals.operations += trial.operations
  totals.undecided += trial.undecided
  totals.logHash = (totals.logHash + Number.parseInt(trial.logHash || '0', 16)) % 2 ** 48
  for (const [kind, count] of Object.entries(trial.faults))
    totals.faults[kind as FaultKind] = (totals.faults[kind as FaultKind] ?? 0) + count
  for (const [name, count] of Object.entries(trial.sometimes)) totals.sometimes[name] = (totals.sometimes[name] ?? 0) + count
  for (const text of trial.violations) totals.violations.push({ seed: trial.seed, text })
}

/** Seeds one after the other from `from`: those of the file first. */
function seedsFrom(from: number, count: number, first: readonly number[], endsAt: number): () => readonly number[] {
  let at = from
  let isFirst = true
  return () => {
    if (isFirst && first.length > 0) {
      isFirst = false
      return first
    }
    const left = Math.min(chunk, from + count - at)
    if (left <= 0 || Date.now() >= endsAt) return []
    at += left
    return Array.from({ length: left }, (_, index) => at - left + index)
  }
}

async function hunt(mutant: Mutant, from: number, histories: number, options: ScenarioOptions) {
  let played = 0
  let caughtAfter: number | undefined
  await playOn(`mutant-${mutant.name}`, options, seedsFrom(from, histories, [], Infinity), (trial) => {
    played++
    if (trial.violations.length > 0) caughtAfter ??= played
    return caughtAfter === undefined
  })
  return { name: mutant.name, caught: caughtAfter !== undefined, histories: caughtAfter ?? played, isRare: mutant.isRare ?? false }
}

async function main(): Promise<number> {
  if (values.help) {
    console.log(help)
    return 0
  }
  const options = optionsOf()
  const seed = numberOf(values.seed, 'seed', 0) ?? Date.now() % 1_000_000_000
  const minutes = numberOf(values.minutes, 'minutes', 0.01)
  const replay = numberOf(values.replay, 'replay', 0)
  const isHunt = values.mutants || values.mutant !== undefined
  const histories = numberOf(values.histories, 'histories', 1) ?? (minutes === undefined || isHunt ? 3_000 : Infinity)
  if (replay !== undefined) return await playAgain(replay, options)
  if (values.peer !== undefined) return playThePeer(values.peer, seed, Math.min(histories, peerHistoriesMax), options.zones ?? 3)

  const startedAt = Date.now()
  const totals = newTotals()
  const caught: Awaited<ReturnType<typeof hunt>>[] = []
  console.log(`seed ${seed}, ${availableParallelism()} workers, Node ${process.version}`)
  const progress = setInterval(() => {
    const seconds = (Date.now() - startedAt) / 1_000
    console.log(
      isHunt
        ? `${caught.length} mutants, ${caught.filter((one) => one.caught).length} caught, ${seconds.toFixed(0)} s`
        : `${totals.histories} histories, ${totals.operations} operations, ${totals.violations.length} violations, ${seconds.toFixed(0)} s`,
    )
  }, progressMs)
  try {
    if (isHunt) {
      const wanted = mutants.filter(({ name }) => values.mutant === undefined || values.mutant === name)
      if (wanted.length === 0) stop(`there is no mutant '${values.mutant}'`)
      for (const mutant of wanted) {
        const result = await hunt(mutant, seed, histories, options)
        caught.push(result)
        console.log(`${result.caught ? 'caught' : 'ALIVE '} ${result.name} after ${result.histories} histories`)
      }
    } else {
      const endsAt = minutes === undefined ? Infinity : startedAt + minutes * 60_000
      await playOn('worker', options, seedsFrom(seed, histories, knownSeeds(), endsAt), (trial) => {
        add(totals, trial)
        for (const text of trial.violations) console.log(`VIOLATION seed ${trial.seed}\n${text}\n`)
        return true
      })
    }
  } finally {
    clearInterval(progress)
  }
  const seconds = (Date.now() - startedAt) / 1_000
  const report = {
    seed,
    zones: options.zones ?? 'drawn',
    histories: totals.histories,
    operations: totals.operations,
    faults: totals.faults,
    violations: totals.violations,
    undecided: totals.undecided,
    operationsPerSecond: Math.round(totals.operations / seconds),
    logHash: totals.logHash.toString(16).padStart(12, '0'),
    sometimes: totals.sometimes,
    mutants: caught.map(({ name, caught, histories }) => ({ name, caught, histories })),
  }
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`)
  const never =
    isHunt || values.faults !== undefined || options.zones !== undefined ? [] : sometimesNames.filter((name) => !(name in totals.sometimes))
  const alive = caught.filter((one) => !one.caught && !one.isRare)
  console.log(JSON.stringify({ ...report, violations: totals.violations.length, mutants: undefined }, undefined, 2))
  for (const name of never) console.log(`NEVER ${name}: ${meaningOf(name)}`)
  for (const { name } of alive) console.log(`ALIVE ${name}`)
  return totals.violations.length > 0 || never.length > 0 || alive.length > 0 ? 1 : 0
}

async function playAgain(seed: number, options: ScenarioOptions): Promise<number> {
  const trials: Trial[] = []
  let left = 2
  await playOn(
    'worker',
    options,
    () => (left-- > 0 ? [seed] : []),
    (trial) => trials.push(trial) > 0,
  )
  const [first, second] = trials as [Trial, Trial]
  for (const text of first.violations) console.log(`${text}\n`)
  for (const key of first.badKeys) console.log(`What was said about key ${key}:\n${transcriptOf(seed, options, key).join('\n')}\n`)
  console.log(JSON.stringify({ ...first, violations: first.violations.length }, undefined, 2))
  if (first.logHash !== second.logHash) console.log(`NOT DETERMINISTIC: ${first.logHash}, then ${second.logHash}`)
  return first.violations.length > 0 || first.logHash !== second.logHash ? 1 : 0
}

/** A model of another protocol, in the same network and before the same checker. It has to be found wrong: else the checker is blind. */
function playThePeer(name: string, seed: number, histories: number, zones: number): number {
  const played = peers[name as keyof typeof peers]
  if (played === undefined) stop(`there is no model of '${name}'`)
  let wrong = 0
  let operations = 0
  let undecided = 0
  for (let at = seed; at < seed + histories; at++) {
    const history = operationsOf(played(at, zones))
    operations += history.length
    const verdicts = [...checkAll(history, { boundMs: 0, startsAt: wallStart }).values()]
    if (verdicts.some(({ type }) => type === 'violation')) wrong++
    undecided += verdicts.filter(({ type }) => type === 'undecided').length
  }
  console.log(`a model of ${name}, ${zones} zones, no fault, seed ${seed}: ${wrong} of ${histories} histories are not linearizable`)
  console.log(JSON.stringify({ peer: name, seed, zones, histories, operations, violations: wrong, undecided }, undefined, 2))
  return wrong > 0 ? 0 : 1
}

/** Seeds that once failed, each with a sentence. */
function knownSeeds(): number[] {
  if (values.seeds === undefined) return []
  return readFileSync(values.seeds, 'utf8')
    .split('\n')
    .filter((line) => /^\d/.test(line))
    .map((line) => Number.parseInt(line, 10))
}

process.exitCode = await main()
