/** Requests that are named by session: counted once, forgotten when their session is done with them, and never sooner (C1). */
import { describe, expect, test } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import { epochMs } from '../../core/base/types.ts'
import { memory } from '../../core/stores/memory.ts'
import { faulty } from '../../core/testing/index.ts'
import { counter } from './counter.ts'
import { countCodec } from './record.ts'
import { noRequests, remembered, requestsOf } from './requests.ts'
import { requestSession } from './session.ts'
import { sharded } from './sharded.ts'
import { ended, world } from './testdata/world.ts'
import type { SessionRequest } from './types.ts'
import { windowed } from './windowed.ts'

const upTo = (n: number): number[] => Array.from({ length: n }, (_, index) => index + 1)
const of = (sequence: number, done = 0, session = 's'): SessionRequest => ({ session, sequence, done })

describe('a request of a session', () => {
  test('that is sent again gets its first answer, from another process too, and after a reset (C1)', async () => {
    const { kv, process } = world()
    const [one, two] = [counter({ kv, name: 'n', modify: process() }), counter({ kv, name: 'n', modify: process() })]
    const first = await one.add('a', 5, { requestId: of(1) })
    await two.add('a', 1, { requestId: of(2) })
    expect(await two.add('a', 5, { requestId: of(1) })).toEqual({ ...first, repeated: true })
    await one.reset('a')
    expect(await two.add('a', 5, { requestId: of(1, 1) })).toEqual({ ...first, repeated: true })
    expect(await one.get('a')).toMatchObject({ value: 0 })
  })

  test('is another one in each session, and beside an id of the same text', async () => {
    const n = counter({ kv: memory(), name: 'n' })
    for (const requestId of [of(1), of(1, 0, 't'), 's', 't']) await n.add('a', 1, { requestId })
    expect(await n.get('a')).toMatchObject({ value: 4 })
  })

  test('counts once when both come in one write, and when its answer was lost (C1)', async () => {
    const { kv, clock, process } = world()
    const lost = faulty(
      { ...kv, capabilities: { ...kv.capabilities, requestIds: false } },
      { on: ({ verb }) => (verb === 'create' ? 'unknown-after' : undefined) },
    )
    const n = counter({ kv: lost, name: 'n', modify: process() })
    await expect(ended(clock, n.add('a', 1, { requestId: of(1) }))).rejects.toMatchObject({ code: 'UNKNOWN_OUTCOME' })
    const all = await Promise.all([1, 1, 2].map((sequence) => n.add('a', 1, { requestId: of(sequence) })))
    expect(all).toMatchObject([
      { value: 1, repeated: true },
      { value: 1, repeated: true },
      { value: 2, repeated: false },
    ])
  })

  test('with another amount, or that its session was done with, is a mistake and counts nothing (C1)', async () => {
    const n = counter({ kv: memory(), name: 'n' })
    await n.add('a', 1, { requestId: of(1) })
    await expect(n.add('a', 2, { requestId: of(1) })).rejects.toMatchObject({ code: 'REQUEST_ID_REUSED' })
    await n.add('a', 1, { requestId: of(5, 5) })
    for (const sequence of [1, 4])
      await expect(n.add('a', 1, { requestId: of(sequence) })).rejects.toMatchObject({ code: 'REQUEST_ID_REUSED', retry: 'never' })
    expect(await n.get('a')).toMatchObject({ value: 2 })
  })

  test('an older word of what is done takes nothing back', async () => {
    const n = counter({ kv: memory(), name: 'n' })
    await n.add('a', 1, { requestId: of(9, 5) })
    await n.add('a', 1, { requestId: of(7, 2) })
    await expect(n.add('a', 1, { requestId: of(4) })).rejects.toMatchObject({ code: 'REQUEST_ID_REUSED' })
    expect(await n.add('a', 1, { requestId: of(9, 5) })).toMatchObject({ value: 1, repeated: true })
  })

  test('is remembered until `remember` has passed since the last one of its session (C1)', async () => {
    const { kv, clock } = world()
    const n = counter({ kv, name: 'n', remember: '1m', ttl: '10s' })
    await n.add('a', 1, { requestId: of(1) })
    await clock.advance('59s')
    await n.add('a', 1, { requestId: of(2) })
    await clock.advance('59s')
    expect(await n.add('a', 1, { requestId: of(1) })).toMatchObject({ repeated: true })
    await clock.advance('1s')
    expect(await n.add('a', 1, { requestId: of(1) })).toMatchObject({ value: 1, repeated: false })
  })

  test('takes the place of none that may come again: a session that is done with nothing fills the record (C1)', async () => {
    const n = counter({ kv: memory(), name: 'n', requestsMax: 5 })
    for (const sequence of [1, 2, 3]) await n.add('a', 1, { requestId: of(sequence) })
    for (const requestId of [of(4), of(1, 0, 't'), 'id'])
      await expect(n.add('a', 1, { requestId })).rejects.toMatchObject({ code: 'RECORD_LOCKED' })
    for (const sequence of [1, 2, 3])
      expect(await n.add('a', 1, { requestId: of(sequence) })).toMatchObject({ value: sequence, repeated: true })
    // The oldest of a session always has room: all others wait for it to be done.
    expect(await n.add('a', 1, { requestId: of(4, 3) })).toMatchObject({ value: 4 })
    expect(await n.add('a', 1, { requestId: of(3) })).toMatchObject({ value: 3, repeated: true })
  })

  test('that is the oldest of its session has room in a record that younger ones have filled', async () => {
    const n = counter({ kv: memory(), name: 'n', requestsMax: 4 })
    for (const sequence of [2, 3]) await n.add('a', 1, { requestId: of(sequence, 1) })
    await expect(n.add('a', 1, { requestId: of(4, 1) })).rejects.toMatchObject({ code: 'RECORD_LOCKED' })
    expect(await n.add('a', 1, { requestId: of(1, 1) })).toMatchObject({ value: 3 })
    expect(await n.add('a', 1, { requestId: of(1, 1) })).toMatchObject({ value: 3, repeated: true })
    expect(await n.add('a', 1, { requestId: of(4, 3) })).toMatchObject({ value: 4 })
  })

  test('is weighed with each add as it would be from the start (P12)', () => {
    const random = seededRandom(7)
    let requests = noRequests
    const memoryOf = { rememberMs: 1_000, requestsMax: 1_000, bytesMax: 1_000_000 }
    for (let sequence = 1; sequence <= 300; sequence++) {
      const done = Math.max(0, sequence - random.int(20))
      const answer = { delta: BigInt(random.int(1_000)), value: 10n ** BigInt(random.int(30)), epoch: 1 }
      const name = random.chance(0.2) ? `id${sequence}` : of(sequence, done, random.pick(['s', 't']))
      if (typeof name !== 'string' && requests.sessions.some((one) => one.session === name.session && one.done > sequence)) continue
      requests = remembered(requests, name, answer, epochMs(0), memoryOf)
      expect(requests).toEqual(requestsOf(requests.list, requests.sessions))
    }
  })

  test('is found by windows and by shards as well (C1)', async () => {
    const kv = memory()
    const last = windowed({ kv, name: 'n', window: '1m' })
    await last.add('a', 2, { requestId: of(1) })
    expect(await last.add('a', 2, { requestId: of(1) })).toMatchObject({ value: 2, repeated: true })
    const [one, two] = [0.1, 0.9].map((at) => sharded({ kv, name: 'n', shards: 16, random: () => at })) as [Likes, Likes]
    for (const sequence of [1, 2]) await one.add('a', 1, { requestId: of(sequence) })
    expect(await two.add('a', 1, { requestId: of(1) })).toMatchObject({ repeated: true })
    expect(await two.get('a')).toMatchObject({ value: 2 })
  })

  test.each([of(0), of(1.5), of(1, 2), of(1, -1), of(1, 0, ''), of(1, 0, 'ü'), of(1, 0, 'x'.repeat(65)), null, {}])(
    '%j is refused',
    async (requestId) => {
      await expect(counter({ kv: memory(), name: 'n' }).add('a', 1, { requestId: requestId as SessionRequest })).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
      })
    },
  )
})

