/** Windowed counts against a list of all events; sharded counts: exact adds, sums that say that they are not exact (C7). */
import fc from 'fast-check'
import { describe, expect, expectTypeOf, test } from 'vitest'
import { memory } from '../../core/stores/memory.ts'
import { testClock } from '../../core/testing/clock.ts'
import { faulty, type Verdict } from '../../core/testing/faulty.ts'
import { sharded } from './sharded.ts'
import { ended, world } from './testdata/world.ts'
import type { ShardedCount } from './types.ts'
import { windowed } from './windowed.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)
const upTo = (n: number): number[] => Array.from({ length: n }, (_, index) => index + 1)

describe('a windowed count', () => {
  test('counts what happened in the last window, in one record and one write (P2)', async () => {
    const { kv, clock } = world()
    const visits = windowed({ kv, name: 'visits', window: '5m', parts: 10 })
    expect(await visits.add('home', 1)).toEqual({ ok: true, value: 1, repeated: false })
    await clock.advance('4m')
    expect(await visits.add('home', 2)).toMatchObject({ value: 3 })
    expect(await visits.get('home')).toMatchObject({ value: 3, atLeast: 3, now: clock.now() })
    await clock.advance('90s')
    expect(await visits.get('home')).toMatchObject({ value: 2, atLeast: 2 })
    await clock.advance('5m')
    expect(await visits.get('home')).toMatchObject({ value: 0, atLeast: 0 })
    expect(kv.counts()).toMatchObject({ create: 1, update: 1 })
  })

  test(`is exact since \`since\`, and the last window's count lies within its bounds, at every instant (seed ${seed}) (P2)`, async () => {
    const steps = fc.array(fc.record({ ms: fc.integer({ min: 0, max: 700 }), delta: fc.integer({ min: 1, max: 9 }) }), { maxLength: 40 })
    await fc.assert(
      fc.asyncProperty(steps, fc.integer({ min: 1, max: 6 }), async (all, parts) => {
        const clock = testClock()
        const windowMs = 120 * parts
        const visits = windowed({ kv: memory({ clock }), name: 'v', window: windowMs, parts })
        const events: { readonly at: number; readonly delta: number }[] = []
        const since = (instant: number): number => events.reduce((sum, { at, delta }) => (at >= instant ? sum + delta : sum), 0)
        for (const { ms, delta } of all) {
          await clock.advance(ms)
          const { value } = await visits.add('a', delta)
          events.push({ at: clock.now(), delta })
          const seen = await visits.get('a')
          expect(value).toBe(seen.value)
          expect(seen.value).toBe(since(seen.since))
          expect(clock.now() - seen.since).toBeGreaterThanOrEqual(windowMs)
          expect(clock.now() - seen.since).toBeLessThan(windowMs + 120)
          const exact = since(clock.now() - windowMs + 1)
          expect(exact).toBeGreaterThanOrEqual(seen.atLeast)
          expect(exact).toBeLessThanOrEqual(seen.value)
        }
      }),
      { seed, numRuns: 200 },
    )
  })

  test('counts a repeated request once, also after it has left the window (C1)', async () => {
    const { kv, clock, process } = world()
    const visits = windowed({ kv, name: 'v', window: '1m', parts: 6, remember: '10m' })
    const first = await visits.add('a', 3, { requestId: 'r' })
    await clock.advance('5m')
    const other = windowed({ kv, name: 'v', window: '1m', parts: 6, modify: process() })
    expect(await ended(clock, other.add('a', 3, { requestId: 'r' }))).toEqual({ ...first, repeated: true })
    expect(await visits.get('a')).toMatchObject({ value: 0 })
    await expect(visits.add('a', 4, { requestId: 'r' })).rejects.toMatchObject({ code: 'REQUEST_ID_REUSED' })
  })

  test('takes its record along when nothing is left in it', async () => {
    const { kv, clock } = world()
    await windowed({ kv, name: 'v', window: '1m', parts: 6 }).add('a', 1)
    await clock.advance(69_999)
    expect((await kv.get('window:v.60000.6:a')).entry).toBeDefined()
    await clock.advance(1)
    expect((await kv.get('window:v.60000.6:a')).entry).toBeUndefined()
  })

  test('counts on when the clock steps back', async () => {
    const { kv, clock } = world()
    const visits = windowed({ kv, name: 'v', window: '1m', parts: 6 })
    await visits.add('a', 1)
    clock.set(clock.now() - 30_000)
    expect(await visits.add('a', 1)).toMatchObject({ value: 2 })
    expect(await visits.get('a')).toMatchObject({ value: 2 })
  })

  test('of other parts or another window counts apart, so processes that disagree do not spoil each other (P12)', async () => {
    const { kv } = world()
    await windowed({ kv, name: 'v', window: '1m', parts: 6 }).add('a', 1)
    expect(await windowed({ kv, name: 'v', window: '1m', parts: 10 }).get('a')).toMatchObject({ value: 0 })
  })

  test.each([0, -1, 0.5, NaN, 2 ** 53])('refuses %s (C9)', async (delta) => {
    await expect(windowed({ kv: memory(), name: 'v', window: '1m' }).add('a', delta)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  })

  test('throws beyond 2^53 - 1 and counts nothing (C8)', async () => {
    const visits = windowed({ kv: memory(), name: 'v', window: '1m' })
    await visits.add('a', Number.MAX_SAFE_INTEGER)
    await expect(visits.add('a', 1)).rejects.toMatchObject({ code: 'COUNTER_OVERFLOW' })
    expect(await visits.get('a')).toMatchObject({ value: Number.MAX_SAFE_INTEGER })
  })

  test.each([{ parts: 0 }, { parts: 1_001 }, { parts: 7 }, { window: 0 }, { window: 1, parts: 2 }])('refuses %o', (options) => {
    expect(() => windowed({ kv: memory(), name: 'v', window: '1m', ...options })).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    )
  })

  test('refuses a store of several homes a key (C11)', () => {
    const kv = memory()
    const both = { ...kv, capabilities: { ...kv.capabilities, sites: 'many' as const } }
    expect(() => windowed({ kv: both, name: 'v', window: '1m' })).toThrow(expect.objectContaining({ code: 'CAPABILITY_MISSING' }))
    expect(() => sharded({ kv: both, name: 'v', shards: 2 })).toThrow(expect.objectContaining({ code: 'CAPABILITY_MISSING' }))
  })
})

