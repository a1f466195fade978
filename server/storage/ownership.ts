/**
 * Ownership: what a row of the map makes of the replica that is here. DESIGN.md, V1 to V4 and L1.
 * Pure. Invariant: whoever may have missed something since it last voted becomes a learner, never a voter.
 * Why `since` and not the epoch alone: a shard can go away and come back while a server is down, and then both rows name that server.
 */
import { unreachable } from '../../core/base/assert.ts'
import type { ShardRow } from '../../core/wire/replica-message.ts'
import { sinceOf } from '../cluster/map.ts'
import type { ShardMarks } from './marks.ts'

/**
 * `old`: known, or older than what is known. `note`: the same owner in a newer row; also of a shard that was never here, else an older row that names us would seem to be a new cluster's. `serve`: begin to serve with what is here.
 * `found`: a new cluster, nothing was ever here. `learn`: nothing here counts. `gather`: put together what is left, ours included; `gather-anew`: without ours.
 * `leave`: not ours.
 */
export type Verdict = 'old' | 'note' | 'serve' | 'found' | 'learn' | 'gather' | 'gather-anew' | 'leave'

export function verdictOf(marks: ShardMarks | undefined, row: ShardRow, zone: number, server: string): Verdict {
  const owns = row.servers[zone] === server
  const since = sinceOf(row, zone)
  if (marks === undefined) return !owns ? 'note' : row.recovers?.includes(zone) ? 'gather-anew' : since === 1 ? 'found' : 'learn'
  if (row.epoch < marks.epoch || row.epoch <= (marks.row?.epoch ?? 0)) return 'old'
  if (!owns) return marks.state === 'handed' ? 'note' : waits(marks) && row.epoch === marks.epoch ? 'note' : 'leave'
  // Whoever is not among them may hold what they gave up for lost: it copies from them as any learner does.
  const isSameOwner = since === marks.since
  if (row.recovers !== undefined) return !row.recovers.includes(zone) ? 'learn' : isSameOwner && hasOwn(marks) ? 'gather' : 'gather-anew'
  switch (marks.state) {
    case 'serving':
    case 'learning':
      return isSameOwner ? 'note' : 'learn'
    case 'frozen':
      if (!isSameOwner) return 'learn'
      return row.epoch > marks.epoch ? 'serve' : 'note'
    case 'received':
      return isSameOwner ? 'serve' : 'learn'
    case 'receiving':
    case 'handed':
      return 'learn'
    default:
      return unreachable(marks.state)
  }
}

/** It does not own the shard yet. */
const waits = ({ state }: ShardMarks): boolean => state === 'receiving' || state === 'received'

/** What is here was accepted, or copied, as a replica of the shard; or it is all that the one before had, and the move was made. */
const hasOwn = ({ state }: ShardMarks): boolean => state === 'serving' || state === 'frozen' || state === 'learning' || state === 'received'
