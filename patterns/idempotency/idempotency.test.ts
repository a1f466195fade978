/** Claiming, repeating, waiting, and the store: the traps that begin before a handler runs. claim.test.ts has those that come after. */
import { channel } from 'node:diagnostics_channel'
import { describe, expect, test } from 'vitest'
import type { KV } from '../../core/kv/kv.ts'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import { memory } from '../../core/stores/memory.ts'
import { settle, testClock } from '../../core/testing/clock.ts'
import { faulty } from '../../core/testing/faulty.ts'
import type { IdempotencyEvent } from './events.ts'
import { idempotency } from './idempotency.ts'
import type { IdempotencyOptions, Run } from './types.ts'
import { doorRequest, forEver, gate, request, world } from './testdata/world.ts'

describe('a run', () => {
  test('runs once and replays its value, with 2 store calls for the first run and 1 for the replay (G41)', async () => {
    const { process, store } = world()
    const payments = process()
    let charges = 0
    const pay = () => payments.run(request, (once) => ({ charge: ++charges, fence: once.fence }))
    expect(await pay()).toEqual({ ok: true, value: { charge: 1, fence: 1 }, replayed: false, saved: true })
    expect(store.counts()).toMatchObject({ create: 1, update: 1, total: 2 })
    store.reset()
    expect(await pay()).toEqual({ ok: true, value: { charge: 1, fence: 1 }, replayed: true, saved: true })
    expect(store.counts()).toMatchObject({ create: 1, total: 1 })
  })

  test('gives the first caller what a replay gives: the value as JSON makes it', async () => {
    const { process } = world()
    const payments = process()
    const pay = () => payments.run(request, () => ({ at: new Date(0), none: undefined }))
    const [first, second] = [await pay(), await pay()]
    expect(first).toMatchObject({ ok: true, replayed: false, value: { at: '1970-01-01T00:00:00.000Z' } })
    expect(second).toEqual({ ...first, replayed: true })
  })

  test('runs one handler for 64 equal requests at once, over 8 processes', async () => {
    const { process } = world()
    const all = Array.from({ length: 8 }, () => process())
    let charges = 0
    const results = await Promise.all(Array.from({ length: 64 }, (_, index) => all[index % 8]!.run(request, () => ++charges)))
    expect(charges).toBe(1)
    expect(results.filter((result) => result.ok).length).toBeGreaterThanOrEqual(1)
    for (const result of results) expect(result.ok ? result.value === 1 : result.refusal === 'in-flight').toBe(true)
  })

  test('keeps an answer that is too large as unstored and never runs again (T11)', async () => {
    const { process } = world()
    const payments = process({ recordBytesMax: 1_024 })
    let charges = 0
    const pay = () => payments.run(request, () => 'x'.repeat(2_000) + ++charges)
    expect(await pay()).toMatchObject({ ok: true, replayed: false, saved: true })
    expect(await pay()).toEqual({ ok: false, refusal: 'unstored' })
    expect(charges).toBe(1)
    expect(await payments.inspect(request)).toMatchObject({ state: 'unstored' })
  })

  test('keeps a result that is not JSON as unstored and says so', async () => {
    const { process } = world()
    const payments = process()
    await expect(payments.run(request, () => ({ big: 1n }))).rejects.toMatchObject({ code: 'VALUE_INVALID' })
    expect(await payments.run(request, () => 1)).toMatchObject({ ok: false, refusal: 'unstored' })
  })

  test('keeps the head of an unstored answer for the door, and drops a head that does not fit either (T11)', async () => {
    const { process } = world()
    const payments = process({ recordBytesMax: 1_024 })
    const first = (await payments.claim(doorRequest)) as Run
    await first.complete({ head: { status: 201, location: '/charges/1' }, body: new Uint8Array(2_000) }, { status: 201 })
    expect(await payments.claim(doorRequest)).toMatchObject({
      refusal: 'unstored',
      reason: 'too-large',
      head: { status: 201, location: '/charges/1' },
    })
    const other = (await payments.claim({ ...doorRequest, key: 'key-2' })) as Run
    expect(await other.complete({ head: 'h'.repeat(2_000), body: new Uint8Array(0) }, { status: 200 })).toEqual({ type: 'saved' })
    expect(await payments.claim({ ...doorRequest, key: 'key-2' })).toMatchObject({ refusal: 'unstored', head: null })
  })
})

