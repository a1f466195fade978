/**
 * The five verbs over anything that can apply an operation: checks what the caller gave, names the request, and turns outcomes into
 * results or KvErrors. The memory store and the embedded store are both built on it, so they refuse the same things in the same words.
 * Invariant: nothing reaches a backend that its limits do not allow.
 */
import type { Duration, EpochMs, Millis } from '../base/types.ts'
import { invalid, KvError } from '../kv/errors.ts'
import { expiryChange, neverExpires, type ExpiryChange } from '../kv/expiry.ts'
import { newId } from '../kv/id.ts'
import type { CallOptions, Entry, Expiry, KV, RequestId, Version } from '../kv/kv.ts'
import { checkDuration, checkKey, checkKeys, checkTtl, checkValue, type Capabilities } from '../kv/limits.ts'
import type { KvOperation, Outcome, Request } from '../record/operation.ts'

/** How long a caller waits. */
export interface Wait {
  readonly signal: AbortSignal | undefined
  /** Milliseconds from now; undefined: the backend's default. */
  readonly deadlineMs: Millis | undefined
}

export interface Answer {
  readonly outcome: Outcome
  readonly now: EpochMs
}

/** What a store must do itself. Any of these may answer at once or later; all throw KvErrors only. */
export interface Backend {
  readonly capabilities: Capabilities
  /** Applies the operation and answers once the outcome is as durable as the store promises. */
  apply(key: string, operation: KvOperation, wait: Wait): Answer | Promise<Answer>
  /** The live entries of the keys, in their order, and the store's clock. */
  read(keys: readonly string[], wait: Wait): Reading | Promise<Reading>
  close(): Promise<void>
}

export interface Reading {
  readonly entries: readonly (Entry | undefined)[]
  readonly now: EpochMs
}

/** Makes a KV of a backend. */
export function kvOver(backend: Backend): KV {
  const { limits } = backend.capabilities
  let closing: Promise<void> | undefined

  // Not async, and awaited once by each verb: every promise more is a tenth of what a write costs here.
  const applyOn = (
    key: string,
    make: (request: Request) => KvOperation,
    options: CallOptions & { readonly requestId?: RequestId | undefined },
  ): Answer | Promise<Answer> => {
    if (closing) throw new KvError('CLOSED')
    return backend.apply(key, make(requestOf(options.requestId)), waitOf(options))
  }
  const write = async (
    verb: 'update' | 'set',
    key: string,
    value: Uint8Array,
    options: CallOptions & { ifVersion?: Version | undefined; expiry?: Expiry | undefined; requestId?: RequestId | undefined },
  ) => {
    checkKey(key, limits)
    checkValue(value, limits)
    const expiry = expiryChange(options.expiry, limits)
    const ifVersion = ifVersionOf(options.ifVersion)
    const { outcome, now } = await applyOn(key, (request) => ({ verb, request, value, expiry, ifVersion }), options)
    if (outcome.type === 'fault') throw new KvError(outcome.code)
    return resultOf(outcome, now)
  }

  return {
    capabilities: backend.capabilities,
    async create(key, value, options = {}) {
      checkKey(key, limits)
      checkValue(value, limits)
      const expiry: ExpiryChange = options.ttl === undefined ? neverExpires : { type: 'set', ttlMs: checkTtl(options.ttl, limits) }
      const { outcome, now } = await applyOn(key, (request) => ({ verb: 'create', request, value, expiry }), options)
      if (outcome.type === 'fault') throw new KvError(outcome.code)
      if (outcome.type === 'exists') return { ok: false, refusal: 'exists', entry: outcome.entry, now }
      return { ok: true, entry: entryIn(outcome), now }
    },
    async get(key, options = {}) {
      checkKey(key, limits)
      if (closing) throw new KvError('CLOSED')
      const { entries, now } = await backend.read([key], waitOf(options))
      const entry = entries[0]
      return entry ? { entry, now } : { now }
    },
    async getMany(keys, options = {}) {
      checkKeys(keys, limits)
      if (closing) throw new KvError('CLOSED')
      const { entries, now } = await backend.read(keys, waitOf(options))
      const found = new Map<string, Entry>()
      for (const [index, key] of keys.entries()) {
        const entry = entries[index]
        if (entry) found.set(key, entry)
      }
      return { entries: found, now }
    },
    update: (key, value, options = {}) => write('update', key, value, options),
    set: (key, value, options = {}) => write('set', key, value, options),
    async destroy(key, options = {}) {
      checkKey(key, limits)
      const ifVersion = ifVersionOf(options.ifVersion)
      const { outcome, now } = await applyOn(key, (request) => ({ verb: 'destroy', request, ifVersion }), options)
      if (outcome.type === 'fault') throw new KvError(outcome.code)
      if (outcome.type !== 'applied') return refusalOf(outcome, now)
      return outcome.entry ? { ok: true, entry: outcome.entry, now } : { ok: true, now }
    },
    close() {
      closing ??= backend.close()
      return closing
    },
    [Symbol.asyncDispose]() {
      return this.close()
    },
  }
}

