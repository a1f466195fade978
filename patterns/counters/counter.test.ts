/** The exact counter: bounds, repeated requests, ends, resets. C numbers are the traps of counters; each has a test that names it. */
import { channel } from 'node:diagnostics_channel'
import { describe, expect, test } from 'vitest'
import type { KV } from '../../core/kv/kv.ts'
import { memory } from '../../core/stores/memory.ts'
import { faulty, type Verdict } from '../../core/testing/faulty.ts'
import type { StoreCall } from '../../core/testing/intercept.ts'
import { counter } from './counter.ts'
import type { CountersEvent } from './events.ts'
import { countCodec } from './record.ts'
import { ended, gate, world } from './testdata/world.ts'

const upTo = (n: number): number[] => Array.from({ length: n }, (_, index) => index + 1)

describe('an add', () => {
  test('answers with the count as it left it, and get with the same (P1)', async () => {
    const seats = counter({ kv: memory(), name: 'seats', start: 500, min: 0, max: 500 })
    expect(await seats.add('flight-7', -2)).toMatchObject({ ok: true, value: 498, repeated: false })
    expect(await seats.add('flight-7', 1)).toMatchObject({ ok: true, value: 499 })
    expect(await seats.get('flight-7')).toMatchObject({ value: 499 })
    expect(await seats.get('flight-8')).toMatchObject({ value: 500, epoch: 0 })
  })

  test('of 400 callers at once gives each its own number, in order of arrival, with two store calls', async () => {
    const { kv } = world()
    const visits = counter({ kv, name: 'visits' })
    const results = await Promise.all(upTo(400).map(() => visits.add('home', 1)))
    expect(results.map(({ value }) => value)).toEqual(upTo(400))
    expect(kv.counts()).toMatchObject({ get: 1, create: 1, total: 2 })
  })

  test('never oversells: 8 processes sell 100 seats to 400 buyers at once (P1)', async () => {
    const { kv, clock, process } = world()
    const processes = upTo(8).map((seed) => counter({ kv, name: 'seats', start: 100, min: 0, modify: process(seed) }))
    const results = await ended(clock, Promise.all(upTo(400).map((n) => processes[n % 8]!.add('flight-7', -1))))
    const sold = results.filter(({ ok }) => ok)
    expect(sold.map(({ value }) => value).sort((a, b) => a - b)).toEqual(upTo(100).map((n) => n - 1))
    expect(results.filter((result) => !result.ok && result.refusal === 'bound' && result.value === 0)).toHaveLength(300)
  })

  test('that would cross a bound is refused with the count as it stands, and writes nothing (C5)', async () => {
    const { kv } = world()
    const seats = counter({ kv, name: 'seats', start: 1, min: 0, max: 2 })
    await seats.add('a', -1)
    kv.reset()
    expect(await seats.add('a', -1)).toMatchObject({ ok: false, refusal: 'bound', value: 0 })
    expect(await seats.add('a', 3)).toMatchObject({ ok: false, refusal: 'bound', value: 0 })
    expect(kv.counts()).toMatchObject({ create: 0, update: 0, set: 0 })
    expect(await seats.add('a', 2)).toMatchObject({ ok: true, value: 2 })
  })

  test('leads back towards a bound that was drawn anew, and never further away (C5)', async () => {
    const kv = memory()
    await counter({ kv, name: 'stock' }).add('a', 450)
    const lowered = counter({ kv, name: 'stock', max: 400 })
    expect(await lowered.add('a', 1)).toMatchObject({ ok: false, refusal: 'bound', value: 450 })
    expect(await lowered.add('a', -10)).toMatchObject({ ok: true, value: 440 })
    const raised = counter({ kv, name: 'stock', min: 1_000, start: 1_000 })
    expect(await raised.add('a', -1)).toMatchObject({ ok: false, value: 440 })
    expect(await raised.add('a', 1)).toMatchObject({ ok: true, value: 441 })
  })

  test('that gives back to a count that has ended does nothing: ifEpoch names another one (C5)', async () => {
    const { kv, clock } = world()
    const calls = counter({ kv, name: 'calls', ttl: '1m', min: 0 })
    const taken = await calls.add('ada', 3)
    await clock.advance('1m')
    expect(await calls.add('ada', -3, { ifEpoch: taken.epoch })).toEqual({ ok: false, refusal: 'epoch', value: 0, epoch: 0 })
    const next = await calls.add('ada', 1)
    expect(await calls.add('ada', -3, { ifEpoch: taken.epoch })).toEqual({ ok: false, refusal: 'epoch', value: 1, epoch: next.epoch })
    expect(await calls.add('ada', -1, { ifEpoch: next.epoch })).toMatchObject({ ok: true, value: 0 })
  })

  test.each([0, -0, NaN, Infinity, 0.5, 2 ** 53, '1', 1n, undefined])('refuses %s as a number to add (C9)', async (delta) => {
    const { kv } = world()
    await expect(counter({ kv, name: 'n' }).add('a', delta as number)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
    expect(kv.counts().total).toBe(0)
  })

  test.each([0n, 1, 10n ** 255n, NaN])('refuses %s as a bigint to add (C9)', async (delta) => {
    await expect(counter({ kv: memory(), name: 'n', bigint: true }).add('a', delta as bigint)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    })
  })

  test('beyond 2^53 - 1 throws and adds nothing; in bigints it goes on to 255 digits (C8)', async () => {
    const kv = memory()
    const cents = counter({ kv, name: 'cents' })
    await cents.add('a', Number.MAX_SAFE_INTEGER)
    await expect(cents.add('a', 1)).rejects.toMatchObject({ code: 'COUNTER_OVERFLOW', retry: 'never' })
    expect(await cents.get('a')).toMatchObject({ value: Number.MAX_SAFE_INTEGER })
    const large = counter({ kv, name: 'cents', bigint: true })
    expect(await large.add('a', 1n)).toMatchObject({ ok: true, value: 2n ** 53n })
    await expect(cents.get('a')).rejects.toMatchObject({ code: 'COUNTER_OVERFLOW' })
    await large.add('b', 10n ** 255n - 1n)
    await expect(large.add('b', 1n)).rejects.toMatchObject({ code: 'COUNTER_OVERFLOW' })
    expect(await large.get('b')).toMatchObject({ value: 10n ** 255n - 1n })
    await expect(cents.add('c', -Number.MAX_SAFE_INTEGER).then(() => cents.add('c', -1))).rejects.toMatchObject({
      code: 'COUNTER_OVERFLOW',
    })
  })

  test('carries a key of its own scope: a counter, another name and the user beside it never meet', async () => {
    const kv = memory()
    await kv.set('seats:a', new Uint8Array([1]))
    await counter({ kv, name: 'seats' }).add('a', 1)
    await counter({ kv, name: 'other' }).add('a', 7)
    expect(await counter({ kv, name: 'seats' }).get('a')).toMatchObject({ value: 1 })
    await expect(counter({ kv, name: 'seats' }).add('', 1)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' })
  })

  test('ends with its signal and its deadline', async () => {
    const { kv, clock, process } = world()
    const slow = faulty(kv, { clock, on: () => ({ delay: '5s' }) })
    const visits = counter({ kv: slow, name: 'v', modify: process() })
    await expect(visits.add('a', 1, { signal: AbortSignal.abort(new Error('gone')) })).rejects.toMatchObject({ code: 'ABORTED' })
    await expect(ended(clock, visits.add('a', 1, { deadline: 50 }))).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' })
    expect(await ended(clock, visits.get('a', { deadline: '6s' }))).toMatchObject({ value: 0 })
  })
})

describe('a repeated request', () => {
  test('gets its first answer and counts nothing, from another process too (C1)', async () => {
    const { kv, process } = world()
    const [one, two] = [1, 2].map((seed) => counter({ kv, name: 'seats', start: 10, modify: process(seed) })) as [Seats, Seats]
    const first = await one.add('a', -1, { requestId: 'order-7' })
    await two.add('a', -1, { requestId: 'order-8' })
    expect(await two.add('a', -1, { requestId: 'order-7' })).toEqual({ ...first, repeated: true })
    expect(await one.get('a')).toMatchObject({ value: 8 })
  })

  test('counts once when both come in one write (C1)', async () => {
    const seats = counter({ kv: memory(), name: 'seats' })
    const both = await Promise.all([1, 2].map(() => seats.add('a', 1, { requestId: 'order-7' })))
    expect(both).toMatchObject([
      { value: 1, repeated: false },
      { value: 1, repeated: true },
    ])
  })

  test('counts once when the first answer was lost after the write, without and with request ids of the store (C1)', async () => {
    for (const requestIds of [true, false]) {
      const { kv, clock, process } = world()
      const store: KV = { ...kv, capabilities: { ...kv.capabilities, requestIds } }
      const flaky = faulty(store, { on: (call) => (call.verb === 'create' ? 'unknown-after' : undefined) })
      const lost = counter({ kv: flaky, name: 'seats', modify: process() })
      const call = ended(clock, lost.add('a', 1, { requestId: 'order-7' }), 100)
      if (!requestIds) await expect(call).rejects.toMatchObject({ code: 'UNKNOWN_OUTCOME', retry: 'same-request-id' })
      else await call.catch(() => undefined)
      expect(await counter({ kv, name: 'seats' }).add('a', 1, { requestId: 'order-7' })).toMatchObject({ value: 1, repeated: true })
    }
  })

  test('gets its first answer also after a reset and after the end of the count, as long as it is remembered (C1)', async () => {
    const { kv, clock } = world()
    const seats = counter({ kv, name: 'seats', ttl: '1m', remember: '10m' })
    const first = await seats.add('a', 5, { requestId: 'order-7' })
    await seats.reset('a')
    expect(await seats.add('a', 5, { requestId: 'order-7' })).toEqual({ ...first, repeated: true })
    await clock.advance('9m')
    expect(await seats.get('a')).toMatchObject({ value: 0, epoch: 0 })
    expect(await seats.add('a', 5, { requestId: 'order-7' })).toEqual({ ...first, repeated: true })
    await seats.add('a', 1)
    expect(await seats.add('a', 5, { requestId: 'order-7' })).toEqual({ ...first, repeated: true })
    await clock.advance('1m')
    expect(await seats.add('a', 5, { requestId: 'order-7' })).toMatchObject({ ok: true, repeated: false })
  })

  test('is forgotten by time and never by number: a full record refuses, and knows all it promised (C1)', async () => {
    const { kv, clock } = world()
    const seats = counter({ kv, name: 'seats', requestsMax: 3, remember: '1m' })
    for (const n of [1, 2]) await seats.add('a', 1, { requestId: `o${n}` })
    await clock.advance('30s')
    await seats.add('a', 1, { requestId: 'o3' })
    await expect(seats.add('a', 1, { requestId: 'o4' })).rejects.toMatchObject({ code: 'RECORD_LOCKED', retry: 'safe' })
    expect(await seats.add('a', 1)).toMatchObject({ value: 4 })
    for (const n of [1, 2, 3]) expect(await seats.add('a', 1, { requestId: `o${n}` })).toMatchObject({ value: n, repeated: true })
    await clock.advance('30s')
    expect(await seats.add('a', 1, { requestId: 'o4' })).toMatchObject({ value: 5 })
    expect(await seats.add('a', 1, { requestId: 'o3' })).toMatchObject({ value: 3, repeated: true })
  })

  test('takes no more bytes than 64 for each that may be remembered (C1)', async () => {
    const { kv } = world()
    const seats = counter({ kv, name: 'seats', requestsMax: 8 })
    const ids = upTo(8).map((n) => String(n).repeat(128))
    const results = await Promise.allSettled(ids.map((requestId) => seats.add('a', 1, { requestId })))
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(2)
    expect(results[7]).toMatchObject({ reason: { code: 'RECORD_LOCKED' } })
    expect((await kv.get('counter:seats:a')).entry!.value.length).toBeLessThan(8 * 64 + 1_024)
  })

  test('with another amount is a mistake, and counts nothing', async () => {
    const seats = counter({ kv: memory(), name: 'seats' })
    await seats.add('a', 1, { requestId: 'order-7' })
    await expect(seats.add('a', 2, { requestId: 'order-7' })).rejects.toMatchObject({ code: 'REQUEST_ID_REUSED' })
    await expect(seats.update('a', (n) => n, { requestId: 'order-7' })).rejects.toMatchObject({ code: 'REQUEST_ID_REUSED' })
    expect(await seats.get('a')).toMatchObject({ value: 1 })
  })

  test('that was refused is not remembered: it may go through when there is room', async () => {
    const seats = counter({ kv: memory(), name: 'seats', max: 1 })
    await seats.add('a', 1)
    expect(await seats.add('a', 1, { requestId: 'order-7' })).toMatchObject({ ok: false })
    await seats.add('a', -1)
    expect(await seats.add('a', 1, { requestId: 'order-7' })).toMatchObject({ ok: true, repeated: false })
  })

  test('that was refused while an earlier sending is on its way may still count by that one: once, and within the bounds (C1)', async () => {
    const { kv, clock, process } = world()
    const [arrived, released] = [gate(), gate()]
    const on = async (call: StoreCall): Promise<Verdict> => {
      if (call.verb !== 'update') return 'pass'
      arrived.open()
      await released.passed
      return 'pass'
    }
    const slow = counter({ kv: faulty(kv, { on }), name: 'seats', max: 1, modify: process() })
    const quick = counter({ kv, name: 'seats', max: 1, modify: process() })
    await quick.add('a', 1)
    // Somebody gives a seat back in the very write that takes it again.
    const both = [slow.add('a', -1), slow.add('a', 1, { requestId: 'order-7' })]
    await arrived.passed
    expect(await quick.add('a', 1, { requestId: 'order-7' })).toMatchObject({ ok: false, refusal: 'bound', value: 1 })
    released.open()
    expect(await ended(clock, Promise.all(both))).toMatchObject([{ value: 0 }, { value: 1, repeated: false }])
    expect(await quick.add('a', 1, { requestId: 'order-7' })).toMatchObject({ ok: true, value: 1, repeated: true })
    expect(await quick.get('a')).toMatchObject({ value: 1 })
  })

  test.each(['', 'x'.repeat(129), 'ä'.repeat(65), '\ud800', 7])('refuses %j as a request id', async (requestId) => {
    await expect(counter({ kv: memory(), name: 'n' }).add('a', 1, { requestId: requestId as string })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    })
  })
})

