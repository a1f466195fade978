/**
 * The owner's side of a claim: renews the lease, keeps the steps, and ends it exactly once.
 * Invariant: every write is conditional on the version that this run itself last wrote, and the writes go one after the other.
 * Why the record here may be ahead of the store's: a step whose write failed has happened all the same; it goes along with the next write.
 */
import { assert } from '../../core/base/assert.ts'
import { jsonText, jsonValue, type Json } from '../../core/base/json.ts'
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import { KvError } from '../../core/kv/errors.ts'
import type { Version } from '../../core/kv/kv.ts'
import { tell, type IdempotencyEvent } from './events.ts'
import { stepKeyOf } from './fingerprint.ts'
import { HeldOnce } from './once.ts'
import { encodeRecord } from './record.ts'
import { isFinal, judge, transition, type Claimed, type Event } from './rules.ts'
import { Budget, remove, timerOf, write, type Settings, type Standing } from './store.ts'
import type { Answer, ClaimRequest, Ending, Once, Refused, Replay, Run, Saved, Step, UnstoredReason } from './types.ts'

const stepsMax = 64 // of one run: beyond it is a loop that should be a queue
const stepNameLengthMax = 128
const renewalBytes = 32 // what renewals may add to a record, the end of the lease and the count of writes: steps leave this room
/** For so many leases a run goes on that nobody waits for: by default five minutes, as long as Node lets a request take (`requestTimeout`). */
const leasesAbandoned = 10

export interface Held {
  readonly settings: Settings
  readonly storeKey: string
  readonly request: Omit<ClaimRequest, 'fingerprint'>
  readonly record: Claimed
  /** undefined: not protected, because the store is away and the options allow it. */
  readonly version: Version | undefined
  /** The store's clock in an answer, and the local clock when its call was sent: the store's clock is never ahead of what follows from both. */
  readonly storeNow: EpochMs
  readonly sentAt: number
  /** The store says that the lease had ended before the claim's writer heard of it. */
  readonly isLapsed: boolean
  /** Called once when the run has ended, one way or the other. */
  readonly onEnd: () => void
}

/** What became of a write of the owner. */
export type Put =
  | { readonly type: 'saved' }
  | { readonly type: 'lost'; readonly standing: Standing | undefined }
  | { readonly type: 'failed'; readonly cause: unknown }
  | { readonly type: 'too-large'; readonly bytes: number }

const saved: Put & Saved = Object.freeze({ type: 'saved' })
const released: Saved = Object.freeze({ type: 'released' })

export class HeldRun implements Run {
  readonly type = 'run'
  readonly once: Once
  readonly #settings: Settings
  readonly #storeKey: string
  readonly #onEnd: () => void
  readonly #userSignal: AbortSignal | undefined
  readonly #names = new Set<string>()
  #record: Claimed
  #version: Version | undefined
  #storeNow: EpochMs
  #sentAt: number
  /** On the local clock: from here on the lease may have ended. */
  #lapsesAt: number
  #isLost = false
  #isEnding = false
  #isOver = false
  #isReleaseAsked = false
  /** The record has ended for good and the handler goes on: nobody else will run, so its steps need no record. */
  #isStreamed = false
  #isStepBegun: boolean
  readonly #isBornLapsed: boolean
  /** On the local clock: from here on the lease is not renewed. */
  #renewsUntil = Infinity
  #renewTimer: unknown
  #lapseTimer: unknown
  #controller: AbortController | undefined
  #last: Promise<unknown> = Promise.resolve()

  constructor(held: Held) {
    const { settings, storeKey, request, record } = held
    this.#settings = settings
    this.#storeKey = storeKey
    this.#onEnd = held.onEnd
    this.#userSignal = request.signal
    this.#record = record
    this.#version = held.version
    this.#storeNow = held.storeNow
    this.#sentAt = held.sentAt
    this.#lapsesAt = held.sentAt + settings.leaseMs
    this.#isStepBegun = record.steps.length > 0
    this.#isBornLapsed = held.isLapsed
    this.once = new HeldOnce(request, held.version === undefined ? 0 : record.attempt, {
      signal: () => this.#signal(),
      isOwned: () => this.#isOwned(),
      step: (name, fn) => this.#step(name, fn),
      release: () => {
        this.#isReleaseAsked = true
      },
    })
  }

