/** modify: callers of one key join into one write, each gets its own answer, and what is not known is said. Store calls are counted, never timed. */
import { expect, test } from 'vitest'
import { seededRandom } from '../base/random.ts'
import { memory } from '../stores/memory.ts'
import { counting, faulty, intercept, testClock, type Verdict } from '../testing/index.ts'
import { json, text } from './codec.ts'
import { isKvError, KvError } from './errors.ts'
import type { Change, ModifyResult } from './join.ts'
import type { KV } from './kv.ts'
import { modifier, modify, modifyLimits, type ModifyOptions } from './modify.ts'
import { scoped } from './scoped.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)

interface Count {
  readonly n: number
}
const one: Change<Count> = (count) => ({ n: (count?.n ?? 0) + 1 })
const counts = (kv: KV): KV<Count> => scoped(kv, 'count', { codec: json<Count>() })
const upTo = (n: number): number[] => Array.from({ length: n }, (_, index) => index + 1)

/** A `modify` on a test clock: nothing passes by itself, and no wait is longer than `random` says. */
function onClock(random: () => number = () => 0) {
  const clock = testClock()
  const modifyHere = modifier({
    random,
    clock: () => clock.elapsed(),
    after: (ms, callback) => {
      const timer = clock.setTimeout(callback, ms)
      return () => clock.clearTimeout(timer)
    },
  })
  return { clock, modify: modifyHere }
}

/** A store whose calls wait until they are let go, one by one. */
function gated(kv: KV) {
  const waiting: (() => void)[] = []
  const log: string[] = []
  const held = intercept(kv, async (call, run) => {
    log.push(call.verb)
    await new Promise<void>((resolve) => waiting.push(resolve))
    return run()
  })
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  return {
    kv: held,
    log,
    /** Lets the next call pass. */
    async pass(): Promise<void> {
      while (waiting.length === 0) await turn()
      waiting.shift()?.()
      await turn()
    },
  }
}
const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => (isKvError(error) ? error.code : String(error)),
  )

test('400 callers of one key take at most 0.05 store calls an update, each with its own number in order of arrival (G11, G42)', async () => {
  const clock = testClock()
  // A store that answers 0.2 ms later by count: five turns of the event loop a call.
  const store = counting(
    intercept(memory({ clock }), async (_call, run) => {
      for (let turns = 0; turns < 5; turns++) await new Promise((resolve) => setImmediate(resolve))
      return run()
    }),
  )
  const kv = counts(store)
  const rounds = 25
  const seen: number[] = []
  await Promise.all(
    upTo(400).map(async () => {
      for (let round = 0; round < rounds; round++) {
        const { entry, changed } = await modify(kv, 'hot', one)
        expect(changed).toBe(true)
        seen.push(entry!.value.n)
      }
    }),
  )
  expect(seen).toEqual(upTo(400 * rounds))
  const calls = Object.values(store.counts()).reduce((sum, count) => sum + count, 0)
  expect(calls / (400 * rounds)).toBeLessThanOrEqual(0.05)
  expect((await kv.get('hot')).entry?.value.n).toBe(400 * rounds)
})

test('a key that stays busy costs one store call a batch, because the last answer is the next guess', async () => {
  const store = counting(memory())
  const kv = counts(store)
  for (let round = 0; round < 10; round++) await modify(kv, 'a', one)
  expect(store.counts()).toMatchObject({ get: 1, create: 1, update: 9 })
})

test('who is answered and comes again joins those who came meanwhile: one store call for all, again and again', async () => {
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  const store = counting(intercept(memory(), (_, run) => turn().then(run)))
  const kv = counts(store)
  let begun = 0
  const adding = async (turns: number): Promise<void> => {
    for (let passed = 0; passed < turns; passed++) await turn()
    // As a pattern's call: some promises lie between the answer and who waits for it.
    const call = async () => await modify(kv, 'a', one)
    while (begun++ < 1_000) await call().then((result) => result)
  }
  await Promise.all(upTo(10).map(adding))
  expect((await kv.get('a')).entry?.value.n).toBe(1_000)
  expect(store.counts().update).toBeLessThanOrEqual(120)
})

