/** What compiles and what does not, in both modes: an unused `@ts-expect-error` is an error. Never run. */
import { isRateLimited, RateLimited } from '../decorator.ts'
import type { PolicyState, RateLimit } from '../types.ts'

declare const api: RateLimit<'burst' | 'daily'>
const byUser = { key: (userId: string) => userId } as const

export class Fits {
  private readonly own = api
  @RateLimited(api, byUser) async build(userId: string, _month: string): Promise<string> {
    return userId
  }
  @RateLimited(api, { ...byUser, cost: 3, signal: (_: string, signal?: AbortSignal) => signal })
  async stoppable(userId: string, _signal?: AbortSignal): Promise<string> {
    return userId
  }
  @RateLimited((self: Fits) => self.own, { key: () => 'all', cost: (rows: number) => rows }) async lazy(rows: number): Promise<number> {
    return rows
  }
  @RateLimited(api, { key: () => 'all' }) static async generic<T>(value: T): Promise<T> {
    return value
  }
}
export const kept: Promise<7> = Fits.generic<7>(7)

export function stateOf(error: unknown): PolicyState | undefined {
  if (!isRateLimited(error, api)) return undefined
  // @ts-expect-error: there is no policy of this name
  void error.decision.policies.hourly
  return error.decision.policies.burst
}

export class DoesNotFit {
  // @ts-expect-error: the key takes a number
  @RateLimited(api, { key: (userId: number) => String(userId) }) async argument(userId: string): Promise<string> {
    return userId
  }
  // @ts-expect-error: the cost takes what the method is not given
  @RateLimited(api, { ...byUser, cost: (_: string, rows: number) => rows }) async fewer(userId: string): Promise<string> {
    return userId
  }
  // @ts-expect-error: a synchronous method would give a promise
  @RateLimited(api, byUser) synchronous(userId: string): string {
    return userId
  }
  // @ts-expect-error: another class
  @RateLimited((self: Fits) => self.lazy(1) && api, byUser) async ofAnother(userId: string): Promise<string> {
    return userId
  }
}
// @ts-expect-error: whose limit it is must be said
export const withoutKey = RateLimited(api, {})
// @ts-expect-error: a cost is a number
export const text = RateLimited(api, { ...byUser, cost: '3' })
// @ts-expect-error: a misspelt option is one
export const misspelt = RateLimited(api, { ...byUser, costs: 3 })
// @ts-expect-error: policies are no limiter
export const policies = RateLimited(api.policies, byUser)
