/**
 * What is Koa's own: the context's answer in all its kinds, errors on their way out, middleware further out, answers past the context.
 */
import { once } from 'node:events'
import { connect, createServer, type IncomingHttpHeaders } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { createGzip, gunzipSync } from 'node:zlib'
import { Readable, Stream } from 'node:stream'
import type { RequestListener } from 'node:http'
import Router from '@koa/router'
import Koa, { type Context, type Middleware } from 'koa'
import { describe, expect, onTestFinished, test } from 'vitest'
import { settle } from '../../core/testing/clock.ts'
import { begin, gate, gone, send, serve, type Received } from '../../test/http/client.ts'
import { koaJson, shop } from '../../test/http/doors.ts'
import { idempotent, onceOf, type DoorOptions } from './koa.ts'
import type { Idempotency, IdempotencyOptions } from './types.ts'

const body = { amount: 100 }
const options: DoorOptions<Context> = { scope: () => 'tenant-1' }

interface Served {
  readonly url: string
  readonly payments: Idempotency
  readonly clock: ReturnType<typeof shop>['clock']
  runs(): number
}

async function served(
  handler: (ctx: Context) => unknown,
  { outer = [], inner = [], engine = {} }: { outer?: Middleware[]; inner?: Middleware[]; engine?: Partial<IdempotencyOptions> } = {},
): Promise<Served> {
  let runs = 0
  const { clock, payments: make } = shop()
  const payments = make(engine)
  const app = new Koa()
  app.silent = true
  for (const middleware of outer) app.use(middleware)
  app.use(async (ctx, next) => await koaJson(ctx as unknown as Context, next))
  app.use(idempotent(payments, options))
  for (const middleware of inner) app.use(middleware)
  app.use(async (ctx) => {
    runs++
    await handler(ctx as unknown as Context)
  })
  return { url: await serve(app.callback() as RequestListener), payments, clock, runs: () => runs }
}

const ask = async ({ url }: Served, headers = {}): Promise<Received> => await send(url, { key: 'k', body, headers })
/** Asks until the first run has ended. */
async function askWhenOver(server: Served): Promise<Received> {
  let again = await ask(server)
  while (again.status === 409 && again.text.includes('in-flight')) again = await ask(server)
  return again
}

