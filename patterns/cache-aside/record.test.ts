/**
 * The bytes: golden records of every released format, round trips, damage, and old and new processes on one record.
 * testdata/v1-*.hex are bytes that a release wrote. They are never made anew: a reader that cannot read them has broken a promise.
 */
import { readdirSync, readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import type { StandardSchema } from '../../core/kv/codec.ts'
import { settle } from '../../core/testing/clock.ts'
import { intercept } from '../../core/testing/index.ts'
import {
  decodeGenerations,
  decodeRecord,
  decodeTagEpoch,
  encodeGenerations,
  encodeRecord,
  encodeTagEpoch,
  formatVersion,
  tombstone,
} from './record.ts'
import type { CacheRecord, Held } from './rules.ts'
import { eventsOf, world } from './testdata/world.ts'

const seed = Number(process.env.HAPAX_SEED)
const at = (offset: number) => epochMs(1_767_225_600_000 + offset)
const held: Held = {
  kind: 'value',
  freshUntil: at(60_000),
  staleUntil: at(120_000),
  keptUntil: at(180_000),
  deltaMs: 12,
  stamp: { era: '01JD0000000000000000000000', epoch: 1_767_225_600_001 },
  tags: ['team:7', 'a "quoted" tag €'],
  body: new TextEncoder().encode('{"name":"Ada €"}'),
}
const lease = { owner: '01JD0000000000000000000001', endsAt: at(10_000), isBackoff: false }
const none = { tags: [], body: new Uint8Array(0) }

/** What each golden file of version 1 holds. */
const golden: Readonly<Record<string, CacheRecord>> = {
  tombstone: { version: 1 },
  lease: { version: 1, lease },
  value: { version: 1, held },
  'value-lease': { version: 3, lease, held },
  'value-pause': { version: 1, lease: { ...lease, isBackoff: true }, held },
  undefined: { version: 1, held: { ...held, ...none, kind: 'undefined' } },
  missing: { version: 1, held: { ...held, ...none, kind: 'missing' } },
  oversize: { version: 1, held: { ...held, ...none, kind: 'oversize' } },
}
const goldenGenerations = { era: '01JD0000000000000000000000', epoch: 1_767_225_600_001, lifeMs: 220_000 }
const goldenTag = 1_767_225_600_001

const folder = new URL('testdata/', import.meta.url)
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const stored = (name: string): Buffer => Buffer.from(readFileSync(new URL(`v1-${name}.hex`, folder), 'utf8').replaceAll(/\s/g, ''), 'hex')

describe('golden records of version 1 are read and written as they were written (P12):', () => {
  for (const [name, record] of Object.entries(golden)) {
    test(name, () => {
      expect(decodeRecord(stored(name))).toEqual({ type: 'read', value: record })
      expect(hexOf(encodeRecord(record))).toBe(hexOf(stored(name)))
    })
  }
  test('generations and the epoch of a tag', () => {
    expect(decodeGenerations(stored('generations'))).toEqual({ type: 'read', value: goldenGenerations })
    expect(hexOf(encodeGenerations(goldenGenerations))).toBe(hexOf(stored('generations')))
    expect(decodeTagEpoch(stored('tag'))).toEqual({ type: 'read', value: goldenTag })
    expect(hexOf(encodeTagEpoch(goldenTag))).toBe(hexOf(stored('tag')))
  })
  test('all of them are there', () => {
    expect(formatVersion).toBe(1)
    const names = readdirSync(folder).filter((file) => file.endsWith('.hex'))
    expect(names.sort()).toEqual([...Object.keys(golden), 'generations', 'tag'].map((name) => `v1-${name}.hex`).sort())
  })
})

test(`a record is what was encoded (seed ${seed})`, () => {
  const count = fc.nat({ max: Number.MAX_SAFE_INTEGER })
  const parts = fc.record({
    owner: fc.string(),
    endsAt: count,
    isBackoff: fc.boolean(),
    freshUntil: count,
    tags: fc.array(fc.string(), { maxLength: 3 }),
    era: fc.string(),
    body: fc.uint8Array(),
  })
  fc.assert(
    fc.property(parts, ({ owner, endsAt, isBackoff, freshUntil, tags, era, body }) => {
      const value: Held = { ...held, freshUntil: epochMs(freshUntil), tags, stamp: { era, epoch: 1 }, body }
      const record = { version: 1, lease: { owner, endsAt: epochMs(endsAt), isBackoff }, held: value }
      expect(decodeRecord(encodeRecord(record))).toEqual({ type: 'read', value: record })
    }),
    { seed, numRuns: 300 },
  )
})

describe('a record that cannot be read is damaged and never a value (K18):', () => {
  const good = encodeRecord(golden['value-lease'] as CacheRecord)
  const changed = (place: number, to: number): Uint8Array => good.map((byte, index) => (index === place ? to : byte))
  const withFields = (change: Record<string, unknown>): Uint8Array => {
    const json = new TextEncoder().encode(JSON.stringify({ sv: 1, ...change }))
    const bytes = new Uint8Array(6 + json.length)
    bytes.set([0x63, 1])
    new DataView(bytes.buffer).setUint32(2, json.length)
    bytes.set(json, 6)
    return bytes
  }
  const list = ['value', 1, 2, 3, 4, 'era', 5]
  const cases: Readonly<Record<string, Uint8Array>> = {
    'no bytes': new Uint8Array(0),
    'one byte': new Uint8Array([0x63]),
    'another magic': changed(0, 0x64),
    'version 0': changed(1, 0),
    'a header cut short': good.subarray(0, 5),
    'a length beyond the end': changed(2, 0xff),
    'broken JSON': changed(6, 0x21),
    'broken UTF-8': changed(10, 0xff),
    'no schema version': withFields({ sv: undefined }),
    'a lease without an end': withFields({ le: ['me'] }),
    'a lease that is no list': withFields({ le: 7 }),
    'a value that is no list': withFields({ hd: {} }),
    'a value of an unknown kind': withFields({ hd: ['thing', ...list.slice(1)] }),
    'a value without times': withFields({ hd: ['value'] }),
    'a tag that is no text': withFields({ hd: [...list, 7] }),
    'a body without a value': new Uint8Array([...tombstone(1), 1]),
  }
  for (const [name, bytes] of Object.entries(cases)) {
    test(`${name}`, () => expect(decodeRecord(bytes).type).toBe('damaged'))
  }
  test('but the next format version is newer, whatever follows (P12)', () => {
    expect(decodeRecord(changed(1, 2))).toEqual({ type: 'newer' })
    expect(decodeRecord(new Uint8Array([0x63, 2]))).toEqual({ type: 'newer' })
  })
})

describe('what does not decode', () => {
  /** Puts something into the place of the entry that `process` has stored. */
  const spoiled = async (bytes: (before: Uint8Array) => Uint8Array) => {
    const here = world()
    let entryKey = ''
    const spy = intercept(here.store, async (call, run) => {
      if (call.verb === 'create') entryKey = call.key
      return await run()
    })
    await here.process({}, spy).get('42')
    await settle()
    const before = (await here.store.get(entryKey)).entry?.value as Uint8Array
    await here.store.set(entryKey, bytes(before))
    here.source.rows.set('42', 'new')
    return { ...here, entry: async () => (await here.store.get(entryKey)).entry?.value }
  }
  test('is a miss, told, and replaced by its version; no reader sees an error (K18)', async () => {
    for (const bytes of [
      () => new Uint8Array([1, 2, 3]),
      (before: Uint8Array) => before.subarray(0, 20),
      (before: Uint8Array) => new Uint8Array([...before, 0x22]),
    ]) {
      const { process, source, entry } = await spoiled(bytes)
      const events = await eventsOf(async () => expect(await process().get('42')).toBe('new'))
      expect(events.filter(({ type }) => type === 'undecodable')).toHaveLength(1)
      await settle()
      expect(decodeRecord((await entry()) as Uint8Array)).toMatchObject({ type: 'read', value: { held: { kind: 'value' } } })
      expect(await process().get('42')).toBe('new')
      expect(source.loads).toBe(2)
    }
  })
  test('because its schema has changed is a miss as well (K18)', async () => {
    const { source, process } = world()
    await process().get('42')
    const schema: StandardSchema<string> = {
      '~standard': {
        version: 1,
        vendor: 'test',
        validate: (value) => (String(value).startsWith('user ') ? { value: String(value) } : { issues: [{ message: 'no user' }] }),
      },
    }
    source.rows.set('42', 'user Ada')
    const users = process({ schema })
    const events = await eventsOf(async () => expect(await users.get('42')).toBe('user Ada'))
    expect(events.map(({ type }) => type)).toContain('undecodable')
    expect(await users.get('42')).toBe('user Ada')
    expect(source.loads).toBe(2)
    source.rows.set('43', 'a group')
    await expect(users.get('43')).rejects.toMatchObject({ code: 'VALUE_INVALID' })
  })
  test('with a single place for loads is loaded all the same (K18, K20)', async () => {
    const { process } = await spoiled((before) => new Uint8Array([...before, 0x22]))
    expect(await process({ loadsMax: 1 }).get('42')).toBe('new')
  })
  test('because a newer release wrote it is left alone: read past, never replaced, and invalidated like any other (P12)', async () => {
    const { process, source, entry } = await spoiled((before) => before.map((byte, index) => (index === 1 ? 2 : byte)))
    const users = process()
    expect(await users.get('42')).toBe('new')
    expect(await users.get('42')).toBe('new')
    expect(source.loads).toBe(3)
    expect((await entry())?.[1]).toBe(2)
    expect(await users.invalidate('42')).toEqual({ done: true })
    await users.get('42')
    await users.get('42')
    expect(source.loads).toBe(4)
  })
})

describe('processes of two schema versions on one record (K12, P12)', () => {
  test('never read each other’s values, do not fight, and invalidate each other’s', async () => {
    const { clock, source, process } = world()
    const load = (version: number) => async (key: string) => `v${version} ${await source.load(key)}`
    const [old, next] = [process({ version: 1, load: load(1) }), process({ version: 2, load: load(2) })]
    expect(await old.get('42')).toBe('v1 no 42')
    expect(await next.get('42')).toBe('v2 no 42') // takes the place
    await next.settled()
    expect(await old.get('42')).toBe('v1 no 42') // read past
    expect(source.loads).toBe(3)
    expect(await next.get('42')).toBe('v2 no 42')
    expect(source.loads).toBe(3)
    source.rows.set('42', 'Ada')
    await old.invalidate('42')
    expect([await next.get('42'), await old.get('42')]).toEqual(['v2 Ada', 'v1 Ada'])
    await next.settled()
    source.rows.set('42', 'Grace')
    await next.invalidate('42')
    expect([await old.get('42'), await next.get('42')]).toEqual(['v1 Grace', 'v2 Grace'])
    // After a roll-back the older release takes over what is no longer fresh.
    await clock.advance('1m')
    await old.get('42')
    const { loads } = source
    await old.get('42')
    expect(source.loads).toBe(loads)
  })
})
