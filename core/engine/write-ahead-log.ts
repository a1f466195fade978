/**
 * Looks through the write-ahead logs of an engine before the engine reads them, for damage that it would pass over in silence.
 * Invariant: a log that passes loses at most a tail to which nothing was added any more: what a power cut may do to the last batch.
 * After a clean close it loses nothing: the close has sealed how long the logs are.
 * Why: at a record that does not fit its checksum RocksDB takes the rest of the log for the end, and LevelDB skips it. After a power
 * cut that is right. But a batch is begun only when the one before is synced, so damage with a batch behind it is a failing disk, and
 * what was acknowledged would come back as "no key".
 *
 * Both engines write the format of LevelDB: blocks of 32 KiB; in them records of a checksum (4), length (2), type (1) and content.
 */
import { closeSync, fdatasyncSync, fstatSync, openSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { open, readdir, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { KvError } from '../kv/errors.ts'
import { codeOf } from './engine.ts'

const blockBytes = 32_768
const headBytes = 7
/** Read at once. */
const chunkBytes = blockBytes * 32

/** The part of a batch that a record holds. Other numbers are of later formats: they cannot be judged here. */
const Part = { whole: 1, first: 2, middle: 3, last: 4 } as const

const isLog = (name: string): boolean => /^\d+\.log$/.test(name)

/** Bytes of each log by name. A log only grows, so an old seal stays right for as long as its log is there. */
type Seal = Readonly<Record<string, unknown>>

/** Makes the logs in `dir` durable, and notes in `sealFile` how long they are: also after a power cut no less of them is to be found. To be called when the last write is over and the engine still has the directory. */
export function sealLogs(dir: string, sealFile: string): void {
  try {
    const sizes = readdirSync(dir)
      .filter(isLog)
      .map((name) => [name, syncedSize(join(dir, name))])
    writeFileSync(`${sealFile}.${process.pid}`, JSON.stringify(Object.fromEntries(sizes)))
    renameSync(`${sealFile}.${process.pid}`, sealFile)
  } catch {
    // Without a seal less damage can be told from a crash; a full disk must not keep a store from closing.
  }
}

function syncedSize(path: string): number {
  const fd = openSync(path, 'r')
  try {
    fdatasyncSync(fd)
    return fstatSync(fd).size
  } finally {
    closeSync(fd)
  }
}

function readSeal(sealFile: string): Seal {
  try {
    return (JSON.parse(readFileSync(sealFile, 'utf8')) as Seal | null) ?? {}
  } catch {
    return {}
  }
}

/**
 * @param isOrdered that a batch was begun only when all before it were on the disk, or that the machine has not stopped since. Else, which
 * is after a power cut with durability 'os', a batch behind a damaged place does not show that the place was whole once.
 * @throws KvError DAMAGED naming the file, the place and the way out.
 */
export async function checkLogs(dir: string, sealFile: string, isOrdered: boolean): Promise<void> {
  const names = (await readdir(dir)).filter(isLog).sort()
  const seal = readSeal(sealFile)
  for (const name of names) {
    const path = join(dir, name)
    const { endsAt, hasMore } = await readLog(path)
    const sealed = seal[name]
    const isSealed = typeof sealed === 'number' && endsAt < sealed
    if (!isSealed && !(isOrdered && hasMore)) continue
    throw new KvError('DAMAGED', {
      message: `the log ${path} is damaged at byte ${endsAt}, and what was written there or after it would be lost`,
      hint: `restore a snapshot into another directory, or go on without what follows: truncate -s ${endsAt} '${path}'${isSealed ? ` && rm '${sealFile}'` : ''}`,
    })
  }
}

interface LogState {
  /** Where the log stops to fit its checksums, or its length. Infinity when it cannot be judged. */
  readonly endsAt: number
  /** Whether another batch follows behind that place. */
  readonly hasMore: boolean
}
const unknown: LogState = { endsAt: Number.POSITIVE_INFINITY, hasMore: false }

async function readLog(path: string): Promise<LogState> {
  let file: FileHandle
  try {
    file = await open(path, 'r')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return unknown // another process has the directory, and is done with this log
    throw error
  }
  try {
    const { size } = await file.stat()
    const chunk = Buffer.allocUnsafeSlow(Math.min(chunkBytes, size))
    let damagedAt: number | undefined
    for (let from = 0; from < size; from += chunkBytes) {
      const { bytesRead } = await file.read(chunk, 0, Math.min(chunkBytes, size - from), from)
      for (let block = 0; block < bytesRead; block += blockBytes) {
        const bytes = chunk.subarray(block, Math.min(block + blockBytes, bytesRead))
        let at = 0
        if (damagedAt === undefined) {
          const end = endOfRecords(bytes)
          if (end === 'unknown') return unknown
          if (end === undefined) continue
          damagedAt = from + block + end
          at = end + 1
        }
        if (beginsBatchAfter(bytes, at)) return { endsAt: damagedAt, hasMore: true }
      }
    }
    return { endsAt: damagedAt ?? size, hasMore: false }
  } finally {
    await file.close()
  }
}

/** Where the records of a block stop to fit; undefined when they fill it. */
function endOfRecords(block: Buffer): number | 'unknown' | undefined {
  let at = 0
  while (at + headBytes <= block.length) {
    const type = block[at + 6] as number
    if (type > Part.last && fits(block, at)) return 'unknown'
    if (!fits(block, at)) return at
    at += headBytes + block.readUInt16LE(at + 4)
  }
  return undefined
}

/** Whether any record from `at` on fits its checksum and begins a batch. Lengths are not to be trusted here, so every place is tried. */
function beginsBatchAfter(block: Buffer, at: number): boolean {
  for (; at + headBytes <= block.length; at++) {
    const type = block[at + 6]
    if ((type === Part.whole || type === Part.first) && fits(block, at)) return true
  }
  return false
}

/** Whether there is a record at `at` whose checksum fits. */
function fits(block: Buffer, at: number): boolean {
  const length = block.readUInt16LE(at + 4)
  const end = at + headBytes + length
  if (end > block.length || block[at + 6] === 0) return false
  return block.readUInt32LE(at) === masked(crc32c(block, at + 6, end))
}

/** As LevelDB stores it, so that a checksum of content that holds checksums is not worthless. */
const masked = (crc: number): number => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0

/** The CRC of Castagnoli; node:zlib has the other one. Four bytes a step: an opening reads some 100 MB of log at most. */
function crc32c(bytes: Uint8Array, from: number, to: number): number {
  const [one, two, three, four] = tables
  let crc = -1
  let at = from
  for (; at + 4 <= to; at += 4) {
    crc ^= (bytes[at] as number) | ((bytes[at + 1] as number) << 8) | ((bytes[at + 2] as number) << 16) | ((bytes[at + 3] as number) << 24)
    crc =
      (four[crc & 0xff] as number) ^
      (three[(crc >>> 8) & 0xff] as number) ^
      (two[(crc >>> 16) & 0xff] as number) ^
      (one[crc >>> 24] as number)
  }
  for (; at < to; at++) crc = (one[(crc ^ (bytes[at] as number)) & 0xff] as number) ^ (crc >>> 8)
  return ~crc >>> 0
}
const tables = crcTables()
function crcTables(): readonly [Int32Array, Int32Array, Int32Array, Int32Array] {
  const first = Int32Array.from({ length: 256 }, (_, index) => {
    let crc = index
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
    return crc
  })
  const next = (table: Int32Array): Int32Array => table.map((crc) => (crc >>> 8) ^ (first[crc & 0xff] as number))
  const second = next(first)
  const third = next(second)
  return [first, second, third, next(third)]
}
