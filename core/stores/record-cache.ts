/**
 * Records of the embedded store in memory, bounded in bytes: the clock algorithm (second chance).
 * Invariant: it holds only records that are durable, and never more than `bytesMax` of them.
 * Why bytes and not objects: a record as an object is a dozen things for the garbage collector; with 70,000 of them a write cost
 * half as much again. Why small ones as texts of one byte a character: a buffer is three things, one of them outside the heap; a text is
 * one. Why a hand and no order of use: a hit sets one bit; to move a Map's entry costs far more.
 */
import type { EpochMs } from '../base/types.ts'
import { pooledMax, recordOf } from '../engine/layout.ts'
import type { Entry } from '../kv/kv.ts'
import { entryOf, type KeyRecord } from '../record/record.ts'

/**
 * What a record takes beside the bytes of its key and of itself: Map entry, slot, buffer, and once it is read the entry made of it.
 * Measured with 100,000 records of 200 bytes on Node 20: 180 bytes, 610 once all are read.
 */
export const slotBytes = 700

/** The place of one record in the cache. */
export interface Slot {
  /** As on disk: a small one as a text until it is read, any other in a buffer of its own. */
  record: Buffer | string
  /** The record as the application sees it while it lives; made at the first read. */
  entry: Entry | undefined
  bytes: number
  used: boolean
  /** False once the slot has left the cache. */
  isKept: boolean
}

export class RecordCache {
  readonly #bytesMax: number
  readonly #slots = new Map<string, Slot>()
  #hand = this.#slots.entries()
  #bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get bytes(): number {
    return this.#bytes
  }

  slot(key: string): Slot | undefined {
    const slot = this.#slots.get(key)
    if (slot !== undefined) slot.used = true
    return slot
  }

  /** The entry at `now`: null when the record is there and dead, undefined when the record is not in the cache. */
  entry(key: string, now: EpochMs): Entry | null | undefined {
    const slot = this.#slots.get(key)
    if (slot === undefined) return undefined
    slot.used = true
    const { entry } = slot
    if (entry === undefined) {
      const record = ownBytes(slot.record)
      slot.record = record // the entry's value is a part of it: a text beside it would be the same bytes twice
      return (slot.entry = entryOf(recordOf(record), now)) ?? null
    }
    return entry.expiresAt !== undefined && entry.expiresAt <= now ? null : entry
  }

  /**
   * Keeps the bytes of a record, as `encodeRecord` made them or as they came from disk; only small ones may be part of a larger buffer.
   * `known` is the key's slot, where the caller has it: it saves looking for it again.
   */
  set(key: string, given: Buffer, known?: Slot): void {
    const record = given.length <= pooledMax ? given.toString('latin1') : given
    const bytes = slotBytes + key.length * 2 + record.length
    const slot = known?.isKept ? known : this.#slots.get(key)
    if (slot) {
      this.#bytes += bytes - slot.bytes
      slot.record = record
      slot.entry = undefined
      slot.bytes = bytes
      slot.used = true
    } else {
      this.#slots.set(key, { record, entry: undefined, bytes, used: false, isKept: true })
      this.#bytes += bytes
    }
    if (this.#bytes > this.#bytesMax) this.#evict()
  }

  delete(key: string): void {
    const slot = this.#slots.get(key)
    if (slot === undefined) return
    this.#slots.delete(key)
    slot.isKept = false
    this.#bytes -= slot.bytes
  }

  clear(): void {
    this.#slots.clear()
    this.#bytes = 0
  }

  #evict(): void {
    while (this.#bytes > this.#bytesMax) {
      const next = this.#hand.next()
      if (next.done) {
        this.#hand = this.#slots.entries()
        continue
      }
      const [key, slot] = next.value
      if (slot.used) slot.used = false
      else this.delete(key)
    }
  }
}

/** The record in a slot, for the time of a batch: its value may lie in Node's pool. */
export const recordIn = ({ record }: Slot): KeyRecord => recordOf(typeof record === 'string' ? Buffer.from(record, 'latin1') : record)

/** In a buffer of their own, so that an entry which is kept pins nothing else. */
function ownBytes(record: Buffer | string): Buffer {
  if (typeof record !== 'string') return record
  const bytes = Buffer.allocUnsafeSlow(record.length)
  bytes.write(record, 'latin1')
  return bytes
}
