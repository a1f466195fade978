/**
 * P41 in small: random histories of several processes over one store, with delays, faults, stalls and clocks that run on, judged by one law:
 * no read that begins after an invalidation was answered gives what was there before, but for `fresh` in the other processes.
 * Invariant: a history is a function of its seed; nothing in it waits for the machine.
 * Why planted mistakes are looked for: a law that no mistake breaks says nothing.
 */
import { describe, expect, test } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import { memory } from '../../core/stores/memory.ts'
import { intercept, testClock } from '../../core/testing/index.ts'
import { cache } from './cache.ts'
import type { Cache, CacheSettings, LoadContext } from './types.ts'

const keys = ['a', 'b'] as const
const stepsCount = 120
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

interface Answered {
  readonly process: number
  readonly atMs: number
  readonly row: number
}
interface History {
  readonly reads: number
  readonly loads: number
  readonly invalidations: number
  readonly stale: readonly string[]
}
interface Plan {
  readonly seed: number
  readonly freshMs?: number
  readonly faults?: boolean
  readonly mistake?: (kv: KV) => KV
  readonly settings?: Partial<CacheSettings>
}

async function history({ seed, freshMs = 0, faults = false, mistake = (kv) => kv, settings = {} }: Plan): Promise<History> {
  const random = seededRandom(seed)
  const clock = testClock()
  const store = mistake(memory({ clock }))
  /** The database: a number for each key, which only rises. */
  const rows = new Map<string, number>(keys.map((key) => [key, 1]))
  const answered = new Map<string, Answered[]>(keys.map((key) => [key, []]))
  const stale: string[] = []
  let reads = 0
  let loads = 0
  let invalidations = 0
  let isCalm = false

  const pauses = async (most: number): Promise<void> => {
    for (let left = random.int(most + 1); left > 0; left--) await turn()
  }
  const load = async (key: string, { tag }: LoadContext): Promise<number> => {
    loads++
    const row = rows.get(key) as number
    await pauses(12)
    if (random.chance(0.1)) await clock.sleep(random.int(15_000))
    tag('all rows')
    if (!isCalm && random.chance(0.1)) throw new Error('declined')
    return row
  }
  const start = (): Cache<string, number> => {
    const kv = intercept(store, async (call, run) => {
      await pauses(4)
      const isWrite = call.verb !== 'get' && call.verb !== 'getMany'
      if (faults && !isCalm) {
        if (random.chance(0.03)) throw new KvError('UNAVAILABLE')
        if (isWrite && random.chance(0.03)) throw new KvError('UNKNOWN_OUTCOME')
        // It arrives long after its caller gave up.
        if (isWrite && random.chance(0.03)) {
          void pauses(30)
            .then(run)
            .catch(() => undefined)
          throw new KvError('UNKNOWN_OUTCOME')
        }
        if (random.chance(0.02)) await clock.sleep(random.int(12_000))
      }
      const answer = await run()
      if (faults && !isCalm && isWrite && random.chance(0.03)) throw new KvError('UNKNOWN_OUTCOME')
      await pauses(3)
      return answer
    })
    const rest = {
      ttl: '20s',
      stale: '20s',
      maxStale: '40s',
      hard: '5s',
      wait: '3s',
      storeDeadline: '10s',
      timers: clock,
      random: random.next,
      ...settings,
    } as const
    return cache({ kv, name: 'model', fresh: freshMs, load, ...rest })
  }
  const processes = [start(), start(), start()]

  const read = async (process: number, key: string): Promise<void> => {
    const beganAt = clock.elapsed()
    const isBinding = (one: Answered): boolean => one.process === process || one.atMs + freshMs <= beganAt
    const least = Math.max(1, ...(answered.get(key) ?? []).filter(isBinding).map(({ row }) => row))
    try {
      const got = await (processes[process] as Cache<string, number>).get(key)
      reads++
      if (got < least) stale.push(`process ${process} read ${key} = ${got} at ${beganAt}, where ${least} was known`)
    } catch (error) {
      // The loader's own error, or what the hard deadline made of a slow load: no value is no stale value.
      if (!isKvError(error, 'LOAD_TIMEOUT') && !(error instanceof Error && error.message === 'declined')) throw error
    }
  }
  const change = async (process: number, key: string): Promise<void> => {
    const own = processes[process] as Cache<string, number>
    const kind = random.int(6)
    const changed = kind < 4 ? [key] : [...keys]
    const now = changed.map((one) => [one, (rows.get(one) as number) + 1] as const)
    for (const [one, row] of now) rows.set(one, row)
    await pauses(2)
    const { done } = kind < 4 ? await own.invalidate(key) : kind === 4 ? await own.invalidateTag('all rows') : await own.clear()
    if (!done) return
    invalidations++
    for (const [one, row] of now) answered.get(one)?.push({ process, atMs: clock.elapsed(), row })
  }

  const work: Promise<void>[] = []
  for (let step = 0; step < stepsCount; step++) {
    const process = random.int(processes.length)
    const key = random.pick(keys)
    const draw = random.next()
    if (draw < 0.55) work.push(read(process, key))
    else if (draw < 0.75) work.push(change(process, key))
    else if (draw < 0.8) await clock.advance(random.int(30_000))
    else if (draw < 0.85) await clock.advance(random.int(1_000))
    else await pauses(20)
  }
  isCalm = true
  let isOver = false
  const end = Promise.all(work).then(() => (isOver = true))
  for (let rounds = 0; !isOver && rounds < 2_000; rounds++) {
    for (let turns = 0; turns < 10; turns++) await turn()
    await clock.advance(250)
  }
  if (!isOver) throw new Error(`seed ${seed}: a read or an invalidation never ended`)
  await end
  return { reads, loads, invalidations, stale }
}

