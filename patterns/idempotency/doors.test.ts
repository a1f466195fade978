/**
 * The doors of Express 5, Express 4 and Koa over real sockets: what a client gets, by the traps T8 to T26.
 * Each case runs for every framework and both forms of the Express door.
 */
import { describe, expect, test } from 'vitest'
import { KvError } from '../../core/kv/errors.ts'
import { settle } from '../../core/testing/clock.ts'
import { faulty } from '../../core/testing/faulty.ts'
import { begin, gate, gone, send, serve } from '../../test/http/client.ts'
import { frameworks, shop, type Handler } from '../../test/http/doors.ts'

const body = { amount: 100 }

describe.each(frameworks)('$name', ({ make }) => {
  /** A handler that counts, and the answer says which run it was. */
  function counted(more: (run: number) => Record<string, string> = () => ({})): { readonly handler: Handler; runs(): number } {
    let runs = 0
    return { handler: ({ answer }) => answer(201, { run: ++runs }, more(runs)), runs: () => runs }
  }

  test('runs a handler once for a key and replays its answer byte for byte', async () => {
    const { handler, runs } = counted(() => ({ Location: '/payments/1' }))
    const url = await serve(make({ payments: shop().payments(), handler }))
    const first = await send(url, { key: 'k', body })
    const again = await send(url, { key: 'k', body })
    expect(first.status).toBe(201)
    expect(first.headers['idempotent-replayed']).toBeUndefined()
    expect(first.json()).toEqual({ run: 1 })
    expect(again.status).toBe(201)
    expect(again.body).toEqual(first.body)
    expect(again.headers).toMatchObject({
      'idempotent-replayed': 'true',
      location: '/payments/1',
      'content-type': first.headers['content-type'],
      'content-length': String(first.body.length),
    })
    expect(runs()).toBe(1)
  })

  test('takes scope, method, path and key together for the identity (T8, T16)', async () => {
    const { handler, runs } = counted()
    const url = await serve(make({ payments: shop().payments(), handler }))
    const asks = [{}, { key: 'k2' }, { path: '/refunds' }, { method: 'PATCH' }, { headers: { 'x-tenant': 'tenant-2' } }]
    for (const ask of asks) expect((await send(url, { key: 'k', body, ...ask })).headers['idempotent-replayed']).toBeUndefined()
    expect(runs()).toBe(asks.length)
    for (const [index, ask] of asks.entries()) expect((await send(url, { key: 'k', body, ...ask })).json()).toEqual({ run: index + 1 })
    expect(runs()).toBe(asks.length)
  })

  test('counts a given operation instead of method and path', async () => {
    const { handler, runs } = counted()
    const url = await serve(make({ payments: shop().payments(), handler, options: { operation: () => 'pay' } }))
    await send(url, { key: 'k', body })
    expect((await send(url, { key: 'k', body, path: '/pay' })).headers['idempotent-replayed']).toBe('true')
    expect(runs()).toBe(1)
  })

  test('tells another path under one given name: 422, never the answer of another place (T8)', async () => {
    const { handler, runs } = counted()
    const url = await serve(make({ payments: shop().payments(), handler, options: { operation: 'capture' } }))
    await send(url, { key: 'k', body })
    expect((await send(url, { key: 'k', body, path: '/refunds' })).status).toBe(422)
    expect((await send(url, { key: 'k', body })).headers['idempotent-replayed']).toBe('true')
    expect(runs()).toBe(1)
  })

  test('compares the body as it was before the handler changed it (T9)', async () => {
    let runs = 0
    const handler: Handler = ({ body: given, answer }) => {
      Object.assign(given as object, { amount: 0, extra: true })
      answer(201, { run: ++runs })
    }
    const url = await serve(make({ payments: shop().payments(), handler }))
    await send(url, { key: 'k', body })
    expect((await send(url, { key: 'k', body })).json()).toEqual({ run: 1 })
    expect((await send(url, { key: 'k', body: { amount: 0, extra: true } })).status).toBe(422)
  })

  test('tells another body or query under the same key: 422, also while the first one runs (T7, T9)', async () => {
    const entered = gate()
    const may = gate()
    const handler: Handler = async ({ answer }) => {
      entered.open()
      await may.promise
      answer(201, {})
    }
    const url = await serve(make({ payments: shop().payments(), handler }))
    const first = begin(url, { key: 'k', body, path: '/payments?a=1' })
    await entered.promise
    const others = [{ body: { amount: 101 } }, { path: '/payments?a=2' }, { path: '/payments' }]
    const tryAll = async (): Promise<void> => {
      for (const other of others) {
        const refused = await send(url, { key: 'k', body, path: '/payments?a=1', ...other })
        expect(refused.status).toBe(422)
        expect(refused.json()).toMatchObject({ type: 'urn:hapax:idempotency:mismatch', status: 422 })
      }
    }
    await tryAll()
    may.open()
    await first.answer
    await tryAll()
  })

  test('takes equal bodies with members in another order for one request (T9)', async () => {
    const { handler, runs } = counted()
    const url = await serve(make({ payments: shop().payments(), handler }))
    await send(url, { key: 'k', body: '{"a":1,"b":[2,{"c":3,"d":4}]}' })
    const again = await send(url, { key: 'k', body: '{ "b": [2, {"d": 4, "c": 3.0}], "a": 1 }' })
    expect(again.headers['idempotent-replayed']).toBe('true')
    expect(runs()).toBe(1)
  })

  test('answers 409 with Retry-After from the lease while the first one runs (T18)', async () => {
    const entered = gate()
    const may = gate()
    const handler: Handler = async ({ answer }) => {
      entered.open()
      await may.promise
      answer(201, {})
    }
    const { clock, payments } = shop()
    const url = await serve(make({ payments: payments({ lease: '20s' }), handler }))
    const first = begin(url, { key: 'k', body })
    await entered.promise
    await clock.advance('5s')
    const refused = await send(url, { key: 'k', body })
    expect(refused.status).toBe(409)
    expect(refused.json()).toMatchObject({ type: 'urn:hapax:idempotency:in-flight' })
    expect(refused.headers['retry-after']).toBe(String(Math.ceil(15 * 1.125))) // 15 s are left, and an eighth is jitter
    may.open()
    expect((await first.answer).status).toBe(201)
  })

  test('waits for the first answer where told to', async () => {
    const entered = gate()
    const may = gate()
    const handler: Handler = async ({ answer }) => {
      entered.open()
      await may.promise
      answer(201, { run: 1 })
    }
    const { store, payments } = shop()
    const url = await serve(make({ payments: payments({ wait: '10s' }), handler }))
    const first = begin(url, { key: 'k', body })
    await entered.promise
    const second = begin(url, { key: 'k', body })
    while (store.counts().create < 2) await settle(1) // it has asked, and waits
    may.open()
    expect((await second.answer).body).toEqual((await first.answer).body)
  })

  test('keeps an answer too large for the record as unstored and never runs again; the client gets all of it (T11)', async () => {
    const text = 'x'.repeat(5_000)
    let runs = 0
    const handler: Handler = ({ answer }) => answer(201, `${++runs}${text}`, { Location: '/files/1' })
    const url = await serve(make({ payments: shop().payments({ recordBytesMax: 2_048 }), handler }))
    const first = await send(url, { key: 'k', body })
    expect(first.text).toBe(`1${text}`)
    const again = await send(url, { key: 'k', body })
    expect(again.status).toBe(409)
    expect(again.json()).toMatchObject({ type: 'urn:hapax:idempotency:unstored' })
    expect(again.headers.location).toBe('/files/1')
    expect(runs).toBe(1)
  })

  test('keeps an answer of many writes as unstored before its first byte leaves (T11, T12)', async () => {
    const chunk = Buffer.alloc(1_000, 'x')
    const store = shop()
    const handler: Handler = async ({ res, once }) => {
      res.statusCode = 200 // Koa begins with 404
      for (let count = 0; count < 20; count++) if (!res.write(chunk)) await new Promise((resolve) => res.once('drain', resolve))
      expect(once.owned).toBe(true)
      await new Promise<void>((resolve) => res.end('end', resolve))
    }
    const url = await serve(make({ payments: store.payments({ recordBytesMax: 2_048 }), handler }))
    const first = await send(url, { key: 'k', body })
    expect(first.status).toBe(200)
    expect(first.body.length).toBe(20_003)
    expect((await send(url, { key: 'k', body })).json()).toMatchObject({ type: 'urn:hapax:idempotency:unstored' })
  })

  test('lets an event stream flow from its first write, unstored (T12)', async () => {
    const may = gate()
    const handler: Handler = async ({ res }) => {
      res.setHeader('Content-Type', 'text/event-stream; charset=utf-8')
      res.write('data: 1\n\n')
      await may.promise
      res.write('data: 2\n\n')
      await new Promise<void>((resolve) => res.end(resolve))
    }
    const { payments } = shop()
    const url = await serve(make({ payments: payments(), handler }))
    const first = begin(url, { key: 'k', body })
    // Its record says unstored before the stream has ended.
    let again = await send(url, { key: 'k', body })
    while (again.json().type === 'urn:hapax:idempotency:in-flight') again = await send(url, { key: 'k', body })
    expect(again.json()).toMatchObject({ type: 'urn:hapax:idempotency:unstored' })
    may.open()
    expect((await first.answer).headers).not.toHaveProperty('content-length')
    expect((await first.answer).text).toBe('data: 1\n\ndata: 2\n\n')
  })

  test('keeps a 500 under stripe, and gives the key back under draft (T13)', async () => {
    for (const [final, runsAfter] of [
      ['stripe', 1],
      ['draft', 2],
    ] as const) {
      let runs = 0
      const handler: Handler = ({ answer }) => answer(500, { run: ++runs })
      const url = await serve(make({ payments: shop().payments({ final }), handler }))
      await send(url, { key: 'k', body })
      await send(url, { key: 'k', body })
      expect(runs).toBe(runsAfter)
    }
  })

  test('stores what an error handler makes of a thrown error, and judges it by its status (T13)', async () => {
    let runs = 0
    const handler: Handler = async () => {
      await settle(1)
      throw Object.assign(new Error('no money'), { status: ++runs === 1 ? 402 : 500 })
    }
    const url = await serve(make({ payments: shop().payments({ final: 'draft' }), handler }))
    const first = await send(url, { key: 'k', body })
    const again = await send(url, { key: 'k', body })
    expect([first.status, again.status]).toEqual([402, 402])
    expect(again.text).toBe(JSON.stringify({ error: 'no money' }))
    expect(again.headers['idempotent-replayed']).toBe('true')
    expect(runs).toBe(1)
  })

  test('gives the key back after release(), whatever is answered (T13)', async () => {
    let runs = 0
    const handler: Handler = ({ once, answer }) => {
      if (++runs === 1) once.release()
      answer(runs === 1 ? 422 : 201, { run: runs })
    }
    const url = await serve(make({ payments: shop().payments(), handler }))
    expect((await send(url, { key: 'k', body })).status).toBe(422)
    expect((await send(url, { key: 'k', body })).status).toBe(201)
    expect((await send(url, { key: 'k', body })).json()).toEqual({ run: 2 })
  })

  test('uses up no key on a request that was refused before the door (T14)', async () => {
    const { handler, runs } = counted()
    const { store, payments } = shop()
    const before = (req: { headers: Record<string, unknown> }): void => {
      if (req.headers.authorization === undefined) throw Object.assign(new Error('who are you?'), { status: 401 })
    }
    const url = await serve(make({ payments: payments(), handler, before }))
    expect((await send(url, { key: 'k', body })).status).toBe(401)
    expect(store.counts().total).toBe(0)
    expect((await send(url, { key: 'k', body, headers: { authorization: 'me' } })).status).toBe(201)
    expect(runs()).toBe(1)
  })

  test('replays the headers of the list, a new Date, and no cookie or credential (T15)', async () => {
    const { handler } = counted(() => ({
      'Set-Cookie': 'session=1',
      'WWW-Authenticate': 'Basic',
      Date: 'Thu, 01 Jan 1970 00:00:00 GMT',
      ETag: '"v1"',
      Link: '</a>; rel=next',
      'Cache-Control': 'no-store',
      'X-Trace': 'abc',
      'X-Kept': 'yes',
    }))
    const url = await serve(make({ payments: shop().payments(), handler, options: { headers: ['X-Kept'] } }))
    const first = await send(url, { key: 'k', body })
    expect(first.headers['set-cookie']).toEqual(['session=1'])
    const { headers } = await send(url, { key: 'k', body })
    expect(headers).toMatchObject({ etag: '"v1"', link: '</a>; rel=next', 'cache-control': 'no-store', 'x-kept': 'yes' })
    for (const name of ['set-cookie', 'www-authenticate', 'x-trace']) expect(headers).not.toHaveProperty(name)
    expect(headers.date).not.toBe('Thu, 01 Jan 1970 00:00:00 GMT')
  })

  test('answers 503 within the deadline while the store is away, and does not run the handler (T19)', async () => {
    const { handler, runs } = counted()
    let isAway = true
    const asked = gate()
    const { clock, payments } = shop((kv, time) => faulty(kv, { clock: time, on: () => (isAway ? (asked.open(), 'stop-before') : 'pass') }))
    const url = await serve(make({ payments: payments({ storeDeadline: '2s' }), handler }))
    const { answer: refused } = begin(url, { key: 'k', body })
    await asked.promise
    await clock.advance('2s')
    const { status, headers, json } = await refused
    expect(status).toBe(503)
    expect(json()).toMatchObject({ type: 'urn:hapax:idempotency:store-unavailable' })
    expect(headers).toHaveProperty('retry-after')
    expect(runs()).toBe(0)
    isAway = false
    expect((await send(url, { key: 'k2', body })).status).toBe(201)
  })

  test("runs unprotected while the store is away where 'allow' says so, and marks the answer (T19)", async () => {
    const { handler, runs } = counted()
    const { payments } = shop((kv) => faulty(kv, { on: () => new KvError('CLOSED') }))
    const url = await serve(make({ payments: payments({ onStoreError: 'allow' }), handler }))
    const first = await send(url, { key: 'k', body })
    expect(first.status).toBe(201)
    expect(first.headers['idempotency-status']).toBe('unsaved')
    await send(url, { key: 'k', body })
    expect(runs()).toBe(2)
  })

  test('lets other methods pass, and protects PUT and DELETE where told to (T21)', async () => {
    const { handler, runs } = counted()
    const { store, payments } = shop()
    const url = await serve(make({ payments: payments(), handler }))
    for (const method of ['GET', 'PUT', 'DELETE', 'GET']) await send(url, { method, key: 'k' })
    expect(runs()).toBe(4)
    expect(store.counts().total).toBe(0)

    const strict = counted()
    const other = await serve(make({ payments: payments(), handler: strict.handler, options: { methods: ['put', 'DELETE'] } }))
    for (const method of ['PUT', 'PUT', 'DELETE', 'DELETE', 'POST', 'POST']) await send(other, { method, key: 'k' })
    expect(strict.runs()).toBe(4)
  })

  test.each([
    ['two lines', ['a', 'b']],
    ['two equal lines', ['a', 'a']],
    ['a comma', 'a,b'],
    ['an empty key', ''],
    ['an empty quoted key', '""'],
    ['256 characters', 'k'.repeat(256)],
    ['an open quote', '"abc'],
    ['a tab', 'a\tb'],
    ['bytes beyond ASCII', 'cl\u00e9'],
  ])('refuses %s with 400 before any store call (T22)', async (_what, key) => {
    const { handler, runs } = counted()
    const { store, payments } = shop()
    const url = await serve(make({ payments: payments(), handler }))
    const refused = await send(url, { key, body })
    expect(refused.status).toBe(400)
    expect(refused.headers['content-type']).toBe('application/problem+json')
    expect(refused.json()).toMatchObject({ type: 'urn:hapax:idempotency:key-invalid', status: 400 })
    expect(store.counts().total).toBe(0)
    expect(runs()).toBe(0)
  })

  test('takes a quoted key and the bare one for the same, and only the quoted one where strict (T22)', async () => {
    const { handler, runs } = counted()
    const { payments } = shop()
    const url = await serve(make({ payments: payments(), handler }))
    await send(url, { key: '"k-1"', body })
    expect((await send(url, { key: 'k-1', body })).headers['idempotent-replayed']).toBe('true')
    expect(runs()).toBe(1)
    const strict = await serve(make({ payments: payments(), handler, options: { strict: true } }))
    expect((await send(strict, { key: 'k-1', body })).status).toBe(400)
    expect((await send(strict, { key: '"k-1"', body })).status).toBe(201)
  })

  test('runs without a key unprotected, or refuses it with 400 where required', async () => {
    const { handler, runs } = counted()
    const { store, payments } = shop()
    const url = await serve(make({ payments: payments(), handler }))
    await send(url, { body })
    await send(url, { body })
    expect(runs()).toBe(2)
    expect(store.counts().total).toBe(0)
    const required = await serve(make({ payments: payments(), handler, options: { required: true } }))
    const refused = await send(required, { body })
    expect(refused.status).toBe(400)
    expect(refused.json()).toMatchObject({ type: 'urn:hapax:idempotency:key-missing' })
    expect(runs()).toBe(2)
  })

  test('stores the answer of a handler whose client has left; the repetition gets it (T24)', async () => {
    const entered = gate<Parameters<Handler>[0]>()
    const may = gate()
    let runs = 0
    const handler: Handler = async (io) => {
      runs++
      entered.open(io)
      await may.promise
      io.answer(201, { run: runs })
    }
    const url = await serve(make({ payments: shop().payments(), handler }))
    const first = begin(url, { key: 'k', body })
    const io = await entered.promise
    first.leave()
    await gone(io.req)
    expect((await send(url, { key: 'k', body })).status).toBe(409)
    may.open()
    let again = await send(url, { key: 'k', body })
    while (again.status === 409) again = await send(url, { key: 'k', body })
    expect(again.status).toBe(201)
    expect(again.json()).toEqual({ run: 1 })
    expect(again.headers['idempotent-replayed']).toBe('true')
  })

  test('stores what is made of an error when the client has left (T24, T13)', async () => {
    const entered = gate<Parameters<Handler>[0]>()
    const may = gate()
    const handler: Handler = async (io) => {
      entered.open(io)
      await may.promise
      throw Object.assign(new Error('no money'), { status: 402 })
    }
    const url = await serve(make({ payments: shop().payments({ final: 'draft' }), handler }))
    const first = begin(url, { key: 'k', body })
    const io = await entered.promise
    first.leave()
    await gone(io.req)
    may.open()
    let again = await send(url, { key: 'k', body })
    while (again.json().type === 'urn:hapax:idempotency:in-flight') again = await send(url, { key: 'k', body })
    expect(again.status).toBe(402)
    expect(again.json()).toEqual({ error: 'no money' })
  })

  test('refuses a second door on one route at the first request (T25)', async () => {
    const { handler, runs } = counted()
    const url = await serve(make({ payments: shop().payments(), handler, twice: true }))
    const refused = await send(url, { key: 'k', body })
    expect(refused.status).toBe(500)
    expect(refused.json()).toEqual({ error: 'APPLIED_TWICE' })
    // The key is not used up: with the mistake mended, the client's repetition must run.
    expect((await send(url, { key: 'k', body })).headers['idempotent-replayed']).toBeUndefined()
    expect(runs()).toBe(0)
  })

  test('refuses a body that nobody parsed at the first request (T9)', async () => {
    const { handler, runs } = counted()
    const { store, payments } = shop()
    const url = await serve(make({ payments: payments(), handler, parse: false }))
    const refused = await send(url, { key: 'k', body })
    expect(refused.status).toBe(500)
    expect(refused.json()).toEqual({ error: 'BODY_UNPARSED' })
    const form = await serve(make({ payments: payments(), handler }))
    const other = await send(form, { key: 'k', body: 'a=1', headers: { 'content-type': 'application/x-www-form-urlencoded' } })
    expect(other.json()).toEqual({ error: 'BODY_UNPARSED' })
    const chunked = { 'transfer-encoding': 'chunked', 'content-type': 'text/plain' }
    expect((await send(form, { key: 'k', headers: chunked, body: 'a' })).json()).toEqual({ error: 'BODY_UNPARSED' })
    expect(runs()).toBe(0)
    expect(store.counts().total).toBe(0)
    expect((await send(url, { key: 'k' })).status).toBe(201) // no body at all
  })

  test('refuses an empty scope and a scope that is no string as a mistake in the program (T8)', async () => {
    for (const scope of ['', undefined, 7] as string[]) {
      const { handler, runs } = counted()
      const url = await serve(make({ payments: shop().payments(), handler, options: { scope: () => scope } }))
      expect((await send(url, { key: 'k', body })).json()).toEqual({ error: 'SCOPE_MISSING' })
      expect(runs()).toBe(0)
    }
  })

  test.each([
    ['the answer of the winner', false],
    ['409 while the winner still runs', true],
  ])('gives the client of an overtaken run %s (T2)', async (_what, isLoserFirst) => {
    const { clock, payments } = shop()
    const zombie = shop().clock // it never moves: the first process renews nothing any more
    const entered = gate()
    const may = gate()
    const late: Handler = async ({ answer }) => {
      entered.open()
      await may.promise
      answer(201, { by: 'the late one' }, { 'X-Late': 'yes' })
    }
    const winnerEntered = gate()
    const winnerMay = gate()
    const winner: Handler = async ({ once, answer }) => {
      winnerEntered.open()
      await winnerMay.promise
      answer(202, { by: 'the winner', fence: once.fence })
    }
    const first = await serve(make({ payments: payments({ timers: zombie, afterCrash: 'resume' }), handler: late }))
    const second = await serve(make({ payments: payments({ afterCrash: 'resume' }), handler: winner }))
    const loser = begin(first, { key: 'k', body })
    await entered.promise
    await clock.advance('30s')
    const won = begin(second, { key: 'k', body })
    await winnerEntered.promise
    if (isLoserFirst) {
      may.open()
      expect((await loser.answer).status).toBe(409)
      expect((await loser.answer).json()).toMatchObject({ type: 'urn:hapax:idempotency:in-flight' })
      expect((await loser.answer).headers).not.toHaveProperty('x-late')
    }
    winnerMay.open()
    expect((await won.answer).json()).toEqual({ by: 'the winner', fence: 2 })
    if (isLoserFirst) return
    may.open()
    const replaced = await loser.answer
    expect(replaced.status).toBe(202)
    expect(replaced.body).toEqual((await won.answer).body)
    expect(replaced.headers['idempotent-replayed']).toBe('true')
    expect(replaced.headers).not.toHaveProperty('x-late')
    expect(replaced.headers['content-length']).toBe(String(replaced.body.length))
  })
})
