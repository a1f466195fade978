/**
 * What an add, a reset or a lease makes of a record.
 * Pure. Invariant: a request that is remembered counts nothing a second time, and no request is forgotten before its time (C1).
 * Why the end of a count stands in the record and not only in the store's expiry: the record must outlive the count by as long as it
 * remembers requests, and the store's grain may be a second.
 */
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import { KvError } from '../../core/kv/errors.ts'
import { noRequests, recalled, remembered, trimmed, type Memory, type RequestName, type Requests } from './requests.ts'

/** A class, because `modify` freezes plain objects all through, and that would cost as much as the add. Nothing here changes one in place. */
export class CountRecord {
  /** The store's clock when the count began, and above that of the count before. */
  readonly epoch: number
  readonly value: bigint
  /** 0: never. */
  readonly endsAt: EpochMs
  readonly requests: Requests

  constructor(epoch: number, value: bigint, endsAt: EpochMs, requests: Requests) {
    this.epoch = epoch
    this.value = value
    this.endsAt = endsAt
    this.requests = requests
  }
}

export interface CountRules extends Memory {
  readonly start: bigint
  readonly min: bigint | undefined
  readonly max: bigint | undefined
  /** What the caller's kind of number can say. */
  readonly least: bigint
  readonly most: bigint
  /** 0: for ever. */
  readonly ttlMs: number
  readonly slides: boolean
}

export interface Ask {
  /** What is added; or what makes the next count. */
  readonly change: bigint | ((value: bigint, epoch: number) => bigint)
  readonly id?: RequestName | undefined
  readonly ifEpoch?: number | undefined
}

export interface CountOutcome {
  readonly type: 'added' | 'repeated' | 'bound' | 'epoch'
  readonly value: bigint
  readonly epoch: number
}

export interface Decision<R, O> {
  /** Undefined: nothing is written. */
  readonly record: R | undefined
  readonly outcome: O
}

/** The count as it stands at `now`; epoch 0 when none has begun, or the last has ended. */
export function countAt(record: CountRecord | undefined, now: EpochMs, start: bigint): Omit<CountRecord, 'requests'> {
  if (record === undefined || hasEnded(record, now)) return { epoch: 0, value: start, endsAt: epochMs(0) }
  return record
}

/** At the very instant of its end it has ended. */
const hasEnded = ({ endsAt }: CountRecord, now: EpochMs): boolean => endsAt !== 0 && endsAt <= now

/** Whether the count goes on at `now` and will end: then it matters whether `now` may be older than the question. */
export const mayHaveEnded = (record: CountRecord | undefined, now: EpochMs): boolean => record !== undefined && record.endsAt > now

/** @throws KvError REQUEST_ID_REUSED, RECORD_LOCKED, COUNTER_OVERFLOW. */
export function changeCount(
  record: CountRecord | undefined,
  now: EpochMs,
  ask: Ask,
  rules: CountRules,
): Decision<CountRecord, CountOutcome> {
  const { id, change } = ask
  const delta = typeof change === 'bigint' ? change : undefined
  let requests = record === undefined ? noRequests : trimmed(record.requests, now)
  const known = id === undefined ? undefined : recalled(requests, id, delta)
  if (known !== undefined) return { record: undefined, outcome: { type: 'repeated', value: known.value, epoch: known.epoch } }

  const { value, epoch, endsAt } = countAt(record, now, rules.start)
  if (ask.ifEpoch !== undefined && ask.ifEpoch !== epoch) return { record: undefined, outcome: { type: 'epoch', value, epoch } }
  const next = typeof change === 'bigint' ? value + change : change(value, epoch)
  if (crosses(value, next, rules)) return { record: undefined, outcome: { type: 'bound', value, epoch } }
  if (next < rules.least || next > rules.most) throw overflow()

  const nextEpoch = epoch === 0 ? nextEpochOf(record, now) : epoch
  if (id !== undefined) requests = remembered(requests, id, { delta, value: next, epoch: nextEpoch }, now, rules)
  return {
    record: new CountRecord(nextEpoch, next, endAfter(endsAt, now, rules), requests),
    outcome: { type: 'added', value: next, epoch: nextEpoch },
  }
}

/** A bound that was drawn anew may leave the count outside: then each step back towards it is allowed. */
const crosses = (value: bigint, next: bigint, { min, max }: CountRules): boolean =>
  (max !== undefined && next > max && next >= value) || (min !== undefined && next < min && next <= value)

/** Also for a count that began before the counter had a ttl: it ends one ttl after its next change. */
const endAfter = (endsAt: EpochMs, now: EpochMs, { ttlMs, slides }: CountRules): EpochMs =>
  ttlMs > 0 && (slides || endsAt === 0) ? epochMs(now + ttlMs) : endsAt

const nextEpochOf = (record: CountRecord | undefined, now: EpochMs): number => Math.max(now, (record?.epoch ?? 0) + 1)

export interface ResetOutcome extends CountOutcome {
  readonly type: 'added' | 'epoch'
  readonly previous: bigint
}

/** What is remembered stays: a request from before the reset, sent again, gets its first answer. */
export function resetCount(
  record: CountRecord | undefined,
  now: EpochMs,
  ifEpoch: number | undefined,
  rules: CountRules,
): Decision<CountRecord, ResetOutcome> {
  const { value, epoch } = countAt(record, now, rules.start)
  if (ifEpoch !== undefined && ifEpoch !== epoch) return { record: undefined, outcome: { type: 'epoch', value, epoch, previous: value } }
  // There is none: it is as it would be after a reset.
  if (record === undefined || epoch === 0) return { record: undefined, outcome: { type: 'added', value, epoch, previous: value } }
  const next = new CountRecord(nextEpochOf(record, now), rules.start, endAfter(epochMs(0), now, rules), trimmed(record.requests, now))
  return { record: next, outcome: { type: 'added', value: next.value, epoch: next.epoch, previous: value } }
}

