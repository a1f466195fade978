/** `@Idempotent` as users compile it: TC39 and legacy, by TypeScript and by esbuild. The compiled class has its own copy of hapax. */
import { beforeAll, describe, expect, test } from 'vitest'
import { isKvError } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import { memory } from '../../core/stores/memory.ts'
import { testClock } from '../../core/testing/clock.ts'
import { faulty } from '../../core/testing/faulty.ts'
import { complaints, load, modes, tc39Modes } from '../../test/decorators/modes.ts'
import { currentOnce, Idempotent, IdempotencyRefusedError } from './decorator.ts'
import { idempotency } from './idempotency.ts'
import type * as Decorated from './testdata/decorated.ts'
import type * as Private from './testdata/decorated-private.ts'

describe.each(modes)('@Idempotent compiled by %s', (mode) => {
  let compiled: typeof Decorated
  beforeAll(async () => {
    compiled = await load<typeof Decorated>('patterns/idempotency/testdata/decorated.ts', mode)
  })
  const world = () => {
    const kv = memory()
    const payments = idempotency({ kv, name: 'payments' })
    const others = idempotency({ kv, name: 'others' })
    return { kv, payments, others, ...compiled.shopOf(payments, others) }
  }

  test('runs a method once for each scope and key, outside HTTP (P9)', async () => {
    const shop = new (world().Shop)()
    const order = { id: 'order-7', total: 2990 }
    expect(await shop.charge('ada', order)).toEqual({ charged: '2990 EUR', by: 1 })
    expect(await shop.charge('ada', { total: 2990, id: 'order-7' })).toEqual({ charged: '2990 EUR', by: 1 })
    expect(await shop.charge('bob', order)).toEqual({ charged: '2990 EUR', by: 2 })
    expect(shop.calls).toEqual(['ada order-7', 'bob order-7'])
  })
  test('keeps `this`, and gives a repetition on another instance the first result', async () => {
    const { Shop } = world()
    expect(await new Shop('USD').charge('ada', { id: '1', total: 1 })).toEqual({ charged: '1 USD', by: 1 })
    expect(await new Shop('YEN').charge('ada', { id: '1', total: 1 })).toEqual({ charged: '1 USD', by: 1 })
  })
  test('keeps name and length, and the place on the prototype', () => {
    const { Shop } = world()
    const { charge } = Shop.prototype
    expect([charge.name, charge.length]).toEqual(['charge', 2])
    expect([Shop.archive.name, Shop.archive.length]).toEqual(['archive', 1])
    expect(Object.getOwnPropertyDescriptor(Shop.prototype, 'charge')).toMatchObject({
      enumerable: false,
      configurable: true,
      writable: true,
    })
  })
  test('tells a refusal with its code, and when to come back', async () => {
    const { Shop, payments } = world()
    const shop = new Shop()
    await shop.charge('ada', { id: '1', total: 1 })
    const error: unknown = await shop.charge('ada', { id: '1', total: 2 }).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      name: 'IdempotencyRefusedError',
      code: 'IDEMPOTENCY_REFUSED',
      refusal: 'mismatch',
      retryAfterMs: undefined,
    })
    expect(String(error)).toBe("IdempotencyRefusedError: 'charge' was not run: another call came under this key before")
    // Of another copy of hapax, and known all the same.
    expect(compiled.IdempotencyRefusedError).not.toBe(IdempotencyRefusedError)
    expect(error).toBeInstanceOf(IdempotencyRefusedError)
    expect(error).not.toBeInstanceOf(compiled.KvError)
    let end = (): void => {}
    const running = payments.run(
      { scope: 'public', key: 'a', operation: 'optional', input: ['a'] },
      () => new Promise<number>((resolve) => (end = () => resolve(5))),
    )
    const inFlight = (await shop.optional('a').catch((thrown: unknown) => thrown)) as IdempotencyRefusedError
    expect(inFlight.refusal).toBe('in-flight')
    expect(inFlight.retryAfterMs).toBeGreaterThan(0)
    end()
    await running
    expect(await shop.optional('a')).toBe(5)
  })
  test('compares `input` alone where it is given, else all arguments', async () => {
    const shop = new (world().Shop)()
    expect(await shop.note('1', 'gift', new Date(1))).toBe('1: gift')
    expect(await shop.note('1', 'gift', new Date(2))).toBe('1: gift')
    await expect(shop.note('1', 'other')).rejects.toMatchObject({ refusal: 'mismatch' })
    expect(await shop.optional('2')).toBe(2)
    expect(await shop.optional('2', undefined, undefined)).toBe(2)
    await expect(shop.optional('2', undefined, 'more')).rejects.toMatchObject({ refusal: 'mismatch' })
    await expect(shop.optional('3', (() => 1) as unknown as string)).rejects.toSatisfy((error) => isKvError(error, 'INVALID_ARGUMENT'))
  })
  test('decorates static methods', async () => {
    const { Shop } = world()
    expect(await Shop.archive('7')).toBe('Shop 7 1')
    expect(await Shop.archive('7')).toBe('Shop 7 1')
    expect(Shop.archived).toEqual(['7'])
  })
  test('is inherited: a subclass calls it through super, under the same key', async () => {
    const { Branch, Shop } = world()
    const branch = new Branch()
    const order = { id: '1', total: 1 }
    expect(await branch.charge('ada', order)).toEqual({ charged: '1 EUR at the branch', by: 1 })
    expect(await branch.charge('ada', order)).toEqual({ charged: '1 EUR at the branch', by: 1 })
    expect(await new Shop().charge('ada', order)).toEqual({ charged: '1 EUR', by: 1 })
    expect(branch.calls).toEqual(['ada 1'])
  })
  test('takes an idempotency that is there only later, or on `this`', async () => {
    const { Shop, lazy, others } = world()
    const shop = new Shop()
    await expect(shop.late('1')).rejects.toThrow("what decorates 'late' is given by a function, and this gave nothing yet")
    lazy.payments = others
    expect(await shop.late('1')).toBe(1)
    expect(await shop.late('1')).toBe(1)
    expect(await shop.ofItsOwn('1')).toBe(2)
    expect(await others.inspect({ scope: 'EUR', key: '1', operation: 'ofItsOwn' })).toMatchObject({ state: 'completed' })
  })
  test('gives the method its steps and its fence', async () => {
    const shop = new (world().Shop)()
    const result = await shop.steps('1')
    expect(result).toEqual({ first: expect.stringMatching(/^[\w-]{43}$/) as string, fence: 1, sameKey: true })
    expect(await shop.steps('1')).toEqual(result)
    expect((await shop.steps('2')).first).not.toBe(result.first)
    expect(() => compiled.currentOnce()).toThrow('outside of a method')
  })
  test("throws the method's own error, and keeps the key", async () => {
    const shop = new (world().Shop)()
    await expect(shop.fails('1')).rejects.toThrow(new RangeError('no 1'))
    await expect(shop.fails('1')).rejects.toMatchObject({ refusal: 'outcome-unknown' })
    expect(shop.calls).toEqual(['fails 1'])
  })
  test('refuses to stand twice on a method, and to run inside itself under one key', async () => {
    const shop = new (world().Shop)()
    const twice: unknown = await shop.twice('1').catch((error: unknown) => error)
    expect(isKvError(twice, 'APPLIED_TWICE') && twice.message).toBe("HPX-3002 'twice' runs inside itself under one idempotency key")
    await expect(shop.calls2('1', '1')).rejects.toSatisfy((error) => isKvError(error, 'APPLIED_TWICE'))
    expect(await shop.calls2('2', '3')).toBe('end 3')
    expect(await shop.underTwo('4')).toBe('4')
    expect(await shop.underTwo('4')).toBe('4')
    expect(shop.calls).toEqual(['underTwo 4'])
  })
  test('gives the result to what a method left behind in the background', async () => {
    const shop = new (world().Shop)()
    let open = (): void => {}
    const go = { wait: new Promise<void>((resolve) => (open = resolve)), toJSON: () => 'go' }
    const later: { promise?: Promise<unknown>; toJSON(): string } = { toJSON: () => 'later' }
    expect(await shop.leavesBehind('1', later, go)).toBe(1)
    open()
    expect(await later.promise).toBe(1)
    expect(shop.calls).toEqual(['left 1'])
  })
  test('stands between other decorators', async () => {
    const { Shop, trace } = world()
    const shop = new Shop()
    expect(await shop.between('1')).toBe(1)
    expect(trace).toEqual(['outer', 'inner'])
    expect(await shop.between('1')).toBe(1)
    expect(trace).toEqual(['outer', 'inner', 'outer'])
  })
  test('gives the signal on', async () => {
    const shop = new (world().Shop)()
    await expect(shop.stoppable(AbortSignal.abort())).rejects.toSatisfy((error) => isKvError(error, 'ABORTED'))
    expect(await shop.stoppable(new AbortController().signal)).toBe(false)
  })
  test('keeps one identity over a renamed method when the operation is named (P12)', async () => {
    const shop = new (world().Shop)()
    expect(await shop.buyOld('ada', '1')).toBe('old')
    expect(await shop.buyNew('ada', '1')).toBe('old')
    expect(await shop.buyNew('ada', '2')).toBe('new')
  })
  test('throws what a wrong scope and a wrong key are', async () => {
    const shop = new (world().Shop)()
    await expect(shop.buyNew('', '1')).rejects.toSatisfy((error) => isKvError(error, 'SCOPE_MISSING'))
    await expect(shop.buyNew('ada', '')).rejects.toSatisfy((error) => isKvError(error, 'INVALID_ARGUMENT'))
  })
})