describe('an unknown outcome', () => {
  for (const verdict of ['unknown-before', 'unknown-after', 'unknown-later'] as const) {
    test(`of the claim (${verdict}) resolves itself by the owner's name: the handler runs once (T6, N3)`, async () => {
      const { process, failing, clock } = world()
      const payments = process(
        {},
        failing((call) => (call.verb === 'create' && call.nth === 1 ? verdict : 'pass')),
      )
      let charges = 0
      const running = payments.run(request, () => ++charges)
      await clock.advance('1s')
      expect(await running).toMatchObject({ ok: true, value: 1, saved: true })
      expect(charges).toBe(1)
    })

    test(`of the completion (${verdict}) resolves itself: one answer, stored (T6)`, async () => {
      const { process, failing, clock } = world()
      const payments = process(
        {},
        failing((call) => (call.verb === 'update' && call.nth === 1 ? verdict : 'pass')),
      )
      const running = payments.run(request, () => 'charged')
      await clock.advance('1s')
      expect(await running).toMatchObject({ ok: true, value: 'charged', saved: true })
      expect(await payments.run(request, () => 'again')).toMatchObject({ value: 'charged', replayed: true })
    })

    test(`of a take-over (${verdict}) resolves itself (T6)`, async () => {
      const { process, mortal, failing, clock } = world()
      void mortal({ afterCrash: 'resume' }).run(request, forEver)
      await clock.advance('30s')
      let charges = 0
      const kv = failing((call) => (call.verb === 'update' && call.nth === 1 ? verdict : 'pass'))
      const running = process({ afterCrash: 'resume' }, kv).run(request, (once) => `${once.fence}/${++charges}`)
      await clock.advance('1s')
      expect(await running).toMatchObject({ ok: true, value: '2/1' })
    })
  }

  test('of a claim that arrived although its caller was refused is cleaned up, so the key is not stuck (T6)', async () => {
    const { process, failing, clock } = world()
    let isDown = true
    const kv = failing((call) => (!isDown ? 'pass' : call.verb === 'create' && call.nth === 1 ? 'unknown-after' : 'unavailable'))
    const payments = process({}, kv)
    const refused = payments.run(request, () => 'never')
    await clock.advance('2s')
    expect(await refused).toMatchObject({ ok: false, refusal: 'store-unavailable' })
    isDown = false
    await clock.advance('2s')
    expect(await payments.inspect(request)).toMatchObject({ state: 'absent' })
    expect(await payments.run(request, () => 'now')).toMatchObject({ ok: true, value: 'now' })
  })
})

