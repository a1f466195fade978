/**
 * Every fault that hapax throws: one row each. docs/errors.md is this table, and a test holds the two equal.
 * Pure. Invariant: a code and its number never change their meaning once released.
 * Why a brand and not only `instanceof`: two copies of the package in one process must know each other's errors.
 */

/** `safe`: nothing happened, send it again as you like. `same-request-id`: it may have happened; only a repetition with the same request id, or a read, tells. `never`: the same call fails again. */
export type Retry = 'safe' | 'same-request-id' | 'never'

interface Row {
  readonly id: `HPX-${number}`
  readonly message: string
  readonly hint: string
  readonly retry: Retry
}

/** 1xxx environment and disk, 2xxx the contract, 3xxx idempotency, 4xxx the other patterns. */
export const errors = {
  ENGINE_UNUSABLE: {
    id: 'HPX-1001',
    message: 'the storage engine cannot be loaded on this machine',
    hint: "install the optional packages (npm install rocksdb@npm:@nxtedition/rocksdb, or classic-level), or say engine: 'portable'",
    retry: 'never',
  },
  ENGINE_DIFFERS: {
    id: 'HPX-1002',
    message: 'the directory was written by another engine or a newer format',
    hint: 'open it with the engine that its marker file names, or move the data with snapshot and restore',
    retry: 'never',
  },
  DIRECTORY_IN_USE: {
    id: 'HPX-1003',
    message: 'another process has this directory open',
    hint: 'stop that process, or give this one a directory of its own',
    retry: 'never',
  },
  DAMAGED: {
    id: 'HPX-1004',
    message: 'a record, or a log of the store, is damaged on disk',
    hint: 'restore it from a snapshot; the store takes no damaged record for an absent key',
    retry: 'never',
  },
  STORE_FAILED: {
    id: 'HPX-1005',
    message: 'the store stopped because the disk failed',
    hint: 'look at `cause`, mend the disk, then open the store again: everything acknowledged is there',
    retry: 'same-request-id',
  },
  DISK_FULL: {
    id: 'HPX-1006',
    message: 'there is no space left on the disk',
    hint: "make space: nothing acknowledged is lost and writes go on by themselves; an error that says retry 'same-request-id' was under way and may be applied",
    retry: 'safe',
  },
  SNAPSHOT_INVALID: {
    id: 'HPX-1007',
    message: 'the snapshot file is damaged or incomplete',
    hint: 'take another snapshot; nothing of this one was used',
    retry: 'never',
  },
  MEMORY_FULL: {
    id: 'HPX-1008',
    message: 'the memory store is full',
    hint: 'raise maxBytes, give entries a ttl, or use the embedded store; nothing is evicted, because a forgotten key is a second charge',
    retry: 'safe',
  },
  KEY_MISSING: {
    id: 'HPX-1009',
    message: 'values of the cluster lie under a key that this process does not have',
    hint: 'give it the key file that the other proxies have; nothing was changed',
    retry: 'never',
  },
  RECORD_FOREIGN: {
    id: 'HPX-1101',
    message: 'what lies under this key in the shared store was not written by this release of hapax',
    hint: 'give each program a prefix of its own; what a newer release wrote is read by that release',
    retry: 'never',
  },
  INVALID_ARGUMENT: { id: 'HPX-2001', message: 'an argument is not valid', hint: 'see the message for what was expected', retry: 'never' },
  TOO_LARGE: {
    id: 'HPX-2002',
    message: 'a key, value or ttl is beyond a limit of the store',
    hint: 'see `limits` of the store',
    retry: 'never',
  },
  CAPABILITY_MISSING: {
    id: 'HPX-2003',
    message: 'the store lacks what this pattern needs',
    hint: 'use another store; `kv.capabilities` says what each can do',
    retry: 'never',
  },
  CLOSED: { id: 'HPX-2004', message: 'the store is closed', hint: 'calls after close() are refused', retry: 'never' },
  ABORTED: {
    id: 'HPX-2005',
    message: 'the signal ended the call before it had any effect',
    hint: '`cause` is the reason of the signal',
    retry: 'safe',
  },
  DEADLINE_EXCEEDED: {
    id: 'HPX-2006',
    message: 'the deadline passed before the call had any effect',
    hint: 'give it longer, or look at the load',
    retry: 'safe',
  },
  UNKNOWN_OUTCOME: {
    id: 'HPX-2007',
    message: 'the call was sent, but whether it was applied is not known',
    hint: 'repeat it with the same requestId, or read the key',
    retry: 'same-request-id',
  },
  BUSY: { id: 'HPX-2008', message: 'a queue of the store is full', hint: 'send less at once, or try again after a moment', retry: 'safe' },
  RECORD_LOCKED: {
    id: 'HPX-2009',
    message: 'the record remembers as many requests as it may',
    hint: 'say which requests are done (requestId.done), or try again after a few seconds',
    retry: 'safe',
  },
  REQUEST_ID_REUSED: {
    id: 'HPX-2010',
    message: 'this request id belongs to another request',
    hint: 'use a new request id for each new request; below the watermark `done` none may be sent again',
    retry: 'never',
  },
  ANSWER_GONE: {
    id: 'HPX-2011',
    message: 'this request was refused when it was first sent, and the entry that it met is gone',
    hint: 'read the key and decide anew with a new request id',
    retry: 'never',
  },
  UNAVAILABLE: { id: 'HPX-2012', message: 'the store cannot be reached', hint: 'look at `cause`', retry: 'safe' },
  VALUE_INVALID: {
    id: 'HPX-2013',
    message: 'a value does not fit its codec or schema',
    hint: 'see `cause` for what the schema says',
    retry: 'never',
  },
  CONTENTION: {
    id: 'HPX-2014',
    message: 'others changed the key again and again',
    hint: 'try again, or spread the load over several keys',
    retry: 'safe',
  },
  FORBIDDEN: {
    id: 'HPX-2015',
    message: 'the policy of the cluster does not allow this call to this client',
    hint: 'see the rules for the name in the certificate of the client (`policy` in the settings of the proxies)',
    retry: 'never',
  },
  BODY_UNPARSED: {
    id: 'HPX-3001',
    message: 'the request has a body that nobody parsed before the idempotency door',
    hint: 'put a body parser (express.json(), koa-bodyparser) before it: the body is part of the fingerprint',
    retry: 'never',
  },
  APPLIED_TWICE: {
    id: 'HPX-3002',
    message: 'two idempotency doors stand on one route',
    hint: 'remove one of them',
    retry: 'never',
  },
  SCOPE_MISSING: {
    id: 'HPX-3003',
    message: 'the scope of an idempotency key is missing or empty',
    hint: "return who is asking from `scope`, and put authentication before the door; say 'public' only if everybody may share answers",
    retry: 'never',
  },
  CLAIM_LOST: {
    id: 'HPX-3004',
    message: 'this run no longer owns its idempotency key',
    hint: 'stop: another run has taken over; nothing of this one is stored',
    retry: 'never',
  },
  STEP_INVALID: {
    id: 'HPX-3005',
    message: 'a step cannot be run like this',
    hint: 'give each step of a run its own name and a result that JSON can hold',
    retry: 'never',
  },
  RECORD_UNREADABLE: {
    id: 'HPX-3006',
    message: 'the stored idempotency record cannot be read by this release',
    hint: 'it was written by a newer release, or by another program under the same name',
    retry: 'never',
  },
  COUNTER_UNREADABLE: {
    id: 'HPX-4101',
    message: 'the stored count cannot be read by this release',
    hint: 'it was written by a newer release, or by another program under the same name',
    retry: 'never',
  },
  COUNTER_OVERFLOW: {
    id: 'HPX-4102',
    message: 'the count would leave the numbers that can be counted without loss',
    hint: 'nothing was added; say bigint: true for counts beyond 2^53 - 1 (then up to 255 digits), or reset the count',
    retry: 'never',
  },
  SLOT_LOST: {
    id: 'HPX-4103',
    message: 'the lease of a slot could not be renewed in time',
    hint: 'stop: another may hold the slot; see `cause` for what kept the store from renewing it',
    retry: 'never',
  },
  COST_TOO_LARGE: {
    id: 'HPX-4201',
    message: 'a cost is larger than the limit and can never be allowed',
    hint: 'raise the limit, or split the work into parts that cost less',
    retry: 'never',
  },
  LIMIT_UNREADABLE: {
    id: 'HPX-4202',
    message: 'the stored rate limit record cannot be read by this release',
    hint: 'it was written by a newer release, or by another program under the same name; `reset` forgets it',
    retry: 'never',
  },
  LIMIT_KEY_MISSING: {
    id: 'HPX-4301',
    message: 'the key of a rate limit is missing or empty',
    hint: 'return who is asking from `key`, and put authentication before the door; clientKey() goes by the address',
    retry: 'never',
  },
  LOAD_TIMEOUT: {
    id: 'HPX-4401',
    message: 'the loader of a cache did not answer within its hard deadline',
    hint: 'make the loader end when its signal fires, or raise `hard`; with maxStale the value before is served instead',
    retry: 'safe',
  },
  LOAD_INVALID: {
    id: 'HPX-4402',
    message: 'the loader of a cache gave an answer that it must not give',
    hint: '`unchanged` needs a previous value, and loadMany answers with one result or Error for each key',
    retry: 'never',
  },
  CACHE_UNREADABLE: {
    id: 'HPX-4403',
    message: 'the generations of a cache cannot be read by this release',
    hint: 'a newer release wrote them; invalidate by tag and clear there, single keys can be invalidated by both',
    retry: 'never',
  },
} as const satisfies Record<string, Row>

