/**
 * Records of the embedded store in memory, bounded in bytes: the clock algorithm (second chance).
 * Invariant: it holds only records that are durable, and never more than `bytesMax` of them.
 * Why a hand and no order of use: a hit sets one bit; moving a Map's entry to its end at each hit costs several times as much.
 */
import type { EpochMs } from '../base/types.ts'
import type { Entry } from '../kv/kv.ts'
import { completionsBytes, entryOf, isDead, noCompletions, type KeyRecord } from '../record/record.ts'

/** What a Map entry, the slot, the record, its strings and the value's own buffer take beside the bytes of key and value: measured, see the test. */
export const slotBytes = 700

interface Slot {
  record: KeyRecord
  /** The record as the application sees it while it lives; made once. */
  entry: Entry | undefined
  bytes: number
  used: boolean
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

  record(key: string): KeyRecord | undefined {
    const slot = this.#slots.get(key)
    if (slot === undefined) return undefined
    slot.used = true
    return slot.record
  }

  /** The entry at `now`: null when the record is there and dead, undefined when the record is not in the cache. */
  entry(key: string, now: EpochMs): Entry | null | undefined {
    const slot = this.#slots.get(key)
    if (slot === undefined) return undefined
    slot.used = true
    if (isDead(slot.record, now)) return null
    slot.entry ??= entryOf(slot.record, now)
    return slot.entry ?? null
  }

  /** Keeps the record. Its value must be a buffer that nobody else changes and that is no part of a much larger one. */
  set(key: string, record: KeyRecord): void {
    const bytes = bytesOf(key, record)
    const slot = this.#slots.get(key)
    if (slot) {
      this.#bytes += bytes - slot.bytes
      slot.record = record
      slot.entry = undefined
      slot.bytes = bytes
      slot.used = true
    } else {
      this.#slots.set(key, { record, entry: undefined, bytes, used: false })
      this.#bytes += bytes
    }
    if (this.#bytes > this.#bytesMax) this.#evict()
  }

  delete(key: string): void {
    const slot = this.#slots.get(key)
    if (slot === undefined) return
    this.#slots.delete(key)
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

const bytesOf = (key: string, record: KeyRecord): number =>
  slotBytes +
  key.length * 2 +
  (record.value?.length ?? 0) +
  (record.completions === noCompletions ? 0 : completionsBytes(record.completions) * 2)