describe('a repetition', () => {
  test('with another body is told so before it is told to wait (T7)', async () => {
    const { process } = world()
    const payments = process()
    void payments.run(request, forEver)
    await settle()
    expect(await payments.run({ ...request, input: { amount: 101 } }, () => 1)).toEqual({ ok: false, refusal: 'mismatch' })
  })

  test('with members in another order is the same request (T9)', async () => {
    const { process } = world()
    const payments = process()
    await payments.run({ ...request, input: { a: 1, b: [2] } }, () => 'first')
    expect(await payments.run({ ...request, input: { b: [2], a: 1 } }, () => 'second')).toMatchObject({ value: 'first', replayed: true })
  })

  test('finds its answer although the handler changed its input (T9)', async () => {
    const { process } = world()
    const payments = process()
    const input = { amount: 100 }
    await payments.run({ ...request, input }, () => {
      input.amount = 0
      return 'first'
    })
    expect(await payments.run({ ...request, input: { amount: 100 } }, () => 'second')).toMatchObject({ value: 'first', replayed: true })
  })

  test('under another scope, operation, key or name is another request (T8, T16)', async () => {
    const { process } = world()
    const payments = process()
    await payments.run(request, () => 'first')
    for (const other of [{ scope: 'tenant-2' }, { operation: 'POST /refunds' }, { key: 'key-2' }]) {
      expect(await payments.run({ ...request, ...other }, () => 'other')).toMatchObject({ value: 'other', replayed: false })
    }
    expect(await process({ name: 'refunds' }).run(request, () => 'other')).toMatchObject({ value: 'other', replayed: false })
  })

  test('without a scope is a mistake in the program (T8)', async () => {
    const { process } = world()
    await expect(process().run({ ...request, scope: '' }, () => 1)).rejects.toMatchObject({ code: 'SCOPE_MISSING' })
  })

  test('whose record vanishes between two calls claims again and never runs without a claim (T17)', async () => {
    const { process, mortal, failing, store, clock } = world()
    void mortal({ afterCrash: 'resume' }).run(request, forEver)
    await clock.advance('30s')
    // The store loses the record after it refused the create: the take-over finds nothing.
    const [key] = await new Promise<string[]>((resolve) => {
      const spy = faulty(store, { on: (call) => (resolve([call.key]), 'unavailable') })
      void idempotency({ kv: spy, name: 'payments', timers: testClock() })
        .inspect(request)
        .catch(() => {})
    })
    const kv = failing((call) => {
      if (call.verb === 'update' && call.nth === 1) void store.destroy(key as string)
      return 'pass'
    })
    let runs = 0
    expect(await process({ afterCrash: 'resume' }, kv).run(request, () => ++runs)).toMatchObject({ ok: true, value: 1, saved: true })
    expect(await process().run(request, () => ++runs)).toMatchObject({ value: 1, replayed: true })
  })

  test('that never finds a quiet moment is refused after a bounded number of turns (T17)', async () => {
    const { process, mortal, store, clock } = world()
    void mortal({ afterCrash: 'resume' }).run(request, forEver)
    await clock.advance('30s')
    const restless: KV = { ...store, update: async () => ({ ok: false, refusal: 'missing', now: clock.now() }) }
    let runs = 0
    expect(await process({ afterCrash: 'resume' }, restless).run(request, () => ++runs)).toMatchObject({ ok: false, refusal: 'in-flight' })
    expect(runs).toBe(0)
  })

  test('hears when to come back: the rest of the lease, with jitter (T18)', async () => {
    const { process, mortal, clock } = world()
    void mortal().run(request, forEver)
    await clock.advance('10s')
    const wait = async (random: number) => {
      const result = await process({ random: () => random }).run(request, () => 1)
      return result.ok ? undefined : result.retryAfterMs
    }
    expect(await wait(0)).toBe(20_000)
    expect(await wait(0.5)).toBe(22_500)
    expect(await wait(0.999)).toBeGreaterThan(24_000)
  })
})

