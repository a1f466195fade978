/**
 * Keys and values as they are: at their limits and beyond, of any bytes, and never those of the caller's buffer.
 * Invariant: what comes back is exactly what went in, or the call was refused with TOO_LARGE before anything was stored.
 */
import { strict as assert } from 'node:assert'
import { applied, assertEntry, assertRefuses, assertValue, bytes, made, utf8, type Case } from './suite.ts'

const one = bytes(1)

/** Values that a careless store changes: nothing, all bytes, text that parses, invalid UTF-8, zeros. */
const strangeValues: Readonly<Record<string, Uint8Array>> = {
  empty: new Uint8Array(0),
  'every byte': Uint8Array.from({ length: 256 }, (_, index) => index),
  'one zero': bytes(0),
  'a zero inside': utf8('a\0b'),
  zeros: new Uint8Array(1_000),
  json: utf8('{"a":1}'),
  'the word null': utf8('null'),
  'a line feed at the end': utf8('text\r\n'),
  'invalid UTF-8': bytes(0xff, 0xfe, 0xc0, 0x80, 0xed, 0xa0, 0x80),
  'a byte order mark': bytes(0xef, 0xbb, 0xbf, 0x41),
}

/** Endings of keys that look alike, or that mean something to a careless store. All are different keys. */
const strangeEndings = [
  '',
  ' ',
  'a',
  'A',
  'a ',
  'a\0',
  'a\0b',
  'é', // one code point
  'e\u0301', // the same letter as two
  'ß',
  'ss',
  'ﬁ', // a ligature
  'fi',
  '😀',
  '\u{10ffff}',
  ':',
  '/',
  '%',
  '%2F',
  '*',
  '?',
  '[a]',
  '{a}',
  '\\',
  '\n',
  '"',
  "'",
  '..',
  '__proto__',
  'constructor',
  '\u200b', // no width
  '\uffff',
]

