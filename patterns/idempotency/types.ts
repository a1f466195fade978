/**
 * The words of idempotency: what a caller gives, what a claim is, and what may come of it.
 * Invariant: every expected outcome is a value here; only faults (a store that lies, a mistake in the program) are thrown.
 * Why answers are a `head` and a `body`: the engine knows no HTTP; a door puts status and headers into the head, a function nothing.
 */
import type { Brand, Duration, EpochMs } from '../../core/base/types.ts'
import type { Json } from '../../core/base/json.ts'
import type { KV, Version } from '../../core/kv/kv.ts'

/** The hash of a request, to tell a repetition from a mistake. Made by `fingerprintOf`; compare for equality only. */
export type Fingerprint = Brand<string, 'Fingerprint'>

/** What a first request was answered with, and what its repetitions get. */
export interface Answer {
  /** Anything JSON can hold that the door needs beside the body: status and headers. */
  readonly head: Json
  readonly body: Uint8Array
}

/**
 * Why a request does not run. HTTP doors say 409, 422, 409, 409 and 503.
 * `in-flight`: the first one still runs. `mismatch`: another request came under this key before. `outcome-unknown`: the first one began
 * and never said how it ended. `unstored`: it was answered, but its answer was too large, streamed, or not JSON. `store-unavailable`.
 */
export type Refusal = 'in-flight' | 'mismatch' | 'outcome-unknown' | 'unstored' | 'store-unavailable'

/** Why an answer was not stored. */
export type UnstoredReason = 'too-large' | 'streamed' | 'not-json'

/** How a run ended, for a policy of finality. */
export type Ending =
  /** An HTTP door's answer: the status that leaves. */
  | { readonly type: 'answered'; readonly status: number; readonly stepBegun: boolean }
  /** A function's result. */
  | { readonly type: 'returned'; readonly value: unknown; readonly stepBegun: boolean }
  /** A function's error. It cannot be replayed: final means that the key is kept and never runs again by itself. */
  | { readonly type: 'threw'; readonly error: unknown; readonly stepBegun: boolean }

/**
 * What is final, that is: kept, and never run again.
 * `stripe`: whatever came after the handler began, a 500 and a thrown error included. `draft`: answers below 500.
 * `success-only`: answers below 400. Under the last two a thrown error is final when a step had begun. Or a function of one's own.
 */
export type Finality = 'stripe' | 'draft' | 'success-only' | ((ending: Ending) => boolean)

/** Timers as the engine uses them: `globalThis`, or a test clock. */
export interface Timers {
  setTimeout(run: () => void, ms: number): unknown
  clearTimeout(timer: never): void
  /** Milliseconds on a clock that never steps. Default: performance.now. */
  elapsed?(): number
}

export interface IdempotencyOptions {
  readonly kv: KV
  /** Names this use of the store: part of each key's identity. 1 to 64 characters. */
  readonly name: string
  /** How long a record is kept after its last change. At least three leases. Default: '24h'. */
  readonly retention?: Duration | undefined
  /** How long a claim holds without being renewed; it is renewed at a third. At least 100 ms. Default: '30s'. */
  readonly lease?: Duration | undefined
  /** What is kept and never run again. Default: 'stripe'. */
  readonly final?: Finality | undefined
  /** A claim whose lease ended without an answer: `refuse` to run again until a person has looked, or `resume` with the finished steps. Default: 'refuse'. */
  readonly afterCrash?: 'refuse' | 'resume' | undefined
  /** How long a repetition waits for the first one's answer before it is refused as `in-flight`. Default: 0. */
  readonly wait?: Duration | undefined
  /** How long the store may take, retries included, before a request is refused as `store-unavailable`. Default: '2s'. */
  readonly storeDeadline?: Duration | undefined
  /** `allow` runs the handler without protection while the store is away: two charges are possible. Default: 'reject'. */
  readonly onStoreError?: 'reject' | 'allow' | undefined
  /** Bytes of a record, its answer included; a larger answer is kept as `unstored`. Default: 262,144, or what the store takes. */
  readonly recordBytesMax?: number | undefined
  /** Default: the machine's. A test clock fits. */
  readonly timers?: Timers | undefined
  /** In [0, 1), for jitter. Default: Math.random. */
  readonly random?: (() => number) | undefined
}

/** Names one idempotency key. */
export interface KeyRef {
  /** Who asks: a tenant or principal that the server itself knows. Never empty; 'public' shares answers with everybody. */
  readonly scope: string
  /** The client's key: 1 to 255 characters. */
  readonly key: string
  /** What is asked for: 'POST /payments' at HTTP doors, which make it of method and path unless they are given one. Default: ''. */
  readonly operation?: string | undefined
}

export interface RunRequest extends KeyRef {
  /** What the function works on: part of the fingerprint. Anything JSON can hold, or bytes. */
  readonly input?: unknown
  /** Ends the waiting, and reaches the handler as `once.signal`. */
  readonly signal?: AbortSignal | undefined
}

/** What a step is given. */
export interface Step {
  /** For the service downstream: 43 characters, the same in each attempt, different per step. */
  readonly key: string
  readonly signal: AbortSignal
}

/** What a handler is given. */
export interface Once {
  readonly scope: string
  /** The client's key. */
  readonly key: string
  readonly operation: string
  /** Which attempt this is, from 1. A higher one outdates a lower one. 0: not protected (`onStoreError: 'allow'`). */
  readonly fence: number
  /** Fires with CLAIM_LOST when the claim is lost, or may be: stop, another run may take over. */
  readonly signal: AbortSignal
  /** False once the claim is lost or may be. */
  readonly owned: boolean
  /**
   * Runs `fn` and keeps its result in the record; in a later attempt the result comes from the record and `fn` is not called.
   * The result is what JSON makes of it, in the first attempt too.
   * @throws KvError STEP_INVALID: name empty, too long or in use, too many steps, a result that JSON or the record cannot hold; CLAIM_LOST.
   */
  step<T>(name: string, fn: (step: Step) => T | Promise<T>): Promise<T>
  /** Says that nothing has happened that must not happen again: whatever is answered now is not kept, and the key may run again. */
  release(): void
}

