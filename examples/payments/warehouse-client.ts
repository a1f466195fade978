/**
 * How the shop asks the warehouse.
 * Why only shipments are asked again: they carry the key of their step, so asking again ships nothing twice; a read or a quote just fails.
 */
import type { Step } from 'hapax/idempotency'

export interface Product {
  readonly sku: string
  readonly name: string
  /** In cents. */
  readonly price: number
  /** How often the warehouse has been asked for it. */
  readonly read: number
}

export interface Warehouse {
  product(sku: string, signal: AbortSignal): Promise<Product>
  ship(sku: string, step: Step): Promise<{ readonly sku: string }>
  quote(): Promise<{ readonly price: number }>
}

const attemptsMax = 4
const pauseMs = 100
/** Longer than a slow read, shorter than a customer waits. */
const timeoutMs = 10_000

export function warehouseAt(port: number): Warehouse {
  const ask = async <T>(method: string, path: string, init: RequestInit = {}): Promise<T> => {
    const signal = init.signal ? AbortSignal.any([init.signal, AbortSignal.timeout(timeoutMs)]) : AbortSignal.timeout(timeoutMs)
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { ...init, method, signal })
    if (!answer.ok) throw new Error(`the warehouse said ${answer.status}`)
    return (await answer.json()) as T
  }
  return {
    product: (sku, signal) => ask('GET', `/products/${encodeURIComponent(sku)}`, { signal }),
    quote: () => ask('POST', '/quotes'),
    async ship(sku, { key, signal }) {
      const headers = { 'content-type': 'application/json', 'idempotency-key': key }
      for (let attempt = 1; ; attempt += 1) {
        try {
          return await ask('POST', '/shipments', { headers, body: JSON.stringify({ sku }), signal })
        } catch (error) {
          if (signal.aborted || attempt >= attemptsMax) throw error
          await new Promise((wake) => setTimeout(wake, pauseMs * attempt))
        }
      }
    },
  }
}
