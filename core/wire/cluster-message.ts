/**
 * All messages between the processes of a cluster, and the fields of each, in their order on the wire.
 * Pure. Invariant: a number of a kind, and the order of its fields, never change once released; new fields stand at the end.
 */
import { unreachable } from '../base/assert.ts'
import type {
  Accept,
  Accepted,
  Ballot,
  Prepare,
  Promised,
  Read,
  ReadAnswer,
  Rejected,
  ReplicaAnswer,
  ReplicaEntry,
  ReplicaRequest,
  ShardRow,
  Shown,
  Wanted,
} from './replica-message.ts'
import type { HandedKey, Incarnation, Ping, Pong, RepairRequest, ServerMessage } from './server-message.ts'
import { WireError, type WireReader, type WireWriter } from './wire-bytes.ts'

/** The first message of both sides of a connection. */
export interface Greeting {
  readonly type: 'greeting'
  readonly oldest: number
  readonly newest: number
  readonly role: 'proxy' | 'storage'
  readonly name: string
  /** It wants no other cluster: a server that was moved by mistake is told so. */
  readonly cluster: string
}
/** Whoever says it is about to close: what is under way is answered, and nothing new should be sent. */
export interface Farewell {
  readonly type: 'farewell'
}

export type ClusterMessage = ReplicaRequest | ReplicaAnswer | ServerMessage | Ping | Pong | RepairRequest | Greeting | Farewell

export const Kind = {
  greeting: 1,
  farewell: 2,
  ping: 3,
  pong: 4,
  repair: 5,
  prepare: 16,
  accept: 17,
  read: 18,
  promised: 32,
  accepted: 33,
  shown: 34,
  rejected: 35,
  copy: 48,
  page: 49,
  offer: 50,
  ready: 51,
  part: 52,
  stored: 53,
  refused: 54,
  holds: 55,
  held: 56,
  know: 57,
  known: 58,
} as const satisfies Record<ClusterMessage['type'], number>

const typeOf = new Map(Object.entries(Kind).map(([type, kind]) => [kind as number, type as ClusterMessage['type']]))

export const kindOf = (message: ClusterMessage): number => Kind[message.type]

const wanted = ['whole', 'bare'] as const satisfies readonly Wanted[]
const roles = ['proxy', 'storage'] as const
const reasons = [
  'ballot',
  'lasting',
  'epoch',
  'clock',
  'damaged',
  'digest',
  'closed',
  'busy',
] as const satisfies readonly Rejected['reason'][]
const entryKinds = ['none', 'whole', 'stub', 'damaged', 'absent'] as const
/** The least bytes that an item of a list has. */
const leastBytes = { name: 1, number: 4, key: 3, held: 26, flag: 1, row: 9 }

export function writeBody(to: WireWriter, message: ClusterMessage): void {
  switch (message.type) {
    case 'greeting':
      to.u8(message.oldest)
      to.u8(message.newest)
      to.u8(roles.indexOf(message.role))
      to.text(message.name)
      return to.text(message.cluster)
    case 'farewell':
      return
    case 'ping':
      to.f64(message.id)
      return to.f64(message.clock)
    case 'pong':
      to.f64(message.id)
      to.u8(message.zone)
      return to.f64(message.clock)
    case 'repair':
      to.u16(message.shard)
      return to.key(message.key)
    case 'prepare':
      writeAsked(to, message)
      writeBallot(to, message.ballot)
      to.bool(message.isRaised)
      return to.u8(wanted.indexOf(message.wants))
    case 'accept':
      writeAsked(to, message)
      writeBallot(to, message.ballot)
      return to.record(message.record)
    case 'read':
      writeAsked(to, message)
      return to.u8(wanted.indexOf(message.wants))
    case 'promised':
    case 'shown':
      writeAnswered(to, message)
      return writeShown(to, message)
    case 'accepted':
      return writeAnswered(to, message)
    case 'rejected':
      writeAnswered(to, message)
      to.u8(reasons.indexOf(message.reason))
      if (message.reason === 'ballot' || message.reason === 'lasting' || message.reason === 'damaged') writeBallot(to, message.bound)
      if (message.reason === 'epoch') writeRow(to, message.row)
      return
    case 'know':
      to.f64(message.id)
      to.text(message.server)
      to.u16(message.shards.length)
      for (const shard of message.shards) to.u16(shard)
      return
    case 'known':
      to.f64(message.id)
      to.u8(message.zone)
      to.bool(message.incarnation !== undefined)
      if (message.incarnation !== undefined) writeIncarnation(to, message.incarnation)
      to.u16(message.rows.length)
      for (const row of message.rows) writeRow(to, row)
      return
    default:
      to.f64(message.id)
      to.u16(message.shard)
      return writeMove(to, message)
  }
}

type Move = Exclude<ServerMessage, { type: 'know' | 'known' }>

