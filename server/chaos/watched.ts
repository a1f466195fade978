/**
 * A store whose every call is watched: how many there were, how long they took, which failed, and those that went on while one fault alone was there.
 * Invariant: a call belongs to each window that it overlaps.
 */
import { isKvError } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'

export interface Slow {
  readonly what: string
  readonly ms: number
}

const slowestKept = 5
const lookMs = 10

class Counts {
  operations = 0
  /** Ended without a result: nobody answered in time, or the outcome is not known. */
  failed = 0
  /** The figure of W45: no call longer than this while one storage server alone is killed or stopped. */
  above200Ms = 0
  /** By code. */
  readonly codes = new Map<string, number>()
  /** The slowest first. */
  slowest: readonly Slow[] = []

  get slowestMs(): number {
    return this.slowest[0]?.ms ?? 0
  }

  add(what: string, ms: number, code: string | undefined): void {
    this.operations++
    if (ms > 200) this.above200Ms++
    if (this.slowest.length < slowestKept || ms > (this.slowest.at(-1) as Slow).ms)
      this.slowest = [...this.slowest, { what, ms }].sort((a, b) => b.ms - a.ms).slice(0, slowestKept)
    if (code === undefined) return
    this.failed++
    this.codes.set(code, (this.codes.get(code) ?? 0) + 1)
  }
}

export class Watch {
  readonly all = new Counts()
  /** Of all windows together. */
  readonly inWindows = new Counts()
  /** How late this process itself was at most in the windows: a call is no faster than whoever makes it. */
  lagMsMax = 0
  readonly #onFailed: (text: string) => void
  #timer: NodeJS.Timeout | undefined
  #openedAt: number | undefined
  #closedAt = -Infinity
  readonly #under = new Set<Promise<unknown>>()

  constructor(onFailed: (text: string) => void = () => undefined) {
    this.#onFailed = onFailed
  }

  /** Resolves when all calls that are under way now have ended: what they suffered is no matter of what comes next. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#under)
  }

  /** From now on, until `close`, calls are counted in the window. */
  open(): void {
    let dueAt = performance.now() + lookMs
    this.#timer = setInterval(() => {
      const now = performance.now()
      this.lagMsMax = Math.max(this.lagMsMax, now - dueAt)
      dueAt = now + lookMs
    }, lookMs)
    this.#openedAt = performance.now()
  }
  close(): void {
    clearInterval(this.#timer)
    this.#openedAt = undefined
    this.#closedAt = performance.now()
  }

  /** Counts a call. */
  async during<T>(verb: string, call: Promise<T>): Promise<T> {
    const startedAt = performance.now()
    this.#under.add(call)
    try {
      const result = await call
      this.#ended(verb, startedAt, undefined)
      return result
    } catch (error) {
      this.#ended(verb, startedAt, failureOf(error))
      throw error
    } finally {
      this.#under.delete(call)
    }
  }

  #ended(verb: string, startedAt: number, code: string | undefined): void {
    const now = performance.now()
    const ms = now - startedAt
    this.all.add(verb, ms, code)
    if (code !== undefined) this.#onFailed(`a ${verb} with ${code} after ${Math.round(ms)} ms`)
    const openedAt = this.#openedAt
    const into = openedAt === undefined ? 'the window had closed' : `it began ${Math.round(startedAt - openedAt)} ms after the fault`
    if (openedAt !== undefined || startedAt < this.#closedAt) this.inWindows.add(`${verb}: ${into}`, ms, code)
  }
}

/**
 * The code of a call that failed. ANSWER_GONE is none: the store answered, the request was refused, and what it met cannot be shown any more.
 * A client that was told so after a sending without an answer says UNKNOWN_OUTCOME, with that as its cause.
 */
function failureOf(error: unknown): string | undefined {
  if (!isKvError(error)) return 'NOT_A_FAULT_OF_OURS'
  if (error.code === 'ANSWER_GONE' || (error.code === 'UNKNOWN_OUTCOME' && isKvError(error.cause, 'ANSWER_GONE'))) return undefined
  return error.code
}

/** The same store, watched. */
export function watched(kv: KV, watch: Watch): KV {
  const during = <T>(verb: string, call: Promise<T>): Promise<T> => watch.during(verb, call)
  return {
    capabilities: kv.capabilities,
    create: (...args) => during('create', kv.create(...args)),
    get: (...args) => during('get', kv.get(...args)),
    getMany: (...args) => during('getMany', kv.getMany(...args)),
    update: (...args) => during('update', kv.update(...args)),
    set: (...args) => during('set', kv.set(...args)),
    destroy: (...args) => during('destroy', kv.destroy(...args)),
    close: () => kv.close(),
    [Symbol.asyncDispose]: () => kv.close(),
  }
}
