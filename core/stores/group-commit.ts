/**
 * The backend of the embedded store: gathers the calls of a turn, decides them with `apply`, and writes one batch.
 * Invariant: no answer shows a state that is not as durable as the store promises (R3): answers ride on the batch that covers them,
 * and a read of a key with a write under way waits its turn behind that write.
 * Why one batch in flight: the next one gathers while the disk works, so a slow disk makes larger batches and not a longer line.
 */
import type { Clock } from '../base/types.ts'
import { KvError } from '../kv/errors.ts'
import type { Entry } from '../kv/kv.ts'
import type { Capabilities } from '../kv/limits.ts'
import { apply, completionRules, type KvOperation } from '../record/operation.ts'
import { entryOf, forgettableAt, isForgettable } from '../record/record.ts'
import { writeFault, type Change, type Cursor, type Durability, type Engine } from '../engine/engine.ts'
import { encodeRecord, indexKey, recordRange } from '../engine/layout.ts'
import { CallQueue, type Call, type QueueLimits, type Ticker } from './call-queue.ts'
import { ExpirySweep, type Expired } from './expiry-sweep.ts'
import { loadStates, type KeyState } from './key-state.ts'
import { withOwnValue } from './own-value.ts'
import { RecordCache } from './record-cache.ts'
import type { Answer, Backend, Reading, Wait } from './verbs.ts'

export interface GroupCommitOptions {
  readonly engine: Engine
  readonly durability: Durability
  readonly capabilities: Capabilities
  readonly clock: Clock
  readonly ticker: Ticker
  readonly cacheBytes: number
  readonly queue: QueueLimits
  /** Called once nothing waits any more, before the engine closes. `isSound`: every write so far went well or was refused before it. */
  readonly beforeClose?: ((isSound: boolean) => void) | undefined
}

/** Calls of one batch: at some 4 us each, a batch holds the event loop for at most a few milliseconds. */
const batchCallsMax = 1_024
/** Bytes of values of one batch, though one call always fits. */
const batchBytesMax = 4_194_304
/** After a full disk, how long writes are refused at once before the disk is tried again. */
const retryMs = 100

interface Batch {
  readonly calls: readonly Call[]
  readonly states: ReadonlyMap<string, KeyState>
  readonly swept: readonly Expired[]
  readonly changes: readonly Change[]
}

export class GroupCommit implements Backend {
  readonly capabilities: Capabilities
  readonly #engine: Engine
  readonly #durability: Durability
  readonly #clock: Clock
  readonly #ticker: Ticker
  readonly #queue: CallQueue
  /** Reads of keys that are not in memory and have no write before them. */
  readonly #reads: CallQueue
  readonly #cache: RecordCache
  readonly #sweep: ExpirySweep
  readonly #beforeClose: GroupCommitOptions['beforeClose']
  #turnIsDue = false
  #inFlight = false
  #isClosing = false
  /** `full`: the last write found no space. `reopening`: the engine may not be touched. `failed`: for ever. */
  #state: 'open' | 'full' | 'reopening' | 'failed' = 'open'
  #failure: unknown
  #fullUntil = 0
  /** Run within a turn, before its batch: a promise would be answered when the batch has begun. */
  #whenQuiet: (() => void)[] = []

  constructor(options: GroupCommitOptions) {
    this.capabilities = options.capabilities
    this.#engine = options.engine
    this.#durability = options.durability
    this.#clock = options.clock
    this.#ticker = options.ticker
    this.#queue = new CallQueue(options.queue, options.ticker)
    this.#reads = new CallQueue(options.queue, options.ticker)
    this.#cache = new RecordCache(options.cacheBytes)
    this.#beforeClose = options.beforeClose
    this.#sweep = new ExpirySweep(options.engine, options.clock, options.ticker, () => this.#schedule())
  }

  apply(key: string, operation: KvOperation, wait: Wait): Promise<Answer> {
    this.#mustWork()
    const answer = this.#queue.write(key, withOwnValue(operation), wait)
    this.#schedule()
    return answer
  }

