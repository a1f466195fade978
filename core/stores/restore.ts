/**
 * Makes a directory of a snapshot file, with either engine.
 * Invariant: a directory that a restore did not finish cannot be opened: its marker says so until the last record is durable.
 * Why the file is read twice: nothing of it may be used before all of it is known to be whole.
 */
import { rmSync } from 'node:fs'
import { createMarker, engineDir, readMarker, removeMarker, replaceMarker, sealFile } from '../engine/directory.ts'
import type { Change, Engine } from '../engine/engine.ts'
import { decodeRecord, formatVersion, indexKey, keyOfRecord, recordRange, type Marker } from '../engine/layout.ts'
import { engineForNew, openEngine } from '../engine/open.ts'
import { sealLogs } from '../engine/write-ahead-log.ts'
import { invalid, KvError } from '../kv/errors.ts'
import { completionRules } from '../record/operation.ts'
import { forgettableAt } from '../record/record.ts'
import { asBuffer } from './as-buffer.ts'
import { readSnapshot, type SnapshotResult } from './snapshot.ts'

export interface RestoreOptions {
  /** A file that `snapshot` wrote. */
  readonly file: string
  /** A new or an empty directory. */
  readonly dir: string
  /** Default: 'auto', RocksDB where it runs, else LevelDB ('portable'). */
  readonly engine?: 'auto' | 'rocksdb' | 'portable' | undefined
}

/**
 * Restores a snapshot into an empty directory, which can then be opened with `embedded`. Memory stays bounded.
 * @throws KvError SNAPSHOT_INVALID when the file is not whole: then nothing was used. INVALID_ARGUMENT when the directory is not empty.
 * @example await restore({ file: './backup.hapax', dir: './data' })
 */
export async function restore({ file, dir, engine = 'auto' }: RestoreOptions): Promise<SnapshotResult> {
  if (engine !== 'auto' && engine !== 'rocksdb' && engine !== 'portable')
    invalid(`engine must be 'auto', 'rocksdb' or 'portable', not ${JSON.stringify(engine)}`)
  if (typeof file !== 'string' || file === '') invalid('file must be the path of a snapshot')
  if (typeof dir !== 'string' || dir === '') invalid('dir must be the path of a directory')
  if (readMarker(dir) !== undefined) invalid(`the directory ${dir} holds a store already`, 'restore into an empty directory')
  await eachRow(file, async () => {})

  const marker: Marker = { format: formatVersion, engine: await engineForNew(engine), restoring: true }
  const present = createMarker(dir, marker)
  if (present !== marker) invalid(`the directory ${dir} holds a store already`, 'restore into an empty directory')
  try {
    const opened = await openEngine(dir, marker)
    let result: SnapshotResult
    try {
      result = await eachRow(file, (changes) => opened.write(changes, 'fsync'))
      await checkCount(opened, result.entries)
      sealLogs(engineDir(dir), sealFile(dir))
    } finally {
      await opened.close()
    }
    replaceMarker(dir, { format: formatVersion, engine: marker.engine })
    return result
  } catch (error) {
    rmSync(engineDir(dir), { recursive: true, force: true })
    rmSync(sealFile(dir), { force: true })
    removeMarker(dir)
    throw error
  }
}

/** Gives the changes of each frame to `act`: the records and their places in the expiry index. */
async function eachRow(file: string, act: (changes: readonly Change[]) => void | Promise<void>): Promise<SnapshotResult> {
  const frames = readSnapshot(file)
  for (;;) {
    const frame = await frames.next()
    if (frame.done) return frame.value
    const changes: Change[] = []
    for (const [key, value] of frame.value) {
      try {
        const at = forgettableAt(decodeRecord(key, asBuffer(value)), completionRules.lifeMs)
        changes.push({ key, value })
        if (at !== undefined) changes.push({ key: indexKey(at, keyOfRecord(key)), value: new Uint8Array(0) })
      } catch (cause) {
        if (cause instanceof KvError && cause.code !== 'DAMAGED') throw cause
        throw new KvError('SNAPSHOT_INVALID', { message: `the snapshot ${file} holds a damaged record`, cause })
      }
    }
    await act(changes)
  }
}

/** Reads back how many records there are. */
async function checkCount(engine: Engine, wanted: number): Promise<void> {
  const cursor = engine.range(recordRange.from, recordRange.to)
  try {
    let found = 0
    for (let rows = await cursor.next(1_000); rows.length > 0; rows = await cursor.next(1_000)) found += rows.length
    if (found !== wanted)
      throw new KvError('SNAPSHOT_INVALID', {
        message: `the snapshot names ${wanted} records and ${found} were written: a key is there twice`,
      })
  } finally {
    await cursor.close()
  }
}
