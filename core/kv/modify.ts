/**
 * Read-modify-write. All concurrent callers of one key in this process join into one conditional write; each gets its own result,
 * in order of arrival. Between processes the loser of a write goes on from the entry that its refusal carries.
 * Invariant: every change rests on the state that its write was conditional on; an answer without a change rests on a state that was read after its caller arrived.
 * Why joins: 400 callers that each read and write alone need 174 calls an update; joined they need less than 0.05 (patterns 3.6).
 */
import type { Duration } from '../base/types.ts'
import { invalid, isKvError, KvError } from './errors.ts'
import { expiryChange, type ExpiryChange } from './expiry.ts'
import { newId } from './id.ts'
import {
  asIs,
  Caller,
  runChanges,
  settleWith,
  type Change,
  type Known,
  type ModifyResult,
  type Pass,
  type Result,
  type Write,
} from './join.ts'
import type { CallOptions, CreateResult, Expiry, KV, RequestId, UpdateResult } from './kv.ts'
import { checkDuration, checkKey, checkTtl } from './limits.ts'
import { viewOf } from './scoped.ts'

export interface ModifyOptions extends CallOptions {
  /** What a change does to the expiry. Default: 'keep'. */
  readonly expiry?: Expiry | undefined
  /** How long an entry lives that the change makes. Default: as `expiry` says; with 'keep' for ever. */
  readonly ttl?: Duration | undefined
  /** Run the function only on a state, and with a clock, that the store showed after this call. On a key under load it costs a read a batch. Default: false. */
  readonly fresh?: boolean | undefined
}

/** What `modify` takes from the world; tests bring their own. */
export interface World {
  /** A number in [0, 1). */
  random(): number
  /** Monotonic milliseconds. */
  clock(): number
  /** Calls back once after so many milliseconds; the answer cancels it. `idle`: it need not keep the process alive. */
  after(ms: number, callback: () => void, idle: boolean): () => void
}

export const modifyLimits = Object.freeze({
  /** Callers of one write: bounds how long one turn runs their functions (some 0.1 ms). */
  batchMax: 1_024,
  /** Callers that wait for one key; beyond: BUSY. Sixteen batches: at 1 ms a write they wait 16 ms. */
  waitingMax: 16_384,
  /** Keys of one store being modified at once; beyond: BUSY. */
  keysMax: 65_536,
  /** How long a caller waits unless it says otherwise. */
  deadlineMs: 10_000,
  /** Full jitter between processes: a random part of 1, 2, 4 ... ms. The base is a round trip in a data centre; the cap is what a person does not notice. */
  backoffMs: 1,
  backoffMsMax: 50,
  /** A store remembers a request for 12 s. After 10 a repetition could come too late to be recognised (consistency, R7). */
  repeatMsMax: 10_000,
})

const world: World = {
  random: Math.random,
  clock: () => performance.now(),
  after(ms, callback, idle) {
    const timer = setTimeout(callback, Math.min(ms, 2_147_483_647))
    if (idle) timer.unref()
    return () => clearTimeout(timer)
  },
}

/**
 * Changes the entry of a key by a function of its present value.
 * @throws KvError as the store does; ABORTED, DEADLINE_EXCEEDED or CONTENTION: no effect; UNKNOWN_OUTCOME: perhaps; BUSY: too many callers. And what `change` throws.
 * @example const { entry } = await modify(orders, '1', (order) => (order === undefined ? undefined : { ...order, paid: true }))
 */
export const modify = modifier(world)

