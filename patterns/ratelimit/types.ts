/**
 * The words of rate limits: what a caller gives, what a decision says, and what may be done with it later.
 * Invariant: a decision is a value, a refusal and an unknown one included; only faults (a wrong cost, a caller that gave up) are thrown.
 * Why three outcomes: a store that is away has neither allowed nor denied. What then happens is the user's choice, `onUnknown`, never a default.
 */
import type { Duration } from '../../core/base/types.ts'
import type { CallOptions, KV } from '../../core/kv/kv.ts'

export type PolicyKind = 'gcra' | 'token-bucket' | 'sliding-window' | 'fixed-window' | 'concurrency'

/** What is counted. The draft of the RateLimit headers registers the first three; any other is a token of one's own. */
export type QuotaUnit = 'requests' | 'content-bytes' | 'concurrent-requests' | (string & {})

/** One limit, as data. Made by `gcra`, `tokenBucket`, `slidingWindow`, `fixedWindow` and `concurrency`. */
export interface Policy {
  readonly kind: PolicyKind
  /** The most that can be used at once: the burst of `gcra`, the capacity of a bucket, the quota of a window, the slots. */
  readonly limit: number
  readonly unit: QuotaUnit
  /** In which `limit` comes back. Absent: slots come back when they are released. */
  readonly windowMs?: number | undefined
  /** Of a token bucket: how many come back in `perMs`. Of gcra: how many are allowed in `perMs`. */
  readonly refill?: number | undefined
  /** In milliseconds; of slots: how long a lease lasts. */
  readonly perMs: number
}

/** How one policy stands. */
export interface PolicyState {
  readonly limit: number
  /** A whole number, never negative. Of an unknown decision 0, because nothing is known. */
  readonly remaining: number
  /** Milliseconds until there is more than `remaining`; 0 when nothing is used. Absent: not known, as of slots. */
  readonly resetMs?: number | undefined
  readonly windowMs?: number | undefined
  readonly unit: QuotaUnit
  /** This policy is a reason why the request was denied. */
  readonly violated: boolean
}

/**
 * Why a decision is not the store's. `deadline`: it did not answer in time. `contention`: others changed the key again and again (R10).
 * `store`: it failed, is full, or failed so often just now that it was not asked (R12). `unreadable`: the record is of a newer release.
 */
export type UnknownReason = 'deadline' | 'contention' | 'store' | 'unreadable'

/** What a charge can be given back by. Plain data: it may travel as JSON to another process. Use it once. */
export interface Receipt {
  readonly key: string
  readonly cost: number
  /** Which life of the record was charged. */
  readonly life: number
  /** For each policy two numbers, which tell it and the window that was charged (R7). */
  readonly marks: readonly number[]
}

export interface Decision<Name extends string = string> {
  readonly outcome: 'allowed' | 'denied' | 'unknown'
  /** Whether to go on: as `outcome` says, and for `unknown` as `onUnknown` says. */
  readonly allowed: boolean
  readonly policies: Readonly<Record<Name, PolicyState>>
  /** The policies that denied. */
  readonly violated: readonly Name[]
  /** Of `denied`: in how many milliseconds this very cost fits, if nobody else comes (R5). Absent: not known, as of slots. */
  readonly retryAfterMs?: number | undefined
  /** Of `unknown`, and of a decision of the local fallback: why the store did not decide. */
  readonly reason?: UnknownReason | undefined
  /** Of a charge that the store took. */
  readonly receipt?: Receipt | undefined
  /** Decided in this process: by what the store said a moment ago (only `denied`), or by the local fallback (then with a `reason`). */
  readonly local?: boolean | undefined
  /** What the store said when the outcome is unknown. */
  readonly cause?: unknown
}

export interface Reservation<Name extends string = string> extends Decision<Name> {
  /** Of `allowed`: wait so long, then go. The cost is charged for that instant already. */
  readonly waitMs?: number | undefined
}

/** A slot of a concurrency policy, held until it is released. It is renewed at a third of its lease. */
export interface Slot {
  /** Fires when the slot is lost, or may be: its lease ended without a renewal that was heard. */
  readonly signal: AbortSignal
  /** Gives the slot back; more calls do nothing. Never throws: what cannot be given back now comes back when its lease ends. */
  release(): Promise<Settlement>
  [Symbol.asyncDispose](): Promise<void>
}

export interface Acquired<Name extends string = string> extends Decision<Name> {
  /** Of `allowed`, when the limiter has a concurrency policy and the store decided. */
  readonly slot?: Slot | undefined
}

