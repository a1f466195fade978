/**
 * Do it once: claims a key with one conditional write, runs the handler, and answers every repetition with what the first one got.
 * Invariant: a handler begins only after this process wrote a claim that says so, and the store said that the write stands.
 * Why the claim loop never ends in "run without a claim": a record that vanishes between two calls is a reason to try again (T17).
 */
import { randomUUID } from 'node:crypto'
import { jsonText, jsonValue, NotJsonError } from '../../core/base/json.ts'
import type { EpochMs } from '../../core/base/types.ts'
import { invalid, KvError } from '../../core/kv/errors.ts'
import { checkDuration, need } from '../../core/kv/limits.ts'
import { HeldRun } from './claim.ts'
import { tell, type IdempotencyEvent } from './events.ts'
import { fingerprintOf, storeKeyBytes, storeKeyOf } from './fingerprint.ts'
import { checkKeyText } from './key.ts'
import { claimed, givenUp, judge, leaseEndOf, takenOver, type Claimed } from './rules.ts'
import { Budget, read, standingOf, write, type Settings, type Standing, type Written } from './store.ts'
import type {
  Claim,
  ClaimRequest,
  Fingerprint,
  Idempotency,
  IdempotencyOptions,
  Inspection,
  KeyRef,
  Once,
  ReleaseRequest,
  ReleaseResult,
  Run,
  RunRequest,
  RunResult,
  Timers,
} from './types.ts'

const defaults = {
  /** A day: what Stripe keeps; longer than any client retries by itself. */
  retention: '24h',
  /** Longer than a stalled process or a short outage of the store; after a crash nobody gets an answer sooner. */
  lease: '30s',
  /** A client that waits longer has given up. */
  storeDeadline: '2s',
  /** A large JSON answer; raise it for documents, as far as the store takes them. */
  recordBytesMax: 262_144,
} as const

/** How often a claim begins again when others change the key between its calls: more is not chance. */
const claimTurnsMax = 16
/** Requests of one idempotency that wait for another's answer: each holds a request open. Beyond, they are refused at once. */
const waitersMax = 1_000
/** Scopes and operations are hashed, so their length costs time alone: no more than a request line may have. */
const partLengthMax = 16_384

/**
 * Makes an idempotency over a store. Keeps no state of its own but who waits in this process; the store stays the caller's.
 * @throws KvError INVALID_ARGUMENT for an option; CAPABILITY_MISSING when the store lacks what is needed: one clock, one home for each
 * key (T20), values of `recordBytesMax` and ttls of `retention`.
 * @example const payments = idempotency({ kv, name: 'payments', retention: '24h', lease: '30s', final: 'stripe', afterCrash: 'refuse' })
 */
export function idempotency(options: IdempotencyOptions): Idempotency {
  return new Engine(settingsOf(options))
}

class Engine implements Idempotency {
  readonly name: string
  readonly answerBytesMax: number
  readonly #settings: Settings
  /** By store key: how to wake those who wait for a run of this process. */
  readonly #waiting = new Map<string, Set<() => void>>()
  #waiters = 0

  constructor(settings: Settings) {
    this.#settings = settings
    this.name = settings.name
    this.answerBytesMax = settings.recordBytesMax
  }

  async run<T>(request: RunRequest, handler: (once: Once) => T | Promise<T>): Promise<RunResult<T>> {
    const { scope, key, operation, signal } = request // member by member: a spread of a caller's object is slow
    const claim = await this.claim({ scope, key, operation, signal, fingerprint: fingerprintOfInput(request) })
    if (claim.type !== 'run') return resultOf<T>(claim)
    let value: T
    try {
      value = await handler(claim.once)
    } catch (error) {
      const outcome = await claim.failed(error)
      if (outcome.type === 'overtaken') return resultOf<T>(outcome.by)
      throw error
    }
    const text = await textOrUnstored(claim, value)
    const outcome = await claim.complete({ head: null, body: Buffer.from(text) }, { value })
    if (outcome.type === 'overtaken') return resultOf<T>(outcome.by)
    return { ok: true, value: jsonValue(text) as T, replayed: false, saved: outcome.type === 'saved' }
  }

