/** A class as a user writes it, compiled in every mode by decorator.test.ts. Its copy of hapax is not the test's own. */
import { Counted } from '../decorator.ts'
import type { Counter } from '../types.ts'

export { CountRefusedError } from '../decorator.ts'

export function boxOfficeOf(seats: Counter, cents: Counter<bigint>) {
  const lazy: { seats?: Counter } = {}

  class BoxOffice {
    readonly sold: string[] = []
    readonly own = seats

    @Counted(seats, { key: (flight: string) => flight, by: -1 })
    async book(flight: string, name: string): Promise<string> {
      this.sold.push(name)
      return `${name} flies ${flight}`
    }

    @Counted(seats, {
      key: (flight: string) => flight,
      by: (_flight: string, names: readonly string[]) => -names.length,
      requestId: (_flight: string, _names: readonly string[], order: string) => order,
    })
    async bookAll(_flight: string, names: readonly string[], _order: string): Promise<number> {
      return this.sold.push(...names)
    }

    @Counted((office: BoxOffice) => office.own, { key: () => 'looks' })
    async look(): Promise<number> {
      return this.sold.length
    }

    @Counted(() => lazy.seats!, { key: (flight: string) => flight })
    static async open(flight: string): Promise<string> {
      return `${this.name} ${flight}`
    }

    @Counted(cents, { key: (account: string) => account, by: (_account: string, amount: bigint) => amount })
    async pay(account: string, amount: bigint): Promise<string> {
      return `${account} ${amount}`
    }

    @Counted(seats, { key: () => 'failing' })
    async fails(): Promise<never> {
      throw new RangeError('no')
    }

    @Counted(seats, { key: () => 'inner' })
    @Counted(seats, { key: () => 'outer' })
    async twice(): Promise<string> {
      return 'twice'
    }

    @Counted(seats, { key: (flight: string) => flight, signal: (_flight: string, signal: AbortSignal) => signal, deadline: '1s' })
    async stoppable(flight: string, _signal: AbortSignal): Promise<string> {
      return flight
    }
  }
  class Branch extends BoxOffice {}
  return { BoxOffice, Branch, lazy }
}