describe('waiting', () => {
  test('ends with the first answer of this process, without another poll, verified by a read of the store', async () => {
    const { process, clock, store } = world()
    const payments = process({ wait: '10s' })
    const first = gate<string>()
    void payments.run(request, () => first.promise)
    await settle()
    const second = payments.run(request, () => 'second')
    await clock.advance('700ms')
    store.reset()
    first.open('first')
    await settle()
    expect(await second).toMatchObject({ value: 'first', replayed: true })
    expect(store.counts().total).toBe(2) // the completion, and the waiter's own look
    expect(clock.nextTimerMs()).toBeUndefined()
  })

  test('sees the answer of another process by polling, at most a second late', async () => {
    const { process, clock } = world()
    const first = gate<string>()
    void process().run(request, () => first.promise)
    await settle()
    const second = process({ wait: '20s' }).run(request, () => 'second')
    await clock.advance('5s')
    first.open('first')
    await clock.advance('1s')
    expect(await second).toMatchObject({ value: 'first', replayed: true })
  })

  test('ends in-flight at its deadline', async () => {
    const { process, clock } = world()
    void process().run(request, forEver)
    await settle()
    let result: unknown
    void process({ wait: '5s' })
      .run(request, () => 'second')
      .then((given) => (result = given))
    await clock.advance('4999ms')
    expect(result).toBeUndefined()
    await clock.advance('1ms')
    expect(result).toMatchObject({ ok: false, refusal: 'in-flight' })
  })

  test('ends with the caller’s signal', async () => {
    const { process, clock } = world()
    void process().run(request, forEver)
    await settle()
    const controller = new AbortController()
    const waiting = process({ wait: '20s' }).run({ ...request, signal: controller.signal }, () => 'second')
    const failed = waiting.catch((error: unknown) => error)
    await clock.advance('1s')
    controller.abort(new Error('client went away'))
    expect(await failed).toMatchObject({ code: 'ABORTED' })
    await expect(process().run({ ...request, signal: controller.signal }, () => 1)).rejects.toMatchObject({ code: 'ABORTED' })
  })

  test('runs the handler itself when the first one handed the key back', async () => {
    const { process, clock } = world()
    const payments = process({ wait: '10s' })
    const first = gate<string>()
    void payments.run(request, (once) => {
      once.release()
      return first.promise
    })
    await settle()
    const second = payments.run(request, () => 'second')
    await clock.advance('100ms')
    first.open('not kept')
    await clock.advance('100ms')
    expect(await second).toMatchObject({ ok: true, value: 'second', replayed: false })
  })
})

describe('a store that is away', () => {
  test('refuses within the deadline and never runs unprotected (T19)', async () => {
    const { process, failing, clock } = world()
    let runs = 0
    let result: unknown
    void process(
      {},
      failing(() => 'unavailable'),
    )
      .run(request, () => ++runs)
      .then((given) => (result = given))
    await clock.advance('2s')
    expect(result).toMatchObject({ ok: false, refusal: 'store-unavailable', retryAfterMs: 2_250 })
    expect(runs).toBe(0)
  })

  test('that hangs is left at the deadline (T19)', async () => {
    const { process, failing, clock } = world()
    let result: unknown
    void process(
      { storeDeadline: '500ms' },
      failing(() => 'stop-before'),
    )
      .run(request, () => 1)
      .then((given) => (result = given))
    await clock.advance('499ms')
    expect(result).toBeUndefined()
    await clock.advance('1ms')
    expect(result).toMatchObject({ ok: false, refusal: 'store-unavailable' })
  })

  test('that is closed refuses at once', async () => {
    const { process, store } = world()
    await store.close()
    expect(await process().run(request, () => 1)).toMatchObject({ ok: false, refusal: 'store-unavailable', cause: { code: 'CLOSED' } })
  })

  test("runs without protection only if the options say 'allow', and the run can tell (T19)", async () => {
    const { process, failing, clock } = world()
    const payments = process(
      { onStoreError: 'allow' },
      failing(() => 'unavailable'),
    )
    const running = payments.run(request, async (once) => [once.fence, once.owned, await once.step('charge', () => 'ch_1')])
    await clock.advance('2s')
    expect(await running).toEqual({ ok: true, value: [0, false, 'ch_1'], replayed: false, saved: false })
  })

  test('with a damaged or foreign record is a fault, never an absent key', async () => {
    const { process, failing, store } = world()
    const payments = process(
      {},
      failing(() => new KvError('DAMAGED')),
    )
    await expect(payments.run(request, () => 1)).rejects.toMatchObject({ code: 'DAMAGED' })
    const foreign: KV = {
      ...store,
      create: async (key, value) => {
        const made = await store.set(key, new Uint8Array([1, 2, 3]))
        if (!made.ok) throw new Error(`not set: ${value.length}`)
        return { ok: false, refusal: 'exists', entry: made.entry, now: made.now }
      },
    }
    await expect(process({ onStoreError: 'allow' }, foreign).run(request, () => 1)).rejects.toMatchObject({ code: 'RECORD_UNREADABLE' })
  })
})

