/**
 * The one function that decides what a verb does to a record. The memory store, the embedded store and, later, the
 * replicated register and the simulator's model call it; what a verb means is written once.
 * Pure. Invariant: a request whose name is remembered is never applied a second time (R6).
 * Why refusals of a first sending are not remembered: a client takes only the answer of its latest sending (R9).
 */
import { epochMs, type EpochMs } from '../base/types.ts'
import { expiryAfter, type ExpiryChange } from '../kv/expiry.ts'
import type { Entry, Version } from '../kv/kv.ts'
import {
  completionBytes,
  completionsBytes,
  entryOf,
  isDead,
  noCompletions,
  requestToken,
  trimCompletions,
  versionOf,
  type Completion,
  type Completions,
  type KeyRecord,
  type Mark,
  type RequestName,
} from './record.ts'

/** A request as `apply` takes it. `remember` is false for the names that a store makes up for callers without a request id. */
export interface Request extends RequestName {
  readonly remember: boolean
  /** All sequences of the session below this are answered. 0: none. */
  readonly done: number
  /** From 2 on the request may have been here before. */
  readonly attempt: number
}

export type Operation =
  | { readonly verb: 'create'; readonly request: Request; readonly value: Uint8Array; readonly expiry: ExpiryChange }
  | {
      readonly verb: 'update' | 'set'
      readonly request: Request
      readonly value: Uint8Array
      readonly expiry: ExpiryChange
      readonly ifVersion: Version | undefined
      /** Of JunoDB's clients, which know no `Version`. */
      readonly ifContext?: RecordContext | undefined
    }
  | { readonly verb: 'destroy'; readonly request: Request; readonly ifVersion: Version | undefined }
  /** A get that changes the expiry, and nothing else of the entry: what JunoDB's get with a time to live does. */
  | { readonly verb: 'touch'; readonly request: Request; readonly expiry: ExpiryChange }

/**
 * A state of a key as JunoDB's clients name it: all that is given must be equal. A version alone repeats in the next life of the key, and
 * the Java client sends no more; the Go client sends all three (juno: client/Java RecordContext, pkg/client SetCond).
 */
export interface RecordContext {
  readonly version: number
  /** The last version that the client is told before 1 comes again; undefined: none does. */
  readonly versionMax?: number | undefined
  /** Whole seconds. */
  readonly createdAtS?: number | undefined
  readonly lastModifiedAt?: EpochMs | undefined
}

/**
 * A version as JunoDB's clients are told it. That of the record only rises: an order of states must not depend on what a client can count to.
 * @param versionMax the last one before 1 comes again (juno: cmd/proxy/config, MaxRecordVersion)
 */
export const toldVersion = (version: number, versionMax: number): number => (version === 0 ? 0 : ((version - 1) % versionMax) + 1)

/** Those of the contract. */
export type KvOperation = Exclude<Operation, { readonly verb: 'touch' }>

export type Outcome =
  | { readonly type: 'applied'; readonly entry: Entry | undefined }
  | { readonly type: 'exists' | 'version'; readonly entry: Entry }
  | { readonly type: 'missing' }
  /** No effect, and the caller gets an error: completions full; a name used for two requests or below its session's mark; a remembered refusal whose entry is gone. */
  | { readonly type: 'fault'; readonly code: 'RECORD_LOCKED' | 'REQUEST_ID_REUSED' | 'ANSWER_GONE' }

export interface Decision {
  /** The record from now on. The very object that came in when nothing changed. */
  readonly record: KeyRecord | undefined
  readonly outcome: Outcome
  /** The request was known already: its first outcome is given again. */
  readonly isRecalled?: true
  /** When that was decided, where it is remembered: the time of the answer. `now` would be a time at which it need not have been decided so. */
  readonly decidedAt?: EpochMs
}

export interface CompletionRules {
  /** How long a request is remembered, in milliseconds. */
  readonly lifeMs: number
  /** Bytes of remembered requests a record. A quarter is kept for requests that change something. */
  readonly bytesMax: number
  /** Remembered requests a record. */
  readonly countMax: number
}

/** 12 s: the retry window of 10 s, an attempt's life, message delay and twice the clock bound. 32 KiB: some 800 names. */
export const completionRules: CompletionRules = Object.freeze({ lifeMs: 12_000, bytesMax: 32_768, countMax: 1_024 })

/**
 * Applies one verb to one record at the store's time `now`. `record` undefined: nothing is known of the key.
 * `trimAt`: the time by which remembered requests are too old; replicas take the smaller of two clocks, so that a fast one forgets nothing (R8).
 * A dead record that comes back (a tombstone) carries what must outlive the entry; a store drops it once `isForgettable`.
 */
