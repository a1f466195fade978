/** `@Counted` as users compile it: TC39 and legacy, by TypeScript and by esbuild. The compiled class has its own copy of hapax. */
import { beforeAll, describe, expect, test } from 'vitest'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import { memory } from '../../core/stores/memory.ts'
import { complaints, load, modes } from '../../test/decorators/modes.ts'
import { counter } from './counter.ts'
import { CountRefusedError } from './decorator.ts'
import type * as Decorated from './testdata/decorated.ts'
import type { Counter } from './types.ts'

describe.each(modes)('@Counted compiled by %s', (mode) => {
  let compiled: typeof Decorated
  beforeAll(async () => {
    compiled = await load<typeof Decorated>('patterns/counters/testdata/decorated.ts', mode)
  })
  const world = () => {
    const kv = memory()
    const seats = counter({ kv, name: 'seats', start: 2, min: 0 })
    const cents = counter({ kv, name: 'cents', bigint: true, max: 10n ** 20n })
    return { kv, seats, cents, ...compiled.boxOfficeOf(seats, cents) }
  }

  test('counts each call before the method runs, and does not run it beyond the bound (P9)', async () => {
    const { BoxOffice, seats } = world()
    const office = new BoxOffice()
    const booked = await Promise.allSettled(['ada', 'bob', 'eve'].map((name) => office.book('7', name)))
    expect(booked.filter((each) => each.status === 'fulfilled').length).toBe(2)
    expect(office.sold.length).toBe(2)
    expect((await seats.get('7')).value).toBe(0)
    const error: unknown = await office.book('7', 'zoe').catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ name: 'CountRefusedError', code: 'COUNT_REFUSED', refusal: 'bound', value: 0 })
    expect(String(error)).toBe("CountRefusedError: 'book' was not run: its counter stands at 0 and would cross its bound")
    expect(compiled.CountRefusedError).not.toBe(CountRefusedError)
    expect(error).toBeInstanceOf(CountRefusedError)
    expect(isKvError(error)).toBe(false)
    expect(await office.book('8', 'zoe')).toBe('zoe flies 8')
  })
  test('counts by the arguments, and a repeated request once; the method runs each time', async () => {
    const { BoxOffice, seats } = world()
    const office = new BoxOffice()
    expect(await office.bookAll('7', ['ada', 'bob'], 'order-1')).toBe(2)
    expect(await office.bookAll('7', ['ada', 'bob'], 'order-1')).toBe(4)
    expect((await seats.get('7')).value).toBe(0)
    await expect(office.bookAll('7', ['eve'], 'order-2')).rejects.toBeInstanceOf(CountRefusedError)
  })
  test('counts bigints exactly', async () => {
    const { BoxOffice, cents } = world()
    expect(await new BoxOffice().pay('ada', 2n ** 60n)).toBe(`ada ${2n ** 60n}`)
    await new BoxOffice().pay('ada', 1n)
    expect((await cents.get('ada')).value).toBe(2n ** 60n + 1n)
    await expect(new BoxOffice().pay('ada', 10n ** 20n)).rejects.toMatchObject({ refusal: 'bound', value: 2n ** 60n + 1n })
  })
  test('takes a counter of `this`, a late one, static methods and subclasses; keeps name and length', async () => {
    const { BoxOffice, Branch, lazy, seats } = world()
    expect(await new Branch().look()).toBe(0)
    expect((await seats.get('looks')).value).toBe(3)
    await expect(BoxOffice.open('7')).rejects.toSatisfy((error) => isKvError(error, 'INVALID_ARGUMENT'))
    lazy.seats = seats
    expect(await Branch.open('7')).toBe('Branch 7')
    expect((await seats.get('7')).value).toBe(3)
    expect([BoxOffice.prototype.book.name, BoxOffice.prototype.book.length]).toEqual(['book', 2])
  })
  test('keeps the count of a method that throws', async () => {
    const { BoxOffice, seats } = world()
    await expect(new BoxOffice().fails()).rejects.toThrow(new RangeError('no'))
    expect((await seats.get('failing')).value).toBe(3)
  })
  test('may stand on a method twice', async () => {
    const { BoxOffice, seats } = world()
    expect(await new BoxOffice().twice()).toBe('twice')
    expect([(await seats.get('inner')).value, (await seats.get('outer')).value]).toEqual([3, 3])
  })
  test('gives signal and deadline on', async () => {
    const { BoxOffice, seats } = world()
    const office = new BoxOffice()
    await expect(office.stoppable('7', AbortSignal.abort())).rejects.toSatisfy((error) => isKvError(error, 'ABORTED'))
    expect(await office.stoppable('7', new AbortController().signal)).toBe('7')
    expect((await seats.get('7')).value).toBe(3)
  })
})

test('a method does not run when it is not known whether its call was counted; the counter gets all that the options say', async () => {
  const compiled = await load<typeof Decorated>('patterns/counters/testdata/decorated.ts', 'esbuild, legacy')
  const kv = memory()
  const asked: unknown[] = []
  const lost: Counter = {
    ...counter({ kv, name: 'seats' }),
    add: async (...request) => {
      asked.push(request)
      throw new KvError('UNKNOWN_OUTCOME')
    },
  }
  const office = new (compiled.boxOfficeOf(lost, counter({ kv, name: 'cents', bigint: true })).BoxOffice)()
  const { signal } = new AbortController()
  for (const call of [office.book('7', 'ada'), office.bookAll('7', ['bob', 'eve'], 'order-1'), office.stoppable('8', signal)])
    await expect(call).rejects.toSatisfy((error) => isKvError(error, 'UNKNOWN_OUTCOME'))
  expect(office.sold).toEqual([])
  expect(asked).toEqual([
    ['7', -1, {}],
    ['7', -2, { requestId: 'order-1' }],
    ['8', 1, { signal, deadline: '1s' }],
  ])
})

test.each(['TypeScript, TC39', 'TypeScript, legacy'] as const)('the compiler takes what fits and refuses what does not: %s', (mode) => {
  expect(complaints('patterns/counters/testdata/decorated-types.ts', mode)).toBe('')
})
