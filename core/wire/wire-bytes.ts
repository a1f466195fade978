/**
 * Numbers, texts and records as the bytes of our own messages between servers; big-endian.
 * Pure. Invariant: a reader never reads beyond its end, and takes memory only for bytes that are there.
 * Why one buffer for all that is written: a message is made in place and copied once, when its length is known.
 */
import { epochMs, type EpochMs } from '../base/types.ts'
import { isKvError } from '../kv/errors.ts'
import { readRecord, recordSize, writeLatin1, writeRecord } from '../record/record-bytes.ts'
import type { KeyRecord } from '../record/record.ts'

/** Bytes that are no message, or one that this side must not take. Its connection ends. */
export class WireError extends Error {
  override readonly name = 'WireError'
}

/** Characters of a server's name (docs: reliability, certificates). */
const textBytesMax = 255
const keyBytesMax = 65_535
const scratchBytes = 65_536
const scratchBytesKept = 1_048_576

/** Of all its numbers: one that is none makes it none. */
function sumOf({ version, createdAt, lastModifiedAt, changedAt, expiresAt, completions }: KeyRecord): number {
  let sum = version + createdAt + lastModifiedAt + changedAt + expiresAt
  for (const entry of completions.entries) sum += entry.sequence + entry.createdAt + entry.expiresAt + entry.at
  for (const mark of completions.marks) sum += mark.below + mark.at
  return sum
}

const misfit = (value: number): WireError => new WireError(`${value} does not fit its field`)
/** Writes numbers in a third of the time that a Buffer takes, and unlike it cuts off what is too large. */
const viewOf = (bytes: Buffer): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

export class WireWriter {
  #bytes = Buffer.allocUnsafeSlow(scratchBytes)
  #view = viewOf(this.#bytes)
  #at = 0

  get length(): number {
    return this.#at
  }

  u8(value: number): void {
    if (!(value >= 0 && value <= 0xff)) throw misfit(value)
    this.#room(1)
    this.#view.setUint8(this.#at, value)
    this.#at += 1
  }
  u16(value: number): void {
    if (!(value >= 0 && value <= 0xffff)) throw misfit(value)
    this.#room(2)
    this.#view.setUint16(this.#at, value)
    this.#at += 2
  }
  u32(value: number): void {
    if (!(value >= 0 && value <= 0xffff_ffff)) throw misfit(value)
    this.#room(4)
    this.#view.setUint32(this.#at, value)
    this.#at += 4
  }
  /** Any number, exactly: instants, ballots, ids. */
  f64(value: number): void {
    this.#room(8)
    this.#view.setFloat64(this.#at, value)
    this.#at += 8
  }
  bool(value: boolean): void {
    this.u8(value ? 1 : 0)
  }
  /** A name: up to 255 characters of one byte. */
  text(text: string): void {
    if (text.length > textBytesMax) throw new WireError(`a name of ${text.length} characters is too long to be sent`)
    this.u8(text.length)
    this.#latin1(text)
  }
  /** A key of the register: up to 65,535 characters of one byte. */
  key(key: string): void {
    if (key.length > keyBytesMax) throw new WireError(`a key of ${key.length} bytes is too long to be sent`)
    this.u16(key.length)
    this.#latin1(key)
  }
  record(record: KeyRecord): void {
    const size = recordSize(record)
    this.u32(size)
    this.#room(size)
    this.#at = writeRecord(this.#bytes, this.#at, record)
  }

  /** Overwrites what stands at `at`. */
  patchU32(value: number, at: number): void {
    this.#bytes.writeUInt32BE(value, at)
  }
  /** What was written, as bytes of its own; the writer begins anew. */
  take(): Buffer {
    const taken = Buffer.allocUnsafe(this.#at)
    this.#bytes.copy(taken, 0, 0, this.#at)
    this.clear()
    return taken
  }
  /** Forgets what was written. */
  clear(): void {
    this.#at = 0
    if (this.#bytes.length > scratchBytesKept) this.#use(Buffer.allocUnsafeSlow(scratchBytes))
  }

  #latin1(text: string): void {
    this.#room(text.length)
    this.#at = writeLatin1(this.#bytes, this.#at, text)
  }
  #room(size: number): void {
    const needed = this.#at + size
    if (needed <= this.#bytes.length) return
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#bytes.length))
    this.#bytes.copy(larger, 0, 0, this.#at)
    this.#use(larger)
  }
  #use(bytes: Buffer<ArrayBuffer>): void {
    this.#bytes = bytes
    this.#view = viewOf(bytes)
  }
}

export class WireReader {
  readonly #bytes: Buffer
  readonly #end: number
  #at: number

  constructor(bytes: Buffer, start: number, end: number) {
    this.#bytes = bytes
    this.#at = start
    this.#end = end
  }

  /** Bytes that are left: fields of a later release, which an earlier one does not know. */
  get rest(): number {
    return this.#end - this.#at
  }

  u8(): number {
    return this.#bytes[this.#take(1)] as number
  }
  u16(): number {
    return this.#bytes.readUInt16BE(this.#take(2))
  }
  u32(): number {
    return this.#bytes.readUInt32BE(this.#take(4))
  }
  f64(): number {
    const value = this.#bytes.readDoubleBE(this.#take(8))
    if (!Number.isFinite(value)) throw new WireError('a number is none')
    return value
  }
  instant(): EpochMs {
    return epochMs(this.f64())
  }
  bool(): boolean {
    return this.u8() !== 0
  }
  text(): string {
    const length = this.u8()
    const from = this.#take(length)
    return this.#bytes.toString('latin1', from, from + length)
  }
  key(): string {
    const length = this.u16()
    const from = this.#take(length)
    return this.#bytes.toString('latin1', from, from + length)
  }
  /** Its value is a part of the bytes that are read. No checksum was looked at before, as on disk: its numbers are looked at here. */
  record(): KeyRecord {
    const size = this.u32()
    const from = this.#take(size)
    try {
      const record = readRecord(this.#bytes, from, from + size)
      if (!Number.isFinite(sumOf(record))) throw new WireError('a number of a record is none')
      return record
    } catch (error) {
      if (isKvError(error) || error instanceof RangeError) throw new WireError('a record cannot be read', { cause: error })
      throw error
    }
  }
  /** So many items, each of at least `bytesMin` bytes: a count that cannot be true is refused before anything is made of it. */
  list<T>(count: number, bytesMin: number, item: () => T): T[] {
    if (count * bytesMin > this.rest) throw new WireError(`${count} items do not fit ${this.rest} bytes`)
    return Array.from({ length: count }, item)
  }
  /** One of these, by its number. */
  choice<T>(choices: readonly T[]): T {
    const choice = choices[this.u8()]
    if (choice === undefined) throw new WireError('a field has a value that this release does not know')
    return choice
  }

  #take(size: number): number {
    const from = this.#at
    if (size > this.#end - from) throw new WireError('a message is shorter than its fields')
    this.#at = from + size
    return from
  }
}
