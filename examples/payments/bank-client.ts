/**
 * How the shop asks the bank.
 * Invariant: every request carries the key of its step, so asking again, by us or after a crash, never books again.
 * Why no answer is a thrown error: whether the money moved is not known then, and only the same key can tell.
 */
import type { Step } from 'hapax/idempotency'

export type Booked =
  | { readonly ok: true; readonly id: string; readonly amount: number }
  | { readonly ok: false; readonly declined: string; readonly id?: string }

export interface Bank {
  charge(what: { amount: number; currency: string; reference: string; card: string }, step: Step): Promise<Booked>
  refund(what: { charge: string; amount: number }, step: Step): Promise<Booked>
}

/** A bank that stumbles is asked again with the same key, so often and after so many milliseconds. */
const retryDelaysMs = [50, 200, 800, 2_000]
/** Longer than a bank takes, shorter than a customer waits. */
const timeoutMs = 10_000

export function bankAt(port: number): Bank {
  const post = async (path: string, body: unknown, { key, signal }: Step): Promise<Booked> => {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', 'idempotency-key': key },
          body: JSON.stringify(body),
          signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
        })
        const said = (await answer.json()) as { id: string; amount: number; declined?: string; error?: string }
        if (answer.status === 201) return { ok: true, id: said.id, amount: said.amount }
        if (answer.status === 402) return { ok: false, id: said.id, declined: said.declined ?? 'generic_decline' }
        if (answer.status < 500) return { ok: false, declined: said.error ?? `the bank said ${answer.status}` }
        throw new Error(`the bank said ${answer.status}`)
      } catch (error) {
        const delayMs = retryDelaysMs[attempt]
        if (signal.aborted || delayMs === undefined) throw error
        await new Promise((wake) => setTimeout(wake, delayMs))
      }
    }
  }
  return {
    charge: (what, step) => post('/charges', what, step),
    refund: (what, step) => post('/refunds', what, step),
  }
}