function writeMove(to: WireWriter, message: Move): void {
  switch (message.type) {
    case 'copy':
      writeRow(to, message.row)
      writeOptionalKey(to, message.after)
      return to.u16(message.keysMax)
    case 'page':
      to.u8(message.zone)
      to.u32(message.epoch)
      writeOptionalKey(to, message.after)
      to.bool(message.isLast)
      writeBallot(to, message.purged)
      writeBallot(to, message.ceiling)
      return writeKeys(to, message.keys)
    case 'offer':
      return writeRow(to, message.row)
    case 'ready':
    case 'refused':
      return
    case 'part':
      to.u32(message.number)
      to.bool(message.tail !== undefined)
      if (message.tail !== undefined) {
        writeBallot(to, message.tail.purged)
        writeBallot(to, message.tail.ceiling)
      }
      return writeKeys(to, message.keys)
    case 'stored':
      return to.u32(message.number)
    case 'holds':
      to.u32(message.epoch)
      to.f64(message.below)
      to.u16(message.keys.length)
      for (const { key, ballot } of message.keys) {
        to.key(key)
        writeBallot(to, ballot)
      }
      return
    case 'held':
      to.u8(message.zone)
      to.u32(message.epoch)
      to.u16(message.isSame.length)
      for (const isSame of message.isSame) to.bool(isSame)
      return
    default:
      return unreachable(message)
  }
}

/** @throws WireError for a kind that this release does not know, and for fields that make no sense. */
export function readBody(from: WireReader, kind: number): ClusterMessage {
  const type = typeOf.get(kind)
  if (type === undefined) throw new WireError(`kind ${kind} of a message is none that this release knows`)
  switch (type) {
    case 'greeting': {
      const [oldest, newest, role] = [from.u8(), from.u8(), from.choice(roles)]
      return { type, oldest, newest, role, name: from.text(), cluster: from.text() }
    }
    case 'farewell':
      return { type }
    case 'ping':
      return { type, id: from.f64(), clock: from.instant() }
    case 'pong':
      return { type, id: from.f64(), zone: from.u8(), clock: from.instant() }
    case 'repair':
      return { type, shard: from.u16(), key: from.key() }
    case 'prepare': {
      const [id, shard, epoch, key] = [from.f64(), from.u16(), from.u32(), from.key()]
      return { type, id, shard, epoch, key, ballot: readBallot(from), isRaised: from.bool(), wants: from.choice(wanted) } satisfies Prepare
    }
    case 'accept': {
      const [id, shard, epoch, key] = [from.f64(), from.u16(), from.u32(), from.key()]
      return { type, id, shard, epoch, key, ballot: readBallot(from), record: from.record() } satisfies Accept
    }
    case 'read': {
      const [id, shard, epoch, key] = [from.f64(), from.u16(), from.u32(), from.key()]
      return { type, id, shard, epoch, key, wants: from.choice(wanted) } satisfies Read
    }
    case 'promised':
    case 'shown': {
      const [id, shard, epoch, key, zone, clock] = [from.f64(), from.u16(), from.u32(), from.key(), from.u8(), from.instant()]
      const isWhole = from.bool()
      const entry = readEntry(from)
      if (entry === 'damaged' || entry === 'absent') throw new WireError('a replica shows what only a copy can say')
      return { type, id, shard, epoch, key, zone, clock, isWhole, entry } satisfies Promised | ReadAnswer
    }
    case 'accepted': {
      const [id, shard, epoch, key, zone, clock] = [from.f64(), from.u16(), from.u32(), from.key(), from.u8(), from.instant()]
      return { type, id, shard, epoch, key, zone, clock } satisfies Accepted
    }
    case 'rejected':
      return readRejected(from)
    case 'know': {
      const [id, server] = [from.f64(), from.text()]
      return { type, id, server, shards: from.list(from.u16(), 2, () => from.u16()) }
    }
    case 'known': {
      const [id, zone] = [from.f64(), from.u8()]
      const incarnation = from.bool() ? readIncarnation(from) : undefined
      return { type, id, zone, incarnation, rows: from.list(from.u16(), leastBytes.row, () => readRow(from)) }
    }
    default: {
      const head = { id: from.f64(), shard: from.u16() }
      return readMove(from, type, head)
    }
  }
}

function readMove(from: WireReader, type: Move['type'], head: { readonly id: number; readonly shard: number }): Move {
  switch (type) {
    case 'copy':
      return { type, ...head, row: readRow(from), after: readOptionalKey(from), keysMax: from.u16() }
    case 'page': {
      const [zone, epoch, after, isLast] = [from.u8(), from.u32(), readOptionalKey(from), from.bool()]
      return { type, ...head, zone, epoch, after, isLast, purged: readBallot(from), ceiling: readBallot(from), keys: readKeys(from) }
    }
    case 'offer':
      return { type, ...head, row: readRow(from) }
    case 'ready':
    case 'refused':
      return { type, ...head }
    case 'part': {
      const number = from.u32()
      const tail = from.bool() ? { purged: readBallot(from), ceiling: readBallot(from) } : undefined
      return { type, ...head, number, tail, keys: readKeys(from) }
    }
    case 'stored':
      return { type, ...head, number: from.u32() }
    case 'holds': {
      const [epoch, below] = [from.u32(), from.instant()]
      return {
        type,
        ...head,
        epoch,
        below,
        keys: from.list(from.u16(), leastBytes.held, () => ({ key: from.key(), ballot: readBallot(from) })),
      }
    }
    case 'held': {
      const [zone, epoch] = [from.u8(), from.u32()]
      return { type, ...head, zone, epoch, isSame: from.list(from.u16(), leastBytes.flag, () => from.bool()) }
    }
    default:
      return unreachable(type)
  }
}

