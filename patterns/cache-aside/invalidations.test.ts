/** Invalidation: after the commit, in every process, by key, tag and name, also while the store is away; and work that outlives a request. */
import { describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { text } from '../../core/kv/codec.ts'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import { memory } from '../../core/stores/memory.ts'
import { settle } from '../../core/testing/clock.ts'
import { counting, faulty, intercept, testClock } from '../../core/testing/index.ts'
import { cache } from './cache.ts'
import { generationsKeyOf } from './identity.ts'
import { invalidationLimits } from './invalidations.ts'
import { encodeGenerations } from './record.ts'
import { eventsOf, world, type World } from './testdata/world.ts'

/** A store that can be taken away. */
function switched({ store }: World): { readonly kv: KV; isAway: boolean } {
  const state = {
    isAway: false,
    kv: intercept(store, async (_call, run) => {
      if (state.isAway) throw new KvError('UNAVAILABLE')
      return await run()
    }),
  }
  return state
}

describe('mutate', () => {
  test('invalidates after the commit, so that nobody stores the old row again in between (K5)', async () => {
    const { source, process } = world()
    const [one, two] = [process(), process()]
    source.rows.set('42', 'old')
    await two.get('42')
    const result = await one.mutate('42', async () => {
      await one.get('42') // whatever was cached until here
      source.rows.set('42', 'new')
      return 'renamed'
    })
    expect(result).toBe('renamed')
    expect([await one.get('42'), await two.get('42')]).toEqual(['new', 'new'])
  })
  test('invalidates several keys at once', async () => {
    const { source, process } = world()
    const users = process({ fresh: '1h' })
    await users.getMany(['a', 'b'])
    await users.mutate(['a', 'b'], () => source.rows.set('a', 'new').set('b', 'new'))
    expect(await users.getMany(['a', 'b'])).toEqual(['new', 'new'])
  })
  test('invalidates also when the commit throws: its answer may be lost and the row changed (K5)', async () => {
    const { source, process } = world()
    const users = process({ fresh: '1h' })
    await users.get('42')
    const commit = (): never => {
      source.rows.set('42', 'new')
      throw new Error('connection lost')
    }
    await expect(users.mutate('42', commit)).rejects.toThrow('connection lost')
    expect(await users.get('42')).toBe('new')
  })
  test('invalidates once more after the lag of the replica that the loader reads (K5)', async () => {
    const { clock, source, process } = world()
    const users = process({ lag: '2s' })
    source.rows.set('42', 'old')
    await users.mutate('42', () => undefined) // the replica still has the old row
    expect(await users.get('42')).toBe('old')
    source.rows.set('42', 'new')
    await clock.advance('1999ms')
    expect(await users.get('42')).toBe('old')
    await clock.advance('1ms')
    expect(await users.get('42')).toBe('new')
  })
  test('clears the whole name once when more lags are waited for than fit, and not before the last is over (K5)', async () => {
    const { clock, store, source, process } = world()
    const counted = counting(store)
    const users = process({ lag: '2s' }, counted)
    for (const row of ['first', 'second']) {
      counted.reset()
      for (let nth = 0; nth < invalidationLimits.waitingMax; nth++) await users.mutate(`key ${nth}`, () => undefined)
      await clock.advance('1s')
      await users.mutate('one more', () => undefined)
      const before = await users.get('one more')
      source.rows.set('one more', row)
      await clock.advance('1500ms')
      expect(await users.get('one more')).toBe(before)
      await clock.advance('500ms')
      expect(await users.get('one more')).toBe(row)
      expect(counted.counts().set).toBe(2 * invalidationLimits.waitingMax + 1)
    }
  })
  test('takes a list for one key as well as for several: whichever was meant, nothing stale stays (K5, K12)', async () => {
    const { clock, store } = world()
    let row = 'old'
    const load = async (key: readonly unknown[]): Promise<string> => `${row} ${key.length}`
    const pairs = cache({ kv: store, name: 'pair', ttl: '1m', fresh: 0, timers: clock, load })
    for (const key of [['a', 1], ['a', null], []]) {
      row = 'old'
      await pairs.get(key)
      await pairs.mutate(key, () => (row = 'new'))
      expect(await pairs.get(key), JSON.stringify(key)).toBe(`new ${key.length}`)
    }
    const several = [['b', 1], ['c']]
    row = 'old'
    for (const key of several) await pairs.get(key)
    await pairs.mutate(several, () => (row = 'new'))
    for (const key of several) expect(await pairs.get(key)).toBe(`new ${key.length}`)
    let isCommitted = false
    const mistaken = pairs.mutate(['a', undefined], () => (isCommitted = true))
    await expect(mistaken).rejects.toSatisfy((error) => isKvError(error, 'INVALID_ARGUMENT'))
    expect(isCommitted).toBe(false)
  })
  test('does not fail when the store is away: the commit has happened (K6)', async () => {
    const here = world()
    const away = switched(here)
    const users = here.process({}, away.kv)
    away.isAway = true
    expect(await users.mutate('42', () => 'done')).toBe('done')
    expect(users.pendingInvalidations).toBe(1)
    const broken = here.process({}, faulty(here.store, { on: () => new KvError('CLOSED') }))
    expect(await broken.mutate('42', () => 'done')).toBe('done')
  })
})

describe('an invalidation that the store does not take', () => {
  test('is said to be open, told, repeated until it is done, and until then this process reads past what is stored (K6)', async () => {
    const here = world()
    const { clock, source } = here
    const away = switched(here)
    const [one, two] = [here.process({ storeDeadline: '100ms', fresh: '1h' }, away.kv), here.process()]
    source.rows.set('42', 'old')
    await one.get('42')
    const events = await eventsOf(async () => {
      away.isAway = true
      source.rows.set('42', 'new')
      expect(await one.invalidate('42')).toMatchObject({ done: false, cause: { code: 'UNAVAILABLE' } })
      expect(one.pendingInvalidations).toBe(1)
      expect(await one.get('42')).toBe('new')
      expect(await two.get('42')).toBe('old') // that is what `done: false` says
      away.isAway = false
      expect(await one.get('42')).toBe('new')
      await clock.advance('10s')
    })
    expect(one.pendingInvalidations).toBe(0)
    expect(await two.get('42')).toBe('new')
    expect(events.map(({ type }) => type)).toEqual(expect.arrayContaining(['invalidation-queued', 'invalidated']))
  })
  test('is repeated once more when it was asked for again while its repetition was on the way (K6)', async () => {
    const { clock, store, source, process } = world()
    let answer = (): void => {}
    const kv = intercept(store, async (call, run) => {
      if (call.verb !== 'set') return await run()
      if (call.nth === 1 || call.nth === 3) throw new KvError('UNAVAILABLE')
      const result = await run()
      if (call.nth === 2) await new Promise<void>((resolve) => (answer = resolve))
      return result
    })
    const [one, two] = [process({}, kv), process()]
    expect(await one.invalidate('42')).toMatchObject({ done: false })
    await clock.advance('100ms') // the repetition has been applied; its answer is on the way
    source.rows.set('42', 'old')
    expect(await two.get('42')).toBe('old')
    source.rows.set('42', 'new')
    expect(await one.invalidate('42')).toMatchObject({ done: false })
    answer()
    await settle()
    expect(one.pendingInvalidations).toBe(1)
    expect(await one.get('42')).toBe('new')
    await clock.advance('10s')
    expect(one.pendingInvalidations).toBe(0)
    expect(await two.get('42')).toBe('new')
  })
  test('takes away the fallback, too: a failed load of this process does not bring it back (K6, K9)', async () => {
    const here = world()
    const { clock, source } = here
    const away = switched(here)
    const users = here.process({ maxStale: '1h', load: (key, { tag }) => (tag('team'), source.load(key)) }, away.kv)
    await users.get('42')
    await clock.advance('2m')
    away.isAway = true
    expect(await users.invalidateTag('team')).toMatchObject({ done: false })
    away.isAway = false
    source.fails = true
    await expect(users.get('42')).rejects.toThrow('away')
  })
  test('of a tag and of the whole name is repeated as well, and nothing stale is read here meanwhile (K6)', async () => {
    for (const kind of ['tag', 'clear'] as const) {
      const here = world()
      const { clock, source } = here
      const away = switched(here)
      const load = (key: string, { tag }: { tag(name: string): void }) => (tag('team'), source.load(key))
      const [one, two] = [here.process({ load }, away.kv), here.process({ load })]
      source.rows.set('42', 'old')
      await one.get('42')
      source.rows.set('42', 'new')
      away.isAway = true
      expect(await (kind === 'tag' ? one.invalidateTag('team') : one.clear())).toMatchObject({ done: false })
      away.isAway = false
      expect([await one.get('42'), await two.get('42')], kind).toEqual(['new', 'old'])
      await clock.advance('1s')
      expect([await one.get('42'), await two.get('42')], kind).toEqual(['new', 'new'])
    }
  })
  test('ends when all that it was for has died by itself (K6)', async () => {
    const here = world()
    const away = switched(here)
    const users = here.process({ ttl: '10s', hard: '1s' }, away.kv)
    away.isAway = true
    await users.invalidate('42')
    const events = await eventsOf(() => here.clock.advance('1m'))
    expect(events.map(({ type }) => type)).toContain('invalidation-outlived')
    expect(users.pendingInvalidations).toBe(0)
  })
  test('becomes one clear of the whole name with all others, when they are too many: none is dropped (K6)', async () => {
    const here = world()
    const { clock, source } = here
    const counted = counting(here.store)
    const away = switched({ ...here, store: counted })
    const [one, two] = [here.process({}, away.kv), here.process()]
    const keys = Array.from({ length: invalidationLimits.waitingMax + 1 }, (_, nth) => `key ${nth}`)
    await two.getMany(keys)
    away.isAway = true
    for (const key of keys) {
      source.rows.set(key, 'new')
      await one.invalidate(key)
    }
    expect(one.pendingInvalidations).toBe(1)
    away.isAway = false
    await clock.advance('10s')
    expect(one.pendingInvalidations).toBe(0)
    expect(counted.counts().set).toBe(0) // not one by one
    expect(new Set(await two.getMany(keys))).toEqual(new Set(['new']))
  })
  test('is thrown when no repetition mends it', async () => {
    const { store, process } = world()
    const users = process({}, faulty(store, { on: () => new KvError('CLOSED') }))
    await expect(users.invalidate('42')).rejects.toSatisfy((error) => isKvError(error, 'CLOSED'))
    expect(users.pendingInvalidations).toBe(0)
  })
  test('with an unknown outcome is repeated: twice is as good as once (K6)', async () => {
    const { clock, store, source, process } = world()
    const kv = faulty(store, { on: ({ verb, nth }) => (verb === 'set' && nth === 1 ? 'unknown-before' : 'pass') })
    const users = process({}, kv)
    await users.get('42')
    source.rows.set('42', 'new')
    expect(await users.invalidate('42')).toMatchObject({ done: false, cause: { code: 'UNKNOWN_OUTCOME' } })
    await clock.advance('1s')
    expect(await process().get('42')).toBe('new')
  })
})

describe('tags', () => {
  const tagged = (here: World) => here.process({ load: async (key, { tag }) => (tag(`team ${key[0]}`, 'all'), here.source.load(key)) })
  test('outdate what named them, and nothing else, in every process, by two writes and no scan (K17)', async () => {
    const here = world()
    const [one, two] = [tagged(here), tagged(here)]
    await one.getMany(['a1', 'a2', 'b1'])
    await one.settled()
    const counted = counting(here.store)
    const three = here.process({}, counted)
    for (const key of ['a1', 'a2', 'b1']) here.source.rows.set(key, 'new')
    expect(await three.invalidateTag('team a')).toEqual({ done: true })
    expect(counted.counts()).toMatchObject({ getMany: 0, set: 0, destroy: 0, get: 2 })
    expect(await two.getMany(['a1', 'a2', 'b1'])).toEqual(['new', 'new', 'no b1'])
    await three.invalidateTag('all')
    expect(await two.get('b1')).toBe('new')
  })
  test('named after the source was read outdate that load too, when they were invalidated in between (K1, K17)', async () => {
    const here = world()
    const { clock, source } = here
    const users = here.process({
      load: async (key, { tag }) => {
        const row = await source.load(key)
        tag(`team of ${row}`) // known only by the value
        return row
      },
    })
    source.rows.set('42', 'old')
    source.delayMs = 500
    const asked = users.get('42')
    await settle()
    source.rows.set('42', 'new')
    await here.process().invalidateTag('team of old')
    await clock.advance('500ms')
    expect(await asked).toBe('old')
    source.delayMs = 0
    expect(await users.get('42')).toBe('new')
  })
  test('hold by counters and not by clocks: a clock that steps back changes nothing (K17)', async () => {
    const here = world()
    const users = tagged(here)
    await users.get('a1')
    here.clock.set(here.clock.now() - 30_000)
    here.source.rows.set('a1', 'new')
    await users.invalidateTag('all')
    expect(await users.get('a1')).toBe('new')
    await users.settled()
    here.clock.set(here.clock.now() + 20_000)
    here.source.rows.set('a1', 'newer')
    expect(await users.get('a1')).toBe('new')
    await users.invalidateTag('all')
    expect(await users.get('a1')).toBe('newer')
  })
  test('are kept as long as the longest value of any process lives (K17, P12)', async () => {
    const here = world()
    const long = here.process({ ttl: '1d', load: async (key, { tag }) => (tag('all'), here.source.load(key)) })
    const short = here.process({ ttl: '1s', hard: '100ms' })
    await short.get('its own') // the generations are of its making
    await long.get('42')
    await long.settled()
    here.source.rows.set('42', 'new')
    const invalidated = short.invalidateTag('all')
    await here.clock.advance('23h')
    expect(await invalidated).toEqual({ done: true })
    expect(await long.get('42')).toBe('new')
  })
  test('invalidated while a refresh runs keep what it brings out of memory (K7, K17)', async () => {
    const here = world()
    const { clock, source } = here
    const users = here.process({ fresh: '10s', stale: '10m', load: async (key, { tag }) => (tag('all'), source.load(key)) })
    await users.get('42')
    await clock.advance('2m')
    source.delayMs = 500
    await users.get('42') // stale; a refresh has read the old row
    await settle()
    source.rows.set('42', 'new')
    await users.invalidateTag('all')
    await clock.advance('500ms')
    source.delayMs = 0
    expect(await users.get('42')).toBe('new')
  })
  test('that two processes invalidate at once keep the later epoch, in whatever order they write it (K17)', async () => {
    const here = world()
    let isFirst = true
    const slow = intercept(here.store, async (call, run) => {
      if (call.verb === 'create' && isFirst && new TextDecoder().decode(call.value as Uint8Array).includes('"at"')) {
        isFirst = false
        await here.clock.sleep('100ms')
      }
      return await run()
    })
    const users = tagged(here)
    const first = here.process({}, slow).invalidateTag('all') // the lower epoch, written last
    await settle()
    await users.get('a1')
    await users.settled()
    here.source.rows.set('a1', 'new')
    await here.process().invalidateTag('all')
    await here.clock.advance('1s')
    expect(await first).toEqual({ done: true })
    expect(await users.get('a1')).toBe('new')
  })
  test('beyond their number or length are refused', async () => {
    const { source, process } = world()
    const many = Array.from({ length: 33 }, (_, nth) => `tag ${nth}`)
    const users = process({ load: (key, { tag }) => (tag(...many), source.load(key)) })
    await expect(users.get('42')).rejects.toSatisfy((error) => isKvError(error, 'INVALID_ARGUMENT'))
    await expect(users.invalidateTag('')).rejects.toSatisfy((error) => isKvError(error, 'INVALID_ARGUMENT'))
  })
})

describe('a name', () => {
  test('is cleared by one write, and its neighbours keep what they have', async () => {
    const { source, process } = world()
    const [users, others] = [process(), process({ name: 'other' })]
    await Promise.all([users.get('42'), others.get('42')])
    await Promise.all([users.settled(), others.settled()])
    source.rows.set('42', 'new')
    await users.clear()
    expect([await users.get('42'), await others.get('42')]).toEqual(['new', 'no 42'])
  })
  test('whose generations are lost or damaged begins anew: nothing stored before is valid (K17)', async () => {
    const { store, source, process } = world()
    const key = generationsKeyOf('user')
    for (const harm of [() => store.destroy(key), () => store.set(key, new Uint8Array([1, 2, 3]))]) {
      const users = process()
      await users.get('42')
      await users.settled()
      source.rows.set('42', `new ${source.loads}`)
      await harm()
      expect(await users.get('42')).toBe(source.rows.get('42'))
      await users.settled()
      const { loads } = source
      await process().get('42')
      expect(source.loads).toBe(loads)
    }
  })
  test('whose generations a newer release wrote is read past, and not cleared by this one (P12)', async () => {
    const { store, source, process } = world()
    const newer = encodeGenerations({ era: 'x', epoch: 1, lifeMs: 1 })
    newer[1] = 2
    await store.set(generationsKeyOf('user'), newer)
    const users = process()
    await users.get('42')
    await users.get('42')
    expect(source.loads).toBe(2)
    await expect(users.clear()).rejects.toSatisfy((error) => isKvError(error, 'CACHE_UNREADABLE'))
    await expect(users.invalidateTag('t')).rejects.toSatisfy((error) => isKvError(error, 'CACHE_UNREADABLE'))
    expect((await store.get(generationsKeyOf('user'))).entry?.value).toEqual(newer)
  })
})

describe('the first level', () => {
  test('never outlives the second: what has 50 ms left there is served for 50 ms here (K7)', async () => {
    const { clock, source, process } = world()
    await process().get('42')
    await clock.advance(59_950)
    const users = process({ fresh: '10s' })
    await users.get('42')
    source.rows.set('42', 'new')
    await clock.advance(49)
    expect(users.peek('42')).toBe('no 42')
    await clock.advance(1)
    expect(users.peek('42')).toBeUndefined()
    expect(await users.get('42')).toBe('new')
  })
  test('never outlives the second, however long encoding and decoding take (K7)', async () => {
    const { clock, source, process } = world()
    let spentMs = 0
    const store = memory({ clock: { now: () => epochMs(clock.now() + spentMs) } })
    const timers = { ...clock, elapsed: () => clock.elapsed() + spentMs }
    const slow = <T>(value: T): T => ((spentMs += 50), value)
    const codec = {
      name: 'slow',
      encode: (value: string) => slow(text.encode(value)),
      decode: (bytes: Uint8Array) => slow(text.decode(bytes)),
    }
    const users = process({ fresh: '1h', codec, timers }, store)
    await users.get('42')
    await users.settled()
    source.rows.set('42', 'new')
    await clock.advance(60_000 - spentMs)
    expect(users.peek('42')).toBeUndefined()
    expect(await users.get('42')).toBe('new')
  })
  test('serves what is past its ttl no longer than `stale`: then a load is due (K7, K9)', async () => {
    const { clock, source, process } = world()
    await process({ stale: '10s', maxStale: '1h' }).get('42')
    await clock.advance(69_900)
    source.delayMs = 5_000
    source.rows.set('42', 'new')
    const users = process({ fresh: '1m', stale: '10s', maxStale: '1h' })
    expect(await users.get('42')).toBe('no 42')
    await clock.advance(99)
    expect(users.peek('42')).toBe('no 42')
    await clock.advance(1)
    const due = users.get('42')
    await clock.advance('6s')
    expect(await due).toBe('new')
  })
  test('serves what is kept for a failed load no longer than the pause after it, or than it is kept (K7, K9)', async () => {
    for (const [backoff, leftMs] of [
      ['500ms', 500],
      ['2h', 3_540_000],
    ] as const) {
      const { clock, source, process } = world()
      await process({ maxStale: '1h', backoff }).get('42')
      await clock.advance('2m')
      source.fails = true
      await process({ maxStale: '1h', backoff }).get('42')
      source.fails = false
      source.rows.set('42', 'new')
      const users = process({ maxStale: '1h', fresh: '2h' })
      expect(await users.get('42')).toBe('no 42')
      await clock.advance(leftMs - 1)
      expect(users.peek('42'), backoff).toBe('no 42')
      await clock.advance(1)
      expect(await users.get('42'), backoff).toBe('new')
    }
  })
  test('serves for `fresh` after another process’s invalidation, and not a moment longer (K7)', async () => {
    const { clock, source, process } = world()
    const [one, two] = [process({ fresh: '1s' }), process()]
    await one.get('42')
    await one.settled()
    source.rows.set('42', 'new')
    await two.invalidate('42')
    await clock.advance(999)
    expect(await one.get('42')).toBe('no 42')
    await clock.advance(1)
    expect(await one.get('42')).toBe('new')
  })
  test('does not count `fresh` from the write-back of a slow load: a tag may have been invalidated meanwhile (K7, K17)', async () => {
    const { clock, source, process } = world()
    const users = process({ fresh: '1s', load: async (key, { tag }) => (tag('all'), source.load(key)) })
    source.delayMs = 3_000
    const asked = users.get('42')
    await clock.advance('1s')
    source.rows.set('42', 'new')
    await process().invalidateTag('all')
    await clock.advance('2s')
    expect(await asked).toBe('no 42')
    expect(users.peek('42')).toBeUndefined()
    source.delayMs = 0
    expect(await users.get('42')).toBe('new')
  })
})

describe('work that goes on after an answer', () => {
  test('is given to waitUntil: refreshes, write-backs and repeated invalidations (K13)', async () => {
    const here = world()
    const { clock, source } = here
    const away = switched(here)
    const given = new Set<Promise<unknown>>()
    const waitUntil = (work: Promise<unknown>): void => {
      given.add(work)
      void work.then(() => given.delete(work))
    }
    const users = here.process({ stale: '1m', waitUntil }, away.kv)
    await users.get('42')
    expect(given.size).toBe(1) // the write-back
    await settle()
    expect(given.size).toBe(0)
    source.rows.set('42', 'new')
    source.delayMs = 100
    await clock.advance('1m')
    expect(await users.get('42')).toBe('no 42')
    await settle()
    expect(given.size).toBe(1) // the refresh
    await clock.advance('100ms')
    expect(given.size).toBe(0)
    expect(await users.get('42')).toBe('new')
    away.isAway = true
    await users.invalidate('42')
    expect(given.size).toBe(1) // its repetition
    away.isAway = false
    await clock.advance('10s')
    expect(given.size).toBe(0)
  })
  test('keeps a process alive only for who waits for it to settle (K5, K6)', async () => {
    const { clock, process } = world()
    const alive = new Set<unknown>()
    const timers = {
      elapsed: clock.elapsed,
      setTimeout(run: () => void, ms: number) {
        const timer = clock.setTimeout(() => (alive.delete(timer), run()), ms)
        alive.add(timer)
        return Object.assign(timer, { unref: () => (alive.delete(timer), timer) })
      },
      clearTimeout: (timer: never) => (alive.delete(timer), clock.clearTimeout(timer)),
    }
    const users = process({ lag: '2s', timers })
    await users.mutate('42', () => undefined)
    expect(alive.size).toBe(0)
    const settled = users.settled()
    expect(alive.size).toBe(1)
    await clock.advance('2s')
    await settled
    expect(alive.size).toBe(0)
  })
  test('goes on when waitUntil throws, as platforms do outside of a request: nobody who reads or invalidates is told (K13)', async () => {
    const here = world()
    const waitUntil = (): never => {
      throw new Error('outside of a request')
    }
    const users = here.process({ stale: '1m', fresh: '1h', waitUntil })
    expect(await users.get('42')).toBe('no 42')
    here.source.rows.set('42', 'new')
    await here.clock.advance('1m')
    expect(await users.get('42')).toBe('no 42')
    await users.settled()
    expect(await users.get('42')).toBe('new')
    here.source.rows.set('42', 'newer')
    expect(await users.invalidate('42')).toEqual({ done: true })
    expect(await users.get('42')).toBe('newer')
  })
  test('there is none with waitUntil: inline; callers wait for it (K13)', async () => {
    const { clock, store, source, process } = world()
    const users = process({ stale: '1m', waitUntil: 'inline' })
    await users.get('42')
    expect(await readsOf(store, process, source)).toBe(0)
    await clock.advance('1m')
    source.rows.set('42', 'new')
    expect(await users.get('42')).toBe('new')
    const mutating = process({ lag: '2s', waitUntil: 'inline' })
    let isOver = false
    void mutating.mutate('42', () => source.rows.set('42', 'newer')).then(() => (isOver = true))
    await clock.advance(1_999)
    expect([isOver, await users.get('42')]).toEqual([false, 'newer'])
    source.rows.set('42', 'newest') // the replica has it now
    await clock.advance(1)
    expect([isOver, await users.get('42')]).toEqual([true, 'newest'])
  })
})

/** How many loads another process needs now: 0 when the value is in the store. */
async function readsOf(store: KV, process: World['process'], source: World['source']): Promise<number> {
  const { loads } = source
  await process({}, store).get('42')
  return source.loads - loads
}

test('a process whose own clock stands still or runs ahead is judged by the store’s clock', async () => {
  const { clock, source, process } = world()
  const frozen = testClock()
  const users = process({ timers: frozen })
  await users.get('42')
  await settle()
  source.rows.set('42', 'new')
  await clock.advance('1m')
  expect(await users.get('42')).toBe('new')
})
