/**
 * The words of counters: what a caller gives, and what may come of it.
 * Invariant: a refusal that a caller can expect is a value here; only faults are thrown.
 * Why an epoch in every result: "5" before a reset and "5" after it are two different counts, and who gives back what it took must know which.
 */
import type { Duration, EpochMs } from '../../core/base/types.ts'
import type { CallOptions, KV } from '../../core/kv/kv.ts'
import type { modify } from '../../core/kv/modify.ts'

/** Timers as a gauge uses them: `globalThis`, or a test clock. */
export interface Timers {
  setTimeout(run: () => void, ms: number): unknown
  clearTimeout(timer: never): void
  /** Milliseconds on a clock that never steps. Default: performance.now. */
  elapsed?(): number
}

interface Common {
  readonly kv: KV
  /** Names this use of the store: part of each key. No colons; at most the store's `namespaceBytesMax`. */
  readonly name: string
  /** How a record is read and written. Default: `modify` of 'hapax'. A test that plays several processes gives each its own. */
  readonly modify?: typeof modify | undefined
}

interface Memory {
  /** How long a request id is remembered, on the store's clock; of a session: after its last request. Default: '10m'. */
  readonly remember?: Duration | undefined
  /**
   * Request ids, sessions and their requests that one record remembers at once, and 64 bytes for each; beyond, an add with a request id
   * throws RECORD_LOCKED, because one that is forgotten too early is counted twice. 1 to 16,384. Default: 1,024.
   */
  readonly requestsMax?: number | undefined
}

export interface CounterOptions<N extends number | bigint = number> extends Common, Memory {
  /** The count never gets below this by an add. Default: no bound. */
  readonly min?: N | undefined
  /** The count never gets above this by an add. Default: no bound. */
  readonly max?: N | undefined
  /** What a count begins with, and begins with again after a reset or its end. Default: 0. */
  readonly start?: N | undefined
  /** How long a count lasts; then the next one begins at `start`. Default: for ever. */
  readonly ttl?: Duration | undefined
  /** `keep`: a count ends `ttl` after it began. `slide`: `ttl` after it last changed. Default: 'keep'. */
  readonly expiry?: 'keep' | 'slide' | undefined
  /** Counts in bigints, up to 255 digits. Default: false, and an add beyond 2^53 - 1 throws COUNTER_OVERFLOW. */
  readonly bigint?: N extends bigint ? true : false | undefined
}

/**
 * A request by its number in a session. A record keeps of a session only what is not done, so a key takes any number of them a second.
 * For a log that is read in order: its partition, an entry's number, and the first that is not committed. For a process: `requestSession`.
 */
export interface SessionRequest {
  /** 1 to 64 printable ASCII characters; new for each start of who counts, unless its numbers go on. */
  readonly session: string
  /** A whole number from 1: of this request and no other of the session. */
  readonly sequence: number
  /** Every sequence below this one has been answered and will not be sent again. 0: none. */
  readonly done: number
}

export interface RequestSession {
  /**
   * Runs `call` with a request of its own. Until it ends, `call` may send that request again as often as it likes; then the session is done with it.
   * A call that goes on for long keeps the records from forgetting all younger ones of the session.
   */
  run<T>(call: (requestId: SessionRequest) => Promise<T>): Promise<T>
}

export interface AddOptions extends CallOptions {
  /**
   * Names this request: a text of 1 to 128 bytes in UTF-8, or its place in a session. Sent again within `remember`, it gets its first
   * answer and counts nothing. One that its session was done with throws REQUEST_ID_REUSED.
   */
  readonly requestId?: string | SessionRequest | undefined
}

export interface CountOptions extends AddOptions {
  /** Only if the count is still this one: `epoch` of an earlier result. For giving back what was taken. 0: only if none has begun. */
  readonly ifEpoch?: number | undefined
}

export interface ResetOptions extends CallOptions {
  /** Only if the count is still this one. With it, a reset may be sent again safely. */
  readonly ifEpoch?: number | undefined
}

export interface Added<N extends number | bigint = number> {
  readonly ok: true
  /** The count as this call left it. */
  readonly value: N
  /** Which count it is: rises with each reset and each end; the store's clock when it began. */
  readonly epoch: number
  /** The request was here before; `value` and `epoch` are those of its first answer. */
  readonly repeated: boolean
}

export interface CountRefused<N extends number | bigint = number> {
  readonly ok: false
  /** `bound`: it would cross `min` or `max`. `epoch`: `ifEpoch` names another count. Nothing was written. */
  readonly refusal: 'bound' | 'epoch'
  /** The count as it stands. */
  readonly value: N
  /** 0: none has begun. */
  readonly epoch: number
}
export type AddResult<N extends number | bigint = number> = Added<N> | CountRefused<N>

export type ResetResult<N extends number | bigint = number> =
  | {
      readonly ok: true
      readonly value: N
      readonly epoch: number
      /** What the count that was ended had come to. */
      readonly previous: N
    }
  | { readonly ok: false; readonly refusal: 'epoch'; readonly value: N; readonly epoch: number }

