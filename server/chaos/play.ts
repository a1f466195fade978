/**
 * One run: starts the cluster, lets clients work, hurts it, heals it, reads everything, and judges.
 * Invariant: what is reported was looked at when nothing was hurt and nothing was under way any more.
 */
import { seededRandom, type Random } from '../../core/base/random.ts'
import { connect } from '../../core/client/client.ts'
import type { KV } from '../../core/kv/kv.ts'
import { linesOf, operationsOf, Recorder } from '../sim/history.ts'
import { clientName, members, pause, startCluster, type Bundles } from './cluster.ts'
import { FaultDeck, type FaultKind } from './faults.ts'
import { Injector } from './inject.ts'
import { judge } from './judge.ts'
import { call, Keys, register } from './registers.ts'
import { Bank, Counter } from './sums.ts'
import { Watch, watched } from './watched.ts'

export interface PlayOptions {
  readonly minutes: number
  /** One storage server is killed or stopped, and healed, and so on; nothing else happens. */
  readonly isAlone: boolean
  readonly random: Random
  readonly bundles: Bundles
  readonly log: (text: string) => void
  readonly onHistory: (lines: string) => void
}

export interface Report {
  readonly faults: Readonly<Partial<Record<FaultKind, number>>>
  readonly operations: number
  /** Calls that nobody answered in time, or whose outcome is not known. */
  readonly failed: number
  /** Of the calls while one storage server alone was killed or stopped, until it voted again. */
  readonly operationsUnderKill: number
  readonly failedUnderKill: number
  readonly slowestMsUnderKill: number
  readonly violations: number
  readonly undecided: number
  /** Acknowledged, and not there. */
  readonly lost: number
}

const clients = 4
const registersPerClient = 3
/** On the average; a small machine carries nine processes and this one. */
const thinkMs = 60
const bankThinkMs = 150
const countThinkMs = 150
/** One fault in so many comes alone, and is measured. */
const aloneEvery = 12
const faultsPerMinute = 30
/** Rolling restarts, and new authorities. */
const longEveryMs = 120_000
const betweenMsMin = 500
const betweenMsMax = 1_100
/** After all is healed, for links to be dialled again. */
const settleMs = 1_500

