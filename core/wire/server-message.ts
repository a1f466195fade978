/**
 * What storage servers say to each other, to the source of the shard map, and to proxies beside the register's own messages.
 * Pure. Invariant: every message may come twice, late or never; whoever waits for an answer asks again.
 * Why a row in each copy request: a source raises its epoch by it, and can tell stale proxies, without waiting for the map (L3).
 */
import type { EpochMs } from '../base/types.ts'
import type { Ballot, ReplicaEntry, ShardRow } from './replica-message.ts'

/** Which life of a directory this is. Raised at every start; `value` is random. */
export interface Incarnation {
  /** Starts, from 1. */
  readonly count: number
  /** 0 to 2^32 - 1. Two starts with the same count differ in it. */
  readonly value: number
}

/** A storage server as the map knows it. */
export interface ServerRow {
  readonly server: string
  readonly zone: number
  /** Random name of its directory. */
  readonly directory: string
  readonly incarnation: Incarnation
  /** A durable ceiling of this directory, up to 10 s old. */
  readonly ceiling: Ballot
  /** Where it is reached, as `host:port` or `unix:/path`; each start says it anew. Absent in a simulation. */
  readonly address?: string | undefined
}

/** A key as one replica hands it to another. `damaged`: bytes that are not what was written. `absent`: it was dropped meanwhile. */
export interface HandedKey {
  readonly key: string
  readonly entry: ReplicaEntry | 'damaged' | 'absent'
}

interface Message {
  /** Chosen by whoever asks; comes back in the answer. */
  readonly id: number
  readonly shard: number
}

/** Asks a voting replica for what it holds after a key. With `keysMax` 0 it only raises the source's epoch: the fence. */
export interface CopyRequest extends Message {
  readonly type: 'copy'
  /** Of the epoch that the learner took. */
  readonly row: ShardRow
  /** Keys come in order; undefined: from the first. */
  readonly after: string | undefined
  readonly keysMax: number
}
export interface CopyPage extends Message {
  readonly type: 'page'
  readonly zone: number
  /** Durable at the source before the page was read. */
  readonly epoch: number
  /** As in the request. */
  readonly after: string | undefined
  readonly keys: readonly HandedKey[]
  readonly isLast: boolean
  readonly purged: Ballot
  readonly ceiling: Ballot
}

/** A -> B: a planned move begins. `id` names it in all later messages. */
export interface Offer extends Message {
  readonly type: 'offer'
  readonly row: ShardRow
}
/** B -> A: leftovers are gone, durably. */
export interface Ready extends Message {
  readonly type: 'ready'
}
/** A -> B: what A accepted, as it is on A's disk. The next one leaves when this one is stored. */
export interface Part extends Message {
  readonly type: 'part'
  readonly number: number
  readonly keys: readonly HandedKey[]
  /** Only in the last part, which A sends after its last group commit under the freeze. */
  readonly tail: { readonly purged: Ballot; readonly ceiling: Ballot } | undefined
}
/** B -> A: durable. */
export interface Stored extends Message {
  readonly type: 'stored'
  readonly number: number
}
/** B -> A: this move is not known here (B began anew), or B has the shard already. */
export interface Refused extends Message {
  readonly type: 'refused'
}

/**
 * Asks whether another zone holds exactly these ballots, or nothing with `purged` at or above them, and has promised nothing about them above both the
 * ballot and `below` (R14). Whoever answers accepts nothing up to `below` any more.
 */
export interface HoldsRequest extends Message {
  readonly type: 'holds'
  readonly epoch: number
  /** The purge horizon, as the milliseconds of a ballot. */
  readonly below: EpochMs
  readonly keys: readonly { readonly key: string; readonly ballot: Ballot }[]
}
export interface Holds extends Message {
  readonly type: 'held'
  readonly zone: number
  readonly epoch: number
  /** One a key of the request. */
  readonly isSame: readonly boolean[]
}

/** A server that boots without the map asks what the others know of it. */
export interface KnowRequest {
  readonly type: 'know'
  readonly id: number
  readonly server: string
  readonly shards: readonly number[]
}
export interface Known {
  readonly type: 'known'
  readonly id: number
  readonly zone: number
  readonly incarnation: Incarnation | undefined
  readonly rows: readonly ShardRow[]
}

export type ServerMessage = CopyRequest | CopyPage | Offer | Ready | Part | Stored | Refused | HoldsRequest | Holds | KnowRequest | Known

/** Proxy -> storage server, every second: the time as the proxy has it by the median of the servers (R15). */
export interface Ping {
  readonly type: 'ping'
  readonly id: number
  readonly clock: EpochMs
}
/** Storage server -> proxy: its own clock, to measure the proxy's by. */
export interface Pong {
  readonly type: 'pong'
  readonly id: number
  readonly zone: number
  readonly clock: EpochMs
}
/** Storage server -> proxy: write this key as it is, so that all zones hold one ballot of it. */
export interface RepairRequest {
  readonly type: 'repair'
  readonly shard: number
  readonly key: string
}

/** To the map's source. Each is one transaction. */
export type MapRequest =
  | { readonly type: 'map-read'; readonly id: number }
  /** A directory without a place in the map. The first of each zone found the cluster together, later ones wait for a move. */
  | { readonly type: 'map-join'; readonly id: number; readonly server: ServerRow }
  /** Takes when the map still has `from`; `server` then stands in its place. */
  | { readonly type: 'map-raise'; readonly id: number; readonly from: Incarnation; readonly server: ServerRow }
  /** Raises the known ceiling of a server, when it is still this incarnation. */
  | {
      readonly type: 'map-ceiling'
      readonly id: number
      readonly server: string
      readonly incarnation: Incarnation
      readonly ceiling: Ballot
    }
  /** Takes when the shard's row still has the epoch before `row.epoch`. */
  | { readonly type: 'map-swap'; readonly id: number; readonly row: ShardRow }

/** The whole map after the transaction. `isDone` false: somebody else was first, or it is refused. */
export interface MapAnswer {
  readonly type: 'map'
  readonly id: number
  readonly isDone: boolean
  readonly rows: readonly ShardRow[]
  readonly servers: readonly ServerRow[]
}
