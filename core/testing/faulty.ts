/**
 * A store that fails as real ones do: not reached, or reached and the answer lost, or applied after the caller gave up.
 * Invariant: 'unknown-before' and 'unavailable' never reach the store; 'unknown-after' was applied before it throws.
 * Why the two unknown outcomes throw the same error: a caller cannot tell them apart, and code that treats either as "failed" is wrong.
 */
import type { Duration } from '../base/types.ts'
import { seededRandom } from '../base/random.ts'
import { invalid, KvError } from '../kv/errors.ts'
import type { KV } from '../kv/kv.ts'
import { durationOf, realSleep, type TestClock } from './clock.ts'
import { intercept, isWrite, type StoreCall } from './intercept.ts'

/**
 * What happens to one call.
 * `unknown-before`: UNKNOWN_OUTCOME, never applied. `unknown-after`: UNKNOWN_OUTCOME, applied. `unknown-later`: UNKNOWN_OUTCOME, and
 * applied while later calls are made (see `calm`). `unavailable`, `busy`: that error, not applied. `stop-before`, `stop-after`: the
 * call never returns, as for a process that dies there. `delay`: waits before the call reaches the store, or before its answer
 * leaves; the signal and deadline of the call are kept to. A KvError: thrown as it is, not applied.
 * A read has no outcome to be unknown: there the three `unknown` verdicts are UNAVAILABLE.
 */
export type Verdict =
  | 'pass'
  | 'unknown-before'
  | 'unknown-after'
  | 'unknown-later'
  | 'unavailable'
  | 'busy'
  | 'stop-before'
  | 'stop-after'
  | { readonly delay: Duration; readonly when?: 'before' | 'after' }
  | KvError

export interface FaultyOptions {
  /** Decides the random faults; the same seed and the same order of calls give the same faults. Default: 1. */
  readonly seed?: number
  /** Probabilities from 0 to 1, together at most 1. Default: 0. The three `unknown` ones are drawn for writes only. */
  readonly unknownBeforeApply?: number
  readonly unknownAfterApply?: number
  readonly unknownApplyLater?: number
  readonly unavailable?: number
  readonly busy?: number
  /** A share of the calls waits so long before it reaches the store: on `clock` if there is one, else really. */
  readonly delay?: { readonly chance: number; readonly duration: Duration }
  readonly clock?: TestClock
  /** Asked first, for each call; undefined leaves it to the probabilities. May wait, to hold a call where the test wants it. */
  readonly on?: (call: StoreCall) => Verdict | undefined | Promise<Verdict | undefined>
}

export interface FaultCounts {
  readonly calls: number
  readonly passed: number
  readonly unknownBefore: number
  readonly unknownAfter: number
  readonly unknownLater: number
  readonly unavailable: number
  readonly busy: number
  readonly stopped: number
  readonly delayed: number
  readonly thrown: number
}

export interface FaultyKV<V = Uint8Array> extends KV<V> {
  /** What it has done so far. A copy. */
  counts(): FaultCounts
  /** Applies what is still to be applied later, and lets every call pass from now on: for the checks at the end of a test. */
  calm(): Promise<void>
}

/** After how many further calls, at most, an `unknown-later` write is applied. */
const laterCallsMax = 3

/**
 * Wraps a store with faults.
 * @throws KvError INVALID_ARGUMENT when the probabilities do not fit.
 * @example faulty(memory({ clock }), { seed: 7, unknownAfterApply: 0.1 })
 * @example faulty(kv, { on: (call) => (call.verb === 'update' && call.nth === 2 ? 'unknown-after' : 'pass') })
 */
