/**
 * One run of the functions of joined callers over a known state: what to write, and what each of them is told.
 * Pure. Invariant: a caller whose function throws, or whose value cannot be stored, is rejected alone and leaves the running state as it was.
 * Why JSON values are frozen: the callers share them, and a function that changes its argument in place would change the others' results.
 */
import { epochMs, type EpochMs } from '../base/types.ts'
import type { Codec } from './codec.ts'
import { invalid, KvError } from './errors.ts'
import { expiryAfter, type ExpiryChange } from './expiry.ts'
import type { Entry, Expiry, Version } from './kv.ts'
import type { Limits } from './limits.ts'

export interface ModifyContext<V> {
  /** The store's clock. With several callers at once it may be as old as the call that it came with. */
  readonly now: EpochMs
  /** 1 at first; more when the function runs again, because another process was faster. */
  readonly attempt: number
  /** What is there, with the changes of the callers before this one. */
  readonly entry?: Entry<V> | undefined
}

/**
 * The next value; undefined leaves things as they are. Pure: it may run again, on another state. What it is given and what it returns is
 * shared with the callers that joined, so JSON values are frozen and bytes must not be changed in place. If it throws, only its own caller fails.
 */
export type Change<V> = (current: V | undefined, context: ModifyContext<V>) => V | undefined

export interface ModifyResult<V> {
  /**
   * As this caller left it. When a later caller of the same write changed it further, the store never held this state,
   * and its version equals no other: an update on condition of it is refused.
   */
  readonly entry: Entry<V> | undefined
  readonly now: EpochMs
  /** Whether the function returned a value. */
  readonly changed: boolean
}

/** For a KV that is no scoped view: its values go to it as they are. */
export const asIs: Codec<unknown> = { name: 'as is', encode: (value) => value as Uint8Array, decode: (stored) => stored }

interface CallerParts {
  readonly change: Change<unknown>
  readonly codec: Codec<unknown>
  readonly expiry: ExpiryChange
  /** The expiry of an entry that the change makes. */
  readonly onBirth: ExpiryChange
  /** It wants a state that was shown after it came. */
  readonly fresh: boolean
  /** When the caller gives up, on the monotonic clock. */
  readonly endsAt: number
  readonly resolve: (result: ModifyResult<unknown>) => void
  readonly reject: (error: unknown) => void
}

export class Caller implements CallerParts {
  readonly change: Change<unknown>
  readonly codec: Codec<unknown>
  readonly expiry: ExpiryChange
  readonly onBirth: ExpiryChange
  readonly fresh: boolean
  readonly endsAt: number
  readonly resolve: (result: ModifyResult<unknown>) => void
  readonly reject: (error: unknown) => void
  onSettled: (() => void) | undefined
  /** Its number in the order of arrival. */
  order = 0
  attempt = 0
  /** Its change is in a write whose outcome is not known yet. */
  sent = false
  settled = false

  constructor(parts: CallerParts) {
    this.change = parts.change
    this.codec = parts.codec
    this.expiry = parts.expiry
    this.onBirth = parts.onBirth
    this.fresh = parts.fresh
    this.endsAt = parts.endsAt
    this.resolve = parts.resolve
    this.reject = parts.reject
  }
  answer(result: ModifyResult<unknown>): void {
    if (this.settled) return
    this.settled = true
    this.onSettled?.()
    this.resolve(result)
  }
  fail(error: unknown): void {
    if (this.settled) return
    this.settled = true
    this.onSettled?.()
    this.reject(error)
  }
}

/** A state that the store has shown: by a read, a write or a refusal. An entry in it was alive at `now`. */
export interface Known {
  readonly entry: Entry<unknown> | undefined
  readonly now: EpochMs
  /** Callers up to this number had arrived when the call was sent that showed it. */
  readonly asked: number
}

export type Write =
  | { readonly type: 'create'; readonly value: unknown; readonly ttlMs: number | undefined }
  | { readonly type: 'update'; readonly value: unknown; readonly ifVersion: Version; readonly expiry: Expiry }

/** What one caller is told once the write is done. */
export interface Result {
  readonly caller: Caller
  readonly changed: boolean
  /** Undefined: there is no entry. */
  readonly value: unknown
  readonly expiresAt: EpochMs
  /** How many changes of the run it has seen, its own included. */
  readonly step: number
}

export interface Pass {
  readonly base: Entry<unknown> | undefined
  readonly results: readonly Result[]
  /** Undefined: nothing changes. */
  readonly write: Write | undefined
  readonly changes: number
  /** Callers who must wait for the next run, because a change in this one ended the entry's life. */
  readonly rest: readonly Caller[]
}

/** The running state. `stored` is its encoded form where it is known; `value` is for `codec`. */
interface Running {
  readonly exists: boolean
  codec: Codec<unknown> | undefined
  value: unknown
  stored: unknown
  /** 0: never. */
  readonly expiresAt: EpochMs
}

