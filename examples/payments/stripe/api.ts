/**
 * /v1 as Stripe's own client knows it: payment intents and refunds, form encoding, error shapes, idempotency.
 * Invariant: one charge a payment intent: `confirm` gives the intent to one request before the bank is asked.
 * Why ids come from the step's key: the key is the same in each attempt, so an attempt after a crash finds the object of the one before.
 */
import { createHash, randomUUID } from 'node:crypto'
import express, { Router, type NextFunction, type Request, type Response } from 'express'
import type { KV } from 'hapax'
import type { Idempotency, Once } from 'hapax/idempotency'
import { idempotent } from 'hapax/idempotency/express'
import type { Bank } from '../bank-client.ts'
import { asStripe, fail, invalid, missing } from './errors.ts'
import { shelf, type Listed, type Shelf } from './shelf.ts'

interface Intent extends Listed {
  readonly amount: number
  readonly currency: string
  readonly status: 'requires_payment_method' | 'requires_confirmation' | 'processing' | 'succeeded'
  readonly created: number
  readonly description: string | null
  readonly metadata: Readonly<Record<string, string>>
  readonly payment_method: string | null
  readonly latest_charge: string | null
  readonly last_payment_error: {
    readonly type: 'card_error'
    readonly code: 'card_declined'
    readonly decline_code: string
    readonly message: string
  } | null
  /** The request that may charge it. */
  readonly confirmedBy?: string
  readonly amountRefunded: number
}
interface Refund extends Listed {
  readonly amount: number
  readonly currency: string
  readonly charge: string
  readonly payment_intent: string
  readonly reason: string | null
  readonly created: number
  readonly metadata: Readonly<Record<string, string>>
}

const limits = { metadataMax: 50, textMax: 500, amountMax: 99_999_999, pageMax: 100, pageDefault: 10 } as const

export interface StripeApiOptions {
  readonly kv: KV
  readonly bank: Bank
  readonly payments: Idempotency
}