/** A ring of sub-windows, aligned to the epoch of the clock. */
export class WindowRecord {
  /** The number of the newest sub-window: its instant divided by its width. */
  readonly newest: number
  /** The newest first; no more than one beyond the window. */
  readonly counts: readonly bigint[]
  readonly requests: Requests

  constructor(newest: number, counts: readonly bigint[], requests: Requests) {
    this.newest = newest
    this.counts = counts
    this.requests = requests
  }
}

export interface WindowRules extends Memory {
  readonly widthMs: number
  readonly parts: number
  readonly most: bigint
}

export interface WindowSum {
  readonly value: bigint
  readonly atLeast: bigint
  readonly since: EpochMs
}

/** A clock that steps back counts into the newest sub-window there is. */
const indexAt = (record: WindowRecord | undefined, now: EpochMs, { widthMs }: WindowRules): number =>
  Math.max(Math.floor(now / widthMs), record?.newest ?? 0)

function countsAt(record: WindowRecord | undefined, index: number, { parts }: WindowRules): bigint[] {
  if (record === undefined) return [0n]
  const empty = Math.min(index - record.newest, parts + 1)
  return [...Array.from({ length: empty }, () => 0n), ...record.counts].slice(0, parts + 1)
}

export function windowAt(record: WindowRecord | undefined, now: EpochMs, rules: WindowRules): WindowSum {
  const index = indexAt(record, now, rules)
  return sumOf(countsAt(record, index, rules), index, rules)
}

function sumOf(counts: readonly bigint[], index: number, { parts, widthMs }: WindowRules): WindowSum {
  const value = counts.reduce((sum, count) => sum + count, 0n)
  return { value, atLeast: value - (counts[parts] ?? 0n), since: epochMs(Math.max(0, (index - parts) * widthMs)) }
}

/** @throws KvError REQUEST_ID_REUSED, RECORD_LOCKED, COUNTER_OVERFLOW. */
export function addToWindow(
  record: WindowRecord | undefined,
  now: EpochMs,
  { delta, id }: { readonly delta: bigint; readonly id?: RequestName | undefined },
  rules: WindowRules,
): Decision<WindowRecord, { readonly value: bigint; readonly repeated: boolean }> {
  let requests = trimmed(record?.requests ?? noRequests, now)
  const known = id === undefined ? undefined : recalled(requests, id, delta)
  if (known !== undefined) return { record: undefined, outcome: { value: known.value, repeated: true } }
  const newest = indexAt(record, now, rules)
  const [current = 0n, ...before] = countsAt(record, newest, rules)
  const counts = [current + delta, ...before]
  const { value } = sumOf(counts, newest, rules)
  if (value > rules.most) throw overflow()
  if (id !== undefined) requests = remembered(requests, id, { delta, value, epoch: newest }, now, rules)
  return { record: new WindowRecord(newest, counts, requests), outcome: { value, repeated: false } }
}

const overflow = (): KvError => new KvError('COUNTER_OVERFLOW')

export interface SlotRecord {
  readonly owner: string
  /** On the store's clock. */
  readonly endsAt: EpochMs
}
export interface SlotsRecord {
  readonly slots: readonly SlotRecord[]
}

/** The slots whose lease has not passed. */
export const liveSlots = (record: SlotsRecord | undefined, now: EpochMs): readonly SlotRecord[] =>
  (record?.slots ?? []).filter(({ endsAt }) => endsAt > now)

export type TakeOutcome =
  | { readonly type: 'taken'; readonly inUse: number; readonly endsAt: EpochMs }
  | { readonly type: 'full'; readonly inUse: number; readonly retryAfterMs: number }

/** Takes a slot for an owner who has none. Those whose lease has passed leave with each change (C12). */
export function takeSlot(
  record: SlotsRecord | undefined,
  now: EpochMs,
  owner: string,
  { leaseMs, max }: { readonly leaseMs: number; readonly max: number },
): Decision<SlotsRecord, TakeOutcome> {
  const live = liveSlots(record, now)
  if (live.length >= max) {
    const first = Math.min(...live.map(({ endsAt }) => endsAt))
    return { record: undefined, outcome: { type: 'full', inUse: live.length, retryAfterMs: first - now } }
  }
  const endsAt = epochMs(now + leaseMs)
  return { record: { slots: [...live, { owner, endsAt }] }, outcome: { type: 'taken', inUse: live.length + 1, endsAt } }
}

/** Undefined: the owner has no slot any more. */
export function renewSlot(record: SlotsRecord | undefined, now: EpochMs, owner: string, leaseMs: number): SlotsRecord | undefined {
  const live = liveSlots(record, now)
  if (!live.some((slot) => slot.owner === owner)) return undefined
  return { slots: live.map((slot) => (slot.owner === owner ? { owner, endsAt: epochMs(Math.max(slot.endsAt, now + leaseMs)) } : slot)) }
}

/** Undefined: there is nothing to give back. */
export function freeSlot(record: SlotsRecord | undefined, now: EpochMs, owner: string): SlotsRecord | undefined {
  if (!record?.slots.some((slot) => slot.owner === owner)) return undefined
  return { slots: liveSlots(record, now).filter((slot) => slot.owner !== owner) }
}

/** Which shard a request id belongs to: FNV-1a over UTF-16 code units. Part of the record format: a repetition must find the same shard. */
export function shardOf(id: string, shards: number): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < id.length; index++) hash = Math.imul(hash ^ id.charCodeAt(index), 0x01000193)
  return (hash >>> 0) % shards
}
