/**
 * The doors of Express 5, Express 4 and Koa over real HTTP: one case for all. The limiter is scripted, so that each case says what was decided.
 */
import { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { describe, expect, test, vi } from 'vitest'
import { KvError } from '../../core/kv/errors.ts'
import { settle } from '../../core/testing/clock.ts'
import { begin, gate, gone, serve } from '../../test/http/client.ts'
import * as onExpress from './express.ts'
import { LimitDoor, type LimitDoorOptions } from './http.ts'
import * as onKoa from './koa.ts'
import {
  allowed,
  denied,
  events,
  frameworks,
  get,
  key,
  namesIn,
  policy,
  receipt,
  scripted,
  state,
  unknown,
  usual,
  type Io,
  type Setup,
} from './testdata/doors.ts'
import type { Acquired, RateLimit } from './types.ts'

describe.each(frameworks)('%s', (framework, make) => {
  const one = async (limit: RateLimit, options: Partial<LimitDoorOptions<IncomingMessage>> = {}, more: Omit<Setup, 'doors'> = {}) =>
    await serve(make({ ...more, doors: [[limit, { key, ...options }]] }))

  describe('a request that may pass', () => {
    test('runs its handler, which sees the headers already (P6, R16)', async () => {
      const limit = scripted()
      const seen: unknown[] = []
      const url = await one(limit, {}, { handler: ({ res, answer }) => answer(200, `seen ${seen.push(res.getHeader('RateLimit'))}`) })
      const { status, headers, text } = await get(url)
      expect([status, text]).toEqual([200, 'seen 1'])
      expect(headers['ratelimit-policy']).toBe('"burst";q=10;w=10')
      expect(headers['ratelimit']).toBe('"burst";r=9;t=9')
      expect(seen).toEqual(['"burst";r=9;t=9'])
      expect(headers['retry-after']).toBeUndefined()
      expect(limit.asked).toEqual([['ada', 1]])
    })

    test.each<[string, number, (io: Io) => unknown]>([
      ['a redirect', 302, ({ res, answer }) => [res.setHeader('Location', '/'), answer(302, 'there')]],
      ['304', 304, ({ answer }) => answer(304, '')],
      ['an error that the handler throws', 500, () => Promise.reject(new Error('broken'))],
      ['a stream', 200, ({ res }) => [(res.statusCode = 200), res.write('a'), res.end('b')]],
    ])('has the headers on %s, too (R16)', async (_what, expected, handler) => {
      const { status, headers } = await get(await one(scripted(), {}, { handler }))
      expect(status).toBe(expected)
      expect(headers['ratelimit']).toBe('"burst";r=9;t=9')
    })

    test('costs what it says, a number or a function of the request, and is asked for the key that it gives', async () => {
      const limit = scripted()
      const url = await one(limit, {
        key: async (req) => await Promise.resolve(`u:${key(req)}`),
        cost: (req) => Number(req.headers['x-cost']),
      })
      await get(url, { 'x-user': 'bob', 'x-cost': '3' })
      expect(limit.asked).toEqual([['u:bob', 3]])
    })

    test('is not asked for at all when it is skipped', async () => {
      const limit = scripted(() => denied)
      const { status, headers } = await get(await one(limit, { skip: () => true }))
      expect([status, headers['ratelimit'], limit.asked]).toEqual([200, undefined, []])
    })

    test('gets no headers once an answer has begun, and no error (R16)', async () => {
      const url = await one(
        scripted(),
        {},
        { before: (_req, res) => [(res.statusCode = 200), res.flushHeaders()], handler: ({ res }) => void res.end('late') },
      )
      const { status, headers, text } = await get(url)
      expect([status, headers['ratelimit'], text]).toEqual([200, undefined, 'late'])
    })
  })

  describe('a request that is too much', () => {
    test('gets 429 as a problem of type quota-exceeded, with the policies that refused and Retry-After rounded up (P6)', async () => {
      const handler = vi.fn<(io: Io) => void>(usual)
      const { status, headers, text } = await get(
        await one(
          scripted(() => denied),
          {},
          { handler },
        ),
      )
      expect([status, headers['content-type'], headers['retry-after']]).toEqual([429, 'application/problem+json', '2'])
      expect(JSON.parse(text)).toEqual({
        type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
        title: 'Too many requests',
        status: 429,
        detail: expect.any(String) as string,
        'violated-policies': ['burst'],
      })
      expect(headers['ratelimit']).toBe('"burst";r=0;t=1')
      expect(handler).not.toHaveBeenCalled()
    })

    test('gets text if it takes nothing else, and whatever a renderer says', async () => {
      expect((await get(await one(scripted(() => denied)), { accept: 'text/plain' })).headers['content-type']).toBe(
        'text/plain; charset=utf-8',
      )
      const url = await one(
        scripted(() => denied),
        { problem: ({ kind, violated, retryAfterMs }) => ({ status: 420, body: { kind, violated, retryAfterMs } }) },
      )
      const { status, text, headers } = await get(url)
      expect([status, headers['retry-after'], JSON.parse(text)]).toEqual([
        420,
        '2',
        { kind: 'quota-exceeded', violated: ['burst'], retryAfterMs: 1_500 },
      ])
    })

    test('may get bytes of no type', async () => {
      const url = await one(
        scripted(() => denied),
        { problem: () => ({ body: new Uint8Array([65]) }) },
      )
      const { headers, text } = await get(url)
      expect([headers['content-type'], text]).toEqual([undefined, 'A'])
    })

    test('is told abnormal-usage-detected where the program says so', async () => {
      const url = await one(
        scripted(() => denied),
        { abnormal: ({ violated }) => violated.includes('burst') },
      )
      expect((await get(url)).json()).toMatchObject({ type: expect.stringMatching(/#abnormal-usage-detected$/) as string, status: 429 })
    })

    test('waits longer by its share of the jitter, and t is never later than Retry-After', async () => {
      const { headers } = await get(
        await one(
          scripted(() => denied),
          { jitter: 1, random: () => 0.8 },
        ),
      )
      expect([headers['retry-after'], headers['ratelimit']]).toEqual(['3', '"burst";r=0;t=2'])
    })

    test('has no Retry-After when nobody knows when it fits, as of slots', async () => {
      expect((await get(await one(scripted(() => ({ ...denied, retryAfterMs: undefined }))))).headers['retry-after']).toBeUndefined()
    })

    test('that can never fit is refused without Retry-After, and is no fault (R4)', async () => {
      const policies = { burst: policy, slots: { ...policy, kind: 'concurrency', limit: 2 } } as const
      const limit = scripted(() => Promise.reject(new KvError('COST_TOO_LARGE')), { policies })
      const { status, headers, text } = await get(await one(limit, { cost: () => 11 }))
      expect([status, headers['retry-after']]).toEqual([429, undefined])
      expect(JSON.parse(text)).toMatchObject({ 'violated-policies': ['burst'], detail: expect.stringContaining('never') as string })
    })

    test('goes to the error handler when an answer has begun: the handler must not run (R16)', async () => {
      const handler = vi.fn<(io: Io) => void>(usual)
      const refused: unknown[] = []
      const limit = scripted(() => denied)
      const url = await one(limit, {}, { before: (_req, res) => void res.write('begun'), handler, onError: (error) => refused.push(error) })
      const pending = begin(url, { method: 'GET', path: '/' })
      await vi.waitFor(() => expect(refused).toEqual([expect.objectContaining({ code: 'INVALID_ARGUMENT' })]))
      pending.leave()
      expect(limit.asked).toHaveLength(1)
      expect(handler).not.toHaveBeenCalled()
    })
  })

  describe('a decision that is unknown', () => {
    test('passes with an event where the limiter allows, and says nothing that it does not know', async () => {
      const told = events()
      const { status, headers } = await get(await one(scripted(() => unknown(true))))
      expect([status, headers['ratelimit'], headers['ratelimit-policy']]).toEqual([200, undefined, undefined])
      expect(told).toEqual([{ type: 'passed-unknown', name: 'api', reason: 'deadline' }])
    })

    test('is answered by 503 temporary-reduced-capacity with Retry-After where the limiter denies', async () => {
      const told = events()
      const { status, headers, text } = await get(await one(scripted(() => unknown(false))))
      expect([status, headers['retry-after'], headers['ratelimit']]).toEqual([503, '1', undefined])
      expect(JSON.parse(text)).toMatchObject({
        type: expect.stringMatching(/#temporary-reduced-capacity$/) as string,
        'violated-policies': [],
      })
      expect(told).toEqual([{ type: 'refused-unknown', name: 'api', reason: 'deadline' }])
    })
  })

  describe('several limiters', () => {
    test('make one list, behind what others have set (R16)', async () => {
      const first = scripted()
      const second = scripted(() => ({ ...allowed, policies: { daily: { ...state, remaining: 1 } } }), {
        name: 'site',
        policies: { daily: policy },
      })
      const url = await serve(
        make({
          doors: [
            [first, { key, spec: ['draft-11', 'x-ratelimit'] }],
            [second, { key, spec: ['draft-11', 'x-ratelimit'] }],
          ],
          before: (_req, res) => void res.setHeader('RateLimit', '"proxy";r=5'),
        }),
      )
      const { headers, rawHeaders } = await get(url)
      expect(headers['ratelimit']).toBe('"proxy";r=5, "burst";r=9;t=9, "daily";r=1;t=1')
      expect(namesIn(headers['ratelimit-policy'])).toEqual(['burst', 'daily'])
      expect(headers['x-ratelimit-remaining']).toBe('1')
      for (const name of ['ratelimit', 'ratelimit-policy', 'x-ratelimit-remaining'])
        expect(
          rawHeaders.filter((raw) => raw.toLowerCase() === name),
          name,
        ).toHaveLength(1)
    })

    test('whose policies have one name give it one each, also where a refusal names it (R16)', async () => {
      const url = await serve(
        make({
          doors: [
            [scripted(), { key }],
            [scripted(() => denied, { name: 'login' }), { key }],
          ],
        }),
      )
      const { headers, text } = await get(url)
      expect(namesIn(headers['ratelimit'])).toEqual(['burst', 'login/burst'])
      expect(JSON.parse(text)).toMatchObject({ 'violated-policies': ['login/burst'] })
    })

    test('are all asked until one refuses', async () => {
      const [first, second, third] = [scripted(), scripted(() => denied), scripted()]
      await get(
        await serve(
          make({
            doors: [
              [first, { key }],
              [second, { key }],
              [third, { key }],
            ],
          }),
        ),
      )
      expect([first.asked.length, second.asked.length, third.asked.length]).toEqual([1, 1, 0])
    })

    test('that are one and the same count a request once (R19)', async () => {
      const told = events()
      const limit = scripted()
      const url = await serve(
        make({
          doors: [
            [limit, { key, refundOn: 'success' }],
            [limit, { key, refundOn: 'success', cost: 5 }],
          ],
        }),
      )
      const { headers } = await get(url)
      await vi.waitFor(() => expect(limit.settled).toHaveLength(1))
      await get(url)
      await vi.waitFor(() => expect(limit.settled).toHaveLength(2))
      expect(limit.asked).toEqual([
        ['ada', 1],
        ['ada', 1],
      ])
      expect(namesIn(headers['ratelimit'])).toEqual(['burst'])
      expect(told).toEqual([
        { type: 'counted-before', name: 'api' },
        { type: 'counted-before', name: 'api' },
      ])
    })

    test('that are one and the same count each of two keys (R19)', async () => {
      const limit = scripted()
      await get(
        await serve(
          make({
            doors: [
              [limit, { key }],
              [limit, { key: () => 'all' }],
              [limit, { key: () => 'more' }],
            ],
          }),
        ),
      )
      expect(limit.asked).toEqual([
        ['ada', 1],
        ['all', 1],
        ['more', 1],
      ])
    })
  })

  describe('at its end a request', () => {
    test.each<['success' | 'failure', number, boolean]>([
      ['success', 200, true],
      ['success', 302, true],
      ['success', 404, false],
      ['success', 500, false],
      ['failure', 200, false],
      ['failure', 399, false],
      ['failure', 400, true],
      ['failure', 500, true],
    ])('under refundOn %s with status %i gets back: %s, once (R20)', async (refundOn, status, isBack) => {
      const limit = scripted()
      const ended = gate<IncomingMessage>()
      const url = await one(
        limit,
        { refundOn },
        { handler: ({ res, req, answer }) => [res.on('close', () => ended.open(req)), answer(status, 'x')] },
      )
      await get(url)
      await ended.promise
      await settle()
      expect(limit.settled).toEqual(isBack ? [[receipt, 0]] : [])
    })

    test('costs what a function says: the bytes or tokens that it really took (R20)', async () => {
      const limit = scripted()
      const ends: unknown[] = []
      const url = await one(limit, { refundOn: (end, req) => [ends.push(end), Number(req.headers['x-tokens'])][1] })
      await get(url, { 'x-tokens': '7' })
      await vi.waitFor(() => expect(limit.settled).toEqual([[receipt, 7]]))
      expect(ends).toEqual([{ type: 'finished', status: 200 }])
    })

    test('that its client left gets nothing back, and the function hears that it was closed (R20)', async () => {
      for (const refundOn of ['success', 'failure'] as const) {
        const limit = scripted()
        const ends: unknown[] = []
        const entered = gate<Io>()
        const handler = async (io: Io): Promise<void> => {
          entered.open(io)
          await gone(io.req)
          await settle()
          io.answer(refundOn === 'success' ? 200 : 500, 'nobody hears it')
        }
        const doors = [
          [limit, { key, refundOn }],
          [scripted(), { key, refundOn: (end: unknown) => [ends.push(end), undefined][1] }],
        ] as const
        const url = await serve(make({ doors, handler }))
        const pending = begin(url, { method: 'GET', path: '/' })
        const { res } = await entered.promise
        pending.leave()
        await vi.waitFor(() => expect(ends).toHaveLength(1))
        await vi.waitFor(() => expect(res.destroyed).toBe(true))
        await settle()
        expect(ends).toEqual([expect.objectContaining({ type: 'closed' })])
        expect(limit.settled).toEqual([])
      }
    })

    test('whose handler throws is settled once, by the answer that its error gets (R20)', async () => {
      const limit = scripted()
      const ends: { type: string; status: number; error?: unknown }[] = []
      const url = await one(limit, { refundOn: (end) => [ends.push(end), 0][1] }, { handler: () => Promise.reject(new Error('broken')) })
      expect((await get(url)).status).toBe(500)
      await vi.waitFor(() => expect(limit.settled).toHaveLength(1))
      await settle()
      // Express has no way to tell a door what a handler threw.
      const error = framework === 'Koa' ? { error: expect.objectContaining({ message: 'broken' }) as Error } : {}
      expect(ends).toEqual([{ type: 'finished', status: 500, ...error }])
      expect(limit.settled).toHaveLength(1)
    })

    test('gives its slot back when it is answered, when its handler throws, and when its client leaves (P3)', async () => {
      const limit = scripted(() => allowed, { hasSlots: true })
      await get(await one(limit))
      await vi.waitFor(() => expect(limit.released).toBe(1))
      await get(await one(limit, {}, { handler: () => Promise.reject(new Error('broken')) }))
      await vi.waitFor(() => expect(limit.released).toBe(2))
      const entered = gate<Io>()
      const pending = begin(await one(limit, {}, { handler: async (io) => [entered.open(io), await gone(io.req)] }), {
        method: 'GET',
        path: '/',
      })
      await entered.promise
      expect(limit.released).toBe(2)
      pending.leave()
      await vi.waitFor(() => expect(limit.released).toBe(3))
      await settle()
      expect(limit.released).toBe(3)
    })

    test('gives its slot back also when an option of the door throws after it was taken', async () => {
      const limit = scripted(() => allowed, { hasSlots: true })
      const partitionKey = (): never => {
        throw new Error('broken')
      }
      expect((await get(await one(limit, { partitionKey }))).status).toBe(500)
      await vi.waitFor(() => expect(limit.released).toBe(1))
    })

    test('gives its slot back also if its client had left before the decision came', async () => {
      const asked = gate<void>()
      const decide = gate<Acquired>()
      const limit = scripted(() => [asked.open(), decide.promise][1] as Promise<Acquired>, { hasSlots: true })
      let left: Promise<unknown> = Promise.resolve()
      const pending = begin(await one(limit, {}, { before: (req) => (left = gone(req)) as unknown as void, handler: () => {} }), {
        method: 'GET',
        path: '/',
      })
      await asked.promise
      pending.leave()
      await left
      await settle()
      decide.open(allowed)
      await vi.waitFor(() => expect(limit.released).toBe(1))
    })

    test('that could not be settled is told as an event, and nothing else breaks (R20)', async () => {
      const told = events()
      const unheard = scripted(() => allowed, { settle: async () => await Promise.resolve({ outcome: 'unknown', reason: 'store' }) })
      const broken = scripted(() => allowed, { name: 'broken' })
      const wrong = new Error('wrong')
      const doors: Setup['doors'] = [
        [unheard, { key, refundOn: 'success' }],
        [
          broken,
          {
            key,
            refundOn: () => {
              throw wrong
            },
          },
        ],
      ]
      expect((await get(await serve(make({ doors })))).status).toBe(200)
      await vi.waitFor(() => expect(told).toHaveLength(2))
      expect(told).toContainEqual({ type: 'not-settled', name: 'api', reason: 'store' })
      expect(told).toContainEqual({ type: 'not-settled', name: 'broken', cause: wrong })
    })
  })

  describe('a fault', () => {
    test('of the limiter goes to the error handler', async () => {
      const { status, text } = await get(await one(scripted(() => Promise.reject(new KvError('CLOSED')))))
      expect([status, text]).toEqual([500, 'CLOSED'])
    })

    test.each([[''], [undefined], [7]])('is a key that is %j', async (given) => {
      const limit = scripted()
      const { status, text } = await get(await one(limit, { key: () => given as string }))
      expect([status, text, limit.asked]).toEqual([500, 'LIMIT_KEY_MISSING', []])
    })

    test('is an option that cannot be meant, when the door is made', () => {
      const made = (options: object) => () => make({ doors: [[scripted(), { key, ...options }]] })
      expect(made({ key: undefined })).toThrow(expect.objectContaining({ code: 'LIMIT_KEY_MISSING' }))
      expect(made({ cost: 11 })).toThrow(expect.objectContaining({ code: 'COST_TOO_LARGE' }))
      for (const options of [{ cost: -1 }, { cost: 0.5 }, { jitter: 2 }, { jitter: NaN }, { spec: 'draft-5' }])
        expect(made(options), JSON.stringify(options)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
    })
  })

  test('spec chooses the headers, and partitionKey says pk', async () => {
    const ask = async (options: object) => (await get(await one(scripted(), options))).headers
    expect(Object.keys(await ask({ spec: [] })).filter((name) => name.includes('ratelimit'))).toEqual([])
    expect((await ask({ spec: 'draft-7' }))['ratelimit']).toBe('limit=10, remaining=9, reset=1')
    expect((await ask({ partitionKey: (given: string) => given }))['ratelimit']).toBe('"burst";r=9;t=9;pk=:YWRh:')
  })

  test('clientKey reads the address of a request as it comes over a socket (R14)', async () => {
    const limit = scripted()
    const url = await one(limit, { key: onExpress.clientKey({ trustProxy: 1 }) })
    await get(url, { 'x-forwarded-for': '6.6.6.6, 2001:db8:0:1ff::7' })
    expect(limit.asked).toEqual([['ip:2001:db8:0:100::/56', 1]])
    expect(onKoa.clientKey).toBe(onExpress.clientKey)
  })
})

test.each([[['finish', 'close']], [['close']], [['finish']]])(
  'of a response that only tells %j a request is settled once (R20)',
  async (order) => {
    const limit = scripted(() => allowed, { hasSlots: true })
    const door = new LimitDoor<IncomingMessage>(limit, { key, refundOn: () => 3 })
    const req = { headers: {} } as IncomingMessage
    const res = Object.assign(new EventEmitter(), { statusCode: 200, getHeader: () => undefined, setHeader: () => {} })
    await door.enter(req, req, res as unknown as ServerResponse)
    await settle()
    expect([limit.settled.length, limit.released]).toEqual([0, 0])
    for (const name of order) res.emit(name)
    await settle()
    expect([limit.settled, limit.released]).toEqual([[[receipt, 3]], 1])
    expect([res.listenerCount('finish'), res.listenerCount('close')]).toEqual([0, 0])
  },
)
