/** What compiles and what does not, in both modes: an unused `@ts-expect-error` is an error. Never run. */
import { Cached, methodCache } from '../decorator.ts'
import type { KV } from '../../../core/kv/kv.ts'

declare const kv: KV
interface User {
  readonly id: string
}
const users = methodCache<User>({ kv, name: 'user', ttl: '5m' })
const options = { kv, name: 'page', ttl: '5m' } as const
const byId = { key: (id: string) => id } as const

export class Fits {
  private readonly own = users
  @Cached(users, byId) async user(id: string, _more: number): Promise<User> {
    return { id }
  }
  @Cached(options, { key: (tenant: string, page: number) => ({ tenant, page }) }) async page(tenant: string, page: number): Promise<string> {
    return tenant + page
  }
  @Cached((self: Fits) => self.own, byId) async lazy(id: string): Promise<User> {
    return { id }
  }
  @Cached(() => users, byId) static async late(id: string): Promise<User> {
    return { id }
  }
  @Cached(options, { ...byId, deadline: '1s' }) async generic<T>(id: string, value: T): Promise<[string, T]> {
    return [id, value]
  }
}
export const kept: Promise<[string, 7]> = new Fits().generic<7>('a', 7)
export const value: Promise<User> = users.through('a', () => ({ id: 'a' }))

export class DoesNotFit {
  // @ts-expect-error: the key takes a number
  @Cached(users, { key: (id: number) => id }) async argument(id: string): Promise<User> {
    return { id }
  }
  // @ts-expect-error: the key takes more than the method is given
  @Cached(users, { key: (id: string, more: string) => id + more }) async fewer(id: string): Promise<User> {
    return { id }
  }
  // @ts-expect-error: the cache keeps users
  @Cached(users, byId) async other(id: string): Promise<string> {
    return id
  }
  // @ts-expect-error: the cache keeps users, and this may give none
  @Cached(() => users, byId) async maybe(id: string): Promise<User | undefined> {
    return id === '' ? undefined : { id }
  }
  // @ts-expect-error: a synchronous method would give a promise
  @Cached(users, byId) synchronous(id: string): User {
    return { id }
  }
  // @ts-expect-error: another class
  @Cached((self: Fits) => self.lazy('a') && users, byId) async ofAnother(id: string): Promise<User> {
    return { id }
  }
}
// @ts-expect-error: what tells calls apart must be said
export const withoutKey = Cached(users, {})
// @ts-expect-error: JSON holds no bigint
export const bigint = Cached(users, { key: (id: bigint) => id })
// @ts-expect-error: the method is the loader
export const withLoad = Cached({ ...options, load: () => 1 }, byId)
// @ts-expect-error: how long a value is fresh must be said
export const withoutTtl = Cached({ kv, name: 'page' }, byId)
