/**
 * One history from its seed to its verdicts.
 * Invariant: what could not be decided is counted, and never passes for right.
 */
import { byKey, historyUntil, operationsOf, type HistoryOperation } from './history.ts'
import { check, told } from './linearizable.ts'
import { chainFaults, countFault, createFaults, incrementsOf, linkIn } from './oracles.ts'
import { scaledBoundMs } from './scale.ts'
import { play, type Played, type ScenarioOptions } from './scenario.ts'
import { wallStart } from './clock.ts'

/** Wall clocks come in whole milliseconds: the server's that is measured, and the proxy's own. */
const roundingMs = 2

export interface Trial {
  readonly seed: number
  readonly zones: number
  readonly operations: number
  readonly faults: Played['faultCounts']
  readonly undecided: number
  /** Each with the shortest bad start of its key's history. */
  readonly violations: readonly string[]
  /** Of which keys. */
  readonly badKeys: readonly string[]
  readonly sometimes: Readonly<Record<string, number>>
  readonly logHash: string
}

export function tryHistory(seed: number, options: ScenarioOptions): Trial {
  const played = play(seed, options)
  const operations = operationsOf(played.calls)
  const violations = [...played.problems]
  const badKeys = new Set<string>()
  let undecided = 0
  const time = { boundMs: scaledBoundMs + roundingMs, startsAt: wallStart }
  for (const [key, ofKey] of byKey(operations)) {
    const before = violations.length
    for (const part of partsOf(ofKey, played.seamAt)) {
      violations.push(...createFaults(part, time))
      const verdict = check(part, time)
      if (verdict.type === 'undecided') undecided++
      if (verdict.type === 'violation')
        violations.push(`key ${key}, ${played.zones} zones, faults ${played.faults.join(' ')}\n${told(verdict)}`)
    }
    if (violations.length > before) badKeys.add(key)
  }
  const faults = countingFaults(played, operations)
  if (faults.length > 0) badKeys.add(played.countingKey as string)
  violations.push(...faults)
  return {
    seed,
    zones: played.zones,
    operations: operations.length,
    faults: played.faultCounts,
    undecided,
    violations,
    badKeys: [...badKeys],
    sometimes: played.sometimes,
    logHash: played.logHash,
  }
}

/** Q11. After an accepted loss the chain may have lost its end. */
function countingFaults({ countingKey: key, finals, seamAt }: Played, operations: readonly HistoryOperation[]): string[] {
  if (key === undefined || seamAt !== undefined || !finals.has(key)) return []
  const ofKey = operations.filter((one) => one.key === key)
  const final = finals.get(key)
  const fault = countFault(incrementsOf(ofKey), final === undefined ? 0 : linkIn(final.value).count)
  return [...chainFaults(ofKey, final), ...(fault === undefined ? [] : [fault])].map((text) => `counting key ${key}: ${text}`)
}

/**
 * Where all zones lost their power at once and the loss was accepted, what was before and what is after are right each for itself: any part of
 * what was under way, or acknowledged, before may have come over, in its order, and nothing else.
 */
function partsOf(operations: readonly HistoryOperation[], seamAt: number | undefined): readonly (readonly HistoryOperation[])[] {
  if (seamAt === undefined) return [operations]
  const after = operations.flatMap((one) => {
    if (one.calledAt > seamAt) return [one]
    const isNothing = one.verb === 'get' || one.answer.type === 'no-effect'
    return isNothing ? [] : [{ ...one, returnedAt: Infinity, answer: { type: 'unknown' } as const }]
  })
  return [historyUntil(operations, seamAt), after]
}
