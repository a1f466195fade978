/** A class as a user writes it, compiled in every mode by decorator.test.ts. Its copy of hapax is not the test's own. */
import { RateLimited } from '../decorator.ts'
import type { RateLimit } from '../types.ts'

export { isRateLimited, RateLimitedError } from '../decorator.ts'

export function reportsOf(api: RateLimit<'burst' | 'daily'>, slots: RateLimit<'slots'>) {
  const lazy: { api?: RateLimit<'burst' | 'daily'> } = {}

  class Reports {
    readonly built: string[] = []
    readonly own = api
    go: Promise<void> = Promise.resolve()

    @RateLimited(api, { key: (userId: string) => userId })
    async build(userId: string, month: string): Promise<string> {
      this.built.push(month)
      return `${userId} ${month}`
    }

    @RateLimited(api, { key: (userId: string) => userId, cost: (_userId: string, rows: number) => rows })
    async query(_userId: string, rows: number): Promise<number> {
      return rows
    }

    @RateLimited((reports: Reports) => reports.own, { key: () => 'everybody', cost: 2 })
    async ofItsOwn(): Promise<number> {
      return this.built.length
    }

    @RateLimited(() => lazy.api!, { key: (userId: string) => userId })
    static async count(userId: string): Promise<string> {
      return `${this.name} ${userId}`
    }

    @RateLimited(api, { key: (userId: string) => userId })
    @RateLimited(api, { key: () => 'everybody' })
    async twice(userId: string): Promise<string> {
      return userId
    }

    @RateLimited(slots, { key: (userId: string) => userId })
    async alone(userId: string): Promise<string> {
      await this.go
      return userId
    }

    @RateLimited(slots, { key: (userId: string) => userId })
    async failsAlone(userId: string): Promise<never> {
      throw new RangeError(userId)
    }

    @RateLimited(api, { key: () => 'stoppable', signal: (signal: AbortSignal) => signal })
    async stoppable(_signal: AbortSignal): Promise<string> {
      return 'went on'
    }
  }
  class Branch extends Reports {}
  return { Reports, Branch, lazy }
}