describe('the end of a count', () => {
  test('stands in the record with the count: no crash can leave a count without its end (C2)', async () => {
    const { kv, clock } = world()
    const calls = counter({ kv, name: 'calls', ttl: '1m' })
    await calls.add('ada', 1)
    expect(kv.counts()).toMatchObject({ create: 1, total: 2 })
    const { entry } = await kv.get('counter:calls:ada')
    expect(countCodec.decode(entry!.value)).toMatchObject({ value: 1n, endsAt: clock.now() + 60_000 })
    expect(entry!.expiresAt).toBe(clock.now() + 60_000)
  })

  test('does not move with later adds (C3)', async () => {
    const { kv, clock } = world()
    const calls = counter({ kv, name: 'calls', ttl: '1m' })
    const { epoch } = await calls.add('ada', 1)
    await clock.advance('59s')
    expect(await calls.add('ada', 1)).toMatchObject({ value: 2, epoch })
    expect(await calls.get('ada')).toMatchObject({ value: 2, endsAt: clock.now() + 1_000 })
    await clock.advance(999)
    expect(await calls.get('ada')).toMatchObject({ value: 2 })
    await clock.advance(1)
    expect(await calls.get('ada')).toEqual({ value: 0, epoch: 0, now: clock.now() })
  })

  test("moves with each change under expiry: 'slide', and with no refusal (C3)", async () => {
    const { kv, clock } = world()
    const idle = counter({ kv, name: 'idle', ttl: '1m', expiry: 'slide', max: 2 })
    await idle.add('a', 1)
    await clock.advance('59s')
    expect(await idle.add('a', 1)).toMatchObject({ value: 2 })
    await clock.advance('59s')
    expect(await idle.add('a', 1)).toMatchObject({ ok: false, value: 2 })
    await clock.advance('1s')
    expect(await idle.get('a')).toMatchObject({ value: 0 })
  })

  test.each([undefined, 'order-7'])(
    'between the read and the write: the add counts in a new count with a whole new time (request id: %s) (C4)',
    async (requestId) => {
      const { kv, clock, process } = world()
      const [arrived, released] = [gate(), gate()]
      const on = async (call: StoreCall): Promise<Verdict> => {
        if (call.verb !== 'update' || call.nth > 1) return 'pass'
        arrived.open()
        await released.passed
        return 'pass'
      }
      const calls = counter({ kv: faulty(kv, { on }), name: 'calls', ttl: '1m', modify: process() })
      const { epoch } = await calls.add('ada', 4)
      await clock.advance('59s')
      const late = calls.add('ada', 1, { requestId })
      await arrived.passed
      await clock.advance('2s')
      released.open()
      const result = await ended(clock, late)
      expect(result).toMatchObject({ ok: true, value: 1, repeated: false })
      expect(result.epoch).toBeGreaterThan(epoch + 60_000)
      const seen = await calls.get('ada')
      expect(seen).toMatchObject({ value: 1, epoch: result.epoch, endsAt: result.epoch + 60_000 })
      if (requestId !== undefined) expect(await calls.add('ada', 1, { requestId })).toEqual({ ...result, repeated: true })
    },
  )

  test('is judged by a clock that was read after the call, also when the callers before were told an earlier time (C4)', async () => {
    const { kv, clock, process } = world()
    // The store takes the second write at 59 s, and its answer arrives at 62 s.
    const on = (call: StoreCall): Verdict => (call.verb === 'update' && call.nth === 1 ? { delay: '3s', when: 'after' } : 'pass')
    const calls = counter({ kv: faulty(kv, { clock, on }), name: 'calls', ttl: '1m', modify: process() })
    const { epoch } = await calls.add('ada', 4, { requestId: 'first' }) // the record outlives its count, so the store refuses nothing
    await clock.advance('59s')
    const before = calls.add('ada', 1)
    await clock.advance('2s')
    const after = [calls.add('ada', 1), calls.add('ada', 1, { requestId: 'second' }), calls.reset('ada')] as const
    expect(await ended(clock, before)).toMatchObject({ value: 5, epoch })
    const [added, named, reset] = await ended(clock, Promise.all(after))
    expect(added).toMatchObject({ ok: true, value: 1 })
    expect(named).toMatchObject({ ok: true, value: 2, epoch: added.epoch })
    expect(reset).toMatchObject({ ok: true, previous: 2 })
    expect(added.epoch).toBeGreaterThan(epoch + 60_000)
  })

  test('of a second count in one record is not cut short by the record’s own (C2)', async () => {
    const { kv, clock } = world()
    const calls = counter({ kv, name: 'calls', ttl: '1m', remember: '30s' })
    await calls.add('a', 5, { requestId: 'r' })
    await clock.advance('70s')
    expect(await calls.add('a', 1)).toMatchObject({ value: 1 })
    await clock.advance('59s')
    expect(await calls.add('a', 1)).toMatchObject({ value: 2 })
    await clock.advance('1s')
    expect((await kv.get('counter:calls:a')).entry).toBeUndefined()
  })

  test('costs no store call more: one read and one write when nobody else is there', async () => {
    const { kv } = world()
    const calls = counter({ kv, name: 'calls', ttl: '1m' })
    await calls.add('a', 1)
    for (let turns = 0; turns < 5; turns++) await new Promise((resolve) => setImmediate(resolve))
    kv.reset()
    await calls.add('a', 1)
    expect(kv.counts()).toMatchObject({ get: 1, update: 1, total: 2 })
  })

  test('is set at the next change when the counter gets a ttl later', async () => {
    const { kv, clock } = world()
    await counter({ kv, name: 'n' }).add('a', 1)
    const timed = counter({ kv, name: 'n', ttl: '1m' })
    expect(await timed.add('a', 1)).toMatchObject({ value: 2 })
    await clock.advance('1m')
    expect(await timed.get('a')).toMatchObject({ value: 0 })
  })

  test('takes the record along once nothing is remembered any more', async () => {
    const { kv, clock } = world()
    const calls = counter({ kv, name: 'calls', ttl: '1m', remember: '5m' })
    await calls.add('a', 1)
    await calls.add('b', 1, { requestId: 'r' })
    await clock.advance('1m')
    expect((await kv.get('counter:calls:a')).entry).toBeUndefined()
    expect((await kv.get('counter:calls:b')).entry).toBeDefined()
    await clock.advance('5m')
    expect((await kv.get('counter:calls:b')).entry).toBeUndefined()
  })
})

