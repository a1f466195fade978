import { describe, expect, it } from 'vitest'
import type { ServerRow } from '../../core/wire/server-message.ts'
import { noBallot } from '../register/ballot.ts'
import { foundingFault, movedTo, newMap, nextEpoch, recoveredBy, transact, type ShardMap } from './map.ts'

const server = (name: string, more: Partial<ServerRow> = {}): ServerRow => ({
  server: name,
  zone: Number(name.slice(1)),
  directory: `dir-${name}`,
  incarnation: { count: 1, value: 5 },
  ceiling: noBallot,
  ...more,
})
const join = (map: ShardMap, ...names: string[]): ShardMap =>
  names.reduce((before, name) => transact(before, { type: 'map-join', id: 1, server: server(name) }).map, map)
const founded = (): ShardMap => join(newMap(3, 2), 's0', 's1', 's2', 't0', 't1')
const row = (map: ShardMap) => map.rows[0] as ShardMap['rows'][number]

describe('founding (M1)', () => {
  it('takes one empty directory of every zone, in one transaction, at epoch 1', () => {
    const two = join(newMap(3, 2), 's0', 's1')
    expect(two.rows).toEqual([])
    expect(join(two, 's2').rows).toEqual([
      { shard: 0, epoch: 1, servers: ['s0', 's1', 's2'] },
      { shard: 1, epoch: 1, servers: ['s0', 's1', 's2'] },
    ])
  })

  it('takes the directory that a candidate has last, and none of a founder afterwards', () => {
    let map = join(newMap(3, 1), 's0')
    map = transact(map, { type: 'map-join', id: 1, server: server('s0', { directory: 'second' }) }).map
    map = join(map, 's1', 's2')
    expect(map.servers.find((one) => one.server === 's0')?.directory).toBe('second')
    const late = transact(map, { type: 'map-join', id: 1, server: server('s0', { directory: 'third' }) })
    expect(late.answer.isDone).toBe(false)
    expect(late.map).toBe(map)
  })

  it('gives no shard to whoever joins later', () => {
    const map = founded()
    expect(map.servers.map((one) => one.server)).toContain('t0')
    expect(map.rows.every(({ servers }) => !servers.includes('t0'))).toBe(true)
  })

  it.each([2, 4, 7])('refuses %i zones', (zones) => expect(() => newMap(zones, 1)).toThrow(/1, 3 or 5 zones/))

  it('waits for as many servers of each zone as it was made for, and lets them share the shards', () => {
    const five = join(newMap(3, 3, 2), 's0', 't1', 's1', 's2', 't0')
    expect(five.rows).toEqual([])
    expect(foundingFault(five, 2)).toBeUndefined()
    expect(foundingFault(five, 1)).toBe('2 servers of each zone are to found this cluster, not 1')
    const six = join(five, 't2', 'u0')
    expect(six.rows.map(({ servers }) => servers)).toEqual([
      ['s0', 's1', 's2'],
      ['t0', 't1', 't2'],
      ['s0', 's1', 's2'],
    ])
    expect(foundingFault(six, 1)).toBeUndefined()
  })

  it('refuses a server of a zone that there is not', () => {
    expect(transact(newMap(3, 1), { type: 'map-join', id: 1, server: server('s3') }).answer.isDone).toBe(false)
  })
})

describe('a shard’s row (M2 to M5)', () => {
  const swap = (map: ShardMap, to: ShardMap['rows'][number]) => transact(map, { type: 'map-swap', id: 3, row: to })

  it('changes by compare and set on its epoch: of two that saw the same row one takes', () => {
    const map = founded()
    const first = swap(map, nextEpoch(row(map)))
    expect(first.answer).toMatchObject({ id: 3, isDone: true })
    const second = swap(first.map, movedTo(row(map), 0, 't0'))
    expect(second.answer.isDone).toBe(false)
    expect(second.answer.rows[0]).toEqual({ shard: 0, epoch: 2, servers: ['s0', 's1', 's2'] })
  })

  it('says since when a zone’s server has the shard, and leaves the others’ as they were', () => {
    let map = founded()
    map = swap(map, nextEpoch(row(map))).map
    map = swap(map, movedTo(row(map), 0, 't0')).map
    map = swap(map, movedTo(row(map), 1, 't1')).map
    expect(row(map)).toEqual({ shard: 0, epoch: 4, servers: ['t0', 't1', 's2'], since: [3, 4, 1] })
    map = swap(map, movedTo(row(map), 0, 's0')).map
    expect(row(map)).toEqual({ shard: 0, epoch: 5, servers: ['s0', 't1', 's2'], since: [5, 4, 1] })
  })

  it.each([
    ['another number of zones', { servers: ['s0', 's1'] }],
    ['two zones at once', { servers: ['t0', 't1', 's2'], since: [2, 2, 1] }],
    ['a server in a zone that is not its own', { servers: ['s0', 't0', 's2'], since: [1, 2, 1] }],
    ['a server that nobody knows', { servers: ['s0', 'u1', 's2'], since: [1, 2, 1] }],
    ['an epoch that is not the next', { epoch: 3 }],
    ['a new server without its date', { servers: ['t0', 's1', 's2'] }],
    ['a date for a server that stays', { since: [2, 1, 1] }],
    ['a shard that there is not', { shard: 9 }],
  ])('is refused with %s', (_, change) => {
    const map = founded()
    expect(swap(map, { ...nextEpoch(row(map)), ...change }).answer.isDone).toBe(false)
  })

  it('names the zones of a recovery in one epoch alone (M6)', () => {
    const map = founded()
    const recovered = swap(map, recoveredBy(row(map), [0, 2])).map
    expect(row(recovered).recovers).toEqual([0, 2])
    expect(nextEpoch(row(recovered)).recovers).toBeUndefined()
  })
})

describe('a server’s row', () => {
  it('takes a new incarnation only in the place of the one that was read', () => {
    const map = founded()
    const raised = server('s0', { incarnation: { count: 2, value: 9 } })
    const once = transact(map, { type: 'map-raise', id: 1, from: { count: 1, value: 5 }, server: raised })
    expect(once.answer.isDone).toBe(true)
    const again = transact(once.map, { type: 'map-raise', id: 1, from: { count: 1, value: 5 }, server: server('s0') })
    expect(again.answer.isDone).toBe(false)
    const otherValue = transact(once.map, { type: 'map-raise', id: 1, from: { count: 2, value: 8 }, server: server('s0') })
    expect(otherValue.answer.isDone).toBe(false)
  })

  it('keeps the highest ceiling, and none of an earlier incarnation', () => {
    const high = { ms: 9, counter: 0, proposer: 0 }
    const tell = (map: ShardMap, ceiling: typeof high, value: number) =>
      transact(map, { type: 'map-ceiling', id: 1, server: 's0', incarnation: { count: 1, value }, ceiling }).map
    const map = tell(founded(), high, 5)
    expect(map.servers[0]?.ceiling).toEqual(high)
    expect(tell(map, { ...high, ms: 4 }, 5).servers[0]?.ceiling).toEqual(high)
    expect(tell(map, { ...high, ms: 20 }, 6).servers[0]?.ceiling).toEqual(high)
  })
})
