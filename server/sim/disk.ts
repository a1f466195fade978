/**
 * A simulated disk of one storage server: what is durable, and one write that may be under way.
 * Invariant: a batch is durable as a whole or not at all, as in a log whose records carry checksums: a torn last write is no write.
 */
import type { EpochMs } from '../../core/base/types.ts'
import type { HandedKey } from '../../core/wire/server-message.ts'
import { dueAt } from '../storage/expiry.ts'
import { noMarks, type Batch, type Due, type ShardMarks, type StorageTimes, type StoreMarks, type Written } from '../storage/marks.ts'

interface Content {
  readonly entries: Map<string, Exclude<Written, undefined>>
  readonly shards: Map<number, ShardMarks>
  store: StoreMarks
}

/** A copy of a directory. */
export interface Snapshot {
  readonly content: Content
}

const noContent = (): Content => ({ entries: new Map(), shards: new Map(), store: noMarks })
const copyOf = ({ entries, shards, store }: Content): Content => ({ entries: new Map(entries), shards: new Map(shards), store })

export class Disk {
  #content = noContent()
  #underWay: Batch | undefined
  /** What a power cycle leaves, and the writes since then, which it may take. Undefined: each write is synced. */
  #synced: { readonly content: Content; readonly since: Batch[] } | undefined

  /** @param isSynced false: writes are in the operating system's memory until `sync` */
  constructor(isSynced = true) {
    this.#synced = isSynced ? undefined : { content: noContent(), since: [] }
  }

  get store(): StoreMarks {
    return this.#content.store
  }
  get shards(): readonly ShardMarks[] {
    return [...this.#content.shards.values()]
  }
  /** Writes that a power cut may take. */
  get unsynced(): number {
    return this.#synced?.since.length ?? 0
  }
  /** Keys of a shard that are stubs now. */
  stubs(shard: number): readonly string[] {
    return this.#keysOf(shard).flatMap(({ key, entry }) => (typeof entry === 'object' && entry.stub !== undefined ? [key] : []))
  }

  read(shard: number, key: string): Written {
    return this.#content.entries.get(`${shard}/${key}`)
  }

  page(shard: number, after: string | undefined, keysMax: number): readonly HandedKey[] {
    return this.#keysOf(shard)
      .filter(({ key }) => after === undefined || key > after)
      .toSorted((a, b) => (a.key < b.key ? -1 : 1))
      .slice(0, keysMax)
  }

  due(shard: number, until: EpochMs, after: Due | undefined, keysMax: number, times: StorageTimes): readonly Due[] {
    const found: Due[] = []
    for (const { key, entry } of this.#keysOf(shard)) {
      const at = entry === 'damaged' || entry === 'absent' ? undefined : dueAt(entry, times)
      if (at !== undefined && at <= until) found.push({ at, key })
    }
    const order = (a: Due, b: Due): number => a.at - b.at || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
    return found
      .toSorted(order)
      .filter((one) => after === undefined || order(after, one) < 0)
      .slice(0, keysMax)
  }

  begin(batch: Batch): void {
    this.#underWay = batch
  }

  /** The sync came back. */
  finish(): void {
    const batch = this.#underWay
    this.#underWay = undefined
    if (batch === undefined) return
    apply(this.#content, batch)
    this.#synced?.since.push(batch)
  }

  /** The process died. The write under way may have come to the disk or not. */
  crash(keepsWrite: boolean): void {
    if (keepsWrite) this.finish()
    this.#underWay = undefined
  }

  /** The operating system wrote what it had. */
  sync(): void {
    for (const batch of this.#synced?.since.splice(0) ?? []) apply(this.#synced?.content as Content, batch)
  }

  /** The machine lost its power: of what was not synced only the first `kept` writes are there. */
  losePower(kept: number): void {
    if (this.#synced === undefined) return
    const { content, since } = this.#synced
    for (const batch of since.splice(0).slice(0, kept)) apply(content, batch)
    this.#content = copyOf(content)
  }

  damage(shard: number, key: string): boolean {
    const id = `${shard}/${key}`
    if (!this.#content.entries.has(id)) return false
    this.#content.entries.set(id, 'damaged')
    return true
  }

  get isDamaged(): boolean {
    return [...this.#content.entries.values()].includes('damaged')
  }

  /** A directory as it was before, or another server's, put in the place of what was here. */
  restore({ content }: Snapshot): void {
    this.#content = copyOf(content)
    if (this.#synced !== undefined) this.#synced = { content: copyOf(content), since: [] }
  }
  snapshot(): Snapshot {
    return { content: copyOf(this.#content) }
  }

  #keysOf(shard: number): HandedKey[] {
    const prefix = `${shard}/`
    return [...this.#content.entries].flatMap(([id, entry]) => (id.startsWith(prefix) ? [{ key: id.slice(prefix.length), entry }] : []))
  }
}

function apply(content: Content, { cleared, entries, shards, store }: Batch): void {
  for (const shard of cleared) for (const id of content.entries.keys()) if (id.startsWith(`${shard}/`)) content.entries.delete(id)
  for (const [id, { entry }] of entries) {
    if (entry === undefined) content.entries.delete(id)
    else content.entries.set(id, entry)
  }
  for (const [shard, marks] of shards) content.shards.set(shard, marks)
  if (store) content.store = store
}
