/**
 * An engine in memory, in order: for storage servers that keep nothing (`hapax dev`, caches).
 * Invariant: what a cursor or `rows` gives is in the order of the keys' bytes, and the caller's own.
 * Why a tree and not a sorted list: a sweep asks for the first few keys many times a second while others are written.
 */
import { createRequire } from 'node:module'
import { KvError } from '../kv/errors.ts'
import { cursorBytesMax, type Change, type Cursor, type Engine, type Row } from './engine.ts'

/** What we use of the package. Keys are texts of one character a byte, whose order is that of the bytes. */
interface Tree {
  get(key: string): Uint8Array | undefined
  set(key: string, value: Uint8Array): boolean
  delete(key: string): boolean
  /** The next pair above the key, or undefined. */
  nextHigherPair(key: string | undefined): [string, Uint8Array] | undefined
  getPairOrNextHigher(key: string): [string, Uint8Array] | undefined
}

const require = createRequire(import.meta.url)

/** @throws KvError ENGINE_UNUSABLE without the package sorted-btree. */
export function orderedEngine(): Engine {
  let Constructor: new (entries: undefined, compare: (a: string, b: string) => number) => Tree
  try {
    Constructor = (require('sorted-btree') as { readonly default: typeof Constructor }).default
  } catch (cause) {
    throw new KvError('ENGINE_UNUSABLE', {
      message: 'the engine in memory needs the package sorted-btree',
      hint: 'npm install sorted-btree, or give a directory',
      cause,
    })
  }
  const tree = new Constructor(undefined, (a, b) => (a < b ? -1 : a > b ? 1 : 0))
  let isOpen = true
  const present = (): Tree => {
    if (!isOpen) throw new KvError('UNAVAILABLE', { message: 'the engine is closed' })
    return tree
  }
  const rows = (from: string, to: string, count: number): readonly Row[] => {
    const found: Row[] = []
    let bytes = 0
    for (let pair = present().getPairOrNextHigher(from); pair !== undefined && pair[0] < to; pair = tree.nextHigherPair(pair[0])) {
      if (found.length >= count || bytes > cursorBytesMax) break
      const [name, value] = pair
      bytes += value.length
      found.push([Buffer.from(name, 'latin1'), new Uint8Array(value)])
    }
    return found
  }

  return {
    name: 'volatile',
    getMany: (keys) =>
      keys.map((key) => {
        const value = present().get(nameOf(key))
        return value && new Uint8Array(value)
      }),
    write(changes: readonly Change[]) {
      present()
      for (const { key, value } of changes) {
        if (value === undefined) tree.delete(nameOf(key))
        else tree.set(nameOf(key), new Uint8Array(value))
      }
    },
    rows: (from, to, count) => rows(nameOf(from), nameOf(to), count),
    range(from, to): Cursor {
      let at = nameOf(from)
      return {
        async next(count) {
          const found = rows(at, nameOf(to), count)
          const last = found.at(-1)
          // The name after it: the same with one more byte.
          if (last !== undefined) at = `${nameOf(last[0])}\0`
          return found
        },
        async close() {},
      }
    },
    async reopen() {},
    async close() {
      isOpen = false
    },
  }
}

const nameOf = (key: Uint8Array): string => Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('latin1')