export async function play(options: PlayOptions): Promise<{ readonly report: Report; readonly details: readonly string[] }> {
  const { random, bundles, log, onHistory } = options
  const faults: string[] = []
  const onFault = (text: string): void => {
    log(text)
    faults.push(text)
  }
  await using cluster = await startCluster(bundles, clients, random, (text) => onFault(`a process ended by itself: ${text}`))
  log('the cluster is founded and ready')
  const watch = new Watch((text) => log(`failed: ${text}`))
  const startsAt = Date.now() - performance.now()
  const stores: KV[] = []
  for (let client = 0; client < clients; client++) {
    const kv = await connect(cluster.urlOf(client), { tls: cluster.clientTls, connections: 2 })
    stores.push(watched(kv, watch))
  }
  const recorder = new Recorder()
  const keys = new Keys()
  const bank = new Bank(onFault)
  const counter = new Counter()
  await bank.open(stores[0] as KV)

  let isOver = false
  const over = (): boolean => isOver
  const own = (): Random => seededRandom(random.int(2 ** 32))
  const work = Promise.all(
    stores.flatMap((kv, client) => [
      ...Array.from({ length: registersPerClient }, (_, index) =>
        register(`${clientName(client)}.${index}`, kv, over, { random: own(), recorder, keys, thinkMs, onFault }),
      ),
      bank.teller(clientName(client), kv, over, own(), bankThinkMs),
      counter.count(kv, over, own(), countThinkMs),
    ]),
  )
  work.catch((error: unknown) => onFault(`a client ended: ${String(error)}`))

  const injector = new Injector(cluster, clients, onFault, log)
  await hurt(injector, watch, options)
  await injector.allHealed()
  await Promise.all(cluster.processes.map((one) => one.ready()))
  log('everything is healed')
  await pause(settleMs)
  isOver = true
  await work
  for (const key of keys.all) await call(stores[0] as KV, { client: 'last', key, verb: 'get' }, { recorder, onFault })
  const sums = [await bank.check(stores[0] as KV), await counter.check(stores[0] as KV)]
  for (const kv of stores) await kv.close()
  onHistory(linesOf(recorder.calls))
  log(`judging ${recorder.calls.length} calls of ${keys.all.size} keys, ${bank.transfers} transfers, ${counter.increments} increments`)
  const verdict = judge(operationsOf(recorder.calls), startsAt)
  const details = [...faults, ...sums.flatMap((sum) => sum.faults), ...verdict.violations]
  const report: Report = {
    faults: Object.fromEntries(injector.counts),
    operations: watch.all.operations,
    failed: watch.all.failed,
    operationsUnderKill: watch.inWindows.operations,
    failedUnderKill: watch.inWindows.failed,
    slowestMsUnderKill: Math.round(watch.inWindows.slowestMs),
    violations: details.length,
    undecided: verdict.undecided,
    lost: sums.reduce((sum, { lost }) => sum + lost, 0),
  }
  const codes = [...watch.all.codes].map(([code, count]) => `${code} ${count}`).join(', ')
  log(`${injector.total} faults; calls that failed: ${codes || 'none'}; the slowest of all took ${Math.round(watch.all.slowestMs)} ms`)
  const above = [watch.inWindows, watch.all].map(({ above200Ms, operations }) => `${above200Ms} of ${operations}`)
  log(`longer than 200 ms: ${above[0]} calls under one fault alone, ${above[1]} of all`)
  for (const { what, ms } of watch.inWindows.slowest) log(`under one fault alone: ${Math.round(ms)} ms, a ${what}`)
  return { report, details }
}

/** Faults one after another, some of them together, until the time is up. */
async function hurt(injector: Injector, watch: Watch, { minutes, isAlone, random, log }: PlayOptions): Promise<void> {
  const deck = new FaultDeck(random, members)
  const startedAt = performance.now()
  const endsAt = startedAt + minutes * 60_000
  let rollAt = startedAt + minutes * 30_000
  let rotateAt = startedAt + minutes * 10_000
  let rotated: Promise<void> = Promise.resolve()
  // On a slow machine faults take longer to heal: it may take half as long again for as many as there should be.
  const isOver = (): boolean => {
    const late = performance.now() - endsAt
    return late > 0 && (isAlone || injector.total >= faultsPerMinute * minutes || late > minutes * 30_000)
  }
  for (let count = 1; !isOver(); count++) {
    if (!isAlone && performance.now() > rollAt) {
      await injector.allHealed()
      await injector.rollingRestart()
      rollAt += longEveryMs
      continue
    }
    if (!isAlone && performance.now() > rotateAt) {
      rotated = injector.rotateAuthority()
      rotateAt += longEveryMs
    }
    if (isAlone || (count % aloneEvery === 0 && !injector.hurt.claims.has('certificates'))) {
      await injector.allHealed()
      await pause(settleMs)
      const kind = random.chance(0.5) ? 'storage-killed' : 'storage-stopped'
      await watch.settled()
      watch.open()
      await injector.inject(deck.drawAlone(kind))
      watch.close()
      await watch.settled()
      const { operations, failed, slowestMs } = watch.inWindows
      const ms = [slowestMs, watch.lagMsMax].map(Math.round)
      log(`alone so far: ${operations} calls, ${failed} failed, the slowest took ${ms[0]} ms; this process was late by up to ${ms[1]} ms`)
      continue
    }
    const fault = deck.draw(injector.hurt)
    if (fault !== undefined) void injector.inject(fault)
    await pause(betweenMsMin + random.int(betweenMsMax - betweenMsMin))
  }
  await rotated
}
