/**
 * What may be lost without breaking the promise: fewer than a quorum of zones may lack what they had.
 * Invariant: a zone counts as whole only while the owner's disk has all that the owner accepted, and no copy that may come to own the shard
 * is damaged. A copy that is under way is not there yet.
 */
import { quorumOf } from '../../register/ballot.ts'
import type { Site } from '../site.ts'
import type { StorageProcess } from '../storage-process.ts'

/** Whether what this server holds may go now. */
export function mayLose(site: Site, server: StorageProcess): boolean {
  if (site.knobs.zones === 1) return false
  const zones = site.rows.flatMap(({ shard, servers }) =>
    servers.flatMap((owner, zone) => (zone === server.zone || isZoneWhole(site, shard, zone, owner) ? [] : [zone])),
  )
  return 1 + new Set(zones).size < quorumOf(site.knobs.zones)
}

function isZoneWhole(site: Site, shard: number, zone: number, owner: string): boolean {
  return site.servers.every(
    (server) =>
      server.zone !== zone || (server.name === owner ? isWhole(server, shard) : !mayCome(server, shard) || !server.disk.isDamaged),
  )
}

/** It has what it accepted, or has learned it since it lost that. */
export function isWhole({ disk, lostInEpoch }: StorageProcess, shard: number): boolean {
  const marks = disk.shards.find((one) => one.shard === shard)
  return marks?.state === 'serving' && (lostInEpoch === undefined || marks.epoch > lostInEpoch) && !disk.isDamaged
}

const mayCome = ({ disk }: StorageProcess, shard: number): boolean =>
  disk.shards.some((marks) => marks.shard === shard && (marks.state === 'receiving' || marks.state === 'received'))
