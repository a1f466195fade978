/**
 * The stage of a case: one store with its clock, a service downstream, and the processes that use both, one after the other or at once.
 * Invariant: a process that is dead makes no further call, ends no call, and its timers stand still, as for a real one.
 * Why everything is counted here: the laws are then judged by what happened, not by what a case expected to happen.
 */
import { strict as assert } from 'node:assert'
import { randomFillSync } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import { KvError } from '../../../core/kv/errors.ts'
import { memory } from '../../../core/stores/memory.ts'
import { intercept, testClock, type StoreCall, type TestClock } from '../../../core/testing/index.ts'
import type { AppUnderTest, HandlerAnswer, MakeApp, Steps } from './world.ts'

export const leaseMs = 30_000
/** Shorter than a lease, so that a store which comes back finds the claim still there. */
export const storeDeadlineMs = 20_000
const recordBytesMax = 8_192

export interface Case {
  readonly name: string
  readonly run: (stage: Stage, makeApp: MakeApp) => Promise<void>
}

/** Amounts with a meaning; any other is charged. */
export const amounts = { usual: 2_990, declined: 0, large: 1, zipped: 2 } as const

/** Where a process is interrupted: at its nth call of the store, or of the service downstream. */
export interface Point {
  readonly at: 'store' | 'step'
  readonly nth: number
  readonly when: 'before' | 'after'
}
/**
 * `dies`: the call never returns. `stalls`: it returns when `resume` is called. `lost`: the store's answer is lost, UNKNOWN_OUTCOME.
 * `away`: this and every later call of the store is UNAVAILABLE until `resume` is called.
 */
export interface Interruption extends Point {
  readonly how: 'dies' | 'stalls' | 'lost' | 'away'
}

interface Beginning {
  readonly process: Process
  /** On the store's clock. */
  readonly at: number
  hasEnded: boolean
}

/** What happens to an idempotency key, and what the service downstream saw of it. */
interface StepLog {
  readonly keys: Set<string>
  asked: number
  /** Its result has been written down: some write was applied after it returned. */
  isFinished: boolean
}

/** A new one each time: what waits for one that all share is never let go of. */
const forever = (): Promise<never> => new Promise<never>(() => {})
const encoder = new TextEncoder()

export class Stage {
  readonly clock: TestClock = testClock()
  readonly beginnings: Beginning[] = []
  /** By name of the step. */
  readonly steps = new Map<string, StepLog>()
  /** Writes that the store has applied. */
  writes = 0
  readonly #kv = memory({ clock: this.clock })
  readonly #makeApp: MakeApp
  readonly #processes: Process[] = []
  #hold: Promise<unknown> = Promise.resolve()

  constructor(makeApp: MakeApp) {
    this.#makeApp = makeApp
  }

  /** Starts a process over the common store. */
  async start(afterCrash: 'refuse' | 'resume' = 'refuse', interruption?: Interruption): Promise<Process> {
    const process = new Process(interruption)
    const kv = intercept(this.#kv, (call, run) =>
      process.pass('store', async () => {
        const result = await run()
        this.#count(call, result)
        return result
      }),
    )
    const { timers } = process
    const options = { kv, timers, lease: leaseMs, storeDeadline: storeDeadlineMs, recordBytesMax, afterCrash, random: () => 0.5 }
    process.app = await this.#makeApp({ options, handle: (body, steps) => this.#handle(process, body, steps) })
    this.#processes.push(process)
    return process
  }

  /** Lets time pass, for the store and for every process that runs, in pieces so that none is far ahead. */
  async advance(ms: number): Promise<void> {
    const pieceMs = 2_000
    for (let left = ms; left > 0; left -= pieceMs) {
      const piece = Math.min(left, pieceMs)
      await this.clock.advance(piece)
      for (const process of this.#processes) if (!process.isStopped) await process.timers.advance(piece)
    }
  }

  /** The service downstream answers nobody until the returned function is called. */
  hold(): () => void {
    let release = (): void => {}
    this.#hold = new Promise<void>((resolve) => (release = resolve))
    return release
  }

  /** The laws: no second run before the lease of an unfinished first has passed; one key for each step, in every attempt. */
  assertLaws(what: string): void {
    for (const [index, later] of this.beginnings.entries()) {
      for (const earlier of this.beginnings.slice(0, index)) {
        const isLapsed = later.at - earlier.at >= leaseMs
        assert.ok(earlier.hasEnded || isLapsed, `${what}: a second run began before the lease of the first had passed on the store's clock`)
      }
    }
    const keys = new Set<string>()
    for (const [name, step] of this.steps) {
      assert.equal(step.keys.size, 1, `${what}: the step '${name}' has one key, the same in each attempt`)
      for (const key of step.keys) keys.add(key)
    }
    assert.equal(keys.size, this.steps.size, `${what}: each step has a key of its own`)
  }

  async close(): Promise<void> {
    for (const process of this.#processes) await process.app?.close()
    await this.#kv.close()
  }

  #count(call: StoreCall, result: unknown): void {
    if (call.verb === 'get' || call.verb === 'getMany' || !(result as { ok: boolean }).ok) return
    this.writes++
    for (const step of this.steps.values()) step.isFinished = true
  }

  async #handle(process: Process, body: unknown, steps: Steps): Promise<HandlerAnswer> {
    if (process.isDead) return await forever()
    const beginning = { process, at: this.clock.now(), hasEnded: false }
    this.beginnings.push(beginning)
    const given = body as { amount?: number } | undefined
    const amount = given?.amount
    if (given !== undefined) given.amount = -1 // T9: what a handler does to its input changes no fingerprint
    const answer = amount === undefined ? reply(200, { began: this.beginnings.length }) : await this.#answer(process, amount, steps)
    if (process.isDead) return await forever()
    beginning.hasEnded = true
    return answer
  }

