/**
 * The contract that every store keeps and every pattern stands on: five verbs on a key, and getMany.
 * Pure. Invariant: for one key everything happens as if one at a time, and what was answered stays.
 * Why so few verbs: create-if-absent and update-if-version are all that a money-safe pattern needs,
 * and every serious engine can give them in one round trip.
 *
 * What a caller can expect (a refusal) is a value; what it cannot (a fault) is a thrown KvError.
 */
// So that the types also compile for who has neither this library in `lib` nor @types/node.
/// <reference lib="esnext.disposable" preserve="true" />
import type { Brand, Duration, EpochMs } from '../base/types.ts'
import type { Capabilities } from './limits.ts'

/**
 * Names one state of one key. Opaque outside its store: compare for equality only.
 * It never repeats for a key, also not after destroy and create.
 */
export type Version = Brand<string, 'Version'>

/** A record as the application sees it. Byte values must not be changed in place: a store may hand the same bytes to others. */
export interface Entry<V = Uint8Array> {
  readonly value: V
  readonly version: Version
  /** When this life of the key began, on the store's clock. */
  readonly createdAt: EpochMs
  /** When the entry dies, on the store's clock; absent: never. At this very instant it is already dead. */
  readonly expiresAt?: EpochMs
}

/** What an update does to the expiry. `keep`: nothing. `never`: it lives on. `set`: so long from now. `extend`: so long from now, but never sooner than before. `until`: to an instant. */
export type Expiry = 'keep' | 'never' | { readonly set: Duration } | { readonly extend: Duration } | { readonly until: EpochMs }

/**
 * Names one request, so that sending it again applies it once (RIFL, SOSP 2015).
 * A plain string is remembered for the store's completions' life (12 s unless the store says otherwise).
 * With `session` and `sequence` it leaves as soon as a later request of the session says that it is `done`.
 */
export type RequestId =
  | string
  | {
      /** 1 to 64 characters, new for each start of the caller. */
      readonly session: string
      /** Counts the requests of the session: a whole number from 1. */
      readonly sequence: number
      /** Every sequence below this one has been answered and will not be sent again. Default: none. */
      readonly done?: number
      /** 1 for the first sending, 2 for the first repetition, and so on. From 2 on a refusal is remembered as well. Default: 1. */
      readonly attempt?: number
    }

export interface CallOptions {
  /** Ends the wait. A write that may have been applied by then throws UNKNOWN_OUTCOME, any other call ABORTED. */
  readonly signal?: AbortSignal | undefined
  /** How long to wait for the answer, from now. Passed: UNKNOWN_OUTCOME or DEADLINE_EXCEEDED as with `signal`. Default: the store's. */
  readonly deadline?: Duration | undefined
}

export interface CreateOptions extends CallOptions {
  /** How long the entry lives. Default: for ever. */
  readonly ttl?: Duration | undefined
  readonly requestId?: RequestId | undefined
}

export interface UpdateOptions extends CallOptions {
  /** Only if the key is in this state. */
  readonly ifVersion?: Version | undefined
  /** Default: 'keep'. */
  readonly expiry?: Expiry | undefined
  readonly requestId?: RequestId | undefined
}

/** For `set` on an absent key, `keep` and `never` both mean: no expiry; `extend` means `set`. */
export type SetOptions = UpdateOptions

export interface DestroyOptions extends CallOptions {
  /** Only if the key is in this state. */
  readonly ifVersion?: Version | undefined
  readonly requestId?: RequestId | undefined
}

interface Timed {
  /** The store's clock when it decided: of a repeated request, the first time. Compare leases and expiries with this, never with your own clock. */
  readonly now: EpochMs
}
export interface Applied<V> extends Timed {
  readonly ok: true
  /** The entry as this call left it. */
  readonly entry: Entry<V>
}
/** There is an entry already; it comes along, so no second read is needed. */
export interface Exists<V> extends Timed {
  readonly ok: false
  readonly refusal: 'exists'
  readonly entry: Entry<V>
}
/** There is no entry. */
export interface Missing extends Timed {
  readonly ok: false
  readonly refusal: 'missing'
  readonly entry?: undefined
}
/** The entry is in another state than `ifVersion`; the present one comes along. */
export interface VersionDiffers<V> extends Timed {
  readonly ok: false
  readonly refusal: 'version'
  readonly entry: Entry<V>
}
export interface Destroyed<V> extends Timed {
  readonly ok: true
  /** What was there. Absent when there was nothing, when a repeated request is answered from memory, and when its value no longer fits the codec. */
  readonly entry?: Entry<V> | undefined
}

export interface GetResult<V = Uint8Array> extends Timed {
  readonly entry?: Entry<V> | undefined
}
export interface GetManyResult<V = Uint8Array> extends Timed {
  /** The keys that have an entry. */
  readonly entries: ReadonlyMap<string, Entry<V>>
}
export type CreateResult<V = Uint8Array> = Applied<V> | Exists<V>
export type UpdateResult<V = Uint8Array> = Applied<V> | Missing | VersionDiffers<V>
/** Without `ifVersion` a set always applies. */
export type SetResult<V = Uint8Array> = Applied<V> | Missing | VersionDiffers<V>
/** Without `ifVersion` a destroy always applies, also to nothing. */
export type DestroyResult<V = Uint8Array> = Destroyed<V> | Missing | VersionDiffers<V>

/**
 * A key-value store. Keys are non-empty strings without lone surrogates; their length is counted in UTF-8 bytes.
 * Any call throws KvError: INVALID_ARGUMENT, TOO_LARGE, BUSY, ABORTED, DEADLINE_EXCEEDED, UNKNOWN_OUTCOME, UNAVAILABLE, DAMAGED, CLOSED.
 */
export interface KV<V = Uint8Array> {
  readonly capabilities: Capabilities
  /** Makes the entry, if there is none. `const made = await kv.create('a', bytes, { ttl: '24h' })` */
  create(key: string, value: V, options?: CreateOptions): Promise<CreateResult<V>>
  /** Reads the entry and the store's clock. `const { entry, now } = await kv.get('a')` */
  get(key: string, options?: CallOptions): Promise<GetResult<V>>
  /** Reads several keys, each for itself: not one snapshot. `const { entries } = await kv.getMany(['a', 'b'])` */
  getMany(keys: readonly string[], options?: CallOptions): Promise<GetManyResult<V>>
  /** Changes an entry that is there. `await kv.update('a', bytes, { ifVersion: entry.version, expiry: 'keep' })` */
  update(key: string, value: V, options?: UpdateOptions): Promise<UpdateResult<V>>
  /** Makes or changes the entry. `await kv.set('a', bytes, { expiry: { set: '1h' } })` */
  set(key: string, value: V, options?: SetOptions): Promise<SetResult<V>>
  /** Removes the entry. `await kv.destroy('a', { ifVersion: entry.version })` */
  destroy(key: string, options?: DestroyOptions): Promise<DestroyResult<V>>
  /** Finishes what was begun and lets go of what the store holds. A second call waits for the first. On a scoped view it does nothing: whoever opened the store closes it. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}
