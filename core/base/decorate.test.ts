/** The dual decorator by itself: called by hand as each system calls it. The patterns' decorator.test.ts run it compiled, in each mode. */
import { afterEach, describe, expect, test } from 'vitest'
import { decorateMethod, optionOf, RefusedError, targetOf, type MethodCall } from './decorate.ts'

const invalid = (message: string): never => {
  throw new TypeError(message)
}
type ByHand = (...given: unknown[]) => unknown
const decoratorOf = (around: (call: MethodCall) => Promise<unknown>): ByHand =>
  decorateMethod('@Around', invalid, around) as unknown as ByHand
const legacy = (decorator: ByHand, method: unknown, key: string | symbol = 'method'): PropertyDescriptor =>
  decorator({}, key, { value: method, writable: true, enumerable: false, configurable: true }) as PropertyDescriptor
const tc39 = (decorator: ByHand, method: unknown, name: string | symbol = 'method'): unknown => decorator(method, { kind: 'method', name })

/** Gives what it sees of a call, and then the method's own result. */
const seen: MethodCall[] = []
const transparent = decoratorOf((call) => {
  seen.push(call)
  return call.proceed()
})
afterEach(() => void seen.splice(0))

describe('a decorated method', () => {
  const method = async function (this: unknown, a: number, _b?: number): Promise<unknown> {
    return [this, a]
  }
  test('is called with its own this and arguments, in both systems', async () => {
    const self = {}
    for (const wrapped of [tc39(transparent, method), legacy(transparent, method).value] as (typeof method)[]) {
      expect(await wrapped.call(self, 1, 2)).toEqual([self, 1])
      expect(seen.pop()).toMatchObject({ method: 'method', self, args: [1, 2] })
    }
  })
  test('is not called unless the decorator says so', async () => {
    let calls = 0
    const never = decoratorOf(async () => 'instead')
    const wrapped = tc39(never, async () => ++calls) as () => Promise<unknown>
    expect(await wrapped()).toBe('instead')
    expect(calls).toBe(0)
  })
  test('keeps name, length and the rest of its descriptor', () => {
    const descriptor = legacy(transparent, method)
    expect(descriptor).toMatchObject({ writable: true, enumerable: false, configurable: true })
    for (const wrapped of [descriptor.value, tc39(transparent, method)] as (typeof method)[]) {
      expect(wrapped).not.toBe(method)
      expect([wrapped.name, wrapped.length]).toEqual(['method', 2])
      expect(Object.getOwnPropertyDescriptor(wrapped, 'name')).toMatchObject({ writable: false, enumerable: false, configurable: true })
    }
  })
  test('may be named by a symbol', async () => {
    await (tc39(transparent, method, Symbol('of a symbol')) as typeof method)(1)
    await (tc39(transparent, method, Symbol()) as typeof method)(1)
    expect(seen.map((call) => call.method)).toEqual(['of a symbol', ''])
  })
})

describe('metadata of reflect-metadata', () => {
  const names = ['getOwnMetadataKeys', 'getOwnMetadata', 'defineMetadata'] as const
  afterEach(() => {
    for (const name of names) Reflect.deleteProperty(Reflect, name)
  })
  test('stays with the method: a framework finds its route on what stands there now', () => {
    const kept = new WeakMap<object, Map<unknown, unknown>>()
    Object.assign(Reflect, {
      getOwnMetadataKeys: (target: object) => [...(kept.get(target)?.keys() ?? [])],
      getOwnMetadata: (key: unknown, target: object) => kept.get(target)?.get(key),
      defineMetadata: (key: unknown, value: unknown, target: object) => kept.set(target, (kept.get(target) ?? new Map()).set(key, value)),
    })
    const method = async (): Promise<void> => {}
    kept.set(method, new Map([['path', '/payments']]))
    const wrapped = legacy(transparent, method).value as object
    expect(kept.get(wrapped)).toEqual(new Map([['path', '/payments']]))
  })
})

describe('what decorates', () => {
  const target = { name: 'a' }
  const call: MethodCall = { method: 'charge', self: { target }, args: [1, 2], proceed: async () => undefined }
  test('is itself, or what its function gives of `this`', () => {
    expect(targetOf(target, call, invalid)).toBe(target)
    expect(targetOf(() => target, call, invalid)).toBe(target)
    expect(targetOf((self: { target: object }) => self.target, call, invalid)).toBe(target)
  })
  test('has to be there when the method is called', () => {
    const nothing = (() => undefined) as unknown as () => object
    expect(() => targetOf(nothing, call, invalid)).toThrow("what decorates 'charge' is given by a function, and this gave nothing yet")
  })
  test('asks its options with the arguments and this of the method', () => {
    const option = function (this: unknown, ...args: number[]) {
      return [this, ...args]
    }
    expect(optionOf(option, call)).toEqual([call.self, 1, 2])
  })
})

describe('a refusal as an exception', () => {
  class SoldOutError extends RefusedError<'SOLD_OUT'> {
    static readonly code = 'SOLD_OUT'
    constructor(cause?: unknown) {
      super('SOLD_OUT', 'no seats left', cause)
    }
  }
  class OtherCopysError extends RefusedError<'SOLD_OUT'> {
    static readonly code = 'SOLD_OUT'
    constructor() {
      super('SOLD_OUT', 'no seats left')
    }
  }
  class OtherError extends RefusedError<'OTHER'> {
    static readonly code = 'OTHER'
    constructor() {
      super('OTHER', 'other')
    }
  }
  class UsersError extends SoldOutError {}

  test('is an Error with a code, and a cause where there is one', () => {
    expect(new SoldOutError()).toBeInstanceOf(Error)
    expect(new SoldOutError()).toMatchObject({ code: 'SOLD_OUT', message: 'no seats left' })
    expect('cause' in new SoldOutError()).toBe(false)
    expect(new SoldOutError('full').cause).toBe('full')
    expect(Object.keys(new SoldOutError())).toEqual(['code'])
  })
  test('is known by its code in every copy of hapax, and by nothing else', () => {
    expect(new OtherCopysError()).toBeInstanceOf(SoldOutError)
    expect(new OtherError()).not.toBeInstanceOf(SoldOutError)
    expect(new OtherError()).toBeInstanceOf(RefusedError)
    for (const value of [undefined, null, 'SOLD_OUT', { code: 'SOLD_OUT' }, Object.assign(new Error(), { code: 'SOLD_OUT' })])
      expect(value instanceof SoldOutError).toBe(false)
  })
  test('may be extended by users, whose classes stay narrower', () => {
    expect(new UsersError()).toBeInstanceOf(UsersError)
    expect(new UsersError()).toBeInstanceOf(SoldOutError)
    expect(new SoldOutError() instanceof UsersError).toBe(false)
  })
})
