/**
 * G19 for the real engines: what `write` says is durable was synced. A killed process cannot show that, so the power is cut on paper:
 * a copy of the directory has of each log only the bytes that were there when it was last synced.
 */
import type * as nodeFs from 'node:fs'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, truncateSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { codeOf } from './engine.ts'
import { rocksdbProblem } from './judge.ts'
import { portableEngine, type PortableModule } from './portable.ts'
import { rocksdbEngine, type RocksModule } from './rocksdb.ts'
import { disk } from './testdata/watched-disk.ts'

vi.mock('node:fs', async (importOriginal) => {
  const { watched } = await import('./testdata/watched-disk.ts')
  return watched(await importOriginal<typeof nodeFs>())
})

const require = createRequire(import.meta.url)
const problem = await rocksdbProblem()

let folder: string
let dir: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hapax-rocksdb-'))
  dir = join(folder, 'records')
  mkdirSync(dir)
  disk.forget()
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const key = (index: number): Buffer => Buffer.from(`key-${index}`)
const put = (index: number, size = 100): { key: Buffer; value: Uint8Array } => ({
  key: key(index),
  value: new Uint8Array(size).fill(index),
})

describe.skipIf(problem !== undefined)('RocksDB', () => {
  const load = (): RocksModule => require('rocksdb') as RocksModule
  /** The keys below `count` that are there after a power cut now. */
  async function foundAfterCut(count: number): Promise<number> {
    const copy = join(folder, `cut-${readdirSync(folder).length}`)
    mkdirSync(copy)
    for (const name of readdirSync(dir)) {
      const synced = disk.synced.get(join(dir, name)) ?? 0
      try {
        copyFileSync(join(dir, name), join(copy, name))
      } catch (error) {
        if (codeOf(error) === 'ENOENT') continue // a file that RocksDB did not need any more
        throw error
      }
      if (name.endsWith('.log')) truncateSync(join(copy, name), synced)
    }
    const engine = await rocksdbEngine(load(), copy)
    const found = engine.getMany(Array.from({ length: count }, (_, index) => key(index))).filter((value) => value instanceof Uint8Array)
    await engine.close()
    rmSync(copy, { recursive: true })
    return found.length
  }

  test('has synced the log that holds a write before it answers fsync, also after it was opened again', async () => {
    const engine = await rocksdbEngine(load(), dir)
    for (let index = 0; index < 6; index++) {
      await engine.write([put(index)], 'fsync')
      expect(await foundAfterCut(6)).toBe(index + 1)
      if (index === 3) await engine.reopen()
    }
    await engine.close()
  })
  test('and os alone does not promise it: the test can see a missing sync', async () => {
    const engine = await rocksdbEngine(load(), dir)
    await engine.write([put(0)], 'os')
    expect(await foundAfterCut(1)).toBe(0)
    await engine.write([put(1)], 'fsync')
    expect(await foundAfterCut(2)).toBe(2)
    await engine.close()
  })
  test('syncs the new log when RocksDB goes over to it in the middle of the work', { timeout: 120_000 }, async () => {
    const engine = await rocksdbEngine(load(), dir)
    const logs = new Set<string>()
    let count = 0
    await engine.write([put(count++)], 'fsync')
    // RocksDB begins another log when its table in memory is full.
    for (; logs.size < 2 && count < 120; count++) {
      await engine.write([put(count, 4_000_000)], 'fsync')
      for (const name of disk.synced.keys()) logs.add(name)
    }
    expect(logs.size).toBe(2)
    await engine.write([put(count++)], 'fsync')
    // What is copied below must not be in the middle of moving from the old log to a table.
    await vi.waitFor(() => expect(readdirSync(dir).filter((name) => name.endsWith('.log'))).toHaveLength(1), 60_000)
    expect(await foundAfterCut(count)).toBe(count)
    await engine.close()
  })
  test('a sync that fails ends the store, also for want of space: the write is in the log, and may come back', async () => {
    const engine = await rocksdbEngine(load(), dir)
    await engine.write([put(0)], 'fsync')
    disk.fault = Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' })
    await expect(engine.write([put(1)], 'fsync')).rejects.toMatchObject({ code: 'STORE_FAILED', retry: 'same-request-id' })
    disk.fault = Object.assign(new Error('ENOSPC: no space left on device, fdatasync'), { code: 'ENOSPC' })
    await expect(engine.write([put(2)], 'fsync')).rejects.toMatchObject({ code: 'STORE_FAILED' })
    await engine.close()
  })
  test('a write after close is an error and does not end the process', async () => {
    const engine = await rocksdbEngine(load(), dir)
    await engine.close()
    await engine.close()
    expect(() => engine.write([put(0)], 'fsync')).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' }))
    expect(() => engine.getMany([key(0)])).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' }))
    expect(existsSync(join(dir, 'CURRENT'))).toBe(true)
  })
})

test('LevelDB is told to sync what is to be durable, and only that', async () => {
  const { ClassicLevel } = require('classic-level') as PortableModule
  const asked: unknown[] = []
  class Watched extends ClassicLevel<Uint8Array, Uint8Array> {
    override batch(...given: unknown[]): never {
      asked.push((given[1] as { readonly sync?: boolean }).sync)
      return super.batch(...(given as [])) as never
    }
  }
  const engine = await portableEngine({ ClassicLevel: Watched as unknown as typeof ClassicLevel }, dir)
  await engine.write([put(0)], 'fsync')
  await engine.write([put(1)], 'os')
  expect(asked).toEqual([true, false])
  await engine.close()
})
