/** What compiles and what does not, in both modes: an unused `@ts-expect-error` is an error. Never run. */
import { Idempotent } from '../decorator.ts'
import type { Idempotency } from '../types.ts'

declare const payments: Idempotency
interface Order {
  readonly id: string
}
const byId = { scope: 'public', key: (id: string) => id } as const

export class Fits {
  private readonly own = payments
  @Idempotent(payments, byId) async more(id: string, more: number): Promise<string> {
    return id + more
  }
  @Idempotent(payments, { scope: 'public', key: () => 'all' }) async none(): Promise<void> {}
  @Idempotent(payments, { scope: 'public', key: (id: unknown) => String(id) }) async generic<T>(value: T): Promise<T> {
    return value
  }
  @Idempotent(payments, byId) async generics<T, U extends T>(id: string, one: T, other: U): Promise<[string, T, U]> {
    return [id, one, other]
  }
  @Idempotent(payments, { scope: 'public', key: (id?: string) => id ?? 'none' }) async optional(id?: string): Promise<string | undefined> {
    return id
  }
  @Idempotent(payments, { scope: 'public', key: (...ids: string[]) => ids.join() }) async rest(...ids: string[]): Promise<string[]> {
    return ids
  }
  @Idempotent((self: Fits) => self.own, byId) async lazy(id: string): Promise<string> {
    return id
  }
  @Idempotent((self: typeof Fits) => new self().own, byId) static async lazyStatic(id: string): Promise<string> {
    return id
  }
  @Idempotent(payments, { scope: (_: Order, tenant: string) => tenant, key: (order: Order) => order.id, input: (order: Order) => order })
  async different(order: Order, tenant: string): Promise<string> {
    return order.id + tenant
  }
  over(id: string): Promise<string>
  over(id: string, count: number): Promise<number>
  @Idempotent(payments, byId) async over(id: string, count?: number): Promise<string | number> {
    return count ?? id
  }
}
/** The type of a method does not change: a generic one stays generic. */
export const kept: Promise<7> = new Fits().generic<7>(7)
export const generics: Promise<[string, 7, 7]> = new Fits().generics<7, 7>('a', 7, 7)
export const overloaded: Promise<number> = new Fits().over('a', 1)

export class DoesNotFit {
  // @ts-expect-error: the key takes a number, the method a string
  @Idempotent(payments, { scope: 'public', key: (id: number) => String(id) }) async argument(id: string): Promise<string> {
    return id
  }
  // @ts-expect-error: the key takes more than the method is given
  @Idempotent(payments, { scope: 'public', key: (id: string, more: string) => id + more }) async fewer(id: string): Promise<string> {
    return id
  }
  // @ts-expect-error: the method may be called without what the key takes
  @Idempotent(payments, byId) async optional(id?: string): Promise<string | undefined> {
    return id
  }
  // @ts-expect-error: the scope takes a number
  @Idempotent(payments, { ...byId, scope: (id: number) => String(id) }) async scope(id: string): Promise<string> {
    return id
  }
  // @ts-expect-error: the input takes a number
  @Idempotent(payments, { ...byId, input: (id: number) => id }) async input(id: string): Promise<string> {
    return id
  }
  // @ts-expect-error: a synchronous method would give a promise
  @Idempotent(payments, byId) synchronous(id: string): string {
    return id
  }
  // @ts-expect-error: a rest of other things
  @Idempotent(payments, { scope: 'public', key: (...ids: number[]) => ids.join() }) async rest(...ids: string[]): Promise<string[]> {
    return ids
  }
  // @ts-expect-error: another class
  @Idempotent((self: Fits) => self.lazy('a') && payments, byId) async ofAnother(id: string): Promise<string> {
    return id
  }
  // @ts-expect-error: `this` of a static method is the class
  @Idempotent((self: DoesNotFit) => self.input('a') && payments, byId) static async ofInstances(id: string): Promise<string> {
    return id
  }
  // @ts-expect-error: a field is no method
  @Idempotent(payments, byId) field = async (id: string): Promise<string> => id
  // @ts-expect-error: a getter is no method
  @Idempotent(payments, byId) get getter(): string {
    return ''
  }
}
// @ts-expect-error: a class is no method
@Idempotent(payments, byId)
export class IsNone {}

// @ts-expect-error: who asks must be said
export const withoutScope = Idempotent(payments, { key: (id: string) => id })
// @ts-expect-error: a key must be said
export const withoutKey = Idempotent(payments, { scope: 'public' })
// @ts-expect-error: a key is text
export const numeric = Idempotent(payments, { scope: 'public', key: (id: string) => id.length })
// @ts-expect-error: an argument's type must be written out
export const unwritten = Idempotent(payments, { scope: 'public', key: (id) => id })
// @ts-expect-error: a misspelt option is one
export const misspelt = Idempotent(payments, { scope: 'public', key: (id: string) => id, inputs: () => 1 })
// @ts-expect-error: an operation is text
export const operation = Idempotent(payments, { ...byId, operation: 7 })
// @ts-expect-error: a store is no idempotency
export const store = Idempotent({ get: () => 1 }, byId)