describe('the person on call', () => {
  test('cannot release what runs, nor what has changed since it was seen', async () => {
    const { process, clock, mortal } = world()
    const payments = process()
    void mortal().run(request, forEver)
    await settle()
    const seen = await payments.inspect(request)
    if (seen.state === 'absent') throw new Error('it is there')
    expect(seen).toMatchObject({ state: 'claimed', attempt: 1, leaseEndsAt: clock.now() + 30_000 })
    expect(await payments.release({ ...request, version: seen.version })).toMatchObject({ ok: false, refusal: 'in-flight' })
    await clock.advance('30s')
    expect(await payments.run(request, () => 1)).toMatchObject({ refusal: 'outcome-unknown' })
    expect(await payments.release({ ...request, version: seen.version })).toMatchObject({ ok: false, refusal: 'version' })
    expect(await payments.release({ ...request, key: 'none', version: seen.version })).toEqual({ ok: false, refusal: 'missing' })
  })

  test('leaves an audit event; events hold no payload and no client key', async () => {
    const { process } = world()
    const seen: IdempotencyEvent[] = []
    const listen = (event: unknown): void => void seen.push(event as IdempotencyEvent)
    channel('hapax:idempotency').subscribe(listen)
    try {
      const payments = process()
      await payments.run(request, async (once) => await once.step('charge', () => 'secret-result'))
      await payments.run(request, () => 'again')
      const there = await payments.inspect(request)
      if (there.state === 'absent') throw new Error('it is there')
      await payments.release({ ...request, version: there.version, actor: 'ada', reason: 'refunded by hand' })
    } finally {
      channel('hapax:idempotency').unsubscribe(listen)
    }
    expect(seen.map(({ type }) => type)).toEqual(['claimed', 'step-saved', 'completed', 'replayed', 'released'])
    expect(seen.at(-1)).toMatchObject({ name: 'payments', state: 'completed', actor: 'ada', reason: 'refunded by hand' })
    expect(new Set(seen.map(({ id }) => id)).size).toBe(1)
    expect(JSON.stringify(seen)).not.toMatch(/secret|key-1|tenant-1/)
  })
})

describe('the options', () => {
  test('are refused with what was expected', () => {
    const { process } = world()
    for (const wrong of [
      { name: '' },
      { lease: 10 },
      { lease: 'soon' as '1s' },
      { retention: '1m' },
      { final: 'all' as 'draft' },
      { afterCrash: 'again' as 'resume' },
      { onStoreError: 'maybe' as 'allow' },
      { recordBytesMax: 10 },
    ] satisfies Partial<IdempotencyOptions>[]) {
      expect(() => process(wrong), JSON.stringify(wrong)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
    }
  })

  test('ask the store for what the pattern needs when it is built: one clock, one home for each key (T20), room', () => {
    const { store, process } = world()
    const lacking = (change: Partial<KV['capabilities']>): KV => ({ ...store, capabilities: { ...store.capabilities, ...change } })
    for (const kv of [lacking({ sites: 'many' }), lacking({ serverClock: false })]) {
      expect(() => process({}, kv)).toThrow(expect.objectContaining({ code: 'CAPABILITY_MISSING' }))
    }
    expect(() => process({ recordBytesMax: 5_000_000 })).toThrow(expect.objectContaining({ code: 'CAPABILITY_MISSING' }))
  })

  test('fit a JunoDB: 128-byte keys, 200 KiB values, three days', async () => {
    const kv = memory({ limits: 'juno' })
    expect(await idempotency({ kv, name: 'n'.repeat(64) }).run({ ...request, key: 'k'.repeat(255) }, () => 1)).toMatchObject({ ok: true })
    expect(() => idempotency({ kv, name: 'long', retention: '4d' })).toThrow(/ttl/)
  })

  test('refuse keys that no header may carry (T22)', async () => {
    const { process, store } = world()
    for (const key of ['', 'x'.repeat(256), 'a\nb']) {
      await expect(process().run({ ...request, key }, () => 1)).rejects.toSatisfy((error) => isKvError(error, 'INVALID_ARGUMENT'))
    }
    await expect(process().run({ ...request, input: () => 1 }, () => 1)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    expect(store.counts().total).toBe(0)
  })
})
