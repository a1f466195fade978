/** Several processes over one store: one load for all, what the others get meanwhile, and what is written back. */
import { describe, expect, test } from 'vitest'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import { memory } from '../../core/stores/memory.ts'
import { settle } from '../../core/testing/clock.ts'
import { counting, faulty, intercept, race, testClock } from '../../core/testing/index.ts'
import { cache } from './cache.ts'
import { notFound } from './types.ts'
import { eventsOf, world } from './testdata/world.ts'

/** The write-back of a loaded value, told from a lease by its content. */
const isWriteBack = (value: unknown): boolean => value instanceof Uint8Array && new TextDecoder().decode(value).includes('"hd":["value"')

describe('a cold key', () => {
  test('is loaded once by 4 processes with 500 readers each (K2)', async () => {
    const { clock, source, process } = world()
    source.delayMs = 300
    source.rows.set('42', 'Ada')
    const readers = [process(), process(), process(), process()].flatMap((users) => Array.from({ length: 500 }, () => users.get('42')))
    const all = Promise.all(readers)
    await clock.advance('1s')
    expect(new Set(await all)).toEqual(new Set(['Ada']))
    expect(source.loads).toBe(1)
  })
  test('is loaded once in whatever order the calls of the store fall (K2)', async () => {
    for (let seed = 1; seed <= 200; seed++) {
      const { clock, store, source, process } = world()
      source.delayMs = 50
      const actor = async (kv: KV): Promise<unknown> => await process({}, kv).get('42')
      const { results } = await race({ kv: store, clock, seed }, [actor, actor, actor])
      expect(results.map((result) => result.status === 'fulfilled' && result.value)).toEqual(['no 42', 'no 42', 'no 42'])
      expect(source.loads, `seed ${seed}`).toBe(1)
    }
  })
  test('is waited for by all readers of a process together, whenever they come (K2)', async () => {
    const { clock, store, source, process } = world()
    source.delayMs = 1_000
    const holder = process().get('42')
    await settle()
    const counted = counting(store)
    const users = process({}, counted)
    const waiting: Promise<string>[] = []
    for (let nth = 0; nth < 10; nth++) {
      waiting.push(users.get('42'))
      await clock.advance('50ms')
    }
    await clock.advance('1s')
    await Promise.all([holder, ...waiting])
    await settle()
    const { getMany } = counted.counts()
    await users.get('42')
    expect(counted.counts().getMany).toBe(getMany + 1) // nobody had to ask for their own
    expect(getMany).toBeLessThan(12)
  })
  test('is loaded past the store by who has waited long enough, and what it brings is not stored (K2)', async () => {
    const { clock, source, process } = world()
    const [holder, waiter] = [process({ hard: '30s' }), process({ wait: '2s' })]
    source.delayMs = 20_000
    source.rows.set('42', 'old')
    const held = holder.get('42')
    await settle()
    source.delayMs = 0
    source.rows.set('42', 'new')
    const waited = waiter.get('42')
    await clock.advance('1900ms')
    expect(source.loads).toBe(1)
    await clock.advance('200ms')
    expect(await waited).toBe('new')
    await clock.advance('20s')
    expect(await held).toBe('old')
    expect(await process().get('42')).toBe('old') // the holder's, written under its lease
    expect(source.loads).toBe(2)
  })
  test('whose holder has died is loaded by another when the lease has ended on the store’s clock (K3)', async () => {
    const { clock, store, source, process } = world()
    const dying = faulty(store, { on: ({ value }) => (isWriteBack(value) ? 'stop-before' : 'pass') })
    void process({ hard: '10s' }, dying).get('42')
    await settle()
    expect(source.loads).toBe(1)
    // Its own clock is an hour ahead, and says nothing about the lease.
    const ahead = testClock(clock.now() + 3_600_000)
    const users = process({ wait: '1m', timers: { ...ahead, setTimeout: clock.setTimeout, clearTimeout: clock.clearTimeout } })
    let got: string | undefined
    const events = await eventsOf(async () => {
      void users.get('42').then((value) => (got = value))
      await clock.advance(9_999)
      expect([got, source.loads]).toEqual([undefined, 1])
      await clock.advance('300ms')
    })
    expect([got, source.loads]).toEqual(['no 42', 2])
    expect(events.map(({ type }) => type)).toContain('taken-over')
  })
  test('whose load fails is given back at once: the next process does not wait for the lease', async () => {
    const { source, process } = world()
    source.fails = true
    await expect(process().get('42')).rejects.toThrow('away')
    await settle()
    source.fails = false
    expect(await process().get('42')).toBe('no 42')
  })
})