export function stripeApi({ kv, bank, payments }: StripeApiOptions): Router {
  const intents = shelf<Intent>(kv, 'intent')
  const refunds = shelf<Refund>(kv, 'refund')
  const api = Router()
  api.use(named, authenticated, express.urlencoded({ extended: true, limit: '64kb' }))
  // A client of Stripe's that sends no key is not refused: it is served unprotected, as Stripe does.
  const once = { scope: accountOf, problem: asStripe }

  api.post(
    '/payment_intents',
    checkedIntent,
    idempotent(payments, once, async (req, res, run) => {
      const account = accountOf(req)
      const body = req.body as Record<string, unknown>
      const card = typeof body.payment_method === 'string' ? body.payment_method : null
      const id = await run.step('intent', async ({ key }) => {
        const made = await intents.make(account, `pi_${idOf(key)}`, (number) => ({
          id: `pi_${idOf(key)}`,
          number,
          amount: Number(body.amount),
          currency: String(body.currency).toLowerCase(),
          status: card === null ? 'requires_payment_method' : 'requires_confirmation',
          created: Math.floor(Date.now() / 1000),
          description: typeof body.description === 'string' ? body.description : null,
          metadata: metadataOf(body),
          payment_method: card,
          latest_charge: null,
          last_payment_error: null,
          amountRefunded: 0,
        }))
        return made.id
      })
      if (body.confirm === 'true') return await confirm(req, res, run, id, card)
      res.json(intentOut(await found(intents, account, id)))
    }),
  )

  api.post(
    '/payment_intents/:id/confirm',
    idempotent(payments, once, async (req, res, run) => {
      const body = (req.body ?? {}) as Record<string, unknown>
      const card = typeof body.payment_method === 'string' ? body.payment_method : null
      await confirm(req, res, run, String(req.params.id), card)
    }),
  )

  async function confirm(req: Request, res: Response, run: Once, id: string, given: string | null): Promise<void> {
    const account = accountOf(req)
    const before = await intents.get(account, id)
    const card = given ?? before?.payment_method ?? null
    if (!before || card === null) {
      run.release()
      if (!before) return missing(res, 'payment_intent', id)
      return invalid(res, 'The payment intent has no payment method. Give one as payment_method.', {
        code: 'payment_intent_unexpected_state',
      })
    }
    // Without a key nobody comes back for it: then each request stands for itself.
    const taker = run.key === '' ? randomUUID() : `${run.operation} ${run.key}`
    const intent = await intents.change(account, id, (now) =>
      now.status === 'requires_payment_method' || now.status === 'requires_confirmation'
        ? { ...now, status: 'processing', payment_method: card, confirmedBy: taker }
        : undefined,
    )
    if (intent.confirmedBy !== taker) {
      run.release()
      if (intent.status === 'processing') {
        return fail(res, 429, {
          type: 'invalid_request_error',
          code: 'lock_timeout',
          message: 'Another request is confirming this payment intent. Try again later.',
        })
      }
      return invalid(res, `This payment intent has the status ${intent.status} and cannot be confirmed.`, {
        code: 'payment_intent_unexpected_state',
      })
    }
    const reference = intent.metadata.order ?? id
    const booked = await run.step('charge', (step) =>
      bank.charge({ amount: intent.amount, currency: intent.currency, reference, card }, step),
    )
    if (booked.ok) {
      return void res.json(
        intentOut(
          await intents.change(account, id, (now) => ({ ...now, status: 'succeeded', latest_charge: booked.id, last_payment_error: null })),
        ),
      )
    }
    const error = { type: 'card_error', code: 'card_declined', decline_code: booked.declined, message: 'Your card was declined.' } as const
    const declined = await intents.change(account, id, ({ confirmedBy: _, ...now }) => ({
      ...now,
      status: 'requires_payment_method',
      last_payment_error: error,
    }))
    fail(res, 402, { ...error, ...(booked.id === undefined ? {} : { charge: booked.id }), payment_intent: intentOut(declined) })
  }

  api.get('/payment_intents/:id', async (req, res) => {
    const intent = await intents.get(accountOf(req), String(req.params.id))
    if (!intent) return missing(res, 'payment_intent', String(req.params.id))
    res.json(intentOut(intent))
  })
  api.get('/payment_intents', (req, res) => listed(req, res, intents, intentOut, '/v1/payment_intents'))

  api.post(
    '/refunds',
    idempotent(payments, once, async (req, res, run) => {
      const account = accountOf(req)
      const body = (req.body ?? {}) as Record<string, unknown>
      const of = String(body.payment_intent ?? '')
      const intent = await intents.get(account, of)
      const amount = body.amount === undefined ? (intent?.amount ?? 0) - (intent?.amountRefunded ?? 0) : Number(body.amount)
      const charge = intent?.latest_charge
      if (!intent || !charge || (body.amount !== undefined && !isAmount(amount))) {
        run.release()
        if (!intent) return missing(res, 'payment_intent', of)
        return charge
          ? invalid(res, 'Invalid positive integer', { param: 'amount' })
          : invalid(res, 'This payment intent has no charge to refund.', { code: 'payment_intent_unexpected_state' })
      }
      const booked = await run.step('refund', (step) => bank.refund({ charge, amount: Math.max(1, amount) }, step))
      if (!booked.ok)
        return invalid(res, 'The refund is greater than what is left of the charge.', { code: 'charge_already_refunded', param: 'amount' })
      const refund = await refunds.make(account, booked.id, (number) => ({
        id: booked.id,
        number,
        amount: booked.amount,
        currency: intent.currency,
        charge,
        payment_intent: of,
        reason: typeof body.reason === 'string' ? body.reason : null,
        created: Math.floor(Date.now() / 1000),
        metadata: metadataOf(body),
      }))
      await run.step('refunded', async () => {
        await intents.change(account, of, (now) => ({ ...now, amountRefunded: now.amountRefunded + refund.amount }))
      })
      res.json(refundOut(refund))
    }),
  )
  api.get('/refunds/:id', async (req, res) => {
    const refund = await refunds.get(accountOf(req), String(req.params.id))
    if (!refund) return missing(res, 'refund', String(req.params.id))
    res.json(refundOut(refund))
  })
  api.get('/refunds', (req, res) => {
    const of = req.query.payment_intent
    return listed(req, res, refunds, refundOut, '/v1/refunds', (refund) => of === undefined || refund.payment_intent === of)
  })

  api.use((req, res) =>
    fail(res, 404, { type: 'invalid_request_error', message: `Unrecognized request URL (${req.method}: ${req.originalUrl}).` }),
  )
  api.use((error: Error & { status?: number }, _req: Request, res: Response, next: NextFunction) => {
    if (res.headersSent) return next(error)
    if (error.status !== undefined && error.status < 500) return invalid(res, error.message)
    console.error(error)
    // Kept under its key, so sending it again would only bring it back.
    res.set('Stripe-Should-Retry', 'false')
    fail(res, 500, { type: 'api_error', message: 'Something broke here. Retrieve the object to see what became of it.' })
  })
  return api
}

const accountOf = (req: Request): string =>
  secretKeyOf(req) && `acct_${createHash('sha256').update(secretKeyOf(req)).digest('hex').slice(0, 16)}`

