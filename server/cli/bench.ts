/**
 * `bench`: a short load on a cluster, as a client makes it.
 * Invariant: every call that was begun is counted, with how long it took and how it ended; what is printed says on which machine, and how it
 * comes again (the seed).
 * Why a closed loop, and that it says so: so many calls are always under way, and a slow answer holds the next one up. It shows what a cluster
 * can do; what users wait for under a given load, an open loop shows.
 */
import { cpus, release, totalmem } from 'node:os'
import type { Command } from 'commander'
import { seededRandom } from '../../core/base/random.ts'
import { parseDuration, type Duration } from '../../core/base/types.ts'
import { invalid, isKvError } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import { exitCodes, type ExitCode, type Io, type Output } from './output.ts'
import { onCluster, target, type Target } from './target.ts'

interface Asked extends Target {
  readonly time: string
  readonly inFlight: number
  readonly reads: number
  readonly keys: number
  readonly size: number
  readonly seed: number
}

interface Load {
  readonly durationMs: number
  readonly inFlight: number
  readonly reads: number
  readonly keys: number
  readonly size: number
  readonly seed: number
}
type Kind = 'read' | 'write'
interface Measured {
  readonly elapsedMs: number
  /** Milliseconds of each call that was answered. */
  readonly took: Readonly<Record<Kind, readonly number[]>>
  /** How often each fault came, by its code. */
  readonly faults: Readonly<Record<string, number>>
}

/** What it wrote goes by itself. */
const ttl = '10m'
const countMax = 1_000_000
/** Each call is remembered. */
const durationMsMax = 600_000

export function addBench(
  program: Command,
  io: Io,
  version: string,
  run: (work: (output: Output) => Promise<ExitCode>) => Promise<void>,
): void {
  target(
    program
      .command('bench')
      .description('a short load: reads and writes, so many always under way; what it wrote is gone after ten minutes'),
  )
    .option('--time <duration>', 'how long', '5s')
    .option('--in-flight <n>', 'calls under way, 1 to 4096', whole('--in-flight', 1, 4_096), 64)
    .option('--reads <percent>', 'of all calls, 0 to 100', whole('--reads', 0, 100), 50)
    .option('--keys <n>', 'so many different ones', whole('--keys', 1, countMax), 1_000)
    .option('--size <bytes>', 'of a value, 1 to 65536', whole('--size', 1, 65_536), 100)
    .option('--seed <n>', 'which keys, and in which order', whole('--seed', 0, 0xffff_ffff), 1)
    .action((asked: Asked) =>
      run((output) => {
        const durationMs = parseDuration(asked.time as Duration)
        if (durationMs === undefined || durationMs <= 0 || durationMs > durationMsMax)
          invalid(`--time is a duration from 1ms to 10m, not '${asked.time}'`)
        return onCluster(io, asked, async (kv) => {
          const load = { ...asked, durationMs }
          tell(output, load, await measure(kv, load), version)
          return exitCodes.done
        })
      }),
    )
}

async function measure(kv: KV, { durationMs, inFlight, reads, keys, size, seed }: Load): Promise<Measured> {
  const bytes = seededRandom(seed)
  const value = Uint8Array.from({ length: size }, () => bytes.int(256))
  const took: Record<Kind, number[]> = { read: [], write: [] }
  const faults: Record<string, number> = {}
  const startMs = performance.now()
  const endMs = startMs + durationMs
  // Each draws for itself: which calls one makes does not depend on how fast the others are.
  const one = async (_: unknown, index: number): Promise<void> => {
    const random = seededRandom(seed * 4_096 + index)
    while (performance.now() < endMs) {
      const kind: Kind = random.int(100) < reads ? 'read' : 'write'
      const name = `hapax-bench/${seed}/${random.int(keys)}`
      const beganMs = performance.now()
      try {
        if (kind === 'read') await kv.get(name)
        else await kv.set(name, value, { expiry: { set: ttl } })
        took[kind].push(performance.now() - beganMs)
      } catch (error) {
        if (!isKvError(error)) throw error
        faults[error.code] = (faults[error.code] ?? 0) + 1
        // Refused for good: more of it says no more.
        if (error.retry === 'never') throw error
      }
    }
  }
  await Promise.all(Array.from({ length: inFlight }, one))
  return { elapsedMs: performance.now() - startMs, took, faults }
}

function tell(output: Output, load: Load, { elapsedMs, took, faults }: Measured, version: string): void {
  const row = (kind: Kind) => {
    const sorted = took[kind].toSorted((a, b) => a - b)
    const at = (share: number): number => round(sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)] ?? 0)
    const perSecond = Math.round((sorted.length / elapsedMs) * 1_000)
    return { count: sorted.length, perSecond, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: round(sorted.at(-1) ?? 0) }
  }
  const [reads, writes] = [row('read'), row('write')]
  const faulty = Object.values(faults).reduce((sum, count) => sum + count, 0)
  const machine = {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: round(totalmem() / 2 ** 30),
    system: `${process.platform} ${release()}`,
  }
  const { inFlight, keys, size, seed } = load
  const perSecond = reads.perSecond + writes.perSecond
  const lines = [
    `${perSecond} calls a second, ${faulty} faults${faulty === 0 ? '' : ` ${JSON.stringify(faults)}`}`,
    '         count  a second   p50 ms   p99 ms   max ms',
    ...Object.entries({ reads, writes }).map(
      ([name, { count, perSecond: rate, p50Ms, p99Ms, maxMs }]) =>
        `${name.padEnd(6)} ${[count, rate, p50Ms, p99Ms, maxMs].map((number, index) => String(number).padStart(index === 0 ? 7 : index === 1 ? 9 : 8)).join(' ')}`,
    ),
    `${inFlight} always under way (a closed loop), ${keys} keys, values of ${size} bytes, ${load.reads} % reads, seed ${seed}`,
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.system}; Node ${process.versions.node}, hapax ${version}`,
  ]
  output.result(lines.join('\n'), {
    ok: true,
    loop: 'closed',
    elapsedMs: Math.round(elapsedMs),
    perSecond,
    reads,
    writes,
    faults,
    load: { inFlight, keys, size, readPercent: load.reads, seed },
    machine,
    versions: { node: process.versions.node, hapax: version },
  })
}

const round = (number: number): number => Math.round(number * 100) / 100

const whole =
  (name: string, least: number, most: number) =>
  (text: string): number => {
    const number = /^\d{1,10}$/.test(text) ? Number(text) : -1
    return number >= least && number <= most ? number : invalid(`${name} is a whole number from ${least} to ${most}, not '${text}'`)
  }
