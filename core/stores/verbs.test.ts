/** The five verbs as callers meet them: what is refused in words, what reaches the backend, and how outcomes become results or errors. */
import { expect, test } from 'vitest'
import { epochMs } from '../base/types.ts'
import { isKvError } from '../kv/errors.ts'
import type { Entry, KV, Version } from '../kv/kv.ts'
import { limitPresets } from '../kv/limits.ts'
import type { Operation, Outcome } from '../record/operation.ts'
import { memory } from './memory.ts'
import { kvOver, type Wait } from './verbs.ts'

const value = new Uint8Array([1])
const codeOf = (call: () => Promise<unknown>): Promise<string> =>
  call().then(
    () => 'none',
    (error: unknown) => (isKvError(error) ? error.code : String(error)),
  )

/** A backend that notes what it is given and answers as told. */
function noting(outcome: Outcome = { type: 'missing' }) {
  const seen: { key: string; operation: Operation; wait: Wait }[] = []
  const kv = kvOver({
    capabilities: { ...memory().capabilities, limits: limitPresets.juno },
    apply(key, operation, wait) {
      seen.push({ key, operation, wait })
      return { outcome, now: epochMs(5) }
    },
    read: () => ({ entries: [], now: epochMs(5) }),
    close: async () => undefined,
  })
  return { kv, seen }
}

const wrong: readonly [string, (kv: KV) => Promise<unknown>][] = [
  ['an empty key', (kv) => kv.get('')],
  ['a key that is no string', (kv) => kv.destroy(1 as never)],
  ['a key with a lone surrogate', (kv) => kv.set('\udc00', value)],
  ['a value that is no bytes', (kv) => kv.create('a', 'x' as never)],
  ['a ttl of nothing', (kv) => kv.create('a', value, { ttl: 0 })],
  ['a ttl that is none', (kv) => kv.create('a', value, { ttl: 'long' as never })],
  ['an expiry that is none', (kv) => kv.update('a', value, { expiry: 'soon' as never })],
  ['an expiry of null', (kv) => kv.update('a', value, { expiry: null as never })],
  ['an expiry of two kinds', (kv) => kv.set('a', value, { expiry: { set: 1, extend: 1 } as never })],
  ['an expiry with an instant that is none', (kv) => kv.set('a', value, { expiry: { until: epochMs(1.5) } })],
  ['an ifVersion that is empty', (kv) => kv.update('a', value, { ifVersion: '' as Version })],
  ['an ifVersion that is no string', (kv) => kv.destroy('a', { ifVersion: 3 as never })],
  ['a deadline of nothing', (kv) => kv.update('a', value, { deadline: 0 })],
  ['an empty request id', (kv) => kv.set('a', value, { requestId: '' })],
  ['a request id of null', (kv) => kv.set('a', value, { requestId: null as never })],
  ['a request id of 65 characters', (kv) => kv.set('a', value, { requestId: 'x'.repeat(65) })],
  ['a request id with a line feed', (kv) => kv.set('a', value, { requestId: 'a\nb' })],
  ['a request id beyond ASCII', (kv) => kv.set('a', value, { requestId: 'é' })],
  ['a sequence of 0', (kv) => kv.set('a', value, { requestId: { session: 's', sequence: 0 } })],
  ['a watermark above the request', (kv) => kv.set('a', value, { requestId: { session: 's', sequence: 1, done: 2 } })],
  ['an attempt of 0', (kv) => kv.set('a', value, { requestId: { session: 's', sequence: 1, attempt: 0 } })],
]
for (const [what, call] of wrong) {
  test(`refuses ${what}, and the backend hears nothing`, async () => {
    const { kv, seen } = noting()
    expect(await codeOf(() => call(kv))).toBe('INVALID_ARGUMENT')
    expect(seen).toEqual([])
  })
}

const large: readonly [string, (kv: KV) => Promise<unknown>][] = [
  ['a key of 129 bytes', (kv) => kv.get('k'.repeat(129))],
  ['a value of 204,801 bytes', (kv) => kv.set('a', new Uint8Array(204_801))],
  ['a ttl of four days', (kv) => kv.create('a', value, { ttl: '4d' })],
  ['an extension by four days', (kv) => kv.update('a', value, { expiry: { extend: '4d' } })],
  ['1,025 keys at once', (kv) => kv.getMany(Array.from({ length: 1_025 }, (_, index) => `k${index}`))],
]
for (const [what, call] of large) {
  test(`${what} is too large for preset juno`, async () => {
    const { kv, seen } = noting()
    expect(await codeOf(() => call(kv))).toBe('TOO_LARGE')
    expect(seen).toEqual([])
  })
}

