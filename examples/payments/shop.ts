/**
 * The shop: orders and payments as JSON, with problem answers (RFC 9457); and under /v1 what Stripe's own client expects.
 * Invariant: an order is charged at most once, whatever is sent twice, cut off, or killed in between.
 * Why so little code for that: the door claims the Idempotency-Key and stores the answer, a step remembers the charge, `modify` gives the order
 * to one payment. This file is meant to be read from top to bottom.
 */
import { join } from 'node:path'
import express, { type NextFunction, type Request, type Response } from 'express'
import { json, modify, scoped, type Duration } from 'hapax'
import { connect } from 'hapax/client'
import { embedded } from 'hapax/embedded'
import { idempotency } from 'hapax/idempotency'
import { idempotent } from 'hapax/idempotency/express'
import { bankAt } from './bank-client.ts'
import { liveWithSupervisor, tell } from './channel.ts'
import { goods } from './goods.ts'
import { stripeApi } from './stripe/api.ts'
import { warehouseAt } from './warehouse-client.ts'
import { watchIdempotency } from './watch.ts'

interface Order {
  readonly id: string
  /** In the currency's smallest unit. */
  readonly amount: number
  readonly currency: string
  readonly state: 'new' | 'paying' | 'paid'
  /** The Idempotency-Key that may pay it: from the moment that it tries. */
  readonly paidBy?: string
  readonly charge?: string
}

// 1. A store in this process, or a cluster: the same calls. What it has answered is on disk.
const { HAPAX_URL: url, DATA_DIR: dir = 'data' } = process.env
const kv = url === undefined ? await embedded({ dir: join(dir, 'shop') }) : await connect(`${url}/shop`)
const orders = scoped(kv, 'order', { codec: json<Order>() })
const bank = bankAt(Number(process.env.BANK_PORT))

// 2. Idempotency. `resume`: after a crash the handler runs again, and its finished steps answer from the record.
//    The lease is short because people watch: so long does a retry wait after a crash, at most.
const settings = { kv, retention: '24h', lease: (process.env.LEASE ?? '2s') as Duration, afterCrash: 'resume' } as const
// A 500 of the shop is not final: the same key may try again, and the bank knows its step. A repetition waits a while for the first answer.
// Stripe keeps a 500 as well, and says 409 at once.
const payments = idempotency({ ...settings, name: 'payments', final: 'draft', wait: '5s' })
const stripe = idempotency({ ...settings, name: 'stripe', final: 'stripe' })
const once = { scope: customerOf, required: true }

const app = express().disable('x-powered-by')
app.use('/v1', stripeApi({ kv, bank, payments: stripe }))
// 3. Stock, product pages and quotes: a counter, a cache and a rate limit on the same store.
app.use(goods({ kv, warehouse: warehouseAt(Number(process.env.WAREHOUSE_PORT)), payments, customerOf, problem }))

app.post(
  '/orders',
  authenticated,
  express.json(),
  checkedOrder,
  idempotent(payments, once, async (req, res, run) => {
    const { amount, currency = 'eur' } = req.body as { amount: number; currency?: string }
    // The step's key is the same in each attempt: so is the order's name, and a second attempt finds the first one's order.
    const order = await run.step('order', async ({ key }) => {
      const id = key.slice(0, 10)
      return (await orders.create(ownKey(req, id), { id, amount, currency, state: 'new' })).entry.value
    })
    res.status(201).location(`/orders/${order.id}`).json(order)
  }),
)

app.get('/orders/:id', authenticated, async (req, res) => {
  const { entry } = await orders.get(ownKey(req, String(req.params.id)))
  if (!entry) return problem(res, 404, 'order-missing', 'There is no such order')
  res.json(entry.value)
})