describe('update', () => {
  test('runs its function again when another process was faster, and says so (C6)', async () => {
    const { kv, clock, process } = world()
    const other = counter({ kv, name: 'n', modify: process(2) })
    await other.add('a', 1)
    const raced = faulty(kv, {
      on: async (call): Promise<Verdict> => {
        if (call.verb === 'update' && call.nth === 1) await other.add('a', 10)
        return 'pass'
      },
    })
    const seen: (readonly [number, number])[] = []
    const double = counter({ kv: raced, name: 'n', modify: process(1) }).update('a', (value, { attempt }) => {
      seen.push([value, attempt])
      return value * 2
    })
    expect(await ended(clock, double)).toMatchObject({ ok: true, value: 22 })
    expect(seen[0]).toEqual([1, 1])
    expect(seen.at(-1)).toEqual([11, 2])
  })

  test('keeps the bounds, refuses what is no count, and fails alone when its function throws', async () => {
    const n = counter({ kv: memory(), name: 'n', max: 5 })
    const [added, over, half, thrown] = await Promise.allSettled([
      n.update('a', (value) => value + 5),
      n.update('a', (value) => value + 1),
      n.update('a', () => 0.5),
      n.update('a', () => {
        throw new RangeError('mine')
      }),
    ])
    expect(added).toMatchObject({ value: { ok: true, value: 5 } })
    expect(over).toMatchObject({ value: { ok: false, refusal: 'bound', value: 5 } })
    expect(half).toMatchObject({ reason: { code: 'INVALID_ARGUMENT' } })
    expect(thrown).toMatchObject({ reason: { message: 'mine' } })
  })
})

