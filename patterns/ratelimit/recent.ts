/**
 * The keys that this process has to do with, as many as it may remember.
 * Invariant: what is forgotten costs a call and nothing else.
 */
import { KeyState } from './key-state.ts'

/** Keys of each of two generations: some 4 MB together. Beyond, the older generation is forgotten, which costs a call a key. */
const keysMax = 8_192

export class Recent {
  readonly #storeKeyOf: (key: string) => string
  #young = new Map<string, KeyState>()
  #old = new Map<string, KeyState>()

  constructor(storeKeyOf: (key: string) => string) {
    this.#storeKeyOf = storeKeyOf
  }

  /** @throws what `storeKeyOf` throws. */
  of(key: string): KeyState {
    const young = this.#young.get(key)
    if (young !== undefined) return young
    const state = this.#old.get(key) ?? new KeyState(this.#storeKeyOf(key))
    if (this.#young.size >= keysMax) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(key, state)
    return state
  }
}
