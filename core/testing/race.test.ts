/** The race runs every order of store calls, finds a lost update, and shows the order again. */
import { expect, test } from 'vitest'
import type { KV } from '../kv/kv.ts'
import { memory } from '../stores/memory.ts'
import { testClock } from './clock.ts'
import { race, races, type Actor } from './race.ts'

const zero = Uint8Array.of(0)
/** Adds one without a condition: loses updates when another comes between. */
const carelessly: Actor = async (kv) => {
  const { entry } = await kv.get('n')
  await kv.set('n', Uint8Array.of((entry?.value[0] ?? 0) + 1))
}
/** Adds one, if nobody came between. */
const carefully: Actor = async (kv) => {
  for (;;) {
    const { entry } = await kv.get('n')
    if (!entry) throw new Error('n is gone')
    const updated = await kv.update('n', Uint8Array.of((entry.value[0] ?? 0) + 1), { ifVersion: entry.version })
    if (updated.ok) return
  }
}
const counter = async () => {
  const kv = memory()
  await kv.create('n', zero)
  return kv
}
const total = async (kv: KV) => (await kv.get('n')).entry?.value[0]

test('races runs every order of two actors with two calls each: six', async () => {
  const orders = new Set<string>()
  const ran = await races({ make: counter, check: ({ order }) => void orders.add(order.join('')) }, () => [carelessly, carelessly])
  expect(ran).toEqual({ runs: 6, exhaustive: true })
  expect(orders).toEqual(new Set(['0011', '0101', '0110', '1001', '1010', '1100']))
})

test('races finds a lost update and names a schedule that shows it again', async () => {
  const check = async (_race: unknown, kv: KV) => expect(await total(kv)).toBe(2)
  const error = await races({ make: counter, check }, () => [carelessly, carelessly]).catch((caught: Error) => caught)
  expect(String(error)).toMatch(/seed 1, schedule \[/)
  const schedule = /schedule \[([^\]]*)\]/.exec(String(error))?.[1]?.split(', ').map(Number) ?? []
  const kv = await counter()
  await race({ kv, schedule }, [carelessly, carelessly])
  expect(await total(kv)).toBe(1)
})

test('races finds nothing when every write is conditional', async () => {
  const check = async (_race: unknown, kv: KV) => expect(await total(kv)).toBe(3)
  const ran = await races({ make: counter, check, runs: 200 }, () => [carefully, carefully, carefully])
  expect(ran).toEqual({ runs: 200, exhaustive: false })
})

test('one seed gives one order; seeds together give several', async () => {
  const orderOf = async (seed: number) => (await race({ kv: await counter(), seed }, [carelessly, carelessly, carelessly])).order.join('')
  expect(await orderOf(9)).toBe(await orderOf(9))
  expect(new Set(await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(orderOf))).size).toBeGreaterThan(2)
})

test('time passes when all actors wait for it, and an actor may move it at a point of its own', async () => {
  const clock = testClock(0)
  const kv = memory({ clock })
  const waits: Actor = async (store) => {
    await store.create('lease', zero, { ttl: '10s' })
    await clock.sleep('10s')
    return (await store.get('lease')).entry === undefined
  }
  const { results } = await race({ kv, clock, seed: 2 }, [waits])
  expect(results).toEqual([{ status: 'fulfilled', value: true }])
  const jumps: Actor = async (_kv, point) => {
    await point()
    clock.set(99_000)
  }
  expect((await race({ kv, clock, schedule: [1, 0] }, [(store) => store.get('lease'), jumps])).results[0]).toMatchObject({
    value: { now: 99_000 },
  })
})

test('an actor that throws is a result, not the end of the race', async () => {
  const { results } = await race({ kv: await counter() }, [
    async () => {
      throw new Error('no')
    },
    carefully,
  ])
  expect(results.map(({ status }) => status)).toEqual(['rejected', 'fulfilled'])
})