export function faulty<V>(kv: KV<V>, options: FaultyOptions): FaultyKV<V> {
  const random = seededRandom(options.seed ?? 1)
  const { clock, delay } = options
  const rates = [
    ['unknown-before', options.unknownBeforeApply ?? 0],
    ['unknown-after', options.unknownAfterApply ?? 0],
    ['unknown-later', options.unknownApplyLater ?? 0],
    ['unavailable', options.unavailable ?? 0],
    ['busy', options.busy ?? 0],
  ] as const
  const all = [...rates.map(([, rate]) => rate), delay?.chance ?? 0]
  if (all.some((rate) => !(rate >= 0)) || all.reduce((sum, rate) => sum + rate, 0) > 1) {
    invalid('faulty: probabilities must be from 0 to 1 and sum up to at most 1')
  }

  const counts = {
    calls: 0,
    passed: 0,
    unknownBefore: 0,
    unknownAfter: 0,
    unknownLater: 0,
    unavailable: 0,
    busy: 0,
    stopped: 0,
    delayed: 0,
    thrown: 0,
  }
  const later: { callsLeft: number; readonly apply: () => Promise<unknown> }[] = []
  let calmed = false

  const draw = (call: StoreCall): Verdict => {
    let left = random.next()
    for (const [verdict, rate] of rates) {
      if (left < rate) return verdict.startsWith('unknown') && !isWrite(call.verb) ? 'pass' : verdict
      left -= rate
    }
    return delay !== undefined && left < delay.chance ? { delay: delay.duration } : 'pass'
  }
  const applyLater = async (due: (one: { callsLeft: number }) => boolean): Promise<void> => {
    for (const one of later.filter(due)) {
      const at = later.indexOf(one)
      if (at < 0) continue // another call has taken it, while this one waited
      later.splice(at, 1)
      await one.apply().catch(() => undefined) // nobody waits for its answer any more
    }
  }
  const wait = async (ms: number, call: StoreCall, begun: boolean): Promise<void> => {
    counts.delayed += 1
    const { signal, deadline } = call.options
    const deadlineMs = deadline === undefined ? Infinity : durationOf(deadline)
    const waitMs = Math.min(ms, deadlineMs)
    try {
      await (clock ? clock.sleep(waitMs, signal) : realSleep(waitMs, signal))
    } catch {
      throw begun && isWrite(call.verb)
        ? new KvError('UNKNOWN_OUTCOME', { cause: signal?.reason })
        : new KvError('ABORTED', { cause: signal?.reason })
    }
    if (deadlineMs <= ms) throw new KvError(begun && isWrite(call.verb) ? 'UNKNOWN_OUTCOME' : 'DEADLINE_EXCEEDED')
  }

  const wrapped = intercept(kv, async (call, run) => {
    counts.calls += 1
    for (const one of later) one.callsLeft -= 1
    await applyLater((one) => one.callsLeft <= 0)
    const verdict = calmed ? 'pass' : ((await options.on?.(call)) ?? draw(call))
    if (verdict instanceof KvError) {
      counts.thrown += 1
      throw verdict
    }
    if (typeof verdict === 'object') {
      const ms = durationOf(verdict.delay)
      if (verdict.when !== 'after') await wait(ms, call, false)
      const result = await run()
      if (verdict.when === 'after') await wait(ms, call, true)
      return result
    }
    const unknown = (): KvError => (isWrite(call.verb) ? new KvError('UNKNOWN_OUTCOME') : new KvError('UNAVAILABLE'))
    switch (verdict) {
      case 'pass':
        counts.passed += 1
        return await run()
      case 'unknown-before':
        counts.unknownBefore += 1
        throw unknown()
      case 'unknown-after':
        counts.unknownAfter += 1
        await run()
        throw unknown()
      case 'unknown-later':
        counts.unknownLater += 1
        if (isWrite(call.verb)) later.push({ callsLeft: 1 + random.int(laterCallsMax), apply: run })
        throw unknown()
      case 'unavailable':
        counts.unavailable += 1
        throw new KvError('UNAVAILABLE')
      case 'busy':
        counts.busy += 1
        throw new KvError('BUSY')
      case 'stop-before':
        counts.stopped += 1
        return await new Promise<never>(() => {})
      case 'stop-after':
        counts.stopped += 1
        await run()
        return await new Promise<never>(() => {})
      default:
        return invalid(`faulty: there is no verdict '${String(verdict)}'`)
    }
  })
  return Object.assign(wrapped, {
    counts: () => ({ ...counts }),
    calm: async () => {
      calmed = true
      await applyLater(() => true)
    },
  })
}
