/**
 * What one call of a user becomes on the wire: one request name, and as many sendings as its deadline allows.
 * Invariant: a write is named once, all its sendings say the same name, and only the answer to the latest one is taken (R9). When none came and
 * one may have been applied, the call ends with UNKNOWN_OUTCOME, never with a code that says "nothing happened".
 * Why the age is by the store's clock: proxies refuse a sending that came so late that the memory of an earlier one may be gone (P13).
 *
 *   sending --answer--> result
 *      |
 *      +- no effect: again after a pause      +- unknown: again at once, and from now on a failure means UNKNOWN_OUTCOME
 */
import { epochMs, type EpochMs } from '../base/types.ts'
import { isKvError, KvError, type KvErrorCode } from '../kv/errors.ts'
import { newId } from '../kv/id.ts'
import type { Entry, RequestId } from '../kv/kv.ts'
import type { Ticker } from '../net/ticker.ts'
import type { KvOperation, Outcome, Request } from '../record/operation.ts'
import type { Answer, Wait } from '../stores/verbs.ts'
import type { OwnRequest } from '../wire/own-field.ts'

/** One sending of a call. `operation` undefined: a get. */
export interface Sending {
  readonly key: string
  readonly operation: KvOperation | undefined
  readonly own: OwnRequest
}

/** What came back. `fault`: what the proxy says instead of a result. */
export type Told =
  | { readonly now: EpochMs; readonly fault: KvErrorCode }
  | { readonly now: EpochMs; readonly fault: undefined; readonly outcome: Outcome | 'read'; readonly entry: Entry | undefined }

export interface CallsOptions {
  readonly ticker: Ticker
  /** 0 up to 1. */
  readonly random: () => number
  /** @throws KvError: UNKNOWN_OUTCOME when the bytes left and no answer came, else a code that says that they did not. */
  readonly send: (sending: Sending, wait: { readonly timeoutMs: number; readonly signal: AbortSignal | undefined }) => Promise<Told>
  /** For a call that brings no deadline, in milliseconds. Default 5,000. */
  readonly deadlineMs?: number | undefined
  /** Told when the first call begins, and when the last one has ended. */
  readonly hold?: { begin(): void; finish(): void } | undefined
  /** Calls at once; beyond: BUSY. Default 65,536. */
  readonly callsMax?: number | undefined
}

const deadlineMsDefault = 5_000
const callsMaxDefault = 65_536
/** A proxy gives up after 600 ms; the rest is the way there and back, and what a process needs to be noticed as gone. */
const sendingMsMax = 1_000
/** No sending after this, whatever the deadline: completions are remembered for 12 s (docs: consistency, "Completions"). */
const retryWindowMs = 10_000
const pauseMs = 4
const pauseMsMax = 250
/**
 * Sendings beyond the first, in all: a call adds a tenth of one and a second adds 500, up to a thousand. A cluster that answers nobody gets a
 * bounded load more, not a multiple (as in gRPC's retry throttling, gRFC A6); who may not repeat yet waits for it, as long as the deadline allows.
 */
const repeatsMax = 1_000
const repeatShare = 0.1
const repeatsPerMs = 0.5

/** Nothing happened, and another try may do better. */
const isPassing = (code: KvErrorCode): boolean =>
  code === 'UNAVAILABLE' || code === 'BUSY' || code === 'CONTENTION' || code === 'RECORD_LOCKED' || code === 'DEADLINE_EXCEEDED'

export class Calls {
  readonly #options: CallsOptions
  readonly #session = newId()
  /** Sequences without an answer, in rising order. */
  readonly #open = new Set<number>()
  readonly #callsMax: number
  #sequence = 0
  #running = 0
  #repeats = repeatsMax
  #repeatsAt = 0
  /** The latest that the store's clock is known to have been, and when that was. */
  #heard: { readonly now: EpochMs; readonly mono: number } | undefined
  #isClosing = false
  #onIdle: () => void = () => undefined

  constructor(options: CallsOptions) {
    this.#options = options
    this.#callsMax = options.callsMax ?? callsMaxDefault
  }

  /** Calls that have no result yet. */
  get running(): number {
    return this.#running
  }

