/**
 * Runs that nobody ends: the client has left and the handler never answers. The claim must not be renewed for ever (T24, T1).
 */
import { describe, expect, test } from 'vitest'
import { settle } from '../../core/testing/clock.ts'
import { begin, gate, gone, send, serve } from '../../test/http/client.ts'
import { frameworks, shop, type Handler, type Io } from '../../test/http/doors.ts'
import { fingerprintOf } from './fingerprint.ts'

const body = { amount: 100 }
const request = { scope: 'tenant-1', key: 'k', operation: 'POST /payments', fingerprint: fingerprintOf({ operation: 'POST /payments' }) }

describe('an abandoned run', () => {
  async function held() {
    const { clock, payments } = shop()
    const engine = payments({ lease: '30s' })
    const run = await engine.claim(request)
    if (run.type !== 'run') throw new Error('it is new')
    const stateAt = async (): Promise<string> => (await engine.claim(request)).type
    return { clock, engine, run, stateAt }
  }

  test('is renewed for ten more leases; then its lease ends, and the signal fires before', async () => {
    const { clock, engine, run } = await held()
    const { signal } = run.once
    await clock.advance('1h') // a handler may take its time as long as somebody waits
    run.abandon()
    await clock.advance('5m')
    expect(run.once.owned).toBe(true)
    expect(await engine.claim(request)).toMatchObject({ refusal: 'in-flight' })
    await clock.advance('30s')
    expect(run.once.owned).toBe(false)
    expect(signal.aborted).toBe(true)
    expect(signal.reason).toMatchObject({ code: 'CLAIM_LOST' })
    expect(await engine.claim(request)).toMatchObject({ refusal: 'outcome-unknown' })
    expect(clock.nextTimerMs()).toBeUndefined() // and nothing of it is left
  })

  test('is not renewed for longer when it is abandoned again', async () => {
    const { clock, engine, run } = await held()
    run.abandon()
    await clock.advance('4m')
    run.abandon()
    await clock.advance('90s')
    expect(run.once.owned).toBe(false)
    expect(await engine.claim(request)).toMatchObject({ refusal: 'outcome-unknown' })
  })

  test('stores its answer as ever, before its lease ends and after it, unless another took over (S5)', async () => {
    for (const wait of ['4m', '6m'] as const) {
      const { clock, run, stateAt } = await held()
      run.abandon()
      await clock.advance(wait)
      expect(await run.complete({ head: null, body: new Uint8Array(0) }, { status: 201 })).toEqual({ type: 'saved' })
      expect(await stateAt()).toBe('replay')
    }
  })

  test('changes nothing once it has ended', async () => {
    const { clock, run, stateAt } = await held()
    await run.complete({ head: null, body: new Uint8Array(0) }, { status: 201 })
    run.abandon()
    await clock.advance('10m')
    expect(await stateAt()).toBe('replay')
  })
})

describe.each(frameworks)('$name', ({ make }) => {
  async function leftAlone(handler: (io: Io) => unknown) {
    const { clock, payments } = shop()
    const entered = gate<Io>()
    const url = await serve(
      make({
        payments: payments({ lease: '30s' }),
        handler: async (io) => {
          entered.open(io)
          await handler(io)
        },
      }),
    )
    const first = begin(url, { key: 'k', body })
    const io = await entered.promise
    first.leave()
    await gone(io.req)
    await settle() // the door hears of it in the same turn
    return { clock, io, ask: () => send(url, { key: 'k', body }) }
  }

  test('lets the claim of a handler that never answers end when the client has left, after ten leases (T24)', async () => {
    const { clock, io, ask } = await leftAlone(() => new Promise(() => {}))
    const { signal } = io.once
    await clock.advance('5m')
    expect(io.once.owned).toBe(true)
    expect((await ask()).json()).toMatchObject({ type: 'urn:hapax:idempotency:in-flight' })
    await clock.advance('30s')
    expect(io.once.owned).toBe(false)
    expect(signal.aborted).toBe(true)
    expect((await ask()).json()).toMatchObject({ type: 'urn:hapax:idempotency:outcome-unknown' })
  })

  test('stores the answer of a handler that takes nearly as long (T24)', async () => {
    const may = gate()
    const handler: Handler = async ({ answer }) => {
      await may.promise
      answer(201, { run: 1 })
    }
    const { clock, ask } = await leftAlone(handler)
    await clock.advance('5m')
    may.open()
    let again = await ask()
    while (again.status === 409) again = await ask()
    expect(again.json()).toEqual({ run: 1 })
  })

  test('renews the claim of a slow handler as long as its client waits', async () => {
    const { clock, payments } = shop()
    const entered = gate<Io>()
    const may = gate()
    const handler: Handler = async (io) => {
      entered.open(io)
      await may.promise
      io.answer(201, { fence: io.once.fence })
    }
    const url = await serve(make({ payments: payments({ lease: '30s' }), handler }))
    const first = begin(url, { key: 'k', body })
    const io = await entered.promise
    await clock.advance('1h')
    expect(io.once.owned).toBe(true)
    may.open()
    expect((await first.answer).json()).toEqual({ fence: 1 })
  })
})
