/**
 * LevelDB through `classic-level`: the engine for platforms where the RocksDB package has no binary.
 * Invariant: the same as every engine's; both write and sync run in the thread pool.
 * Why it is the second choice: its binding does not verify block checksums on reads. Our own checksum of each record
 * catches a changed record, but damage to the bytes of a key in a table file, or to an index block, can hide a key.
 */
import type { ClassicLevel } from 'classic-level'
import { KvError } from '../kv/errors.ts'
import { needSpace } from './directory.ts'
import { cursorBytesMax, fullWhileSyncing, isDiskFull, writeFault, type Change, type Durability, type Engine } from './engine.ts'
import { cursorOver, readEach } from './level-reads.ts'

export interface PortableModule {
  readonly ClassicLevel: typeof ClassicLevel
}
type Db = ClassicLevel<Uint8Array, Uint8Array>

const options = {
  createIfMissing: true,
  keyEncoding: 'buffer',
  valueEncoding: 'buffer',
  compression: false,
  cacheSize: 33_554_432,
} as const

/** Opens LevelDB in `dir`. */
export async function portableEngine(module: PortableModule, dir: string): Promise<Engine> {
  const open = async (): Promise<Db> => {
    const db = new module.ClassicLevel<Uint8Array, Uint8Array>(dir, options)
    await db.open()
    return db
  }
  let db: Db | undefined = await open()
  const present = (): Db => {
    if (db === undefined) throw new KvError('UNAVAILABLE', { message: 'the engine is closed' })
    return db
  }
  const close = async (): Promise<void> => {
    const closing = db
    db = undefined
    await closing?.close()
  }

  return {
    name: 'portable',
    getMany: (keys) => readEach(keys, (key) => present().getSync(key)),
    async write(changes: readonly Change[], durability: Durability) {
      if (changes.length === 0) return
      try {
        await present().batch(
          changes.map(({ key, value }) => (value === undefined ? ({ type: 'del', key } as const) : ({ type: 'put', key, value } as const))),
          { sync: durability === 'fsync' },
        )
      } catch (error) {
        // The binding writes and syncs in one call, and does not say which of them failed.
        throw durability === 'fsync' && isDiskFull(error) ? fullWhileSyncing(error) : writeFault(error)
      }
    },
    range: (from, to) => cursorOver(present().iterator({ gte: from, lt: to, highWaterMarkBytes: cursorBytesMax })),
    async reopen() {
      needSpace(dir)
      await close()
      db = await open()
    },
    close,
  }
}