export const byteCases: readonly Case[] = [
  {
    group: 'bytes',
    name: 'values of any bytes come back as they were, also the empty one',
    run: async ({ kv, key }) => {
      const names = new Map(Object.keys(strangeValues).map((what, index) => [key(`-${index}`), what]))
      for (const [name, what] of names) {
        const value = strangeValues[what] as Uint8Array
        assertValue(await made(kv, name, value), value, `create of ${what}`)
        assertValue((await kv.get(name)).entry, value, what)
        assertValue(applied(await kv.update(name, one), 'update'), one, 'update')
        assertValue(applied(await kv.set(name, value), 'set'), value, `set to ${what}`)
        const again = await kv.create(name, one)
        assert.equal(again.ok, false, `${what} is a value: the key exists`)
      }
      const { entries } = await kv.getMany([...names.keys()])
      for (const [name, what] of names) assertValue(entries.get(name), strangeValues[what] as Uint8Array, `getMany of ${what}`)
    },
  },
  {
    group: 'bytes',
    name: 'keys that look alike are different keys',
    run: async ({ kv, key }) => {
      for (const [index, ending] of strangeEndings.entries()) await made(kv, key(ending), bytes(index))
      const { entries } = await kv.getMany(strangeEndings.map((ending) => key(ending)))
      assert.equal(entries.size, strangeEndings.length, 'the number of keys')
      for (const [index, ending] of strangeEndings.entries()) {
        assertValue((await kv.get(key(ending))).entry, bytes(index), `the key that ends in ${JSON.stringify(ending)}`)
        assertValue(entries.get(key(ending)), bytes(index), `getMany of the key that ends in ${JSON.stringify(ending)}`)
      }
      await kv.destroy(key('é'))
      assertValue((await kv.get(key('e\u0301'))).entry, bytes(strangeEndings.indexOf('e\u0301')), 'the sibling of a destroyed key')
    },
  },
  {
    group: 'bytes',
    name: "the caller's buffer may be used again once the answer is there",
    run: async ({ kv, key }) => {
      const buffer = Buffer.alloc(64, 7)
      const expected = Uint8Array.from(buffer)
      await kv.create(key('-create'), buffer)
      await kv.set(key('-set'), buffer)
      await kv.set(key('-update'), one)
      await kv.update(key('-update'), buffer)
      buffer.fill(9)
      for (const name of ['-create', '-set', '-update']) assertValue((await kv.get(key(name))).entry, expected, name)
    },
  },
  {
    group: 'bytes',
    name: 'a slice of a larger buffer is stored alone',
    run: async ({ kv, key }) => {
      const large = Uint8Array.from({ length: 100 }, (_, index) => index)
      await made(kv, key(), large.subarray(10, 13))
      assertValue((await kv.get(key())).entry, bytes(10, 11, 12), 'the slice')
    },
  },

  {
    group: 'sizes',
    name: 'the limits are whole positive numbers',
    run: async ({ capabilities: { limits, ttlGrainMs } }) => {
      for (const [name, limit] of Object.entries({ ...limits, ttlGrainMs }))
        assert.ok(Number.isSafeInteger(limit) && limit > 0, `${name} is ${limit}`)
      assert.ok(limits.keyBytesMax >= 48, 'the kit needs keys of 48 bytes')
    },
  },
  {
    group: 'sizes',
    name: 'a key may be as long as the limit in UTF-8 bytes, and not one byte longer',
    run: async ({ kv, key, capabilities: { limits } }) => {
      const start = key('-')
      const room = limits.keyBytesMax - start.length
      const longest = {
        ascii: start + 'k'.repeat(room),
        'two bytes a letter': start + 'x'.repeat(room % 2) + 'é'.repeat(Math.floor(room / 2)),
      }
      for (const [what, name] of Object.entries(longest)) {
        const entry = await made(kv, name, one)
        assertEntry((await kv.get(name)).entry, entry, `the longest key, ${what}`)
        const calls = {
          create: () => kv.create(`${name}k`, one),
          get: () => kv.get(`${name}k`),
          getMany: () => kv.getMany([name, `${name}k`]),
          update: () => kv.update(`${name}k`, one),
          set: () => kv.set(`${name}k`, one),
          destroy: () => kv.destroy(`${name}k`),
        }
        for (const [verb, call] of Object.entries(calls))
          await assertRefuses(call, 'TOO_LARGE', `${verb} of a key beyond the limit, ${what}`)
        assertEntry((await kv.get(name)).entry, entry, 'the longest key is not the start of a longer one')
      }
    },
  },
  {
    group: 'sizes',
    name: 'a value may be as long as the limit, and not one byte longer',
    run: async ({ kv, key, random, capabilities: { limits } }) => {
      const value = new Uint8Array(limits.valueBytesMax)
      for (let at = 0; at < value.length; at += 997) value[at] = random.int(256)
      value[value.length - 1] = 1
      await made(kv, key(), value)
      assertValue((await kv.get(key())).entry, value, 'the longest value')
      const larger = new Uint8Array(limits.valueBytesMax + 1)
      await assertRefuses(() => kv.create(key('-new'), larger), 'TOO_LARGE', 'create of a value beyond the limit')
      await assertRefuses(() => kv.update(key(), larger), 'TOO_LARGE', 'update to a value beyond the limit')
      await assertRefuses(() => kv.set(key(), larger), 'TOO_LARGE', 'set of a value beyond the limit')
      assertValue((await kv.get(key())).entry, value, 'the value after refused writes')
      assert.equal((await kv.get(key('-new'))).entry, undefined, 'the key of the refused create')
    },
  },
  {
    group: 'sizes',
    name: 'a ttl may be as long as the limit, and not one millisecond longer',
    run: async ({ kv, key, capabilities: { limits, ttlGrainMs } }) => {
      const { entry, now } = await kv.create(key(), one, { ttl: limits.ttlMsMax })
      const overMs = (entry.expiresAt ?? 0) - now - limits.ttlMsMax
      assert.ok(overMs >= 0 && overMs < ttlGrainMs, `the longest ttl is off by ${overMs} ms`)
      const ttl = limits.ttlMsMax + 1
      await assertRefuses(() => kv.create(key('-new'), one, { ttl }), 'TOO_LARGE', 'create with a ttl beyond the limit')
      await assertRefuses(() => kv.update(key(), one, { expiry: { set: ttl } }), 'TOO_LARGE', 'update with a ttl beyond the limit')
      await assertRefuses(() => kv.set(key(), one, { expiry: { extend: ttl } }), 'TOO_LARGE', 'set with a ttl beyond the limit')
    },
  },
  {
    group: 'sizes',
    name: 'getMany takes as many keys as the limit, and not one more',
    run: async ({ kv, key, capabilities: { limits } }) => {
      const keys = Array.from({ length: limits.getManyMax }, (_, index) => key(`-${index}`))
      const [first, last] = [keys[0] as string, keys.at(-1) as string]
      await kv.set(first, one)
      await kv.set(last, one)
      assert.deepEqual([...(await kv.getMany(keys)).entries.keys()].sort(), [...new Set([first, last])].sort())
      await assertRefuses(() => kv.getMany([...keys, key('-more')]), 'TOO_LARGE', 'getMany beyond the limit')
    },
  },
]
