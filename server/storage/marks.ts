/**
 * What a storage server keeps on its disk, and what it asks of the disk. DESIGN.md, H1 to H4.
 * Pure. Invariant: a batch is durable as a whole or not at all, and batches become durable in the order in which they were committed.
 */
import type { EpochMs } from '../../core/base/types.ts'
import type { ReplicaEntry, ShardRow } from '../../core/wire/replica-message.ts'
import type { HandedKey, Incarnation } from '../../core/wire/server-message.ts'
import { noBallot, type Ballot } from '../register/ballot.ts'

/**
 * What a shard's replica here may do. Only `serving` answers proxies; `frozen` may again.
 * `received`: all that the giver had is here, and the map decides. `handed`: this server does not own the shard.
 */
export type ReplicaState = 'serving' | 'learning' | 'receiving' | 'received' | 'frozen' | 'handed'

/** Durable, one a shard that this server has or had. */
export interface ShardMarks {
  readonly shard: number
  readonly epoch: number
  readonly state: ReplicaState
  /** An absent key may have had any entry up to this ballot. */
  readonly purged: Ballot
  /** The newest row that was seen; a stale proxy gets it also when the map is away. */
  readonly row: ShardRow | undefined
  /** The epoch in which this server took, or waits to take, the shard: another one in the map means that it was somebody else's meanwhile. */
  readonly since: number
  /** `learning` alone: what is here is this server's own, from before a power cycle, and may be put together with the others' (D5). */
  readonly keepsOwn: boolean
}

/** Which directory this is, and which life of it: the map must have one of these incarnations (B1). */
export interface Identity {
  readonly directory: string
  /** Whose it is. A name that another server has in the map would vote for that one's promises. */
  readonly server: string
  readonly confirmed: Incarnation
  /** Asked for since then, the last one at the end: any of them may be the one that took, also late. */
  readonly next: readonly Incarnation[]
  /** Of the machine, at the last start; undefined: it could not be read. */
  readonly bootId: string | undefined
  /** The mark of the backup tool: such a directory is an old one, whatever else it says. */
  readonly isBackup: boolean
}

/** Durable, one a server. */
export interface StoreMarks {
  /** No promise and no entry of this server is above it. */
  readonly ceiling: Ballot
  /** Undefined: an empty directory. */
  readonly identity: Identity | undefined
  /** The other servers' incarnations as the map had them: for a peer that boots while the map is away. */
  readonly seen: Readonly<Record<string, Incarnation>>
}

export const noMarks: StoreMarks = Object.freeze({ ceiling: noBallot, identity: undefined, seen: Object.freeze({}) })

/** What a key becomes. Undefined: nothing is kept of it. `damaged`: its source could not read it, so nobody here knows it either. */
export type Written = ReplicaEntry | 'damaged' | undefined

/** What is written at once, in one synced write. */
export interface Batch {
  /** Shards whose keys all go, before `entries` are written. */
  readonly cleared: ReadonlySet<number>
  readonly entries: ReadonlyMap<string, { readonly shard: number; readonly key: string; readonly entry: Written }>
  readonly store: StoreMarks | undefined
  readonly shards: ReadonlyMap<number, ShardMarks>
}

/** A place in the order of keys by the instant at which something is due for them. */
export interface Due {
  readonly at: EpochMs
  readonly key: string
}

/** What is durable. The server lays its own unfinished writes over it. */
export interface DiskPort {
  read(shard: number, key: string): Written
  /** At most `keysMax` keys after `after`, in order of keys. */
  page(shard: number, after: string | undefined, keysMax: number): readonly HandedKey[]
  /** At most `keysMax` keys, after `after`, for which `dueAt` (expiry.ts) is at or before `until`, in order of (instant, key). An index kept with each write. */
  due(shard: number, until: EpochMs, after: Due | undefined, keysMax: number): readonly Due[]
  /** Begins a durable write; `committed` follows. A write that fails ends the process: it is never tried again. */
  commit(batch: Batch): void
}

/** Milliseconds, except where the name says otherwise. Their order is what safety rests on: docs, consistency. */
export interface StorageTimes {
  /** The greatest difference of clocks that is tolerated. */
  readonly boundMs: number
  readonly completionsLifeMs: number
  /** A dead entry stays at least so long. */
  readonly purgeAgeMs: number
  /** `purged` is raised to this long ago at each drop: longer than any ballot waits for its ACCEPT, shorter than `purgeAgeMs`. */
  readonly purgeHorizonMs: number
  /** How long a proxy's ping vouches for the clock. */
  readonly pingLifeMs: number
  /** An unanswered message between servers is sent again. */
  readonly retryMs: number
  /** How often the map is read, and how long a booting server waits for it before it asks its peers. */
  readonly pollMs: number
  /** How often the map gets the ceiling: a directory that is older than the last one is seen as such. */
  readonly ceilingMs: number
  /** A freeze that lasts longer is ended in the map. */
  readonly freezeMs: number
}

export const storageTimes: StorageTimes = Object.freeze({
  boundMs: 500,
  completionsLifeMs: 12_000,
  purgeAgeMs: 60_000,
  purgeHorizonMs: 30_000,
  pingLifeMs: 60_000,
  retryMs: 200,
  pollMs: 1_000,
  ceilingMs: 10_000,
  freezeMs: 2_000,
})

/** What roles do beside the ordinary. Counted as `RegisterEvent`s are. */
export type StorageEvent =
  /** A stale proxy was told the newer row, by an owner or by a server that gave the shard away. */
  | 'stale-epoch-refused'
  | 'stale-owner-contacted'
  | 'accept-in-freeze'
  | 'learner-served'
  /** Sources differed in a key: one of them had what was accepted by a minority, or lagged. */
  | 'learner-met-difference'
  | 'handover-served'
  | 'handover-served-after-restart'
  | 'handover-aborted'
  | 'purge-confirmed'
  | 'purge-delayed-by-difference'
  | 'purge-delayed-by-silence'
  | 'purge-delayed-by-promises'
  | 'shard-recovered'
  /** Too few zones vote for a learner to come back by itself. */
  | 'closed-for-loss'
