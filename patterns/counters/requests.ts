/**
 * Which requests a record remembers, and for how long.
 * Pure. Invariant: a request is forgotten when its time has passed, or when its own session says that it is done; never to make room (C1).
 * Why sessions: a single id can leave by time alone, so a key takes some two adds a second with them. Of a session only what is under
 * way is kept, as RIFL does it (SOSP 2015).
 */
import { jsonString } from '../../core/base/json.ts'
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import { KvError } from '../../core/kv/errors.ts'
import { utf8Length } from '../../core/kv/limits.ts'
import type { SessionRequest } from './types.ts'

export type RequestName = string | SessionRequest

/** What a request did. */
export interface Answer {
  /** Absent: an update, whose function cannot be compared. */
  readonly delta?: bigint | undefined
  readonly value: bigint
  readonly epoch: number
}

export interface Remembered extends Answer {
  readonly id: string
  /** On the store's clock. Who wrote it decided how long, so another process with another setting forgets none too early. */
  readonly until: EpochMs
}

export interface Applied extends Answer {
  readonly sequence: number
}

export interface Session {
  readonly session: string
  /** Sequences below this one are answered and do not come again. */
  readonly done: number
  /** On the store's clock: then the session is forgotten with all its requests. Moves on with each of them. */
  readonly until: EpochMs
  readonly applied: readonly Applied[]
}

export interface Requests {
  readonly list: readonly Remembered[]
  readonly sessions: readonly Session[]
  /** Ids, and of each session two and its requests beyond the oldest. */
  readonly count: number
  /** About as many as they take in the record, counted likewise. */
  readonly bytes: number
}

export interface Memory {
  readonly rememberMs: number
  /** Of `count`. */
  readonly requestsMax: number
  readonly bytesMax: number
}

export const noRequests: Requests = Object.freeze({ list: Object.freeze([]), sessions: Object.freeze([]), count: 0, bytes: 0 })

/** Instants, sequences and epoch in JSON, with their commas, quotes and brackets. */
const bytesAround = 48
const answerBytes = ({ delta, value }: Answer): number =>
  String(value).length + (delta === undefined ? 0 : String(delta).length) + bytesAround
export const bytesOf = (one: Remembered): number => utf8Length(jsonString(one.id)) + answerBytes(one)
/** With room for its oldest request, which must always fit: until it is answered the session is done with no younger one. */
const sessionBytes = (session: string): number => utf8Length(jsonString(session)) + 3 * bytesAround

export function requestsOf(list: readonly Remembered[], sessions: readonly Session[] = []): Requests {
  if (list.length === 0 && sessions.length === 0) return noRequests
  let count = list.length
  let bytes = 0
  for (const one of list) bytes += bytesOf(one)
  for (const { session, done, applied } of sessions) {
    count += 2
    bytes += sessionBytes(session)
    for (const one of applied) {
      if (one.sequence <= done) continue
      count++
      bytes += answerBytes(one)
    }
  }
  return { list, sessions, count, bytes }
}

/** Those that must still be remembered at `now`; the very object that came in when that is all of them. */
export function trimmed(requests: Requests, now: EpochMs): Requests {
  if (requests === noRequests) return requests
  const isOver = ({ until }: { readonly until: EpochMs }): boolean => until <= now
  if (!requests.list.some(isOver) && !requests.sessions.some(isOver)) return requests
  return requestsOf(
    requests.list.filter((one) => !isOver(one)),
    requests.sessions.filter((one) => !isOver(one)),
  )
}

/** The first answer of a request. @throws KvError REQUEST_ID_REUSED. */
export function recalled(requests: Requests, name: RequestName, delta: bigint | undefined): Answer | undefined {
  const found = typeof name === 'string' ? requests.list.find(({ id }) => id === name) : inSession(requests, name)
  if (found !== undefined && found.delta !== delta)
    throw new KvError('REQUEST_ID_REUSED', { message: 'this request id belongs to an add of another amount' })
  return found
}

function inSession({ sessions }: Requests, name: SessionRequest): Applied | undefined {
  const known = sessions.find(({ session }) => session === name.session)
  if (known === undefined) return undefined
  if (name.sequence < known.done)
    throw new KvError('REQUEST_ID_REUSED', { message: `its session has said that it is done with all requests below ${known.done}` })
  return known.applied.find(({ sequence }) => sequence === name.sequence)
}

/** @throws KvError RECORD_LOCKED: never makes room by forgetting. */
export function remembered(before: Requests, name: RequestName, answer: Answer, now: EpochMs, memory: Memory): Requests {
  const { requestsMax, bytesMax, rememberMs } = memory
  const until = epochMs(now + rememberMs)
  const { delta, ...rest } = answer
  const told = delta === undefined ? rest : answer
  const next = typeof name === 'string' ? withId(before, { id: name, until, ...told }) : withSequence(before, name, told, until)
  const isFull = next.count > requestsMax && next.count > before.count
  if (isFull || (next.bytes > bytesMax && next.bytes > before.bytes))
    throw new KvError('RECORD_LOCKED', {
      message: `the count remembers ${before.list.length} request ids and ${before.sessions.length} sessions, and may forget none of them yet`,
      hint: 'try again later, name requests by session rather than by id, raise `requestsMax`, or spread the load over several keys',
    })
  return next
}

const withId = ({ list, sessions, count, bytes }: Requests, one: Remembered): Requests => ({
  list: [...list, one],
  sessions,
  count: count + 1,
  bytes: bytes + bytesOf(one),
})

function withSequence({ list, sessions, count, bytes }: Requests, name: SessionRequest, answer: Answer, until: EpochMs): Requests {
  const { session, sequence } = name
  const known = sessions.find((one) => one.session === session)
  const { done: before, applied: others } = known ?? { done: 0, applied: [] }
  const done = Math.max(name.done, before)
  const one = { sequence, ...answer }
  const applied: Applied[] = [one]
  let [more, moreBytes] = known === undefined ? [2, sessionBytes(session)] : [0, 0]
  if (sequence > done) {
    more++
    moreBytes += answerBytes(one)
  }
  for (const other of others) {
    if (other.sequence >= done) applied.push(other)
    if (other.sequence > before && other.sequence <= done) {
      more--
      moreBytes -= answerBytes(other)
    }
  }
  const next = { session, done, until: epochMs(Math.max(until, known?.until ?? 0)), applied }
  return {
    list,
    sessions: known === undefined ? [...sessions, next] : sessions.map((other) => (other === known ? next : other)),
    count: count + more,
    bytes: bytes + moreBytes,
  }
}