/** What became of an answer. */
export type Saved =
  | { readonly type: 'saved' }
  /** Not final, so not kept: the key may run again. */
  | { readonly type: 'released' }
  /** The store did not take it in time; trying goes on until the lease ends. Answer the client all the same (T4). */
  | { readonly type: 'unsaved'; readonly cause: unknown }
  /** Another run took over: this answer is dropped; the client gets what is there instead. */
  | { readonly type: 'overtaken'; readonly by: Replay | Refused }

/** The right to run, and what to do at the end: exactly one of `complete`, `unstored`, `failed`, `release`. All of them may be awaited and none throws. */
export interface Run {
  readonly type: 'run'
  readonly once: Once
  /** Stores the answer if it is final, else releases. Too large for the record: kept as unstored. Await it before the answer leaves. */
  complete(answer: Answer, ending: { readonly status: number } | { readonly value: unknown }): Promise<Saved>
  /** Remembers that it was answered, without the answer. Await it before the first byte leaves. */
  unstored(head: Json, reason: UnstoredReason): Promise<Saved>
  /** The handler threw, and nobody made an answer of it. Final: kept for a person (`refuse`) or the next attempt (`resume`). */
  failed(error: unknown): Promise<Saved>
  /** Gives the claim back: the key may run again at once. */
  release(): Promise<Saved>
  /**
   * Nobody waits for the answer any more, so perhaps nobody will ever end this run: the lease is renewed for ten more leases and then ends,
   * and `once.signal` fires. Until then, and after it unless another run took over, an answer is stored as ever.
   */
  abandon(): void
}

export interface Replay {
  readonly type: 'replay'
  readonly answer: Answer
  /** Which attempt made it. */
  readonly attempt: number
}

export interface Refused {
  readonly type: 'refused'
  readonly refusal: Refusal
  /** When asking again makes sense, in milliseconds; absent: not by itself. */
  readonly retryAfterMs?: number | undefined
  /** Of `unstored`: what is kept of the answer. */
  readonly head?: Json | undefined
  readonly reason?: UnstoredReason | undefined
  /** Of `store-unavailable`: what the store said. */
  readonly cause?: unknown
}

export type Claim = Run | Replay | Refused

export interface ClaimRequest extends KeyRef {
  readonly fingerprint: Fingerprint
  readonly signal?: AbortSignal | undefined
}

export type RunResult<T> =
  | {
      readonly ok: true
      readonly value: T
      /** True: the handler did not run for this call, or another run's answer stands. */
      readonly replayed: boolean
      /** False: not kept, because it is not final, the store has not taken it yet, or the run was not protected. */
      readonly saved: boolean
    }
  | {
      readonly ok: false
      readonly refusal: Refusal
      readonly retryAfterMs?: number | undefined
      readonly cause?: unknown
    }

export type State = 'absent' | 'claimed' | 'completed' | 'unstored' | 'unknown' | 'released'

export interface StepRecord {
  readonly name: string
  /** Its result as JSON text; '' is undefined. Absent once the run has completed. */
  readonly result?: string | undefined
}

/** What the person on call sees. */
export type Inspection =
  | { readonly state: 'absent'; readonly now: EpochMs }
  | {
      readonly state: Exclude<State, 'absent'>
      readonly version: Version
      readonly attempt: number
      readonly createdAt: EpochMs
      readonly expiresAt?: EpochMs | undefined
      /** Of a claim: when its lease ends, on the store's clock. */
      readonly leaseEndsAt?: EpochMs | undefined
      readonly steps: readonly StepRecord[]
      /** What is kept beside the body of an answer. */
      readonly head?: Json | undefined
      readonly bodyBytes?: number | undefined
      readonly now: EpochMs
    }

export interface ReleaseRequest extends KeyRef {
  /** From `inspect`: what the person has seen is what is released. */
  readonly version: Version
  /** For the audit event. */
  readonly actor?: string | undefined
  readonly reason?: string | undefined
}

export type ReleaseResult =
  | { readonly ok: true }
  /** `in-flight`: its lease has not ended; releasing it would run it twice. */
  | { readonly ok: false; readonly refusal: 'missing' | 'version' | 'in-flight'; readonly retryAfterMs?: number | undefined }

export interface Idempotency {
  readonly name: string
  /** Bytes of an answer above which it cannot be stored: a door need not keep more. */
  readonly answerBytesMax: number
  /** Runs `handler` once for this key; a repetition gets the first result. @throws KvError of faults, and whatever the handler throws. */
  run<T>(request: RunRequest, handler: (once: Once) => T | Promise<T>): Promise<RunResult<T>>
  /** For doors: claims the key, or says what there is instead. @throws KvError SCOPE_MISSING, INVALID_ARGUMENT, RECORD_UNREADABLE, DAMAGED, ABORTED. */
  claim(request: ClaimRequest): Promise<Claim>
  /** For the person on call. @throws KvError of the store, RECORD_UNREADABLE. */
  inspect(key: KeyRef): Promise<Inspection>
  /** Forgets a key, so that it may run again: by version, never under a live lease, with an audit event. @throws KvError of the store. */
  release(request: ReleaseRequest): Promise<ReleaseResult>
}