function writeAsked(to: WireWriter, { id, shard, epoch, key }: ReplicaRequest): void {
  to.f64(id)
  to.u16(shard)
  to.u32(epoch)
  to.key(key)
}
function writeAnswered(to: WireWriter, { id, shard, epoch, key, zone, clock }: ReplicaAnswer): void {
  to.f64(id)
  to.u16(shard)
  to.u32(epoch)
  to.key(key)
  to.u8(zone)
  to.f64(clock)
}
function readRejected(from: WireReader): Rejected {
  const [id, shard, epoch, key, zone, clock] = [from.f64(), from.u16(), from.u32(), from.key(), from.u8(), from.instant()]
  const reason = from.choice(reasons)
  const head = { type: 'rejected', id, shard, epoch, key, zone, clock } as const
  if (reason === 'ballot' || reason === 'lasting' || reason === 'damaged') return { ...head, reason, bound: readBallot(from) }
  return reason === 'epoch' ? { ...head, reason, row: readRow(from) } : { ...head, reason }
}

function writeBallot(to: WireWriter, { ms, counter, proposer }: Ballot): void {
  to.f64(ms)
  to.f64(counter)
  to.f64(proposer)
}
const readBallot = (from: WireReader): Ballot => ({ ms: from.f64(), counter: from.f64(), proposer: from.f64() })

function writeShown(to: WireWriter, { entry, isWhole }: Shown): void {
  to.bool(isWhole)
  writeEntry(to, entry)
}
function writeEntry(to: WireWriter, entry: ReplicaEntry | 'damaged' | 'absent' | undefined): void {
  if (entry === undefined || typeof entry === 'string') return to.u8(entryKinds.indexOf(entry ?? 'none'))
  to.u8(entryKinds.indexOf(entry.stub === undefined ? 'whole' : 'stub'))
  writeBallot(to, entry.ballot)
  if (entry.stub !== undefined) to.f64(entry.stub)
  to.record(entry.record)
}
function readEntry(from: WireReader): ReplicaEntry | 'damaged' | 'absent' | undefined {
  const kind = from.choice(entryKinds)
  if (kind === 'none') return undefined
  if (kind === 'damaged' || kind === 'absent') return kind
  const ballot = readBallot(from)
  return kind === 'stub' ? { ballot, stub: from.f64(), record: from.record() } : { ballot, record: from.record() }
}

function writeKeys(to: WireWriter, keys: readonly HandedKey[]): void {
  to.u16(keys.length)
  for (const { key, entry } of keys) {
    to.key(key)
    writeEntry(to, entry)
  }
}
const readKeys = (from: WireReader): HandedKey[] =>
  from.list(from.u16(), leastBytes.key, () => {
    const key = from.key()
    const entry = readEntry(from)
    if (entry === undefined) throw new WireError('a copy says nothing of a key')
    return { key, entry }
  })

function writeOptionalKey(to: WireWriter, key: string | undefined): void {
  to.bool(key !== undefined)
  if (key !== undefined) to.key(key)
}
const readOptionalKey = (from: WireReader): string | undefined => (from.bool() ? from.key() : undefined)

function writeIncarnation(to: WireWriter, { count, value }: Incarnation): void {
  to.f64(count)
  to.f64(value)
}
const readIncarnation = (from: WireReader): Incarnation => ({ count: from.f64(), value: from.f64() })

function writeRow(to: WireWriter, { shard, epoch, servers, since, recovers }: ShardRow): void {
  to.u16(shard)
  to.u32(epoch)
  to.u8(servers.length)
  for (const server of servers) to.text(server)
  to.bool(since !== undefined)
  if (since !== undefined) for (const one of since) to.u32(one)
  to.bool(recovers !== undefined)
  if (recovers === undefined) return
  to.u8(recovers.length)
  for (const zone of recovers) to.u8(zone)
}
function readRow(from: WireReader): ShardRow {
  const [shard, epoch] = [from.u16(), from.u32()]
  const servers = from.list(from.u8(), leastBytes.name, () => from.text())
  const since = from.bool() ? from.list(servers.length, leastBytes.number, () => from.u32()) : undefined
  const recovers = from.bool() ? from.list(from.u8(), leastBytes.flag, () => from.u8()) : undefined
  return { shard, epoch, servers, ...(since === undefined ? {} : { since }), ...(recovers === undefined ? {} : { recovers }) }
}