const seed = Number(process.env.HAPAX_SEED)
const runs = 150
/** Values are past their ttl before their refresh has ended; readers wait for refreshes, and loads for each other. */
const hasty = { ttl: '5ms', stale: '1m', maxStale: '2m', soft: '2s', hard: '20s', early: 1, loadsMax: 2 } as const

describe('random histories of three processes', () => {
  for (const [title, plan] of [
    ['with `fresh: 0`', {}],
    ['with `fresh: 0` and faults of the store', { faults: true }],
    ['with `fresh: 2s`', { freshMs: 2_000 }],
    ['with `fresh: 2s` and faults of the store', { freshMs: 2_000, faults: true }],
    ['that wait for refreshes', { settings: hasty }],
    ['that wait for refreshes, with `fresh: 2s`', { freshMs: 2_000, settings: hasty }],
    ['that wait for refreshes, inline, and faults of the store', { faults: true, settings: { ...hasty, waitUntil: 'inline' } }],
  ] as const) {
    test(`${title} have no stale read after an answered invalidation (K1, K4, K7, K17; seed ${seed})`, async () => {
      const total = { reads: 0, loads: 0, invalidations: 0 }
      for (let run = 0; run < runs; run++) {
        const { stale, reads, loads, invalidations } = await history({ seed: seed + run, ...plan })
        expect(stale, `seed ${seed + run}`).toEqual([])
        total.reads += reads
        total.loads += loads
        total.invalidations += invalidations
      }
      // The histories are worth something: most reads were answered, there were many invalidations, and the cache saved loads.
      expect(total.reads).toBeGreaterThan(runs * 40)
      expect(total.invalidations).toBeGreaterThan(runs * 10)
    })
  }
})

describe('the law is broken by', () => {
  const proxied = (kv: KV, change: Partial<KV>): KV => ({ ...kv, ...change })
  const mistakes: Readonly<Record<string, (kv: KV) => KV>> = {
    'a store that writes back whatever the version is': (kv) =>
      proxied(kv, { update: (key, value, { ifVersion: _, ...options } = {}) => kv.update(key, value, options) }),
    'an invalidation that is answered and not applied': (kv) =>
      proxied(kv, {
        set: async (key, value, options) => {
          const { entry, now } = await kv.get(key)
          return entry === undefined ? await kv.set(key, value, options) : { ok: true, entry, now }
        },
      }),
    'reads that do not see the epochs of tags': (kv) =>
      proxied(kv, {
        getMany: async (wanted, options) => {
          const { entries, now } = await kv.getMany(wanted, options)
          return { entries: new Map([...entries].filter(([, { value }]) => !new TextDecoder().decode(value).includes('"at":'))), now }
        },
      }),
  }
  for (const [title, mistake] of Object.entries(mistakes)) {
    test(`${title}`, async () => {
      let found = 0
      for (let run = 0; run < 40; run++) found += (await history({ seed: 1_000 + run, mistake })).stale.length
      expect(found).toBeGreaterThan(0)
    })
  }
})