/** Makes a `modify`; callers join only those of the same one. For tests. */
export function modifier(
  parts: World,
): <V>(kv: KV<V>, key: string, change: Change<V>, options?: ModifyOptions) => Promise<ModifyResult<V>> {
  const stores = new WeakMap<object, Store>()
  return <V>(kv: KV<V>, key: string, change: Change<V>, options: ModifyOptions = {}) =>
    new Promise<ModifyResult<V>>((resolve, reject) => {
      const { limits } = kv.capabilities
      checkKey(key, limits)
      if (typeof change !== 'function') invalid('modify takes a function from the present value to the next')
      const expiry = expiryChange(options.expiry, limits)
      const ttlMs = options.ttl === undefined ? undefined : checkTtl(options.ttl, limits)
      const deadlineMs = options.deadline === undefined ? modifyLimits.deadlineMs : checkDuration(options.deadline, 'a deadline', 1)
      const { signal } = options
      if (signal?.aborted) throw new KvError('ABORTED', { cause: signal.reason })

      const view = viewOf(kv)
      const root = (view?.root ?? kv) as KV<unknown>
      let store = stores.get(root)
      if (store === undefined) stores.set(root, (store = new Store(root, parts)))
      const lane = store.lane((view?.prefix ?? '') + key)
      const onBirth: ExpiryChange = ttlMs === undefined ? expiry : { type: 'set', ttlMs }
      const endsAt = parts.clock() + deadlineMs
      const caller = new Caller({
        change: change as Change<unknown>,
        codec: view?.codec ?? asIs,
        expiry,
        onBirth,
        fresh: options.fresh === true,
        endsAt,
        resolve: resolve as Caller['resolve'],
        reject,
      })
      lane.join(caller)
      if (signal !== undefined) {
        const onAbort = (): void => lane.expel(caller, 'ABORTED', signal.reason)
        signal.addEventListener('abort', onAbort, { once: true })
        caller.onSettled = () => signal.removeEventListener('abort', onAbort)
      }
    })
}

/** One root store: its keys in work, and the session that names our writes. */
class Store {
  readonly kv: KV<unknown>
  readonly parts: World
  readonly #lanes = new Map<string, Lane>()
  readonly #session = newId()
  #sequence = 0
  /** Rising, so that the first is the lowest that is not answered. */
  readonly #unanswered = new Set<number>()