describe('the answer of a context', () => {
  const large = Buffer.alloc(400_000, 'x')
  /** A stream of another make: no Readable, no iterator. */
  class OldStream extends Stream {
    override pipe<T extends NodeJS.WritableStream>(target: T): T {
      target.write('hel')
      target.end('lo')
      return target
    }
  }
  test.each<[string, (ctx: Context) => unknown, { status?: number; text?: string; type?: string }]>([
    ['text', (ctx) => (ctx.body = 'hello'), {}],
    ['html', (ctx) => (ctx.body = '<p>hello'), { text: '<p>hello', type: 'text/html; charset=utf-8' }],
    ['bytes', (ctx) => (ctx.body = Buffer.from('hello')), { type: 'application/octet-stream' }],
    ['an object', (ctx) => (ctx.body = { a: 1 }), { text: '{"a":1}', type: 'application/json; charset=utf-8' }],
    ['a list', (ctx) => (ctx.body = [1]), { text: '[1]', type: 'application/json; charset=utf-8' }],
    ['a number', (ctx) => (ctx.body = 7), { text: '7', type: 'application/json; charset=utf-8' }],
    ['a stream', (ctx) => (ctx.body = Readable.from(['hel', 'lo'])), { type: 'application/octet-stream' }],
    [
      'a stream with a type',
      (ctx) => ((ctx.type = 'text/csv'), (ctx.body = Readable.from([Buffer.from('hello')]))),
      { type: 'text/csv; charset=utf-8' },
    ],
    ['a stream of another make', (ctx) => (ctx.body = new OldStream()), { type: 'application/octet-stream' }],
    ['an empty stream', (ctx) => (ctx.body = Readable.from([])), { text: '', type: 'application/octet-stream' }],
    ['a Blob', (ctx) => (ctx.body = new Blob(['hello'], { type: 'text/plain' })), { type: 'text/plain; charset=utf-8' }],
    ['a ReadableStream', (ctx) => (ctx.body = new Blob(['hello']).stream()), { type: 'application/octet-stream' }],
    [
      'a Response',
      (ctx) => (ctx.body = new Response('hello', { status: 202, headers: { 'content-type': 'a/b' } })),
      { status: 202, type: 'a/b' },
    ],
    [
      'a Response without a body',
      (ctx) => (ctx.body = new Response(null, { status: 202 })),
      { status: 202, text: '', type: 'application/octet-stream' },
    ],
    ['null', (ctx) => (ctx.body = null), { status: 204, text: '' }],
    ['null with a status', (ctx) => ((ctx.status = 202), (ctx.body = null)), { status: 204, text: '' }],
    ['a status alone', (ctx) => (ctx.status = 202), { status: 202, text: 'Accepted' }],
    ['a status without a body', (ctx) => (ctx.status = 204), { status: 204, text: '' }],
    ['nothing: nobody answered', () => undefined, { status: 404, text: 'Not Found' }],
    [
      'a redirect',
      (ctx) => ctx.redirect('/elsewhere'),
      { status: 302, text: 'Redirecting to /elsewhere.', type: 'text/html; charset=utf-8' },
    ],
    ['an attachment', (ctx) => (ctx.attachment('a.csv'), (ctx.body = 'hello')), { type: 'text/csv; charset=utf-8' }],
    ['ctx.throw(402)', (ctx) => ctx.throw(402, 'no money'), { status: 402, text: 'no money' }],
    ['ctx.throw(500)', (ctx) => ctx.throw(500, 'secret'), { status: 500, text: 'Internal Server Error' }],
    ['an error of no HTTP', () => Promise.reject(new Error('secret')), { status: 500, text: 'Internal Server Error' }],
    ['a body that is not JSON', (ctx) => (ctx.body = { a: 1n }), { status: 500, text: 'Internal Server Error' }],
    [
      'an answer past the context',
      (ctx) => ((ctx.respond = false), ctx.res.writeHead(201, { 'Content-Type': 'a/b' }).end('hello')),
      { status: 201, type: 'a/b' },
    ],
    [
      'an answer past the context, later',
      (ctx) => {
        ctx.respond = false
        setImmediate(() => ctx.res.writeHead(201, { 'Content-Type': 'a/b' }).end('hello'))
      },
      { status: 201, type: 'a/b' },
    ],
    [
      'an answer past the context that Koa is not told of',
      (ctx) => ctx.res.writeHead(201, { 'Content-Type': 'a/b' }).end('hello'),
      { status: 201, type: 'a/b' },
    ],
  ])('is stored and replayed: %s', async (_name, handler, { status = 200, text = 'hello', type = 'text/plain; charset=utf-8' }) => {
    const server = await served(handler)
    const first = await ask(server)
    const again = await askWhenOver(server)
    expect([first.status, first.text]).toEqual([status, text])
    expect([again.status, again.text]).toEqual([status, text])
    expect(first.headers['content-type']).toBe(status === 204 ? undefined : type)
    for (const name of ['content-type', 'content-disposition', 'location']) expect(again.headers[name], name).toBe(first.headers[name])
    expect(again.headers['idempotent-replayed']).toBe('true')
    expect(first.headers).not.toHaveProperty('idempotent-replayed')
    expect(server.runs()).toBe(1)
  })

  test.each<[string, (ctx: Context) => unknown]>([
    ['a stream', (ctx) => (ctx.body = Readable.from(Array.from({ length: 400 }, () => Buffer.alloc(1_000, 'x'))))],
    ['bytes', (ctx) => (ctx.body = large)],
    ['a Blob', (ctx) => (ctx.body = new Blob([large]))],
    ['a ReadableStream', (ctx) => (ctx.body = new Blob([large]).stream())],
    ['a Response', (ctx) => (ctx.body = new Response(large))],
  ])('is unstored and never run again when too large, and the client gets all of it: %s (T11, T12)', async (_name, handler) => {
    const server = await served(handler)
    expect((await ask(server)).body.equals(large)).toBe(true)
    expect((await ask(server)).json()).toMatchObject({ type: 'urn:hapax:idempotency:unstored' })
    expect(server.runs()).toBe(1)
  })

  test('flows as an event stream, unstored (T12)', async () => {
    const may = gate()
    const server = await served((ctx) => {
      ctx.type = 'text/event-stream'
      ctx.body = Readable.from(
        (async function* () {
          yield 'data: 1\n\n'
          await may.promise
          yield 'data: 2\n\n'
        })(),
      )
    })
    const first = begin(server.url, { key: 'k', body })
    expect((await askWhenOver(server)).json()).toMatchObject({ type: 'urn:hapax:idempotency:unstored' })
    may.open()
    expect((await first.answer).text).toBe('data: 1\n\ndata: 2\n\n')
  })

  test('is an error when its stream fails before it is whole, and that is stored', async () => {
    const server = await served((ctx) => {
      ctx.body = Readable.from(
        (async function* () {
          yield 'hel'
          await settle(1)
          throw Object.assign(new Error('the disk'), { status: 507, expose: true })
        })(),
      )
    })
    for (const answer of [await ask(server), await ask(server)]) expect([answer.status, answer.text]).toEqual([507, 'the disk'])
    expect(server.runs()).toBe(1)
  })

  test('breaks off when its stream fails after it was too large, and the process goes on', async () => {
    const server = await served((ctx) => {
      ctx.body = Readable.from(
        (async function* () {
          yield large
          await settle(1)
          throw new Error('the disk')
        })(),
      )
    })
    await expect(ask(server)).rejects.toMatchObject({ code: 'ECONNRESET' })
    expect((await ask(server)).json()).toMatchObject({ type: 'urn:hapax:idempotency:unstored' })
  })
})