  async claim(request: ClaimRequest): Promise<Claim> {
    const storeKey = this.#storeKeyOf(request)
    const { signal } = request
    if (signal?.aborted) throw new KvError('ABORTED', { cause: signal.reason })
    const patience = this.#settings.waitMs > 0 ? new Budget(this.#settings, this.#settings.waitMs) : undefined
    try {
      for (;;) {
        const claim = await this.#attempt(storeKey, request)
        if (claim.type !== 'refused' || claim.refusal !== 'in-flight' || patience === undefined) return this.#told(storeKey, claim)
        if (this.#waiters >= waitersMax || !(await this.#change(storeKey, patience, signal))) return this.#told(storeKey, claim)
      }
    } finally {
      patience?.end()
    }
  }

  async inspect(key: KeyRef): Promise<Inspection> {
    const { entry, now } = await this.#settings.kv.get(this.#storeKeyOf(key), { deadline: this.#settings.storeDeadlineMs })
    if (entry === undefined) return { state: 'absent', now }
    const { record, version, createdAt } = standingOf(entry, now)
    const { state, attempt, steps } = record
    return {
      state,
      version,
      attempt,
      createdAt,
      expiresAt: entry.expiresAt,
      steps,
      now,
      ...(record.state === 'claimed' ? { leaseEndsAt: leaseEndOf(record, createdAt) } : undefined),
      ...(record.state === 'completed' ? { head: record.answer.head, bodyBytes: record.answer.body.length } : undefined),
      ...(record.state === 'unstored' ? { head: record.head } : undefined),
    }
  }

  async release({ version, actor, reason, ...key }: ReleaseRequest): Promise<ReleaseResult> {
    const { kv, storeDeadlineMs: deadline } = this.#settings
    const storeKey = this.#storeKeyOf(key)
    const { entry, now } = await kv.get(storeKey, { deadline })
    if (entry === undefined) return { ok: false, refusal: 'missing' }
    if (entry.version !== version) return { ok: false, refusal: 'version' }
    const { record, createdAt } = standingOf(entry, now)
    const leftMs = record.state === 'claimed' ? leaseEndOf(record, createdAt) - now : 0
    if (leftMs > 0) return { ok: false, refusal: 'in-flight', retryAfterMs: this.#jittered(leftMs) }
    const gone = await kv.destroy(storeKey, { ifVersion: version, deadline })
    if (!gone.ok) return { ok: false, refusal: gone.refusal }
    this.#tell(storeKey, { type: 'released', state: record.state, attempt: record.attempt, actor, reason })
    return { ok: true }
  }

  /** One pass, without waiting for anybody's answer: creates the claim, or judges what is there and acts on it. */
  async #attempt(storeKey: string, request: ClaimRequest): Promise<Claim> {
    const settings = this.#settings
    const budget = new Budget(settings, settings.storeDeadlineMs)
    const owner = randomUUID() // not a ULID: the order of owners means nothing, and `ulid` takes a quarter of the import's time
    try {
      for (let turn = 0; turn < claimTurnsMax; turn++) {
        const sentAt = settings.elapsed()
        const first = claimed(owner, request.fingerprint, settings.leaseMs)
        const created = await write(settings, storeKey, first, undefined, budget)
        let claim = this.#claimOf(created, first, sentAt, storeKey, request)
        // The record that refused us may change under our hands: each time the refusal brings the present one.
        for (let standing = standingIn(created); claim === undefined && standing !== undefined && turn < claimTurnsMax; turn++) {
          const judgement = judge(standing, request.fingerprint, settings.afterCrash)
          if (judgement.type !== 'take-over' && judgement.type !== 'give-up') return this.#answerOf(judgement)
          if (judgement.type === 'give-up') {
            const written = await write(settings, storeKey, givenUp(standing.record, owner), standing.version, budget)
            if (written.type === 'written' || (written.type === 'own' && written.standing.record.state === 'unknown')) {
              this.#tell(storeKey, { type: 'unknown', attempt: standing.record.attempt })
              return { type: 'refused', refusal: 'outcome-unknown' }
            }
            claim = this.#claimOf(written, first, sentAt, storeKey, request)
            standing = standingIn(written)
            continue
          }
          const next = takenOver(standing.record, owner, settings.leaseMs, standing.now)
          const written = await write(settings, storeKey, next, standing.version, budget)
          claim = this.#claimOf(written, next, sentAt, storeKey, request)
          standing = standingIn(written)
        }
        if (claim instanceof HeldRun && !claim.start()) claim = await this.#revive(claim, storeKey, owner, request)
        if (claim !== undefined) return claim
      }
      return { type: 'refused', refusal: 'in-flight', retryAfterMs: this.#jittered(1_000) }
    } finally {
      budget.end()
    }
  }

  /** What a written claim gives: the run, or that the store is away. undefined: others were faster. */
  #claimOf(written: Written, record: Claimed, sentAt: number, storeKey: string, request: ClaimRequest): Claim | undefined {
    switch (written.type) {
      case 'written':
        return this.#hold(written, record, sentAt, storeKey, request)
      case 'own': {
        // T6: the answer to an earlier sending was lost, the claim was not. It may be an earlier claim than the one just tried.
        const own = written.standing.record
        return own.state === 'claimed' ? this.#hold(written.standing, own, sentAt, storeKey, request) : undefined
      }
      case 'failed':
        if (written.isUnknown) void this.#abandon(storeKey, record.owner, request)
        return this.#away(written.cause, storeKey, request)
      default:
        return undefined
    }
  }

  /** undefined: the lease had passed while the claim was under way, and somebody has taken over. */
  async #revive(run: HeldRun, storeKey: string, owner: string, request: ClaimRequest): Promise<Claim | undefined> {
    const put = await run.revive()
    if (put.type === 'saved') return run
    if (put.type !== 'failed') return undefined
    void this.#abandon(storeKey, owner, request)
    return this.#away(put.cause, storeKey, request)
  }

