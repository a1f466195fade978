/** Names, repetitions and ends of calls, on a ticker that the test moves. */
import { describe, expect, test } from 'vitest'
import { epochMs, type Millis } from '../base/types.ts'
import { isKvError, KvError, type KvErrorCode } from '../kv/errors.ts'
import type { Entry, RequestId, Version } from '../kv/kv.ts'
import type { Ticker } from '../net/ticker.ts'
import type { KvOperation, Request } from '../record/operation.ts'
import { Calls, type Sending, type Told } from './calls.ts'

/** Time that goes on when everybody waits. */
class TestTicker implements Ticker {
  #now = 0
  readonly #timers = new Set<{ at: number; act: () => void }>()
  now = (): number => this.#now
  after(ms: number, act: () => void): () => void {
    const timer = { at: this.#now + ms, act }
    this.#timers.add(timer)
    queueMicrotask(() => setImmediate(() => this.#next()))
    return () => this.#timers.delete(timer)
  }
  move(ms: number): void {
    this.#now += ms
  }
  #next(): void {
    const [first] = [...this.#timers].sort((a, b) => a.at - b.at)
    if (first === undefined) return
    this.#timers.delete(first)
    this.#now = Math.max(this.#now, first.at)
    first.act()
  }
}

const start = 1_767_225_600_000
const entry: Entry = { value: new Uint8Array([1]), version: '1.a.x' as Version, createdAt: epochMs(start) }
const nameless: Request = { session: 'made-up', sequence: 0, remember: false, done: 0, attempt: 1 }
const create = (request: Request = nameless): KvOperation => ({ verb: 'create', request, value: entry.value, expiry: { type: 'never' } })
const patient = { signal: undefined, deadlineMs: undefined }

/** Calls whose sendings are answered by a script: a code, or 'ok'; the last step is repeated. */
function scripted(...steps: readonly (KvErrorCode | 'ok' | { readonly told: KvErrorCode })[]) {
  const ticker = new TestTicker()
  const sent: Sending[] = []
  const calls = new Calls({
    ticker,
    random: () => 0.5,
    async send(sending) {
      const step = steps[Math.min(sent.length, steps.length - 1)] as (typeof steps)[number]
      sent.push(sending)
      const now = epochMs(start + ticker.now())
      if (typeof step === 'object') return { now, fault: step.told }
      if (step !== 'ok') throw new KvError(step)
      return { now, fault: undefined, outcome: sending.operation === undefined ? 'read' : { type: 'applied', entry }, entry }
    },
  })
  const names = (): (RequestId | undefined)[] => sent.map(({ own }) => own.requestId)
  return { ticker, calls, sent, names }
}
const codeOf = (promise: Promise<unknown>): Promise<KvErrorCode | 'none'> =>
  promise.then(
    () => 'none',
    (error: unknown) => (isKvError(error) ? error.code : Promise.reject(error)),
  )

describe('a write', () => {
  test('is named once, and its repetitions say so', async () => {
    const { calls, names } = scripted('UNKNOWN_OUTCOME', { told: 'UNKNOWN_OUTCOME' }, 'ok')
    expect((await calls.write('a', create(), patient)).outcome.type).toBe('applied')
    const [first, ...others] = names() as { session: string; sequence: number; attempt: number }[]
    expect(first).toMatchObject({ sequence: 1, attempt: 1, done: 1 })
    expect(others).toEqual([
      { ...first, attempt: 2 },
      { ...first, attempt: 3 },
    ])
  })

  test('says what is done: all before the oldest that still waits', async () => {
    const waiting: ((told: Told) => void)[] = []
    const done: number[] = []
    const calls = new Calls({
      ticker: new TestTicker(),
      random: () => 0.5,
      send: ({ own }) => {
        done.push((own.requestId as { done: number }).done)
        return new Promise((resolve) => waiting.push(resolve))
      },
    })
    const end = (index: number): void =>
      waiting[index]?.({ now: epochMs(start), fault: undefined, outcome: { type: 'applied', entry }, entry })
    const first = calls.write('a', create(), patient)
    const second = calls.write('a', create(), patient)
    end(1)
    await second
    const third = calls.write('a', create(), patient)
    end(0)
    await first
    const fourth = calls.write('a', create(), patient)
    expect(done).toEqual([1, 1, 1, 3])
    end(2)
    end(3)
    await Promise.all([third, fourth])
  })

  test('keeps the name that a user gave, plain or by session, and counts on from its attempt', async () => {
    const plain = scripted('UNAVAILABLE', 'ok')
    await plain.calls.write('a', create({ ...nameless, session: 'order-7', remember: true }), patient)
    expect(plain.names()).toEqual(['order-7', 'order-7'])
    const own = scripted('UNAVAILABLE', 'ok')
    await own.calls.write('a', create({ session: 's', sequence: 9, remember: true, done: 4, attempt: 3 }), patient)
    expect(own.names()).toEqual([
      { session: 's', sequence: 9, done: 4, attempt: 3 },
      { session: 's', sequence: 9, done: 4, attempt: 4 },
    ])
  })

  test('says when it was first sent, by the store, and never a later instant', async () => {
    const { calls, sent, ticker } = scripted('ok', 'BUSY', 'BUSY', 'ok')
    await calls.write('a', create(), patient)
    ticker.move(700)
    await calls.write('a', create(), patient)
    expect(sent.map(({ own }) => own.sentAt)).toEqual([undefined, start + 700, start + 700, start + 700])
  })

  test.each<[KvErrorCode, KvErrorCode]>([
    ['UNKNOWN_OUTCOME', 'UNKNOWN_OUTCOME'],
    ['UNAVAILABLE', 'DEADLINE_EXCEEDED'],
    ['BUSY', 'DEADLINE_EXCEEDED'],
    ['CONTENTION', 'DEADLINE_EXCEEDED'],
  ])('that only meets %s ends with %s by its deadline', async (met, expected) => {
    const { calls, sent, ticker } = scripted(met)
    expect(await codeOf(calls.write('a', create(), { signal: undefined, deadlineMs: 900 as Millis }))).toBe(expected)
    expect(ticker.now()).toBeLessThanOrEqual(900)
    expect(sent.length).toBeGreaterThan(3)
  })

  test('without a deadline of its own tells what was in the way', async () => {
    const { calls, ticker } = scripted('UNAVAILABLE')
    expect(await codeOf(calls.write('a', create(), patient))).toBe('UNAVAILABLE')
    expect(ticker.now()).toBeGreaterThan(4_000)
  })

  test('that may have been applied once never ends with a code that says "nothing happened"', async () => {
    for (const last of ['UNAVAILABLE', 'BUSY', 'ABORTED', 'DEADLINE_EXCEEDED'] as const) {
      const { calls } = scripted('UNKNOWN_OUTCOME', last)
      expect(await codeOf(calls.write('a', create(), patient)), last).toBe('UNKNOWN_OUTCOME')
    }
  })

  test.each<KvErrorCode>(['REQUEST_ID_REUSED', 'ANSWER_GONE', 'INVALID_ARGUMENT', 'TOO_LARGE'])(
    'that meets %s is not repeated',
    async (code) => {
      const { calls, sent } = scripted({ told: code })
      expect(await codeOf(calls.write('a', create(), patient))).toBe(code)
      expect(sent.length).toBe(1)
    },
  )

  test('is not repeated after the retry window, however long its caller would wait', async () => {
    const { calls, ticker } = scripted('UNAVAILABLE')
    expect(await codeOf(calls.write('a', create(), { signal: undefined, deadlineMs: 3_600_000 as Millis }))).toBe('UNAVAILABLE')
    expect(ticker.now()).toBeLessThanOrEqual(10_000)
  })
})

test('a get that had no answer is repeated, and ends with DEADLINE_EXCEEDED: nothing of it is unknown', async () => {
  const { calls, sent } = scripted('UNKNOWN_OUTCOME', 'ok')
  expect(await calls.read('a', patient)).toMatchObject({ entry, now: start })
  expect(sent.map(({ own }) => own.requestId)).toEqual([undefined, undefined])
  expect(await codeOf(scripted('UNKNOWN_OUTCOME').calls.read('a', patient))).toBe('DEADLINE_EXCEEDED')
})

test('a cluster that answers nobody gets a bounded load more, not a multiple', async () => {
  const { calls, sent, ticker } = scripted({ told: 'BUSY' })
  const ends = await Promise.all(
    Array.from({ length: 5_000 }, () => codeOf(calls.read('a', { signal: undefined, deadlineMs: 1_000 as Millis }))),
  )
  expect(new Set(ends)).toEqual(new Set(['DEADLINE_EXCEEDED']))
  expect(ticker.now()).toBeLessThanOrEqual(1_000)
  expect(sent.length).toBeLessThanOrEqual(5_000 + 1_000 + 500)
  expect(sent.length).toBeGreaterThan(6_000)
})

test('who may not repeat yet waits for it, and does not fail before the deadline', async () => {
  const { calls, sent } = scripted(...Array.from({ length: 3_000 }, () => 'UNAVAILABLE' as const), 'ok')
  const ends = await Promise.all(Array.from({ length: 1_200 }, () => codeOf(calls.read('a', patient))))
  expect(new Set(ends)).toEqual(new Set(['none']))
  expect(sent.length).toBe(4_200)
})

test('more calls than it may have under way are refused at once', async () => {
  const calls = new Calls({ ticker: new TestTicker(), random: () => 0, send: () => new Promise(() => undefined), callsMax: 2 })
  void calls.read('a', patient)
  void calls.read('b', patient)
  expect(await codeOf(calls.read('c', patient))).toBe('BUSY')
})

test('close waits for what is under way, and takes no more', async () => {
  let end: (told: Told) => void = () => undefined
  const calls = new Calls({ ticker: new TestTicker(), random: () => 0, send: () => new Promise((resolve) => (end = resolve)) })
  const reading = calls.read('a', patient)
  const closed = calls.close()
  expect(await codeOf(calls.read('b', patient))).toBe('CLOSED')
  expect(await Promise.race([closed.then(() => 'closed'), Promise.resolve('open')])).toBe('open')
  end({ now: epochMs(start), fault: undefined, outcome: 'read', entry: undefined })
  await Promise.all([reading, closed])
})
