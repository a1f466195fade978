/**
 * The constants of the protocol, scaled down so that a history of two seconds has purges, retries and learners in it.
 * Invariant: they stand in the order of the real ones: message delay < an attempt's life < retry window < completions' life < purge age.
 */
import type { CompletionRules } from '../../core/record/operation.ts'
import type { StorageTimes } from '../storage/marks.ts'

/** The greatest difference of two clocks that is tolerated. */
export const scaledBoundMs = 30
export const attemptMs = 150
export const retryWindowMs = 500
export const scaledRules: CompletionRules = { lifeMs: 760, bytesMax: 32_768, countMax: 1_024 }
/** What a request may wait unread: see session.ts, `gapMsMax`. */
export const gapMs = scaledRules.lifeMs - retryWindowMs - attemptMs - 2 * scaledBoundMs

export const scaledTimes: StorageTimes = {
  boundMs: scaledBoundMs,
  completionsLifeMs: scaledRules.lifeMs,
  purgeAgeMs: 800,
  purgeHorizonMs: 500,
  pingLifeMs: 500,
  retryMs: 30,
  pollMs: 60,
  ceilingMs: 100,
  freezeMs: 150,
}
