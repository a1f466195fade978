/**
 * Server clock: whether a storage server may trust its clock enough to erase something (R15). DESIGN.md, E1.
 * Pure. Invariant: without a recent word of the proxies there is no time at all, and a clock that steps erases nothing.
 * Why the smaller of two clocks: a step forward moves the wall clock alone; one that was wrong at the start already is caught by the proxies.
 */
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import { medianOf, type Instant } from '../register/work.ts'
import type { StorageTimes } from './marks.ts'

/** Proxies whose word is kept. */
const proxiesMax = 1_024

export class ServerClock {
  readonly #boot: Instant
  readonly #times: StorageTimes
  readonly #pings = new Map<string, { readonly wall: EpochMs; readonly mono: number }>()

  constructor(boot: Instant, times: StorageTimes) {
    this.#boot = boot
    this.#times = times
  }

  /** A proxy's clock, as it came; the way here makes it late by half a round trip, which the bound allows for. */
  hear(proxy: string, wall: EpochMs, now: Instant): void {
    this.#pings.delete(proxy)
    this.#pings.set(proxy, { wall, mono: now.mono })
    if (this.#pings.size > proxiesMax) this.#pings.delete(this.#pings.keys().next().value as string)
  }

  /** The time by which things here may go; undefined: nothing may. */
  trusted(now: Instant): EpochMs | undefined {
    const young = [...this.#pings.values()].filter(({ mono }) => now.mono - mono <= this.#times.pingLifeMs)
    if (young.length === 0) return undefined
    const median = medianOf(young.map(({ wall, mono }) => epochMs(Math.floor(wall + (now.mono - mono)))))
    if (Math.abs(now.wall - median) > this.#times.boundMs) return undefined
    return epochMs(Math.floor(Math.min(now.wall, this.#boot.wall + (now.mono - this.#boot.mono))))
  }

  /** A proxy that spoke within the pings' life; undefined: none did. */
  proxy(now: Instant): string | undefined {
    let latest: string | undefined
    for (const [proxy, { mono }] of this.#pings) if (now.mono - mono <= this.#times.pingLifeMs) latest = proxy
    return latest
  }
}