test('the guess is forgotten after an idle turn', async () => {
  const store = counting(memory())
  const kv = counts(store)
  await modify(kv, 'a', one)
  for (let turns = 0; turns < 3; turns++) await new Promise((resolve) => setImmediate(resolve))
  await modify(kv, 'a', one)
  expect(store.counts()).toMatchObject({ get: 2, create: 1, update: 1 })
})

test('callers through different scopes and codecs of one store join, each with its own codec', async () => {
  const store = counting(memory())
  const asJson = scoped(store, 's', { codec: json<number>() })
  const asText = scoped(store, 's', { codec: text })
  const again = scoped(store, 's', { codec: json<number>() })
  const results = await Promise.all([
    modify(asJson, 'a', () => 1),
    modify(asText, 'a', (current) => `${current}0`),
    modify(again, 'a', (current) => (current ?? 0) + 5),
    modify(store, 's:a', (current) => new Uint8Array([...current!, 0x39])),
    modify(asJson, 'a', (current) => (current ?? 0) + 1),
  ])
  expect(results.map(({ entry }) => entry?.value)).toEqual([1, '10', 15, new Uint8Array([0x31, 0x35, 0x39]), 160])
  expect(store.counts()).toMatchObject({ get: 1, create: 1, update: 0 })
  expect((await asText.get('a')).entry?.value).toBe('160')
})

test('a function that throws rejects its own caller alone and changes nothing', async () => {
  const kv = counts(memory())
  const boom = new Error('boom')
  const [first, second, third] = await Promise.allSettled([
    modify(kv, 'a', one),
    modify(kv, 'a', () => {
      throw boom
    }),
    modify(kv, 'a', one),
  ])
  expect(first).toMatchObject({ value: { entry: { value: { n: 1 } } } })
  expect(second).toEqual({ status: 'rejected', reason: boom })
  expect(third).toMatchObject({ value: { entry: { value: { n: 2 } } } })
})

test('a function that changes its argument in place is refused by the freeze, deep down as well', async () => {
  const kv = scoped(memory(), 'x', { codec: json<{ n: number; list: number[] }>() })
  await kv.set('a', { n: 1, list: [1] })
  const inPlace = modify(kv, 'a', (value) => {
    value!.list.push(2)
    return value
  })
  await expect(inPlace).rejects.toThrow(TypeError)
  expect((await kv.get('a')).entry?.value).toEqual({ n: 1, list: [1] })
})

test('what one caller returned cannot be changed in place by the next one who joined', async () => {
  const kv = scoped(memory(), 'x', { codec: json<{ n: number }>() })
  const [first, second] = await Promise.allSettled([
    modify(kv, 'a', () => ({ n: 1 })),
    modify(kv, 'a', (value) => {
      value!.n++
      return value
    }),
  ])
  expect(first).toMatchObject({ value: { entry: { value: { n: 1 } } } })
  expect(second).toMatchObject({ reason: expect.any(TypeError) })
})

test('undefined leaves things as they are and writes nothing', async () => {
  const store = counting(memory())
  const kv = counts(store)
  expect(await modify(kv, 'a', () => undefined)).toMatchObject({ entry: undefined, changed: false })
  const made = await kv.create('a', { n: 3 })
  const left = await modify(kv, 'a', () => undefined)
  expect(left).toMatchObject({ entry: made.entry, changed: false })
  expect(store.counts()).toMatchObject({ update: 0, set: 0, create: 1 })
})

test('a function that answers with a promise is refused', async () => {
  const kv = scoped(memory(), 'x', { codec: json() })
  expect(await codeOf(modify(kv, 'a', async () => 1))).toBe('INVALID_ARGUMENT')
  expect((await kv.get('a')).entry).toBeUndefined()
})

