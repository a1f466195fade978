/**
 * Many clients at once, for the buttons that attack a claim: a browser opens six connections and can be no crowd.
 * Invariant: every member of the crowd asks once, on the shop's own address, and what it is told is counted by status.
 */
import { randomUUID } from 'node:crypto'

export interface Tally {
  /** How many were answered so, by status; '0': no answer. */
  readonly byStatus: Readonly<Record<string, number>>
  readonly ms: number
}

export interface Rush extends Tally {
  /** The longest that a payer waited for an order and its payment. */
  readonly slowestMs: number
}

const readers = 500
const payers = 100
/** Over which the payers come. */
const rushMs = 1_500
const buyers = 100
const timeoutMs = 20_000

/** 500 readers of one product page. */
export const stampede = (shopPort: number, sku: string): Promise<Tally> =>
  crowd(readers, (index) => fetch(`http://127.0.0.1:${shopPort}/products/${sku}`, { headers: clientOf(index), signal: patience() }))

/** 100 payers, each with an order of its own; `onHalf` is called when every second one was answered. */
export async function rush(shopPort: number, onHalf: () => void): Promise<Rush> {
  let slowestMs = 0
  let answered = 0
  const post = async (index: number, path: string, body: unknown): Promise<Response> =>
    fetch(`http://127.0.0.1:${shopPort}${path}`, {
      method: 'POST',
      headers: { ...clientOf(index), 'content-type': 'application/json', 'idempotency-key': `"${randomUUID()}"` },
      body: JSON.stringify(body),
      signal: patience(),
    })
  const amount = 2_990
  const tally = await crowd(payers, async (index) => {
    // Not all in one moment: there has to be something under way when it happens.
    await new Promise((wake) => setTimeout(wake, (index * rushMs) / payers))
    const startMs = performance.now()
    const order = await post(index, '/orders', { amount })
    if (order.status !== 201) return order
    const { id } = (await order.json()) as { id: string }
    const paid = await post(index, '/payments', { order: id, amount })
    slowestMs = Math.max(slowestMs, Math.round(performance.now() - startMs))
    if (++answered === payers / 2) onHalf()
    return paid
  })
  return { ...tally, slowestMs }
}

/** 100 buyers, each with a name and a key of its own. */
export const race = (shopPort: number, sku: string): Promise<Tally> =>
  crowd(buyers, (index) =>
    fetch(`http://127.0.0.1:${shopPort}/products/${sku}/purchases`, {
      method: 'POST',
      headers: { ...clientOf(index), 'content-type': 'application/json', 'idempotency-key': `"${randomUUID()}"` },
      body: '{}',
      signal: patience(),
    }),
  )

const patience = (): AbortSignal => AbortSignal.timeout(timeoutMs)
const clientOf = (index: number): Record<string, string> => ({ authorization: `Bearer crowd-${index}` })

async function crowd(count: number, ask: (index: number) => Promise<Response>): Promise<Tally> {
  const startMs = performance.now()
  const statuses = await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      try {
        const answer = await ask(index)
        await answer.arrayBuffer()
        return answer.status
      } catch {
        return 0
      }
    }),
  )
  const byStatus: Record<string, number> = {}
  for (const status of statuses) byStatus[status] = (byStatus[status] ?? 0) + 1
  return { byStatus, ms: Math.round(performance.now() - startMs) }
}