  constructor(kv: KV<unknown>, parts: World) {
    this.kv = kv
    this.parts = parts
  }
  lane(key: string): Lane {
    let lane = this.#lanes.get(key)
    if (lane === undefined) {
      if (this.#lanes.size >= modifyLimits.keysMax)
        throw new KvError('BUSY', { message: `${modifyLimits.keysMax} keys of the store are being modified` })
      lane = new Lane(this, key)
      this.#lanes.set(key, lane)
    }
    return lane
  }
  drop(key: string): void {
    this.#lanes.delete(key)
  }
  openRequest(): number {
    this.#unanswered.add(++this.#sequence)
    return this.#sequence
  }
  closeRequest(sequence: number): void {
    this.#unanswered.delete(sequence)
  }
  requestId(sequence: number, attempt: number): RequestId | undefined {
    if (!this.kv.capabilities.requestIds) return undefined
    const [done = sequence] = this.#unanswered
    return { session: this.#session, sequence, done, attempt }
  }
}

/** The callers of one key, and the loop that serves them: one call to the store at a time. */
class Lane {
  readonly #store: Store
  readonly #key: string
  #waiting: Caller[] = []
  /** Callers in `#waiting` that are settled already. */
  #gone = 0
  #arrived = 0
  #running = false
  #refusals = 0
  /** So many of those who wait are served one by one. */
  #alone = 0
  /** Whose functions run, or whose changes are being written. */
  #batch: Caller[] = []
  /** The earliest deadline, and what takes its timer back: a timer a caller would cost more than its update. */
  #alarmAt = Infinity
  #disarm: () => void = () => undefined
  #wake: () => void = () => undefined

  constructor(store: Store, key: string) {
    this.#store = store
    this.#key = key
  }

  join(caller: Caller): void {
    if (this.#waiting.length - this.#gone >= modifyLimits.waitingMax)
      throw new KvError('BUSY', { message: `${modifyLimits.waitingMax} callers wait for this key` })
    caller.order = ++this.#arrived
    this.#waiting.push(caller)
    if (caller.endsAt < this.#alarmAt) this.#arm(caller.endsAt)
    this.#wake()
    if (this.#running) return
    this.#running = true
    void this.#serve()
  }

  /** Takes a caller out whose signal or deadline says so. */
  expel(caller: Caller, code: 'ABORTED' | 'DEADLINE_EXCEEDED', cause: unknown): void {
    if (caller.settled) return
    const told = caller.sent ? 'UNKNOWN_OUTCOME' : code === 'DEADLINE_EXCEEDED' && this.#refusals > 0 ? 'CONTENTION' : code
    caller.fail(new KvError(told, cause === undefined ? {} : { cause }))
    // Those of the batch in work count too; that only makes the sweep below come sooner.
    this.#gone++
    if (this.#gone > 64 && this.#gone * 2 > this.#waiting.length) this.#sweep()
  }

  #arm(at: number): void {
    const { parts } = this.#store
    this.#disarm()
    this.#alarmAt = at
    this.#disarm = parts.after(Math.max(1, Math.ceil(at - parts.clock())), () => this.#ring(), true)
  }

  /** Takes out whose deadline has come, and waits for the next. */
  #ring(): void {
    const now = this.#store.parts.clock()
    this.#alarmAt = Infinity
    let next = Infinity
    for (const callers of [this.#batch, this.#waiting])
      for (const caller of callers) {
        if (caller.settled) continue
        if (caller.endsAt <= now) this.expel(caller, 'DEADLINE_EXCEEDED', undefined)
        else next = Math.min(next, caller.endsAt)
      }
    if (next < Infinity) this.#arm(next)
  }

  #sweep(): void {
    this.#waiting = this.#waiting.filter((caller) => !caller.settled)
    this.#gone = 0
  }

  /** Serves until a turn passes in which nobody comes. What the store showed last is a guess that lives no longer than that. After a batch it waits a turn, so that who was answered and comes again joins who came meanwhile: half the store calls. */
  async #serve(): Promise<void> {
    let known: Known | undefined
    for (;;) {
      if (!this.#waiting.some((caller) => !caller.settled)) {
        this.#waiting = []
        this.#batch = []
        this.#gone = 0
        await new Promise<void>((resolve) => {
          this.#wake = resolve
          setImmediate(resolve)
        })
        this.#wake = () => undefined
        if (this.#waiting.length === 0) break
        continue
      }
      if (known !== undefined) await this.#pause(0)
      try {
        known = await this.#round(known)
      } catch (error) {
        // Only our own mistakes come here: nobody may wait for ever because of them.
        for (const caller of [...this.#batch, ...this.#waiting.splice(0)]) caller.fail(error)
        known = undefined
      }
    }
    this.#running = false
    this.#disarm()
    this.#store.drop(this.#key)
  }

  /** One batch, from the known state to answers. Answers with the state to go on from, if there is one. */
  async #round(known: Known | undefined): Promise<Known | undefined> {
    const { kv } = this.#store
    this.#batch = []
    this.#refusals = 0
    for (;;) {
      this.#batch = this.#refill(this.#batch, known)
      if (this.#batch.length === 0 && known !== undefined) {
        known = undefined // who waits asks for a younger state
        this.#batch = this.#refill(this.#batch, known)
      }
      if (this.#batch.length === 0) return undefined
      try {
        if (known === undefined) {
          known = await this.#read()
          this.#batch = this.#refill(this.#batch, known)
        }
        const pass = runChanges(this.#batch, known, kv.capabilities.limits)
        this.#waiting.unshift(...pass.rest)
        this.#batch = pass.results.map(({ caller }) => caller)
        const asked = this.#arrived
        if (pass.write === undefined) {
          const { now } = known
          const state = known
          const isLate = ({ caller }: Result): boolean => caller.order > state.asked
          const late = pass.results.filter(isLate)
          for (const result of pass.results) if (!isLate(result)) settleWith(result, pass, known.entry, now)
          if (late.length === 0) return known
          this.#batch = late.map(({ caller }) => caller)
          known = await this.#read()
          if (known.entry?.version !== state.entry?.version) continue
          for (const result of late) settleWith(result, pass, known.entry, known.now)
          return known
        }
        const answer = await this.#write(pass, pass.write)
        if (answer?.ok) {
          const { entry, now } = answer
          for (const result of pass.results) settleWith(result, pass, entry, now)
          // Written with an instant that had passed: it was dead at once.
          return { entry: entry.expiresAt !== undefined && entry.expiresAt <= now ? undefined : entry, now, asked }
        }
        this.#refusals++
        known = answer === undefined ? undefined : { entry: answer.entry, now: answer.now, asked }
        const delayMs = this.#jitter(this.#refusals)
        if (delayMs >= 1) {
          await this.#pause(delayMs)
          known = undefined // Others have gone on meanwhile: a read is as dear as the refusal that the old state would bring.
        }
      } catch (error) {
        const faulted = this.#batch.filter((caller) => !caller.settled)
        if (faulted.length > 1 && isKvError(error) && error.retry === 'never' && error.code !== 'CLOSED') {
          // The store refuses a value that our own checks let through: find whose it is.
          this.#waiting.unshift(...faulted)
          this.#alone = faulted.length
          return undefined
        }
        for (const caller of faulted) caller.fail(error)
        return undefined
      }
    }
  }

  /** The batch without those who left, and with those who came; up to the first who wants a younger state than the known one. */
  #refill(batch: readonly Caller[], known: Known | undefined): Caller[] {
    if (this.#gone > 0) this.#sweep()
    const left = batch.filter((caller) => !caller.settled)
    const room = this.#alone > 0 ? 1 : modifyLimits.batchMax
    const late = known === undefined ? -1 : this.#waiting.findIndex((caller) => caller.fresh && caller.order > known.asked)
    const most = Math.max(0, room - left.length)
    const joined = this.#waiting.splice(0, late < 0 ? most : Math.min(most, late))
    this.#alone = Math.max(0, this.#alone - joined.length)
    return joined.length === 0 ? left : [...left, ...joined]
  }

  async #read(): Promise<Known> {
    const asked = this.#arrived
    const { entry, now } = await this.#store.kv.get(this.#key, { deadline: this.#patience() })
    return { entry, now, asked }
  }

  /** Writes, and writes again under the same name while the outcome is unknown. Undefined: no effect, or those whom it concerned know that nobody knows. */
  async #write({ results }: Pass, write: Write): Promise<CreateResult<unknown> | UpdateResult<unknown> | undefined> {
    const { kv, parts } = this.#store
    const changers = results.filter(({ changed }) => changed).map(({ caller }) => caller)
    const sequence = this.#store.openRequest()
    const since = parts.clock()
    let isUnknown = false
    for (const caller of changers) caller.sent = true
    try {
      for (let attempt = 1; ; attempt++) {
        const options = { requestId: this.#store.requestId(sequence, attempt), deadline: this.#patience() }
        try {
          return write.type === 'create'
            ? await kv.create(this.#key, write.value, { ...options, ttl: write.ttlMs })
            : await kv.update(this.#key, write.value, { ...options, ifVersion: write.ifVersion, expiry: write.expiry })
        } catch (error) {
          if (isUnknown && isKvError(error, 'ANSWER_GONE')) return undefined // it was refused, then and now
          if (!isUnknown && !isKvError(error, 'UNKNOWN_OUTCOME')) throw error
          isUnknown = true
          const hasEnded =
            isKvError(error, 'CLOSED') || isKvError(error, 'STORE_FAILED') || parts.clock() - since >= modifyLimits.repeatMsMax
          if (hasEnded || !kv.capabilities.requestIds || changers.every((caller) => caller.settled)) {
            const told = new KvError('UNKNOWN_OUTCOME', { cause: error })
            for (const caller of changers) caller.fail(told)
            return undefined
          }
          await this.#pause(this.#jitter(attempt))
        }
      }
    } finally {
      this.#store.closeRequest(sequence)
      for (const caller of changers) caller.sent = false
    }
  }

  #jitter(round: number): number {
    return Math.floor(
      this.#store.parts.random() * (Math.min(modifyLimits.backoffMsMax, modifyLimits.backoffMs * 2 ** Math.min(round, 16)) + 1),
    )
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      if (ms >= 1) this.#store.parts.after(ms, resolve, false)
      else setImmediate(resolve) // a store that fails at once must not hold the event loop
    })
  }

  /** How long the store may take: as long as the most patient of the callers. */
  #patience(): number {
    const now = this.#store.parts.clock()
    let ms = 1
    for (const callers of [this.#batch, this.#waiting])
      for (const caller of callers) if (!caller.settled) ms = Math.max(ms, Math.ceil(caller.endsAt - now))
    return ms
  }
}