/** `careful`: every value is encoded as soon as it is returned, to find the caller whose value cannot be stored. */
export function runChanges(callers: readonly Caller[], known: Known, limits: Limits, careful = false): Pass {
  const { entry: base, now } = known
  let running: Running = {
    exists: base !== undefined,
    codec: undefined,
    value: undefined,
    stored: base?.value,
    expiresAt: base?.expiresAt ?? epochMs(0),
  }
  const results: Result[] = []
  let rest: readonly Caller[] = []
  let step = 0
  const again = (): Pass =>
    runChanges(
      callers.filter((caller) => !caller.settled),
      known,
      limits,
      true,
    )

  for (const [index, caller] of callers.entries()) {
    if (caller.settled) continue
    // Another codec than the last change's: what that one returned must be encoded now.
    if (running.codec !== caller.codec && running.stored === undefined && running.exists && !store(running, limits)) return again()
    caller.attempt++
    try {
      const current = running.exists ? valueFor(running, caller.codec) : undefined
      const next = caller.change(current, contextOf(current, running, base, now, step, caller.attempt))
      if (next === undefined) {
        results.push({ caller, changed: false, value: current, expiresAt: running.expiresAt, step })
        continue
      }
      if (typeof next === 'object' && next !== null && 'then' in next)
        invalid('the function of modify must answer at once, not with a promise', 'await before modify, not in it')
      const expiresAt = running.exists ? expiryAfter(caller.expiry, running.expiresAt, now) : expiryAfter(caller.onBirth, undefined, now)
      if (expiresAt !== running.expiresAt && expiresAt - now > limits.ttlMsMax)
        throw new KvError('TOO_LARGE', { message: `the entry would live ${expiresAt - now} ms, the store takes ${limits.ttlMsMax}` })
      const stored = careful ? encode(caller.codec, next, limits) : undefined
      freeze(next)
      running = { exists: true, codec: caller.codec, value: next, stored, expiresAt }
    } catch (error) {
      caller.fail(error)
      continue
    }
    step++
    results.push({ caller, changed: true, value: running.value, expiresAt: running.expiresAt, step })
    if (running.expiresAt !== 0 && running.expiresAt <= now) {
      rest = callers.slice(index + 1)
      break
    }
  }
  if (step === 0) return { base, results, write: undefined, changes: 0, rest }
  if (running.stored === undefined && !store(running, limits)) return again()
  return { base, results, write: writeOf(running, base, now), changes: step, rest }
}

/** Tells a caller its result. `entry` is the state after the write, or, where nothing was written, the one that is there. */
export function settleWith(
  { caller, changed, value, expiresAt, step }: Result,
  { base, changes }: Pass,
  entry: Entry<unknown> | undefined,
  now: EpochMs,
): void {
  const shown = step === 0 ? base : entry
  if (value === undefined || shown === undefined) return caller.answer({ entry: undefined, now, changed })
  const { createdAt } = shown
  const version = step === 0 || step === changes ? shown.version : (`${shown.version}~${step}` as Version)
  const dies = step === changes ? (shown.expiresAt ?? epochMs(0)) : expiresAt
  caller.answer({ entry: dies === 0 ? { value, version, createdAt } : { value, version, createdAt, expiresAt: dies }, now, changed })
}

function writeOf({ stored, expiresAt }: Running, base: Entry<unknown> | undefined, now: EpochMs): Write {
  if (base === undefined) return { type: 'create', value: stored, ttlMs: expiresAt === 0 ? undefined : Math.max(1, expiresAt - now) }
  const expiry: Expiry = expiresAt === (base.expiresAt ?? 0) ? 'keep' : expiresAt === 0 ? 'never' : { until: expiresAt }
  return { type: 'update', value: stored, ifVersion: base.version, expiry }
}

function contextOf(
  current: unknown,
  running: Running,
  base: Entry<unknown> | undefined,
  now: EpochMs,
  step: number,
  attempt: number,
): ModifyContext<unknown> {
  if (!running.exists) return { now, attempt }
  const version = (step === 0 ? base?.version : `${base?.version ?? ''}~${step}`) as Version
  const entry = { value: current, version, createdAt: base?.createdAt ?? now }
  return { now, attempt, entry: running.expiresAt === 0 ? entry : { ...entry, expiresAt: running.expiresAt } }
}

function valueFor(running: Running, codec: Codec<unknown>): unknown {
  if (running.codec !== codec) {
    const value = codec.decode(running.stored as Uint8Array)
    freeze(value)
    running.value = value
    running.codec = codec
  }
  return running.value
}

/** Encodes the running value; false when it cannot be stored. */
function store(running: Running, limits: Limits): boolean {
  try {
    running.stored = encode(running.codec as Codec<unknown>, running.value, limits)
    return true
  } catch {
    return false // the careful run finds out whose it is, and tells that caller why
  }
}

function encode(codec: Codec<unknown>, value: unknown, limits: Limits): unknown {
  const stored = codec.encode(value)
  if (stored instanceof Uint8Array && stored.length > limits.valueBytesMax) {
    throw new KvError('TOO_LARGE', { message: `the value has ${stored.length} bytes, the store takes ${limits.valueBytesMax}` })
  }
  return stored
}

/** Deep, for plain objects and arrays; what is frozen already is not entered, so that `{ ...before, paid: true }` costs one level. */
function freeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== Array.prototype && prototype !== null) return
  Object.freeze(value)
  for (const child of Object.values(value)) freeze(child)
}
