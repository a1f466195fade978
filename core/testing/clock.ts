/**
 * A clock that stands still until a test moves it, with timers that run on it.
 * Invariant: timers fire in the order of their instants, and each sees `now()` at its own instant, never later.
 * Why `set` fires no timer: a wall clock that is stepped (NTP, an operator) moves no timer of a real machine either.
 */
import { clearTimeout as clearReal, setImmediate as onTurn, setTimeout as setReal } from 'node:timers'
import { epochMs, epochMsMax, parseDuration, type Clock, type Duration, type EpochMs, type Millis } from '../base/types.ts'
import { invalid } from '../kv/errors.ts'

/** What `setTimeout` of a test clock gives. `ref` and `unref` do nothing: no timer of a test clock keeps a process alive. */
export interface TestTimer {
  ref(): TestTimer
  unref(): TestTimer
  hasRef(): boolean
}

/** All its functions may be taken off the object: `const { now, sleep } = testClock()`. */
export interface TestClock extends Clock {
  /** Epoch milliseconds. */
  now(): EpochMs
  /** Milliseconds advanced since the clock was made; never steps back. */
  elapsed(): Millis
  /** Steps the wall clock to an instant, forward or back. Timers stay where they are. */
  set(at: number | Date): void
  /**
   * Lets time pass. Timers that fall due run in order, and what waits for them runs before the promise resolves, as far as it
   * needs nothing but promises, `setImmediate` and this clock: real sockets and disks are not waited for.
   */
  advance(duration: Duration): Promise<void>
  /** Resolves when the clock has advanced so far. Rejects with the reason of the signal. */
  sleep(duration: Duration, signal?: AbortSignal): Promise<void>
  /** As the global one, on this clock. */
  setTimeout(run: () => void, ms?: number): TestTimer
  clearTimeout(timer: TestTimer | undefined): void
  /** In how many milliseconds of `advance` the next timer runs; undefined: none is waiting. */
  nextTimerMs(): Millis | undefined
}

/** 2026-01-01T00:00Z: the same in every run, so that a failure shows the same instants again. */
const defaultStartAt = 1_767_225_600_000
/** Turns of the event loop after each timer: enough for a chain of a few `setImmediate`, cheap enough for thousands of timers. */
const settleTurns = 3
/** Timers that one `advance` may run: more is a timer that starts itself again without end. */
const timersMax = 1_000_000

/** @throws KvError INVALID_ARGUMENT when `startAt` is no instant. @example const clock = testClock(); const kv = memory({ clock }) */
export function testClock(startAt: number | Date = defaultStartAt): TestClock {
  let wallMs: number = instantOf(startAt)
  let elapsedMs = 0
  let count = 0
  interface Waiting extends TestTimer {
    readonly dueMs: number
    readonly order: number
    readonly run: () => void
  }
  const waiting = new Set<Waiting>()

  const next = (): Waiting | undefined => {
    let first: Waiting | undefined
    for (const timer of waiting) {
      if (first === undefined || timer.dueMs < first.dueMs || (timer.dueMs === first.dueMs && timer.order < first.order)) first = timer
    }
    return first
  }
  const passTo = (targetMs: number): void => {
    wallMs += targetMs - elapsedMs
    elapsedMs = targetMs
  }

  const clock: TestClock = {
    now: () => epochMs(wallMs),
    elapsed: () => elapsedMs as Millis,
    set: (at) => {
      wallMs = instantOf(at)
    },
    advance: async (duration) => {
      const targetMs = elapsedMs + durationOf(duration)
      instantOf(wallMs + targetMs - elapsedMs)
      await settle()
      for (let ran = 0; ; ran++) {
        const timer = next()
        if (timer === undefined || timer.dueMs > targetMs) break
        if (ran >= timersMax) throw new Error(`testClock: more than ${timersMax} timers ran in one advance`)
        waiting.delete(timer)
        // Another `advance` may have gone further while this one settled.
        if (timer.dueMs > elapsedMs) passTo(timer.dueMs)
        timer.run()
        await settle()
      }
      if (targetMs > elapsedMs) passTo(targetMs)
      await settle()
    },
    sleep: (duration, signal) =>
      new Promise<void>((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason)
        const onAbort = (): void => {
          clock.clearTimeout(timer)
          reject(signal?.reason)
        }
        const timer = clock.setTimeout(() => {
          signal?.removeEventListener('abort', onAbort)
          resolve()
        }, durationOf(duration))
        signal?.addEventListener('abort', onAbort, { once: true })
      }),
    setTimeout: (run, ms = 0) => {
      const timer: Waiting = {
        dueMs: elapsedMs + Math.max(0, ms),
        order: count++,
        run,
        ref: () => timer,
        unref: () => timer,
        hasRef: () => false,
      }
      waiting.add(timer)
      return timer
    },
    clearTimeout: (timer) => {
      waiting.delete(timer as Waiting)
    },
    nextTimerMs: () => {
      const timer = next()
      return timer === undefined ? undefined : (Math.max(0, timer.dueMs - elapsedMs) as Millis)
    },
  }
  return clock
}

/** Lets what is ready run: all promises, and a few generations of `setImmediate`. */
export async function settle(turns: number = settleTurns): Promise<void> {
  for (let done = 0; done < turns; done++) await new Promise((resolve) => onTurn(resolve))
}

/** Sleeps on the machine's own clock, for stores that have none of a test. Rejects with the reason of the signal. */
export function realSleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise<void>((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const onAbort = (): void => {
      clearReal(timer)
      reject(signal?.reason)
    }
    const timer = setReal(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

export function durationOf(duration: Duration): Millis {
  return parseDuration(duration) ?? invalid(`a duration must be milliseconds or such as '30s', not ${JSON.stringify(duration)}`)
}

function instantOf(at: number | Date): number {
  const ms = typeof at === 'number' ? at : at.getTime()
  if (!Number.isInteger(ms) || ms < 0 || ms > epochMsMax)
    invalid(`an instant must be a Date or whole epoch milliseconds, not ${String(at)}`)
  return ms
}