test('a value that cannot be stored, or is too large, rejects its own caller alone', async () => {
  const kv = scoped(memory({ limits: { valueBytesMax: 20 } }), 'x', { codec: json<unknown>() })
  const results = await Promise.all([
    codeOf(modify(kv, 'a', () => 'kept')),
    codeOf(modify(kv, 'a', () => Number.NaN)),
    codeOf(modify(kv, 'a', () => 'x'.repeat(50))),
    codeOf(modify(kv, 'a', (current) => `${String(current)} still`)),
  ])
  expect(results).toEqual(['none', 'VALUE_INVALID', 'TOO_LARGE', 'none'])
  expect((await kv.get('a')).entry?.value).toBe('kept still')
})

test('the version of a state that a later caller changed in the same write equals no state of the store', async () => {
  const kv = counts(memory())
  const [first, last] = await Promise.all([modify(kv, 'a', one), modify(kv, 'a', one)])
  expect(first.entry?.version).not.toBe(last.entry?.version)
  expect(await kv.update('a', { n: 9 }, { ifVersion: first.entry!.version })).toMatchObject({ ok: false, refusal: 'version' })
  expect(await kv.update('a', { n: 9 }, { ifVersion: last.entry!.version })).toMatchObject({ ok: true })
})

test('a refused write runs again on the entry of its refusal, without a read', async () => {
  const below = memory()
  let meddled = false
  const store = counting(
    intercept(below, async (call, run) => {
      if (call.verb === 'update' && !meddled) {
        meddled = true
        await counts(below).set('a', { n: 100 })
      }
      return run()
    }),
  )
  const { modify: modifyHere } = onClock()
  await counts(below).create('a', { n: 1 })
  const attempts: number[] = []
  const { entry } = await modifyHere(counts(store), 'a', (count, { attempt }) => {
    attempts.push(attempt)
    return one(count, { now: 0 as never, attempt })
  })
  expect(entry?.value.n).toBe(101)
  expect(attempts).toEqual([1, 2])
  expect(store.counts()).toMatchObject({ get: 1, update: 2 })
})

test('two processes lose nothing between them, with jitter', async () => {
  const below = memory()
  const random = seededRandom(seed)
  // A `modifier` of its own joins nothing with the others: as another process would.
  const processes = upTo(4).map(() =>
    modifier({
      random: () => random.next(),
      clock: () => performance.now(),
      after: (_ms, callback, idle) => {
        if (!idle) setImmediate(callback)
        return () => undefined
      },
    }),
  )
  const slow = intercept(below, async (_call, run) => {
    for (let turns = random.int(3); turns >= 0; turns--) await new Promise((resolve) => setImmediate(resolve))
    return run()
  })
  const kv = counts(slow)
  const each = 100
  await Promise.all(
    processes.map(async (here) => {
      for (let round = 0; round < each / 10; round++) await Promise.all(upTo(10).map(() => here(kv, 'a', one)))
    }),
  )
  expect((await kv.get('a')).entry?.value.n, `seed ${seed}`).toBe(4 * each)
})

test('an entry that dies between read and write is made anew from nothing (C4)', async () => {
  const clock = testClock()
  const store = gated(memory({ clock }))
  const kv = counts(store.kv)
  const made = kv.create('a', { n: 41 }, { ttl: 1_000 })
  await store.pass()
  await made
  const { modify: here } = onClock()
  const seen: (number | undefined)[] = []
  const result = here(kv, 'a', (count) => {
    seen.push(count?.n)
    return { n: (count?.n ?? 0) + 1 }
  })
  await store.pass() // the read finds it alive
  clock.set(clock.now() + 1_000)
  await store.pass() // the update finds it dead
  await store.pass() // the create
  expect((await result).entry?.value.n).toBe(1)
  expect(seen).toEqual([41, undefined])
  expect(store.log).toEqual(['create', 'get', 'update', 'create'])
})

