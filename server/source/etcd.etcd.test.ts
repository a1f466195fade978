/** The map in a real etcd: what every source does, and what happens while etcd is away. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { isKvError } from '../../core/kv/errors.ts'
import type { ShardMap } from '../cluster/map.ts'
import { EtcdSource, type EtcdSourceOptions } from './etcd.ts'
import { etcdServer, type EtcdServer } from './testdata/etcd-server.ts'
import { join3, row, shape, sourceCases } from './testdata/source-cases.ts'

let etcd: EtcdServer
let prefixes = 0
beforeAll(async () => {
  etcd = await etcdServer()
}, 30_000)
afterAll(() => etcd.close())
const closing: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
})
async function sourceAt(prefix: string, more: Partial<EtcdSourceOptions> = {}): Promise<EtcdSource> {
  const source = await EtcdSource.open({ hosts: [etcd.host], prefix, ...shape, ...more })
  closing.push(() => source.close())
  return source
}
const newPrefix = (): string => `/test-${++prefixes}/`
const problem = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise
    return 'none'
  } catch (error) {
    if (!isKvError(error)) throw error
    return error.code
  }
}
/** Resolves when the map is as wanted. */
const until = (source: EtcdSource, isWanted: (map: ShardMap) => boolean): Promise<ShardMap> =>
  new Promise((resolve) => {
    const end = source.watch((map) => {
      if (isWanted(map)) queueMicrotask(() => (end(), resolve(map)))
    })
  })

sourceCases('in etcd, seen by two processes', async () => {
  const prefix = newPrefix()
  return [await sourceAt(prefix), await sourceAt(prefix)]
})

test('a cluster with many shards is founded at once', { timeout: 20_000 }, async () => {
  const prefix = newPrefix()
  const source = await sourceAt(prefix, { shards: 16_384 })
  await join3(source)
  const { rows } = await source.ask({ type: 'map-read', id: 1 })
  expect(rows).toHaveLength(16_384)
  const swap = { shard: 9_000, epoch: 2, servers: ['s0', 's1', 's2'] }
  expect((await source.ask({ type: 'map-swap', id: 2, row: swap })).isDone).toBe(true)
  expect((await (await sourceAt(prefix, { shards: 16_384 })).ask({ type: 'map-read', id: 3 })).rows[9_000]).toEqual(swap)
})

test('another number of zones or shards under the same prefix is refused', async () => {
  const prefix = newPrefix()
  await join3(await sourceAt(prefix))
  expect(await problem(sourceAt(prefix, { shards: 5 }))).toBe('INVALID_ARGUMENT')
})

test('whoever founds another way than the first said is refused, until it is founded', async () => {
  const prefix = newPrefix()
  const source = await sourceAt(prefix, { serversPerZone: 2 })
  await join3(source)
  expect((await source.ask({ type: 'map-read', id: 1 })).rows).toEqual([])
  expect(await problem(sourceAt(prefix, { serversPerZone: 1 }))).toBe('INVALID_ARGUMENT')
  const proxys = await sourceAt(prefix)
  await Promise.all([0, 1, 2].map((zone) => proxys.ask({ type: 'map-join', id: zone, server: row(`t${zone}`, zone) })))
  const { rows } = await source.ask({ type: 'map-read', id: 2 })
  expect(rows.map(({ servers }) => servers[0])).toEqual(['s0', 't0', 's0', 't0'])
  await sourceAt(prefix, { serversPerZone: 1 })
})

test('each proxy has a number of its own, from a counter', async () => {
  const prefix = newPrefix()
  const sources = await Promise.all([sourceAt(prefix), sourceAt(prefix), sourceAt(prefix)])
  const ids = await Promise.all(Array.from({ length: 12 }, (_, index) => sources[index % 3]?.proposerId()))
  expect(new Set(ids).size).toBe(12)
  for (const id of ids) expect(id).toBeLessThan(2 ** 47)
})

test('a ceiling that is told disturbs no change of a row', async () => {
  const prefix = newPrefix()
  const [one, other] = [await sourceAt(prefix), await sourceAt(prefix)]
  await join3(one)
  const told = Array.from({ length: 10 }, (_, ms) =>
    other.ask({
      type: 'map-ceiling',
      id: ms,
      server: 's0',
      incarnation: row('s0', 0).incarnation,
      ceiling: { ms, counter: 0, proposer: 0 },
    }),
  )
  const swapped = await one.ask({ type: 'map-swap', id: 99, row: { shard: 0, epoch: 2, servers: ['s0', 's1', 's2'] } })
  expect(swapped.isDone).toBe(true)
  expect((await Promise.all(told)).every(({ isDone }) => isDone)).toBe(true)
  expect((await one.ask({ type: 'map-read', id: 100 })).servers.find(({ server }) => server === 's0')?.ceiling.ms).toBe(9)
})

describe('while etcd is away', { timeout: 60_000 }, () => {
  test('what is known holds, a process that starts works from its copy, and the watch goes on afterwards', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hapax-etcd-copy-'))
    closing.push(() => rmSync(folder, { recursive: true, force: true }))
    const copy = join(folder, 'map.json')
    const prefix = newPrefix()
    const source = await sourceAt(prefix)
    await join3(source)
    await (await sourceAt(prefix, { copy })).close() // it has written its copy by then
    await etcd.kill()
    expect(await problem(source.ask({ type: 'map-read', id: 1 }))).toBe('UNAVAILABLE')
    expect((await until(source, () => true)).rows).toHaveLength(4)
    const late = await sourceAt(prefix, { copy })
    expect((await until(late, () => true)).rows).toHaveLength(4)
    expect(await late.proposerId()).toBeGreaterThanOrEqual(2 ** 47)
    expect(await problem(EtcdSource.open({ hosts: [etcd.host], prefix, ...shape }))).toBe('UNAVAILABLE')
    await etcd.restart()
    const seen = until(late, ({ rows }) => rows[1]?.epoch === 2)
    const swap = { type: 'map-swap', id: 2, row: { shard: 1, epoch: 2, servers: ['s0', 's1', 's2'] } } as const
    while ((await problem(source.ask(swap))) !== 'none') await new Promise((go) => setTimeout(go, 50))
    expect((await seen).rows[1]).toEqual(swap.row)
  })
})
