/**
 * Finds records on disk that may leave, a bounded number at a time, by the expiry index.
 * Invariant: nothing is found before its instant has passed on the wall clock and also on the time that the store has been open.
 * Why both: a wall clock that steps a year ahead must not erase a year of records before somebody sets it right.
 */
import { epochMs, type Clock, type EpochMs } from '../base/types.ts'
import type { Cursor, Engine } from '../engine/engine.ts'
import { indexBound, parseIndexKey } from '../engine/layout.ts'
import type { Ticker } from './call-queue.ts'

export interface Expired {
  readonly indexKey: Uint8Array
  readonly at: EpochMs
  readonly key: string
}

/** Index entries a sweep: some 2 ms of work in one turn. */
export const sweptAtOnce = 256
/** Between sweeps when the last one found less than it may. */
const restMs = 1_000

export class ExpirySweep {
  readonly #engine: Engine
  readonly #clock: Clock
  readonly #ticker: Ticker
  readonly #act: () => void
  readonly #openedAt: number
  readonly #openedTick: number
  /** Everything before was swept already: a walk from the beginning would step over the graves of all that left. */
  #from: EpochMs = epochMs(0)
  #cancelTimer: (() => void) | undefined
  #walking = false
  #closed = false
  #found: readonly Expired[] = []

  /** `act` is called when something was found, or may be found: the store then builds a batch. */
  constructor(engine: Engine, clock: Clock, ticker: Ticker, act: () => void) {
    this.#engine = engine
    this.#clock = clock
    this.#ticker = ticker
    this.#act = act
    this.#openedAt = clock.now()
    this.#openedTick = ticker.now()
    this.#rest()
  }

  /** The instant before which an entry's end has surely come. */
  bound(): EpochMs {
    return epochMs(Math.min(this.#clock.now(), this.#openedAt + Math.floor(this.#ticker.now() - this.#openedTick)))
  }

  /** What was found, for the batch that is being built. */
  take(): readonly Expired[] {
    const found = this.#found
    this.#found = []
    return found
  }

  /** The batch with what was found is over. */
  done(swept: readonly Expired[]): void {
    if (swept.length === 0) return
    if (swept.length < sweptAtOnce) return this.#rest()
    this.#look()
  }

  /** An index entry is there: the next walk must not begin after it. */
  noteIndexed(at: EpochMs): void {
    if (at < this.#from) this.#from = at
  }

  /** Ends the timer, and waits for nothing: a walk that goes on finds the engine closed. */
  close(): void {
    this.#closed = true
    this.#cancelTimer?.()
  }

  #rest(): void {
    if (this.#closed) return
    this.#cancelTimer?.()
    this.#cancelTimer = this.#ticker.after(restMs, () => this.#look())
  }

  #look(): void {
    if (this.#closed || this.#walking) return
    this.#walking = true
    this.#walk().then(
      (found) => {
        this.#walking = false
        this.#found = found
        if (found.length > 0) this.#act()
        else this.#rest()
      },
      // The engine is being reopened or has failed; whoever writes next learns of it.
      () => {
        this.#walking = false
        this.#rest()
      },
    )
  }

  async #walk(): Promise<readonly Expired[]> {
    const bound = this.bound()
    const from = this.#from
    if (bound < from) return []
    const cursor: Cursor = this.#engine.range(indexBound(from), indexBound(epochMs(bound + 1)))
    try {
      const rows = await cursor.next(sweptAtOnce)
      const found = rows.map(([indexKey]) => ({ indexKey, ...parseIndexKey(indexKey) }))
      const last = found.at(-1)
      // The last instant itself may have more. An earlier entry may have come meanwhile: then the next walk begins there.
      if (last && this.#from === from) this.#from = last.at
      return found
    } finally {
      await cursor.close()
    }
  }
}