  #hold({ version, now, createdAt }: Timed, record: Claimed, sentAt: number, storeKey: string, request: ClaimRequest): HeldRun {
    this.#tell(storeKey, { type: record.attempt === 1 ? 'claimed' : 'taken-over', attempt: record.attempt })
    const onEnd = (): void => this.#wake(storeKey)
    const isLapsed = now >= leaseEndOf(record, createdAt)
    return new HeldRun({ settings: this.#settings, storeKey, request, record, version, storeNow: now, sentAt, isLapsed, onEnd })
  }

  /** T19: what happens while the store is away is said by the options, and told. */
  #away(cause: unknown, storeKey: string, request: ClaimRequest): Claim {
    const settings = this.#settings
    this.#tell(storeKey, { type: 'store-error', cause })
    if (settings.onStoreError === 'reject') {
      return { type: 'refused', refusal: 'store-unavailable', retryAfterMs: this.#jittered(settings.storeDeadlineMs), cause }
    }
    const record = claimed(randomUUID(), request.fingerprint, settings.leaseMs)
    return new HeldRun({
      settings,
      storeKey,
      request,
      record,
      version: undefined,
      storeNow: 0 as EpochMs,
      sentAt: 0,
      isLapsed: false,
      onEnd: () => {},
    })
  }

  /** A claim that may have arrived after its caller was refused: nobody runs under it, so it is given back as soon as it is seen. */
  async #abandon(storeKey: string, owner: string, request: ClaimRequest): Promise<void> {
    const settings = this.#settings
    const life = new Budget(settings, settings.leaseMs)
    try {
      while (await life.pause()) {
        const found = await read(settings, storeKey, life)
        if (found.type === 'failed') continue
        if (found.type === 'found' && found.standing.record.owner === owner && found.standing.record.state === 'claimed') {
          await this.#hold(found.standing, found.standing.record, settings.elapsed(), storeKey, request).release()
        }
        return
      }
    } catch (cause) {
      this.#tell(storeKey, { type: 'store-error', cause })
    } finally {
      life.end()
    }
  }

  #answerOf(judgement: Exclude<ReturnType<typeof judge>, { type: 'take-over' | 'give-up' }>): Claim {
    switch (judgement.type) {
      case 'replay':
        return judgement
      case 'unstored':
        return { type: 'refused', refusal: 'unstored', head: judgement.head, reason: judgement.reason }
      case 'in-flight':
        return { type: 'refused', refusal: 'in-flight', retryAfterMs: this.#jittered(judgement.leftMs) }
      default:
        return { type: 'refused', refusal: judgement.type }
    }
  }

  /** Waits until a run of this process ends, or a while; the store is asked again in any case. False: the time is over. @throws KvError ABORTED. */
  async #change(storeKey: string, patience: Budget, signal: AbortSignal | undefined): Promise<boolean> {
    const waiting = this.#waiting.get(storeKey) ?? new Set()
    this.#waiting.set(storeKey, waiting)
    this.#waiters++
    let wake = (): void => {}
    try {
      const goesOn = await patience.pause((end) => {
        wake = end
        waiting.add(end)
        signal?.addEventListener('abort', end, { once: true })
      })
      if (signal?.aborted) throw new KvError('ABORTED', { cause: signal.reason })
      return goesOn
    } finally {
      this.#waiters--
      signal?.removeEventListener('abort', wake)
      waiting.delete(wake)
      if (waiting.size === 0 && this.#waiting.get(storeKey) === waiting) this.#waiting.delete(storeKey)
    }
  }

  #wake(storeKey: string): void {
    for (const wake of this.#waiting.get(storeKey) ?? []) wake()
  }

