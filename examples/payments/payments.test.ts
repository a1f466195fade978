/**
 * The tour without a browser, against the built example as real processes (G27, G28, G30, G31).
 */
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { openLedger, type LedgerEntry } from './ledger.ts'
import { build, ledgerOf, post, postUntilAnswered, root, startShop } from './testdata/started-shop.ts'

beforeAll(build, 120_000)

test('the tour: two equal payments are one charge, also when the shop is killed in the middle; then a clean end (G28, G30, G31)', async () => {
  const shop = await startShop({ BANK_DELAY_MS: '0', LEASE: '4s' })
  const { url } = shop
  let ended
  try {
    expect(shop.output().split('\n')).toContain(url)
    expect(shop.output()).toContain(`curl -i ${url}/payments`)

    const pay = { order: '1001', amount: 2990 }
    const [first, second] = await Promise.all([
      postUntilAnswered(`${url}/payments`, 'k1', pay),
      postUntilAnswered(`${url}/payments`, 'k1', pay),
    ])
    expect([first.status, second.status]).toEqual([201, 201])
    expect(first.text).toBe(second.text)
    expect([first, second].map((answer) => answer.headers.get('idempotent-replayed') ?? 'no').sort()).toEqual(['no', 'true'])
    expect(await ledgerOf(url, '1001')).toMatchObject({ charges: 1, sum: 2990, booked: 1, asked: 1 })

    const other = await post(`${url}/payments`, 'k1', { ...pay, amount: 3090 })
    expect(other?.status).toBe(422)
    expect(other?.headers.get('content-type')).toContain('application/problem+json')
    const otherKey = await post(`${url}/payments`, 'k2', pay)
    expect([otherKey?.status, JSON.parse(otherKey?.text ?? '{}').type]).toEqual([409, 'urn:problem:shop:order-taken'])

    const order = JSON.parse((await post(`${url}/orders`, 'o1', { amount: 500 }))?.text ?? '{}') as { id: string }
    await fetch(`${url}/demo/kill-in-next-charge`, { method: 'POST' })
    const killed = { order: order.id, amount: 500 }
    expect(await post(`${url}/payments`, 'k3', killed)).toBeUndefined()
    const resumed = await postUntilAnswered(`${url}/payments`, 'k3', killed)
    expect([resumed.status, JSON.parse(resumed.text).attempt > 1]).toEqual([201, true])
    expect(await ledgerOf(url, order.id)).toMatchObject({ charges: 2, sum: 3490, booked: 1, asked: 2 })
    expect((await postUntilAnswered(`${url}/payments`, 'k3', killed)).text).toBe(resumed.text)
  } finally {
    ended = await shop.end('SIGTERM')
  }
  expect(ended).toEqual({ code: 0, filesLeft: [], processesLeft: [] })
})

test('SIGINT ends it with code 0 as well, and DATA_DIR keeps orders, answers and ledger for the next start (G30)', async () => {
  const data = mkdtempSync(join(tmpdir(), 'hapax-data-'))
  try {
    const before = await startShop({ DATA_DIR: data, BANK_DELAY_MS: '0' })
    const paid = await post(`${before.url}/payments`, 'kept', { order: '1001', amount: 2990 })
    expect(await before.end('SIGINT')).toEqual({ code: 0, filesLeft: [], processesLeft: [] })
    const after = await startShop({ DATA_DIR: data, BANK_DELAY_MS: '0' })
    try {
      const again = await post(`${after.url}/payments`, 'kept', { order: '1001', amount: 2990 })
      expect([again?.status, again?.text, again?.headers.get('idempotent-replayed')]).toEqual([201, paid?.text, 'true'])
      expect(await ledgerOf(after.url, '1001')).toMatchObject({ booked: 1, asked: 0 })
    } finally {
      await after.end('SIGTERM')
    }
  } finally {
    rmSync(data, { recursive: true, force: true })
  }
})

test.runIf(process.platform === 'linux')(
  'a bank that dies after it has booked is asked again with the same key: one charge (G28)',
  async () => {
    const shop = await startShop({ BANK_DELAY_MS: '60000', LEASE: '10s' })
    const { url } = shop
    try {
      const paying = postUntilAnswered(`${url}/payments`, 'b', { order: '1001', amount: 2990 })
      while ((await ledgerOf(url, '1001')).booked === 0) await new Promise((wake) => setTimeout(wake, 20))
      shop.killBank()
      const paid = await paying
      expect(paid.status).toBe(201)
      expect(await ledgerOf(url, '1001')).toMatchObject({ charges: 1, booked: 1, asked: 1 })
    } finally {
      await shop.end('SIGTERM')
    }
  },
)

