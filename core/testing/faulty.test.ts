/** The faulty store does to a call what its verdict says, and the same again under the same seed; the counting store counts. */
import { expect, test } from 'vitest'
import { isKvError, KvError } from '../kv/errors.ts'
import { memory } from '../stores/memory.ts'
import { testClock } from './clock.ts'
import { faulty, type FaultyOptions, type Verdict } from './faulty.ts'
import { counting, intercept } from './intercept.ts'

const one = Uint8Array.of(1)
const two = Uint8Array.of(2)

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise
    return 'ok'
  } catch (error) {
    return isKvError(error) ? error.code : String(error)
  }
}

/** A faulty store whose next call gets the verdict, and the store below it. */
function scripted(options: FaultyOptions = {}) {
  const verdicts: Verdict[] = []
  const below = memory()
  const kv = faulty(below, { ...options, on: () => verdicts.shift() ?? 'pass' })
  return { kv, below, next: (verdict: Verdict) => verdicts.push(verdict) }
}
const valueOf = async (kv: { get: ReturnType<typeof memory>['get'] }, key: string) => (await kv.get(key)).entry?.value[0]

test('an unknown outcome before applying leaves the store as it was, one after applying does not', async () => {
  const { kv, below, next } = scripted()
  next('unknown-before')
  expect(await codeOf(kv.create('a', one))).toBe('UNKNOWN_OUTCOME')
  expect(await valueOf(below, 'a')).toBe(undefined)
  next('unknown-after')
  expect(await codeOf(kv.create('a', two))).toBe('UNKNOWN_OUTCOME')
  expect(await valueOf(below, 'a')).toBe(2)
  expect(kv.counts()).toMatchObject({ calls: 2, unknownBefore: 1, unknownAfter: 1, passed: 0 })
})

test('an unknown outcome that is applied later comes within three calls, or with calm', async () => {
  const { kv, below, next } = scripted({ seed: 3 })
  next('unknown-later')
  expect(await codeOf(kv.create('a', one))).toBe('UNKNOWN_OUTCOME')
  expect(await valueOf(below, 'a')).toBe(undefined)
  for (let call = 0; call < 3; call++) await kv.get('b')
  expect(await valueOf(below, 'a')).toBe(1)
  next('unknown-later')
  expect(await codeOf(kv.destroy('a'))).toBe('UNKNOWN_OUTCOME')
  next('unavailable')
  await kv.calm()
  expect(await valueOf(below, 'a')).toBe(undefined)
  expect(await codeOf(kv.get('a'))).toBe('ok')
})

test('a late write is applied once, also on a slow store while several calls come', async () => {
  let slowWrites = 0
  const slow = intercept(memory(), async (call, run) => {
    if (call.verb === 'set') slowWrites += 1
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve))
    return await run()
  })
  const verdicts: Verdict[] = Array.from({ length: 8 }, () => 'unknown-later')
  const kv = faulty(slow, { on: () => verdicts.shift() ?? 'pass' })
  const late = Array.from({ length: 8 }, (_, index) => codeOf(kv.set(`key-${index}`, one)))
  expect(new Set(await Promise.all(late))).toEqual(new Set(['UNKNOWN_OUTCOME']))
  await Promise.all([...Array.from({ length: 8 }, () => kv.get('other')), kv.calm()])
  await kv.calm()
  expect(slowWrites).toBe(8)
})

test('unavailable, busy and an error of the test are thrown without reaching the store', async () => {
  const { kv, below, next } = scripted()
  for (const verdict of ['unavailable', 'busy', new KvError('DISK_FULL')] as const) {
    next(verdict)
    expect(await codeOf(kv.set('a', one))).toBe(verdict instanceof KvError ? 'DISK_FULL' : verdict.toUpperCase())
  }
  expect(await valueOf(below, 'a')).toBe(undefined)
})

test('a read never has an unknown outcome', async () => {
  const { kv, next } = scripted()
  for (const verdict of ['unknown-before', 'unknown-after', 'unknown-later'] as const) {
    next(verdict)
    expect(await codeOf(kv.get('a'))).toBe('UNAVAILABLE')
  }
})

