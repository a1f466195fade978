/** `@Cached` as users compile it: TC39 and legacy, by TypeScript and by esbuild. The compiled class has its own copy of hapax. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { beforeAll, describe, expect, test } from 'vitest'
import { isKvError } from '../../core/kv/errors.ts'
import { memory } from '../../core/stores/memory.ts'
import { testClock } from '../../core/testing/clock.ts'
import { complaints, load, modes } from '../../test/decorators/modes.ts'
import { cache } from './cache.ts'
import { Cached, currentLoad, methodCache } from './decorator.ts'
import type * as Decorated from './testdata/decorated.ts'

describe.each(modes)('@Cached compiled by %s', (mode) => {
  let compiled: typeof Decorated
  beforeAll(async () => {
    compiled = await load<typeof Decorated>('patterns/cache-aside/testdata/decorated.ts', mode)
  })
  const world = () => {
    const clock = testClock()
    const kv = memory({ clock })
    const process = () => compiled.directoryOf({ kv, timers: clock })
    return { clock, kv, process, ...process() }
  }

  test('loads by the method itself, once for each key, for all processes (P9)', async () => {
    const { Directory, process } = world()
    const [one, other] = [new Directory(), new (process().Directory)()]
    expect(await Promise.all([one.user('42'), one.user('42', 'again'), one.user('43')])).toEqual([
      { id: '42', name: 'Ada' },
      { id: '42', name: 'Ada' },
      { id: '43', name: 'nobody' },
    ])
    expect(one.loads.sort()).toEqual(['42', '43'])
    expect(await other.user('42')).toEqual({ id: '42', name: 'Ada' })
    expect(other.loads).toEqual([])
  })
  test('is invalidated by its handle, in every process', async () => {
    const { Directory, users, process, clock } = world()
    const there = process()
    const [one, other] = [new Directory(), new there.Directory()]
    await one.user('42')
    await other.user('42')
    await users.mutate('42', () => void (one.names[42] = 'Grace'))
    expect(await one.user('42')).toEqual({ id: '42', name: 'Grace' })
    await clock.advance('2s') // longer than `fresh`
    expect(await other.user('42')).toEqual({ id: '42', name: 'Grace' })
    one.names[42] = 'Hedy'
    expect(await there.users.invalidate('42')).toMatchObject({ done: true })
    await clock.advance('2s')
    expect(await one.user('42')).toEqual({ id: '42', name: 'Hedy' })
    await users.clear()
    expect(users.pendingInvalidations).toBe(0)
    one.names[42] = 'Joan'
    expect(await one.user('42')).toEqual({ id: '42', name: 'Joan' })
    expect(users.name).toBe('user')
  })
  test('serves a stale value and loads anew in the background, with the arguments and `this` of the call', async () => {
    const { Directory, clock, users } = world()
    const directory = new Directory()
    await directory.user('42')
    directory.names[42] = 'Grace'
    await clock.advance('6m')
    expect((await directory.user('42')).name).toBe('Ada')
    await users.settled()
    expect((await directory.user('42')).name).toBe('Grace')
    expect(directory.loads).toEqual(['42', '42'])
  })
  test('tells keys apart by what JSON says, and keeps undefined', async () => {
    const { Directory } = world()
    const directory = new Directory()
    expect(await directory.page('a', 1)).toBe('a/1')
    expect(await directory.page('a', 2)).toBe('a/2')
    expect(await directory.page('a', 1)).toBe('a/1')
    expect([await directory.nothing(), await directory.nothing()]).toEqual([undefined, undefined])
    expect(directory.loads).toEqual(['a 1', 'a 2', 'nothing'])
  })
  test('decorates static methods, subclasses, caches of `this` and late ones; keeps name and length', async () => {
    const { Directory, Branch, lazy, users } = world()
    expect([await Directory.square(3), await Directory.square(3)]).toEqual(['Directory 9 1', 'Directory 9 1'])
    expect(await new Branch().user('42')).toEqual({ id: '42', name: 'Ada of the branch' })
    const directory = new Directory()
    expect([await directory.ofItsOwn('1'), await directory.ofItsOwn('1')].map((user) => user.name)).toEqual(['own', 'own'])
    expect(directory.loads).toEqual(['own 1'])
    await expect(directory.late('1')).rejects.toSatisfy((error) => isKvError(error, 'INVALID_ARGUMENT'))
    lazy.users = users
    expect((await directory.late('1')).name).toBe('late')
    expect([Directory.prototype.user.name, Directory.prototype.user.length]).toEqual(['user', 2])
  })
  test('lets the method name tags and its ttl', async () => {
    const { Directory, clock, tagged } = world()
    const directory = new Directory()
    expect([await directory.tagged('a'), await directory.tagged('b'), await directory.tagged('a')]).toEqual([1, 2, 1])
    expect(await tagged.invalidateTag('team:a')).toMatchObject({ done: true })
    expect([await directory.tagged('a'), await directory.tagged('b')]).toEqual([3, 2])
    await clock.advance('61s')
    expect(await directory.tagged('a')).toBe(4)
    expect(() => compiled.currentLoad()).toThrow('outside of a method')
  })
  test("throws the method's own error, and asks again", async () => {
    const { Directory } = world()
    const directory = new Directory()
    await expect(directory.fails('1')).rejects.toThrow(new RangeError('1'))
    await expect(directory.fails('1')).rejects.toThrow(new RangeError('1'))
    expect(directory.loads).toEqual(['1', '1'])
  })
  test('refuses to wait for itself, and calls itself under other keys', async () => {
    const { Directory } = world()
    const directory = new Directory()
    await expect(directory.twice('1')).rejects.toSatisfy((error) => isKvError(error, 'INVALID_ARGUMENT'))
    await expect(directory.twice('1')).rejects.toThrow('asks for its own key while it loads')
    expect(await directory.sum(5)).toBe(15)
  })
  test("ends one caller's wait by its signal, and not the load", async () => {
    const { Directory } = world()
    const directory = new Directory()
    let open = (): void => {}
    directory.go = new Promise((resolve) => (open = resolve))
    const leaving = new AbortController()
    const left = directory.waiting(leaving.signal).catch((error: unknown) => error)
    const stays = directory.waiting(new AbortController().signal)
    leaving.abort()
    expect(isKvError(await left, 'ABORTED')).toBe(true)
    open()
    expect(await stays).toBe('loaded')
  })
})

test('a load runs outside of the contexts of its caller (K15)', async () => {
  const clock = testClock()
  const calls = methodCache<string>({ kv: memory({ clock }), name: 'a', ttl: '1m', timers: clock })
  const principal = new AsyncLocalStorage<string>()
  const seen = await principal.run('ada', () => calls.through('k', () => principal.getStore() ?? 'nobody'))
  expect(seen).toBe('nobody')
  expect(() => currentLoad()).toThrow('outside of a method')
})

test('what is no key or no cache is refused where it is written, not at the first call', () => {
  const calls = methodCache<string>({ kv: memory(), name: 'a', ttl: '1m' })
  const own = cache({ kv: memory(), name: 'a', ttl: '1m', load: (key: string) => key })
  const wrong: readonly (readonly unknown[])[] = [
    [calls],
    [calls, {}],
    [undefined, { key: String }],
    [null, { key: String }],
    [own, { key: String }],
  ]
  for (const args of wrong)
    expect(() => Reflect.apply(Cached, undefined, args)).toThrow(expect.toSatisfy((error) => isKvError(error, 'INVALID_ARGUMENT')) as Error)
})

test.each(['TypeScript, TC39', 'TypeScript, legacy'] as const)('the compiler takes what fits and refuses what does not: %s', (mode) => {
  expect(complaints('patterns/cache-aside/testdata/decorated-types.ts', mode)).toBe('')
})
