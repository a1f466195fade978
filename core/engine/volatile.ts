/**
 * An engine in memory that can lose what was not synced, as a machine does in a power cut. For tests of the store above.
 * Invariant: what `powerCut` keeps is a prefix of the writes that holds every write which was asked to be `fsync`ed.
 * Why it exists: a killed process cannot show a missing sync, because the operating system still has the bytes.
 */
import type { KvError } from '../kv/errors.ts'
import { cursorBytesMax, fullWhileSyncing, isDiskFull, type Change, type Cursor, type Durability, type Engine, type Row } from './engine.ts'

/** Stands where a write meets the disk: may wait, or throw in place of the write. */
export type DiskHook = (step: 'write' | 'sync', changes: readonly Change[]) => void | Promise<void>

export interface VolatileOptions {
  /** Called before a write is applied, and before it becomes durable. A throw at `write` applies nothing. */
  readonly disk?: DiskHook | undefined
  /** What is on the disk at the beginning: the return of an earlier `powerCut`. */
  readonly content?: ReadonlyMap<string, Uint8Array> | undefined
}

export interface VolatileEngine extends Engine {
  /** What a reader finds after the power was cut now: the synced writes, and `kept` of the later ones. Half of a write is never found, as with an engine's checksummed log. */
  powerCut(kept?: number): ReadonlyMap<string, Uint8Array>
  /** Turns bits of one value, as a failing disk does. */
  damage(key: Uint8Array): void
  readonly opened: number
}

export function volatileEngine(options: VolatileOptions = {}): VolatileEngine {
  const durable = new Map<string, Uint8Array>(options.content)
  const present = new Map<string, Uint8Array>(options.content)
  let unsynced: (readonly Change[])[] = []
  let opened = 1

  const make = (into: Map<string, Uint8Array>, changes: readonly Change[]): void => {
    for (const { key, value } of changes) {
      if (value === undefined) into.delete(nameOf(key))
      else into.set(nameOf(key), new Uint8Array(value))
    }
  }
  const write = (changes: readonly Change[]): void => {
    make(present, changes)
    unsynced.push(changes.map(({ key, value }) => ({ key, value: value && new Uint8Array(value) })))
  }
  const sync = (count: number): void => {
    for (const changes of unsynced.slice(0, count)) make(durable, changes)
    unsynced = unsynced.slice(count)
  }

  return {
    name: 'volatile',
    get opened() {
      return opened
    },
    getMany: (keys): readonly (Uint8Array | undefined | KvError)[] =>
      keys.map((key) => {
        const value = present.get(nameOf(key))
        return value && new Uint8Array(value)
      }),
    async write(changes: readonly Change[], durability: Durability) {
      // Without a hook that waits, what is written can be read at once, as with RocksDB: durable it is later.
      const waiting = options.disk?.('write', changes)
      if (waiting) await waiting
      write(changes)
      if (durability === 'os') return
      const covered = unsynced.length
      try {
        await options.disk?.('sync', changes)
      } catch (error) {
        throw isDiskFull(error) ? fullWhileSyncing(error) : error
      }
      sync(covered)
    },
    range(from, to): Cursor {
      const names = [...present.keys()].filter((name) => name >= nameOf(from) && name < nameOf(to)).sort()
      const rows = names.map((name): Row => [Buffer.from(name, 'latin1'), present.get(name) as Uint8Array])
      let at = 0
      return {
        async next(count) {
          const start = at
          for (let bytes = 0; at < rows.length && at - start < count && bytes <= cursorBytesMax; at++) bytes += (rows[at] as Row)[1].length
          return rows.slice(start, at)
        },
        async close() {
          at = rows.length
        },
      }
    },
    async reopen() {
      opened++
      sync(unsynced.length)
    },
    async close() {},
    powerCut(kept = 0) {
      const left = new Map(durable)
      for (const changes of unsynced.slice(0, kept)) make(left, changes)
      return left
    },
    damage(key) {
      for (const map of [present, durable]) {
        const value = map.get(nameOf(key))
        if (value) value[value.length - 1] = (value.at(-1) as number) ^ 0xff
      }
    },
  }
}

/** A byte a character: keeps the order of the bytes. */
const nameOf = (key: Uint8Array): string => Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('latin1')