export interface Count<N extends number | bigint = number> {
  readonly value: N
  /** 0: none has begun. */
  readonly epoch: number
  /** When it ends, on the store's clock; absent: never, or none has begun. */
  readonly endsAt?: EpochMs | undefined
  /** The store's clock. */
  readonly now: EpochMs
}

/**
 * Any call throws KvError as the store and `modify` do; a write whose outcome is not known UNKNOWN_OUTCOME: repeat it with the same
 * `requestId`. Further RECORD_LOCKED, REQUEST_ID_REUSED, COUNTER_OVERFLOW, COUNTER_UNREADABLE.
 */
export interface Counter<N extends number | bigint = number> {
  readonly name: string
  /** Adds a whole number that is not 0. */
  add(key: string, delta: N, options?: CountOptions): Promise<AddResult<N>>
  /**
   * Sets the count to what `change` makes of it. `change` must be pure: it runs again when another process was faster (`attempt` counts).
   * `min` and `max` hold as for `add`.
   */
  update(
    key: string,
    change: (value: N, context: { readonly attempt: number; readonly now: EpochMs; readonly epoch: number }) => N,
    options?: CountOptions,
  ): Promise<AddResult<N>>
  get(key: string, options?: CallOptions): Promise<Count<N>>
  /** Ends the count and begins the next at `start`. An add that comes at the same time counts wholly before it or wholly after it; its `epoch` says which. */
  reset(key: string, options?: ResetOptions): Promise<ResetResult<N>>
}

export interface WindowedOptions extends Common, Memory {
  /** The length of time that is counted: what happened in the last `window`. */
  readonly window: Duration
  /** Sub-windows of the ring, 1 to 1,000; `window` must be a whole number of milliseconds times this. More: finer and larger. Default: 10. */
  readonly parts?: number | undefined
}

export interface WindowCount {
  /** What was counted from `since` to now: all of the last `window`, and at most one sub-window more. */
  readonly value: number
  /** What was counted surely within the last `window`: `value` without the oldest sub-window. The exact number lies between the two. */
  readonly atLeast: number
  /** On the store's clock. */
  readonly since: EpochMs
  readonly now: EpochMs
}

/** Throws as a counter does. */
export interface Windowed {
  readonly name: string
  /** Counts events: a whole number from 1. `value` of the result is what `get` would have said. */
  add(key: string, delta: number, options?: AddOptions): Promise<{ readonly ok: true; readonly value: number; readonly repeated: boolean }>
  get(key: string, options?: CallOptions): Promise<WindowCount>
}

export interface ShardedOptions extends Common, Memory {
  /**
   * Records that share the load of one key, 1 to 256. May be raised later, not lowered: what lies in the others would be lost from the sum.
   * Raise it when no request is repeated: one that then falls to another shard would count twice.
   */
  readonly shards: number
  /** In [0, 1): which shard this process begins with. Default: Math.random. */
  readonly random?: (() => number) | undefined
}

/** The sum of shards that were read one after the other: no number that the count ever had, if others add meanwhile. Never decide a limit by it. */
export interface ShardedCount {
  readonly value: number
  readonly exact: false
  readonly now: EpochMs
}

/** Throws as a counter does. Every add counts exactly once; it is the reading that is not exact. */
export interface Sharded {
  readonly name: string
  /** Adds a whole number that is not 0. Says no total, because it knows none. */
  add(key: string, delta: number, options?: AddOptions): Promise<{ readonly ok: true; readonly exact: false; readonly repeated: boolean }>
  get(key: string, options?: CallOptions): Promise<ShardedCount>
}

export interface GaugeOptions extends Common {
  /** Slots of a key that may be held at once, 1 to 1,000. Default: 1,000. */
  readonly max?: number | undefined
  /** How long a slot is held without being renewed; it is renewed at a third. What a dead process holds comes back after this. At least 100 ms. */
  readonly lease: Duration
  /** Default: the machine's. A test clock fits. */
  readonly timers?: Timers | undefined
}

export interface Slot extends AsyncDisposable {
  readonly ok: true
  readonly key: string
  /** Slots held when this one was acquired, itself included. */
  readonly inUse: number
  /** False once it was released, is lost, or may be. */
  readonly held: boolean
  /** Fires with SLOT_LOST when the lease could not be renewed in time: stop, another may hold the slot. */
  readonly signal: AbortSignal
  /** Gives the slot back. Never throws: what the store does not take comes back with the lease. A second call does nothing. */
  release(): Promise<void>
}

/** All slots are held. It can be disposed of like a slot, so `await using` fits both. */
export interface NoSlot extends AsyncDisposable {
  readonly ok: false
  readonly refusal: 'full'
  readonly inUse: number
  /** When the first lease ends if its holder is dead. A living one may release sooner, or hold on. */
  readonly retryAfterMs: number
}

export interface Gauge {
  readonly name: string
  /** Takes a slot. Throws as the store and `modify` do; after UNKNOWN_OUTCOME a slot that was taken comes back with its lease. */
  acquire(key: string, options?: CallOptions): Promise<Slot | NoSlot>
  get(key: string, options?: CallOptions): Promise<{ readonly inUse: number; readonly max: number; readonly now: EpochMs }>
}
