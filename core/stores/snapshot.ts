/**
 * The snapshot file: a checksummed copy of all records that belongs to no engine.
 * Invariant: a file under its final name is complete and durable; a reader hands out nothing of a frame whose checksum does not fit.
 * Why checksums are chained: each begins with the one before, so a frame that is lost, doubled or moved is found as surely as a changed one.
 *
 * A file: the 8 bytes `hapaxsn1`; frames of length (4), CRC-32 (4) and rows; a frame of length 0; number of rows and of bytes as float64, CRC-32.
 * A row: length of the key (4), key, length of the record (4), record; both as they are on disk (core/engine/layout.ts).
 */
import { open, rename, rm, type FileHandle } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { crc32 } from 'node:zlib'
import { syncDirectory } from '../engine/directory.ts'
import { codeOf, isDiskFull, messageOf, type Cursor, type Row } from '../engine/engine.ts'
import { decodeRecord, keyOfRecord } from '../engine/layout.ts'
import { invalid, KvError } from '../kv/errors.ts'
import { asBuffer } from './as-buffer.ts'

export interface SnapshotOptions {
  /** Ends the copying; nothing is left of the file. */
  readonly signal?: AbortSignal | undefined
}
export interface SnapshotResult {
  /** Records in the file, those that have expired but have not left the disk included. */
  readonly entries: number
  /** Length of the file. */
  readonly bytes: number
}

const magic = Buffer.from('hapaxsn1', 'latin1')
const frameHead = 8
/** Rows asked for at once; a cursor also ends by bytes, so a frame holds some 1 MiB. */
const rowsAtOnce = 512
/** Snapshots of this process so far: two at once must not write one file. */
let copies = 0

/** Copies the records to `file`. What stood there is replaced, and only by a complete copy. */
export async function writeSnapshot(file: string, records: () => Promise<Cursor>, options: SnapshotOptions): Promise<SnapshotResult> {
  if (typeof file !== 'string' || file === '') invalid('a snapshot takes the path of a file')
  if (options.signal?.aborted) throw new KvError('ABORTED', { cause: options.signal.reason })
  const part = `${file}.${process.pid}-${++copies}.part`
  const cursor = await records()
  try {
    await rm(part, { force: true }) // in a container every process may have the same number, also one that was killed
    const handle = await open(part, 'wx', 0o600)
    try {
      const result = await writeFrames(handle, cursor, options.signal)
      await handle.sync()
      await handle.close()
      await rename(part, file)
      syncDirectory(dirname(resolve(file)))
      return result
    } catch (error) {
      await handle.close()
      await rm(part, { force: true })
      throw error
    }
  } catch (error) {
    if (error instanceof KvError) throw error
    if (isDiskFull(error)) throw new KvError('DISK_FULL', { message: `there is no space for the snapshot ${file}`, cause: error })
    throw new KvError('UNAVAILABLE', {
      message: `the snapshot ${file} could not be written: ${messageOf(error)}`,
      hint: 'look at `cause`',
      cause: error,
    })
  } finally {
    await cursor.close()
  }
}

async function writeFrames(handle: FileHandle, cursor: Cursor, signal: AbortSignal | undefined): Promise<SnapshotResult> {
  await handle.writeFile(magic)
  let checksum = crc32(magic)
  let entries = 0
  let bytes = magic.length
  for (;;) {
    if (signal?.aborted) throw new KvError('ABORTED', { cause: signal.reason })
    const rows = await cursor.next(rowsAtOnce)
    if (rows.length === 0) break
    for (const [key, value] of rows) checkRow(key, value)
    const content = packRows(rows)
    checksum = crc32(content, checksum)
    await handle.writeFile(head(content.length, checksum))
    await handle.writeFile(content)
    entries += rows.length
    bytes += frameHead + content.length
  }
  const end = Buffer.alloc(4 + 16 + 4)
  end.writeDoubleBE(entries, 4)
  end.writeDoubleBE(bytes, 12)
  end.writeUInt32BE(crc32(end.subarray(0, 20), checksum), 20)
  await handle.writeFile(end)
  return { entries, bytes: bytes + end.length }
}

