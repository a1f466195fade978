/**
 * What a handler is given: the names of its request, and the run's handles.
 * Invariant: `signal` and `owned` are asked of the run each time; `step` and `release` may be taken out of it.
 * Why a class: an object with getters of its own takes half a microsecond to make, and one is made for each run.
 */
import type { ClaimRequest, Once } from './types.ts'

/** What the run behind it does. */
export interface Handles extends Pick<Once, 'step' | 'release'> {
  signal(): AbortSignal
  isOwned(): boolean
}

export class HeldOnce implements Once {
  readonly scope: string
  readonly key: string
  readonly operation: string
  readonly fence: number
  readonly step: Once['step']
  readonly release: Once['release']
  readonly #handles: Handles

  constructor({ scope, key, operation = '' }: Omit<ClaimRequest, 'fingerprint'>, fence: number, handles: Handles) {
    this.scope = scope
    this.key = key
    this.operation = operation
    this.fence = fence
    this.step = handles.step
    this.release = handles.release
    this.#handles = handles
  }

  get signal(): AbortSignal {
    return this.#handles.signal()
  }
  get owned(): boolean {
    return this.#handles.isOwned()
  }
}
