/**
 * The disk of a storage server: the port of server/storage over an engine.
 * Invariant: a batch is written whole or not at all, one at a time; what was told as durable is, as `durability` says. After a write that
 * failed nothing is asked of the engine any more: its owner ends the process.
 * Why entries are kept as objects: every PREPARE, ACCEPT and READ looks at its key, and to make an object of bytes costs more than the answer.
 */
import { mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import type { EpochMs } from '../../core/base/types.ts'
import { createMarker, readMarker, removeOwner, sealFile, engineDir, writeOwner } from '../../core/engine/directory.ts'
import type { Change, Durability, Engine, Row } from '../../core/engine/engine.ts'
import { formatVersion } from '../../core/engine/layout.ts'
import { engineForNew, openEngine } from '../../core/engine/open.ts'
import { orderedEngine } from '../../core/engine/ordered.ts'
import { sealLogs } from '../../core/engine/write-ahead-log.ts'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import type { HandedKey } from '../../core/wire/server-message.ts'
import { dueAt } from '../storage/expiry.ts'
import {
  noMarks,
  storageTimes,
  type Batch,
  type Due,
  type ShardMarks,
  type StorageTimes,
  type StoreMarks,
  type Written,
} from '../storage/marks.ts'
import { EntryCache } from './entry-cache.ts'
import * as layout from './storage-layout.ts'

export interface StorageDiskOptions {
  readonly engine: Engine
  readonly durability: Durability
  /** Bytes of entries in memory. Default 64 MiB. */
  readonly cacheBytes?: number | undefined
  readonly times?: StorageTimes | undefined
  /** Runs once the engine is closed. */
  readonly afterClose?: ((isSound: boolean) => void) | undefined
}

const cacheBytesDefault = 67_108_864
/** Keys of an earlier generation that are removed with each batch. */
const leftoversMax = 256

/** What is left of generations that a clear ended. */
interface Leftover {
  readonly from: Buffer
  readonly to: Buffer
}

/**
 * Opens the directory of a storage server; without one everything is in memory.
 * @throws KvError ENGINE_UNUSABLE, ENGINE_DIFFERS, DIRECTORY_IN_USE, DAMAGED, DISK_FULL, UNAVAILABLE
 */
export async function openStorageDisk(
  options: { readonly dir: string | undefined } & Omit<StorageDiskOptions, 'engine' | 'afterClose'>,
): Promise<StorageDisk> {
  if (options.dir === undefined) return new StorageDisk({ ...options, engine: orderedEngine() })
  const dir = resolve(options.dir)
  const marker = readMarker(dir) ?? createMarker(dir, { format: formatVersion, engine: await engineForNew('rocksdb'), store: 'storage' })
  if (marker.store !== 'storage')
    throw new KvError('ENGINE_DIFFERS', {
      message: `the directory ${dir} belongs to an embedded store`,
      hint: 'give the storage server a directory of its own',
    })
  mkdirSync(engineDir(dir), { recursive: true })
  const engine = await openEngine(dir, marker)
  writeOwner(dir, options.durability)
  const afterClose = (isSound: boolean): void => {
    if (isSound) sealLogs(engineDir(dir), sealFile(dir))
    removeOwner(dir)
  }
  return new StorageDisk({ ...options, engine, afterClose })
}

export class StorageDisk {
  readonly #engine: Engine & { rows: NonNullable<Engine['rows']> }
  readonly #durability: Durability
  readonly #times: StorageTimes
  readonly #cache: EntryCache
  readonly #afterClose: ((isSound: boolean) => void) | undefined
  readonly #generations = new Map<number, number>()
  readonly #shards = new Map<number, ShardMarks>()
  #store: StoreMarks = noMarks
  /** Of a shard: nothing is due before this instant. Absent: it is not known. */
  readonly #quietUntil = new Map<number, number>()
  #leftovers: Leftover[] = []
  #writing: Promise<void> | undefined
  #fault: KvError | undefined
  readonly #counts = { batches: 0, keys: 0, hits: 0, misses: 0 }

  constructor({ engine, durability, cacheBytes = cacheBytesDefault, times = storageTimes, afterClose }: StorageDiskOptions) {
    if (engine.rows === undefined)
      throw new KvError('ENGINE_UNUSABLE', {
        message: `a storage server cannot stand on the engine '${engine.name}', which reads ranges with a delay only`,
        hint: 'install the package rocksdb, or run it in memory',
      })
    this.#engine = engine as Engine & { rows: NonNullable<Engine['rows']> }
    this.#durability = durability
    this.#times = times
    this.#cache = new EntryCache(cacheBytes)
    this.#afterClose = afterClose
    this.#load()
  }

  /** As they were when the disk was opened, and as each batch left them. */
  get store(): StoreMarks {
    return this.#store
  }
  get shards(): readonly ShardMarks[] {
    return [...this.#shards.values()]
  }
  get stats(): {
    readonly batches: number
    readonly keys: number
    readonly hits: number
    readonly misses: number
    readonly cacheBytes: number
  } {
    return { ...this.#counts, cacheBytes: this.#cache.bytes }
  }

  read(shard: number, key: string): Written {
    const slot = this.#cache.get(shard, key)
    if (slot !== undefined) {
      this.#counts.hits++
      return slot.written
    }
    this.#counts.misses++
    const bytes = layout.entryKey(shard, this.#generationOf(shard), key)
    const [found] = this.#engine.getMany([bytes])
    const written = found === undefined ? undefined : isKvError(found) ? damagedOr(found) : layout.decodeEntry(bytes, found as Uint8Array)
    // Damage is looked at again: the next read may find it whole.
    if (written !== 'damaged') this.#cache.set(shard, key, written)
    return written
  }

  page(shard: number, after: string | undefined, keysMax: number): readonly HandedKey[] {
    const generation = this.#generationOf(shard)
    const [first, to] = layout.entriesOf(shard, generation)
    const from = after === undefined ? first : layout.entryAfter(shard, generation, after)
    return this.#rows(from, to, keysMax).map(([key, value]) => ({ key: layout.keyOfEntry(key), entry: layout.decodeEntry(key, value) }))
  }

  /** Each shard is asked many times a second, and hardly ever is anything due: that is known without the engine. */
  due(shard: number, until: EpochMs, after: Due | undefined, keysMax: number): readonly Due[] {
    if (after === undefined && until < (this.#quietUntil.get(shard) ?? 0)) return []
    const generation = this.#generationOf(shard)
    const [first, end] = layout.duesOf(shard, generation)
    const from = after === undefined ? first : layout.dueAfter(shard, generation, after)
    const to = layout.dueEnd(shard, generation, until)
    if (Buffer.compare(from, to) >= 0) return []
    const found = this.#rows(from, to, keysMax)
    if (found.length === 0 && after === undefined) {
      const [next] = this.#rows(first, end, 1)
      this.#quietUntil.set(shard, next === undefined ? Infinity : layout.dueOf(next[0]).at)
    }
    return found.map(([key]) => layout.dueOf(key))
  }

  /**
   * Writes a batch. One at a time. Resolves when it is as durable as asked.
   * @throws KvError DISK_FULL, STORE_FAILED: what is on the disk is not known, and nothing more may be asked of it.
   */
  async commit(batch: Batch): Promise<void> {
    if (this.#fault !== undefined) throw this.#fault
    if (this.#writing !== undefined) throw new KvError('STORE_FAILED', { message: 'two batches at once' })
    const changes = this.#changesOf(batch)
    this.#counts.batches++
    this.#counts.keys += batch.entries.size
    try {
      const writing = this.#engine.write(changes, this.#durability)
      this.#writing = writing ?? undefined
      await writing
    } catch (error) {
      this.#fault = isKvError(error) ? error : new KvError('STORE_FAILED', { cause: error })
      throw this.#fault
    } finally {
      this.#writing = undefined
    }
  }

  async close(): Promise<void> {
    await this.#writing?.catch(() => undefined)
    await this.#engine.close()
    this.#afterClose?.(this.#fault === undefined)
  }

  #load(): void {
    for (const [key, value] of this.#engine.rows(...layout.allGenerations, 65_536))
      this.#generations.set(layout.shardOfKey(key), Buffer.from(value).readUInt32BE(0))
    for (let from = layout.allShards[0]; ;) {
      const rows = this.#engine.rows(from, layout.allShards[1], 1_024)
      for (const [key, value] of rows) {
        const marks = layout.decodeMarks<ShardMarks>(key, value)
        if (marks === undefined) throw damagedMarks(`of shard ${layout.shardOfKey(key)}`)
        this.#shards.set(marks.shard, { ...marks, row: marks.row })
      }
      const last = rows.at(-1)
      if (last === undefined) break
      from = Buffer.concat([last[0], Buffer.alloc(1)])
    }
    const [store] = this.#engine.getMany([layout.storeKey])
    if (isKvError(store)) throw store
    if (store !== undefined) {
      const marks = layout.decodeMarks<StoreMarks>(layout.storeKey, store)
      if (marks === undefined) throw damagedMarks('of the server')
      this.#store = { ...marks, identity: marks.identity }
    }
    for (const [shard, generation] of this.#generations) this.#leaveOlder(shard, generation)
  }

  #changesOf({ cleared, entries, store, shards }: Batch): Change[] {
    const changes: Change[] = []
    for (const shard of cleared) {
      const generation = this.#generationOf(shard) + 1
      this.#generations.set(shard, generation)
      this.#cache.clear(shard)
      this.#quietUntil.delete(shard)
      this.#leaveOlder(shard, generation)
      const value = Buffer.alloc(4)
      value.writeUInt32BE(generation)
      changes.push({ key: layout.generationKey(shard), value })
    }
    for (const { shard, key, entry } of entries.values()) this.#change(changes, shard, key, entry)
    for (const marks of shards.values()) {
      this.#shards.set(marks.shard, marks)
      const key = layout.shardKey(marks.shard)
      changes.push({ key, value: layout.encodeMarks(key, marks) })
    }
    if (store !== undefined) {
      this.#store = store
      changes.push({ key: layout.storeKey, value: layout.encodeMarks(layout.storeKey, store) })
    }
    this.#removeLeftovers(changes)
    return changes
  }

  #change(changes: Change[], shard: number, key: string, entry: Written): void {
    const generation = this.#generationOf(shard)
    const before = this.#dueOf(this.read(shard, key))
    const after = this.#dueOf(entry)
    if (before !== undefined && before !== after)
      changes.push({ key: layout.dueKey(shard, generation, { at: before, key }), value: undefined })
    if (after !== undefined && before !== after) {
      changes.push({ key: layout.dueKey(shard, generation, { at: after, key }), value: nothing })
      const quietUntil = this.#quietUntil.get(shard)
      if (quietUntil !== undefined && after < quietUntil) this.#quietUntil.set(shard, after)
    }
    const bytes = layout.entryKey(shard, generation, key)
    changes.push({ key: bytes, value: entry === undefined ? undefined : layout.encodeEntry(bytes, entry) })
    if (entry === 'damaged') this.#cache.delete(shard, key)
    else this.#cache.set(shard, key, ownCopy(entry))
  }

  #dueOf(written: Written): EpochMs | undefined {
    return written === undefined || written === 'damaged' ? undefined : dueAt(written, this.#times)
  }

  #rows(from: Buffer, to: Buffer, count: number): readonly Row[] {
    return count === 0 ? [] : this.#engine.rows(from, to, count)
  }

  #generationOf(shard: number): number {
    return this.#generations.get(shard) ?? 0
  }

  #leaveOlder(shard: number, generation: number): void {
    for (const [from, to] of layout.olderThan(shard, generation)) this.#leftovers.push({ from, to })
  }

  #removeLeftovers(changes: Change[]): void {
    const [first] = this.#leftovers
    if (first === undefined) return
    const rows = this.#engine.rows(first.from, first.to, leftoversMax)
    for (const [key] of rows) changes.push({ key, value: undefined })
    if (rows.length === 0) this.#leftovers.shift()
  }
}

const nothing = new Uint8Array(0)

/** What came in a message is a part of a larger piece of memory, which the cache must not hold. */
function ownCopy(entry: Exclude<Written, 'damaged'>): Exclude<Written, 'damaged'> {
  if (entry === undefined || entry.record.value === undefined) return entry
  return { ...entry, record: { ...entry.record, value: Uint8Array.from(entry.record.value) } }
}

/** A value that the engine cannot read is damaged; an engine that cannot read at all is no disk. */
function damagedOr(error: KvError): 'damaged' {
  if (error.code !== 'DAMAGED') throw error
  return 'damaged'
}

const damagedMarks = (what: string): KvError =>
  new KvError('DAMAGED', {
    message: `the marks ${what} on the disk are damaged`,
    hint: 'move the directory away: the server then comes back as a learner and copies what the others have',
  })
