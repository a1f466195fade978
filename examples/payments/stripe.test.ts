/**
 * The published `stripe` package, not patched, as a client of the shop (G27, G31).
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Stripe from 'stripe'
import { beforeAll, expect, test } from 'vitest'
import { openFront } from './front.ts'
import type { LedgerEntry } from './ledger.ts'
import { build, ledgerOf, startShop } from './testdata/started-shop.ts'

beforeAll(build, 120_000)

const seed = Number(process.env.HAPAX_SEED ?? 1)
const clientAt = (port: number, key = 'sk_test_demo'): Stripe =>
  new Stripe(key, { host: '127.0.0.1', port, protocol: 'http', maxNetworkRetries: 15, timeout: 20_000, telemetry: false })

test('intents, confirmations, declines, refunds and lists are what the client expects (G27)', async () => {
  const shop = await startShop({ BANK_DELAY_MS: '0' })
  try {
    const stripe = clientAt(shop.port)
    const create = { amount: 1000, currency: 'eur', payment_method: 'pm_card_visa', confirm: true, metadata: { order: 'o1', 'a[b]': 'c' } }
    const paid = await stripe.paymentIntents.create(create, { idempotencyKey: 'one' })
    expect(paid).toMatchObject({ object: 'payment_intent', status: 'succeeded', amount_received: 1000, metadata: create.metadata })
    expect(paid.lastResponse.headers['idempotent-replayed']).toBeUndefined()
    const again = await stripe.paymentIntents.create(create, { idempotencyKey: 'one' })
    expect(again).toEqual(paid)
    expect(again.lastResponse.headers['idempotent-replayed']).toBe('true')
    expect(again.lastResponse.requestId).toMatch(/^req_/)
    expect(again.lastResponse.requestId).not.toBe(paid.lastResponse.requestId)
    const other = stripe.paymentIntents.create({ ...create, amount: 1001 }, { idempotencyKey: 'one' })
    await expect(other).rejects.toMatchObject({ type: 'StripeIdempotencyError', statusCode: 400, rawType: 'idempotency_error' })
    expect(await clientAt(shop.port, 'sk_test_other').paymentIntents.create(create, { idempotencyKey: 'one' })).not.toMatchObject({
      id: paid.id,
    })

    const declined = stripe.paymentIntents.create({ ...create, payment_method: 'pm_card_chargeDeclinedInsufficientFunds' })
    await expect(declined).rejects.toMatchObject({ type: 'StripeCardError', code: 'card_declined', decline_code: 'insufficient_funds' })
    const open = await stripe.paymentIntents.create({ amount: 300, currency: 'EUR' })
    expect(open).toMatchObject({ status: 'requires_payment_method', currency: 'eur' })
    expect(await stripe.paymentIntents.confirm(open.id, { payment_method: 'pm_card_visa' })).toMatchObject({ status: 'succeeded' })
    await expect(stripe.paymentIntents.confirm(open.id, { payment_method: 'pm_card_visa' })).rejects.toMatchObject({
      code: 'payment_intent_unexpected_state',
    })
    expect(await ledgerOf(shop.url, open.id)).toMatchObject({ booked: 1, asked: 1 })

    const part = await stripe.refunds.create({ payment_intent: open.id, amount: 100 })
    expect(part).toMatchObject({ object: 'refund', amount: 100, status: 'succeeded', payment_intent: open.id })
    expect(await stripe.refunds.create({ payment_intent: open.id })).toMatchObject({ amount: 200 })
    await expect(stripe.refunds.create({ payment_intent: open.id, amount: 1 })).rejects.toMatchObject({ code: 'charge_already_refunded' })
    expect((await stripe.refunds.list({ payment_intent: open.id })).data.map(({ amount }) => amount)).toEqual([200, 100])

    const listed: string[] = []
    for await (const intent of stripe.paymentIntents.list({ limit: 2 })) listed.push(intent.id)
    expect(listed.length).toBe(3)
    expect(listed.at(-1)).toBe(paid.id)
    expect(await stripe.paymentIntents.retrieve(paid.id)).toEqual(paid)
    await expect(stripe.paymentIntents.retrieve('pi_none')).rejects.toMatchObject({ statusCode: 404, code: 'resource_missing' })
    await expect(stripe.paymentIntents.create({ amount: 0, currency: 'eur' })).rejects.toMatchObject({
      param: 'amount',
      code: 'parameter_invalid_integer',
    })
    await expect(clientAt(shop.port, 'rk_live_x').paymentIntents.retrieve(paid.id)).rejects.toMatchObject({
      type: 'StripeAuthenticationError',
    })
  } finally {
    await shop.end('SIGTERM')
  }
})

test('a key in use is 409 idempotency_key_in_use with Retry-After; the client is told to try again (G27)', async () => {
  // The first request is dead, its lease is not: in flight for a minute, however slow this machine is.
  const shop = await startShop({ BANK_DELAY_MS: '0', LEASE: '60s' })
  try {
    const once = new Stripe('sk_test_demo', {
      host: '127.0.0.1',
      port: shop.port,
      protocol: 'http',
      maxNetworkRetries: 0,
      telemetry: false,
    })
    const create = { amount: 700, currency: 'eur', payment_method: 'pm_card_visa', confirm: true, metadata: { order: 'held' } }
    await fetch(`${shop.url}/demo/kill-in-next-charge`, { method: 'POST' })
    // This client sends once more by itself when a connection closes, retries or not: whatever it says now is no answer.
    await expect(once.paymentIntents.create(create, { idempotencyKey: 'held' })).rejects.toBeInstanceOf(Error)
    await clientAt(shop.port).paymentIntents.list()
    const refused = await once.paymentIntents.create(create, { idempotencyKey: 'held' }).catch((error: unknown) => error)
    expect(refused).toMatchObject({ statusCode: 409, code: 'idempotency_key_in_use', rawType: 'invalid_request_error' })
    const { headers } = refused as { headers: Record<string, string> }
    expect(headers['stripe-should-retry']).toBe('true')
    expect(Number(headers['retry-after'])).toBeGreaterThan(0)
    expect(await ledgerOf(shop.url, 'held')).toMatchObject({ booked: 1, asked: 1 })
  } finally {
    await shop.end('SIGTERM')
  }
})

test('while the shop is down the client gets an error and never takes it for an intent (G27)', async () => {
  const away = { port: undefined, kill: () => false, tell: () => undefined }
  const front = await openFront({ port: 0, shop: away, bank: away, warehouse: away })
  try {
    const once = new Stripe('sk_test_demo', {
      host: '127.0.0.1',
      port: front.port,
      protocol: 'http',
      maxNetworkRetries: 0,
      telemetry: false,
    })
    const created = once.paymentIntents.create({ amount: 1, currency: 'eur' })
    await expect(created).rejects.toMatchObject({ type: 'StripeAPIError', statusCode: 503 })
    const answer = await fetch(`http://127.0.0.1:${front.port}/orders/1001`)
    expect([answer.status, answer.headers.get('retry-after'), answer.headers.get('content-type')]).toEqual([
      503,
      '1',
      'application/problem+json',
    ])
  } finally {
    await front.close()
  }
})

/** Passes bytes on, but the first request of each key is cut: after it was sent, or when its answer begins to arrive. */
async function cuttingProxy(to: number): Promise<{ port: number; cuts: () => number; close: () => void }> {
  const seen = new Set<string>()
  const sockets = new Set<Socket>()
  let cuts = 0
  const server = createServer((client) => {
    const onward = connect(to, '127.0.0.1')
    let cutAtAnswer = false
    for (const socket of [client, onward]) {
      sockets.add(socket)
      socket
        .on('error', () => undefined)
        .on('close', () => {
          sockets.delete(socket)
          client.destroy()
          onward.destroy()
        })
    }
    client.on('data', (bytes) => {
      const key = /^idempotency-key: (\S+)/im.exec(bytes.toString('latin1'))?.[1]
      const first = key !== undefined && !seen.has(key)
      if (first) {
        seen.add(key)
        cuts += 1
        cutAtAnswer = seen.size % 2 === 0
      }
      onward.write(bytes, () => {
        if (first && !cutAtAnswer) client.destroy()
      })
    })
    onward.on('data', (bytes) => {
      if (cutAtAnswer) client.resetAndDestroy()
      else client.write(bytes)
    })
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  return {
    port: (server.address() as AddressInfo).port,
    cuts: () => cuts,
    close: () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

test(
  '5,000 payments, some sent twice at once, some cut off, with 20 kills of the shop, are 5,000 charges (G31)',
  { timeout: 230_000 },
  async () => {
    const [payments, kills, atOnce] = [5_000, 20, 96]
    const data = mkdtempSync(join(tmpdir(), 'hapax-heavy-'))
    const shop = await startShop({ DATA_DIR: data, BANK_DELAY_MS: '0', LEASE: '2500ms' })
    const cutter = await cuttingProxy(shop.port)
    const startMs = Date.now()
    try {
      const [straight, cut] = [clientAt(shop.port), clientAt(cutter.port)]
      const amountOf = (index: number): number => 100 + ((index * 7919 + seed) % 9_000)
      const charges = new Map<string, string>()
      let next = 0
      let done = 0
      let killed = 0
      const payOne = async (index: number): Promise<void> => {
        const order = `order-${index}`
        const client = index % 10 === 3 ? cut : straight
        const send = async (): Promise<string> => {
          const intent = await client.paymentIntents.create(
            { amount: amountOf(index), currency: 'eur', payment_method: 'pm_card_visa', confirm: true, metadata: { order } },
            { idempotencyKey: `${seed}-${index}` },
          )
          expect(intent.status).toBe('succeeded')
          return String(intent.latest_charge)
        }
        const answers = await Promise.all(index % 5 === 1 ? [send(), send()] : [send()])
        expect(new Set(answers).size).toBe(1)
        charges.set(order, answers[0] ?? '')
        done += 1
        if (killed < kills && done >= ((killed + 1) * payments) / (kills + 1)) {
          killed += 1
          // Every second one falls between the booking and the answer; the others fall where they fall.
          await fetch(`${shop.url}/demo/${killed % 2 === 0 ? 'kill' : 'kill-in-next-charge'}`, { method: 'POST' })
        }
      }
      const worker = async (): Promise<void> => {
        while (next < payments) await payOne((next += 1) - 1)
      }
      await Promise.all(Array.from({ length: atOnce }, worker))
      console.log(
        `seed ${seed}: ${payments} payments, ${killed} kills, ${cutter.cuts()} cuts in ${((Date.now() - startMs) / 1000).toFixed(1)} s`,
      )
      expect([done, killed, cutter.cuts()]).toEqual([payments, kills, payments / 10])

      let [intents, sum] = [0, 0]
      for await (const intent of straight.paymentIntents.list({ limit: 100 })) {
        intents += 1
        sum += intent.amount_received
      }
      const wanted = Array.from({ length: payments }, (_, index) => amountOf(index)).reduce((a, b) => a + b, 0)
      expect([intents, sum]).toEqual([payments, wanted])

      // The bank's own file: one charge an order, and the one that the client was told.
      expect(await shop.end('SIGTERM')).toEqual({ code: 0, filesLeft: [], processesLeft: [] })
      const entries = readFileSync(join(data, 'bank', 'ledger.jsonl'), 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as LedgerEntry)
      expect(entries.length).toBe(payments)
      expect(new Map(entries.map((entry) => [entry.reference, entry.id]))).toEqual(charges)
      expect(entries.reduce((total, entry) => total + entry.amount, 0)).toBe(wanted)
    } finally {
      cutter.close()
      await shop.end('SIGKILL').catch(() => undefined)
      rmSync(data, { recursive: true, force: true })
    }
  },
)