test('a call whose signal has ended reaches no backend and says ABORTED with the reason', async () => {
  const { kv, seen } = noting()
  const signal = AbortSignal.abort(new Error('enough'))
  for (const call of [
    () => kv.create('a', value, { signal }),
    () => kv.update('a', value, { signal }),
    () => kv.destroy('a', { signal }),
    () => kv.get('a', { signal }),
    () => kv.getMany(['a'], { signal }),
  ]) {
    await expect(call()).rejects.toMatchObject({ code: 'ABORTED', cause: { message: 'enough' } })
  }
  expect(seen).toEqual([])
})

test('deadlines, names and conditions reach the backend in milliseconds and with their defaults', async () => {
  const { kv, seen } = noting()
  const { signal } = new AbortController()
  await kv.update('a', value, {
    deadline: '2s',
    signal,
    requestId: { session: 's', sequence: 4 },
    ifVersion: 'v' as Version,
    expiry: { set: '1m' },
  })
  await kv.update('a', value, { requestId: 'plain' })
  await kv.update('a', value)
  expect(seen[0]).toEqual({
    key: 'a',
    operation: {
      verb: 'update',
      request: { session: 's', sequence: 4, remember: true, done: 0, attempt: 1 },
      value,
      expiry: { type: 'set', ttlMs: 60_000 },
      ifVersion: 'v',
    },
    wait: { signal, deadlineMs: 2_000 },
  })
  expect(seen[1]?.operation.request).toEqual({ session: 'plain', sequence: 0, remember: true, done: 0, attempt: 1 })
  expect(seen[2]?.operation).toMatchObject({ request: { remember: false, sequence: 0 }, expiry: { type: 'keep' } })
  expect(seen[2]?.operation.request.session).toMatch(/^[0-9A-Z]{26}$/)
})

test('faults become errors of their code', async () => {
  for (const code of ['RECORD_LOCKED', 'REQUEST_ID_REUSED', 'ANSWER_GONE'] as const) {
    expect(await codeOf(() => noting({ type: 'fault', code }).kv.update('a', value))).toBe(code)
  }
})

test('an outcome that a verb cannot have is never taken for success', async () => {
  const entry = { value, version: 'v', createdAt: 1 } as unknown as Entry
  expect(await codeOf(() => noting({ type: 'exists', entry }).kv.update('a', value))).toBe('UNAVAILABLE')
  expect(await codeOf(() => noting({ type: 'applied', entry: undefined }).kv.set('a', value))).toBe('UNAVAILABLE')
  expect(await codeOf(() => noting({ type: 'missing' }).kv.create('a', value))).toBe('UNAVAILABLE')
})

test('getMany gives each key that has an entry, twice asked once given', async () => {
  const kv = memory()
  await kv.set('a', value)
  await kv.set('c', value)
  const { entries } = await kv.getMany(['c', 'a', 'b', 'a'])
  expect([...entries.keys()]).toEqual(['c', 'a'])
  expect((await kv.getMany([])).entries.size).toBe(0)
})

test('a destroy of nothing applies without condition and is missing with one', async () => {
  const kv = memory()
  expect(await kv.destroy('a')).toEqual({ ok: true, now: expect.any(Number) })
  expect(await kv.destroy('a', { ifVersion: 'v' as Version })).toEqual({ ok: false, refusal: 'missing', now: expect.any(Number) })
})

test('a watermark lets a session write one key for ever within its bound', async () => {
  const kv = memory()
  await kv.create('a', value)
  for (let sequence = 1; sequence <= 3_000; sequence++) {
    await kv.update('a', value, { requestId: { session: 's', sequence, done: sequence } })
  }
  expect(await codeOf(() => kv.update('a', value, { requestId: { session: 's', sequence: 1, attempt: 2 } }))).toBe('REQUEST_ID_REUSED')
})

test('without a watermark a record says RECORD_LOCKED, and callers without names go on', async () => {
  const kv = memory()
  await kv.create('a', value)
  let told = 'none'
  for (let round = 0; told === 'none'; round++) told = await codeOf(() => kv.update('a', value, { requestId: `r-${round}` }))
  expect(told).toBe('RECORD_LOCKED')
  expect((await kv.update('a', value)).ok).toBe(true)
})

test('an answer that a verb cannot mean is UNAVAILABLE, and repeated under the same name alone: the write may be there', async () => {
  const expected = { code: 'UNAVAILABLE', retry: 'same-request-id' }
  const without = noting({ type: 'applied', entry: undefined }).kv
  await expect(without.create('a', value)).rejects.toMatchObject(expected)
  await expect(without.set('a', value)).rejects.toMatchObject(expected)
  const met = noting({ type: 'exists', entry: { value, version: 'v' as Version, createdAt: epochMs(1) } }).kv
  await expect(met.update('a', value)).rejects.toMatchObject(expected)
})
