/**
 * The keys that this process has to do with, as many as it may remember.
 * Invariant: what is forgotten costs a call and nothing else.
 */
import { KeyState } from './key-state.ts'

/** Keys of each of two generations: some 4 MB together. Beyond, the older generation is forgotten, which costs a call a key. */
const keysMax = 8_192

export class Recent {
  readonly #lengthMax: number
  readonly #storeKeyOf: (key: string) => string
  #young = new Map<string, KeyState>()
  #old = new Map<string, KeyState>()

  /** Keys longer than `lengthMax` are remembered by what they are in the store: whoever chooses them does not choose how much is kept (R21). */
  constructor(lengthMax: number, storeKeyOf: (key: string) => string) {
    this.#lengthMax = lengthMax
    this.#storeKeyOf = storeKeyOf
  }

  /** @throws what `storeKeyOf` throws. */
  of(key: string): KeyState {
    // Padded, it is longer than any key that stands for itself.
    const name = typeof key === 'string' && key.length <= this.#lengthMax ? key : this.#storeKeyOf(key).padEnd(this.#lengthMax + 1)
    const young = this.#young.get(name)
    if (young !== undefined) return young
    const state = this.#old.get(name) ?? new KeyState(this.#storeKeyOf(key))
    if (this.#young.size >= keysMax) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(name, state)
    return state
  }
}