test('a stopped call never returns, and has or has not been applied as it says', async () => {
  const { kv, below, next } = scripted()
  let returned = 0
  const count = () => {
    returned += 1
  }
  next('stop-before')
  void kv.create('a', one).then(count, count)
  next('stop-after')
  void kv.create('b', one).then(count, count)
  for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate)
  expect([await valueOf(below, 'a'), await valueOf(below, 'b'), returned]).toEqual([undefined, 1, 0])
})

test('a delayed call keeps to its signal and its deadline: no effect before the store, unknown after it', async () => {
  const clock = testClock()
  const { kv, below, next } = scripted({ clock })
  const controller = new AbortController()
  next({ delay: '10s' })
  const aborted = codeOf(kv.create('a', one, { signal: controller.signal }))
  next({ delay: '10s' })
  const late = codeOf(kv.create('a', one, { deadline: '2s' }))
  next({ delay: '10s', when: 'after' })
  const unknown = codeOf(kv.create('b', one, { deadline: '2s' }))
  next({ delay: '10s', when: 'after' })
  const lateRead = codeOf(kv.get('b', { deadline: '2s' }))
  next({ delay: '10s' })
  const inTime = codeOf(kv.create('c', one, { deadline: '11s' }))
  controller.abort()
  await clock.advance('10s')
  expect(await Promise.all([aborted, late, unknown, lateRead, inTime])).toEqual([
    'ABORTED',
    'DEADLINE_EXCEEDED',
    'UNKNOWN_OUTCOME',
    'DEADLINE_EXCEEDED',
    'ok',
  ])
  expect([await valueOf(below, 'a'), await valueOf(below, 'b'), await valueOf(below, 'c')]).toEqual([undefined, 1, 1])
})

test('the same seed gives the same faults, another seed others', async () => {
  const run = async (seed: number) => {
    const kv = faulty(memory(), { seed, unknownBeforeApply: 0.2, unknownAfterApply: 0.2, unavailable: 0.2, busy: 0.1 })
    const codes: string[] = []
    for (let call = 0; call < 60; call++) codes.push(await codeOf(call % 2 ? kv.get('a') : kv.set('a', one)))
    return codes.join(' ')
  }
  expect(await run(5)).toBe(await run(5))
  expect(await run(5)).not.toBe(await run(6))
  expect(new Set((await run(5)).split(' '))).toEqual(new Set(['ok', 'UNKNOWN_OUTCOME', 'UNAVAILABLE', 'BUSY']))
})

test('a script sees verb, key, value and both counts, and places one fault', async () => {
  const seen: string[] = []
  const kv = faulty(memory(), {
    on: (call) => {
      seen.push(`${call.index} ${call.verb} ${call.nth} ${call.key}`)
      return call.verb === 'update' && call.nth === 2 ? 'unknown-after' : undefined
    },
  })
  await kv.create('a', one)
  expect([await codeOf(kv.update('a', two)), await codeOf(kv.update('a', one))]).toEqual(['ok', 'UNKNOWN_OUTCOME'])
  await kv.getMany(['b', 'c'])
  expect(seen).toEqual(['1 create 1 a', '2 update 1 a', '3 update 2 a', '4 getMany 1 b'])
})

test('faulty refuses probabilities that do not fit', () => {
  expect(() => faulty(memory(), { unknownAfterApply: 0.6, unavailable: 0.5 })).toThrow('probabilities')
  expect(() => faulty(memory(), { busy: -0.1 })).toThrow('probabilities')
})

test('the counting store counts every call, failed ones too, until it is reset', async () => {
  const kv = counting(memory())
  await kv.create('a', one)
  await kv.get('a')
  await kv.getMany(['a'])
  await codeOf(kv.get(''))
  expect(kv.counts()).toEqual({ create: 1, get: 2, getMany: 1, update: 0, set: 0, destroy: 0, total: 4 })
  kv.reset()
  expect(kv.counts().total).toBe(0)
})
