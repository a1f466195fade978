/**
 * A bank and a counter: sums that come out right or do not, whatever a checker of histories thinks.
 * Invariant: money moves from account to account and is never made. A transfer is one entry of the ledger, created once; then each of the two accounts
 * takes it, on condition of its version, and remembers how far it got with each teller. So a step that is done again changes nothing.
 */
import type { Random } from '../../core/base/random.ts'
import { json } from '../../core/kv/codec.ts'
import { isKvError } from '../../core/kv/errors.ts'
import type { Entry, KV } from '../../core/kv/kv.ts'
import { modify } from '../../core/kv/modify.ts'
import { scoped } from '../../core/kv/scoped.ts'
import { countFault, type Increment } from '../sim/oracles.ts'
import { pause } from './cluster.ts'

interface Account {
  readonly balance: number
  /** Of each teller the last transfer that is in the balance. */
  readonly taken: Readonly<Record<string, number>>
}
interface Transfer {
  readonly from: string
  readonly to: string
  readonly amount: number
}

const accounts = ['ada', 'bob', 'cleo', 'dan', 'eve']
const beginsWith = 1_000
/** After a fault: the call is made again as long as it takes. */
const againMs = 50

const ledgerOf = (kv: KV): KV<Transfer> => scoped(kv, 'ledger', { codec: json<Transfer>() })
const accountsOf = (kv: KV): KV<Account> => scoped(kv, 'account', { codec: json<Account>() })
const countersOf = (kv: KV): KV<number> => scoped(kv, 'counter', { codec: json<number>() })

export class Bank {
  /** Transfers that the store said it has. */
  readonly #acknowledged = new Map<string, Transfer>()
  readonly #onFault: (text: string) => void

  constructor(onFault: (text: string) => void) {
    this.#onFault = onFault
  }

  get transfers(): number {
    return this.#acknowledged.size
  }

  async open(kv: KV): Promise<void> {
    for (const name of accounts) await accountsOf(kv).create(name, { balance: beginsWith, taken: {} })
  }

  /** Makes transfers, each to its end, until it is told to end. */
  async teller(teller: string, kv: KV, isOver: () => boolean, random: Random, thinkMs: number): Promise<void> {
    for (let number = 1; !isOver(); number++) {
      const from = random.pick(accounts)
      const to = random.pick(accounts.filter((name) => name !== from))
      const transfer = { from, to, amount: 1 + random.int(20) }
      await this.#enter(kv, `${teller}.${number}`, transfer)
      await take(kv, from, teller, number, -transfer.amount)
      await take(kv, to, teller, number, transfer.amount)
      await pause(thinkMs * (0.5 + random.next()))
    }
  }

  /** The same request under the same id until it is known to be there: nobody else creates this key, so it is created once. */
  async #enter(kv: KV, id: string, transfer: Transfer): Promise<void> {
    let mayBeThere = false
    for (;;) {
      try {
        const made = await ledgerOf(kv).create(id, transfer, { requestId: `enter-${id}` })
        if (!made.ok && !mayBeThere) this.#onFault(`entry ${id} of the ledger was there before it was made`)
        this.#acknowledged.set(id, transfer)
        return
      } catch (error) {
        if (!isKvError(error)) throw error
        if (error.code === 'UNKNOWN_OUTCOME') mayBeThere = true
        await pause(againMs)
      }
    }
  }

  /** @returns what is wrong; `lost`: acknowledged entries that are not there. Nothing may be under way. */
  async check(kv: KV): Promise<{ readonly faults: readonly string[]; readonly lost: number }> {
    const faults: string[] = []
    let lost = 0
    const balances = new Map(accounts.map((name) => [name, beginsWith]))
    for (const [id, { from, to, amount }] of this.#acknowledged) {
      const { entry } = await patiently(() => ledgerOf(kv).get(id))
      if (entry === undefined) {
        lost++
        faults.push(`entry ${id} of the ledger was acknowledged, and is not there`)
        continue
      }
      const { value } = entry
      if (value.from !== from || value.to !== to || value.amount !== amount) faults.push(`entry ${id} of the ledger is another one`)
      balances.set(value.from, (balances.get(value.from) ?? 0) - value.amount)
      balances.set(value.to, (balances.get(value.to) ?? 0) + value.amount)
    }
    let sum = 0
    for (const [name, balance] of balances) {
      const { entry } = await patiently(() => accountsOf(kv).get(name))
      sum += entry?.value.balance ?? 0
      if (entry?.value.balance !== balance) faults.push(`${name} has ${entry?.value.balance}, and by the ledger ${balance}`)
    }
    if (sum !== accounts.length * beginsWith) faults.push(`the bank has ${sum}, and began with ${accounts.length * beginsWith}`)
    return { faults, lost }
  }
}

/** Once for each transfer: the account knows how far it got. */
async function take(kv: KV, name: string, teller: string, number: number, amount: number): Promise<void> {
  const all = accountsOf(kv)
  const isTaken = (entry: Entry<Account> | undefined): boolean => (entry?.value.taken[teller] ?? 0) >= number
  for (;;) {
    try {
      const { entry } = await all.get(name)
      if (entry === undefined || isTaken(entry)) return
      const { balance, taken } = entry.value
      const next = { balance: balance + amount, taken: { ...taken, [teller]: number } }
      const done = await all.update(name, next, { ifVersion: entry.version })
      if (done.ok) return
    } catch (error) {
      if (!isKvError(error)) throw error
      await pause(againMs)
    }
  }
}

/** Increments through `modify`, from several clients. */
export class Counter {
  readonly #increments: Increment[] = []

  get increments(): number {
    return this.#increments.length
  }

  async count(kv: KV, isOver: () => boolean, random: Random, thinkMs: number): Promise<void> {
    while (!isOver()) {
      const by = 1 + random.int(3)
      const outcome = await modify(countersOf(kv), 'one', (count) => (count ?? 0) + by).then(
        () => 'applied' as const,
        (error: unknown) => {
          if (!isKvError(error)) throw error
          return error.code === 'UNKNOWN_OUTCOME' ? ('unknown' as const) : ('none' as const)
        },
      )
      this.#increments.push({ by, outcome })
      await pause(thinkMs * (0.5 + random.next()))
    }
  }

  /** @returns what is wrong; `lost`: how much of what was acknowledged is not in the count */
  async check(kv: KV): Promise<{ readonly faults: readonly string[]; readonly lost: number }> {
    const count = (await patiently(() => countersOf(kv).get('one'))).entry?.value ?? 0
    const fault = countFault(this.#increments, count)
    const acknowledged = this.#increments.reduce((sum, { by, outcome }) => sum + (outcome === 'applied' ? by : 0), 0)
    return { faults: fault === undefined ? [] : [fault], lost: Math.max(0, acknowledged - count) }
  }
}

/** At the end everything is healed: what fails then fails for good. */
async function patiently<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call()
    } catch (error) {
      if (attempt === 5) throw error
      await pause(againMs)
    }
  }
}
