/**
 * What the shop sells: stock that is never oversold, a product page that asks the slow warehouse once, and quotes with a limit for each client.
 * Invariant: a unit leaves the stock and the warehouse once for each Idempotency-Key, whatever is sent twice or killed in between.
 * Why one line each: a pattern is an object made once, and a door or a call where it is needed.
 */
import express, { Router, type Request, type Response } from 'express'
import type { KV } from 'hapax'
import { cache } from 'hapax/cache-aside'
import { counter } from 'hapax/counters'
import type { Idempotency } from 'hapax/idempotency'
import { idempotent } from 'hapax/idempotency/express'
import { gcra, rateLimit } from 'hapax/ratelimit'
import { rateLimited } from 'hapax/ratelimit/express'
import type { Warehouse } from './warehouse-client.ts'

export interface GoodsOptions {
  readonly kv: KV
  readonly warehouse: Warehouse
  readonly payments: Idempotency
  readonly customerOf: (req: Request) => string
  readonly problem: (res: Response, status: number, kind: string, title: string, more?: object) => void
}

export function goods({ kv, warehouse, payments, customerOf, problem }: GoodsOptions): Router {
  // Bounded below: the hundred-and-first buyer of a hundred units is refused by the same write that serves the others.
  const stock = counter({ kv, name: 'stock', min: 0 })
  // One reader asks the warehouse; whoever comes meanwhile waits for it.
  const products = cache({ kv, name: 'product', ttl: '30s', load: (sku: string, { signal }) => warehouse.product(sku, signal) })
  // On a disk that syncs each batch, a burst may wait longer than the default 50 ms for its turn.
  const quotes = rateLimit({ kv, name: 'quotes', onUnknown: 'deny', deadline: '1s', policies: { quotes: gcra({ limit: 10, per: '10s' }) } })
  const routes = Router()

  routes.get('/products/:sku', checkedSku, async (req, res) => {
    const sku = skuOf(req)
    const [product, { value: left }] = await Promise.all([products.get(sku), stock.get(sku)])
    res.json({ ...product, left })
  })

  routes.post('/products/:sku/deliveries', checkedSku, express.json(), async (req, res) => {
    const { units } = (req.body ?? {}) as { units?: unknown }
    if (typeof units !== 'number' || !Number.isSafeInteger(units) || units < 1 || units > 1_000_000) {
      return problem(res, 400, 'delivery-invalid', 'A delivery has `units`, 1 to 1000000')
    }
    const added = await stock.add(skuOf(req), units)
    res.status(201).json({ sku: skuOf(req), left: added.value })
  })

  routes.post(
    '/products/:sku/purchases',
    checkedSku,
    express.json(),
    idempotent(payments, { scope: customerOf, required: true }, async (req, res, run) => {
      const sku = skuOf(req)
      const taken = await run.step('take', ({ key }) => stock.add(sku, -1, { requestId: key }))
      if (!taken.ok) return problem(res, 409, 'sold-out', 'There is none left', { sku })
      await run.step('ship', (step) => warehouse.ship(sku, step))
      res.status(201).json({ sku, left: taken.value })
    }),
  )

  routes.post('/quotes', rateLimited(quotes, { key: customerOf }), async (_req, res) => {
    res.json(await warehouse.quote())
  })

  function checkedSku(req: Request, res: Response, next: () => void): void {
    if (customerOf(req) === '') return problem(res, 401, 'unauthenticated', 'Say who you are: Authorization: Bearer <name>')
    if (/^[\w.-]{1,64}$/.test(skuOf(req))) return next()
    problem(res, 400, 'sku-invalid', 'A sku has 1 to 64 letters, digits, dots and dashes')
  }
  return routes
}

const skuOf = (req: Request): string => String(req.params.sku)
