/** A class as a user writes it, compiled in every mode by decorator.test.ts. Its copy of hapax is not the test's own. */
import { currentOnce, Idempotent } from '../decorator.ts'
import type { Idempotency } from '../types.ts'

export { currentOnce, IdempotencyRefusedError } from '../decorator.ts'
export { KvError } from '../../../core/kv/errors.ts'

export interface Order {
  readonly id: string
  readonly total: number
}

/** Says where it stands in the order of calls. */
const traced =
  (name: string, trace: string[]) =>
  // Written for both systems by hand, as somebody else's decorator may be.
  (...given: unknown[]): void => {
    const descriptor = given[2] as PropertyDescriptor | undefined
    const method = (descriptor?.value ?? given[0]) as (...args: unknown[]) => unknown
    const wrapped = function (this: unknown, ...args: unknown[]): unknown {
      trace.push(name)
      return Reflect.apply(method, this, args)
    }
    if (descriptor === undefined) return wrapped as unknown as void
    descriptor.value = wrapped
  }

export function shopOf(payments: Idempotency, others: Idempotency) {
  const trace: string[] = []
  const lazy: { payments?: Idempotency } = {}

  class Shop {
    readonly calls: string[] = []
    readonly currency: string
    readonly own = others
    constructor(currency = 'EUR') {
      this.currency = currency
    }

    @Idempotent(payments, { scope: (tenant: string) => tenant, key: (_tenant: string, order: Order) => order.id })
    async charge(tenant: string, order: Order): Promise<{ charged: string; by: number }> {
      this.calls.push(`${tenant} ${order.id}`)
      return { charged: `${order.total} ${this.currency}`, by: this.calls.length }
    }

    @Idempotent(payments, { scope: 'public', key: (id: string) => id, input: (_id: string, note?: string) => note })
    async note(id: string, note?: string, _seenAt?: Date): Promise<string> {
      this.calls.push(`note ${id}`)
      return `${id}: ${note ?? 'nothing'}`
    }

    @Idempotent(payments, { scope: 'public', key: (id: string) => id })
    async optional(id: string, _first?: string, _second?: string): Promise<number> {
      return this.calls.push(`optional ${id}`)
    }

    @Idempotent(payments, { scope: 'public', key: (id: string) => id })
    static async archive(id: string): Promise<string> {
      return `${this.name} ${id} ${this.archived.push(id)}`
    }
    static readonly archived: string[] = []

    @Idempotent(() => lazy.payments!, { scope: 'public', key: (id: string) => id })
    async late(id: string): Promise<number> {
      return this.calls.push(`late ${id}`)
    }

    @Idempotent((shop: Shop) => shop.own, {
      scope(this: Shop) {
        return this.currency
      },
      key: (id: string) => id,
    })
    async ofItsOwn(id: string): Promise<number> {
      return this.calls.push(`own ${id}`)
    }

    @Idempotent(payments, { scope: 'public', key: (id: string) => id })
    async steps(id: string): Promise<{ first: string; fence: number; sameKey: boolean }> {
      const once = currentOnce()
      const first = await once.step('first', ({ key }) => key)
      await Promise.resolve()
      return { first, fence: currentOnce().fence, sameKey: once.key === id }
    }

    @Idempotent(payments, { scope: 'public', key: (id: string) => id })
    async fails(id: string): Promise<never> {
      this.calls.push(`fails ${id}`)
      throw new RangeError(`no ${id}`)
    }

    @Idempotent(payments, { scope: 'public', key: (id: string) => id })
    @Idempotent(payments, { scope: 'public', key: (id: string) => id })
    async twice(id: string): Promise<number> {
      return this.calls.push(`twice ${id}`)
    }

    @Idempotent(payments, { scope: 'public', key: (id: string) => id })
    @Idempotent(others, { scope: 'public', key: (id: string) => id })
    async underTwo(id: string): Promise<string> {
      this.calls.push(`underTwo ${id}`)
      return currentOnce().key
    }

    @Idempotent(payments, { scope: 'public', key: (id: string) => id })
    async calls2(id: string, again: string): Promise<string> {
      return again === '' ? `end ${id}` : this.calls2(again, '')
    }

    @Idempotent(payments, { scope: 'public', key: (id: string) => id })
    async leavesBehind(id: string, later: { promise?: Promise<unknown>; toJSON(): string }, go: { wait: Promise<void>; toJSON(): string }) {
      later.promise = go.wait.then(() => this.leavesBehind(id, later, go))
      return this.calls.push(`left ${id}`)
    }

    @traced('outer', trace)
    @Idempotent(payments, { scope: 'public', key: (id: string) => id })
    @traced('inner', trace)
    async between(id: string): Promise<number> {
      return this.calls.push(`between ${id}`)
    }

    @Idempotent(payments, { scope: 'public', key: () => 'k', signal: (signal: AbortSignal) => signal, input: () => null })
    async stoppable(_signal: AbortSignal): Promise<boolean> {
      return currentOnce().signal.aborted
    }

    @Idempotent(payments, { scope: (tenant: string) => tenant, key: (_tenant: string, key: string) => key, operation: 'buy' })
    async buyOld(_tenant: string, _key: string): Promise<string> {
      return 'old'
    }
    @Idempotent(payments, { scope: (tenant: string) => tenant, key: (_tenant: string, key: string) => key, operation: 'buy' })
    async buyNew(_tenant: string, _key: string): Promise<string> {
      return 'new'
    }
  }

  class Branch extends Shop {
    override async charge(tenant: string, order: Order): Promise<{ charged: string; by: number }> {
      const charged = await super.charge(tenant, order)
      return { ...charged, charged: `${charged.charged} at the branch` }
    }
  }
  return { Shop, Branch, trace, lazy }
}