export function apply(
  operation: Operation,
  record: KeyRecord | undefined,
  now: EpochMs,
  rules: CompletionRules = completionRules,
  trimAt: EpochMs = now,
): Decision {
  const { request } = operation
  const known = record === undefined ? noCompletions : trimCompletions(record.completions, trimAt, rules.lifeMs)
  if (request.remember) {
    const earlier = known.entries.find((entry) => entry.session === request.session && entry.sequence === request.sequence)
    if (earlier) return { record, outcome: recall(earlier, operation, record, now), isRecalled: true, decidedAt: earlier.at }
    const mark = request.sequence > 0 ? known.marks.find((one) => one.session === request.session) : undefined
    if (mark && request.sequence < mark.below) return { record, outcome: { type: 'fault', code: 'REQUEST_ID_REUSED' } }
    // Its completion is too old to be there, but the life that it began still carries its name, alive or dead.
    if (operation.verb === 'create' && record !== undefined && record.originator === requestToken(request)) {
      return { record, outcome: { type: 'applied', entry: asCreated(record, operation.value) }, isRecalled: true }
    }
  }

  const { next, outcome } = decide(operation, record, now)
  if (!request.remember) {
    if (next === undefined) return { record, outcome }
    return { record: next.completions === known ? next : { ...next, completions: known }, outcome }
  }
  // A first sending that changes nothing needs no memory of it (R9).
  if (next === undefined && request.attempt < 2) return { record, outcome }

  const completions = remember(known, completionOf(operation, outcome, now), request, rules, next !== undefined)
  if (completions === undefined) return { record, outcome: { type: 'fault', code: 'RECORD_LOCKED' } }
  const base = next ?? record ?? tombstone(request, now)
  return { record: { ...base, completions, changedAt: now }, outcome }
}

/** What the verb does, memory of requests aside. `next` undefined: nothing changes. */
function decide(operation: Operation, record: KeyRecord | undefined, now: EpochMs): { next: KeyRecord | undefined; outcome: Outcome } {
  const live = record !== undefined && !isDead(record, now) ? record : undefined
  const refuse = (outcome: Outcome) => ({ next: undefined, outcome })
  if ('ifVersion' in operation && operation.ifVersion !== undefined) {
    const entry = entryOf(live, now)
    if (entry === undefined) return refuse({ type: 'missing' })
    if (entry.version !== operation.ifVersion) return refuse({ type: 'version', entry })
  }
  if ('ifContext' in operation && operation.ifContext !== undefined) {
    if (live === undefined) return refuse({ type: 'missing' })
    if (!isIn(live, operation.ifContext)) return refuse({ type: 'version', entry: entryOf(live, now) as Entry })
  }
  switch (operation.verb) {
    case 'create':
      return live ? refuse({ type: 'exists', entry: entryOf(live, now) as Entry }) : write(operation, undefined, record, now)
    case 'update':
      return live ? write(operation, live, record, now) : refuse({ type: 'missing' })
    case 'set':
      return write(operation, live, record, now)
    case 'destroy':
      if (live === undefined) return refuse({ type: 'applied', entry: undefined })
      return { next: buried(live, operation.request, now), outcome: { type: 'applied', entry: entryOf(live, now) } }
    case 'touch': {
      if (live === undefined) return refuse({ type: 'missing' })
      const expiresAt = expiryAfter(operation.expiry, live.expiresAt, now)
      const touched: KeyRecord = { ...live, expiresAt, changedAt: now }
      const outcome: Outcome = { type: 'applied', entry: written(touched, live.value as Uint8Array) }
      return expiresAt === live.expiresAt ? refuse(outcome) : { next: touched, outcome }
    }
  }
}

const isIn = (record: KeyRecord, { version, versionMax, createdAtS, lastModifiedAt }: RecordContext): boolean =>
  version === (versionMax === undefined ? record.version : toldVersion(record.version, versionMax)) &&
  (createdAtS === undefined || Math.floor(record.createdAt / 1_000) === createdAtS) &&
  (lastModifiedAt === undefined || record.lastModifiedAt === lastModifiedAt)

/** `live` is the present life of the key, `earlier` whatever is known of it, dead lives included. */
function write(
  operation: Exclude<Operation, { verb: 'destroy' | 'touch' }>,
  live: KeyRecord | undefined,
  earlier: KeyRecord | undefined,
  now: EpochMs,
): { next: KeyRecord; outcome: Outcome } {
  const token = requestToken(operation.request)
  const lastModifiedAt = risen(earlier, now)
  const next: KeyRecord = {
    value: operation.value,
    version: live ? live.version + 1 : 1,
    createdAt: live ? live.createdAt : lastModifiedAt,
    lastModifiedAt,
    changedAt: now,
    expiresAt: expiryAfter(operation.expiry, live?.expiresAt, now),
    originator: live ? live.originator : token,
    lastRequest: token,
    completions: noCompletions,
  }
  return { next, outcome: { type: 'applied', entry: written(next, operation.value) } }
}