test('expiries of joined callers fold in their order', async () => {
  const clock = testClock()
  const kv = counts(memory({ clock }))
  const start = clock.now()
  const expiries = async (calls: ModifyOptions[]): Promise<(number | undefined)[]> => {
    await kv.set('a', { n: 0 }, { expiry: { set: 5_000 } })
    const results = await Promise.all(calls.map((options) => modify(kv, 'a', one, options)))
    expect((await kv.get('a')).entry?.expiresAt).toBe(results.at(-1)?.entry?.expiresAt)
    return results.map(({ entry }) => (entry?.expiresAt === undefined ? undefined : entry.expiresAt - start))
  }
  expect(await expiries([{}, {}])).toEqual([5_000, 5_000])
  expect(await expiries([{ expiry: { extend: 1_000 } }, { expiry: { extend: 9_000 } }, {}])).toEqual([5_000, 9_000, 9_000])
  expect(await expiries([{ expiry: 'never' }, {}, { expiry: { set: 10 } }])).toEqual([undefined, undefined, 10])
  expect(await expiries([{ expiry: { set: 10 } }, { expiry: 'never' }])).toEqual([10, undefined])
  await kv.destroy('a')
  const [born, next] = await Promise.all([modify(kv, 'a', one, { ttl: 70 }), modify(kv, 'a', one, { ttl: 90 })])
  expect([born.entry!.expiresAt! - start, next.entry!.expiresAt! - start]).toEqual([70, 70])
})

test('a change whose expiry has passed ends the life at once, and the next caller begins a new one', async () => {
  const clock = testClock()
  const kv = counts(memory({ clock }))
  await kv.create('a', { n: 7 })
  const ended = modify(kv, 'a', one, { expiry: { until: clock.now() } })
  const next = modify(kv, 'a', one)
  expect((await ended).entry?.value.n).toBe(8)
  expect((await next).entry?.value.n).toBe(1)
})

test('a caller whose signal ends it before its turn is taken out', async () => {
  const store = gated(memory())
  const kv = counts(store.kv)
  const first = modify(kv, 'a', one)
  const stop = new AbortController()
  const second = modify(kv, 'a', one, { signal: stop.signal })
  stop.abort(new Error('gone'))
  expect(await codeOf(second)).toBe('ABORTED')
  await store.pass()
  await store.pass()
  expect((await first).entry?.value.n).toBe(1)
})

test('a caller that ends while its change is being written has an unknown outcome, and the write goes on', async () => {
  const store = gated(memory())
  const kv = counts(store.kv)
  const stop = new AbortController()
  const leaves = modify(kv, 'a', one, { signal: stop.signal })
  const stays = modify(kv, 'a', one)
  await store.pass()
  stop.abort()
  expect(await codeOf(leaves)).toBe('UNKNOWN_OUTCOME')
  await store.pass()
  expect((await stays).entry?.value.n).toBe(2)
})

test('a deadline ends the wait without effect, and frees the key when the store keeps to it', async () => {
  const { clock, modify: here } = onClock()
  const kv = counts(faulty(memory({ clock }), { clock, on: ({ verb, nth }) => (verb === 'get' && nth === 1 ? { delay: '1h' } : 'pass') }))
  const late = here(kv, 'a', one, { deadline: '2s' })
  const told = codeOf(late)
  await clock.advance('2s')
  expect(await told).toBe('DEADLINE_EXCEEDED')
  expect((await here(kv, 'a', one)).entry?.value.n).toBe(1)
})

