/**
 * What proxies and storage servers say to each other about one key of one shard (docs: consistency, "Acceptor").
 * Pure. Invariant: every request carries shard and epoch, every answer carries the answering zone, its epoch and its clock.
 * Why an `id` and not the key in answers alone: a proxy may have two rounds for one key behind it, and a late answer must find only its own.
 */
import type { EpochMs } from '../base/types.ts'
import type { KeyRecord } from '../record/record.ts'

/** Number of a proposal. Totally ordered: by milliseconds, then counter, then proposer. */
export interface Ballot {
  /** Milliseconds since 1970 of the proposer's clock, or of a ballot that it had to outbid. */
  readonly ms: number
  /** 0 to 2^48 - 1. Rises with each ballot of a proposer. */
  readonly counter: number
  /** New at each start of a proxy, never stored: from the map source, or random with the top bit (2^47) set. 0 to 2^48 - 1. */
  readonly proposer: number
}

/** What one replica accepted of one key. */
export interface ReplicaEntry {
  readonly ballot: Ballot
  readonly record: KeyRecord
  /** Set on a stub: a dead entry whose payload is gone. It is the digest of the record as it was accepted. */
  readonly stub?: number
}

/** Who owns a shard. */
export interface ShardRow {
  readonly shard: number
  readonly epoch: number
  /** The storage server of each zone, by zone number. */
  readonly servers: readonly string[]
  /** The epoch in which each zone's server took the shard; absent: all did in epoch 1. A server that came back by a detour sees it here. */
  readonly since?: readonly number[]
  /** Set by `recover --accept-loss`: these zones put together what is left. */
  readonly recovers?: readonly number[]
}

interface Asked {
  /** Chosen by the sender; comes back in the answer. */
  readonly id: number
  readonly shard: number
  readonly epoch: number
  readonly key: string
}
export interface Prepare extends Asked {
  readonly type: 'prepare'
  readonly ballot: Ballot
  /** True when the ballot's milliseconds come from another replica's REJECT: then they are in use already, however far ahead. */
  readonly isRaised: boolean
  readonly wants: Wanted
}
export interface Accept extends Asked {
  readonly type: 'accept'
  readonly ballot: Ballot
  readonly record: KeyRecord
}
export interface Read extends Asked {
  readonly type: 'read'
  readonly wants: Wanted
}
/** `whole`: with the payload. `bare`: the record without its payload. */
export type Wanted = 'whole' | 'bare'

interface Answered {
  readonly id: number
  readonly shard: number
  readonly epoch: number
  readonly key: string
  readonly zone: number
  /** The answering server's wall clock. */
  readonly clock: EpochMs
}
/** What a replica has of the key. `isWhole` false: the payload was left out; a record without one is a tombstone only when it is whole. */
export interface Shown {
  readonly entry: ReplicaEntry | undefined
  readonly isWhole: boolean
}
export interface Promised extends Answered, Shown {
  readonly type: 'promised'
}
export interface Accepted extends Answered {
  readonly type: 'accepted'
}
export interface ReadAnswer extends Answered, Shown {
  readonly type: 'shown'
}
/** No. `bound`: what a ballot must exceed. */
export type Rejected = Answered & { readonly type: 'rejected' } & (
    | { readonly reason: 'ballot'; readonly bound: Ballot }
    /** The bound is lasting (a floor, or `purged`): the same ballot will never be taken here. */
    | { readonly reason: 'lasting'; readonly bound: Ballot }
    | { readonly reason: 'epoch'; readonly row: ShardRow }
    /** The ballot is more than a minute ahead of this clock, and of all that is known here. */
    | { readonly reason: 'clock' }
    /** The key's record cannot be read; only an ACCEPT above the bound heals it. */
    | { readonly reason: 'damaged'; readonly bound: Ballot }
    /** Two records under one ballot: a fault of a proposer. */
    | { readonly reason: 'digest' }
    /** This server does not vote for the shard now: it learns, is frozen, or gave it away. */
    | { readonly reason: 'closed' }
    /** More waits than is allowed. */
    | { readonly reason: 'busy' }
  )

export type ReplicaRequest = Prepare | Accept | Read
export type ReplicaAnswer = Promised | Accepted | ReadAnswer | Rejected
