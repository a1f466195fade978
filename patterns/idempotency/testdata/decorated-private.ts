/** Private methods, which TC39 decorators alone can stand on. */
import { Idempotent } from '../decorator.ts'
import type { Idempotency } from '../types.ts'

export function vaultOf(payments: Idempotency) {
  return class Vault {
    static #opened = 0
    readonly #payments = payments
    #count = 0

    @Idempotent((vault: Vault) => vault.#payments, { scope: 'public', key: (id: string) => id })
    async #add(id: string): Promise<string> {
      return `${id} ${++this.#count}`
    }
    @Idempotent(payments, { scope: 'public', key: (id: string) => id })
    static async #open(id: string): Promise<string> {
      return `${id} ${++this.#opened}`
    }

    add = (id: string): Promise<string> => this.#add(id)
    get nameAndLength(): [string, number] {
      return [this.#add.name, this.#add.length]
    }
    static open = (id: string): Promise<string> => this.#open(id)
  }
}