  /** Begins to renew the lease. False: it may have ended already, and `revive` must say first that nobody else holds the key. */
  start(): boolean {
    if (this.#version === undefined) return true // not protected
    const isLive = !this.#isBornLapsed && this.#settings.elapsed() < this.#lapsesAt
    if (isLive) this.#renewAfter(this.#settings.leaseMs / 3)
    return isLive
  }

  /**
   * Renews the claim of a process that was frozen between its claim and its handler, and may have a successor already.
   * (What freezes after the last answer, its clock with it, is beyond any lease: `fence` is for that.)
   */
  async revive(): Promise<Put> {
    const put = await this.#within(this.#turnMs(), (budget) => this.#put('renew', budget))
    if (put.type === 'saved') this.#renewAfter(this.#settings.leaseMs / 3)
    return put
  }

  async complete(answer: Answer, ending: { readonly status: number } | { readonly value: unknown }): Promise<Saved> {
    const stepBegun = this.#isStepBegun
    if (!this.#isFinal('status' in ending ? { type: 'answered', ...ending, stepBegun } : { type: 'returned', ...ending, stepBegun })) {
      return await this.release()
    }
    return (await this.#end({ type: 'complete', answer }, saved)) ?? (await this.unstored(answer.head, 'too-large'))
  }

  async unstored(head: Json, reason: UnstoredReason): Promise<Saved> {
    if (this.#isReleaseAsked) return await this.release()
    const outcome =
      (await this.#end({ type: 'unstored', head, reason }, saved)) ?? (await this.#end({ type: 'unstored', head: null, reason }, saved))
    assert(outcome, 'an unstored answer without its head fits every record')
    this.#isStreamed = reason === 'streamed'
    return outcome
  }

  async failed(error: unknown): Promise<Saved> {
    const isKept = this.#isFinal({ type: 'threw', error, stepBegun: this.#isStepBegun })
    if (!isKept || this.#settings.afterCrash === 'resume') return await this.release()
    return (await this.#end({ type: 'fail' }, saved)) ?? saved
  }

  /** A later attempt finds the steps and a higher fence; without either nothing need be kept. */
  async release(): Promise<Saved> {
    const isWorthKeeping = this.#record.steps.length > 0 || this.#record.attempt > 1
    return (await this.#end(isWorthKeeping ? { type: 'hand-back' } : 'destroy', released)) ?? released
  }

  abandon(): void {
    const { elapsed, leaseMs } = this.#settings
    this.#renewsUntil = Math.min(this.#renewsUntil, elapsed() + leasesAbandoned * leaseMs)
  }

  /** A policy that throws must not open the way to a second run. */
  #isFinal(ending: Ending): boolean {
    if (this.#isReleaseAsked) return false
    try {
      return isFinal(this.#settings.final, ending)
    } catch (cause) {
      this.#tell('store-error', { cause })
      return true
    }
  }

  #isOwned(): boolean {
    return this.#version !== undefined && !this.#isLost && this.#settings.elapsed() < this.#lapsesAt
  }

  /** Made when somebody asks for it: most handlers do not. */
  #signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#isLost) this.#controller.abort(new KvError('CLAIM_LOST'))
      if (this.#userSignal?.aborted) this.#onUserAbort()
      else this.#userSignal?.addEventListener('abort', this.#onUserAbort, { once: true })
    }
    return this.#controller.signal
  }
  readonly #onUserAbort = (): void => this.#controller?.abort(this.#userSignal?.reason)

  async #step<T>(name: string, fn: (step: Step) => T | Promise<T>): Promise<T> {
    if (typeof name !== 'string' || name === '' || name.length > stepNameLengthMax)
      throw stepInvalid(`a step's name must have 1 to ${stepNameLengthMax} characters`)
    if (this.#names.has(name)) throw stepInvalid(`two steps of this run are named '${name}'`)
    if (this.#isLost) throw new KvError('CLAIM_LOST')
    if (!this.#isStreamed) {
      if (this.#isEnding) throw stepInvalid(`step '${name}' begins after the run has ended`)
      if (this.#version !== undefined && !this.#isOwned()) throw new KvError('CLAIM_LOST')
    }
    if (this.#names.size >= stepsMax) throw stepInvalid(`a run has at most ${stepsMax} steps`)
    this.#names.add(name)
    const finished = this.#record.steps.find((step) => step.name === name)
    if (finished !== undefined) return jsonValue(finished.result) as T

    this.#isStepBegun = true
    let result: T
    try {
      result = await fn({ key: stepKeyOf(this.#storeKey, name), signal: this.#signal() })
    } catch (error) {
      this.#names.delete(name) // it may be tried again: its key downstream is the same
      throw error
    }
    let text: string
    try {
      text = jsonText(result)
    } catch (cause) {
      throw stepInvalid(`the result of step '${name}' is not JSON; the step has run`, cause)
    }
    const put = await this.#within(this.#turnMs(), (budget) => this.#put({ type: 'step', step: { name, result: text } }, budget))
    if (put.type === 'too-large') {
      throw stepInvalid(
        `with the result of step '${name}' the record has ${put.bytes} bytes, ${this.#settings.recordBytesMax - renewalBytes} are allowed; the step has run`,
      )
    }
    if (put.type === 'lost') throw new KvError('CLAIM_LOST')
    if (put.type === 'saved') this.#tell('step-saved', {})
    return jsonValue(text) as T
  }

  #renewAfter(ms: number): void {
    this.#renewTimer = timerOf(this.#settings.timers, () => void this.#renew(), ms)
  }

  async #renew(): Promise<void> {
    const { leaseMs, elapsed, random } = this.#settings
    if (this.#lapseTimer === undefined) this.#lapseAfter(this.#lapsesAt - elapsed())
    const put = await this.#within(this.#turnMs(), (budget) => this.#put('renew', budget))
    if (this.#isLost || this.#isOver) return
    if (put.type === 'saved') {
      this.#settings.timers.clearTimeout(this.#lapseTimer as never)
      this.#lapseAfter(this.#lapsesAt - elapsed())
      this.#tell('renewed', {})
    }
    if (elapsed() < this.#renewsUntil) this.#renewAfter(put.type === 'saved' ? leaseMs / 3 : (leaseMs / 12) * (1 + random()))
  }

  #lapseAfter(ms: number): void {
    const lapse = (): void => this.#lose(new KvError('CLAIM_LOST', { message: 'the lease could not be renewed in time' }))
    this.#lapseTimer = timerOf(this.#settings.timers, lapse, Math.floor(ms)) // rather too early than too late
  }

  /** The handler is told to stop. Its answer is still offered to the store: should nobody have taken over, it stands. */
  #lose(cause: KvError): void {
    if (this.#isLost) return
    this.#isLost = true
    this.#stopTimers()
    this.#tell('lost', { cause })
    this.#controller?.abort(cause)
  }

  /** undefined: too large, and nothing has been done. */
  async #end(event: Event | 'destroy', outcome: Saved): Promise<Saved | undefined> {
    assert(!this.#isEnding, 'a run is ended once')
    this.#isEnding = true
    const put = await this.#within(this.#settings.storeDeadlineMs, (budget) => this.#put(event, budget, true))
    if (put.type === 'too-large') {
      this.#isEnding = false
      return undefined
    }
    if (put.type === 'failed' && this.#version !== undefined) {
      this.#tell('unsaved', { cause: put.cause })
      void this.#insist(event)
      return { type: 'unsaved', cause: put.cause }
    }
    this.#finish()
    if (put.type === 'failed') return { type: 'unsaved', cause: put.cause }
    if (put.type === 'lost') return { type: 'overtaken', by: this.#insteadOf(put.standing) }
    this.#tellEnd(event)
    return outcome
  }

  /** T4: goes on offering the end to the store for one lease; the lease is renewed meanwhile. */
  async #insist(event: Event | 'destroy'): Promise<void> {
    const life = new Budget(this.#settings, this.#settings.leaseMs)
    while (await life.pause()) {
      const put = await this.#within(this.#turnMs(), (budget) => this.#put(event, budget, true))
      if (put.type === 'failed') continue
      if (put.type === 'saved') this.#tellEnd(event)
      break
    }
    life.end()
    this.#finish()
  }

  #finish(): void {
    this.#isOver = true
    this.#stopTimers()
    this.#userSignal?.removeEventListener('abort', this.#onUserAbort)
    this.#onEnd()
  }

  #stopTimers(): void {
    this.#settings.timers.clearTimeout(this.#renewTimer as never)
    this.#settings.timers.clearTimeout(this.#lapseTimer as never)
  }

  /** The longest that one of several turns of a lease may take. */
  #turnMs(): number {
    return Math.min(this.#settings.storeDeadlineMs, this.#settings.leaseMs / 3)
  }

  /** One write after the other, each with a budget that begins when its turn comes. Never throws: a fault is a failure here. */
  #within(ms: number, work: (budget: Budget) => Promise<Put>): Promise<Put> {
    const turn = this.#last.then(async () => {
      const budget = new Budget(this.#settings, ms)
      try {
        return await work(budget)
      } catch (cause) {
        this.#tell('store-error', { cause })
        return { type: 'failed', cause } as const
      } finally {
        budget.end()
      }
    })
    this.#last = turn
    return turn
  }

  async #put(event: Event | 'destroy' | 'renew', budget: Budget, isEnd = false): Promise<Put> {
    if (this.#isOver || (this.#isEnding && !isEnd && event !== 'renew')) return saved // nothing to keep any more
    if (this.#version === undefined) return { type: 'failed', cause: new KvError('UNAVAILABLE', { message: 'this run is not protected' }) }
    if (event === 'destroy') return await this.#remove(this.#version, budget)
    const settings = this.#settings
    const sentAt = settings.elapsed()
    const leaseEndsAt = epochMs(Math.ceil(this.#storeNow + (sentAt - this.#sentAt)) + settings.leaseMs)
    const next = transition(this.#record, event === 'renew' ? { type: 'renew', leaseEndsAt } : event)
    const bytes = encodeRecord(next)
    const room = event !== 'renew' && event.type === 'step' ? renewalBytes : 0
    if (bytes.length > settings.recordBytesMax - room) return { type: 'too-large', bytes: bytes.length }
    this.#record = next.state === 'claimed' ? next : { ...this.#record, writes: next.writes }
    for (;;) {
      const written = await write(settings, this.#storeKey, next, this.#version, budget, bytes)
      if (written.type === 'refused') return this.#overtaken(written.standing)
      if (written.type === 'missing') return this.#overtaken(undefined)
      if (written.type === 'failed') {
        this.#tell('store-error', { cause: written.cause })
        return { type: 'failed', cause: written.cause }
      }
      const { version, now } = written.type === 'own' ? written.standing : written
      const stands = written.type === 'own' ? written.standing.record : next
      this.#version = version
      this.#storeNow = now
      this.#sentAt = sentAt
      if (stands.state === 'claimed' && stands.writes !== next.writes) continue // an earlier write of ours arrived late: once more, on its version
      if (stands.state !== 'claimed') {
        this.#isOver = true // the end has landed, perhaps by an earlier sending: a renewal on top of it would undo it
        return saved
      }
      if (event !== 'renew') return saved
      if (now >= leaseEndsAt) return await this.#put('renew', budget) // frozen while it was under way
      this.#lapsesAt = sentAt + settings.leaseMs
      return saved
    }
  }

  async #remove(version: Version, budget: Budget): Promise<Put> {
    for (let ifVersion = version; ;) {
      const removed = await remove(this.#settings, this.#storeKey, ifVersion, budget)
      if (removed.type === 'removed') return saved
      if (removed.type === 'failed') return removed
      if (removed.standing.record.owner !== this.#record.owner) return this.#overtaken(removed.standing)
      ifVersion = removed.standing.version
    }
  }

  #overtaken(standing: Standing | undefined): Put {
    this.#lose(new KvError('CLAIM_LOST'))
    return { type: 'lost', standing }
  }

  /** What the client of an overtaken run gets: the winner's answer, or that it still runs. */
  #insteadOf(standing: Standing | undefined): Replay | Refused {
    const judgement = standing && judge(standing, this.#record.fingerprint, this.#settings.afterCrash)
    switch (judgement?.type) {
      case 'replay':
        return judgement
      case 'unstored':
        return { type: 'refused', refusal: 'unstored', head: judgement.head, reason: judgement.reason }
      case 'mismatch':
      case 'outcome-unknown':
        return { type: 'refused', refusal: judgement.type }
      default:
        return { type: 'refused', refusal: 'in-flight', retryAfterMs: judgement?.type === 'in-flight' ? judgement.leftMs : 1_000 }
    }
  }

  #tell(type: IdempotencyEvent['type'], more: Partial<IdempotencyEvent>): void {
    tell(this.#settings.name, this.#storeKey, { type, attempt: this.#record.attempt, ...more })
  }

  #tellEnd(event: Event | 'destroy'): void {
    const type = event === 'destroy' ? 'hand-back' : event.type
    this.#tell(type === 'complete' ? 'completed' : type === 'unstored' ? type : type === 'fail' ? 'unknown' : 'handed-back', {})
  }
}

const stepInvalid = (message: string, cause?: unknown): KvError =>
  new KvError('STEP_INVALID', cause === undefined ? { message } : { message, cause })
