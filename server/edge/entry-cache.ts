/**
 * Entries of a storage server in memory, as objects, bounded in bytes: the clock algorithm (second chance).
 * Invariant: it holds what the disk holds, the absence of a key included, and never more than `bytesMax` of it.
 * Why a hand and no order of use: a hit sets one bit; to move a Map's entry to its end costs more than all else that a READ does.
 */
import { recordSize } from '../../core/record/record-bytes.ts'
import type { ReplicaEntry } from '../../core/wire/replica-message.ts'

/** What an entry takes in memory beside the bytes of its record: objects, texts and its place in a Map. */
const slotBytes = 700

export interface Slot {
  readonly shard: number
  readonly key: string
  /** Undefined: the key is not there. */
  written: ReplicaEntry | undefined
  bytes: number
  used: boolean
  /** Where the hand meets it. */
  at: number
}

export class EntryCache {
  readonly #bytesMax: number
  readonly #shards = new Map<number, Map<string, Slot>>()
  readonly #ring: Slot[] = []
  #hand = 0
  #bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Undefined: it is not known here. */
  get(shard: number, key: string): Slot | undefined {
    const slot = this.#shards.get(shard)?.get(key)
    if (slot !== undefined) slot.used = true
    return slot
  }

  set(shard: number, key: string, written: ReplicaEntry | undefined): void {
    const bytes = slotBytes + key.length + (written === undefined ? 0 : recordSize(written.record))
    const known = this.#shards.get(shard)?.get(key)
    if (bytes > this.#bytesMax) return void (known !== undefined && this.#remove(known))
    if (known === undefined) this.#add({ shard, key, written, bytes, used: false, at: this.#ring.length })
    else {
      this.#bytes += bytes - known.bytes
      known.written = written
      known.bytes = bytes
      known.used = true
    }
    while (this.#bytes > this.#bytesMax) this.#turn()
  }

  delete(shard: number, key: string): void {
    const slot = this.#shards.get(shard)?.get(key)
    if (slot !== undefined) this.#remove(slot)
  }

  /** Forgets all keys of a shard. */
  clear(shard: number): void {
    for (const slot of this.#shards.get(shard)?.values() ?? []) this.#remove(slot)
  }

  #add(slot: Slot): void {
    const { shard, key, bytes } = slot
    const keys = this.#shards.get(shard)
    if (keys === undefined) this.#shards.set(shard, new Map([[key, slot]]))
    else keys.set(key, slot)
    this.#ring.push(slot)
    this.#bytes += bytes
  }

  /** The last one takes its place in the ring. */
  #remove({ shard, key, bytes, at }: Slot): void {
    this.#shards.get(shard)?.delete(key)
    this.#bytes -= bytes
    const last = this.#ring.pop() as Slot
    if (last.at === at) return
    last.at = at
    this.#ring[at] = last
  }

  /** Whatever takes the place of one that goes is the newest: the hand is past it, and comes to it last. */
  #turn(): void {
    if (this.#hand >= this.#ring.length) this.#hand = 0
    const slot = this.#ring[this.#hand++] as Slot
    if (slot.used) slot.used = false
    else this.#remove(slot)
  }
}
