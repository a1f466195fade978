/** A store that is away, slow or damaged: readers get the right value or the loader's error, and wait no longer than was said. */
import { describe, expect, test } from 'vitest'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import { settle } from '../../core/testing/clock.ts'
import { faulty, intercept } from '../../core/testing/index.ts'
import { world } from './testdata/world.ts'

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
