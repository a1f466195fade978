/**
 * What a key holds, its tombstone and the requests it remembers included. docs: consistency, "Words" and "Completions".
 * Pure. Invariant: a record is never changed in place; every change of content makes a later (version, lastModifiedAt, lastRequest).
 * Why the remembered requests live inside the record: every later state of the key then knows them, wherever it is copied (R6).
 */
import { epochMs, type EpochMs } from '../base/types.ts'
import type { Entry, Version } from '../kv/kv.ts'

export type Verb = 'create' | 'update' | 'set' | 'destroy' | 'touch'

/** A request's name inside a record. A plain id is a session with sequence 0, so that both kinds have one shape. */
export interface RequestName {
  readonly session: string
  readonly sequence: number
}

/** One remembered request with its outcome: all that its answer needs but the value, which a repetition brings along. */
export interface Completion extends RequestName {
  readonly verb: Verb
  readonly outcome: 'applied' | 'exists' | 'missing' | 'version'
  /** The state that the request made, or, for a refusal, the one that it met; '' where there was none. */
  readonly version: Version | ''
  readonly createdAt: EpochMs
  /** 0: never. */
  readonly expiresAt: EpochMs
  /** Wall-clock time of the store when it was recorded: its age is counted from here (R8). */
  readonly at: EpochMs
}

/** A session's word that every sequence below `below` is answered. Kept for the completions' life, so that a late repetition is recognised. */
export interface Mark {
  readonly session: string
  readonly below: number
  readonly at: EpochMs
}

export interface Completions {
  readonly entries: readonly Completion[]
  readonly marks: readonly Mark[]
}

export const noCompletions: Completions = Object.freeze({ entries: Object.freeze([]), marks: Object.freeze([]) })

export interface KeyRecord {
  /** The client's bytes; undefined: a tombstone, dead for every clock. */
  readonly value: Uint8Array | undefined
  /** Counts the changes of this life of the key: 1 at its creation, as in JunoDB. */
  readonly version: number
  readonly createdAt: EpochMs
  /** LMT: rises with every change of content, also over destroy and create. */
  readonly lastModifiedAt: EpochMs
  /** When anything of the record changed, its completions included. */
  readonly changedAt: EpochMs
  /** 0: never. */
  readonly expiresAt: EpochMs
  /** The request that made this life of the key. */
  readonly originator: string
  /** The request that made the present content; unique, so versions never repeat. */
  readonly lastRequest: string
  readonly completions: Completions
}

/** One string a request. The line feed cannot occur in a session (see `checkRequestId`), so two names never make one token. */
export const requestToken = (name: RequestName): string => (name.sequence === 0 ? name.session : `${name.session}\n${name.sequence}`)

/** The last instant as text: in a store's batch all versions have the same, and making the text is half of making a version. */
let stampedAt = -1
let stamp = ''

export function versionOf(version: number, lastModifiedAt: EpochMs, lastRequest: string): Version {
  if (lastModifiedAt !== stampedAt) {
    stampedAt = lastModifiedAt
    stamp = lastModifiedAt.toString(36)
  }
  return `${version}.${stamp}.${lastRequest}` as Version
}

/** Dead at `now`: a tombstone, or expired. At the very instant of expiry an entry is dead. */
export const isDead = (record: KeyRecord, now: EpochMs): boolean =>
  record.value === undefined || (record.expiresAt !== 0 && record.expiresAt <= now)

/** The record as the application sees it; undefined when it is dead at `now`. */
export function entryOf(record: KeyRecord | undefined, now: EpochMs): Entry | undefined {
  if (record === undefined || record.value === undefined || (record.expiresAt !== 0 && record.expiresAt <= now)) return undefined
  const { value, createdAt, expiresAt } = record
  const version = versionOf(record.version, record.lastModifiedAt, record.lastRequest)
  return expiresAt === 0 ? { value, version, createdAt } : { value, version, createdAt, expiresAt }
}

/** Bytes of one remembered request, as it is counted against the bound. Names are ASCII. */
export const completionBytes = (completion: Completion): number => 28 + completion.session.length + completion.version.length
export const markBytes = (mark: Mark): number => 16 + mark.session.length

export const completionsBytes = (completions: Completions): number =>
  completions.entries.reduce((sum, entry) => sum + completionBytes(entry), 0) +
  completions.marks.reduce((sum, mark) => sum + markBytes(mark), 0)

/** What is left of the completions at `now`. The same object when nothing is too old, so that nothing is copied in vain. */
export function trimCompletions(completions: Completions, now: EpochMs, lifeMs: number): Completions {
  const { entries, marks } = completions
  if (entries.length === 0 && marks.length === 0) return completions
  const isLive = ({ at }: { readonly at: EpochMs }): boolean => now - at < lifeMs
  if (entries.every(isLive) && marks.every(isLive)) return completions
  const left = { entries: entries.filter(isLive), marks: marks.filter(isLive) }
  return left.entries.length === 0 && left.marks.length === 0 ? noCompletions : left
}

/** True when nothing of the record matters any more at `now`: dead, and no remembered request is young enough. A store may drop it. */
export const isForgettable = (record: KeyRecord, now: EpochMs, lifeMs: number): boolean =>
  isDead(record, now) && trimCompletions(record.completions, now, lifeMs) === noCompletions

/** The instant from which `isForgettable` holds, or undefined for a record that never dies by itself. */
export function forgettableAt(record: KeyRecord, lifeMs: number): EpochMs | undefined {
  if (record.value !== undefined && record.expiresAt === 0) return undefined
  let at = record.value === undefined ? 0 : record.expiresAt
  for (const entry of record.completions.entries) at = Math.max(at, entry.at + lifeMs)
  for (const mark of record.completions.marks) at = Math.max(at, mark.at + lifeMs)
  return epochMs(at)
}
