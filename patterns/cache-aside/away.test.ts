/** A store that is away, slow or damaged: readers get the right value or the loader's error, and wait no longer than was said. */
import { describe, expect, test } from 'vitest'
import { isKvError, KvError, type KvErrorCode } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import { settle } from '../../core/testing/clock.ts'
import { faulty, intercept } from '../../core/testing/index.ts'
import { entryKeyOf } from './identity.ts'
import { eventsOf, world } from './testdata/world.ts'

describe('a store that is away', () => {
  test('is passed by: readers get the value of the source, once a key at a time, kept for `fresh`', async () => {
    const { clock, store, source, process } = world()
    const users = process({ fresh: '1s' }, faulty(store, { unavailable: 1 }))
    expect(await Promise.all([users.get('42'), users.get('42')])).toEqual(['no 42', 'no 42'])
    await users.get('42')
    expect(source.loads).toBe(1)
    await clock.advance('1s')
    await users.get('42')
    expect(source.loads).toBe(2)
  })
  test('is not asked for a while after it has failed three times, and then again', async () => {
    const { clock, store, process } = world()
    let calls = 0
    let isAway = true
    const kv = intercept(store, async (_call, run) => {
      calls++
      if (isAway) throw new KvError('UNAVAILABLE')
      return await run()
    })
    const users = process({}, kv)
    for (let nth = 0; nth < 10; nth++) await users.get(`key ${nth}`)
    expect(calls).toBe(3)
    isAway = false
    await clock.advance('1s')
    await users.get('42')
    expect(calls).toBeGreaterThan(3)
  })
  test('for leases alone is passed by and told: what was loaded without one is never written (K1)', async () => {
    const { store, source, process } = world()
    const kv = faulty(store, { on: ({ verb, key }) => (verb === 'create' && key === entryKeyOf('user', '42') ? 'unavailable' : 'pass') })
    const events = await eventsOf(async () => expect(await process({}, kv).get('42')).toBe('no 42'))
    expect(events.map(({ type, leased }) => (leased === undefined ? type : `${type} ${leased}`))).toEqual([
      'store-error',
      'load false',
      'past',
    ])
    expect((await store.get(entryKeyOf('user', '42'))).entry).toBeUndefined()
    expect(await process().get('42')).toBe('no 42')
    expect(source.loads).toBe(2)
  })
  test('keeps what a load past it brings out of memory, when it was invalidated meanwhile (K1, K6)', async () => {
    const { clock, store, source, process } = world()
    let isAway = true
    const kv = intercept(store, async (_call, run) => {
      if (isAway) throw new KvError('UNAVAILABLE')
      return await run()
    })
    for (const comesBack of [false, true]) {
      isAway = true
      const users = process({ fresh: '1h' }, kv)
      source.rows.set('42', 'old')
      source.delayMs = 5_000
      const before = users.get('42')
      await settle()
      source.rows.set('42', 'new')
      expect(await users.invalidate('42')).toMatchObject({ done: false })
      isAway = !comesBack
      await clock.advance('5s')
      expect(users.pendingInvalidations).toBe(comesBack ? 0 : 1)
      expect(await before).toBe('old')
      source.delayMs = 0
      expect(await users.get('42')).toBe('new')
    }
  })
  test('lets nobody join a load past it that began before they came (K1)', async () => {
    const { clock, store, source, process } = world()
    const [one, two] = [process({}, faulty(store, { unavailable: 1 })), process()]
    for (const key of ['a', 'b', 'c']) await one.get(key) // from here on the store is not even asked
    source.rows.set('42', 'old')
    source.delayMs = 500
    const before = one.get('42')
    await settle()
    source.rows.set('42', 'new')
    await two.invalidate('42')
    const after = one.get('42')
    await clock.advance('2s')
    expect([await before, await after]).toEqual(['old', 'new'])
  })
  test('only now and then is asked each time', async () => {
    const { store, process } = world()
    const kv = faulty(store, { on: ({ verb, nth }) => (verb === 'getMany' && nth % 3 !== 0 ? 'unavailable' : 'pass') })
    const users = process({}, kv)
    for (let nth = 0; nth < 12; nth++) await users.get('42')
    expect(kv.counts().unavailable).toBe(8)
  })
  test('slowly takes an invalidation: memory is empty at once, and what is read before the answer does not stay (K1, K7)', async () => {
    const { clock, store, source, process } = world()
    const kv = intercept(store, async (call, run) => {
      if (call.verb === 'set') await clock.sleep('100ms')
      return await run()
    })
    const users = process({ fresh: '1h' }, kv)
    await users.get('42')
    await users.settled()
    source.rows.set('42', 'new')
    const invalidated = users.invalidate('42')
    expect(users.peek('42')).toBeUndefined()
    expect(await users.get('42')).toBe('no 42') // the invalidation has not reached the store
    await clock.advance('100ms')
    expect(await invalidated).toEqual({ done: true })
    expect(await users.get('42')).toBe('new')
  })
  test('whose answer was on the way while a repeated invalidation came through does not fill memory with it (K6, K7)', async () => {
    const { clock, store, source, process } = world()
    const load = (key: string, { tag }: { tag(name: string): void }) => (tag('team'), source.load(key))
    let isSlow = false
    let isFirst = true
    let answer = (): void => {}
    const kv = intercept(store, async (call, run) => {
      if (isSlow && call.verb === 'get' && isFirst) {
        isFirst = false
        throw new KvError('UNAVAILABLE')
      }
      const result = await run()
      if (isSlow && call.verb === 'getMany') await new Promise<void>((resolve) => (answer = resolve))
      return result
    })
    const users = process({ fresh: '1h', load }, kv)
    await users.get('42') // from here on its tags are known, and read with it
    await users.settled()
    isSlow = true
    source.rows.set('42', 'new')
    expect(await users.invalidateTag('team')).toMatchObject({ done: false })
    const before = users.get('42')
    await clock.advance('100ms')
    expect(users.pendingInvalidations).toBe(0)
    isSlow = false
    answer()
    await before
    expect(await users.get('42')).toBe('new')
  })
  test('for ever ends the repetitions of what it did not take (K6)', async () => {
    const { clock, store, process } = world()
    let code: KvErrorCode = 'UNAVAILABLE'
    const users = process(
      {},
      intercept(store, async () => {
        throw new KvError(code)
      }),
    )
    await users.invalidate('42')
    expect(users.pendingInvalidations).toBe(1)
    code = 'CLOSED'
    const events = await eventsOf(() => clock.advance('1s'))
    expect(events).toMatchObject([{ type: 'store-error', cause: { code: 'CLOSED' } }])
    expect(users.pendingInvalidations).toBe(0)
  })
  test('that never answers holds nobody up longer than `storeDeadline`', async () => {
    const { clock, store, process } = world()
    const users = process({ storeDeadline: '200ms' }, faulty(store, { on: () => 'stop-before' }))
    const got = users.get('42')
    await clock.advance('200ms')
    expect(await got).toBe('no 42')
  })
  test('with one record that is damaged on its disk keeps the others of the same turn', async () => {
    const { store, source, process } = world()
    const kv: KV = {
      ...store,
      getMany: async (keys, options) => {
        if (keys.includes(bad)) throw new KvError('DAMAGED')
        return await store.getMany(keys, options)
      },
    }
    let bad = ''
    await process({}, { ...store, create: async (key, ...rest) => ((bad = key), await store.create(key, ...rest)) }).get('bad')
    await process().get('good')
    const before = source.loads
    expect(await process({}, kv).getMany(['good', 'bad'])).toEqual(['no good', 'no bad'])
    expect(source.loads - before).toBe(1)
  })
})

