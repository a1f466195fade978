/** What every source of the map does. */
import { describe, expect, test } from 'vitest'
import type { ServerRow } from '../../../core/wire/server-message.ts'
import type { ShardMap } from '../../cluster/map.ts'
import type { Source } from '../../cluster/source.ts'
import { noBallot } from '../../register/ballot.ts'

/** Zones and shards of the maps that are tried. */
export const shape = { zones: 3, shards: 4 } as const

export const row = (server: string, zone: number): ServerRow => ({
  server,
  zone,
  directory: `d-${server}`,
  incarnation: { count: 1, value: 1 },
  ceiling: noBallot,
  address: `127.0.0.1:${zone}`,
})
export const join3 = (source: Source) =>
  Promise.all([0, 1, 2].map((zone) => source.ask({ type: 'map-join', id: zone, server: row(`s${zone}`, zone) })))

/** @param make two views of one new map */
export function sourceCases(name: string, make: () => Promise<readonly [Source, Source]>): void {
  describe(`the map ${name}`, () => {
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

  test('remembers keys for whoever asks later; the first word of a version stays', async () => {
    const [one, other] = await make()
    expect(await one.keyChecks([])).toEqual([])
    await Promise.all([one.keyChecks([{ version: 2, check: 'b' }]), other.keyChecks([{ version: 10, check: 'c' }])])
    expect(await other.keyChecks([{ version: 1, check: 'a' }, { version: 2, check: 'other' }])).toEqual([
      { version: 1, check: 'a' },
      { version: 2, check: 'b' },
      { version: 10, check: 'c' },
    ])
    await join3(one)
    expect((await one.ask({ type: 'map-read', id: 9 })).rows).toHaveLength(4)
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

  test('gives each proxy a number of its own', async () => {
    const [one, other] = await make()
    const ids = await Promise.all(Array.from({ length: 50 }, (_, index) => (index % 2 ? one : other).proposerId()))
    expect(new Set(ids).size).toBe(50)
    for (const id of ids) expect(Number.isSafeInteger(id) && id > 0 && id < 2 ** 48).toBe(true)
  })
  })
}
