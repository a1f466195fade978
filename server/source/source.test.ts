/** What every source of the map does, and what the file does beside. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { isKvError } from '../../core/kv/errors.ts'
import type { ShardMap } from '../cluster/map.ts'
import { FileSource } from './file.ts'
import { MemorySource } from './memory.ts'
import { join3, row, shape, sourceCases } from './testdata/source-cases.ts'

const closing: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
})
const newPath = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'hapax-map-'))
  closing.push(() => rmSync(folder, { recursive: true, force: true }))
  return join(folder, 'map.json')
}
async function fileAt(path: string, more: object = {}): Promise<FileSource> {
  const source = await FileSource.open({ path, ...shape, pollMs: 10, ...more })
  closing.push(() => source.close())
  return source
}
sourceCases('in memory', async () => {
  const source = new MemorySource(shape.zones, shape.shards)
  closing.push(() => source.close())
  return [source, source]
})
sourceCases('in a file, opened twice', async () => {
  const path = newPath()
  return [await fileAt(path), await fileAt(path)]
})

test('numbers by chance have the bit that those of a counter never have', async () => {
  for (const source of [new MemorySource(3, 4), await fileAt(newPath())]) expect(await source.proposerId()).toBeGreaterThanOrEqual(2 ** 47)
})

describe('the file', () => {
  const problem = async (promise: Promise<unknown>): Promise<string> => {
    try {
      await promise
      return 'none'
    } catch (error) {
      if (!isKvError(error)) throw error
      return `${error.code}: ${error.message}`
    }
  }

  test('keeps the map for the next start, and refuses another number of zones or shards', async () => {
    const path = newPath()
    await join3(await fileAt(path))
    expect((await (await fileAt(path)).ask({ type: 'map-read', id: 1 })).rows).toHaveLength(4)
    expect(await problem(fileAt(path, { zones: 5 }))).toMatch(/^INVALID_ARGUMENT: .*3 zones and 4 shards, not 5 and 4/)
    expect(await problem(fileAt(path, { shards: 8 }))).toMatch(/^INVALID_ARGUMENT/)
  })

  test('that is no map is refused and left as it is; what was known before holds', async () => {
    const path = newPath()
    const source = await fileAt(path)
    await join3(source)
    writeFileSync(path, '{"half')
    expect(await problem(source.ask({ type: 'map-read', id: 1 }))).toMatch(/^INVALID_ARGUMENT/)
    expect(await problem(fileAt(path))).toMatch(/^INVALID_ARGUMENT: .*is no map/)
    expect(readFileSync(path, 'utf8')).toBe('{"half')
    const seen: ShardMap[] = []
    source.watch((map) => seen.push(map))
    expect(seen[0]?.rows).toHaveLength(4)
  })

  test('goes on when a process died with the lock', async () => {
    const path = newPath()
    const source = await fileAt(path)
    writeFileSync(`${path}.lock`, '2147483646') // no such process
    expect((await source.ask({ type: 'map-join', id: 1, server: row('s0', 0) })).isDone).toBe(true)
  })
})