/** What became of a refund, a settlement or a release. `void`: there was nothing to change, because what was charged is over. `unknown`: perhaps. */
export interface Settlement {
  readonly outcome: 'applied' | 'void' | 'unknown'
  readonly reason?: UnknownReason | undefined
  readonly cause?: unknown
}

export interface ConsumeOptions {
  /** A whole number from 0; 0 charges nothing and asks only. Default: 1. */
  readonly cost?: number | undefined
  /** Ends the wait. @throws KvError ABORTED, or UNKNOWN_OUTCOME when the charge may have been made. */
  readonly signal?: AbortSignal | undefined
}

export interface ReserveOptions extends ConsumeOptions {
  /** The longest wait that makes sense. A longer one is denied and charges nothing. */
  readonly maxWait: Duration
}

/** Timers as the limiter uses them: `globalThis`, or a test clock. */
export interface Timers {
  setTimeout(run: () => void, ms: number): unknown
  clearTimeout(timer: never): void
  /** Milliseconds on a clock that never steps. Default: performance.now. */
  elapsed?(): number
}

interface CommonOptions<Name extends string> {
  readonly kv: KV
  /** Names this use of the store. 1 to 48 letters, digits, `.`, `_` or `-`. */
  readonly name: string
  /** All or nothing: a request is charged to each of them or to none (R6). 1 to 8. A policy keeps its state by its name. */
  readonly policies: Readonly<Record<Name, Policy>>
  /** How long a decision may take. Default: '50ms'. */
  readonly deadline?: Duration | undefined
  /** Charges refused requests too, so that who goes on asking waits longer, up to one `limit` more. Default: false (R3). */
  readonly countRefused?: boolean | undefined
  /** How long a denial may be repeated from memory without asking the store; it never outlasts its exact instant. 0: never. Default: '1s'. */
  readonly denyCache?: Duration | undefined
  /** Default: the machine's. A test clock fits. */
  readonly timers?: Timers | undefined
}

/**
 * What happens while the store does not decide. There is no default: `allow` for public reads, `deny` for logins and payments, `local` for
 * a limiter in this process whose limits are divided by `instances`.
 */
export type OnUnknown = 'allow' | 'deny' | 'local'
export type Failing =
  | { readonly onUnknown: 'allow' | 'deny'; readonly instances?: undefined }
  | {
      readonly onUnknown: 'local'
      /** Processes that share the limits: each one allows its part of them. A whole number from 1. */
      readonly instances: number
    }

export type RateLimitOptions<Name extends string> = CommonOptions<Name> & Failing

export interface RateLimit<Name extends string = string> {
  readonly name: string
  readonly onUnknown: OnUnknown
  /** For `RateLimit-Policy`. */
  readonly policies: Readonly<Record<Name, Policy>>
  /** One of the policies is `concurrency`: then `acquire` takes the place of `consume` and `reserve`. */
  readonly hasSlots: boolean
  /**
   * Charges `cost` to all policies, or to none.
   * @throws KvError INVALID_ARGUMENT; COST_TOO_LARGE: it can never fit (R4); ABORTED and UNKNOWN_OUTCOME by `signal`; CLOSED.
   */
  consume(key: string, options?: ConsumeOptions): Promise<Decision<Name>>
  /** What `consume` would say. Charges nothing. @throws as `consume`. */
  peek(key: string, options?: ConsumeOptions): Promise<Decision<Name>>
  /** Gives back `cost`, or all that is left of a charge. What another window was charged is not given back to this one. @throws KvError INVALID_ARGUMENT. */
  refund(receipt: Receipt | undefined, cost?: number, options?: CallOptions): Promise<Settlement>
  /** Charges now for an instant to come, at most `maxWait` away. @throws as `consume`. */
  reserve(key: string, options: ReserveOptions): Promise<Reservation<Name>>
  /**
   * Replaces the cost that was estimated by the one that it was. What was too much is given back, what was too little is charged
   * in any case, up to one `limit` of debt. @throws KvError INVALID_ARGUMENT.
   */
  settle(receipt: Receipt | undefined, actualCost: number, options?: CallOptions): Promise<Settlement>
  /** As `consume`, and takes one slot of each concurrency policy until it is released. @throws as `consume`. */
  acquire(key: string, options?: ConsumeOptions): Promise<Acquired<Name>>
  /** Forgets all that a key has used, slots included. @throws KvError of the store. */
  reset(key: string, options?: CallOptions): Promise<void>
}
