/**
 * The doors with real limiters on a common store, as several processes behind one address.
 */
import type { IncomingMessage } from 'node:http'
import { describe, expect, test, vi } from 'vitest'
import { KvError } from '../../core/kv/errors.ts'
import { memory } from '../../core/stores/memory.ts'
import { testClock } from '../../core/testing/clock.ts'
import { faulty } from '../../core/testing/faulty.ts'
import { begin, gate, serve } from '../../test/http/client.ts'
import { rateLimit } from './ratelimit.ts'
import { concurrency } from './rules/concurrency.ts'
import { fixedWindow } from './rules/fixed-window.ts'
import { gcra } from './rules/gcra.ts'
import { frameworks, get, key, type Io } from './testdata/doors.ts'

const seed = Number(process.env['HAPAX_SEED'] ?? 4711)

describe.each(frameworks)('%s', (_name, make) => {
  test('admits what the policies say, tells how much is left, and when to come again (P6)', async () => {
    const clock = testClock()
    const policies = { burst: gcra({ limit: 2, per: '10s' }), daily: fixedWindow({ limit: 3, per: '1d' }) }
    const api = rateLimit({ kv: memory({ clock }), name: 'api', onUnknown: 'deny', timers: clock, policies })
    const url = await serve(make({ doors: [[api, { key }]] }))
    const seen = async (): Promise<unknown[]> => {
      const { status, headers } = await get(url)
      return [status, headers['ratelimit'], headers['retry-after']]
    }
    expect(await seen()).toEqual([200, '"burst";r=1;t=5, "daily";r=2;t=86400', undefined])
    expect(await seen()).toEqual([200, '"burst";r=0;t=5, "daily";r=1;t=86400', undefined])
    expect(await seen()).toEqual([429, '"burst";r=0;t=5, "daily";r=1', '5'])
    await clock.advance('4s')
    expect(await seen()).toEqual([429, '"burst";r=0;t=1, "daily";r=1', '1'])
    await clock.advance('1s')
    expect((await seen())[0]).toBe(200)
    await clock.advance('1m')
    const { status, headers, text } = await get(url)
    expect([status, headers['retry-after']]).toEqual([429, '86335'])
    expect(JSON.parse(text)).toMatchObject({ 'violated-policies': ['daily'] })
    expect((await get(url, { 'x-user': 'bob' })).status).toBe(200)
  })

  test(`admits not one too many over three processes, with answers that are late, lost and unknown (seed ${seed})`, async () => {
    const clock = testClock()
    const store = memory({ clock })
    const urls = await Promise.all(
      [1, 2, 3].map(async (process) => {
        const kv = faulty(store, { seed: seed + process, unknownBeforeApply: 0.05, unknownAfterApply: 0.1, unavailable: 0.05 })
        const api = rateLimit({ kv, name: 'api', onUnknown: 'deny', timers: clock, policies: { burst: gcra({ limit: 10, per: '1h' }) } })
        return await serve(make({ doors: [[api, { key }]] }))
      }),
    )
    const answers = await Promise.all(Array.from({ length: 90 }, async (_, index) => (await get(urls[index % 3] ?? '')).status))
    const count = (status: number): number => answers.filter((answer) => answer === status).length
    expect(count(200)).toBeLessThanOrEqual(10)
    expect(count(200) + count(429) + count(503)).toBe(90)
    expect(count(429)).toBeGreaterThan(0)
  })

  test('lets a good login cost nothing and counts each bad one: refundOn success (R20)', async () => {
    const clock = testClock()
    const login = rateLimit({
      kv: memory({ clock }),
      name: 'login',
      onUnknown: 'deny',
      timers: clock,
      policies: { tries: fixedWindow({ limit: 3, per: '15m' }) },
    })
    const handler = ({ req, answer }: Io): void => answer(req.headers['x-word'] === 'right' ? 200 : 401, '')
    const url = await serve(make({ doors: [[login, { key, refundOn: 'success' }]], handler }))
    const left = async (): Promise<number> => (await login.peek('ada')).policies.tries.remaining
    for (let time = 0; time < 5; time++) {
      expect((await get(url, { 'x-word': 'right' })).status).toBe(200)
      await vi.waitFor(async () => expect(await left()).toBe(3))
    }
    for (let time = 0; time < 3; time++) expect((await get(url, { 'x-word': 'wrong' })).status).toBe(401)
    expect((await get(url, { 'x-word': 'right' })).status).toBe(429)
  })

  test('holds a slot until the answer is sent or the client has left (P3)', async () => {
    const clock = testClock()
    const slots = rateLimit({
      kv: memory({ clock }),
      name: 'reports',
      onUnknown: 'deny',
      timers: clock,
      policies: { slots: concurrency({ limit: 2, lease: '30s' }) },
    })
    const holds: ReturnType<typeof gate<undefined>>[] = []
    const handler = async ({ answer }: Io): Promise<void> => {
      const hold = gate<undefined>()
      holds.push(hold)
      await hold.promise
      answer(200, 'done')
    }
    const url = await serve(make({ doors: [[slots, { key }]], handler }))
    const ask = () => begin(url, { method: 'GET', path: '/' })
    const left = async (): Promise<number> => (await slots.peek('ada')).policies.slots.remaining
    const [first, second] = [ask(), ask()]
    await vi.waitFor(() => expect(holds).toHaveLength(2))
    const refused = await get(url)
    expect([refused.status, refused.headers['ratelimit'], refused.headers['retry-after']]).toEqual([429, '"slots";r=0', undefined])
    expect(refused.headers['ratelimit-policy']).toBe('"slots";q=2;qu="concurrent-requests"')
    first.leave()
    await vi.waitFor(async () => expect(await left()).toBe(1))
    holds[0]?.open(undefined)
    holds[1]?.open(undefined)
    expect((await second.answer).status).toBe(200)
    await vi.waitFor(async () => expect(await left()).toBe(2))
    await clock.advance('1s')
    expect(clock.nextTimerMs()).toBeUndefined() // no renewal is left
  })

  test('follows onUnknown while the store is away: 503, pass, or a share of the limit in this process (P5)', async () => {
    const clock = testClock()
    const kv = faulty(memory({ clock }), { on: () => new KvError('UNAVAILABLE') })
    const policies = { burst: gcra({ limit: 4, per: '1m' }) }
    const statuses = async (failing: { onUnknown: 'allow' | 'deny' } | { onUnknown: 'local'; instances: number }): Promise<number[]> => {
      const api = rateLimit({ kv, name: 'api', timers: clock, policies, ...failing })
      const url = await serve(make({ doors: [[api, { key }]] }))
      const all: number[] = []
      for (let time = 0; time < 4; time++) all.push((await get(url)).status)
      return all
    }
    expect(await statuses({ onUnknown: 'deny' })).toEqual([503, 503, 503, 503])
    expect(await statuses({ onUnknown: 'allow' })).toEqual([200, 200, 200, 200])
    expect(await statuses({ onUnknown: 'local', instances: 2 })).toEqual([200, 200, 429, 429])
  })

  test('charges what a request cost after all, when its answer is out: tokens of a language model (R20)', async () => {
    const clock = testClock()
    const tokens = rateLimit({
      kv: memory({ clock }),
      name: 'tokens',
      onUnknown: 'deny',
      timers: clock,
      policies: { tokens: fixedWindow({ limit: 1_000, per: '1h' }) },
    })
    const used = (req: IncomingMessage): number => Number(req.headers['x-used'])
    const url = await serve(make({ doors: [[tokens, { key, cost: 300, refundOn: (_end, req) => used(req) }]] }))
    const left = async (): Promise<number> => (await tokens.peek('ada')).policies.tokens.remaining
    expect((await get(url, { 'x-used': '120' })).headers['ratelimit-policy']).toBe('"tokens";q=1000;w=3600')
    await vi.waitFor(async () => expect(await left()).toBe(880))
    await get(url, { 'x-used': '500' })
    await vi.waitFor(async () => expect(await left()).toBe(380))
  })
})