  /** The store's clock, or a little less: a call is taken for older than it is, never for younger. Undefined: no answer has come yet. */
  get storeTime(): EpochMs | undefined {
    const heard = this.#heard
    return heard === undefined ? undefined : epochMs(Math.floor(heard.now + this.#options.ticker.now() - heard.mono))
  }

  hear(now: EpochMs): void {
    const mono = this.#options.ticker.now()
    // A slow answer tells an older time. Only forwards, but for a clock of the store that stepped back.
    const known = this.storeTime
    if (known === undefined || now > known || now < known - 1_000) this.#heard = { now, mono }
  }

  /** Applies a write. @throws KvError as `KV` says. */
  async write(key: string, operation: KvOperation, wait: Wait): Promise<Answer> {
    const { request } = operation
    const sequence = request.remember ? undefined : ++this.#sequence
    return this.#run(async () => {
      if (sequence !== undefined) this.#open.add(sequence)
      try {
        const told = await this.#repeat(
          { key, operation, own: expiryIn(operation) },
          (attempt) => this.#name(request, sequence, attempt),
          wait,
        )
        if (told.outcome === 'read')
          throw new KvError('UNAVAILABLE', { message: 'a write was answered as a read', retry: 'same-request-id' })
        return { outcome: told.outcome, now: told.now }
      } finally {
        if (sequence !== undefined) this.#open.delete(sequence)
      }
    })
  }

  read(key: string, wait: Wait): Promise<{ readonly entry: Entry | undefined; readonly now: EpochMs }> {
    return this.#run(() => this.#repeat({ key, operation: undefined, own: {} }, () => undefined, wait))
  }

  /** Takes no more calls, and resolves when those under way have ended, by their deadlines at the latest. */
  async close(): Promise<void> {
    this.#isClosing = true
    if (this.#running > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve))
  }

  async #run<T>(act: () => Promise<T>): Promise<T> {
    if (this.#isClosing) throw new KvError('CLOSED')
    if (this.#running >= this.#callsMax) throw new KvError('BUSY', { message: 'the client has as many calls under way as it may' })
    if (this.#running++ === 0) this.#options.hold?.begin()
    this.#earn(repeatShare)
    try {
      return await act()
    } finally {
      this.#running--
      if (this.#running === 0) this.#idle()
    }
  }

  #idle(): void {
    this.#options.hold?.finish()
    this.#onIdle()
  }

  #name(request: Request, sequence: number | undefined, attempt: number): RequestId {
    if (sequence !== undefined) {
      const [done = sequence] = this.#open
      return { session: this.#session, sequence, done, attempt }
    }
    if (request.sequence === 0) return request.session
    return { session: request.session, sequence: request.sequence, done: request.done, attempt: request.attempt + attempt - 1 }
  }

  async #repeat(
    { key, operation, own }: { readonly key: string; readonly operation: KvOperation | undefined; readonly own: Partial<OwnRequest> },
    nameOf: (attempt: number) => RequestId | undefined,
    { signal, deadlineMs }: Wait,
  ): Promise<Told & { readonly fault: undefined }> {
    const { ticker, send } = this.#options
    const isWrite = operation !== undefined
    const startedAt = ticker.now()
    const isOwnDeadline = deadlineMs !== undefined && (!isWrite || deadlineMs <= retryWindowMs)
    const endsAt = startedAt + Math.min(deadlineMs ?? this.#options.deadlineMs ?? deadlineMsDefault, isWrite ? retryWindowMs : Infinity)
    const sentAt = isWrite ? this.storeTime : undefined
    let mayBeApplied = false
    const isAborted = (): boolean => signal?.aborted === true
    for (let attempt = 1; ; attempt++) {
      const timeoutMs = Math.min(endsAt - ticker.now(), sendingMsMax)
      let fault: KvError
      try {
        const sending = { key, operation, own: { ...own, timeoutMs, sentAt, requestId: nameOf(attempt) } }
        const told = await send(sending, { timeoutMs, signal })
        this.hear(told.now)
        if (told.fault === undefined) return told
        fault = new KvError(told.fault)
      } catch (error) {
        if (!isKvError(error)) throw error
        fault = error
      }
      const isUnknown = fault.code === 'UNKNOWN_OUTCOME'
      mayBeApplied ||= isUnknown && isWrite
      const mayRepeat = (isUnknown || isPassing(fault.code)) && fault.retry !== 'never' && !isAborted()
      const restMs = endsAt - ticker.now()
      const waitMs =
        isUnknown && attempt === 1 ? 0 : Math.min(pauseMs * 2 ** Math.min(attempt, 10), pauseMsMax) * (0.5 + this.#options.random() / 2)
      const late = !isOwnDeadline ? fault : new KvError('DEADLINE_EXCEEDED', { cause: fault })
      if (!mayRepeat) throw ended(fault, mayBeApplied, isWrite)
      if (restMs <= waitMs) throw ended(late, mayBeApplied, isWrite)
      if (waitMs > 0) await this.#pause(waitMs, signal)
      while (this.#earn(0) < 1) {
        if (endsAt - ticker.now() <= pauseMsMax || isAborted()) throw ended(isAborted() ? fault : late, mayBeApplied, isWrite)
        await this.#pause(pauseMsMax * (0.5 + this.#options.random() / 2), signal)
      }
      this.#repeats--
    }
  }

  /** @returns how often may be repeated now */
  #earn(share: number): number {
    const now = this.#options.ticker.now()
    this.#repeats = Math.min(repeatsMax, this.#repeats + share + (now - this.#repeatsAt) * repeatsPerMs)
    this.#repeatsAt = now
    return this.#repeats
  }

  #pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const over = (): void => {
        cancel()
        signal?.removeEventListener('abort', over)
        resolve()
      }
      const cancel = this.#options.ticker.after(ms, over)
      signal?.addEventListener('abort', over, { once: true })
    })
  }
}

const expiryIn = (operation: KvOperation): Partial<OwnRequest> => ({
  ...('expiry' in operation ? { expiry: operation.expiry } : {}),
  ...('ifVersion' in operation ? { ifVersion: operation.ifVersion } : {}),
})

/** What the caller gets when no sending brought a result. Of a deadline of his own he hears that it passed; of the client's, what was in the way. */
function ended(fault: KvError, mayBeApplied: boolean, isWrite: boolean): KvError {
  if (mayBeApplied) return fault.code === 'UNKNOWN_OUTCOME' ? fault : new KvError('UNKNOWN_OUTCOME', { cause: fault })
  // Of a get nothing is unknown but the answer.
  if (fault.code === 'UNKNOWN_OUTCOME' && !isWrite) return new KvError('DEADLINE_EXCEEDED', { cause: fault })
  return fault
}