describe('requestSession', () => {
  test('numbers calls, and is done with those before the oldest that goes on', async () => {
    const { run } = requestSession()
    const told: SessionRequest[] = []
    let end = (): void => {}
    await run(async (id) => told.push({ ...id }))
    const slow = run(async (id) => {
      told.push({ ...id })
      await new Promise<void>((resolve) => (end = resolve))
    })
    await expect(run(async (id) => Promise.reject(new Error(String(told.push({ ...id })))))).rejects.toThrow('3')
    await run(async (id) => told.push({ ...id }))
    end()
    await slow
    await run(async (id) => told.push({ ...id }))
    expect(told.map(({ sequence, done }) => [sequence, done])).toEqual([
      [1, 1],
      [2, 2],
      [3, 2],
      [4, 2],
      [5, 5],
    ])
    expect(new Set(told.map(({ session }) => session)).size).toBe(1)
  })

  test('lets one key take any number of requests: 5,000 of 20 callers, answers lost, with a record of 64 (C1)', async () => {
    const { kv, clock, process } = world()
    const flaky = faulty(
      { ...kv, capabilities: { ...kv.capabilities, requestIds: false } },
      { seed: 5, unknownAfterApply: 0.1, unknownBeforeApply: 0.1, unavailable: 0.05 },
    )
    const fleet = [1, 2].map((seed) => ({
      n: counter({ kv: flaky, name: 'n', requestsMax: 64, modify: process(seed) }),
      session: requestSession(),
    }))
    const insisting = async (at: number): Promise<void> => {
      const { n, session } = fleet[at % 2]!
      for (let request = 0; request < 250; request++)
        await session.run(async (requestId) => {
          const isCounted = () =>
            n.add('a', 1, { requestId }).then(
              ({ ok }) => ok,
              () => false,
            )
          while (!(await isCounted())) await new Promise((resolve) => setImmediate(resolve))
        })
    }
    await ended(clock, Promise.all(upTo(20).map(insisting)))
    expect(await counter({ kv, name: 'n' }).get('a')).toMatchObject({ value: 5_000 })
    const { requests } = countCodec.decode((await kv.get('counter:n:a')).entry!.value)
    expect(requests.sessions.reduce((sum, { applied }) => sum + applied.length, 0)).toBeLessThanOrEqual(64)
  })
})

type Likes = ReturnType<typeof sharded>
