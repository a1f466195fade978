/**
 * What every engine does: bytes in, bytes out. An engine knows no record, no expiry and no caller.
 * Invariant: `write` applies all of its changes or none, and returns once they are as durable as asked.
 * Why so little: two RocksDB bindings, LevelDB and a Map all fit, and the store above is tested on each of them.
 */
import { KvError } from '../kv/errors.ts'

export type EngineName = 'rocksdb' | 'portable' | 'volatile'

/** What an acknowledged write survives. `fsync`: a power cut. `os`: a killed process, because the bytes are with the operating system. */
export type Durability = 'fsync' | 'os'

/** One key's new value; undefined removes it. */
export interface Change {
  readonly key: Uint8Array
  readonly value: Uint8Array | undefined
}

export type Row = readonly [key: Uint8Array, value: Uint8Array]

/** A walk over keys in order, through the state at the moment it began. */
export interface Cursor {
  /** At most `count` rows, fewer when their bytes pass some 1 MiB, none at the end. */
  next(count: number): Promise<readonly Row[]>
  close(): Promise<void>
}

export interface Engine {
  readonly name: EngineName
  /**
   * The values of the keys in their order, undefined for an absent key, and for a value that cannot be read the KvError DAMAGED.
   * Synchronous, because one grouped read from memory or page cache costs less than a trip through a thread pool.
   * The bytes are the caller's own.
   */
  getMany(keys: readonly Uint8Array[]): readonly (Uint8Array | undefined | KvError)[]
  /**
   * Called by one writer at a time. Returns at once when nothing has to be waited for.
   * @throws KvError DISK_FULL: nothing was applied (with `retry` other than 'safe': only after `reopen` it is known whether), and `reopen` must
   * run before the next write. STORE_FAILED: what was applied is not known.
   */
  write(changes: readonly Change[], durability: Durability): void | Promise<void>
  /** Keys from `from` (inclusive) to `to` (exclusive). */
  range(from: Uint8Array, to: Uint8Array): Cursor
  /**
   * The first of them, at most `count` and some 1 MiB, at once: for whoever decides without waiting (server/storage). The bytes are the caller's own.
   * Absent where a binding cannot do it. @throws KvError DAMAGED, UNAVAILABLE
   */
  rows?(from: Uint8Array, to: Uint8Array, count: number): readonly Row[]
  /**
   * Closes and opens again: after a full disk an engine may refuse all writes until then. Open cursors end with an error.
   * @throws KvError DISK_FULL, with the engine still open for reads, while there is not enough space to do it.
   */
  reopen(): Promise<void>
  close(): Promise<void>
}

/** Bytes after which a cursor ends a `next`, so that a walk over large values stays small in memory. */
export const cursorBytesMax = 1_048_576

/** What went wrong in a write, as a KvError. Every error that is not a full disk ends the store: a failed sync must never be tried again. */
export function writeFault(error: unknown): KvError {
  if (error instanceof KvError) return error
  if (isDiskFull(error)) return new KvError('DISK_FULL', { cause: error })
  return new KvError('STORE_FAILED', { message: `the store stopped because the disk failed: ${messageOf(error)}`, cause: error })
}

/** A disk that was full at the sync of what was written before it, or that may have been: then the write may be in the log. */
export const fullWhileSyncing = (cause: unknown): KvError =>
  new KvError('DISK_FULL', {
    message: 'there is no space left on the disk, and whether the write is on it is not known yet',
    hint: 'make space, then repeat the write with the same requestId, or read the key',
    retry: 'same-request-id',
    cause,
  })

/** ENOSPC and EDQUOT, as node or an engine says them. */
export const isDiskFull = (error: unknown): boolean =>
  /ENOSPC|EDQUOT|No space left on device|Disk quota exceeded/i.test(`${codeOf(error)} ${messageOf(error)}`)

/** What went wrong in a read of one value. */
export function readFault(error: unknown): KvError {
  if (error instanceof KvError) return error
  if (codeOf(error) === 'LEVEL_ITERATOR_NOT_OPEN')
    return new KvError('UNAVAILABLE', {
      message: 'the store was closed, or opened again after a full disk, while its records were walked',
      hint: 'begin again',
      cause: error,
    })
  if (/corrupt|checksum|mismatch/i.test(`${codeOf(error)} ${messageOf(error)}`)) return new KvError('DAMAGED', { cause: error })
  return new KvError('UNAVAILABLE', {
    message: `the disk could not be read: ${messageOf(error)}`,
    hint: 'look at `cause`, and at the disk',
    cause: error,
  })
}

/** The text of an error and of its causes. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause === undefined ? error.message : `${error.message}: ${messageOf(error.cause)}`
}

/** The innermost `code` of an error and its causes. */
export function codeOf(error: unknown): string {
  if (typeof error !== 'object' || error === null) return ''
  if ('cause' in error && error.cause !== undefined) {
    const inner = codeOf(error.cause)
    if (inner !== '') return inner
  }
  return 'code' in error && typeof error.code === 'string' ? error.code : ''
}
