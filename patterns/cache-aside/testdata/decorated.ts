/** A class as a user writes it, compiled in every mode by decorator.test.ts. Its copy of hapax is not the test's own. */
import { Cached, currentLoad, methodCache, type MethodCache } from '../decorator.ts'
import type { KV } from '../../../core/kv/kv.ts'

export { currentLoad } from '../decorator.ts'

export interface User {
  readonly id: string
  readonly name: string
}
interface Settings {
  readonly kv: KV
  readonly timers: { setTimeout(run: () => void, ms: number): unknown; clearTimeout(timer: never): void; elapsed(): number }
}

export function directoryOf(settings: Settings) {
  const common = { ttl: '5m', jitter: 0, ...settings } as const
  const users = methodCache<User>({ name: 'user', stale: '1h', ...common })
  const tagged = methodCache<number>({ name: 'tagged', ...common })
  const lazy: { users?: MethodCache<User> } = {}

  class Directory {
    readonly loads: string[] = []
    readonly names: Record<string, string> = { 42: 'Ada' }
    readonly own = users
    go: Promise<void> = Promise.resolve()

    @Cached(users, { key: (id: string) => id })
    async user(id: string, _note?: string): Promise<User> {
      this.loads.push(id)
      await this.go
      return { id, name: this.names[id] ?? 'nobody' }
    }

    @Cached({ name: 'page', ...common }, { key: (tenant: string, page: number) => ({ tenant, page }) })
    async page(tenant: string, page: number): Promise<string> {
      this.loads.push(`${tenant} ${page}`)
      return `${tenant}/${page}`
    }

    @Cached({ name: 'nothing', ...common }, { key: () => 'all' })
    async nothing(): Promise<string | undefined> {
      this.loads.push('nothing')
      return undefined
    }

    @Cached({ name: 'static', ...common }, { key: (id: number) => id })
    static async square(id: number): Promise<string> {
      return `${this.name} ${id * id} ${this.squares.push(id)}`
    }
    static readonly squares: number[] = []

    @Cached((directory: Directory) => directory.own, { key: (id: string) => `own:${id}` })
    async ofItsOwn(id: string): Promise<User> {
      this.loads.push(`own ${id}`)
      return { id, name: 'own' }
    }

    @Cached(() => lazy.users!, { key: (id: string) => `late:${id}` })
    async late(id: string): Promise<User> {
      return { id, name: 'late' }
    }

    @Cached(tagged, { key: (id: string) => id })
    async tagged(id: string): Promise<number> {
      currentLoad().tag(`team:${id}`)
      await Promise.resolve()
      currentLoad().ttl('1m')
      return this.loads.push(`tagged ${id}`)
    }

    @Cached({ name: 'failing', ...common }, { key: (id: string) => id })
    async fails(id: string): Promise<never> {
      this.loads.push(id)
      throw new RangeError(id)
    }

    @Cached(users, { key: (id: string) => `twice:${id}` })
    @Cached(users, { key: (id: string) => `twice:${id}` })
    async twice(id: string): Promise<User> {
      return { id, name: 'twice' }
    }

    @Cached({ name: 'sum', ...common }, { key: (to: number) => to })
    async sum(to: number): Promise<number> {
      return to === 0 ? 0 : to + (await this.sum(to - 1))
    }

    @Cached({ name: 'waiting', ...common }, { key: () => 'w', signal: (signal: AbortSignal) => signal, deadline: '1h' })
    async waiting(_signal: AbortSignal): Promise<string> {
      await this.go
      return 'loaded'
    }
  }
  class Branch extends Directory {
    override async user(id: string): Promise<User> {
      const { name } = await super.user(id)
      return { id, name: `${name} of the branch` }
    }
  }
  return { Directory, Branch, users, tagged, lazy }
}
