/**
 * The bytes: golden records of every released format, round trips, what happens to damage, and two releases on one record (P12).
 * testdata/v*.hex are bytes that a release wrote. They are never made anew: a reader that cannot read them has broken a promise.
 */
import { readdirSync, readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import type { Codec } from '../../core/kv/codec.ts'
import { isKvError } from '../../core/kv/errors.ts'
import { memory } from '../../core/stores/memory.ts'
import { counter } from './counter.ts'
import { gauge } from './gauge.ts'
import { countCodec, formatVersion, slotsCodec, windowCodec } from './record.ts'
import { noRequests, requestsOf } from './requests.ts'
import { shardOf, type CountRecord, type SlotsRecord, type WindowRecord } from './rules.ts'
import { ended, world } from './testdata/world.ts'
import { windowed } from './windowed.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)
const epoch = 1_767_225_600_000
const requests = requestsOf([
  { id: 'order-7', until: epochMs(epoch + 600_000), delta: -1n, value: 499n, epoch },
  { id: 'ünï "quoted"', until: epochMs(epoch + 600_001), value: -5n, epoch: epoch - 1 },
])

const inSessions = requestsOf(requests.list, [
  {
    session: '01JD0000000000000000000000',
    done: 41,
    until: epochMs(epoch + 600_002),
    applied: [
      { sequence: 43, delta: 2n, value: 12n, epoch },
      { sequence: 41, value: 10n, epoch: epoch - 1 },
    ],
  },
  { session: 'log "3"', done: 0, until: epochMs(epoch + 5), applied: [] },
])

const goldenCounts: Readonly<Record<string, CountRecord>> = {
  count: { epoch, value: 499n, endsAt: epochMs(0), requests: noRequests },
  'count-ends': { epoch, value: -3n, endsAt: epochMs(epoch + 60_000), requests: noRequests },
  'count-remembers': { epoch, value: 0n, endsAt: epochMs(epoch + 60_000), requests },
  'count-large': { epoch, value: 10n ** 254n, endsAt: epochMs(0), requests: noRequests },
}
const goldenWindows: Readonly<Record<string, WindowRecord>> = {
  window: { newest: 58_907_520, counts: [3n, 0n, 12n], requests: noRequests },
  'window-remembers': { newest: 58_907_520, counts: [1n], requests },
}
/** Of version 2. */
const goldenSessions = {
  count: { epoch, value: 12n, endsAt: epochMs(0), requests: inSessions },
  window: { newest: 58_907_520, counts: [12n, 1n], requests: inSessions },
}
const goldenSlots: Readonly<Record<string, SlotsRecord>> = {
  slots: { slots: [{ owner: '01JD0000000000000000000000', endsAt: epochMs(epoch + 30_000) }] },
  'slots-none': { slots: [] },
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const folder = new URL('testdata/', import.meta.url)
const stored = (version: number, name: string): string =>
  readFileSync(new URL(`v${version}-${name}.hex`, folder), 'utf8').replaceAll(/\s/g, '')

function golden<R>(codec: Codec<R>, records: Readonly<Record<string, R>>, version = 1): void {
  for (const [name, record] of Object.entries(records)) {
    test(`of version ${version}: ${name} is read as it was written (P12)`, () => {
      expect(codec.decode(Buffer.from(stored(version, name), 'hex'))).toEqual(record)
    })
    test(`of version ${version}: ${name} is written as it was written (P12)`, () =>
      expect(hexOf(codec.encode(record))).toBe(stored(version, name)))
  }
}

describe('golden records', () => {
  golden(countCodec, goldenCounts)
  golden(windowCodec, goldenWindows)
  golden(slotsCodec, goldenSlots)
  golden(countCodec, { sessions: goldenSessions.count }, 2)
  golden(windowCodec, { 'window-sessions': goldenSessions.window }, 2)
  test('of all released versions are there (P12)', () => {
    expect(formatVersion).toBe(2)
    const names = Object.keys({ ...goldenCounts, ...goldenWindows, ...goldenSlots }).map((name) => `v1-${name}.hex`)
    names.push('v2-sessions.hex', 'v2-window-sessions.hex')
    expect(
      readdirSync(folder)
        .filter((file) => file.endsWith('.hex'))
        .sort(),
    ).toEqual(names.sort())
  })
  test('a request id belongs to the same shard in each release (P12)', () => {
    expect(['order-7', 'order-8', '', 'ü', '01JD0000000000000000000000'].map((id) => shardOf(id, 256))).toEqual([251, 66, 197, 187, 124])
    // The published vectors of FNV-1a, 32 bits.
    expect([shardOf('a', 2 ** 32), shardOf('foobar', 2 ** 32)]).toEqual([0xe40c292c, 0xbf9cf968])
  })
})

const instants = fc.integer({ min: 0, max: epoch * 2 }).map(epochMs)
const counts = fc.bigInt({ min: -(10n ** 255n) + 1n, max: 10n ** 255n - 1n })
const answers = fc
  .tuple(fc.option(counts, { nil: undefined }), counts, fc.nat())
  .map(([delta, value, at]) => ({ value, epoch: at, ...(delta === undefined ? {} : { delta }) }))
const names = fc.string({ unit: 'grapheme', minLength: 1 })
const someRequests = fc
  .tuple(
    fc.array(
      fc.tuple(names, instants, answers).map(([id, until, answer]) => ({ id, until, ...answer })),
      { maxLength: 4 },
    ),
    fc.array(
      fc.tuple(names, fc.nat(), instants, fc.array(answers, { maxLength: 3 })).map(([session, done, until, all]) => ({
        session,
        done,
        until,
        applied: all.map((answer, index) => ({ sequence: done + 1 + index, ...answer })),
      })),
      { maxLength: 2 },
    ),
  )
  .map(([list, sessions]) => requestsOf(list, sessions))

describe('encode and decode', () => {
  test(`are each other's inverse (seed ${seed})`, () => {
    const inverse = <R>(codec: Codec<R>, records: fc.Arbitrary<R>) =>
      fc.assert(
        fc.property(records, (record) => {
          expect(codec.decode(codec.encode(record))).toEqual(record)
        }),
        { seed, numRuns: 200 },
      )
    inverse(countCodec, fc.record({ epoch: fc.nat(), value: counts, endsAt: instants, requests: someRequests }))
    inverse(windowCodec, fc.record({ newest: fc.nat(), counts: fc.array(counts), requests: someRequests }))
    inverse(slotsCodec, fc.record({ slots: fc.array(fc.record({ owner: fc.string({ unit: 'grapheme' }), endsAt: instants })) }))
  })
  test(`take about the bytes that requests are counted as, and never more (seed ${seed})`, () => {
    const none: CountRecord = { epoch, value: 1n, endsAt: epochMs(0), requests: noRequests }
    fc.assert(
      fc.property(someRequests, (some) => {
        const bytes = countCodec.encode({ ...none, requests: some }).length - countCodec.encode(none).length
        expect(bytes).toBeLessThanOrEqual(some.bytes + '"q":[],"p":[],'.length)
        expect(bytes).toBeGreaterThanOrEqual(some.bytes / 10)
      }),
      { seed, numRuns: 200 },
    )
  })
  test('read a record that lies within a larger buffer', () => {
    const bytes = countCodec.encode(goldenCounts['count-remembers']!)
    const larger = new Uint8Array(bytes.length + 20)
    larger.set(bytes, 7)
    expect(countCodec.decode(larger.subarray(7, 7 + bytes.length))).toEqual(goldenCounts['count-remembers'])
  })
})

describe('a record that cannot be read is COUNTER_UNREADABLE, never absent:', () => {
  const bytesOf = (json: unknown, kind = 'n', version = formatVersion): Uint8Array =>
    new Uint8Array([0x63, version, kind.charCodeAt(0), ...new TextEncoder().encode(typeof json === 'string' ? json : JSON.stringify(json))])
  const good = { v: '5', e: 1 }
  const cases: Readonly<Record<string, Uint8Array>> = {
    'no bytes': new Uint8Array(0),
    'another magic': new Uint8Array([0x68, 1, 0x6e, 0x7b, 0x7d]),
    'the next format version': bytesOf(good, 'n', formatVersion + 1),
    'version 0': bytesOf(good, 'n', 0),
    'another kind': bytesOf(good, 'g'),
    'cut short': countCodec.encode(goldenCounts['count']!).subarray(0, -1),
    'a header alone': bytesOf(''),
    'bytes behind the end': bytesOf('{"v":"5","e":1}x'),
    'broken UTF-8': new Uint8Array([0x63, 1, 0x6e, 0xff]),
    'no object': bytesOf('null'),
    'a field of a later release': bytesOf({ ...good, z: 1 }),
    'no value': bytesOf({ e: 1 }),
    'a value that is a number': bytesOf({ ...good, v: 5 }),
    'a value with a fraction': bytesOf({ ...good, v: '5.5' }),
    'a value of 256 digits': bytesOf({ ...good, v: '1'.repeat(256) }),
    'minus zero': bytesOf({ ...good, v: '-0' }),
    'no epoch': bytesOf({ v: '5' }),
    'an end that is no instant': bytesOf({ ...good, x: -1 }),
    'requests that are no list': bytesOf({ ...good, q: {} }),
    'a request without its answer': bytesOf({ ...good, q: [['r', 1, '1']] }),
    'a session in a record of version 1': bytesOf({ ...good, p: [] }, 'n', 1),
    'a session without its requests': bytesOf({ ...good, p: [['s', 1, 1]] }),
    'a sequence below zero': bytesOf({ ...good, p: [['s', 1, 1, [[-1, '1', '1', 1]]]] }),
    'a request without a name': bytesOf({ ...good, q: [[7, 1, '1', '1', 1]] }),
  }
  const isUnreadable = expect.toSatisfy((error: unknown) => isKvError(error, 'COUNTER_UNREADABLE'))
  for (const [name, bytes] of Object.entries(cases)) test(name, () => expect(() => countCodec.decode(bytes)).toThrow(isUnreadable))
  test('a window or slots without their lists', () => {
    expect(() => windowCodec.decode(bytesOf({ i: 1 }, 'w'))).toThrow(isUnreadable)
    expect(() => windowCodec.decode(bytesOf({ i: 1, c: [5] }, 'w'))).toThrow(isUnreadable)
    expect(() => slotsCodec.decode(bytesOf({ s: [['me']] }, 'g'))).toThrow(isUnreadable)
    expect(() => slotsCodec.decode(bytesOf({}, 'g'))).toThrow(isUnreadable)
  })
})

describe('an old and a new process on one record (P12):', () => {
  /** What a later release might write: the next version, and what it holds is nobody's business here. */
  const newer = (bytes: Uint8Array): Uint8Array => new Uint8Array([bytes[0]!, formatVersion + 1, ...bytes.subarray(2)])

  test('the old one refuses what the new one wrote, and leaves it byte for byte', async () => {
    const kv = memory()
    const old = {
      counter: counter({ kv, name: 'n', start: 500, min: 0 }),
      windowed: windowed({ kv, name: 'n', window: '1m' }),
      gauge: gauge({ kv, name: 'n', max: 1, lease: '30s' }),
    }
    await Promise.all([old.counter.add('a', -1), old.windowed.add('a', 1), old.gauge.acquire('a')])
    for (const key of ['counter:n:a', 'window:n.60000.10:a', 'gauge:n:a']) {
      const { entry } = await kv.get(key)
      await kv.set(key, newer(entry!.value))
    }
    const calls = [
      () => old.counter.add('a', -1),
      () => old.counter.add('a', -1, { requestId: 'r' }),
      () => old.counter.get('a'),
      () => old.counter.reset('a'),
      () => old.counter.update('a', () => 0),
      () => old.windowed.add('a', 1),
      () => old.windowed.get('a'),
      () => old.gauge.acquire('a'),
      () => old.gauge.get('a'),
    ]
    const before = await kv.getMany(['counter:n:a', 'window:n.60000.10:a', 'gauge:n:a'])
    for (const call of calls) await expect(call()).rejects.toMatchObject({ code: 'COUNTER_UNREADABLE', retry: 'never' })
    const after = await kv.getMany(['counter:n:a', 'window:n.60000.10:a', 'gauge:n:a'])
    expect([...after.entries.values()].map(({ version }) => version)).toEqual([...before.entries.values()].map(({ version }) => version))
  })

  test('a new write between the old one’s read and its write is met as unreadable, and not written over', async () => {
    const { kv, clock, process } = world()
    const seats = counter({ kv, name: 'n', start: 500, modify: process() })
    await seats.add('a', -1)
    const { entry } = await kv.get('counter:n:a')
    const raced = counter({
      kv: {
        ...kv,
        update: async (...call) => {
          await kv.set('counter:n:a', newer(entry!.value))
          return await kv.update(...call)
        },
      },
      name: 'n',
      modify: process(),
    })
    await expect(ended(clock, raced.add('a', -1))).rejects.toMatchObject({ code: 'COUNTER_UNREADABLE' })
    expect((await kv.get('counter:n:a')).entry!.value[1]).toBe(formatVersion + 1)
  })

  test('a record without sessions is written so that a release before them reads it, and one with them is not (P12)', async () => {
    const kv = memory()
    const n = counter({ kv, name: 'n' })
    const versionOf = async (key: string) => (await kv.get(`counter:n:${key}`)).entry!.value[1]
    await n.add('a', 1, { requestId: 'r' })
    expect(await versionOf('a')).toBe(1)
    await n.add('a', 1, { requestId: { session: 's', sequence: 1, done: 0 } })
    expect(await versionOf('a')).toBe(2)
    expect(await n.add('a', 1, { requestId: 'r' })).toMatchObject({ value: 1, repeated: true })
  })

  test('a process that counts in numbers and one that counts in bigints share a record', async () => {
    const kv = memory()
    const [small, large] = [counter({ kv, name: 'n' }), counter({ kv, name: 'n', bigint: true })]
    await small.add('a', 5, { requestId: 'r' })
    expect(await large.add('a', 5n, { requestId: 'r' })).toMatchObject({ value: 5n, repeated: true })
    await large.add('a', 2n)
    expect(await small.get('a')).toMatchObject({ value: 7 })
  })

  test('processes that remember for different times keep what each promised', async () => {
    const { kv, clock } = world()
    const [long, short] = [counter({ kv, name: 'n', remember: '1h' }), counter({ kv, name: 'n', remember: '1s' })]
    await long.add('a', 1, { requestId: 'long' })
    await short.add('a', 1, { requestId: 'short' })
    await clock.advance('59m')
    await short.add('a', 1, { requestId: 'other' })
    expect(await short.add('a', 1, { requestId: 'long' })).toMatchObject({ value: 1, repeated: true })
    expect(await long.add('a', 1, { requestId: 'short' })).toMatchObject({ value: 4, repeated: false })
  })
})