export type KvErrorCode = keyof typeof errors

const kvErrorBrand = Symbol.for('hapax.KvError')

export interface KvErrorOptions {
  /** What happened here, as a sentence without a full stop. Default: the row's. */
  readonly message?: string
  /** Default: the row's. */
  readonly hint?: string
  readonly retry?: Retry
  readonly cause?: unknown
}

export class KvError extends Error {
  override readonly name = 'KvError'
  readonly code: KvErrorCode
  /** `HPX-nnnn`, for documents and the command line. */
  readonly id: string
  /** What to do about it. */
  readonly hint: string
  readonly retry: Retry

  constructor(code: KvErrorCode, options: KvErrorOptions = {}) {
    const row: Row = errors[code]
    super(`${row.id} ${options.message ?? row.message}`, 'cause' in options ? { cause: options.cause } : undefined)
    this.code = code
    this.id = row.id
    this.hint = options.hint ?? row.hint
    this.retry = options.retry ?? row.retry
    Object.defineProperty(this, kvErrorBrand, { value: true })
  }

  /** `error instanceof KvError` holds for the KvErrors of every copy of hapax in the process. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return this === KvError ? isKvError(value) : Function.prototype[Symbol.hasInstance].call(this, value)
  }
}

/** Tells a KvError of any copy of hapax, optionally of one code: `isKvError(error, 'UNKNOWN_OUTCOME')`. */
export function isKvError(value: unknown, code?: KvErrorCode): value is KvError {
  return (
    typeof value === 'object' &&
    value !== null &&
    kvErrorBrand in value &&
    (code === undefined || (value as unknown as KvError).code === code)
  )
}

/** Throws INVALID_ARGUMENT: what was given, and what was expected. */
export function invalid(message: string, hint?: string): never {
  throw new KvError('INVALID_ARGUMENT', hint === undefined ? { message } : { message, hint })
}