describe('middleware further out', () => {
  test('renders errors, and what it says is stored by its status (T13)', async () => {
    let status = 500
    const outer: Middleware = async (ctx, next) => {
      try {
        await next()
      } catch (error) {
        await settle(2)
        ctx.status = status
        ctx.body = { error: (error as Error).message }
      }
    }
    const server = await served((ctx) => ctx.throw(status, 'no money'), { outer: [outer], engine: { final: 'draft' } })
    expect((await ask(server)).status).toBe(500)
    status = 402
    expect((await ask(server)).json()).toEqual({ error: 'no money' })
    expect((await ask(server)).json()).toEqual({ error: 'no money' })
    expect(server.runs()).toBe(2)
  })

  test('sets headers and changes bodies of first answers and of replays alike (T26)', async () => {
    const outer: Middleware = async (ctx, next) => {
      ctx.vary('Origin')
      await next()
      ctx.set('X-Outer', 'yes')
      ctx.vary('Accept-Encoding')
      if (ctx.acceptsEncodings('gzip', 'identity') !== 'gzip' || ctx.response.get('content-encoding')) return
      const text = Buffer.isBuffer(ctx.body) ? ctx.body : Buffer.from(JSON.stringify(ctx.body))
      ctx.body = Readable.from([text]).pipe(createGzip())
      ctx.set('Content-Encoding', 'gzip')
      ctx.remove('Content-Length')
    }
    const server = await served((ctx) => (ctx.vary('Accept'), (ctx.body = { text: 'hello' })), { outer: [outer] })
    for (const encoding of ['gzip', 'identity', 'gzip']) {
      const answer = await ask(server, { 'accept-encoding': encoding })
      const isZipped = encoding === 'gzip'
      expect((isZipped ? gunzipSync(answer.body) : answer.body).toString()).toBe('{"text":"hello"}')
      expect(answer.headers['content-encoding']).toBe(isZipped ? 'gzip' : undefined)
      expect(answer.headers).toMatchObject({
        vary: 'Origin, Accept, Accept-Encoding',
        'x-outer': 'yes',
        'content-type': 'application/json; charset=utf-8',
      })
    }
    expect(server.runs()).toBe(1)
  })

  test('further in, it compresses what is stored; clients without gzip get plain bytes (T26)', async () => {
    const inner: Middleware = async (ctx, next) => {
      await next()
      ctx.vary('Accept-Encoding')
      if (ctx.acceptsEncodings('gzip', 'identity') !== 'gzip') return
      ctx.body = Readable.from([JSON.stringify(ctx.body)]).pipe(createGzip())
      ctx.set('Content-Encoding', 'gzip')
    }
    const server = await served((ctx) => (ctx.body = { text: 'hello' }), { inner: [inner] })
    for (const [encoding, isZipped] of [
      ['gzip', true],
      ['identity', false],
      ['gzip', true],
    ] as const) {
      const answer = await ask(server, { 'accept-encoding': encoding })
      expect((isZipped ? gunzipSync(answer.body) : answer.body).toString()).toBe('{"text":"hello"}')
      expect(answer.headers['content-encoding']).toBe(isZipped ? 'gzip' : undefined)
      expect(answer.headers['content-length']).toBe(String(answer.body.length))
      expect(answer.headers.vary).toBe('Accept-Encoding')
      expect(answer.headers['content-type']).toBe('application/json; charset=utf-8')
    }
  })

  test('keeps its headers when another answer leaves instead of the late one (T2)', async () => {
    const { clock, payments } = shop()
    const entered = gate()
    const may = gate()
    const make = async (engine: Idempotency, handler: Middleware): Promise<string> => {
      const app = new Koa()
      app.use(async (ctx, next) => {
        ctx.set('X-Outer', 'yes')
        await next()
      })
      app.use(async (ctx, next) => await koaJson(ctx as unknown as Context, next))
      app.use(idempotent(engine, options)).use(handler)
      return await serve(app.callback() as RequestListener)
    }
    const late = await make(payments({ timers: shop().clock, afterCrash: 'resume' }), async (ctx) => {
      entered.open()
      await may.promise
      ctx.set('X-Late', 'yes')
      ctx.body = Readable.from(['late'])
    })
    const winner = await make(payments({ afterCrash: 'resume' }), (ctx) => void (ctx.body = 'won'))
    const first = begin(late, { key: 'k', body })
    await entered.promise
    await clock.advance('30s')
    expect((await send(winner, { key: 'k', body })).text).toBe('won')
    may.open()
    const answer = await first.answer
    expect(answer.text).toBe('won')
    expect(answer.headers).toMatchObject({ 'x-outer': 'yes', 'idempotent-replayed': 'true' })
    expect(answer.headers).not.toHaveProperty('x-late')
  })
})