function checkRow(key: Uint8Array, value: Uint8Array): void {
  try {
    decodeRecord(key, asBuffer(value))
  } catch (error) {
    if (!(error instanceof KvError)) throw error
    throw new KvError(error.code, {
      message: `the record of the key ${JSON.stringify(keyOfRecord(key))} is damaged, so no complete snapshot can be made`,
      hint: 'restore the key from an earlier snapshot, or destroy it without ifVersion, then take the snapshot again',
      cause: error,
    })
  }
}

function head(length: number, checksum: number): Buffer {
  const bytes = Buffer.allocUnsafe(frameHead)
  bytes.writeUInt32BE(length, 0)
  bytes.writeUInt32BE(checksum, 4)
  return bytes
}

function packRows(rows: readonly Row[]): Buffer {
  const bytes = Buffer.allocUnsafe(rows.reduce((sum, [key, value]) => sum + 8 + key.length + value.length, 0))
  let at = 0
  for (const part of rows.flat()) {
    at = bytes.writeUInt32BE(part.length, at)
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

/**
 * The frames of a snapshot file, one after the other. All of them were read and the end fits once it returns.
 * @throws KvError SNAPSHOT_INVALID at the first thing that does not fit.
 */
export async function* readSnapshot(file: string): AsyncGenerator<readonly Row[], SnapshotResult> {
  let handle: FileHandle
  try {
    handle = await open(file, 'r')
  } catch (cause) {
    throw new KvError('SNAPSHOT_INVALID', { message: `the snapshot ${file} cannot be opened: ${messageOf(cause)}`, cause })
  }
  try {
    return yield* readFrames(file, handle)
  } catch (error) {
    if (error instanceof KvError || codeOf(error) === '') throw error
    throw new KvError('SNAPSHOT_INVALID', { message: `the snapshot ${file} cannot be read: ${messageOf(error)}`, cause: error })
  } finally {
    await handle.close()
  }
}

async function* readFrames(file: string, handle: FileHandle): AsyncGenerator<readonly Row[], SnapshotResult> {
  const bad = (why: string): never => {
    throw new KvError('SNAPSHOT_INVALID', { message: `the snapshot ${file} is damaged or incomplete: ${why}` })
  }
  const { size } = await handle.stat()
  let at = 0
  /** Nothing is allocated for bytes that the file does not have. */
  const take = async (length: number): Promise<Buffer> => {
    if (at + length > size) bad('it ends too soon')
    const bytes = Buffer.alloc(length)
    for (let got = 0; got < length;) {
      const { bytesRead } = await handle.read(bytes, got, length - got, at + got)
      if (bytesRead === 0) bad('it became shorter while it was read')
      got += bytesRead
    }
    at += length
    return bytes
  }

  if (!(await take(magic.length)).equals(magic)) bad('it does not begin as a snapshot does')
  let checksum = crc32(magic)
  let entries = 0
  for (;;) {
    const length = await take(4)
    if (length.readUInt32BE(0) === 0) {
      const end = await take(20)
      if (end.readUInt32BE(16) !== crc32(end.subarray(0, 16), crc32(length, checksum))) bad('the checksum of its end differs')
      if (end.readDoubleBE(0) !== entries || end.readDoubleBE(8) !== at - 24) bad('the numbers at its end differ')
      if (at !== size) bad('something follows its end')
      return { entries, bytes: size }
    }
    const wanted = (await take(4)).readUInt32BE(0)
    const content = await take(length.readUInt32BE(0))
    checksum = crc32(content, checksum)
    if (checksum !== wanted) bad(`a checksum differs before byte ${at}`)
    const rows = unpackRows(content) ?? bad(`a row is cut off before byte ${at}`)
    entries += rows.length
    yield rows
  }
}

function unpackRows(content: Buffer): Row[] | undefined {
  const parts: Buffer[] = []
  for (let at = 0; at < content.length;) {
    if (at + 4 > content.length) return undefined
    const length = content.readUInt32BE(at)
    at += 4
    if (at + length > content.length) return undefined
    parts.push(content.subarray(at, (at += length)))
  }
  if (parts.length % 2 === 1) return undefined
  return Array.from({ length: parts.length / 2 }, (_, index): Row => [parts[index * 2] as Buffer, parts[index * 2 + 1] as Buffer])
}