test('one timer serves the deadlines of all callers of a key, each at its own time, and none is left', async () => {
  const clock = testClock()
  const set = new Set<object>()
  let most = 0
  const here = modifier({
    random: () => 0,
    clock: () => clock.elapsed(),
    after: (ms, callback) => {
      const timer = {}
      const cancel = () => set.delete(timer)
      const handle = clock.setTimeout(() => cancel() && callback(), ms)
      most = Math.max(most, set.add(timer).size)
      return () => {
        clock.clearTimeout(handle)
        cancel()
      }
    },
  })
  const store = gated(memory({ clock }))
  const kv = counts(store.kv)
  const ended: string[] = []
  const calls = [300, 100, 200, 9_000].map(async (deadline) =>
    ended.push(`${await codeOf(here(kv, 'a', one, { deadline }))} at ${clock.elapsed()}`),
  )
  await store.pass() // the first three are in the write, and the fourth with them
  const late = codeOf(here(kv, 'a', one, { deadline: 150 }))
  for (let ms = 0; ms < 400; ms += 50) await clock.advance(50)
  expect(ended).toEqual(['UNKNOWN_OUTCOME at 100', 'UNKNOWN_OUTCOME at 200', 'UNKNOWN_OUTCOME at 300'])
  expect(await late).toBe('DEADLINE_EXCEEDED')
  await store.pass()
  await Promise.all(calls)
  expect(ended[3]).toBe('none at 400')
  await new Promise((resolve) => setImmediate(resolve))
  await new Promise((resolve) => setImmediate(resolve))
  expect({ most, left: set.size }).toEqual({ most: 1, left: 0 })
})

test('a deadline that passes while others win every time says CONTENTION', async () => {
  const { clock, modify: here } = onClock(() => 0.99)
  const below = memory({ clock })
  await counts(below).create('a', { n: 0 })
  let n = 1_000
  const kv = counts(
    intercept(below, async (call, run) => {
      if (call.verb === 'update') await counts(below).set('a', { n: n++ })
      return run()
    }),
  )
  const told = codeOf(here(kv, 'a', one, { deadline: 300 }))
  await clock.advance(400)
  expect(await told).toBe('CONTENTION')
})

test('the pause between two losses is a random part of 1, 2, 4 ... and at most 50 ms', async () => {
  const pauses: number[] = []
  const clock = testClock()
  const here = modifier({
    random: () => 0.999_999,
    clock: () => 0,
    after: (ms, callback, idle) => {
      if (!idle) {
        pauses.push(ms)
        setImmediate(callback)
      }
      return () => undefined
    },
  })
  const below = memory({ clock })
  await counts(below).create('a', { n: 0 })
  let meddle = 8
  let reads = 0
  const kv = counts(
    intercept(below, async (call, run) => {
      if (call.verb === 'get') reads++
      if (call.verb === 'update' && meddle-- > 0) await counts(below).set('a', { n: 0 })
      return run()
    }),
  )
  await here(kv, 'a', one)
  expect(pauses).toEqual([2, 4, 8, 16, 32, 50, 50, 50])
  expect(reads, 'after a pause the key is read anew').toBe(1 + pauses.length)
})

const unknowns: readonly Verdict[] = ['unknown-before', 'unknown-after', 'unknown-later']
for (const verdict of unknowns) {
  test(`a write with an outcome ${verdict} is repeated under its name and applied once`, async () => {
    const { modify: here } = onClock()
    const store = faulty(memory(), { on: ({ verb, nth }) => (verb === 'update' && nth % 2 === 0 ? verdict : 'pass') })
    const kv = counts(store)
    await kv.create('a', { n: 0 })
    for (let round = 1; round <= 10; round++) expect((await here(kv, 'a', one)).entry?.value.n).toBe(round)
    await store.calm()
    expect((await kv.get('a')).entry?.value.n).toBe(10)
  })
}