describe.each(tc39Modes)('@Idempotent on private methods, compiled by %s', (mode) => {
  test('runs them once, on instances and on the class', async () => {
    const { vaultOf } = await load<typeof Private>('patterns/idempotency/testdata/decorated-private.ts', mode)
    const Vault = vaultOf(idempotency({ kv: memory(), name: 'vault' }))
    const vault = new Vault()
    expect([await vault.add('a'), await vault.add('b'), await vault.add('a')]).toEqual(['a 1', 'b 2', 'a 1'])
    expect([await Vault.open('a'), await Vault.open('a')]).toEqual(['a 1', 'a 1'])
    expect(vault.nameAndLength).toEqual(['#add', 1])
  })
})

test('says that the store is away, and runs once although the answer to its claim was lost', async () => {
  const compiled = await load<typeof Decorated>('patterns/idempotency/testdata/decorated.ts', 'esbuild, legacy')
  const shopOn = (kv: KV) => {
    const payments = idempotency({ kv, name: 'payments', storeDeadline: '10s', timers: clock, random: () => 0.5 })
    return new (compiled.shopOf(payments, payments).Shop)()
  }
  const clock = testClock()
  const away = shopOn(faulty(memory({ clock }), { clock, unavailable: 1 })).optional('1')
  const thrown = away.catch((error: unknown) => error)
  await clock.advance('11s')
  expect(await thrown).toMatchObject({ refusal: 'store-unavailable', cause: { code: 'UNAVAILABLE' } })
  let writes = 0
  const lost = faulty(memory({ clock }), { clock, on: () => (writes++ === 0 ? 'unknown-after' : 'pass') })
  const shop = shopOn(lost)
  const charged = shop.optional('1')
  await clock.advance('5s')
  expect(await charged).toBe(1)
  expect(await shop.optional('1')).toBe(1)
  expect(shop.calls).toEqual(['optional 1'])
  expect(lost.counts().unknownAfter).toBe(1)
})

test.each(['TypeScript, TC39', 'TypeScript, legacy'] as const)('the compiler takes what fits and refuses what does not: %s', (mode) => {
  expect(complaints('patterns/idempotency/testdata/decorated-types.ts', mode)).toBe('')
})

test('is refused on anything but a method, also without a compiler', () => {
  const decorator = Idempotent(idempotency({ kv: memory(), name: 'a' }), { scope: 'public', key: () => 'k' }) as unknown as (
    ...given: unknown[]
  ) => unknown
  expect(() => decorator(undefined, { kind: 'field', name: 'total' })).toThrow("@Idempotent decorates methods only, and 'total' is a field")
  expect(() => decorator(class {}, { kind: 'class', name: 'Shop' })).toThrow("'Shop' is a class")
  expect(() => decorator(class {})).toThrow("'a class' is none")
  expect(() => decorator({}, 'total')).toThrow("'total' is none")
  expect(() => decorator({}, 'total', { get: () => 1 })).toThrow("'total' is none")
  expect(() => decorator({}, 'total', 0)).toThrow("'total' is none")
  expect(() => currentOnce()).toThrow('outside of a method')
})
