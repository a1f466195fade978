/**
 * The objects of one kind that Stripe's API lists: made once, changed in place, listed newest first, each account for itself.
 * Invariant: making an object again under its id changes nothing and lists it once; a crash in between may leave a number without an object, never the reverse.
 * Why numbers and not one list an account: a list would be written again, whole, with each payment.
 */
import { json, modify, scoped, type KV } from 'hapax'

export interface Listed {
  readonly id: string
  /** Its place in the account's list, from 1. */
  readonly number: number
}

export interface Shelf<T extends Listed> {
  /** Makes the object, or finds the one that is there. */
  make(account: string, id: string, make: (number: number) => T): Promise<T>
  get(account: string, id: string): Promise<T | undefined>
  /** Changes an object that is there; undefined leaves it. `fn` is pure and may run again. */
  change(account: string, id: string, fn: (object: T) => T | undefined): Promise<T>
  /** Newest first, those after `startingAfter`. @returns undefined when there is no such object. */
  list(
    account: string,
    ask: { limit: number; startingAfter?: string | undefined; only?: (object: T) => boolean },
  ): Promise<{ data: T[]; more: boolean } | undefined>
}

/** Numbers that one page may look at: a filter that finds nothing must end. */
const lookedAtMax = 2_000
const lookedAtOnce = 100

export function shelf<T extends Listed>(kv: KV, kind: string): Shelf<T> {
  const objects = scoped(kv, kind, { codec: json<T>() })
  const numbers = scoped(kv, `${kind}-number`, { codec: json<string>() })
  const counts = scoped(kv, `${kind}-count`, { codec: json<number>() })

  const nextNumber = async (account: string): Promise<number> => {
    const { entry } = await modify(counts, account, (count = 0) => count + 1)
    if (!entry) throw new Error(`the count of ${account} is gone`)
    return entry.value
  }
  return {
    async make(account, id, make) {
      const present = (await objects.get(`${account}/${id}`)).entry?.value
      const object = present ?? (await objects.create(`${account}/${id}`, make(await nextNumber(account)))).entry.value
      await numbers.set(`${account}/${object.number}`, id)
      return object
    },
    async get(account, id) {
      return (await objects.get(`${account}/${id}`)).entry?.value
    },
    async change(account, id, fn) {
      const { entry } = await modify(objects, `${account}/${id}`, (object) => object && fn(object))
      if (!entry) throw new Error(`${id} is gone`)
      return entry.value
    },
    async list(account, { limit, startingAfter, only = () => true }) {
      let next = (await counts.get(account)).entry?.value ?? 0
      if (startingAfter !== undefined) {
        const from = (await objects.get(`${account}/${startingAfter}`)).entry
        if (!from) return undefined
        next = from.value.number - 1
      }
      const data: T[] = []
      const last = Math.max(0, next - lookedAtMax)
      while (next > last && data.length <= limit) {
        const wanted = Array.from({ length: Math.min(lookedAtOnce, next - last) }, (_, index) => `${account}/${next - index}`)
        const ids = (await numbers.getMany(wanted)).entries
        const keys = wanted.flatMap((key) => (ids.has(key) ? [`${account}/${ids.get(key)?.value}`] : []))
        const found = keys.length === 0 ? new Map<string, { value: T }>() : (await objects.getMany(keys)).entries
        data.push(...keys.flatMap((key) => found.get(key)?.value ?? []).filter(only))
        next -= wanted.length
      }
      return { data: data.slice(0, limit), more: data.length > limit }
    },
  }
}
