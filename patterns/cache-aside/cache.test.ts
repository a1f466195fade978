/** What a cache does for one process: loads once, serves from memory, and keeps kinds of values, keys and callers apart. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { describe, expect, expectTypeOf, test } from 'vitest'
import { bytes, json, text } from '../../core/kv/codec.ts'
import { isKvError, type KvErrorCode } from '../../core/kv/errors.ts'
import { memory } from '../../core/stores/memory.ts'
import { settle } from '../../core/testing/clock.ts'
import { counting, testClock } from '../../core/testing/index.ts'
import { cache, notFound, unchanged, type CacheKey } from './index.ts'
import { eventsOf, world } from './testdata/world.ts'

const withCode = (code: KvErrorCode): unknown => expect.toSatisfy((error: unknown) => isKvError(error, code))

describe('a cache', () => {
  test('loads a value once and serves it until its ttl has passed', async () => {
    const { clock, source, process } = world()
    const users = process()
    source.rows.set('42', 'Ada')
    expect(await users.get('42')).toBe('Ada')
    source.rows.set('42', 'Grace')
    await clock.advance(59_999)
    expect(await users.get('42')).toBe('Ada')
    expect(source.loads).toBe(1)
    await clock.advance(1)
    expect(await users.get('42')).toBe('Grace')
  })

  test('serves from memory for `fresh` without asking the store, and then asks it by version', async () => {
    const { clock, source, store, process } = world()
    const counted = counting(store)
    const users = process({ fresh: '1s' }, counted)
    await users.get('42')
    await users.settled()
    counted.reset()
    const answer = users.get('42')
    expect(users.get('42')).toBe(answer) // not even a promise is made
    await answer
    expect(users.peek('42')).toBe('no 42')
    expect(counted.counts().total).toBe(0)
    await clock.advance(1_000)
    expect(users.peek('42')).toBeUndefined()
    await users.get('42')
    expect(counted.counts()).toMatchObject({ getMany: 1, total: 1 })
    expect(source.loads).toBe(1)
  })

  test('reads the keys of getMany, and all that is asked for in one turn, by one call', async () => {
    const { source, store, process } = world()
    const counted = counting(store)
    const users = process({}, counted)
    await users.getMany(['a', 'b'])
    await users.settled()
    counted.reset()
    expect(await Promise.all([users.getMany(['b', 'a', 'b']), users.get('a')])).toEqual([['no b', 'no a', 'no b'], 'no a'])
    expect(counted.counts()).toMatchObject({ getMany: 1, total: 1 })
    expect(source.loads).toBe(2)
  })

  test('with loadMany loads all that are wanted together by one call, each with its own result, error, tags and ttl', async () => {
    const clock = testClock()
    const asked: (readonly string[])[] = []
    const users = cache({
      kv: memory({ clock }),
      name: 'user',
      ttl: '1m',
      fresh: 0,
      timers: clock,
      loadMany: async (keys: readonly string[], { each }) => {
        asked.push(keys)
        for (const [index, key] of keys.entries()) each[index]?.tag(`tag of ${key}`)
        return keys.map((key) => (key === 'bad' ? new Error('no such row') : `row ${key}`))
      },
    })
    const [a, bad, b] = await Promise.allSettled([users.get('a'), users.get('bad'), users.get('b')])
    expect([a, b]).toMatchObject([{ value: 'row a' }, { value: 'row b' }])
    expect(bad).toMatchObject({ status: 'rejected', reason: { message: 'no such row' } })
    await users.settled()
    await users.invalidateTag('tag of a')
    expect(await users.getMany(['a', 'b'])).toEqual(['row a', 'row b'])
    expect(asked).toEqual([['a', 'bad', 'b'], ['a']])
  })

  test('reads by what the store takes at once, tags included', async () => {
    const clock = testClock()
    for (const getManyMax of [2, 3, 8]) {
      const kv = counting(memory({ clock, limits: { getManyMax } }))
      let loads = 0
      const users = cache({
        kv,
        name: 'user',
        ttl: '1h',
        fresh: '1s',
        jitter: 0,
        timers: clock,
        load: async (key: string, { tag }) => (tag(...Array.from({ length: 12 }, (_, nth) => `tag ${nth}`)), loads++, key),
      })
      for (let round = 0; round < 3; round++) {
        expect(await users.getMany(['a', 'b', 'c'])).toEqual(['a', 'b', 'c'])
        await users.settled()
        await clock.advance('2s')
      }
      expect(loads, `${getManyMax} at once`).toBe(3)
    }
    expect(() => cache({ kv: memory({ limits: { getManyMax: 1 } }), name: 'user', ttl: '1h', load: (key: string) => key })).toThrow(
      withCode('CAPABILITY_MISSING') as Error,
    )
  })

  test('refuses a loadMany that answers with too few results', async () => {
    const users = cache({ kv: memory(), name: 'user', ttl: '1m', loadMany: async (_keys: readonly string[]) => [] as string[] })
    await expect(users.get('a')).rejects.toEqual(withCode('LOAD_INVALID'))
  })

  test('refuses options that cannot be, and a store that lacks what is needed', () => {
    const { store, process } = world()
    const wrong: Parameters<typeof process>[0][] = [
      { ttl: 0 },
      { jitter: 0.6 },
      { stale: '2h', maxStale: '1h' },
      { hard: '2h' },
      { hard: 5 },
      { loadsMax: 0 },
      { version: 0 },
      { name: '' },
    ]
    for (const options of wrong) expect(() => process(options), JSON.stringify(options)).toThrow(withCode('INVALID_ARGUMENT') as Error)
    const lacking = { ...store, capabilities: { ...store.capabilities, serverClock: false } }
    expect(() => process({}, lacking)).toThrow(withCode('CAPABILITY_MISSING') as Error)
    expect(() => process({ ttl: '300d' }, memory({ limits: 'juno' }))).toThrow(/ttl/)
  })
})

describe('values', () => {
  const values = { undefined: undefined, null: null, zero: 0, false: false, empty: '', list: [1, { a: null }] } as const
  for (const [name, value] of Object.entries(values)) {
    test(`${name} is kept like any other (K10)`, async () => {
      const clock = testClock()
      const kv = memory({ clock })
      let loads = 0
      const make = () => cache({ kv, name: 'v', ttl: '1m', fresh: 0, timers: clock, load: (_key: string): unknown => (loads++, value) })
      expect(await make().get('k')).toEqual(value)
      await settle()
      expect(await make().get('k')).toEqual(value)
      expect(loads).toBe(1)
    })
  }

  test('that are not there are remembered for a time of their own: notFound({ ttl }) (K10)', async () => {
    const { clock, source, process } = world()
    const users = process({
      ttl: '1h',
      stale: '1h',
      load: async (key) => ((await source.load(key)) === 'no 42' ? notFound({ ttl: '10s' }) : 'Ada') as string,
    })
    expect(await users.get('42')).toBeUndefined()
    source.rows.set('42', 'Ada')
    await clock.advance('9s')
    expect(await users.get('42')).toBeUndefined()
    await clock.advance('1s')
    expect(await users.get('42')).toBe('Ada')
    expect(source.loads).toBe(2)
  })

  test('have the ttl that their loader says, up to ttlMax', async () => {
    const { clock, source, process } = world()
    const said: { ttl: number | '2m' | '3m' } = { ttl: '2m' }
    const users = process({ ttlMax: '2m', load: (key, { ttl }) => (ttl(said.ttl), source.load(key)) })
    await users.get('42')
    await clock.advance('119s')
    await users.get('42')
    expect(source.loads).toBe(1)
    said.ttl = '3m'
    await expect(users.get('other')).rejects.toEqual(withCode('INVALID_ARGUMENT'))
  })

  test('are renewed by `unchanged`, when the loader has the one before', async () => {
    const { clock, process } = world()
    const seen: unknown[] = []
    const users = process({
      maxStale: '1h',
      load: async (_key, { previous }) => {
        seen.push(previous?.value)
        return previous === undefined ? 'Ada' : (unchanged as unknown as string)
      },
    })
    await users.get('42')
    await clock.advance('2m')
    expect(await users.get('42')).toBe('Ada')
    await clock.advance('59s')
    expect(await users.get('42')).toBe('Ada')
    expect(seen).toEqual([undefined, 'Ada'])
    const mistaken = process({ name: 'other', load: async () => unchanged as unknown as string })
    await expect(mistaken.get('1')).rejects.toEqual(withCode('LOAD_INVALID'))
  })

  test('keep to 32 tags, however often they are renewed by `unchanged`', async () => {
    const { clock, process } = world()
    let nth = 0
    const users = process({
      maxStale: '1h',
      load: async (_key, { previous, tag }) => {
        for (let more = 0; more < 20; more++) tag(`tag ${nth++}`)
        return previous === undefined ? 'Ada' : (unchanged as unknown as string)
      },
    })
    await users.get('42')
    await clock.advance('2m')
    const events = await eventsOf(async () => expect(await users.get('42')).toBe('Ada'))
    expect(events).toContainEqual(expect.objectContaining({ type: 'load-failed', cause: withCode('LOAD_INVALID') }))
  })

  const objects = (share: 'frozen' | 'cloned' | 'as-is') => {
    const own = { list: [1] }
    return { own, users: cache({ kv: memory(), name: 'o', ttl: '1m', share, load: async (_key: string) => own }) }
  }
  test('are frozen, so that no caller changes what the others get; the loader’s own object is not touched (K11)', async () => {
    const { own, users } = objects('frozen')
    const got = await users.get('1')
    expect(() => got.list.push(2)).toThrow(TypeError)
    own.list.push(3)
    expect(await users.get('1')).toEqual({ list: [1] })
  })
  test('are frozen all through, also where a codec or schema froze the outside alone (K11)', async () => {
    const lists = json<{ list: number[] }>()
    const codec = { ...lists, decode: (of: Uint8Array) => Object.freeze(lists.decode(of)) as { list: number[] } }
    const users = cache({ kv: memory(), name: 'o', ttl: '1m', codec, load: async (_key: string) => ({ list: [1] }) })
    const got = await users.get('1')
    expect(() => got.list.push(2)).toThrow(TypeError)
  })
  test('are never the loader’s own bytes, which it may use again (K11)', async () => {
    const own: Uint8Array = new Uint8Array([1])
    const users = cache({ kv: memory(), name: 'b', ttl: '1m', codec: bytes, load: async (_key: string) => own })
    const got = await users.get('1')
    own[0] = 2
    expect([...got, ...(await users.get('1'))]).toEqual([1, 1])
  })
  test('are cloned for each caller, by option (K11)', async () => {
    const { users } = objects('cloned')
    const [one, two] = await Promise.all([users.get('1'), users.get('1')])
    one.list.push(2)
    two.list.push(3)
    expect(await users.get('1')).toEqual({ list: [1] })
    users.peek('1')?.list.push(4)
    expect(users.peek('1')).toEqual({ list: [1] })
  })
  test('are shared as they are, by option (K11)', async () => {
    const { users } = objects('as-is')
    ;(await users.get('1')).list.push(2)
    expect(await users.get('1')).toEqual({ list: [1, 2] })
  })

  test('that no codec can hold are the loader’s mistake, and are not kept', async () => {
    let loads = 0
    const users = cache({ kv: memory(), name: 'm', ttl: '1m', load: async (_key: string) => (loads++, new Map()) })
    await expect(users.get('1')).rejects.toEqual(withCode('VALUE_INVALID'))
    await expect(users.get('1')).rejects.toEqual(withCode('VALUE_INVALID'))
    expect(loads).toBe(2)
  })

  test('too large for the store are given, marked there, kept for `fresh`, told once, and make nobody wait (K19)', async () => {
    const clock = testClock()
    const kv = memory({ clock, limits: { valueBytesMax: 2_000 } })
    let loads = 0
    const make = () =>
      cache({ kv, name: 'big', ttl: '1m', fresh: '1s', timers: clock, load: async (_key: string) => (loads++, 'x'.repeat(3_000)) })
    const [one, two] = [make(), make()]
    const events = await eventsOf(async () => {
      expect(await one.get('1')).toHaveLength(3_000)
      await one.settled()
      expect(await two.get('1')).toHaveLength(3_000) // at once, without a lease
      await one.get('1')
      expect(loads).toBe(2)
      await clock.advance('1s')
      await one.get('1')
      expect(loads).toBe(3)
    })
    expect(events.filter(({ type }) => type === 'oversize')).toHaveLength(1)
    expect(events.filter(({ type }) => type === 'past')).toHaveLength(2)
  })
})

describe('keys', () => {
  test('of unlike types or content are unlike: 1, "1", 1n, true, "true", objects and texts of objects (K12)', async () => {
    const keys: CacheKey[] = [1, '1', 1n, true, 'true', { a: 1 }, '{"a":1}', '\0j{"a":1}', ['1'], [1], '\0', '', '\ud800', '\ud801', '\0s']
    const users = cache({
      kv: memory(),
      name: 'k',
      ttl: '1m',
      fresh: 0,
      load: async (key: CacheKey) => `${typeof key} ${keys.indexOf(key)}`,
    })
    const first = await users.getMany(keys)
    await users.settled()
    expect(await users.getMany(keys)).toEqual(first)
    expect(new Set(first).size).toBe(keys.length)
  })
  test('that are equal as JSON are one, whatever the order of their members; the tenant is a member like any other (K12, K15)', async () => {
    let loads = 0
    const users = cache({
      kv: memory(),
      name: 'k',
      ttl: '1m',
      load: async ({ tenant, id }: { tenant: string; id: number }) => (loads++, `${tenant}/${id}`),
    })
    expect(await users.get({ tenant: 'a', id: 1 })).toBe('a/1')
    expect(await users.get({ id: 1, tenant: 'a' })).toBe('a/1')
    expect(await users.get({ tenant: 'b', id: 1 })).toBe('b/1')
    expect(loads).toBe(2)
  })
  test('have one length in the store, however long they are (K12)', async () => {
    const { store, process } = world()
    const seen = new Set<number>()
    const kv = { ...store, create: ((key, ...rest) => (seen.add(key.length), store.create(key, ...rest))) as typeof store.create }
    const users = process({}, kv)
    await users.getMany(['', 'x'.repeat(10_000), 'é'])
    expect([...seen]).toEqual([49])
    for (const key of [Number.NaN, 'x'.repeat(20_000), undefined, null, { a: 1n }])
      await expect(users.get(key as string), String(key)).rejects.toEqual(withCode('INVALID_ARGUMENT'))
  })
})

describe('callers', () => {
  test('of one load are not ended by the abort or the deadline of another (K14)', async () => {
    const { clock, source, process } = world()
    source.delayMs = 500
    const users = process()
    const leaving = new AbortController()
    const aborted = users.get('42', { signal: leaving.signal })
    const late = users.get('42', { deadline: '100ms' })
    const patient = users.get('42')
    const ends = Promise.allSettled([aborted, late, patient])
    await settle()
    leaving.abort(new Error('the client has left'))
    await clock.advance('1s')
    expect(await ends).toEqual([
      { status: 'rejected', reason: withCode('ABORTED') },
      { status: 'rejected', reason: withCode('DEADLINE_EXCEEDED') },
      { status: 'fulfilled', value: 'no 42' },
    ])
    expect(source.loads).toBe(1)
  })
  test('all of whom have left leave the load going: its value is there for the next', async () => {
    const { clock, source, process } = world()
    source.delayMs = 500
    const users = process()
    const leaving = new AbortController()
    const aborted = users.get('42', { signal: leaving.signal })
    await settle()
    leaving.abort()
    await expect(aborted).rejects.toEqual(withCode('ABORTED'))
    await clock.advance('1s')
    expect(await users.get('42')).toBe('no 42')
    expect(source.loads).toBe(1)
  })
  test('do not show in what is loaded: a loader runs outside the async context of whoever came first (K15)', async () => {
    const principal = new AsyncLocalStorage<string>()
    const users = cache({
      kv: memory(),
      name: 'p',
      ttl: '1m',
      load: async (key: string) => `${key} for ${principal.getStore() ?? 'anybody'}`,
    })
    expect(await principal.run('ada', () => users.get('1'))).toBe('1 for anybody')
    const many = cache({
      kv: memory(),
      name: 'p',
      ttl: '1m',
      loadMany: async (keys: readonly string[]) => keys.map(() => principal.getStore() ?? 'anybody'),
    })
    expect(await principal.run('ada', () => many.get('1'))).toBe('anybody')
    // Made late, as many caches are: in the request that needs it first.
    const late = principal.run('ada', () =>
      cache({ kv: memory(), name: 'p', ttl: '1m', load: async (_key: string) => principal.getStore() ?? 'anybody' }),
    )
    expect(await late.get('1')).toBe('anybody')
  })
})

describe('errors of a loader', () => {
  test('are given to all who wait, and are not remembered (K9)', async () => {
    const { source, process } = world()
    const users = process({ fresh: '1m' })
    source.fails = true
    for (const end of await Promise.allSettled([users.get('42'), users.get('42')]))
      expect(end).toMatchObject({ reason: { message: 'the database is away' } })
    await users.settled()
    source.fails = false
    expect(await users.get('42')).toBe('no 42')
    expect(source.loads).toBe(2)
  })
  test('are remembered by class and for their own time, if the options say so (K9)', async () => {
    const { clock, source, process } = world()
    const users = process({ errorTtl: (error) => (error instanceof Error && error.message.includes('away') ? '5s' : 0) })
    source.fails = true
    await expect(users.get('42')).rejects.toThrow('away')
    source.fails = false
    await clock.advance('4s')
    await expect(users.get('42')).rejects.toThrow('away')
    expect(users.peek('42')).toBeUndefined()
    await clock.advance('1s')
    expect(await users.get('42')).toBe('no 42')
    expect(source.loads).toBe(2)
  })
  test('are not remembered when the key was invalidated while they were on their way (K9)', async () => {
    const { clock, source, process } = world()
    const users = process({ errorTtl: '1h' })
    source.fails = true
    source.delayMs = 500
    const before = users.get('42').catch((error: Error) => error.message)
    await settle()
    await users.invalidate('42')
    source.fails = false
    await clock.advance('500ms')
    expect(await before).toBe('the database is away')
    source.delayMs = 0
    expect(await users.get('42')).toBe('no 42')
  })
  test('end a loader that hears its signal, and one that does not, at the hard deadline', async () => {
    const { clock, process } = world()
    let reason: unknown
    const users = process({
      hard: '2s',
      load: (_key, { signal }) => {
        signal.addEventListener('abort', () => (reason = signal.reason))
        return new Promise<string>(() => {})
      },
    })
    const got = users.get('42').catch((error: unknown) => error)
    await clock.advance('2s')
    expect(await got).toEqual(withCode('LOAD_TIMEOUT'))
    expect(reason).toEqual(withCode('LOAD_TIMEOUT'))
  })
})

test('a load that takes more than half of its ttl is told (K16)', async () => {
  const { clock, source, process } = world()
  const users = process({ ttl: '1s' })
  const slow = async (delayMs: number, key: string) => {
    source.delayMs = delayMs
    return (
      await eventsOf(async () => {
        const got = users.get(key)
        await clock.advance('2s')
        await got
      })
    ).filter(({ type }) => type === 'slow-load')
  }
  expect(await slow(400, 'quick')).toEqual([])
  expect(await slow(600, 'slow')).toMatchObject([{ deltaMs: 600, ttlMs: 1_000, name: 'user' }])
})

test('memory is bounded in bytes, and what is used stays longer than what is not', async () => {
  const { source, process } = world()
  const users = process({ fresh: '1h', ttl: '1h', memoryBytesMax: 10_000 })
  await users.get('used')
  for (let nth = 0; nth < 200; nth++) {
    await users.get(`once ${nth}`)
    expect(users.peek('used')).toBe('no used')
    await users.get('used')
  }
  await users.settled()
  expect(users.peek('once 0')).toBeUndefined()
  expect(source.loads).toBe(201)
})

test('the types of key and value come from the loader', () => {
  const kv = memory()
  const users = cache({
    kv,
    name: 'user',
    ttl: '5m',
    stale: '1h',
    load: (id: string, { signal }) => Promise.resolve({ id, signal: signal.aborted }),
  })
  expectTypeOf(users.get).parameter(0).toEqualTypeOf<string>()
  expectTypeOf(users.get('1')).resolves.toEqualTypeOf<{ id: string; signal: boolean }>()
  const perhaps = cache({ kv, name: 'user', ttl: '5m', load: async (id: number) => (id > 0 ? { id } : notFound({ ttl: '1s' })) })
  expectTypeOf(perhaps.get(1)).resolves.toEqualTypeOf<{ id: number } | undefined>()
  const kept = cache({
    kv,
    name: 'user',
    ttl: '5m',
    load: async (id: number, { previous }) => (previous === undefined ? { id } : unchanged),
  })
  expectTypeOf(kept.get(1)).resolves.toEqualTypeOf<{ id: number }>()
  const many = cache({
    kv,
    name: 'user',
    ttl: '5m',
    loadMany: async (ids: readonly number[]) => ids.map((id) => (id > 0 ? { id } : new Error('none'))),
  })
  expectTypeOf(many.get(1)).resolves.toEqualTypeOf<{ id: number }>()
  const coded = cache({ kv, name: 'user', ttl: '5m', codec: text, load: async (id: string) => `row ${id}` })
  expectTypeOf(coded.getMany(['1'])).resolves.toEqualTypeOf<string[]>()
  // @ts-expect-error a codec of texts does not fit numbers
  cache({ kv, name: 'user', ttl: '5m', codec: text, load: async (_id: string) => 7 })
})
