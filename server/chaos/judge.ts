/**
 * What the history of the registers says, by the simulator's checker and its oracle of creates.
 * Pure. Invariant: a key is good only when the checker found an order that explains it; one that it could not decide is counted, never passed.
 */
import { clockBoundMs } from '../proxy/clock.ts'
import { byKey, type HistoryOperation } from '../sim/history.ts'
import { check, told } from '../sim/linearizable.ts'
import { createFaults } from '../sim/oracles.ts'

export interface Judged {
  /** Each is a text for people. */
  readonly violations: readonly string[]
  readonly undecided: number
}

/** @param startsAt what a right clock shows at the history's time 0 */
export function judge(operations: readonly HistoryOperation[], startsAt: number): Judged {
  const options = { boundMs: clockBoundMs, startsAt }
  const violations: string[] = []
  let undecided = 0
  for (const [key, ofKey] of byKey(operations)) {
    const verdict = check(ofKey, options)
    if (verdict.type === 'violation') violations.push(`${key}: ${told(verdict)}`)
    if (verdict.type === 'undecided') undecided++
    for (const fault of createFaults(ofKey, options)) violations.push(`${key}: ${fault}`)
  }
  return { violations, undecided }
}
