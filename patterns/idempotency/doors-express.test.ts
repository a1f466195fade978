/**
 * What is Express's own: body parsers, mounted routers, files, error handlers, and handlers that break off. For versions 5 and 4.
 */
import type { IncomingMessage, RequestListener } from 'node:http'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import express5, { type Express, type NextFunction, type Request, type RequestHandler, type Response } from 'express'
import { describe, expect, onTestFinished, test } from 'vitest'
import { settle } from '../../core/testing/clock.ts'
import { begin, gate, gone, send, serve } from '../../test/http/client.ts'
import { express4, shop } from '../../test/http/doors.ts'
import { gzip } from '../../test/http/gzip.ts'
import { idempotent, onceOf, type DoorOptions } from './express.ts'
import type { Idempotency } from './types.ts'

const body = { amount: 100 }
const options: DoorOptions<Request> = { scope: () => 'tenant-1' }

describe.each([
  ['Express 5', express5],
  ['Express 4', express4],
])('%s', (_name, express) => {
  const app = (): Express => express().set('env', 'test')
  const listening = async (made: Express): Promise<string> => await serve(made as unknown as RequestListener)

  /** One route that counts its runs, with a parser before the door. */
  async function parsed(...before: RequestHandler[]): Promise<{ readonly url: string; runs(): number }> {
    let runs = 0
    const made = app()
    made.post('/payments', ...before, idempotent(shop().payments(), options), (_req, res) => void res.status(201).json({ run: ++runs }))
    made.use(
      (error: { code?: string }, _req: Request, res: Response, _next: NextFunction) => void res.status(500).json({ error: error.code }),
    )
    return { url: await listening(made), runs: () => runs }
  }

  const form = { 'content-type': 'application/x-www-form-urlencoded' }
  const plain = { 'content-type': 'text/plain; charset=utf-8' }
  const binary = { 'content-type': 'application/octet-stream' }
  test.each<[string, RequestHandler[], Record<string, string>, string | Uint8Array, string | Uint8Array, string | Uint8Array]>([
    ['json', [express.json()], {}, '{"a":1,"b":2}', '{"b":2, "a":1}', '{"a":2,"b":2}'],
    ['a json that is no object', [express.json({ strict: false })], {}, '7', ' 7', '8'],
    ['urlencoded', [express.urlencoded({ extended: false })], form, 'a=1&b=2', 'b=2&a=1', 'a=1&b=3'],
    ['urlencoded, extended', [express.urlencoded({ extended: true })], form, 'a[b]=1&c=2', 'c=2&a[b]=1', 'a[b]=2&c=2'],
    ['text', [express.text()], plain, 'hello', 'hello', 'hello '],
    ['raw', [express.raw()], binary, Buffer.from([0, 1, 255]), Buffer.from([0, 1, 255]), Buffer.from([0, 1, 254])],
    [
      'all parsers in a row',
      [express.json(), express.urlencoded({ extended: false }), express.text(), express.raw()],
      binary,
      'ab',
      'ab',
      'ac',
    ],
  ])('compares bodies parsed as %s (T9)', async (_what, parsers, headers, first, equal, other) => {
    const { url, runs } = await parsed(...parsers)
    expect((await send(url, { key: 'k', body: first, headers })).status).toBe(201)
    expect((await send(url, { key: 'k', body: equal, headers })).headers['idempotent-replayed']).toBe('true')
    expect((await send(url, { key: 'k', body: other, headers })).status).toBe(422)
    expect(runs()).toBe(1)
  })

  test('compares compressed and chunked bodies like others (T9)', async () => {
    const { url, runs } = await parsed(express.json())
    const zipped = { 'content-encoding': 'gzip' }
    expect((await send(url, { key: 'k', body: gzipSync('{"a":1}'), headers: zipped })).status).toBe(201)
    for (const headers of [{}, { 'transfer-encoding': 'chunked' }]) {
      expect((await send(url, { key: 'k', body: '{"a":1}', headers })).headers['idempotent-replayed']).toBe('true')
    }
    expect((await send(url, { key: 'k', body: '{"a":2}', headers: { 'transfer-encoding': 'chunked' } })).status).toBe(422)
    expect(runs()).toBe(1)
  })

  test('tells an empty body, no body and an empty object apart or alike as their types say (T9)', async () => {
    const { url, runs } = await parsed(express.json())
    expect((await send(url, { key: 'k' })).status).toBe(201)
    expect((await send(url, { key: 'k', body: '' })).headers['idempotent-replayed']).toBe('true')
    expect((await send(url, { key: 'k', body: {} })).status).toBe(422)
    expect(runs()).toBe(1)
  })

  /** What multer leaves, without multer: the body is read, and files are in memory or on disk. */
  const multipart =
    (leave: (req: Request) => object): RequestHandler =>
    (req, _res, next) => {
      req.resume().on('end', () => {
        Object.assign(req, leave(req))
        next()
      })
    }
  const file = (content: string, more: object = {}): object => ({
    fieldname: 'doc',
    originalname: 'a.txt',
    mimetype: 'text/plain',
    size: content.length,
    buffer: Buffer.from(content),
    ...more,
  })
  const headersOf = (boundary: string): Record<string, string> => ({ 'content-type': `multipart/form-data; boundary=${boundary}` })
  const ofRequest = (req: IncomingMessage): string => String(req.headers['x-file'])

  test.each<[string, (req: Request) => object]>([
    ['one file', (req) => ({ body: { a: '1' }, file: file(ofRequest(req)) })],
    ['a list of files', (req) => ({ body: {}, files: [file('same'), file(ofRequest(req))] })],
    ['files by field', (req) => ({ body: Object.create(null) as object, files: { path: [file(ofRequest(req))], other: [] } })],
    ['fields alone', (req) => ({ body: { a: ofRequest(req) }, files: [] })],
  ])('compares multipart bodies with %s, whatever their boundary (T9)', async (_what, leave) => {
    const { url, runs } = await parsed(multipart(leave))
    const ask = async (content: string, boundary: string) =>
      await send(url, { key: 'k', body: 'x', headers: { ...headersOf(boundary), 'x-file': content } })
    expect((await ask('one', 'b1')).status).toBe(201)
    expect((await ask('one', 'b2')).headers['idempotent-replayed']).toBe('true')
    expect((await ask('two', 'b1')).status).toBe(422)
    expect(runs()).toBe(1)
  })

  test.each<[string, object]>([
    ['multer on disk', { file: file('', { buffer: undefined, path: '/tmp/x' }) }],
    ['formidable', { files: { doc: { filepath: '/tmp/x', size: 3, mimetype: 'text/plain' } } }],
    ['express-fileupload', { files: { doc: { name: 'a', data: Buffer.from('a'), size: 1 } } }],
  ])('refuses uploads whose bytes are not known: %s (T9)', async (_what, left) => {
    const { url, runs } = await parsed(multipart(() => ({ body: {}, ...left })))
    expect((await send(url, { key: 'k', body: 'x', headers: headersOf('b') })).json()).toEqual({ error: 'BODY_UNPARSED' })
    expect(runs()).toBe(0)
  })

  test('knows routes of mounted routers by their whole path (T8)', async () => {
    let runs = 0
    const payments = shop().payments()
    const router = express.Router()
    router.post('/payments', idempotent(payments, options), (req, res) => void res.status(201).json({ run: ++runs, url: req.url }))
    const made = app().use(express.json()).use('/a', router).use('/b/:id', router)
    const url = await listening(made)
    const ask = async (path: string) => await send(url, { key: 'k', body, path })
    expect((await ask('/a/payments?x=1')).json()).toEqual({ run: 1, url: '/payments?x=1' })
    expect((await ask('/b/1/payments')).json()).toMatchObject({ run: 2 })
    expect((await ask('/b/2/payments')).json()).toMatchObject({ run: 3 })
    expect((await ask('/a/payments?x=1')).json()).toMatchObject({ run: 1 })
    expect((await ask('/a/payments?x=2')).status).toBe(422)
  })

  test('keeps files, redirects and empty answers (sendFile, download, redirect, sendStatus, jsonp)', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hapax-door-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    writeFileSync(join(folder, 'a.txt'), 'hello')
    let runs = 0
    const answers: Record<string, (res: Response) => void> = {
      '/sendFile': (res) => res.sendFile('a.txt', { root: folder }),
      '/download': (res) => res.download(join(folder, 'a.txt'), 'b.txt'),
      '/redirect': (res) => res.redirect(303, '/elsewhere'),
      '/sendStatus': (res) => void res.sendStatus(202),
      '/none': (res) => void res.status(204).end(),
      '/jsonp': (res) => void res.jsonp({ a: 1 }),
    }
    const made = app().use(express.json())
    made.use(idempotent(shop().payments(), options), (req, res) => {
      runs++
      answers[req.path]?.(res)
    })
    const url = await listening(made)
    for (const path of Object.keys(answers)) {
      const first = await send(url, { key: 'k', body, path })
      const again = await send(url, { key: 'k', body, path })
      expect(again.headers['idempotent-replayed'], path).toBe('true')
      for (const name of ['content-type', 'content-length', 'content-disposition', 'location', 'etag', 'last-modified', 'vary']) {
        expect(again.headers[name], `${path} ${name}`).toEqual(first.headers[name])
      }
      expect([again.status, again.text]).toEqual([first.status, first.text])
      expect(first.status, path).toBeLessThan(400)
    }
    expect(runs).toBe(Object.keys(answers).length)
  })

  test('stores what Express itself says: no such route, and an error that nobody caught', async () => {
    const made = app().use(express.json())
    let runs = 0
    made.use(idempotent(shop().payments(), options))
    made.post('/throws', () => {
      runs++
      throw new Error('secret')
    })
    const url = await listening(made)
    for (const [path, status] of [
      ['/none', 404],
      ['/throws', 500],
    ] as const) {
      const first = await send(url, { key: 'k', body, path })
      const again = await send(url, { key: 'k', body, path })
      expect([first.status, again.status]).toEqual([status, status])
      expect(again.text).toBe(first.text)
    }
    expect(runs).toBe(1)
  })

  /** A route whose handler writes a piece and then fails. */
  async function breaking(made: (payments: Idempotency) => RequestHandler[]) {
    const { clock, payments } = shop()
    const engine = payments()
    const broken = app().use(express.json())
    broken.post('/payments', ...made(engine))
    const url = await listening(broken)
    await expect(send(url, { key: 'k', body })).rejects.toMatchObject({ code: 'ECONNRESET' })
    return { url, clock, engine }
  }

  test('an error after a piece was written closes the connection; the handler form knows that there will be no answer', async () => {
    const { engine } = await breaking((payments) => [
      idempotent(payments, options, async (_req, res, once) => {
        await once.step('charge', () => 1)
        res.write('{"a":')
        throw new Error('lost')
      }),
    ])
    const ref = { scope: 'tenant-1', key: 'k', operation: 'POST /payments' }
    let seen = await engine.inspect(ref)
    while (seen.state === 'claimed') {
      await settle(1)
      seen = await engine.inspect(ref)
    }
    expect(seen.state).toBe('unknown')
  })

  test('an error after a piece was written keeps the claim in the middleware form, until its lease ends', async () => {
    const { url, clock } = await breaking((payments) => [
      idempotent(payments, options),
      (req, res, next) => {
        expect(onceOf(req).owned).toBe(true)
        res.write('{"a":')
        next(new Error('lost'))
      },
    ])
    expect((await send(url, { key: 'k', body })).status).toBe(409)
    await clock.advance('6m')
    expect((await send(url, { key: 'k', body })).json()).toMatchObject({ type: 'urn:hapax:idempotency:outcome-unknown' })
  })

  test('a handler of the handler form that ends without an answer after its client has left has failed', async () => {
    const entered = gate<Request>()
    const may = gate()
    const engine = shop().payments()
    const made = app().use(express.json())
    made.post(
      '/payments',
      idempotent(engine, options, async (req) => {
        entered.open(req)
        await may.promise
      }),
    )
    const url = await listening(made)
    const first = begin(url, { key: 'k', body })
    const req = await entered.promise
    first.leave()
    await gone(req)
    may.open()
    const ref = { scope: 'tenant-1', key: 'k', operation: 'POST /payments' }
    let seen = await engine.inspect(ref)
    while (seen.state === 'claimed') {
      await settle(1)
      seen = await engine.inspect(ref)
    }
    expect(seen.state).toBe('unknown')
  })

  test.each([
    ['inside', true],
    ['outside', false],
  ])('compresses %s of the door: replays are right for clients with and without gzip (T26)', async (_where, isInside) => {
    const payments = shop().payments()
    const door = idempotent(payments, options)
    const made = app().use(express.json())
    made.post('/payments', ...(isInside ? [door, gzip] : [gzip, door]), (_req, res) => void res.status(201).json({ text: 'hello' }))
    const url = await listening(made)
    for (const [name, ask] of [
      ['first', { 'accept-encoding': 'gzip' }],
      ['again', { 'accept-encoding': 'br, gzip' }],
      ['plain', { 'accept-encoding': 'identity' }],
      ['none', {}],
    ] as const) {
      const answer = await send(url, { key: 'k', body, headers: ask })
      const isZipped = name === 'first' || name === 'again'
      expect(answer.status).toBe(201)
      expect(answer.headers['content-encoding'], name).toBe(isZipped ? 'gzip' : undefined)
      expect(answer.headers.vary?.toLowerCase(), name).toBe('accept-encoding')
      expect((isZipped ? gunzipSync(answer.body) : answer.body).toString()).toBe('{"text":"hello"}')
      if (answer.headers['content-length']) expect(answer.headers['content-length']).toBe(String(answer.body.length))
      expect(answer.headers['idempotent-replayed']).toBe(name === 'first' ? undefined : 'true')
    }
  })

  test('says refusals as the client accepts them, or as a renderer of its own says (G23)', async () => {
    const payments = shop().payments()
    const made = app().use(express.json())
    made.post('/plain', idempotent(payments, { ...options, required: true }))
    made.post(
      '/own',
      idempotent(payments, {
        ...options,
        required: true,
        problem: ({ kind, status }, req) => ({ status: status + 1, body: { error: { kind, for: req.path } }, headers: { 'X-Own': 'yes' } }),
      }),
    )
    const url = await listening(made)
    const text = await send(url, { path: '/plain', body, headers: { accept: 'text/plain' } })
    expect(text.headers['content-type']).toBe('text/plain; charset=utf-8')
    expect(text.text).toContain('Idempotency-Key is missing')
    const own = await send(url, { path: '/own', body })
    expect(own.status).toBe(401)
    expect(own.headers).toMatchObject({ 'x-own': 'yes', 'content-type': 'application/json; charset=utf-8' })
    expect(own.json()).toEqual({ error: { kind: 'key-missing', for: '/own' } })
  })

  test('refuses wrong options when it is built, and onceOf without a door', async () => {
    const payments = shop().payments()
    expect(() => idempotent(payments, {} as never)).toThrow(expect.objectContaining({ code: 'SCOPE_MISSING' }) as Error)
    expect(() => idempotent(payments, undefined as never)).toThrow(expect.objectContaining({ code: 'SCOPE_MISSING' }) as Error)
    for (const name of ['Set-Cookie', 'authorization', 'Date', 'Content-Length', 'Transfer-Encoding']) {
      expect(() => idempotent(payments, { ...options, headers: [name] })).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT' }) as Error,
      )
    }
    expect(() => onceOf({} as Request)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }) as Error)
  })
})
