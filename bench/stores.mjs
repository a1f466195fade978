/**
 * The stores that the embedded benchmark compares, each behind the same four calls.
 * Invariant: every call resolves to true when the store answered rightly, so a fast wrong answer is seen.
 * Why two updates: `update` overwrites what is there (Redis: SET XX), `updateIf` changes only the version it has seen (Redis: a script).
 * What is equal stands in one class: `os` survives a killed process, `fsync` a power cut, `none` neither.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { open as openLmdb } from 'lmdb'
import { createClient, defineScript } from 'redis'
import { hapax } from './harness.mjs'

export const valueBytes = 200

/** ASCII, so that a client that speaks strings has no conversion to do that bytes would not need. */
const textOf = (number) => String(number % 1_000_000_007).padEnd(valueBytes, 'x')
const bytesOf = (number) => Buffer.from(textOf(number), 'latin1')

/** Ours. Versions are kept by key, as an application keeps the entry it has read. */
export async function hapaxStore({ dir, durability, name = `hapax ${durability}`, cacheBytes }) {
  const { embedded } = await hapax('core/stores/embedded.js')
  const kv = await embedded({ dir, durability, ...(cacheBytes === undefined ? {} : { cacheBytes }) })
  const versions = new Map()
  return {
    name,
    kind: 'in process',
    create: async (key, number) => (await kv.create(key, bytesOf(number))).ok,
    get: async (key) => (await kv.get(key)).entry?.value.length === valueBytes,
    update: async (key, number) => (await kv.update(key, bytesOf(number))).ok,
    updateIf: async (key, number) => {
      const ifVersion = versions.get(key) ?? (await kv.get(key)).entry.version
      const updated = await kv.update(key, bytesOf(number), { ifVersion })
      versions.set(key, updated.entry.version)
      return updated.ok
    },
    close: () => kv.close(),
  }
}

/** The same on Redis: version and value in one hash, compared and written in one script. */
const compareAndSet = `
if redis.call('HGET', KEYS[1], 'v') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'd', ARGV[3])
return 1`

/** A key's versions as a Redis user would count them: the hash is made at the first use. Two clients of one server keep apart. */
function counted(client, make, change) {
  const versions = new Map()
  return async (key, number) => {
    const hash = `h:${client}:${key}`
    let version = versions.get(hash)
    if (version === undefined) {
      version = 1
      await make(hash, textOf(number))
    }
    const changed = await change(hash, String(version), String(version + 1), textOf(number))
    versions.set(hash, version + 1)
    return changed === 1
  }
}

export async function ioredisStore({ port, label }) {
  const client = new Redis({ host: '127.0.0.1', port, enableAutoPipelining: true })
  client.defineCommand('compareAndSet', { numberOfKeys: 1, lua: compareAndSet })
  await client.ping()
  return {
    name: `ioredis ${label}`,
    kind: 'network',
    create: async (key, number) => (await client.set(key, textOf(number), 'NX')) === 'OK',
    get: async (key) => (await client.get(key)).length === valueBytes,
    update: async (key, number) => (await client.set(key, textOf(number), 'XX')) === 'OK',
    updateIf: counted(
      'ioredis',
      (key, value) => client.hset(key, 'v', '1', 'd', value),
      (key, from, to, value) => client.compareAndSet(key, from, to, value),
    ),
    close: () => client.disconnect(),
  }
}

export async function nodeRedisStore({ port, label }) {
  const script = defineScript({
    NUMBER_OF_KEYS: 1,
    SCRIPT: compareAndSet,
    parseCommand(parser, key, from, to, value) {
      parser.pushKey(key)
      parser.push(from, to, value)
    },
    transformReply: (reply) => reply,
  })
  const client = createClient({ socket: { host: '127.0.0.1', port }, scripts: { compareAndSet: script } })
  await client.connect()
  return {
    name: `redis ${label}`,
    kind: 'network',
    create: async (key, number) => (await client.set(key, textOf(number), { condition: 'NX' })) === 'OK',
    get: async (key) => (await client.get(key)).length === valueBytes,
    update: async (key, number) => (await client.set(key, textOf(number), { condition: 'XX' })) === 'OK',
    updateIf: counted(
      'redis',
      (key, value) => client.hSet(key, { v: '1', d: value }),
      (key, from, to, value) => client.compareAndSet(key, from, to, value),
    ),
    close: () => client.destroy(),
  }
}

/** `overlappingSync` answers before the disk has it, so in the fsync class it is off. */
export function lmdbStore({ dir, durability }) {
  mkdirSync(dir, { recursive: true })
  const sync = durability === 'fsync' ? { overlappingSync: false } : { noSync: true }
  const db = openLmdb({ path: join(dir, 'lmdb'), encoding: 'binary', compression: false, useVersions: true, ...sync })
  const versions = new Map()
  return {
    name: `lmdb ${durability}`,
    kind: 'in process',
    create: (key, number) => db.ifNoExists(key, () => db.put(key, bytesOf(number), 1)),
    get: async (key) => db.getBinary(key)?.length === valueBytes,
    update: (key, number) => db.put(key, bytesOf(number), 1),
    updateIf: async (key, number) => {
      const hash = `h:${key}`
      const version = versions.get(hash) ?? 1
      if (version === 1) await db.put(hash, bytesOf(number), 1)
      versions.set(hash, version + 1)
      return db.put(hash, bytesOf(number), version + 1, version)
    },
    close: () => db.close(),
  }
}

/** Synchronous, one transaction a statement: what in-flight calls mean elsewhere, it cannot use. @returns undefined and why, when not compiled. */
export async function sqliteStore({ dir, durability }) {
  let Database
  try {
    Database = (await import('better-sqlite3')).default
    new Database(':memory:').close()
  } catch (error) {
    return { missing: `better-sqlite3 is left out: ${String(error.message).split('\n')[0]}` }
  }
  mkdirSync(dir, { recursive: true })
  const db = new Database(join(dir, 'sqlite'))
  db.pragma('journal_mode = WAL')
  db.pragma(`synchronous = ${durability === 'fsync' ? 'FULL' : 'NORMAL'}`)
  db.exec('CREATE TABLE kv (key TEXT PRIMARY KEY, version INTEGER NOT NULL, value BLOB NOT NULL)')
  const insert = db.prepare('INSERT OR IGNORE INTO kv VALUES (?, 1, ?)')
  const read = db.prepare('SELECT version, value FROM kv WHERE key = ?')
  const update = db.prepare('UPDATE kv SET value = ? WHERE key = ?')
  const updateIf = db.prepare('UPDATE kv SET value = ?, version = version + 1 WHERE key = ? AND version = ?')
  const versions = new Map()
  return {
    name: `better-sqlite3 ${durability}`,
    kind: 'in process',
    create: async (key, number) => insert.run(key, bytesOf(number)).changes === 1,
    get: async (key) => read.get(key)?.value.length === valueBytes,
    update: async (key, number) => update.run(bytesOf(number), key).changes === 1,
    updateIf: async (key, number) => {
      const version = versions.get(key) ?? 1
      versions.set(key, version + 1)
      return updateIf.run(bytesOf(number), key, version).changes === 1
    },
    close: () => db.close(),
  }
}
