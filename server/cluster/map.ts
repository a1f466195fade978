/**
 * The shard map: which storage server holds which shard in which zone, and the few ways in which that may change. DESIGN.md, M1 to M6.
 * Pure. Invariant: the number of zones never changes, a shard has one server a zone, and each change of a row is one epoch.
 * Why pure functions on a whole map: etcd, a file and the simulator's memory then run the very same transitions, each in a transaction of its own.
 */
import { assert } from '../../core/base/assert.ts'
import type { ShardRow } from '../../core/wire/replica-message.ts'
import type { Incarnation, MapAnswer, MapRequest, ServerRow } from '../../core/wire/server-message.ts'
import { maxBallot, zoneCounts } from '../register/ballot.ts'

export interface ShardMap {
  readonly zones: number
  readonly shards: number
  /** So many servers of each zone found the cluster together. Afterwards it says nothing. */
  readonly serversPerZone: number
  /** Empty until the cluster is founded. */
  readonly rows: readonly ShardRow[]
  /** Before the founding these are candidates. */
  readonly servers: readonly ServerRow[]
}

/**
 * A map of a cluster that nobody has founded yet.
 * @param zones 1, 3 or 5
 * @param shards at least 1
 * @param serversPerZone at least 1
 */
export function newMap(zones: number, shards: number, serversPerZone: number = 1): ShardMap {
  assert(zoneCounts.includes(zones), 'a cluster has 1, 3 or 5 zones')
  assert(Number.isSafeInteger(shards) && shards > 0, 'a cluster has at least one shard')
  assert(Number.isSafeInteger(serversPerZone) && serversPerZone > 0, 'a zone has at least one server')
  return { zones, shards, serversPerZone, rows: [], servers: [] }
}

/** Whoever founds says how many do, and all say the same. @returns what contradicts */
export function foundingFault(map: ShardMap, serversPerZone: number | undefined): string | undefined {
  if (map.rows.length > 0 || serversPerZone === undefined || serversPerZone === map.serversPerZone) return undefined
  return `${map.serversPerZone} servers of each zone are to found this cluster, not ${serversPerZone}`
}

export const sameIncarnation = (a: Incarnation, b: Incarnation): boolean => a.count === b.count && a.value === b.value

/** The epoch in which a zone's server took the shard. */
export const sinceOf = (row: ShardRow, zone: number): number => row.since?.[zone] ?? 1

/** M2. The same servers in a new epoch: a learner's fence, and the end of a freeze that gave nothing away. */
export const nextEpoch = ({ shard, epoch, servers, since }: ShardRow): ShardRow =>
  since === undefined ? { shard, epoch: epoch + 1, servers } : { shard, epoch: epoch + 1, servers, since }

/** M3. One zone's replica goes to another server. */
export function movedTo(row: ShardRow, zone: number, server: string): ShardRow {
  const epoch = row.epoch + 1
  return {
    shard: row.shard,
    epoch,
    servers: row.servers.with(zone, server),
    since: row.servers.map((_, one) => (one === zone ? epoch : sinceOf(row, one))),
  }
}

/** M6. The zones that are there put together what they have. */
export const recoveredBy = (row: ShardRow, zones: readonly number[]): ShardRow => ({ ...nextEpoch(row), recovers: zones })

/** Runs one transaction. */
export function transact(map: ShardMap, request: MapRequest): { readonly map: ShardMap; readonly answer: MapAnswer } {
  const changed = changeOf(map, request)
  const { rows, servers } = changed ?? map
  return { map: changed ?? map, answer: { type: 'map', id: request.id, isDone: changed !== undefined, rows, servers } }
}

/** Undefined: refused. */
function changeOf(map: ShardMap, request: MapRequest): ShardMap | undefined {
  switch (request.type) {
    case 'map-read':
      return map
    case 'map-join':
      return joined(map, request.server)
    case 'map-raise':
      return withServer(
        map,
        request.server,
        (known) => known.zone === request.server.zone && sameIncarnation(known.incarnation, request.from),
      )
    case 'map-ceiling': {
      const known = map.servers.find(({ server }) => server === request.server)
      if (known === undefined || !sameIncarnation(known.incarnation, request.incarnation)) return undefined
      return withServer(map, { ...known, ceiling: maxBallot(known.ceiling, request.ceiling) }, () => true)
    }
    case 'map-swap':
      return swapped(map, request.row)
  }
}

function withServer(map: ShardMap, row: ServerRow, mayTake: (known: ServerRow) => boolean): ShardMap | undefined {
  const known = map.servers.find(({ server }) => server === row.server)
  if (known === undefined || !mayTake(known)) return undefined
  return { ...map, servers: map.servers.map((one) => (one === known ? row : one)) }
}

/**
 * M1. The first candidates of each zone: they are the cluster. Afterwards an empty directory never gets a shard by itself.
 * Why the same one of each zone holds a shard: with fewer different sets of servers, fewer losses of two of them cost a shard its majority.
 */
function joined(map: ShardMap, row: ServerRow): ShardMap | undefined {
  if (row.zone < 0 || row.zone >= map.zones) return undefined
  const isFounded = map.rows.length > 0
  const known = map.servers.find(({ server }) => server === row.server)
  // Whoever is in the map keeps its directory there: another one under its name is a foreign one.
  if (isFounded && known !== undefined) return undefined
  const servers = [...map.servers.filter((one) => one !== known), row]
  if (isFounded) return { ...map, servers }
  const count = map.serversPerZone
  const founders = Array.from({ length: map.zones }, (_, zone) => servers.filter((one) => one.zone === zone).slice(0, count))
  if (founders.some((ofZone) => ofZone.length < count)) return { ...map, servers }
  // By name, so that those that are called alike hold the same shards.
  const names = founders.map((ofZone) => ofZone.map(({ server }) => server).toSorted())
  const rowOf = (shard: number): ShardRow => ({ shard, epoch: 1, servers: names.map((ofZone) => ofZone[shard % count] as string) })
  return { ...map, servers, rows: Array.from({ length: map.shards }, (_, shard) => rowOf(shard)) }
}

/** M4. Compare and set by the epoch; M5: what may never be in a row. */
function swapped(map: ShardMap, row: ShardRow): ShardMap | undefined {
  const known = map.rows.find(({ shard }) => shard === row.shard)
  if (known === undefined || row.epoch !== known.epoch + 1) return undefined
  if (row.servers.length !== map.zones) return undefined
  const isPlaced = row.servers.every((server, zone) => map.servers.some((one) => one.server === server && one.zone === zone))
  if (!isPlaced) return undefined
  const moved = row.servers.flatMap((server, zone) => (server === known.servers[zone] ? [] : [zone]))
  if (moved.length > 1) return undefined
  const isDated = row.servers.every((_, zone) => sinceOf(row, zone) === (moved.includes(zone) ? row.epoch : sinceOf(known, zone)))
  if (!isDated) return undefined
  return { ...map, rows: map.rows.map((one) => (one === known ? row : one)) }
}