  read(keys: readonly string[], wait: Wait): Reading | Promise<Reading> {
    this.#mustWork()
    const now = this.#clock.now()
    const entries: (Entry | undefined)[] = []
    let hasAll = true
    for (const key of keys) {
      if (this.#queue.isPending(key)) return this.#readLater(this.#queue, keys, wait)
      const entry = this.#cache.entry(key, now)
      if (entry === undefined) hasAll = false
      entries.push(entry ?? undefined)
    }
    return hasAll ? { entries, now } : this.#readLater(this.#reads, keys, wait)
  }

  /** A walk over all records, begun when no batch is under way: it shows nothing that is not durable. */
  records(): Promise<Cursor> {
    return new Promise((resolve, reject) => {
      this.#whenQuiet.push(() => {
        try {
          this.#mustWork()
          if (this.#isClosing) throw new KvError('CLOSED')
          resolve(this.#engine.range(recordRange.from, recordRange.to))
        } catch (error) {
          reject(error)
        }
      })
      this.#schedule()
    })
  }

  async close(): Promise<void> {
    this.#isClosing = true
    this.#sweep.close()
    while (
      this.#state !== 'failed' &&
      (this.#inFlight || this.#state === 'reopening' || this.#queue.waiting > 0 || this.#reads.waiting > 0)
    )
      await this.#quiet()
    this.#cache.clear()
    this.#beforeClose?.(this.#state === 'open')
    await this.#engine.close()
  }

  #readLater(queue: CallQueue, keys: readonly string[], wait: Wait): Promise<Reading> {
    const reading = queue.read(keys, wait)
    this.#schedule()
    return reading
  }

  #mustWork(): void {
    if (this.#state === 'failed') throw this.#stopped()
  }

  #stopped(): KvError {
    return new KvError('STORE_FAILED', { cause: this.#failure })
  }

  /** Resolves at the beginning of a turn in which no batch is under way. */
  #quiet(): Promise<void> {
    return new Promise((resolve) => {
      this.#whenQuiet.push(resolve)
      this.#schedule()
    })
  }

  #schedule(): void {
    if (this.#turnIsDue) return
    this.#turnIsDue = true
    setImmediate(this.#turn)
  }

  readonly #turn = (): void => {
    this.#turnIsDue = false
    if (this.#state === 'reopening') return
    this.#answerReads()
    if (this.#inFlight) return
    const waiters = this.#whenQuiet
    if (waiters.length > 0) {
      this.#whenQuiet = []
      for (const resolve of waiters) resolve()
    }
    if (this.#state === 'failed') return
    if (this.#state === 'full') return this.#afterFullDisk()
    this.#begin()
  }

  /** One grouped read for the reads of a turn. They come before the turn's batch, so all that they meet is durable. */
  #answerReads(): void {
    if (this.#reads.queued === 0) return
    const calls = this.#reads.take(batchCallsMax, batchBytesMax).filter((call) => {
      // A write that came after this read is on its way to the disk: what the engine shows now may not be durable yet.
      const mustWait = this.#inFlight && call.type === 'read' && call.keys.some((key) => this.#queue.isPending(key))
      if (mustWait) this.#reads.sendAgain(call)
      return !mustWait
    })
    if (calls.length === 0) return
    const states = loadStates(this.#engine, this.#cache, calls, [])
    const now = this.#clock.now()
    for (const call of calls) {
      if (call.type === 'read') this.#decideRead(call, states, now)
      this.#reads.answer(call)
    }
    this.#remember(states)
    if (this.#reads.queued > 0) this.#schedule()
  }

  #begin(): void {
    const calls = this.#queue.take(batchCallsMax, batchBytesMax)
    const swept = this.#sweep.take()
    if (calls.length === 0 && swept.length === 0) return
    const batch = this.#decide(calls, swept)
    if (batch.changes.length === 0) return this.#end(batch)
    let written: void | Promise<void>
    try {
      written = this.#engine.write(batch.changes, this.#durability)
    } catch (error) {
      return this.#endBadly(batch, writeFault(error))
    }
    if (written === undefined) return this.#end(batch)
    this.#inFlight = true
    written.then(
      () => {
        this.#inFlight = false
        this.#end(batch)
      },
      (error: unknown) => {
        this.#inFlight = false
        this.#endBadly(batch, writeFault(error))
      },
    )
  }

  #decide(calls: readonly Call[], swept: readonly Expired[]): Batch {
    const states = loadStates(this.#engine, this.#cache, calls, swept)
    const changes: Change[] = []
    const now = this.#clock.now()
    const bound = swept.length > 0 ? this.#sweep.bound() : now
    for (const { key, at, indexKey: entry } of swept) {
      const state = states.get(key) as KeyState
      const record = state.before
      const isRight = record !== undefined && forgettableAt(record, completionRules.lifeMs) === at
      // A record that cannot be read now may be read later; a damaged one never, and it stays until somebody destroys it.
      if (state.fault && state.fault.code !== 'DAMAGED') this.#sweep.noteIndexed(at)
      else if (!isRight) changes.push({ key: entry, value: undefined })
      else if (isForgettable(record, bound, completionRules.lifeMs)) state.after = undefined
      else this.#sweep.noteIndexed(at)
    }
    for (const call of calls) {
      if (call.type === 'read') {
        this.#decideRead(call, states, now)
        continue
      }
      const state = states.get(call.key) as KeyState
      if (state.fault) {
        // The way out of damage: a destroy of whatever is there. Any other verb would have to know the record.
        if (call.operation.verb === 'destroy' && call.operation.ifVersion === undefined && state.fault.code === 'DAMAGED') {
          changes.push({ key: state.diskKey, value: undefined })
          state.fault = undefined
          call.changes = true
          call.answer = { outcome: { type: 'applied', entry: undefined }, now }
        } else call.fault = state.fault
        continue
      }
      const { record, outcome, decidedAt = now } = apply(call.operation, state.after, now)
      call.changes = record !== state.after
      state.after = record
      call.answer = { outcome, now: decidedAt }
    }
    for (const state of states.values()) this.#addChanges(state, changes, now)
    return { calls, states, swept, changes }
  }

  #addChanges(state: KeyState, changes: Change[], now: ReturnType<Clock['now']>): void {
    const { key, diskKey, before } = state
    if (state.after === before) return
    if (state.after !== undefined && isForgettable(state.after, now, completionRules.lifeMs)) state.after = undefined
    const { after } = state
    if (after !== undefined) changes.push({ key: diskKey, value: (state.bytes = encodeRecord(diskKey, after)) })
    else if (before !== undefined) changes.push({ key: diskKey, value: undefined })
    const oldAt = before && forgettableAt(before, completionRules.lifeMs)
    const newAt = after && forgettableAt(after, completionRules.lifeMs)
    if (oldAt === newAt) return
    if (oldAt !== undefined) changes.push({ key: indexKey(oldAt, key), value: undefined })
    if (newAt !== undefined) {
      changes.push({ key: indexKey(newAt, key), value: nothing })
      this.#sweep.noteIndexed(newAt)
    }
  }

  #decideRead(call: Extract<Call, { type: 'read' }>, states: ReadonlyMap<string, KeyState>, now: ReturnType<Clock['now']>): void {
    const entries: (Entry | undefined)[] = []
    call.fault = undefined
    for (const key of call.keys) {
      const state = states.get(key) as KeyState
      call.fault ??= state.fault
      entries.push(entryOf(state.after, now))
    }
    call.answer = { entries, now }
  }

  /** Keeps what a batch or a read has learned, once it is durable. */
  #remember(states: ReadonlyMap<string, KeyState>): void {
    for (const { key, after, bytes, slot } of states.values()) {
      if (after === undefined) this.#cache.delete(key)
      else if (bytes !== undefined) this.#cache.set(key, bytes, slot)
    }
  }

  #end(batch: Batch): void {
    this.#remember(batch.states)
    for (const call of batch.calls) {
      this.#queue.answer(call)
      this.#queue.release(call)
    }
    this.#sweep.done(batch.swept)
    this.#goOn()
  }