test('without request ids an unknown outcome goes to those who changed something, and the others go on', async () => {
  const below = memory()
  const plain: KV = { ...below, capabilities: { ...below.capabilities, requestIds: false } }
  const kv = counts(faulty(plain, { on: ({ verb }) => (verb === 'create' ? 'unknown-after' : 'pass') }))
  const [changes, looks] = await Promise.all([codeOf(modify(kv, 'a', one)), modify(kv, 'a', () => undefined)])
  expect(changes).toBe('UNKNOWN_OUTCOME')
  expect(looks).toMatchObject({ changed: false, entry: { value: { n: 1 } } })
})

test('repetition ends after 10 s, before the store may forget the request', async () => {
  const { clock, modify: here } = onClock(() => 0.99)
  let sent = 0
  const kv = counts(faulty(memory({ clock }), { on: ({ verb }) => (verb === 'create' ? (sent++, 'unknown-before') : 'pass') }))
  const told = codeOf(here(kv, 'a', one, { deadline: '60s' }))
  await clock.advance(modifyLimits.repeatMsMax + 100)
  expect(await told).toBe('UNKNOWN_OUTCOME')
  const before = sent
  await clock.advance('20s')
  expect(sent).toBe(before)
})

test('writes name their session, rise, and say what is done, so that a record keeps one name a process', async () => {
  const ids: unknown[] = []
  const store = intercept(memory(), async (call, run) => {
    if ('requestId' in call.options && call.options.requestId !== undefined) ids.push(call.options.requestId)
    return run()
  })
  const { modify: here } = onClock()
  for (let round = 0; round < 3; round++) await here(counts(store), 'a', one)
  const [{ session }] = ids as [{ session: string }]
  expect(ids).toEqual(upTo(3).map((sequence) => ({ session, sequence, done: sequence, attempt: 1 })))
})

test('5,000 updates one after another within the completions life meet no bound', async () => {
  const clock = testClock()
  const kv = counts(memory({ clock }))
  for (let round = 0; round < 5_000; round++) await modify(kv, 'a', one)
  expect((await kv.get('a')).entry?.value.n).toBe(5_000)
})

test('an answer without a change rests on a state read after its caller came', async () => {
  const below = memory()
  const store = gated(below)
  await counts(below).create('a', { n: 1 })
  const kv = counts(store.kv)
  const first = modify(kv, 'a', () => undefined)
  await new Promise((resolve) => setImmediate(resolve))
  const second = modify(kv, 'a', () => undefined) // comes while the first one's read is on its way
  await store.pass()
  expect((await first).entry?.value.n).toBe(1)
  await counts(below).set('a', { n: 2 })
  await store.pass()
  expect((await second).entry?.value.n).toBe(2)
})

test('who asks for a fresh state is decided on one that was read after it came, and only those behind it wait for that', async () => {
  const clock = testClock()
  const store = gated(memory({ clock }))
  const kv = counts(store.kv)
  const seen: number[] = []
  const at: Change<Count> = (count, { now }) => {
    seen.push(now - start)
    return { n: (count?.n ?? 0) + 1 }
  }
  const start = clock.now()
  const first = modify(kv, 'a', at)
  await store.pass() // the read; the create is on its way
  await clock.advance(10)
  const calls = [first, ...[true, false].map((fresh) => modify(kv, 'a', at, { fresh }))]
  await store.pass() // the create, whose answer is older than the second caller
  await clock.advance(10)
  await store.pass() // so that one and who is behind it wait for a read
  await clock.advance(10)
  calls.push(...[false, true].map((fresh) => modify(kv, 'a', at, { fresh })))
  await store.pass() // the update: its answer is old enough for the fourth, and what that one writes is young enough for the fifth
  for (let call = 0; call < 2; call++) await store.pass()
  expect((await Promise.all(calls)).map(({ entry }) => entry?.value.n)).toEqual([1, 2, 3, 4, 5])
  expect(store.log).toEqual(['get', 'create', 'get', 'update', 'update', 'update'])
  expect(seen).toEqual([0, 20, 20, 30, 30])
})

