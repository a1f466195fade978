/**
 * One history from its seed to its verdicts.
 * Invariant: what could not be decided is counted, and never passes for right.
 */
import { byKey, operationsOf } from './history.ts'
import { check, told } from './linearizable.ts'
import { createFaults } from './oracles.ts'
import { play, scaledBoundMs, type Played, type ScenarioOptions } from './scenario.ts'
import { wallStart } from './world.ts'

export interface Trial {
  readonly seed: number
  readonly zones: number
  readonly operations: number
  readonly faults: Played['faultCounts']
  readonly undecided: number
  /** Each with the shortest bad start of its key's history. */
  readonly violations: readonly string[]
  readonly sometimes: Readonly<Record<string, number>>
  readonly logHash: string
}

export function tryHistory(seed: number, options: ScenarioOptions): Trial {
  const played = play(seed, options)
  const operations = operationsOf(played.calls)
  const violations = [...played.problems]
  let undecided = 0
  const time = { boundMs: scaledBoundMs, startsAt: wallStart }
  for (const [key, ofKey] of byKey(operations)) {
    violations.push(...createFaults(ofKey, time))
    const verdict = check(ofKey, time)
    if (verdict.type === 'undecided') undecided++
    if (verdict.type === 'violation')
      violations.push(`key ${key}, ${played.zones} zones, faults ${played.faults.join(' ')}\n${told(verdict)}`)
  }
  return {
    seed,
    zones: played.zones,
    operations: operations.length,
    faults: played.faultCounts,
    undecided,
    violations,
    sometimes: played.sometimes,
    logHash: played.logHash,
  }
}