describe('reset', () => {
  test('begins a new count at start, and says what the old one had come to', async () => {
    const { kv } = world()
    const seats = counter({ kv, name: 'seats', start: 10 })
    expect(await seats.reset('a')).toEqual({ ok: true, value: 10, epoch: 0, previous: 10 })
    const before = await seats.add('a', -4)
    const reset = await seats.reset('a')
    expect(reset).toMatchObject({ ok: true, value: 10, previous: 6 })
    expect(reset.epoch).toBeGreaterThan(before.epoch)
    expect(await seats.get('a')).toMatchObject({ value: 10, epoch: reset.epoch })
  })

  test('against concurrent adds of other processes loses none: each counts wholly before or after it, as its epoch says (C10)', async () => {
    for (const seed of upTo(20)) {
      const { kv, clock, process } = world()
      const adders = upTo(4).map((n) => counter({ kv, name: 'n', modify: process(seed * 10 + n) }))
      await adders[0]!.add('a', 1)
      const resetter = counter({ kv, name: 'n', modify: process(seed * 10) })
      const [reset, ...added] = await ended(clock, Promise.all([resetter.reset('a'), ...upTo(40).map((n) => adders[n % 4]!.add('a', 1))]))
      const before = added.filter(({ epoch }) => epoch < reset.epoch).length
      expect(reset).toMatchObject({ ok: true, previous: 1 + before })
      expect(await resetter.get('a')).toMatchObject({ value: 40 - before, epoch: reset.epoch })
    }
  })

  test('with ifEpoch happens once, also when it is sent again (C10)', async () => {
    const n = counter({ kv: memory(), name: 'n' })
    const { epoch } = await n.add('a', 3)
    const reset = await n.reset('a', { ifEpoch: epoch })
    await n.add('a', 1)
    expect(await n.reset('a', { ifEpoch: epoch })).toEqual({ ok: false, refusal: 'epoch', value: 1, epoch: reset.epoch })
  })
})