describe('a client that has left (T24)', () => {
  /** The client leaves while the handler waits. */
  async function left(handler: (ctx: Context) => unknown, outer: Middleware[] = []): Promise<Served> {
    const entered = gate<Context>()
    const may = gate()
    const server = await served(
      async (ctx) => {
        entered.open(ctx)
        await may.promise
        await handler(ctx)
      },
      { outer },
    )
    const first = begin(server.url, { key: 'k', body })
    const ctx = await entered.promise
    first.leave()
    await gone(ctx.req)
    may.open()
    return server
  }
  const rendering: Middleware = async (ctx, next) => {
    try {
      await next()
    } catch (error) {
      await settle(2)
      ctx.status = 402
      ctx.body = { error: (error as Error).message }
    }
  }
  test.each<[string, (ctx: Context) => unknown, Middleware[], number, string]>([
    ['an object', (ctx) => (ctx.body = { a: 1 }), [], 200, '{"a":1}'],
    ['a ReadableStream', (ctx) => (ctx.body = new Blob(['hello']).stream()), [], 200, 'hello'],
    ['ctx.throw', (ctx) => ctx.throw(402, 'no money'), [], 402, 'no money'],
    ['an error of no HTTP', () => Promise.reject(new Error('secret')), [], 500, 'Internal Server Error'],
    [
      'an error with an unknown status',
      () => Promise.reject(Object.assign(new Error('secret'), { status: 699 })),
      [],
      500,
      'Internal Server Error',
    ],
    ['an error that is rendered further out', (ctx) => ctx.throw(400, 'no money'), [rendering], 402, '{"error":"no money"}'],
    ['nothing', () => undefined, [], 404, 'Not Found'],
    ['an answer past the context', (ctx) => ((ctx.respond = false), ctx.res.writeHead(201).end('hello')), [], 201, 'hello'],
  ])('changes nothing: %s is stored', async (_name, handler, outer, status, text) => {
    const server = await left(handler, outer)
    const again = await askWhenOver(server)
    expect([again.status, again.text]).toEqual([status, text])
    expect(again.headers['idempotent-replayed']).toBe('true')
    expect(server.runs()).toBe(1)
  })

  test('ends a stream, because Koa destroys it: the answer is unstored and not run again', async () => {
    const server = await left((ctx) => {
      const stream = new Readable({ read: () => {} })
      stream.push('hel') // and its rest never comes
      ctx.status = 201
      ctx.set('Location', '/payments/1')
      ctx.body = stream
    })
    const again = await askWhenOver(server)
    expect(again.json()).toMatchObject({ type: 'urn:hapax:idempotency:unstored' })
    expect(again.headers.location).toBe('/payments/1')
    expect(server.runs()).toBe(1)
  })
})