function resultOf(outcome: Outcome, now: EpochMs) {
  return outcome.type === 'applied' ? ({ ok: true, entry: entryIn(outcome), now } as const) : refusalOf(outcome, now)
}

function refusalOf(outcome: Outcome, now: EpochMs) {
  if (outcome.type === 'missing') return { ok: false, refusal: 'missing', now } as const
  if (outcome.type === 'version') return { ok: false, refusal: 'version', entry: outcome.entry, now } as const
  return strange(`the store answered '${outcome.type}', which this verb cannot mean`)
}

function entryIn(outcome: Outcome): Entry {
  if (outcome.type !== 'applied' || !outcome.entry) return strange('the store applied a write but gave no entry')
  return outcome.entry
}

/** Whatever it was that the store did, it may have been the write. */
const strange = (message: string): never => {
  throw new KvError('UNAVAILABLE', { message, retry: 'same-request-id' })
}

function waitOf({ signal, deadline }: CallOptions): Wait {
  if (signal?.aborted) throw new KvError('ABORTED', { cause: signal.reason })
  return { signal, deadlineMs: deadline === undefined ? undefined : deadlineOf(deadline) }
}
const deadlineOf = (deadline: Duration): Millis => checkDuration(deadline, 'a deadline', 1)

function ifVersionOf(version: Version | undefined): Version | undefined {
  if (version !== undefined && (typeof version !== 'string' || version === '')) invalid('ifVersion must be the version of an entry')
  return version
}

function requestOf(requestId: RequestId | undefined): Request {
  if (requestId === undefined) return { session: newId(), sequence: 0, remember: false, done: 0, attempt: 1 }
  if (typeof requestId === 'string') return { session: checkSession(requestId), sequence: 0, remember: true, done: 0, attempt: 1 }
  if (typeof requestId !== 'object' || requestId === null) invalid('requestId must be a string or { session, sequence }')
  const { session, sequence, done = 0, attempt = 1 } = requestId
  if (!Number.isSafeInteger(sequence) || sequence < 1) invalid('requestId.sequence must be a whole number from 1')
  if (!Number.isSafeInteger(done) || done < 0 || done > sequence)
    invalid('requestId.done must be a whole number of at most the sequence: this request itself is not done')
  if (!Number.isSafeInteger(attempt) || attempt < 1) invalid('requestId.attempt must be a whole number from 1')
  return { session: checkSession(session), sequence, remember: true, done, attempt }
}

/** ASCII without control characters: one byte a character, and never the line feed that separates a session from its sequence. */
function checkSession(session: string): string {
  if (typeof session !== 'string' || !/^[\x20-\x7e]{1,64}$/.test(session))
    invalid('a request id must be 1 to 64 printable ASCII characters', 'use a ULID or a UUID')
  return session
}
