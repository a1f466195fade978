/** What every source of the map does, and what the file does beside. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { isKvError } from '../../core/kv/errors.ts'
import type { ServerRow } from '../../core/wire/server-message.ts'
import type { ShardMap } from '../cluster/map.ts'
import type { Source } from '../cluster/source.ts'
import { noBallot } from '../register/ballot.ts'
import { FileSource } from './file.ts'
import { MemorySource } from './memory.ts'

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
  const source = await FileSource.open({ path, zones: 3, shards: 4, pollMs: 10, ...more })
  closing.push(() => source.close())
  return source
}
const row = (server: string, zone: number): ServerRow => ({
  server,
  zone,
  directory: `d-${server}`,
  incarnation: { count: 1, value: 1 },
  ceiling: noBallot,
  address: `127.0.0.1:${zone}`,
})
const join3 = (source: Source) =>
  Promise.all([0, 1, 2].map((zone) => source.ask({ type: 'map-join', id: zone, server: row(`s${zone}`, zone) })))

describe.each<[string, () => Promise<readonly [Source, Source]>]>([
  [
    'in memory',
    async () => {
      const source = new MemorySource(3, 4)
      closing.push(() => source.close())
      return [source, source]
    },
  ],
  [
    'in a file, opened twice',
    async () => {
      const path = newPath()
      return [await fileAt(path), await fileAt(path)]
    },
  ],
])('the map %s', (_name, make) => {
  test('is founded by one server of each zone, all at once', async () => {
    const [one, other] = await make()
    const answers = await Promise.all(
      [0, 1, 2].map((zone) => (zone === 1 ? other : one).ask({ type: 'map-join', id: zone, server: row(`s${zone}`, zone) })),
    )
    expect(answers.every(({ isDone }) => isDone)).toBe(true)
    const { rows, servers } = await other.ask({ type: 'map-read', id: 9 })
    expect(rows).toEqual([0, 1, 2, 3].map((shard) => ({ shard, epoch: 1, servers: ['s0', 's1', 's2'] })))
    expect(servers.map(({ server }) => server).toSorted()).toEqual(['s0', 's1', 's2'])
  })

  test('takes one of two changes of the same row', async () => {
    const [one, other] = await make()
    await join3(one)
    const swap = { shard: 2, epoch: 2, servers: ['s0', 's1', 's2'] }
    const answers = await Promise.all([one, other, one, other].map((source, id) => source.ask({ type: 'map-swap', id, row: swap })))
    expect(answers.filter(({ isDone }) => isDone)).toHaveLength(1)
    expect((await one.ask({ type: 'map-read', id: 9 })).rows[2]).toEqual(swap)
  })

  test('tells who watches what it is, and each change or a later one', async () => {
    const [one, other] = await make()
    const seen: ShardMap[] = []
    let arrived: () => void = () => undefined
    const founded = new Promise<void>((resolve) => (arrived = resolve))
    const end = other.watch((map) => {
      seen.push(map)
      if (map.rows.length > 0) arrived()
    })
    expect(seen).toHaveLength(1)
    await join3(one)
    await founded
    end()
    const count = seen.length
    await one.ask({ type: 'map-swap', id: 1, row: { shard: 0, epoch: 2, servers: ['s0', 's1', 's2'] } })
    await other.ask({ type: 'map-read', id: 2 })
    expect(seen).toHaveLength(count)
  })

  test('gives each proxy a number of its own, with the bit of those by chance', async () => {
    const [one, other] = await make()
    const ids = await Promise.all(Array.from({ length: 50 }, (_, index) => (index % 2 ? one : other).proposerId()))
    expect(new Set(ids).size).toBe(50)
    for (const id of ids) expect(id >= 2 ** 47 && id < 2 ** 48).toBe(true)
  })
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
