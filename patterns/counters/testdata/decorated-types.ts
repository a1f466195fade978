/** What compiles and what does not, in both modes: an unused `@ts-expect-error` is an error. Never run. */
import { Counted } from '../decorator.ts'
import type { Counter, Gauge, Sharded, Windowed } from '../types.ts'

declare const seats: Counter
declare const cents: Counter<bigint>
declare const windowed: Windowed
declare const sharded: Sharded
declare const gauge: Gauge
const byFlight = { key: (flight: string) => flight } as const

export class Fits {
  private readonly own = seats
  @Counted(seats, byFlight) async plain(flight: string, _more: number): Promise<string> {
    return flight
  }
  @Counted(windowed, { ...byFlight, by: 2 }) async window(flight: string): Promise<string> {
    return flight
  }
  @Counted(sharded, { ...byFlight, by: (_: string, count: number) => count }) static async shards(flight: string, count: number): Promise<string> {
    return flight.repeat(count)
  }
  @Counted(cents, { ...byFlight, by: 5n }) async bigints(flight: string): Promise<string> {
    return flight
  }
  @Counted((self: Fits) => self.own, { key: () => 'all' }) async generic<T>(value: T): Promise<T> {
    return value
  }
}
export const kept: Promise<7> = new Fits().generic<7>(7)

export class DoesNotFit {
  // @ts-expect-error: the key takes a number
  @Counted(seats, { key: (flight: number) => String(flight) }) async argument(flight: string): Promise<string> {
    return flight
  }
  // @ts-expect-error: `by` takes what the method is not given
  @Counted(seats, { ...byFlight, by: (_: string, count: number) => count }) async fewer(flight: string): Promise<string> {
    return flight
  }
  // @ts-expect-error: the request id takes a number
  @Counted(seats, { ...byFlight, requestId: (order: number) => String(order) }) async request(flight: string): Promise<string> {
    return flight
  }
  // @ts-expect-error: a synchronous method would give a promise
  @Counted(seats, byFlight) synchronous(flight: string): string {
    return flight
  }
  // @ts-expect-error: another class
  @Counted((self: Fits) => self.plain('', 1) && seats, byFlight) async ofAnother(flight: string): Promise<string> {
    return flight
  }
}
// @ts-expect-error: a counter of bigints has no 1 by itself
export const withoutBy = Counted(cents, byFlight)
// @ts-expect-error: a counter of bigints counts no numbers
export const numbers = Counted(cents, { ...byFlight, by: 5 })
// @ts-expect-error: a counter of numbers counts no bigints
export const bigints = Counted(seats, { ...byFlight, by: 5n })
// @ts-expect-error: a gauge holds slots and counts nothing
export const slots = Counted(gauge, byFlight)
// @ts-expect-error: what is counted must be said
export const withoutKey = Counted(seats, {})
// @ts-expect-error: a misspelt option is one
export const misspelt = Counted(seats, { ...byFlight, bye: 1 })