/** `Authorization: Bearer sk_test_...`, or the key as the user of Basic, as `curl -u` sends it. */
function secretKeyOf(req: Request): string {
  const [scheme = '', given = ''] = (req.get('authorization') ?? '').split(' ')
  const key =
    scheme.toLowerCase() === 'basic'
      ? (Buffer.from(given, 'base64').toString().split(':')[0] ?? '')
      : scheme.toLowerCase() === 'bearer'
        ? given
        : ''
  return /^sk_test_\w{1,128}$/.test(key) ? key : ''
}

function authenticated(req: Request, res: Response, next: NextFunction): void {
  if (secretKeyOf(req) !== '') return next()
  const message = 'You did not provide a test API key. Use Authorization: Bearer sk_test_..., with any letters and digits after it.'
  fail(res, 401, { type: 'invalid_request_error', message })
}

/** Each answer has a name of its own, a replay too. */
function named(req: Request, res: Response, next: NextFunction): void {
  res.set('Request-Id', `req_${randomUUID().replaceAll('-', '').slice(0, 14)}`)
  const [key, version] = [req.get('idempotency-key'), req.get('stripe-version')]
  if (key && key.length <= 255) res.set('Idempotency-Key', key)
  if (version) res.set('Stripe-Version', version)
  next()
}

const isAmount = (amount: number): boolean => Number.isSafeInteger(amount) && amount >= 1 && amount <= limits.amountMax

/** Before the door: Stripe keeps no answer of a request whose parameters it refused. */
function checkedIntent(req: Request, res: Response, next: NextFunction): void {
  const { amount, currency, metadata = {}, description = '' } = (req.body ?? {}) as Record<string, unknown>
  if (amount === undefined) return invalid(res, 'Missing required param: amount.', { code: 'parameter_missing', param: 'amount' })
  if (!isAmount(Number(amount))) return invalid(res, 'Invalid positive integer', { code: 'parameter_invalid_integer', param: 'amount' })
  if (typeof currency !== 'string' || !/^[a-zA-Z]{3}$/.test(currency))
    return invalid(res, 'Missing or invalid param: currency.', { param: 'currency' })
  const pairs = typeof metadata === 'object' && metadata !== null && !Array.isArray(metadata) ? Object.entries(metadata) : undefined
  if (
    !pairs ||
    pairs.length > limits.metadataMax ||
    pairs.some(([, value]) => typeof value !== 'string' || value.length > limits.textMax)
  ) {
    return invalid(res, `metadata takes ${limits.metadataMax} texts of ${limits.textMax} characters.`, { param: 'metadata' })
  }
  if (typeof description !== 'string' || description.length > limits.textMax)
    return invalid(res, 'description is too long.', { param: 'description' })
  next()
}
const metadataOf = (body: Record<string, unknown>): Record<string, string> => ({ ...(body.metadata as Record<string, string> | undefined) })

async function listed<T extends Listed>(
  req: Request,
  res: Response,
  from: Shelf<T>,
  out: (object: T) => object,
  url: string,
  only?: (object: T) => boolean,
): Promise<void> {
  const { limit = String(limits.pageDefault), starting_after: after } = req.query
  if (!/^\d+$/.test(String(limit)) || Number(limit) < 1 || Number(limit) > limits.pageMax) {
    return invalid(res, `limit must be from 1 to ${limits.pageMax}.`, { code: 'parameter_invalid_integer', param: 'limit' })
  }
  const startingAfter = typeof after === 'string' ? after : undefined
  const page = await from.list(accountOf(req), { limit: Number(limit), startingAfter, ...(only ? { only } : {}) })
  if (!page) return invalid(res, `No such object: '${startingAfter}'`, { code: 'resource_missing', param: 'starting_after' })
  res.json({ object: 'list', data: page.data.map(out), has_more: page.more, url })
}

async function found(intents: Shelf<Intent>, account: string, id: string): Promise<Intent> {
  const intent = await intents.get(account, id)
  if (!intent) throw new Error(`${id} is gone`)
  return intent
}
const idOf = (stepKey: string): string => createHash('sha256').update(stepKey).digest('hex').slice(0, 24)

/** Inner fields stay inside. */
function intentOut({ number: _number, confirmedBy: _by, amountRefunded: _refunded, ...intent }: Intent): object {
  return {
    ...intent,
    object: 'payment_intent',
    amount_capturable: 0,
    amount_received: intent.status === 'succeeded' ? intent.amount : 0,
    capture_method: 'automatic',
    client_secret: `${intent.id}_secret`,
    confirmation_method: 'automatic',
    customer: null,
    livemode: false,
    next_action: null,
    payment_method_types: ['card'],
  }
}
const refundOut = ({ number: _, ...refund }: Refund): object => ({ ...refund, object: 'refund', status: 'succeeded' })
