/** `@RateLimited` as users compile it: TC39 and legacy, by TypeScript and by esbuild. The compiled class has its own copy of hapax. */
import { beforeAll, describe, expect, test } from 'vitest'
import { isKvError } from '../../core/kv/errors.ts'
import { memory } from '../../core/stores/memory.ts'
import { testClock } from '../../core/testing/clock.ts'
import { faulty } from '../../core/testing/faulty.ts'
import { complaints, load, modes } from '../../test/decorators/modes.ts'
import { isRateLimited, RateLimitedError } from './decorator.ts'
import { concurrency, fixedWindow, gcra, rateLimit } from './index.ts'
import type * as Decorated from './testdata/decorated.ts'

describe.each(modes)('@RateLimited compiled by %s', (mode) => {
  let compiled: typeof Decorated
  beforeAll(async () => {
    compiled = await load<typeof Decorated>('patterns/ratelimit/testdata/decorated.ts', mode)
  })
  const world = (onUnknown: 'allow' | 'deny' = 'deny', faults = 0) => {
    const clock = testClock()
    const good = memory({ clock })
    const kv = faults === 0 ? good : faulty(good, { clock, unavailable: faults })
    const policies = { burst: gcra({ limit: 2, per: '1m' }), daily: fixedWindow({ limit: 10, per: '1d' }) }
    const api = rateLimit({ kv, name: 'api', onUnknown, policies, timers: clock })
    const slots = rateLimit({ kv, name: 'slots', onUnknown, policies: { slots: concurrency({ limit: 1, lease: '30s' }) }, timers: clock })
    return { clock, api, slots, ...compiled.reportsOf(api, slots) }
  }
  const thrown = (call: Promise<unknown>): Promise<unknown> =>
    call.then(
      () => expect.unreachable('it was allowed'),
      (error: unknown) => error,
    )

  test('lets a method run as often as its limiter allows, per key, outside HTTP (P9)', async () => {
    const { Reports, api, clock } = world()
    const reports = new Reports()
    expect(await reports.build('ada', 'May')).toBe('ada May')
    expect(await reports.build('ada', 'June')).toBe('ada June')
    const error = await thrown(reports.build('ada', 'July'))
    expect(error).toMatchObject({
      name: 'RateLimitedError',
      code: 'RATE_LIMITED',
      limiter: 'api',
      decision: { outcome: 'denied', violated: ['burst'] },
    })
    expect(String(error)).toBe("RateLimitedError: 'build' was not run: over the limit burst of 'api'")
    expect(reports.built).toEqual(['May', 'June'])
    expect(await reports.build('bob', 'May')).toBe('bob May')
    // Of another copy of hapax, and known all the same; by its limiter, too.
    expect(compiled.RateLimitedError).not.toBe(RateLimitedError)
    expect(error).toBeInstanceOf(RateLimitedError)
    expect(isKvError(error)).toBe(false)
    expect(isRateLimited(error, { name: 'other', policies: {} })).toBe(false)
    if (!isRateLimited(error, api)) throw new Error('expected a denial by api')
    expect(error.decision.policies.burst.remaining).toBe(0)
    expect(error.retryAfterMs).toBe(error.decision.retryAfterMs)
    expect(error.retryAfterMs).toBeGreaterThan(0)
    await clock.advance('1m')
    expect(await reports.build('ada', 'July')).toBe('ada July')
  })
  test('charges by the arguments', async () => {
    const { Reports, api } = world()
    const reports = new Reports()
    expect(await reports.query('ada', 2)).toBe(2)
    expect(isRateLimited(await thrown(reports.query('ada', 1)), api)).toBe(true)
    expect(await reports.query('ada', 0)).toBe(0)
    expect(isKvError(await thrown(reports.query('bob', 1.5)), 'INVALID_ARGUMENT')).toBe(true)
  })
  test('decorates static methods, subclasses, limiters of `this` and late ones; keeps name and length', async () => {
    const { Reports, Branch, lazy, api } = world()
    const branch = new Branch()
    expect(await branch.ofItsOwn()).toBe(0)
    expect(isRateLimited(await thrown(branch.ofItsOwn()), api)).toBe(true)
    expect(isKvError(await thrown(Reports.count('ada')), 'INVALID_ARGUMENT')).toBe(true)
    lazy.api = api
    expect(await Branch.count('ada')).toBe('Branch ada')
    expect([Reports.prototype.build.name, Reports.prototype.build.length]).toEqual(['build', 2])
  })
  test('may stand on a method twice: the outer limit is asked first', async () => {
    const { Reports, api } = world()
    const reports = new Reports()
    expect([await reports.twice('ada'), await reports.twice('bob')]).toEqual(['ada', 'bob'])
    expect(isRateLimited(await thrown(reports.twice('eve')), api)).toBe(true)
    expect((await api.peek('eve')).policies.burst.remaining).toBe(1)
    expect((await api.peek('everybody')).policies.burst.remaining).toBe(0)
  })
  test('holds a slot until the method has ended, whatever came of it', async () => {
    const { Reports, slots } = world()
    const reports = new Reports()
    let open = (): void => {}
    reports.go = new Promise((resolve) => (open = resolve))
    const first = reports.alone('ada')
    expect(isRateLimited(await thrown(reports.alone('ada')), slots)).toBe(true)
    open()
    expect(await first).toBe('ada')
    expect(await reports.alone('ada')).toBe('ada')
    for (let time = 0; time < 3; time++) expect(await thrown(reports.failsAlone('ada'))).toEqual(new RangeError('ada'))
    expect(await reports.alone('ada')).toBe('ada')
  })
  test("does what the limiter's onUnknown says while the store is away", async () => {
    const { Reports, api } = world('deny', 1)
    const error = await thrown(new Reports().build('ada', 'May'))
    expect(isRateLimited(error, api) && error.decision.outcome).toBe('unknown')
    expect(String(error)).toBe("RateLimitedError: 'build' was not run: the limiter 'api' could not decide (store)")
    expect(error).toMatchObject({ cause: { code: 'UNAVAILABLE' } })
    const open = world('allow', 1)
    expect(await new open.Reports().build('ada', 'May')).toBe('ada May')
    expect(await new open.Reports().alone('ada')).toBe('ada')
  })
  test('gives the signal on', async () => {
    const { Reports } = world()
    expect(isKvError(await thrown(new Reports().stoppable(AbortSignal.abort())), 'ABORTED')).toBe(true)
    expect(await new Reports().stoppable(new AbortController().signal)).toBe('went on')
  })
})

test.each(['TypeScript, TC39', 'TypeScript, legacy'] as const)('the compiler takes what fits and refuses what does not: %s', (mode) => {
  expect(complaints('patterns/ratelimit/testdata/decorated-types.ts', mode)).toBe('')
})