describe('a sharded count', () => {
  test('counts every add of 8 processes once, and says that its sum is not exact (C7)', async () => {
    const { kv, clock, process } = world()
    const all = upTo(8).map((n) => sharded({ kv, name: 'likes', shards: 8, modify: process(n), random: () => (n - 1) / 8 }))
    const added = await ended(clock, Promise.all(upTo(400).map((n) => all[n % 8]!.add('post', n % 2 === 0 ? 2 : -1))))
    expect(added[0]).toEqual({ ok: true, exact: false, repeated: false })
    expect(await all[0]!.get('post')).toEqual({ value: 200, exact: false, now: clock.now() })
    // Each process had a shard of its own: one read and one write for its fifty callers.
    expect(kv.counts()).toMatchObject({ get: 8, create: 8, update: 0 })
  })

  test('has a sum that need be no number that the count ever had: its type says so (C7)', async () => {
    const { kv } = world()
    const here = sharded({ kv, name: 'n', shards: 2, random: () => 0 })
    const there = sharded({ kv, name: 'n', shards: 2, random: () => 0.9 })
    await here.add('a', 1)
    expectTypeOf<ShardedCount['exact']>().toEqualTypeOf<false>()
    expectTypeOf<keyof Awaited<ReturnType<typeof here.add>>>().toEqualTypeOf<'ok' | 'exact' | 'repeated'>()
    await there.add('a', 1)
    expect(await there.get('a')).toMatchObject({ value: 2, exact: false })
  })

  test('finds a repeated request in its shard, whichever process sends it (C1)', async () => {
    const { kv, process } = world()
    const here = sharded({ kv, name: 'n', shards: 16, random: () => 0 })
    const there = sharded({ kv, name: 'n', shards: 16, random: () => 0.9, modify: process() })
    for (const n of upTo(50)) expect(await here.add('a', n, { requestId: `r${n}` })).toMatchObject({ repeated: false })
    for (const n of upTo(50)) expect(await there.add('a', n, { requestId: `r${n}` })).toMatchObject({ repeated: true })
    expect(await here.get('a')).toMatchObject({ value: 1_275 })
    const shardsUsed = (await kv.getMany(upTo(16).map((n) => `sharded:n:a#${n - 1}`))).entries.size
    expect(shardsUsed).toBeGreaterThan(8)
  })

  test('moves to the shard beside when others are always faster', async () => {
    const { kv, clock, process } = world()
    const rival = sharded({ kv, name: 'n', shards: 2, random: () => 0, modify: process(2) })
    await rival.add('a', 1)
    const raced = faulty(kv, {
      clock,
      on: async ({ verb, key }): Promise<Verdict> => {
        if (verb === 'update' && key.endsWith('#0')) await rival.add('a', 1)
        return { delay: 1 }
      },
    })
    const slow = sharded({ kv: raced, name: 'n', shards: 2, random: () => 0, modify: process(1) })
    await expect(ended(clock, slow.add('a', 100, { deadline: 50 }))).rejects.toMatchObject({
      code: expect.stringMatching(/CONTENTION|UNKNOWN/),
    })
    const once = await ended(
      clock,
      slow.add('a', 100, { deadline: 500 }).catch(() => slow.add('a', 100, { deadline: 500 })),
    )
    expect(once).toMatchObject({ ok: true })
  })

  test('keeps keys apart that look like shards, and may get more shards', async () => {
    const { kv } = world()
    const few = sharded({ kv, name: 'n', shards: 2 })
    await few.add('a', 1)
    await few.add('a#1', 10)
    const more = sharded({ kv, name: 'n', shards: 8 })
    await more.add('a', 100)
    expect(await more.get('a')).toMatchObject({ value: 101 })
    expect(await more.get('a#1')).toMatchObject({ value: 10 })
  })

  test('reads its shards within what getMany takes at once', async () => {
    const kv = memory({ limits: { getManyMax: 3 } })
    const n = sharded({ kv, name: 'n', shards: 8 })
    for (const id of upTo(20)) await n.add('a', 1, { requestId: `${id}` })
    expect(await n.get('a')).toMatchObject({ value: 20 })
  })

  test('throws when its sum is beyond what a number can say (C8)', async () => {
    const kv = memory()
    await sharded({ kv, name: 'n', shards: 2, random: () => 0 }).add('a', Number.MAX_SAFE_INTEGER)
    await sharded({ kv, name: 'n', shards: 2, random: () => 0.5 }).add('a', 1)
    await expect(sharded({ kv, name: 'n', shards: 2 }).get('a')).rejects.toMatchObject({ code: 'COUNTER_OVERFLOW' })
  })

  test.each([0, 257, 1.5])('refuses %s shards', (shards) => {
    expect(() => sharded({ kv: memory(), name: 'n', shards })).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  })
  test.each([0, NaN, 0.5])('refuses to add %s (C9)', async (delta) => {
    await expect(sharded({ kv: memory(), name: 'n', shards: 2 }).add('a', delta)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    await expect(sharded({ kv: memory(), name: 'n', shards: 2 }).add('', 1)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  })
})