test.each(['SIGINT', 'SIGTERM'] as const)(
  '%s to the whole group ends it as cleanly: the children wait for the supervisor (G30)',
  async (signal) => {
    const shop = await startShop()
    shop.signalChildren(signal)
    expect(await ledgerOf(shop.url, '1001')).toMatchObject({ booked: 0 })
    expect(await shop.end(signal)).toEqual({ code: 0, filesLeft: [], processesLeft: [] })
  },
)

test('no child outlives a supervisor that is killed (G30)', async () => {
  const shop = await startShop()
  expect((await shop.end('SIGKILL')).processesLeft).toEqual([])
})

test('a port in use is said in a sentence, and nothing is left (G30)', async () => {
  const taken = createServer()
  await new Promise<void>((listening) => taken.listen(0, '127.0.0.1', listening))
  const { port } = taken.address() as { port: number }
  try {
    await expect(startShop({ PORT: String(port) })).rejects.toThrow(`ended with 1:\nport ${port} is in use; give another one with PORT=`)
    await expect(startShop({ PORT: 'x' })).rejects.toThrow("PORT must be a number from 0 to 65535, not 'x'")
  } finally {
    taken.close()
  }
})

test('refusals are problem answers and cost no key; a decline is final and leaves the order open (G27)', async () => {
  const shop = await startShop({ BANK_DELAY_MS: '0' })
  const { url } = shop
  const kindOf = (answer: { status: number; text: string } | undefined): unknown[] => [
    answer?.status,
    JSON.parse(answer?.text ?? '{}').type,
  ]
  try {
    expect((await fetch(`${url}/payments`, { method: 'POST' })).status).toBe(401)
    expect(kindOf(await post(`${url}/payments`, 'a', { order: '1001' }))).toEqual([400, 'urn:problem:shop:payment-invalid'])
    expect(kindOf(await post(`${url}/payments`, 'a', { order: 'none', amount: 1 }))).toEqual([404, 'urn:problem:shop:order-missing'])
    expect(kindOf(await post(`${url}/payments`, 'a', { order: '1001', amount: 1 }))).toEqual([409, 'urn:problem:shop:amount-differs'])
    const declined = { order: '1001', amount: 2990, card: 'pm_card_chargeDeclined' }
    expect(kindOf(await post(`${url}/payments`, 'a', declined))).toEqual([402, 'urn:problem:shop:declined'])
    expect((await post(`${url}/payments`, 'a', declined))?.headers.get('idempotent-replayed')).toBe('true')
    expect(kindOf(await post(`${url}/payments`, 'b', { order: '1001', amount: 2990 }))[0]).toBe(201)
    const order = await fetch(`${url}/orders/1001`, { headers: { authorization: 'Bearer ada' } })
    expect(await order.json()).toMatchObject({ state: 'paid', paidBy: 'b' })
    expect((await fetch(`${url}/orders/1001`, { headers: { authorization: 'Bearer eve' } })).status).toBe(404)
    expect((await fetch(`${url}/demo/kill`, { method: 'POST', headers: { 'sec-fetch-site': 'cross-site' } })).status).toBe(403)
  } finally {
    await shop.end('SIGTERM')
  }
})

test('the ledger takes off a torn last line, keeps what stands before it, and refuses other damage (G28)', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'hapax-ledger-'))
  const path = join(dir, 'bank', 'ledger.jsonl')
  const entry = (key: string): LedgerEntry => ({ id: `ch_${key}`, type: 'charge', key, reference: 'o', amount: 5, currency: 'eur', at: 1 })
  try {
    const first = await openLedger(path)
    await Promise.all([first.add(entry('a')), first.add(entry('b'))])
    await first.close()
    appendFileSync(path, '{"id":"ch_c","amo')
    const second = await openLedger(path)
    expect(second.totals()).toEqual({ charges: 2, refunds: 0, sum: 10 })
    await second.add(entry('d'))
    await second.close()
    expect(
      readFileSync(path, 'utf8')
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as LedgerEntry).key),
    ).toEqual(['a', 'b', 'd'])
    appendFileSync(path, 'x\n{}\n')
    await expect(openLedger(path)).rejects.toThrow('ledger.jsonl:4 is damaged')
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})

test('shop.ts is at most 200 lines, because it is meant to be read (G27)', () => {
  expect(existsSync(join(root, 'examples/payments/shop.ts'))).toBe(true)
  expect(readFileSync(join(root, 'examples/payments/shop.ts'), 'utf8').trimEnd().split('\n').length).toBeLessThanOrEqual(200)
})
