/**
 * The bank: a process of its own with a ledger of its own, and the independent number of this demonstration.
 * Invariant: one entry an idempotency key, also when two requests with one key arrive at once or the bank is started anew.
 * Why it counts repeated requests as well: "asked three times, booked once" is the sentence that the page wants to show.
 *
 * POST /charges  POST /refunds  (both want Idempotency-Key)   GET /ledger?reference=
 */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { liveWithSupervisor, report, tell, type ToBank } from './channel.ts'
import { openLedger, type LedgerEntry } from './ledger.ts'

/** A charge is some hundred bytes; what is longer is no charge. */
const bodyBytesMax = 16_384
/** Cards that this bank declines, by Stripe's names for them. */
const declines: Readonly<Record<string, string>> = {
  pm_card_chargeDeclined: 'generic_decline',
  pm_card_visa_chargeDeclined: 'generic_decline',
  pm_card_chargeDeclinedInsufficientFunds: 'insufficient_funds',
  pm_card_visa_chargeDeclinedInsufficientFunds: 'insufficient_funds',
}

const ledger = await openLedger(join(process.env.DATA_DIR ?? 'data', 'bank', 'ledger.jsonl'))
/** How long a booked charge keeps its customer waiting, in milliseconds: what the page's eye can follow. */
const delayMs = Number(process.env.BANK_DELAY_MS ?? 0)
const underway = new Map<string, Promise<LedgerEntry>>()
const asked = new Map<string, number>()
const refundedOf = new Map<string, number>()
for (const { charge, amount } of ledger.entries()) if (charge !== undefined) refundedOf.set(charge, (refundedOf.get(charge) ?? 0) + amount)
let holdNext = false

type Answer = readonly [status: number, body: unknown]
const refuse = (status: number, error: string): Answer => [status, { error }]

async function charges(key: string, body: Record<string, unknown>): Promise<Answer> {
  const { amount, currency, reference, card = 'pm_card_visa' } = body
  if (!isAmount(amount)) return refuse(400, 'amount must be a whole number from 1')
  if (typeof currency !== 'string' || typeof reference !== 'string' || typeof card !== 'string') {
    return refuse(400, 'currency, reference and card must be text')
  }
  const reason = declines[card]
  return await once(key, reference, {
    type: reason === undefined ? 'charge' : 'declined',
    amount,
    currency,
    ...(reason === undefined ? {} : { reason }),
  })
}

async function refunds(key: string, body: Record<string, unknown>): Promise<Answer> {
  const charge = typeof body.charge === 'string' ? ledger.byId(body.charge) : undefined
  if (charge?.type !== 'charge') return refuse(404, 'there is no such charge')
  if (!isAmount(body.amount)) return refuse(400, 'amount must be a whole number from 1')
  const { reference, currency } = charge
  if (ledger.get(key) === undefined && !underway.has(key)) {
    // Reserved at once: two refunds on their way together may not give back more than the charge.
    const refunded = (refundedOf.get(charge.id) ?? 0) + body.amount
    if (refunded > charge.amount) return refuse(409, 'that is more than is left of the charge')
    refundedOf.set(charge.id, refunded)
  }
  return await once(key, reference, { type: 'refund', amount: body.amount, currency, charge: charge.id })
}

/** Books the entry unless its key has been seen; then the first entry is the answer, whatever is asked now. */
async function once(key: string, reference: string, entry: Omit<LedgerEntry, 'id' | 'key' | 'reference' | 'at'>): Promise<Answer> {
  asked.set(reference, (asked.get(reference) ?? 0) + 1)
  const present = ledger.get(key) ?? underway.get(key)
  if (present) {
    const before = await present
    report('bank', 'asked again, booked once', { detail: `${reference} ${before.id}`, code: 'examples/payments/bank.ts' })
    return answerOf(before)
  }
  const prefix = { charge: 'ch', refund: 're', declined: 'no' }[entry.type]
  const made: LedgerEntry = { ...entry, id: `${prefix}_${hash(key)}`, key, reference, at: Date.now() }
  const booking = ledger.add(made).then(() => made)
  underway.set(key, booking)
  await booking.finally(() => underway.delete(key))
  report('bank', `${entry.type} booked`, { detail: `${reference} ${made.amount} ${made.currency}`, code: 'examples/payments/ledger.ts' })
  if (entry.type === 'charge' && holdNext) {
    holdNext = false
    tell({ type: 'holding' })
    return await new Promise<never>(() => undefined)
  }
  if (delayMs > 0) await new Promise((wake) => setTimeout(wake, delayMs))
  return answerOf(made)
}

const answerOf = (entry: LedgerEntry): Answer =>
  entry.type === 'declined'
    ? [402, { declined: entry.reason, id: entry.id }]
    : [201, { id: entry.id, amount: entry.amount, currency: entry.currency }]

function ledgerOf(reference: string | undefined): Answer {
  if (reference === undefined) return [200, ledger.totals()]
  const entries = ledger.entries(reference)
  const booked = entries.filter((entry) => entry.type === 'charge')
  return [200, { ...ledger.totals(), reference, booked: booked.length, asked: asked.get(reference) ?? 0, entries }]
}

async function answerTo(req: IncomingMessage): Promise<Answer> {
  const url = new URL(req.url ?? '/', 'http://bank')
  if (req.method === 'GET' && url.pathname === '/ledger') return ledgerOf(url.searchParams.get('reference') ?? undefined)
  if (req.method === 'GET' && url.pathname === '/ledger/entries') return [200, ledger.entries()]
  const verb = req.method === 'POST' ? { '/charges': charges, '/refunds': refunds }[url.pathname] : undefined
  if (!verb) return refuse(404, 'there is POST /charges, POST /refunds and GET /ledger')
  const key = req.headers['idempotency-key']
  if (typeof key !== 'string' || key === '' || key.length > 255) return refuse(400, 'Idempotency-Key must have 1 to 255 characters')
  let text = ''
  for await (const chunk of req.setEncoding('utf8')) {
    text += chunk
    if (text.length > bodyBytesMax) return refuse(413, `a body has at most ${bodyBytesMax} bytes`)
  }
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    return refuse(400, 'the body is not JSON')
  }
  if (typeof body !== 'object' || body === null) return refuse(400, 'the body must be an object')
  return await verb(key, body as Record<string, unknown>)
}

function send(res: ServerResponse, [status, body]: Answer): void {
  res.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`)
}

const isAmount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 1
const hash = (key: string): string => createHash('sha256').update(key).digest('hex').slice(0, 24)

const server = createServer((req, res) => {
  answerTo(req).then(
    (answer) => send(res, answer),
    (error: unknown) => {
      console.error(error)
      send(res, refuse(500, 'the bank failed; ask again with the same key'))
    },
  )
})
// Longer than any client of ours keeps an idle connection, so that none is closed while a request is on its way.
server.keepAliveTimeout = 60_000
server.listen(Number(process.env.BANK_PORT ?? 0), '127.0.0.1', () => tell({ type: 'ready', port: (server.address() as AddressInfo).port }))

process.on('message', (message: ToBank) => {
  if (message.type === 'hold-next') holdNext = true
})
liveWithSupervisor(async () => {
  server.closeAllConnections()
  server.close()
  await ledger.close()
})
