/**
 * What each verb answers when nobody else is there: verbs, refusals, versions, and the end of the store.
 * Invariant: an answer is compared with a later read, so that a store cannot say one thing and hold another.
 */
import { strict as assert } from 'node:assert'
import { isKvError } from '../kv/errors.ts'
import type { KV, Version } from '../kv/kv.ts'
import {
  applied,
  assertEntry,
  assertRefuses,
  assertValue,
  bytes,
  foreignVersion,
  made,
  reach,
  refused,
  withoutClock,
  type Case,
} from './suite.ts'

const one = bytes(1)
const two = bytes(2)

export const verbCases: readonly Case[] = [
  {
    group: 'verbs',
    name: 'create answers with the entry that a read then shows',
    run: async ({ kv, key }) => {
      const entry = await made(kv, key(), one)
      assertValue(entry, one, 'create')
      assert.equal(entry.expiresAt, undefined, 'an entry without a ttl does not expire')
      assert.ok(typeof entry.version === 'string' && entry.version !== '', 'a version is a non-empty string')
      assertEntry((await kv.get(key())).entry, entry, 'get after create')
    },
  },
  {
    group: 'verbs',
    name: 'get of nothing answers with no entry and the time',
    run: async ({ kv, key }) => {
      const { entry, now } = await kv.get(key())
      assert.equal(entry, undefined)
      assert.ok(Number.isSafeInteger(now) && now > 0, 'now is epoch milliseconds')
    },
  },
  {
    group: 'verbs',
    name: 'update and set answer with the entry that a read then shows, of the same life',
    run: async ({ kv, key }) => {
      const first = await made(kv, key(), one)
      const updated = applied(await kv.update(key(), two), 'update')
      assertEntry((await kv.get(key())).entry, updated, 'get after update')
      const set = applied(await kv.set(key(), one), 'set')
      assertEntry((await kv.get(key())).entry, set, 'get after set')
      assertValue(set, one, 'set')
      assert.deepEqual([updated.createdAt, set.createdAt], [first.createdAt, first.createdAt], 'a change begins no new life')
    },
  },
  {
    group: 'verbs',
    name: 'set makes an entry where there is none',
    run: async ({ kv, key }) => {
      const entry = applied(await kv.set(key(), one), 'set')
      assertEntry((await kv.get(key())).entry, entry, 'get after set')
    },
  },
  {
    group: 'verbs',
    name: 'update and destroy go through under the present version',
    run: async ({ kv, key }) => {
      const first = await made(kv, key(), one)
      const second = applied(await kv.update(key(), two, { ifVersion: first.version }), 'update')
      const third = applied(await kv.set(key(), one, { ifVersion: second.version }), 'set')
      const gone = await kv.destroy(key(), { ifVersion: third.version })
      assert.equal(gone.ok, true, 'destroy')
      assert.equal((await kv.get(key())).entry, undefined, 'a destroyed entry is gone')
    },
  },
  {
    group: 'verbs',
    name: 'destroy answers with what was there, and applies to nothing too',
    run: async ({ kv, key }) => {
      const entry = await made(kv, key(), one)
      const gone = await kv.destroy(key())
      assert.ok(gone.ok, 'destroy')
      assertEntry(gone.entry, entry, 'what destroy took away')
      const again = await kv.destroy(key())
      assert.ok(again.ok && again.entry === undefined, 'destroy of nothing')
      assert.equal(applied(await kv.create(key(), two), 'create after destroy').value[0], 2)
    },
  },
  {
    group: 'verbs',
    name: 'getMany gives every key that has an entry, once, and only those',
    run: async ({ kv, key }) => {
      const keys = Array.from({ length: 21 }, (_, index) => key(`-${index}`))
      const there = new Map<string, Awaited<ReturnType<typeof made>>>()
      for (const [index, name] of keys.entries()) if (index % 3 !== 1) there.set(name, await made(kv, name, bytes(index)))
      const { entries, now } = await kv.getMany([...keys.slice(0, 10), key('-none'), ...keys.slice(5)])
      assert.deepEqual([...entries.keys()].sort(), [...there.keys()].sort(), 'the keys of the answer')
      for (const [name, entry] of there) assertEntry(entries.get(name), entry, `entry of ${name}`)
      assert.ok(Number.isSafeInteger(now) && now > 0, 'now is epoch milliseconds')
      assert.equal((await kv.getMany([])).entries.size, 0, 'getMany of no keys')
    },
  },

  {
    group: 'refusals',
    name: "create refuses with 'exists', carries the entry and changes nothing",
    run: async ({ kv, key }) => {
      const entry = await made(kv, key(), one)
      const again = await kv.create(key(), two, { ttl: 1_000 })
      refused(again, 'exists', 'create of an existing key')
      assertEntry(again.entry, entry, 'the refusal carries what is there')
      assertEntry((await kv.get(key())).entry, entry, 'a refused create changes nothing')
    },
  },
  {
    group: 'refusals',
    name: "update refuses with 'missing' where there is nothing, with and without a version",
    run: async (context) => {
      const { kv, key } = context
      const foreign = await foreignVersion(context)
      refused(await kv.update(key(), one), 'missing', 'update of nothing')
      refused(await kv.update(key(), one, { ifVersion: foreign }), 'missing', 'update of nothing under a version')
      refused(await kv.set(key(), one, { ifVersion: foreign }), 'missing', 'set of nothing under a version')
      refused(await kv.destroy(key(), { ifVersion: foreign }), 'missing', 'destroy of nothing under a version')
      assert.equal((await kv.get(key())).entry, undefined, 'a refused write makes nothing')
    },
  },
  {
    group: 'refusals',
    name: "update, set and destroy refuse with 'version', carry the present entry and change nothing",
    run: async (context) => {
      const { kv, key } = context
      const old = await made(kv, key(), one)
      const entry = applied(await kv.update(key(), two), 'update')
      for (const ifVersion of [old.version, await foreignVersion(context)]) {
        const answers = {
          update: await kv.update(key(), one, { ifVersion, expiry: { set: 1_000 } }),
          set: await kv.set(key(), one, { ifVersion, expiry: { set: 1_000 } }),
          destroy: await kv.destroy(key(), { ifVersion }),
        }
        for (const [verb, answer] of Object.entries(answers)) {
          refused(answer, 'version', verb)
          assertEntry(answer.entry, entry, `the refusal of ${verb} carries what is there`)
        }
        assertEntry((await kv.get(key())).entry, entry, 'a refused write changes nothing')
      }
    },
  },
  {
    group: 'refusals',
    name: 'arguments that no store can take are INVALID_ARGUMENT, as rejections',
    run: async ({ kv, key }) => {
      const wrong = <T>(value: unknown): T => value as T
      const name = key()
      const calls: Record<string, () => Promise<unknown>> = {
        'an empty key': () => kv.get(''),
        'a key that is no string': () => kv.create(wrong(7), one),
        'a lone surrogate in a key': () => kv.set(`${name}\ud800`, one),
        'a value that is no Uint8Array': () => kv.create(name, wrong('text')),
        'no value': () => kv.update(name, wrong(undefined)),
        'a ttl of 0': () => kv.create(name, one, { ttl: 0 }),
        'a negative ttl': () => kv.create(name, one, { ttl: -1 }),
        'a ttl that is no duration': () => kv.create(name, one, { ttl: wrong('1 day') }),
        'an unknown expiry': () => kv.set(name, one, { expiry: wrong('later') }),
        'an expiry of NaN': () => kv.set(name, one, { expiry: { set: Number.NaN } }),
        'an empty ifVersion': () => kv.update(name, one, { ifVersion: wrong<Version>('') }),
        'a deadline of 0': () => kv.get(name, { deadline: 0 }),
        'an empty key among others': () => kv.getMany([name, '']),
      }
      for (const [what, call] of Object.entries(calls)) await assertRefuses(call, 'INVALID_ARGUMENT', what)
      assert.equal((await kv.get(name)).entry, undefined, 'nothing of it was applied')
    },
  },

  {
    group: 'versions',
    name: 'every change makes a new version, also when it writes the same bytes',
    run: async ({ kv, key }) => {
      const seen = new Set<Version>([(await made(kv, key(), one)).version])
      for (let round = 0; round < 20; round++) {
        seen.add(applied(await kv.update(key(), one, { expiry: 'keep' }), 'update').version)
        seen.add(applied(await kv.set(key(), one), 'set').version)
      }
      assert.equal(seen.size, 41, 'versions repeat')
    },
  },
  {
    group: 'versions',
    name: 'reads and refusals make no new version',
    run: async ({ kv, key }) => {
      const { version } = await made(kv, key(), one)
      await kv.create(key(), two)
      await kv.get(key())
      await kv.destroy(key(), { ifVersion: `${version}x` as Version }).catch(() => undefined)
      assert.equal((await kv.get(key())).entry?.version, version)
    },
  },
  {
    group: 'versions',
    name: 'no version repeats over destroy and create (ABA)',
    run: async ({ kv, key }) => {
      const seen = new Set<Version>()
      for (let life = 0; life < 50; life++) {
        const { version } = await made(kv, key(), one)
        assert.ok(!seen.has(version), `version ${version} came back in life ${life}`)
        seen.add(version)
        if (life % 2) seen.add(applied(await kv.update(key(), one), 'update').version)
        await kv.destroy(key())
      }
    },
  },
  {
    group: 'versions',
    name: 'a version of an earlier life is refused',
    run: async ({ kv, key }) => {
      const old = await made(kv, key(), one)
      await kv.destroy(key())
      const entry = await made(kv, key(), one)
      refused(await kv.update(key(), two, { ifVersion: old.version }), 'version', 'update under an earlier life')
      refused(await kv.destroy(key(), { ifVersion: old.version }), 'version', 'destroy under an earlier life')
      assertEntry((await kv.get(key())).entry, entry, 'the new life is untouched')
    },
  },
  {
    group: 'versions',
    name: 'no version repeats when the entry expired in between',
    run: async (context) => {
      const { kv, key } = context
      const seen = new Set<Version>()
      for (let life = 0; life < 3; life++) {
        const { version, expiresAt } = await made(kv, key(), one, Math.max(20, context.capabilities.ttlGrainMs))
        assert.ok(!seen.has(version), `version ${version} came back`)
        seen.add(version)
        assert.ok(expiresAt !== undefined, 'an entry with a ttl has expiresAt')
        await reach(context, expiresAt)
        if (!context.capabilities.exactExpiry) await kv.destroy(key())
      }
    },
  },
  {
    group: 'versions',
    name: 'no version repeats when the clock stands still or steps back',
    skip: withoutClock,
    run: async ({ kv, clock, key }) => {
      const seen = new Set<Version>()
      const start = clock?.now() ?? 0
      for (let life = 0; life < 20; life++) {
        clock?.set(start - (life % 4) * 1_000)
        seen.add((await made(kv, key(), one)).version).add(applied(await kv.update(key(), one), 'update').version)
        await kv.destroy(key())
      }
      assert.equal(seen.size, 40, 'versions repeat')
    },
  },

  {
    group: 'close',
    name: 'every call after close is CLOSED',
    run: async ({ kv, key }) => {
      const { version } = await made(kv, key(), one)
      await kv.close()
      for (const [verb, call] of Object.entries(allCalls(kv, key(), version))) await assertRefuses(call, 'CLOSED', `${verb} after close`)
    },
  },
  {
    group: 'close',
    name: 'closing twice, at once and by disposal does no harm',
    run: async ({ kv }) => {
      await Promise.all([kv.close(), kv.close()])
      await kv.close()
      await kv[Symbol.asyncDispose]()
    },
  },
  {
    group: 'close',
    name: 'calls begun before close are done, or end with a KvError; none hangs',
    run: async ({ kv, key }) => {
      const calls = Array.from({ length: 20 }, (_, index) => kv.create(key(`-${index}`), one))
      const answers = Promise.allSettled(calls)
      await kv.close()
      for (const answer of await answers)
        assert.ok(answer.status === 'fulfilled' || isKvError(answer.reason), 'a call ended with no KvError')
    },
  },
]

/** One call of each verb. */
export const allCalls = (kv: KV, key: string, ifVersion: Version): Record<string, () => Promise<unknown>> => ({
  create: () => kv.create(key, one),
  get: () => kv.get(key),
  getMany: () => kv.getMany([key]),
  update: () => kv.update(key, two),
  set: () => kv.set(key, two, { ifVersion }),
  destroy: () => kv.destroy(key),
})
