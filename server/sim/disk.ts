/**
 * A simulated disk of one storage server: what is durable, and one write that may be under way.
 * Invariant: a batch is durable as a whole or not at all, as in a log whose records carry checksums: a torn last write is no write.
 */
import type { ReplicaEntry } from '../../core/wire/replica-message.ts'
import { noBallot } from '../register/ballot.ts'
import type { Batch, ShardMarks, StoreMarks } from '../storage/host.ts'

export class Disk {
  readonly #entries = new Map<string, ReplicaEntry | 'damaged'>()
  readonly #shards = new Map<number, ShardMarks>()
  #store: StoreMarks = { ceiling: noBallot }
  #underWay: Batch | undefined

  get store(): StoreMarks {
    return this.#store
  }
  get shards(): readonly ShardMarks[] {
    return [...this.#shards.values()]
  }
  get isWriting(): boolean {
    return this.#underWay !== undefined
  }

  read(shard: number, key: string): ReplicaEntry | 'damaged' | undefined {
    return this.#entries.get(`${shard}/${key}`)
  }

  begin(batch: Batch): void {
    this.#underWay = batch
  }

  /** The sync came back. */
  finish(): void {
    const batch = this.#underWay
    this.#underWay = undefined
    if (batch) this.#apply(batch)
  }

  /** The process died. The write under way may have come to the disk or not. */
  crash(keepsWrite: boolean): void {
    if (keepsWrite) this.finish()
    this.#underWay = undefined
  }

  damage(shard: number, key: string): boolean {
    const id = `${shard}/${key}`
    if (!this.#entries.has(id)) return false
    this.#entries.set(id, 'damaged')
    return true
  }

  format(shards: readonly ShardMarks[]): void {
    for (const marks of shards) this.#shards.set(marks.shard, marks)
  }

  #apply({ entries, shards, store }: Batch): void {
    for (const [id, { entry }] of entries) {
      if (entry === undefined) this.#entries.delete(id)
      else this.#entries.set(id, entry)
    }
    for (const [shard, marks] of shards) this.#shards.set(shard, marks)
    if (store) this.#store = store
  }
}
