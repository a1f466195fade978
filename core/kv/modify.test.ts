import { describe, expect, expectTypeOf, test } from 'vitest'
import { memory } from '../stores/memory.ts'
import { counting, faulty, intercept, testClock } from '../testing/index.ts'
import { json, text } from './codec.ts'
import type { ModifyResult } from './join.ts'
import type { KV } from './kv.ts'
import { modifier, modify, modifyLimits, type World } from './modify.ts'
import { scoped } from './scoped.ts'

const number = json<number>()
const increment = (value = 0): number => value + 1
/** Lets the event loop go round, so that what has been sent arrives. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
/** A store as far away as a few turns of the event loop. */
const distant = (kv: KV, turns = 3): KV =>
  intercept(kv, async (_call, next) => {
    for (let index = 0; index < turns; index++) await turn()
    const answer = await next()
    for (let index = 0; index < turns; index++) await turn()
    return answer
  })

/** Time that passes when the test says so, and a jitter that the test draws. */
function handWorld(random = 0): World & { pass(ms: number): void; readonly delays: number[] } {
  let now = 0
  let timers: { at: number; callback: () => void }[] = []
  const delays: number[] = []
  return {
    delays,
    random: () => random,
    clock: () => now,
    after(ms, callback, idle) {
      const timer = { at: now + ms, callback }
      if (!idle) delays.push(ms)
      timers.push(timer)
      return () => {
        timers = timers.filter((other) => other !== timer)
      }
    },
    pass(ms) {
      now += ms
      const due = timers.filter(({ at }) => at <= now)
      timers = timers.filter(({ at }) => at > now)
      for (const { callback } of due) callback()
    },
  }
}