  async #answer(process: Process, amount: number, steps: Steps): Promise<HandlerAnswer> {
    if (amount === amounts.declined) return reply(402, { declined: true })
    if (amount === amounts.large) return { status: 201, headers: kept, body: randomFillSync(new Uint8Array(2 * recordBytesMax)) }
    const charge = await steps.step('charge', ({ key }) => this.#downstream(process, 'charge', key))
    const receipt = await steps.step('receipt', ({ key }) => this.#downstream(process, 'receipt', key))
    const { status, headers, body } = reply(201, { charge, receipt, amount, run: this.beginnings.length })
    if (amount !== amounts.zipped)
      return { status, headers: { ...headers, Location: `/charges/${charge}`, 'Set-Cookie': 'session=secret' }, body }
    return { status, headers: { ...headers, 'Content-Encoding': 'gzip', Vary: 'Accept-Encoding' }, body: gzipSync(body) }
  }

  async #downstream(process: Process, name: string, key: string): Promise<string> {
    const log = this.steps.get(name) ?? { keys: new Set(), asked: 0, isFinished: false }
    this.steps.set(name, log)
    log.keys.add(key)
    return await process.pass('step', async () => {
      await this.#hold
      log.asked++
      log.isFinished = false
      return `${name}-${[...log.keys].indexOf(key) + 1}`
    })
  }
}

const kept = { 'Content-Type': 'application/octet-stream', Location: '/charges/large' }

const reply = (status: number, body: unknown): HandlerAnswer => ({
  status,
  headers: { 'Content-Type': 'application/json' },
  body: encoder.encode(JSON.stringify(body)),
})

/** One process: its app, its timers, and the point where it is interrupted. */
export class Process {
  readonly timers: TestClock = testClock()
  /** Resolves when the interruption has come. */
  readonly interrupted: Promise<void>
  app: AppUnderTest | undefined
  /** Calls so far. */
  readonly calls = { store: 0, step: 0 }
  isDead = false
  #isStalled = false
  #isAway = false
  #interruption: Interruption | undefined
  #tell: () => void = () => {}
  #resume: () => void = () => {}
  readonly #resumed: Promise<void>

  constructor(interruption: Interruption | undefined) {
    this.#interruption = interruption
    this.interrupted = new Promise((resolve) => (this.#tell = resolve))
    this.#resumed = new Promise((resolve) => (this.#resume = resolve))
  }

  get url(): string {
    return this.app?.url ?? assert.fail('the process has started')
  }
  /** Its timers stand still. */
  get isStopped(): boolean {
    return this.isDead || this.#isStalled
  }

  /** Says where it will be interrupted. */
  interrupt(interruption: Interruption): void {
    this.#interruption = interruption
  }

  /** Ends a stall, or the absence of the store. A process that comes back sees at once how much time has passed. */
  async resume(missedMs = 0): Promise<void> {
    this.#isStalled = false
    this.#isAway = false
    this.#resume()
    if (missedMs > 0) await this.timers.advance(missedMs)
  }

  /** A call of the process, which may be where it is interrupted. */
  async pass<R>(at: Point['at'], run: () => Promise<R>): Promise<R> {
    if (this.#isStalled) await this.#resumed
    if (this.isDead) return await forever()
    const nth = ++this.calls[at]
    const here = this.#interruption?.at === at && this.#interruption.nth === nth ? this.#interruption : undefined
    if (here?.how === 'away') this.#isAway = true
    if (this.#isAway && at === 'store') {
      this.#tell()
      throw new KvError('UNAVAILABLE')
    }
    if (here?.when === 'before') await this.#interrupt(here)
    const result = await run()
    if (here?.when === 'after') await this.#interrupt(here)
    if (this.#isStalled) await this.#resumed
    return this.isDead ? await forever() : result
  }

  async #interrupt({ how }: Interruption): Promise<void> {
    if (how === 'dies') this.isDead = true
    if (how === 'stalls') this.#isStalled = true
    this.#tell()
    if (how === 'dies') await forever()
    if (how === 'stalls') await this.#resumed
    if (how === 'lost') throw new KvError('UNKNOWN_OUTCOME')
  }
}