test('with random faults of the store every read ends with the right value or the loader’s error', async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const { clock, store, source, process } = world()
    const kv = faulty(store, {
      seed,
      clock,
      unknownBeforeApply: 0.05,
      unknownAfterApply: 0.05,
      unknownApplyLater: 0.05,
      unavailable: 0.05,
      busy: 0.05,
      delay: { chance: 0.1, duration: '300ms' },
    })
    const processes = [process({}, kv), process({}, kv)]
    for (let row = 1; row <= 10; row++) {
      source.rows.set('42', String(row))
      for (const users of processes) await advancing(clock.advance, users.invalidate('42'))
      while (processes.some((users) => users.pendingInvalidations > 0)) await clock.advance('1s')
      for (const users of processes)
        expect(
          await advancing(
            clock.advance,
            users.get('42').catch((error: unknown) => isKvError(error, 'LOAD_TIMEOUT') && String(row)),
          ),
        ).toBe(String(row))
    }
  }
})

async function advancing<T>(advance: (ms: number) => Promise<void>, work: Promise<T>): Promise<T> {
  let isOver = false
  void work.then(
    () => (isOver = true),
    () => (isOver = true),
  )
  for (let rounds = 0; !isOver && rounds < 1_000; rounds++) await advance(100)
  return await work
}