describe('modify, alone', () => {
  test('makes an absent entry, changes a present one, and leaves it when the function answers undefined', async () => {
    const kv = scoped(memory(), 'n', { codec: number })
    expect(await modify(kv, 'a', increment)).toMatchObject({ changed: true, entry: { value: 1 } })
    expect(await modify(kv, 'a', increment)).toMatchObject({ changed: true, entry: { value: 2 } })
    const before = (await kv.get('a')).entry
    expect(await modify(kv, 'a', () => undefined)).toMatchObject({ changed: false, entry: before })
    expect(await modify(kv, 'b', () => undefined)).toMatchObject({ changed: false, entry: undefined })
    expect((await kv.get('b')).entry).toBeUndefined()
  })
  test('gives the function the entry and the store clock', async () => {
    const clock = testClock()
    const kv = scoped(memory({ clock }), 'n', { codec: number })
    const { entry } = await modify(kv, 'a', increment)
    await clock.advance('5s')
    await modify(kv, 'a', (value, context) => {
      expect(value).toBe(1)
      expect(context).toMatchObject({ now: clock.now(), attempt: 1, entry: { version: entry?.version, value: 1 } })
      return undefined
    })
  })
  test('what the function throws rejects its caller and changes nothing', async () => {
    const kv = scoped(memory(), 'n', { codec: number })
    await expect(
      modify(kv, 'a', () => {
        throw new TypeError('mine')
      }),
    ).rejects.toThrow(new TypeError('mine'))
    expect((await kv.get('a')).entry).toBeUndefined()
  })
  test('a function that answers with a promise is refused', async () => {
    const kv = scoped(memory(), 'n', { codec: json<unknown>() })
    await expect(modify(kv, 'a', (async () => 1) as never)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  })
  test('keeps the expiry by default (C3), and does with it what it is told', async () => {
    const clock = testClock()
    const kv = scoped(memory({ clock }), 'n', { codec: number })
    const expiresAt = async (): Promise<number | undefined> => {
      const { entry } = await kv.get('a')
      return entry?.expiresAt === undefined ? undefined : entry.expiresAt - clock.now()
    }
    await modify(kv, 'a', increment, { ttl: '10s' })
    await clock.advance('4s')
    await modify(kv, 'a', increment)
    expect(await expiresAt()).toBe(6_000)
    await modify(kv, 'a', increment, { expiry: { set: '9s' } })
    expect(await expiresAt()).toBe(9_000)
    await modify(kv, 'a', increment, { expiry: { extend: '3s' } })
    expect(await expiresAt()).toBe(9_000)
    await modify(kv, 'a', increment, { expiry: 'never' })
    expect(await expiresAt()).toBeUndefined()
  })
  test('an entry that dies between read and write is made anew (C4)', async () => {
    const clock = testClock()
    const store = memory({ clock })
    let isFirst = true
    const kv = scoped(
      intercept(store, async (call, next) => {
        if (call.verb === 'update' && isFirst) {
          isFirst = false
          await clock.advance('10s')
        }
        return await next()
      }),
      'n',
      { codec: number },
    )
    await kv.create('a', 41, { ttl: '10s' })
    expect(await modify(kv, 'a', increment, { ttl: '1m' })).toMatchObject({ entry: { value: 1 } })
  })
  test('has the type of the store', () => {
    const kv = scoped(memory(), 'n', { codec: number })
    expectTypeOf(modify(kv, 'a', increment)).toEqualTypeOf<Promise<ModifyResult<number>>>()
  })
})

describe('modify, joined (G11)', () => {
  test('400 callers of one key take at most 0.05 store calls an update (G42), and each gets its own result in order of arrival', async () => {
    const counted = counting(distant(memory()))
    const kv = scoped(counted, 'n', { codec: number })
    const rounds = 10
    let updates = 0
    for (let round = 0; round < rounds; round++) {
      const results = await Promise.all(Array.from({ length: 400 }, () => modify(kv, 'hot', increment)))
      updates += results.length
      expect(results.map(({ entry }) => entry?.value)).toEqual(Array.from({ length: 400 }, (_, index) => round * 400 + index + 1))
    }
    expect((await kv.get('hot')).entry?.value).toBe(4_000)
    expect(counted.counts().total / updates).toBeLessThanOrEqual(0.05)
  })
  test('joins callers through different views of one store', async () => {
    const counted = counting(distant(memory()))
    const views = Array.from({ length: 50 }, () => scoped(counted, 'n', { codec: number }))
    await Promise.all(views.map((view) => modify(view, 'hot', increment)))
    expect(counted.counts().total).toBeLessThanOrEqual(4)
    expect((await scoped(counted, 'n', { codec: number }).get('hot')).entry?.value).toBe(50)
  })
  test('callers with different codecs see each other’s changes', async () => {
    const root = distant(memory())
    const asText = scoped(root, 'n', { codec: text })
    const asNumber = scoped(root, 'n', { codec: number })
    const results = await Promise.all([
      modify(asNumber, 'a', increment),
      modify(asText, 'a', (value) => `${value}5`),
      modify(asNumber, 'a', increment),
    ])
    expect(results.map(({ entry }) => entry?.value)).toEqual([1, '15', 16])
  })
  test('one whose function throws, or whose value cannot be stored, fails alone', async () => {
    const kv = scoped(distant(memory()), 'n', { codec: json<number>() })
    const results = await Promise.allSettled([
      modify(kv, 'a', increment),
      modify(kv, 'a', () => {
        throw new Error('mine')
      }),
      modify(kv, 'a', () => Number.NaN),
      modify(kv, 'a', increment),
    ])
    expect(
      results.map((result) => (result.status === 'fulfilled' ? result.value.entry?.value : (result.reason.code ?? result.reason.message))),
    ).toEqual([1, 'mine', 'VALUE_INVALID', 2])
    expect((await kv.get('a')).entry?.value).toBe(2)
  })
  test('the version of a state that the store never held updates nothing', async () => {
    const kv = scoped(distant(memory()), 'n', { codec: number })
    const [first, second] = await Promise.all([modify(kv, 'a', increment), modify(kv, 'a', increment)])
    expect(await kv.update('a', 100, { ifVersion: first.entry!.version })).toMatchObject({ refusal: 'version' })
    expect(await kv.update('a', 100, { ifVersion: second.entry!.version })).toMatchObject({ ok: true })
  })
  test('one that leaves before its turn is taken out, and the others are served', async () => {
    const kv = scoped(distant(memory()), 'n', { codec: number })
    const controller = new AbortController()
    const first = modify(kv, 'a', increment)
    const left = modify(kv, 'a', increment, { signal: controller.signal })
    const third = modify(kv, 'a', increment)
    controller.abort(new Error('gone'))
    await expect(left).rejects.toMatchObject({ code: 'ABORTED', cause: new Error('gone') })
    expect([(await first).entry?.value, (await third).entry?.value]).toEqual([1, 2])
  })
  test('a signal that fired already, and nonsense, are refused at once', async () => {
    const kv = memory()
    await expect(modify(kv, 'a', () => undefined, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' })
    await expect(modify(kv, '', () => undefined)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    await expect(modify(kv, 'a', 5 as never)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    await expect(modify(kv, 'a', () => undefined, { deadline: 0 })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  })
  test('more callers than may wait are told BUSY', async () => {
    const kv = scoped(distant(memory(), 1), 'n', { codec: number })
    const results = await Promise.allSettled(
      Array.from({ length: modifyLimits.waitingMax + modifyLimits.batchMax + 10 }, () => modify(kv, 'hot', increment)),
    )
    const refused = results.filter((result) => result.status === 'rejected')
    expect(refused.length).toBeGreaterThan(0)
    for (const { reason } of refused as PromiseRejectedResult[]) expect(reason).toMatchObject({ code: 'BUSY' })
    expect((await kv.get('hot')).entry?.value).toBe(results.length - refused.length)
  })
  test('a frozen value cannot be changed under the others', async () => {
    const kv = scoped(memory(), 'n', { codec: json<{ list: number[] }>() })
    await kv.create('a', { list: [1] })
    await expect(
      modify(kv, 'a', (value) => {
        value!.list.push(2)
        return value
      }),
    ).rejects.toThrow(TypeError)
    expect((await kv.get('a')).entry?.value).toEqual({ list: [1] })
  })
})

describe('modify, between processes', () => {
  /** Each `modifier` is a process of its own: it joins nobody else’s callers. */
  const processes = (count: number, make: () => World) => Array.from({ length: count }, () => modifier(make()))

  test('loses no update, and the loser goes on from the entry that its refusal brings', async () => {
    const counted = counting(distant(memory(), 1))
    const kv = scoped(counted, 'n', { codec: number })
    const each = 25
    const world = (): World => ({
      random: () => 0,
      clock: () => 0,
      after: (_ms, callback, idle) => (idle || setImmediate(callback), () => undefined),
    })
    await Promise.all(
      processes(4, world).map(async (process) => {
        for (let index = 0; index < each; index++) await process(kv, 'hot', increment, { deadline: '1h' })
      }),
    )
    expect((await kv.get('hot')).entry?.value).toBe(4 * each)
  })
  test('backs off with full jitter: a random part of 1, 2, 4 ... at most 50 ms', async () => {
    const world = handWorld(0.999)
    const store = memory()
    let rivals = 8
    const kv = intercept(store, async (call, next) => {
      if (call.verb === 'update' && rivals-- > 0) await store.set('a', Uint8Array.of(rivals + 100))
      return await next()
    })
    await store.create('a', Uint8Array.of(0))
    const done = modifier(world)(kv, 'a', (value) => Uint8Array.of((value?.[0] ?? 0) + 1), { deadline: '1h' })
    for (let index = 0; index < 200; index++) {
      await turn()
      world.pass(50)
    }
    await done
    expect(world.delays.length).toBeGreaterThanOrEqual(6)
    expect(world.delays[0]).toBeLessThanOrEqual(2)
    expect(Math.max(...world.delays)).toBeLessThanOrEqual(50)
    expect(world.delays.slice(0, 5)).toEqual(world.delays.slice(0, 5).sort((a, b) => a - b))
  })
  test('gives up at its deadline, and says that others were faster', async () => {
    const world = handWorld(0.5)
    const store = memory()
    await store.create('a', Uint8Array.of(0))
    const kv = intercept(store, async (call, next) => {
      if (call.verb === 'update') await store.set('a', Uint8Array.of(9))
      return await next()
    })
    const outcome = modifier(world)(kv, 'a', () => Uint8Array.of(1), { deadline: '200ms' }).catch((error: unknown) => error)
    for (let index = 0; index < 100; index++) {
      await turn()
      world.pass(5)
    }
    expect(await outcome).toMatchObject({ code: 'CONTENTION', retry: 'safe' })
  })
})

describe('modify, when the outcome is unknown', () => {
  test('repeats the write under its request id, and counts once', async () => {
    const store = memory()
    const flaky = faulty(store, { seed: 1, on: (call) => (call.verb !== 'get' && call.nth <= 2 ? 'unknown-after' : 'pass') })
    const kv = scoped(flaky, 'n', { codec: number })
    expect(await modify(kv, 'a', increment)).toMatchObject({ changed: true, entry: { value: 1 } })
    expect((await kv.get('a')).entry?.value).toBe(1)
    expect(await modify(kv, 'a', increment)).toMatchObject({ entry: { value: 2 } })
  })
  test('tells the callers when the store knows no request ids', async () => {
    const store = memory()
    const plain: KV = { ...store, capabilities: { ...store.capabilities, requestIds: false } }
    const kv = scoped(faulty(plain, { seed: 1, on: (call) => (call.verb === 'get' ? 'pass' : 'unknown-after') }), 'n', { codec: number })
    await expect(modify(kv, 'a', increment)).rejects.toMatchObject({ code: 'UNKNOWN_OUTCOME' })
  })
  test('leaves a hot record with a handful of remembered requests', async () => {
    const kv = scoped(memory(), 'n', { codec: number })
    for (let index = 0; index < 3_000; index++) await modify(kv, 'hot', increment)
    expect((await kv.get('hot')).entry?.value).toBe(3_000)
  })
})