app.post(
  '/payments',
  authenticated,
  express.json(),
  checkedPayment,
  idempotent(payments, once, async (req, res, run) => {
    const { order: id, amount, card = 'pm_card_visa' } = req.body as { order: string; amount: number; card?: string }
    const key = ownKey(req, id)

    // What is refused before anything happened does not use up the key.
    const { entry } = await orders.get(key)
    if (entry?.value.amount !== amount) {
      run.release()
      if (!entry) return problem(res, 404, 'order-missing', 'There is no such order')
      return problem(res, 409, 'amount-differs', `The order costs ${entry.value.amount}, not ${amount}`)
    }

    // Two keys for one order: the first one to get here pays it.
    const order = await change(key, (order) => (order.state === 'new' ? { ...order, state: 'paying', paidBy: run.key } : undefined))
    if (order.paidBy !== run.key) {
      run.release()
      return problem(res, 409, 'order-taken', order.state === 'paid' ? 'The order is paid' : 'Another payment of this order is under way')
    }

    // The one thing that must not happen twice. Killed here? The next attempt asks the bank with the same key.
    const booked = await run.step('charge', (step) => bank.charge({ amount, currency: order.currency, reference: id, card }, step))
    if (!booked.ok) {
      await change(key, ({ paidBy: _, ...order }) => ({ ...order, state: 'new' }))
      return problem(res, 402, 'declined', 'The bank declined the charge', { reason: booked.declined })
    }
    await change(key, (order) => ({ ...order, state: 'paid', charge: booked.id }))
    res.status(201).json({ order: id, amount, currency: order.currency, charge: booked.id, attempt: run.fence })
  }),
)

app.use((_req, res) => problem(res, 404, 'route-missing', 'There is nothing here'))
app.use((error: Error & { status?: number }, _req: Request, res: Response, next: NextFunction) => {
  if (res.headersSent) return next(error)
  const status = error.status !== undefined && error.status < 500 ? error.status : 500
  if (status === 500) console.error(error)
  problem(
    res,
    status,
    status === 500 ? 'fault' : 'request-invalid',
    status === 500 ? 'Something broke here; send it again with the same key' : error.message,
  )
})

/** Changes an order that is there; undefined leaves it as it is. */
async function change(key: string, fn: (order: Order) => Order | undefined): Promise<Order> {
  const { entry } = await modify(orders, key, (order) => order && fn(order))
  if (!entry) throw new Error(`the order ${key} is gone`)
  return entry.value
}

/** Who asks. A real shop looks the token up; here it is the name. */
function customerOf(req: Request): string {
  return /^Bearer ([\w.-]{1,64})$/.exec(req.get('authorization') ?? '')?.[1] ?? ''
}
const ownKey = (req: Request, order: string): string => `${customerOf(req)}/${order.slice(0, 64)}`

function authenticated(req: Request, res: Response, next: NextFunction): void {
  if (customerOf(req) !== '') return next()
  res.set('WWW-Authenticate', 'Bearer')
  problem(res, 401, 'unauthenticated', 'Say who you are: Authorization: Bearer <name>')
}

// Checked before the door: a request that can never work does not use up its key either.
const isAmount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= 99_999_999

function checkedOrder(req: Request, res: Response, next: NextFunction): void {
  const { amount, currency = 'eur' } = (req.body ?? {}) as Record<string, unknown>
  if (isAmount(amount) && typeof currency === 'string' && /^[a-z]{3}$/.test(currency)) return next()
  problem(res, 400, 'order-invalid', 'An order has an `amount` in cents, 1 to 99999999, and a `currency` such as eur')
}

function checkedPayment(req: Request, res: Response, next: NextFunction): void {
  const { order, amount, card = '' } = (req.body ?? {}) as Record<string, unknown>
  if (typeof order === 'string' && order !== '' && isAmount(amount) && typeof card === 'string') return next()
  problem(res, 400, 'payment-invalid', 'A payment has an `order` and its `amount` in cents')
}

function problem(res: Response, status: number, kind: string, title: string, more: object = {}): void {
  res
    .status(status)
    .type('application/problem+json')
    .send(JSON.stringify({ type: `urn:problem:shop:${kind}`, title, status, ...more }))
}

// An order to begin with, for the command that `npm start` prints.
await orders.create('ada/1001', { id: '1001', amount: 2990, currency: 'eur', state: 'new' })

const unwatch = watchIdempotency()
const server = app.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address && typeof address === 'object') tell({ type: 'ready', port: address.port })
})
// Longer than the proxy before us keeps an idle connection, so that none is closed while a request is on its way.
server.keepAliveTimeout = 60_000
liveWithSupervisor(async () => {
  server.close()
  server.closeAllConnections()
  unwatch()
  await kv.close()
})