  /** T18: all who were refused at once must not come back at once. */
  #jittered(ms: number): number {
    return Math.ceil(ms * (1 + this.#settings.random() / 4))
  }

  #storeKeyOf(key: KeyRef): string {
    const { scope, operation = '' } = key
    if (typeof scope !== 'string' || scope === '') throw new KvError('SCOPE_MISSING')
    if (typeof operation !== 'string' || scope.length + operation.length > partLengthMax)
      invalid(`scope and operation must be strings of at most ${partLengthMax} characters together`)
    const parsed = checkKeyText(key.key)
    if (parsed.type === 'invalid') invalid(parsed.problem)
    return storeKeyOf(this.name, key)
  }

  #told(storeKey: string, claim: Claim): Claim {
    if (claim.type === 'replay') this.#tell(storeKey, { type: 'replayed', attempt: claim.attempt })
    else if (claim.type === 'refused') this.#tell(storeKey, { type: 'refused', refusal: claim.refusal })
    return claim
  }

  #tell(storeKey: string, event: Omit<IdempotencyEvent, 'name' | 'id'>): void {
    tell(this.name, storeKey, event)
  }
}

type Timed = Pick<Standing, 'version' | 'createdAt' | 'now'>

const standingIn = (written: Written): Standing | undefined => (written.type === 'refused' ? written.standing : undefined)

const decoder = new TextDecoder()

function resultOf<T>(claim: Exclude<Claim, Run>): RunResult<T> {
  if (claim.type === 'replay') return { ok: true, value: jsonValue(decoder.decode(claim.answer.body)) as T, replayed: true, saved: true }
  const { refusal, retryAfterMs, cause } = claim
  return {
    ok: false,
    refusal,
    ...(retryAfterMs === undefined ? undefined : { retryAfterMs }),
    ...(cause === undefined ? undefined : { cause }),
  }
}

/** A result that is not JSON cannot be replayed, but what was done is done: it is remembered as such. @throws KvError VALUE_INVALID. */
async function textOrUnstored(run: Run, value: unknown): Promise<string> {
  try {
    return jsonText(value)
  } catch (cause) {
    await run.unstored(null, 'not-json')
    throw new KvError('VALUE_INVALID', {
      message: 'the result of an idempotent function is not JSON; the function has run and will not run again',
      cause,
    })
  }
}

function fingerprintOfInput({ operation = '', input }: RunRequest): Fingerprint {
  try {
    return fingerprintOf({ operation, body: input })
  } catch (cause) {
    if (!(cause instanceof NotJsonError)) throw cause
    throw new KvError('INVALID_ARGUMENT', { message: `the input of an idempotent function must be JSON or bytes: ${cause.message}`, cause })
  }
}

function settingsOf(options: IdempotencyOptions): Settings {
  const { kv, name, final = 'stripe', afterCrash = 'refuse', onStoreError = 'reject', random = Math.random } = options
  const timers: Timers = options.timers ?? globalThis
  if (typeof name !== 'string' || name === '' || name.length > 64) invalid('idempotency: name must be 1 to 64 characters')
  oneOf('afterCrash', afterCrash, ['refuse', 'resume'])
  oneOf('onStoreError', onStoreError, ['reject', 'allow'])
  if (typeof final !== 'function') oneOf('final', final, ['stripe', 'draft', 'success-only'])
  const leaseMs = checkDuration(options.lease ?? defaults.lease, 'lease', 100)
  const retentionMs = checkDuration(options.retention ?? defaults.retention, 'retention', 1)
  if (retentionMs < 3 * leaseMs) invalid('retention must be at least three leases: a record must not vanish while its handler runs')
  const storeMax = kv.capabilities.limits.valueBytesMax
  const recordBytesMax = options.recordBytesMax ?? Math.min(defaults.recordBytesMax, storeMax)
  if (!Number.isSafeInteger(recordBytesMax) || recordBytesMax < 1_024) invalid('recordBytesMax must be a whole number from 1024')
  need(
    kv,
    { serverClock: true, sites: 'one', keyBytes: storeKeyBytes, valueBytes: recordBytesMax, ttlMs: retentionMs },
    `idempotency '${name}'`,
  )
  return Object.freeze({
    kv,
    name,
    retentionMs,
    leaseMs,
    final,
    afterCrash,
    waitMs: checkDuration(options.wait ?? 0, 'wait'),
    storeDeadlineMs: checkDuration(options.storeDeadline ?? defaults.storeDeadline, 'storeDeadline', 1),
    onStoreError,
    recordBytesMax,
    timers,
    elapsed: timers.elapsed?.bind(timers) ?? (() => performance.now()),
    random,
  })
}

function oneOf(what: string, value: string, values: readonly string[]): void {
  if (!values.includes(value)) invalid(`${what} must be one of ${values.map((one) => `'${one}'`).join(', ')}, not ${JSON.stringify(value)}`)
}