describe('when it is built', () => {
  test('a counter refuses a store of several homes a key (C11)', () => {
    const kv = memory()
    const both: KV = { ...kv, capabilities: { ...kv.capabilities, sites: 'many' } }
    expect(() => counter({ kv: both, name: 'n' })).toThrow(expect.objectContaining({ code: 'CAPABILITY_MISSING' }))
    const clockless: KV = { ...kv, capabilities: { ...kv.capabilities, serverClock: false } }
    expect(() => counter({ kv: clockless, name: 'n' })).toThrow(expect.objectContaining({ code: 'CAPABILITY_MISSING' }))
    const small = memory({ limits: 'juno' })
    expect(() => counter({ kv: small, name: 'n', requestsMax: 4_000 })).toThrow(expect.objectContaining({ code: 'CAPABILITY_MISSING' }))
    expect(() => counter({ kv: small, name: 'n', ttl: '3d' })).toThrow(expect.objectContaining({ code: 'CAPABILITY_MISSING' }))
    counter({ kv: small, name: 'n', ttl: '2d' })
  })

  test.each([
    { name: 'a:b' },
    { name: '' },
    { min: 1 },
    { max: -1 },
    { min: 0.5 },
    { expiry: 'slide' as const },
    { expiry: 'later' as 'keep', ttl: 1_000 },
    { ttl: 0 },
    { requestsMax: 0 },
    { requestsMax: 16_385 },
    { remember: 0 },
  ])('a counter refuses %o', (options) => {
    expect(() => counter({ kv: memory(), name: 'n', ...options })).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  })
})

test('events tell what happened, without a key or a request id', async () => {
  const { kv, clock } = world()
  const told: CountersEvent[] = []
  const listen = (event: unknown) => told.push(event as CountersEvent)
  channel('hapax:counters').subscribe(listen)
  const n = counter({ kv, name: 'n', max: 1, ttl: '1m' })
  await n.add('secret-key', 1, { requestId: 'secret-id' })
  await n.add('secret-key', 1, { requestId: 'secret-id' })
  await n.add('secret-key', 1)
  await n.reset('secret-key')
  await n.reset('secret-key', { ifEpoch: 1 })
  channel('hapax:counters').unsubscribe(listen)
  expect(told.map(({ type, refusal }) => refusal ?? type)).toEqual(['added', 'repeated', 'bound', 'reset', 'epoch'])
  expect(new Set(told.map(({ id }) => id)).size).toBe(1)
  expect(told[0]).toMatchObject({ kind: 'counter', name: 'n' })
  expect(JSON.stringify(told)).not.toContain('secret')
  await clock.advance(1)
})

type Seats = ReturnType<typeof counter>