  #endBadly(batch: Batch, fault: KvError): void {
    for (const { at } of batch.swept) this.#sweep.noteIndexed(at)
    if (fault.code !== 'DISK_FULL') return this.#fail(fault)
    const { message, hint, retry, cause } = fault
    const refusal = (): KvError => new KvError('DISK_FULL', { message: message.slice(fault.id.length + 1), hint, retry, cause })
    // The disk will tell what became of them, once it is opened again.
    if (retry !== 'safe') for (const state of batch.states.values()) if (state.after !== state.before) this.#cache.delete(state.key)
    this.#state = 'full'
    this.#fullUntil = this.#ticker.now() + retryMs
    for (const call of batch.calls) {
      if (call.type === 'read') this.#queue.sendAgain(call)
      else if (call.changes) this.#queue.refuse(call, refusal())
      else if (this.#isChanged(batch, call.key)) this.#queue.sendAgain(call)
      else this.#queue.answer(call)
      if (call.state === 'settled') this.#queue.release(call)
    }
    this.#sweep.done(batch.swept)
    this.#goOn()
  }

  /** A refusal that met a state which then could not be written must be decided anew. */
  #isChanged(batch: Batch, key: string): boolean {
    const state = batch.states.get(key)
    return state !== undefined && state.after !== state.before
  }

  #goOn(): void {
    if (this.#queue.queued > 0 || this.#reads.queued > 0 || this.#whenQuiet.length > 0) this.#schedule()
  }

  #fail(fault: KvError): void {
    this.#state = 'failed'
    this.#failure = fault.cause ?? fault
    this.#sweep.close()
    const waiters = this.#whenQuiet
    this.#whenQuiet = []
    for (const resolve of waiters) resolve()
    this.#queue.refuseAll(this.#stopped())
    this.#reads.refuseAll(this.#stopped())
  }

  /** The last write found the disk full. Opens the engine again when there is space; until then writes are refused. */
  #afterFullDisk(): void {
    if (this.#queue.queued === 0) return
    if (this.#ticker.now() < this.#fullUntil) return this.#refuseWrites(new KvError('DISK_FULL'))
    this.#reopen()
  }

  #reopen(): void {
    this.#state = 'reopening'
    this.#engine.reopen().then(
      () => {
        this.#state = 'open'
        this.#schedule()
      },
      (error: unknown) => {
        const fault = writeFault(error)
        if (fault.code !== 'DISK_FULL') return this.#fail(fault)
        this.#state = 'full'
        this.#fullUntil = this.#ticker.now() + retryMs
        this.#refuseWrites(fault)
        this.#goOn()
      },
    )
  }

  /** Refuses the writes that wait; reads among them are answered from what is on disk. */
  #refuseWrites(fault: KvError): void {
    const calls = this.#queue.take(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)
    for (const call of calls) if (call.type === 'write') this.#queue.refuse(call, new KvError('DISK_FULL', { cause: fault.cause }))
    const reads = calls.filter((call) => call.type === 'read')
    const states = loadStates(this.#engine, this.#cache, reads, [])
    for (const call of reads) {
      this.#decideRead(call, states, this.#clock.now())
      this.#queue.answer(call)
    }
    for (const call of calls) this.#queue.release(call)
  }
}

const nothing = new Uint8Array(0)