describe('a value that was loaded before an invalidation', () => {
  test('is given to who asked, and not stored (K1)', async () => {
    const { clock, source, process } = world()
    const [one, two] = [process(), process()]
    source.rows.set('42', 'old')
    source.delayMs = 500
    const events = await eventsOf(async () => {
      const asked = one.get('42')
      await settle()
      source.rows.set('42', 'new')
      expect(await two.invalidate('42')).toEqual({ done: true })
      await clock.advance('500ms')
      expect(await asked).toBe('old')
    })
    expect(events.map(({ type }) => type)).toContain('overtaken')
    source.delayMs = 0
    expect(await two.get('42')).toBe('new')
    expect(await one.get('42')).toBe('new')
  })
  test('is given to nobody who comes after it, in the process that loads, too (K1)', async () => {
    const { clock, source, process } = world()
    const [one, two] = [process(), process()]
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
  test('leaves those alone who came after it and share the next load (K1, K2)', async () => {
    const { clock, store, source, process } = world()
    const counted = counting(store)
    const users = process({ fresh: '1h' }, counted)
    source.rows.set('42', 'old')
    source.delayMs = 500
    const before = users.get('42')
    await settle()
    source.rows.set('42', 'new')
    source.delayMs = 2_000
    await users.invalidate('42')
    const after = users.get('42')
    await clock.advance('1s')
    expect(await before).toBe('old')
    const { getMany } = counted.counts()
    const later = users.get('42')
    await clock.advance('1s')
    expect([await after, await later]).toEqual(['new', 'new'])
    expect(counted.counts().getMany).toBe(getMany)
  })
  test('cannot come back over the tombstone, which goes on with another version (K4)', async () => {
    const { clock, store, source, process } = world()
    const later: (() => void)[] = []
    const slow = intercept(store, async (call, run) => {
      if (isWriteBack(call.value)) await new Promise<void>((go) => later.push(go))
      return await run()
    })
    source.rows.set('42', 'old')
    const asked = process({ storeDeadline: '1h' }, slow).get('42')
    expect(await asked).toBe('old')
    source.rows.set('42', 'new')
    await process().invalidate('42')
    for (const go of later) go()
    await settle()
    expect(await process().get('42')).toBe('new')
    await clock.advance('1s')
    expect(await process().get('42')).toBe('new')
  })
  test('whose write-back had an unknown outcome and arrives late does no harm (K1)', async () => {
    for (const verdict of ['unknown-before', 'unknown-after', 'unknown-later'] as const) {
      const { store, source, process } = world()
      const users = process({}, faulty(store, { on: ({ value }) => (isWriteBack(value) ? verdict : 'pass') }))
      source.rows.set('42', 'old')
      expect(await users.get('42'), verdict).toBe('old')
      source.rows.set('42', 'new')
      await users.invalidate('42')
      expect(await users.get('42'), verdict).toBe('new')
    }
  })
})

test('a lease whose answer was lost is known by its owner: one load, no waiting for oneself', async () => {
  const { store, source, process } = world()
  const users = process(
    {},
    faulty(store, {
      on: ({ verb, value }) =>
        verb === 'create' && new TextDecoder().decode(value as Uint8Array).includes('"le"') ? 'unknown-after' : 'pass',
    }),
  )
  expect(await users.get('42')).toBe('no 42')
  expect(source.loads).toBe(1)
})

describe('a value past its ttl', () => {
  test('is served at once while one process loads the new one (stale-while-revalidate)', async () => {
    const { clock, source, process } = world()
    const processes = [process({ stale: '1m' }), process({ stale: '1m' })]
    source.rows.set('42', 'old')
    await processes[0]?.get('42')
    source.rows.set('42', 'new')
    source.delayMs = 500
    await clock.advance('1m')
    for (let round = 0; round < 3; round++) for (const users of processes) expect(await users.get('42')).toBe('old')
    expect(source.loads).toBe(2)
    await clock.advance('500ms')
    for (const users of processes) expect(await users.get('42')).toBe('new')
    expect(source.loads).toBe(2)
  })
  test('is replaced within the soft deadline, if the loader is quick enough', async () => {
    const { clock, source, process } = world()
    const users = process({ stale: '1m', soft: '200ms' })
    const next = async (delayMs: number, row: string): Promise<string> => {
      await clock.advance('61s')
      source.delayMs = delayMs
      source.rows.set('42', row)
      const got = users.get('42')
      await clock.advance('200ms')
      return await got
    }
    expect(await next(0, 'first')).toBe('first')
    expect(await next(100, 'second')).toBe('second')
    expect(await next(300, 'third')).toBe('second')
    await clock.advance('100ms')
    expect(await users.get('42')).toBe('third')
  })
  test('is not served past `stale` while a load is possible, and only up to `maxStale` when it fails (K9)', async () => {
    const { clock, source, process } = world()
    const users = process({ stale: '1m', maxStale: '10m' })
    source.rows.set('42', 'old')
    await users.get('42')
    source.rows.set('42', 'new')
    source.fails = true
    await clock.advance('3m')
    expect(await users.get('42')).toBe('old')
    await clock.advance('8m')
    await expect(users.get('42')).rejects.toThrow('away')
    source.fails = false
    expect(await users.get('42')).toBe('new')
  })
  test('is not loaded again and again while its loader fails: there is a pause for all processes', async () => {
    const { clock, source, process } = world()
    const processes = [process({ maxStale: '1h', backoff: '5s' }), process({ maxStale: '1h', backoff: '5s' })]
    await processes[0]?.get('42')
    source.fails = true
    await clock.advance('2m')
    for (let round = 0; round < 5; round++) for (const users of processes) expect(await users.get('42')).toBe('no 42')
    expect(source.loads).toBe(2)
    await clock.advance('5s')
    for (const users of processes) await users.get('42')
    expect(source.loads).toBe(3)
  })
  test('is served when the loader passes its hard deadline', async () => {
    const { clock, source, process } = world()
    const users = process({ maxStale: '1h', hard: '1s' })
    await users.get('42')
    await clock.advance('2m')
    source.delayMs = 60_000
    const got = users.get('42')
    await clock.advance('1s')
    expect(await got).toBe('no 42')
  })
  test('is kept for all of `maxStale`, whatever failed loads in between wrote beside it', async () => {
    const { clock, source, process } = world()
    const users = process({ maxStale: '1h', hard: '1s' })
    await users.get('42')
    source.fails = true
    for (let minutes = 2; minutes < 60; minutes += 10) {
      await clock.advance(minutes === 2 ? '2m' : '10m')
      expect(await users.get('42'), `after ${minutes} minutes`).toBe('no 42')
    }
  })
  test('is no fallback for who came after its invalidation, when the load of those before it fails (K1, K9)', async () => {
    const { clock, store, source, process } = world()
    let isAway = false
    const kv = intercept(store, async (_call, run) => {
      if (isAway) throw new KvError('UNAVAILABLE')
      return await run()
    })
    const [holder, waiting] = [process({ maxStale: '1h', hard: '1m' }), process({ maxStale: '1h', wait: '1m' }, kv)]
    await holder.get('42')
    await clock.advance('2m')
    source.delayMs = 30_000
    void holder.get('42')
    await settle()
    const before = waiting.get('42').catch(() => 'failed') // it has the old value in hand, and looks again and again
    await settle()
    await process().invalidate('42')
    const after = waiting.get('42').catch(() => 'failed')
    isAway = true
    source.fails = true
    source.delayMs = 0
    await clock.advance('1s')
    expect([await before, await after]).toEqual(['failed', 'failed'])
  })
  test('is not followed by what a refresh from before an invalidation brings (K1)', async () => {
    const { clock, source, process } = world()
    const [one, two] = [process({ stale: '10m', soft: '1s', hard: '30s' }), process({ ttl: '1s', stale: '10m' })]
    source.rows.set('42', 'old')
    await one.get('42')
    await clock.advance('1m')
    source.delayMs = 5_000
    const before = one.get('42')
    await clock.advance('2s')
    expect(await before).toBe('old') // its refresh has read the old row, and goes on
    source.rows.set('42', 'new')
    source.delayMs = 0
    await two.invalidate('42')
    expect(await two.get('42')).toBe('new')
    await clock.advance(2_500) // the new value is past its ttl; the refresh ends in half a second
    const after = one.get('42')
    await clock.advance('1s')
    expect(await after).toBe('new')
  })
  test('is refreshed anew after an invalidation, while a refresh from before it still runs', async () => {
    const { clock, source, process } = world()
    const users = process({ ttl: '1s', stale: '1m', hard: '30s' })
    await users.get('42')
    await clock.advance('1s')
    source.delayMs = 20_000
    await users.get('42')
    await settle()
    source.delayMs = 0
    await users.invalidate('42')
    await users.get('42')
    await clock.advance('1s')
    expect(source.loads).toBe(3)
    await users.get('42')
    await settle()
    expect(source.loads).toBe(4)
  })
  test('is no fallback past `maxStale`, however long the load took that failed (K9)', async () => {
    for (const isAway of [false, true]) {
      const { clock, store, source, process } = world()
      await process({ maxStale: '1h' }).get('42')
      await clock.advance(60_000 + 3_600_000 - 1_000)
      const kv = intercept(store, async (call, run) => {
        if (isAway && call.verb === 'update') throw new KvError('UNAVAILABLE')
        return await run()
      })
      const users = process({ maxStale: '1h', backoff: 0 }, kv)
      source.fails = true
      source.delayMs = 900
      const within = users.get('42')
      await clock.advance('900ms')
      expect(await within).toBe('no 42')
      source.delayMs = 2_000
      const past = users.get('42').catch((error: Error) => error.message)
      await clock.advance('3s')
      expect(await past).toBe('the database is away')
    }
  })
  test('is no fallback for who came after a later read that failed (K1, K9)', async () => {
    const { clock, store, source, process } = world()
    await process({ maxStale: '1h' }).get('42')
    await clock.advance('2m')
    const kv = intercept(store, async (call, run) => {
      if (call.verb === 'update') await clock.sleep('900ms')
      if (call.verb === 'getMany' && call.nth > 1) {
        await clock.sleep('100ms')
        throw new KvError('UNAVAILABLE')
      }
      return await run()
    })
    source.fails = true
    source.delayMs = 500
    const before = process({ maxStale: '1h', fresh: '1s', storeDeadline: '5s' }, kv)
    const first = before.get('42').catch(() => 'failed')
    await clock.advance('100ms')
    await process().invalidate('42') // so the lease is refused after 0.9 s
    await clock.advance('1100ms')
    const after = before.get('42').catch(() => 'failed')
    await clock.advance('10s')
    expect([await first, await after]).toEqual(['failed', 'failed'])
  })
  test('is no fallback for who came more than `fresh` after it was read, when the lease could not be taken either (K7, K9)', async () => {
    const { clock, store, source, process } = world()
    const load = async (key: string, { tag }: { tag(name: string): void }): Promise<string> => (tag('all'), await source.load(key))
    await process({ maxStale: '1h', load }).get('42')
    await clock.advance('2m')
    const failing = intercept(store, async (call, run) => {
      if (call.verb !== 'update') return await run()
      await clock.sleep('900ms')
      throw new KvError('UNAVAILABLE')
    })
    const users = process({ maxStale: '1h', fresh: '1s', storeDeadline: '5s', load }, failing)
    source.fails = true
    source.delayMs = 500
    const before = users.get('42')
    await clock.advance('100ms')
    await process().invalidateTag('all')
    await clock.advance('1100ms')
    const after = users.get('42').catch(() => 'failed')
    await clock.advance('10s')
    expect([await before, await after]).toEqual(['no 42', 'failed'])
  })
  test('is no fallback once it was invalidated, not even for who had asked before (K9)', async () => {
    const { clock, source, process } = world()
    const users = process({ maxStale: '1h' })
    await users.get('42')
    await clock.advance('2m')
    source.delayMs = 500
    source.fails = true
    const asked = users.get('42').catch(() => 'failed')
    await settle()
    await users.invalidate('42')
    await clock.advance('500ms')
    expect(await asked).toBe('failed')
  })
  test('is no fallback for who came more than `fresh` after it was read (K7, K9)', async () => {
    const { clock, store, source, process } = world()
    const load = async (key: string, { tag }: { tag(name: string): void }): Promise<string> => (tag('all'), await source.load(key))
    await process({ maxStale: '1h', load }).get('42')
    await clock.advance('2m')
    const slow = intercept(store, async (call, run) => {
      if (call.verb === 'update') await clock.sleep('900ms')
      return await run()
    })
    const users = process({ maxStale: '1h', fresh: '1s', storeDeadline: '5s', load }, slow)
    source.fails = true
    source.delayMs = 500
    const before = users.get('42')
    await clock.advance('100ms')
    await process().invalidateTag('all')
    await clock.advance('1100ms')
    const after = users.get('42').catch(() => 'failed')
    await clock.advance('10s')
    expect([await before, await after]).toEqual(['no 42', 'failed'])
  })
  test('that was not found is not served stale', async () => {
    const clock = testClock()
    const rows: string[] = []
    const users = cache({
      kv: memory({ clock }),
      name: 'n',
      ttl: '1m',
      stale: '1h',
      jitter: 0,
      fresh: 0,
      timers: clock,
      load: async (_key: string) => rows[0] ?? notFound(),
    })
    expect(await users.get('42')).toBeUndefined()
    rows.push('Ada')
    await clock.advance('1m')
    expect(await users.get('42')).toBe('Ada')
  })
})

describe('many keys that were loaded together', () => {
  test('do not expire together: each ttl is drawn within a tenth to both sides (K8)', async () => {
    const { clock, source, process } = world()
    let drawn = 0
    const users = process({ jitter: 0.1, random: () => (drawn++ % 100) / 100 })
    const keys = Array.from({ length: 100 }, (_, nth) => `key ${nth}`)
    const loadsAfter = async (ms: number): Promise<number> => {
      await clock.advance(ms)
      const before = source.loads
      await users.getMany(keys)
      await users.settled()
      return source.loads - before
    }
    expect(await loadsAfter(0)).toBe(100)
    expect(await loadsAfter(53_999)).toBe(0)
    const atHalf = await loadsAfter(6_000)
    expect(atHalf).toBeGreaterThan(20)
    expect(atHalf).toBeLessThan(80)
    expect(await loadsAfter(6_001)).toBe(100 - atHalf)
  })
  test('are refreshed before their end by chance, the likelier the longer their load took (K8, XFetch)', async () => {
    const early = async (draw: number): Promise<number> => {
      const { clock, source, process } = world()
      source.delayMs = 1_000
      const users = process({ early: 1, random: () => draw, hard: '5s' })
      const first = users.get('42')
      await clock.advance('1s')
      await first
      await clock.advance('58s') // two seconds before the end: with delta 1 s, 1 - draw must be at most e^-2
      await users.get('42')
      await clock.advance('1s')
      return source.loads
    }
    expect(await early(0.5)).toBe(1)
    expect(await early(0.9)).toBe(2)
  })
})

test('beyond 10,000 loads that wait for their turn readers are told BUSY at once (K20)', async () => {
  const { process } = world()
  const users = process({ loadsMax: 1, load: () => new Promise<string>(() => {}) })
  const ends = Array.from({ length: 10_002 }, (_, nth) => users.get(`key ${nth}`).catch((error: unknown) => error))
  expect(await Promise.race(ends)).toSatisfy((error) => isKvError(error, 'BUSY'))
})

test('who has waited for a place looks again: what was cleared meanwhile is loaded once, and holds (K17, K20)', async () => {
  const { clock, source, process } = world()
  const users = process({ loadsMax: 1 })
  await users.get('another') // there are generations to be seen
  source.delayMs = 500
  const both = users.getMany(['other', '42'])
  await settle()
  await process().clear()
  await clock.advance('2s')
  await both
  const { loads } = source
  await process().get('42')
  expect(source.loads).toBe(loads)
})

test('who has waited for a place and then finds a value gives the place to the refresh that it waits for (K13, K20)', async () => {
  const { clock, source, process } = world()
  const users = process({ ttl: '1s', stale: '1m', loadsMax: 1, hard: '10s', waitUntil: 'inline' })
  source.delayMs = 5_000
  const before = users.get('other') // takes the only place
  await settle()
  const waiting = users.get('42')
  await settle()
  source.delayMs = 0
  source.rows.set('42', 'old')
  await process({ ttl: '1s', stale: '1m' }).get('42') // another process loads it meanwhile
  source.rows.set('42', 'new')
  await clock.advance('6s')
  expect([await before, await waiting]).toEqual(['no other', 'new'])
})

test('a value as large as the store takes leaves room for the lease of its refresh, or counts as too large (K2, K19)', async () => {
  const valueBytesMax = 2_000
  let isLarge = 0
  for (let length = 1_600; length < valueBytesMax; length += 10) {
    const { clock, source, process } = world((clock) => memory({ clock, limits: { valueBytesMax } }))
    source.rows.set('42', 'x'.repeat(length))
    const users = process({ stale: '1m' })
    const events = await eventsOf(async () => {
      await users.get('42')
      await users.settled()
      await clock.advance('61s')
      await users.get('42')
      await users.settled()
    })
    if (events.some(({ type }) => type === 'oversize')) isLarge++
    else
      expect(
        events.filter(({ type }) => type === 'stored'),
        `${length} characters`,
      ).toHaveLength(2)
  }
  expect(isLarge).toBeGreaterThan(0)
})

test('a result that comes after `hard` is too late, also when a stalled process heard of both at once (K3)', async () => {
  const { clock, source, process } = world()
  let stalledMs = 0
  const timers = { ...clock, elapsed: () => clock.elapsed() + stalledMs }
  const load = async (key: string): Promise<string> => ((stalledMs += 10_001), await source.load(key))
  await expect(process({ timers, load }).get('42')).rejects.toSatisfy((error) => isKvError(error, 'LOAD_TIMEOUT'))
})

test('no more loads run at once than allowed, whatever the keys; the others wait (K20)', async () => {
  const { clock, source, process } = world()
  source.delayMs = 100
  const users = process({ loadsMax: 3, stale: '1m' })
  const keys = Array.from({ length: 10 }, (_, nth) => `key ${nth}`)
  const all = users.getMany(keys)
  await clock.advance('1s')
  expect(await all).toHaveLength(10)
  expect([source.loads, source.peak]).toEqual([10, 3])
  await clock.advance('1m')
  await users.getMany(keys) // stale: ten refreshes
  await clock.advance('1s')
  expect([source.loads, source.peak]).toEqual([20, 3])
})
