/**
 * Reads through the bindings of RocksDB and LevelDB, which both stand on `abstract-level`.
 * Invariant: what a binding throws in a read leaves here as the KvError of that read.
 * Why it stands apart: each engine has its own way to open, write and sync; they read alike, and must fail alike.
 */
import type { KvError } from '../kv/errors.ts'
import { readFault, type Cursor, type Row } from './engine.ts'

/** What we use of a binding's iterator. */
export interface LevelIterator {
  nextv(count: number): Promise<readonly Row[]>
  close(): Promise<void>
}

export const cursorOver = (iterator: LevelIterator): Cursor => ({
  async next(count) {
    try {
      return await iterator.nextv(count)
    } catch (error) {
      throw readFault(error)
    }
  },
  close: () => iterator.close(),
})

/** Each key by a read of its own: one that fails leaves the others readable. */
export const readEach = (
  keys: readonly Uint8Array[],
  read: (key: Uint8Array) => Uint8Array | undefined,
): readonly (Uint8Array | undefined | KvError)[] =>
  keys.map((key) => {
    try {
      return read(key)
    } catch (error) {
      return readFault(error)
    }
  })