test('beyond its bound a key refuses callers with BUSY, and those who wait are served', async () => {
  const store = gated(memory())
  const kv = counts(store.kv)
  const waiting = upTo(modifyLimits.waitingMax + 1).map(() => modify(kv, 'a', one)) // the first is in work, not waiting
  expect(await codeOf(modify(kv, 'a', one))).toBe('BUSY')
  const calls = 1 + Math.ceil(waiting.length / modifyLimits.batchMax) // a read, then full batches
  for (let call = 0; call < calls; call++) await store.pass()
  const results = await Promise.all(waiting)
  expect(results.at(-1)?.entry?.value.n).toBe(waiting.length)
})

test('a failed read rejects the callers with the error of the store', async () => {
  const kv = counts(faulty(memory(), { on: ({ verb, nth }) => (verb === 'get' && nth === 1 ? 'unavailable' : 'pass') }))
  expect(await codeOf(modify(kv, 'a', one))).toBe('UNAVAILABLE')
  expect((await modify(kv, 'a', one)).entry?.value.n).toBe(1)
})

const wrong: readonly [string, (kv: KV) => Promise<ModifyResult<Uint8Array>>][] = [
  ['an empty key', (kv) => modify(kv, '', (value) => value)],
  ['a change that is no function', (kv) => modify(kv, 'a', 1 as never)],
  ['a deadline of nothing', (kv) => modify(kv, 'a', (value) => value, { deadline: 0 })],
  ['a ttl that is none', (kv) => modify(kv, 'a', (value) => value, { ttl: '1 week' as never })],
  ['an expiry that is none', (kv) => modify(kv, 'a', (value) => value, { expiry: {} as never })],
  ['a value that is no bytes', (kv) => modify(kv, 'a', () => 'text' as never)],
]
for (const [what, call] of wrong) {
  test(`refuses ${what}`, async () => {
    const store = counting(memory())
    expect(await codeOf(call(store))).toBe('INVALID_ARGUMENT')
    expect((await store.get('a')).entry).toBeUndefined()
  })
}

test('a value that only the store can refuse fails its own caller, and those who joined are served', async () => {
  const kv = memory()
  const results = await Promise.all([
    codeOf(modify(kv, 'a', () => new Uint8Array([1]))),
    codeOf(modify(kv, 'a', (current) => new Uint8Array([...current!, 2]))),
    codeOf(modify(kv, 'a', (current) => new Uint8Array([...current!, 3]))),
    codeOf(modify(kv, 'a', () => 'text' as never)),
  ])
  expect(results).toEqual(['none', 'none', 'none', 'INVALID_ARGUMENT'])
  expect((await kv.get('a')).entry?.value).toEqual(new Uint8Array([1, 2, 3]))
})

test('random callers, codecs and faults end where a plain sum ends', async () => {
  const random = seededRandom(seed)
  const { modify: here } = onClock()
  const store = faulty(memory(), { seed, unknownBeforeApply: 0.1, unknownAfterApply: 0.1, unknownApplyLater: 0.05, unavailable: 0.05 })
  const views = [scoped(store, 'c', { codec: json<number>() }), scoped(store, 'c', { codec: json<number>() })]
  let sum = 0
  for (let round = 0; round < 60; round++) {
    const calls = upTo(1 + random.int(20)).map(async () => {
      const amount = random.int(9)
      const fails = random.chance(0.1)
      try {
        const { changed } = await here(random.pick(views), 'a', (current) => {
          if (fails) throw new Error('no')
          return amount === 0 ? undefined : (current ?? 0) + amount
        })
        if (changed) sum += amount
      } catch (error) {
        if (!(error instanceof KvError) && (error as Error).message !== 'no') throw error
        expect(isKvError(error, 'UNKNOWN_OUTCOME'), `seed ${seed}`).toBe(false)
      }
    })
    await Promise.all(calls)
  }
  await store.calm()
  expect((await views[0]!.get('a')).entry?.value ?? 0, `seed ${seed}`).toBe(sum)
})
