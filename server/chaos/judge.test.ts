/** What judges a run: it has to see what is wrong, or it says nothing when it says that all is well. */
import { expect, test } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import type { KV } from '../../core/kv/kv.ts'
import { memory } from '../../core/stores/memory.ts'
import { operationsOf, Recorder } from '../sim/history.ts'
import { judge } from './judge.ts'
import { Keys, register } from './registers.ts'
import { Bank, Counter } from './sums.ts'
import { Watch, watched } from './watched.ts'

const seed = Number(process.env['HAPAX_SEED'] ?? 1)
const startsAt = Date.now() - performance.now()

/** Clients at work on a store, so many calls each. */
async function history(kv: KV, calls: number) {
  const recorder = new Recorder()
  const keys = new Keys()
  const faults: string[] = []
  const random = seededRandom(seed)
  const isOver = (): boolean => recorder.calls.length >= calls
  const options = { recorder, keys, thinkMs: 0, onFault: (text: string) => void faults.push(text) }
  const clients = [1, 2, 3].map((client) => register(`c${client}`, kv, isOver, { ...options, random: seededRandom(random.int(1e9)) }))
  await Promise.all(clients)
  return { ...judge(operationsOf(recorder.calls), startsAt), faults }
}

test('clients of a right store find nothing', async () => {
  await using kv = memory()
  expect(await history(kv, 600)).toEqual({ violations: [], undecided: 0, faults: [] })
})

test.each<readonly [string, (kv: KV) => Partial<KV>]>([
  ['that reads what was before', (kv) => staleReads(kv)],
  ['that loses one write in ten', (kv) => ({ set: dropping(kv, 'set'), update: dropping(kv, 'update'), create: dropping(kv, 'create') })],
  ['that creates what is there', (kv) => ({ create: (key, value) => kv.set(key, value) as ReturnType<KV['create']> })],
])('clients of a store %s find it', async (_, wrong) => {
  await using kv = memory()
  const { violations } = await history({ ...plain(kv), ...wrong(kv) }, 1_500)
  expect(violations).not.toEqual([])
})

test('a call that threw what no client may be told is a fault', async () => {
  await using kv = memory()
  await kv.close()
  const { faults } = await history(kv, 5)
  expect(faults[0]).toMatch(/CLOSED/)
})

test('bank and counter come out right on a right store', async () => {
  await using kv = memory()
  const { bank, counter, faults } = await sums(kv, 30)
  expect([...faults, ...(await bank.check(kv)).faults, ...(await counter.check(kv)).faults]).toEqual([])
})

test('money that is made, an entry that is lost and an increment that is lost are found', async () => {
  await using kv = memory()
  const { bank, counter } = await sums(kv, 30)
  await kv.destroy('ledger:t1.1')
  await kv.set('account:ada', Uint8Array.from(Buffer.from('{"balance":1000000,"taken":{}}')))
  await kv.set('counter:one', Uint8Array.from(Buffer.from('1')))
  const bankSays = await bank.check(kv)
  expect(bankSays.lost).toBe(1)
  expect(bankSays.faults.join()).toMatch(/t1\.1 .*is not there.*ada has 1000000.*the bank has/)
  const counterSays = await counter.check(kv)
  expect(counterSays.faults).toHaveLength(1)
  expect(counterSays.lost).toBeGreaterThan(0)
})

test('a call belongs to the window that it overlaps', async () => {
  await using kv = memory()
  const watch = new Watch()
  const seen = watched(kv, watch)
  await seen.get('a')
  const before = seen.get('a')
  watch.open()
  await before
  await seen.get('a')
  const across = seen.get('a')
  watch.close()
  await across
  await seen.get('a')
  expect([watch.all.operations, watch.inWindows.operations, watch.inWindows.failed]).toEqual([5, 3, 0])
})

async function sums(kv: KV, steps: number) {
  const faults: string[] = []
  const bank = new Bank((text) => void faults.push(text))
  const counter = new Counter()
  await bank.open(kv)
  const isOver = (): boolean => bank.transfers >= steps && counter.increments >= steps
  const random = seededRandom(seed)
  const own = () => seededRandom(random.int(1e9))
  await Promise.all([
    ...['t1', 't2', 't3'].map((name) => bank.teller(name, kv, isOver, own(), 0)),
    ...[1, 2].map(() => counter.count(kv, isOver, own(), 0)),
  ])
  return { bank, counter, faults }
}

/** Its verbs as functions, so that some can be put in the place of others. */
const plain = (kv: KV): KV => watched(kv, new Watch())

function staleReads(kv: KV): Partial<KV> {
  const before = new Map<string, Awaited<ReturnType<KV['get']>>>()
  return {
    get: async (key) => {
      const now = await kv.get(key)
      const shown = before.get(key) ?? now
      before.set(key, now)
      return shown
    },
  }
}

/** One in ten is answered as if it had been done. */
function dropping<Verb extends 'create' | 'set' | 'update'>(kv: KV, verb: Verb): KV[Verb] {
  let count = 0
  const call = kv[verb].bind(kv) as (...args: unknown[]) => Promise<{ readonly ok: boolean }>
  return (async (...args: unknown[]) => {
    const [key] = args as [string]
    const before = ++count % 10 === 0 ? (await kv.get(key)).entry : undefined
    const result = await call(...args)
    if (result.ok && before !== undefined) await kv.set(key, before.value)
    return result
  }) as unknown as KV[Verb]
}