test('knows routes of mounted routers by their whole path (T8)', async () => {
  const payments = shop().payments()
  let runs = 0
  const router = new Router({ prefix: '/a' })
  router.post('/:id/payments', idempotent(payments, options), async (ctx) => {
    ctx.status = 201
    ctx.body = await onceOf(ctx).step('charge', () => ({ run: ++runs }))
  })
  const app = new Koa().use(async (ctx, next) => await koaJson(ctx as unknown as Context, next)).use(router.routes())
  const url = await serve(app.callback() as RequestListener)
  expect((await send(url, { key: 'k', body, path: '/a/1/payments' })).json()).toEqual({ run: 1 })
  expect((await send(url, { key: 'k', body, path: '/a/2/payments' })).json()).toEqual({ run: 2 })
  expect((await send(url, { key: 'k', body, path: '/a/1/payments' })).json()).toEqual({ run: 1 })
})

test('holds and replays answers over HTTP/2, too', async () => {
  const app = new Koa()
  app.silent = true
  app.use(idempotent(shop().payments(), options))
  const answers: Record<string, (ctx: Context) => unknown> = {
    '/body': (ctx) => (ctx.body = 'hello'),
    '/stream': (ctx) => (ctx.body = Readable.from(['hel', 'lo'])),
    '/past': (ctx) => ((ctx.respond = false), ctx.res.write('hel'), ctx.res.end('lo')),
    '/head': (ctx) => ((ctx.respond = false), ctx.res.writeHead(201, { 'content-type': 'text/plain' }).end('hello')),
    '/throw': (ctx) => ctx.throw(402, 'hello'),
  }
  app.use(async (ctx) => void (await answers[ctx.path]?.(ctx as unknown as Context)))
  const server = createServer(app.callback() as never)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const client = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  onTestFinished(async () => {
    client.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  const post = async (path: string) => {
    const stream = client.request({ ':method': 'POST', ':path': path, 'idempotency-key': 'k' }).end()
    const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders]
    let text = ''
    for await (const piece of stream.setEncoding('utf8')) text += piece as string
    return { status: headers[':status'], text, replayed: headers['idempotent-replayed'] }
  }
  for (const path of Object.keys(answers)) {
    const first = await post(path)
    expect(first, path).toMatchObject({ text: 'hello', replayed: undefined })
    expect(await post(path), path).toEqual({ ...first, replayed: 'true' })
  }
})

test('says refusals through the context, as a renderer of its own says (G23)', async () => {
  const app = new Koa()
  const seen: unknown[] = []
  app.use(async (ctx, next) => {
    await next()
    seen.push(ctx.status, String(ctx.body))
  })
  app.use(
    idempotent(shop().payments(), {
      ...options,
      required: true,
      problem: ({ kind }, ctx) => ({ status: 418, body: `${kind} ${ctx.path}` }),
    }),
  )
  const refused = await send(await serve(app.callback() as RequestListener), {})
  expect([refused.status, refused.text, refused.headers['content-type']]).toEqual([
    418,
    'key-missing /payments',
    'text/plain; charset=utf-8',
  ])
  expect(seen).toEqual([418, 'key-missing /payments'])
})

test('refuses onceOf without a door, and options without a scope', () => {
  expect(() => onceOf({ req: {} } as Context)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }) as Error)
  expect(() => idempotent(shop().payments(), {} as never)).toThrow(expect.objectContaining({ code: 'SCOPE_MISSING' }) as Error)
})