/** The entry as a write left it, also when its expiry has passed already. */
function written(record: KeyRecord, value: Uint8Array): Entry {
  const { createdAt, expiresAt } = record
  const version = versionOf(record.version, record.lastModifiedAt, record.lastRequest)
  return expiresAt === 0 ? { value, version, createdAt } : { value, version, createdAt, expiresAt }
}

/** A create whose life goes on under its name: its own version is (1, creation, its name), whatever came after. */
function asCreated(record: KeyRecord, value: Uint8Array): Entry {
  return written({ ...record, version: 1, lastModifiedAt: record.createdAt, lastRequest: record.originator }, value)
}

/** Content times only rise, so that a clock that steps back cannot make a version twice. */
const risen = (record: KeyRecord | undefined, now: EpochMs): EpochMs =>
  record === undefined ? now : epochMs(Math.max(now, record.lastModifiedAt + 1))

function buried(record: KeyRecord, request: Request, now: EpochMs): KeyRecord {
  return {
    ...record,
    value: undefined,
    version: record.version + 1,
    lastModifiedAt: risen(record, now),
    changedAt: now,
    lastRequest: requestToken(request),
  }
}

/** Carries the memory of a request on a key of which nothing else is known. */
export function tombstone(request: RequestName, now: EpochMs): KeyRecord {
  const token = `\n${requestToken(request)}` // a name that no create has: this is nobody's life
  return {
    value: undefined,
    version: 0,
    createdAt: now,
    lastModifiedAt: now,
    changedAt: now,
    expiresAt: epochMs(0),
    originator: token,
    lastRequest: token,
    completions: noCompletions,
  }
}

/** The first answer of a remembered request, given again. */
function recall(earlier: Completion, operation: Operation, record: KeyRecord | undefined, now: EpochMs): Outcome {
  if (earlier.verb !== operation.verb) return { type: 'fault', code: 'REQUEST_ID_REUSED' }
  if (earlier.outcome === 'missing') return { type: 'missing' }
  if (earlier.outcome === 'applied') {
    if (operation.verb === 'destroy') return { type: 'applied', entry: undefined }
    if (operation.verb === 'touch') {
      // It brought no value along, so it is told what is there now, as a get would be.
      const entry = entryOf(record, now)
      return entry === undefined ? { type: 'missing' } : { type: 'applied', entry }
    }
    const { createdAt, expiresAt } = earlier
    const version = earlier.version as Version
    return {
      type: 'applied',
      entry: expiresAt === 0 ? { value: operation.value, version, createdAt } : { value: operation.value, version, createdAt, expiresAt },
    }
  }
  const entry = entryOf(record, now)
  return entry !== undefined && entry.version === earlier.version
    ? { type: earlier.outcome, entry }
    : { type: 'fault', code: 'ANSWER_GONE' }
}

function completionOf(operation: Operation, outcome: Outcome, now: EpochMs): Completion {
  const { session, sequence } = operation.request
  const entry = outcome.type === 'missing' || outcome.type === 'fault' ? undefined : outcome.entry
  return {
    session,
    sequence,
    verb: operation.verb,
    outcome: outcome.type === 'fault' ? 'missing' : outcome.type,
    version: operation.verb === 'destroy' && outcome.type === 'applied' ? '' : (entry?.version ?? ''),
    createdAt: entry?.createdAt ?? epochMs(0),
    expiresAt: entry?.expiresAt ?? epochMs(0),
    at: now,
  }
}

/** Adds a completion and the session's word; undefined when there is no room (R7: never forget by count). */
function remember(
  known: Completions,
  completion: Completion,
  request: Request,
  rules: CompletionRules,
  changes: boolean,
): Completions | undefined {
  let { entries, marks } = known
  if (request.sequence > 0 && request.done > 0) {
    const before = marks.find((one) => one.session === request.session)
    const mark: Mark = { session: request.session, below: Math.max(request.done, before?.below ?? 0), at: completion.at }
    entries = entries.filter((entry) => entry.session !== request.session || entry.sequence >= mark.below)
    marks = [...marks.filter((one) => one !== before), mark]
  }
  const share = changes ? 1 : 0.75
  const bytes = completionsBytes({ entries, marks }) + completionBytes(completion)
  if (bytes > rules.bytesMax * share || entries.length + 1 > rules.countMax * share) return undefined
  return { entries: [...entries, completion], marks }
}
