/** The checker against histories that are right by construction, against planted mistakes, and against all permutations. */
import { describe, expect, it } from 'vitest'
import { seededRandom, type Random } from '../../core/base/random.ts'
import { historyUntil, operationsOf, type CallAnswer, type HistoryOperation, type Shown } from './history.ts'
import { check, told, type Verdict } from './linearizable.ts'
import { mistakes, singleCopy, type Mistake, type SingleCopyKnobs } from './single-copy.ts'

const boundMs = 10
const startsAt = 1_000_000
const options = { boundMs, startsAt }
const usual = { clients: 5, requests: 100, loss: 0.08, expiring: 0.3, boundMs }

function judge(knobs: SingleCopyKnobs): {
  readonly verdict: Verdict
  readonly operations: readonly HistoryOperation[]
  readonly mistakeAt: number | undefined
} {
  const { calls, mistakeAt } = singleCopy(knobs)
  const operations = operationsOf(calls)
  return { verdict: check(operations, options), operations, mistakeAt }
}

describe('a single copy behind lossy wires', () => {
  // Steps, and not times: a step costs some microseconds. `stepsMax` is twice what was seen in 300 seeds.
  for (const [name, knobs, stepsMax] of [
    ['the usual', usual, 500],
    ['no expiry', { ...usual, expiring: 0 }, 250],
    ['much is lost', { ...usual, loss: 0.3 }, 400],
    ['everything expires', { ...usual, expiring: 1 }, 400],
    ['eight clients', { ...usual, clients: 8 }, 2_600],
  ] as const) {
    it(`passes within ${stepsMax} steps: ${name}`, () => {
      for (let seed = 1; seed <= 100; seed++) {
        const { verdict, operations } = judge({ ...knobs, seed })
        if (verdict.type !== 'linearizable') expect.fail(`seed ${seed}: ${verdict.type === 'violation' ? told(verdict) : verdict.type}`)
        expect(verdict.steps, `seed ${seed}`).toBeLessThanOrEqual(stepsMax)
        expect(isOrder(verdict.order, operations), `seed ${seed}`).toBe(true)
      }
    })
  }
})

/** Each answered operation is there once, and none comes after one that was asked for only when it had its answer. */
function isOrder(order: readonly HistoryOperation[], operations: readonly HistoryOperation[]): boolean {
  const isThere = new Set(order)
  const isComplete = operations.every((one) => isThere.has(one) || one.answer.type === 'unknown' || one.answer.type === 'no-effect')
  let calledAt = 0
  return (
    isComplete &&
    isThere.size === order.length &&
    order.every((one) => {
      calledAt = Math.max(calledAt, one.calledAt)
      return one.returnedAt >= calledAt
    })
  )
}

describe('one planted mistake', () => {
  // What is not caught has another explanation: a write of unknown outcome, a late one, or nobody looked.
  const shares: Partial<Record<Mistake, number>> = {
    'lost write': 0.6,
    'effect after no-effect': 0.8,
    'dead before its expiry': 0.85,
    'expiry lost': 0.8,
  }
  for (const mistake of mistakes) {
    it(`is caught: ${mistake}`, () => {
      let planted = 0
      let caught = 0
      for (let seed = 1; seed <= 600 && planted < 40; seed++) {
        const { verdict, mistakeAt, operations } = judge({ ...usual, loss: 0.03, mistake, seed })
        expect(verdict.type, `seed ${seed}`).not.toBe('undecided')
        if (mistakeAt === undefined) {
          expect(verdict.type, `seed ${seed}`).toBe('linearizable')
          continue
        }
        planted++
        if (verdict.type !== 'violation') continue
        caught++
        expect(check(verdict.prefix, options).type, `the prefix of seed ${seed}`).toBe('violation')
        const end = Math.max(...verdict.prefix.map(({ returnedAt }) => (returnedAt === Infinity ? 0 : returnedAt)))
        expect(end, `seed ${seed}`).toBeGreaterThanOrEqual(mistakeAt)
        const before = operations.map(({ returnedAt }) => returnedAt).filter((at) => at < end)
        expect(check(historyUntil(operations, Math.max(...before)), options).type, `before the end of seed ${seed}`).toBe('linearizable')
      }
      expect(planted).toBeGreaterThanOrEqual(20)
      expect(caught / planted).toBeGreaterThanOrEqual(shares[mistake] ?? 0.95)
    })
  }
})

describe('against all permutations', () => {
  for (const isTimed of [false, true]) {
    it(`says of tiny histories ${isTimed ? 'with' : 'without'} expiry what trying everything says`, () => {
      const counts = { linearizable: 0, violation: 0, undecided: 0 }
      for (let seed = 1; seed <= 10_000; seed++) {
        const random = seededRandom(seed)
        const knobs = { clients: 4, requests: 4 + random.int(4), loss: 0.15, expiring: isTimed ? 0.7 : 0, boundMs, seed }
        const operations = bent(operationsOf(singleCopy(knobs).calls), random)
        const verdict = check(operations, options)
        counts[verdict.type]++
        const expected = isExplainedBySomeOrder(operations) ? 'linearizable' : 'violation'
        if (verdict.type !== expected)
          expect.fail(`seed ${seed}: ${expected}, but ${verdict.type === 'violation' ? told(verdict) : verdict.type}`)
      }
      expect(counts.undecided).toBe(0)
      expect(Math.min(counts.linearizable, counts.violation)).toBeGreaterThan(400)
    })
  }
})

/** The history with up to four changes, each of which may make it wrong. */
function bent(operations: readonly HistoryOperation[], random: Random): HistoryOperation[] {
  const bentOnes = [...operations]
  const entries = operations.flatMap(({ answer }) => ('entry' in answer && answer.entry ? [answer.entry] : []))
  for (let change = random.int(5); change > 0; change--) {
    const at = random.int(bentOnes.length)
    const one = bentOnes[at] as HistoryOperation
    const { answer } = one
    switch (random.int(6)) {
      case 0:
        if (entries.length > 0 && (answer.type === 'read' || answer.type === 'exists' || answer.type === 'version'))
          bentOnes[at] = { ...one, answer: { ...answer, entry: random.pick(entries) } }
        break
      case 1:
        if (answer.type === 'read') bentOnes[at] = { ...one, answer: { type: 'read', now: answer.now } }
        break
      case 2:
        bentOnes[at] = { ...one, returnedAt: Infinity, answer: { type: 'unknown' } }
        break
      case 3:
        bentOnes[at] = { ...one, answer: { type: 'no-effect', why: 'overload' } }
        break
      case 4: {
        const byMs = random.next() * 60 - 30
        bentOnes[at] = { ...one, calledAt: one.calledAt + byMs, returnedAt: one.returnedAt + byMs }
        break
      }
      default:
        if (answer.type === 'applied' && one.verb === 'destroy') bentOnes[at] = { ...one, answer: { type: 'missing', now: 0 } }
    }
  }
  return bentOnes
}

type Range = readonly [number, number]
interface PlainState {
  readonly value: unknown
  readonly version: string | undefined
  readonly born: Range
  readonly dies: Range
}

/** Tries every subset of the unknown, every order, and every moment of death. Shares nothing with the checker but its questions. */
function isExplainedBySomeOrder(operations: readonly HistoryOperation[]): boolean {
  const shows = operations.flatMap(({ answer }) => ('entry' in answer && answer.entry ? [answer.entry] : []))
  for (const a of shows) for (const b of shows) if ((a.value === b.value) !== (a.version === b.version)) return false
  const versionOf = (value: unknown): string | undefined => shows.find((one) => one.value === value)?.version
  const isShown = (version: string): boolean => shows.some((one) => one.version === version)

  const go = (left: readonly HistoryOperation[], state: PlainState | undefined, time: number): boolean => {
    const must = left.filter(({ answer }) => answer.type !== 'unknown' && answer.type !== 'no-effect')
    if (must.length === 0) return true
    if (must.some(({ returnedAt }) => returnedAt < time)) return false
    if (state !== undefined && state.dies[0] < Infinity && go(left, undefined, Math.max(time, state.dies[0] - boundMs))) return true
    return left.some((one) => {
      if (one.answer.type === 'no-effect' || one.calledAt > Math.min(...must.map(({ returnedAt }) => returnedAt))) return false
      const at = Math.max(time, one.calledAt)
      const rest = left.filter((other) => other !== one)
      return results(one, state).some(({ seen, next }) => (seen === undefined || at <= seen.dies[1] + boundMs) && go(rest, next, at))
    })
  }
  return go(operations, undefined, -Infinity)

  /** What can come of an operation: the state as it must have been, and as it is after. */
  function results(one: HistoryOperation, state: PlainState | undefined): { seen: PlainState | undefined; next: PlainState | undefined }[] {
    const { verb, answer, ifVersion } = one
    const refusal = refusalOf(one, state)
    if (answer.type === 'unknown') {
      if (verb === 'get' || refusal !== undefined) return []
      return [{ seen: state, next: verb === 'destroy' ? undefined : made(one, state, undefined) }]
    }
    const shown = 'entry' in answer ? answer.entry : undefined
    if (verb === 'get') {
      if (answer.type !== 'read' || (shown === undefined) !== (state === undefined)) return []
      const seen = shown && state && met(state, shown)
      return shown === undefined ? [{ seen: undefined, next: undefined }] : seen ? [{ seen, next: seen }] : []
    }
    if (answer.type === 'missing')
      return refusal === 'missing' && (verb !== 'set' || ifVersion !== undefined) ? [{ seen: undefined, next: undefined }] : []
    if (answer.type !== 'applied') {
      if (answer.type !== refusal || shown === undefined || state === undefined) return []
      const seen = met(state, shown)
      return seen ? [{ seen, next: seen }] : []
    }
    if (refusal !== undefined) return []
    if (verb === 'destroy') {
      const seen = shown === undefined ? state : state && met(state, shown)
      return shown !== undefined && seen === undefined ? [] : [{ seen, next: undefined }]
    }
    const next = made(one, state, shown)
    return next ? [{ seen: state, next }] : []
  }

  function refusalOf({ verb, ifVersion }: HistoryOperation, state: PlainState | undefined): CallAnswer['type'] | undefined {
    if (verb === 'get') return undefined
    if (verb === 'create') return state ? 'exists' : undefined
    if (state === undefined) return verb === 'update' || ifVersion !== undefined ? 'missing' : undefined
    if (ifVersion === undefined) return undefined
    const version = versionOf(state.value)
    return version === ifVersion || (version === undefined && !isShown(ifVersion)) ? undefined : 'version'
  }

  function met(state: PlainState, { value, createdAt, expiresAt = Infinity }: Shown): PlainState | undefined {
    const isSame = value === state.value && isIn(createdAt - startsAt, state.born) && isIn(expiresAt - startsAt, state.dies)
    return isSame
      ? { ...state, born: [createdAt - startsAt, createdAt - startsAt], dies: [expiresAt - startsAt, expiresAt - startsAt] }
      : undefined
  }

  function made(one: HistoryOperation, state: PlainState | undefined, shown: Shown | undefined): PlainState | undefined {
    const { value, expiry, calledAt, returnedAt } = one
    const born: Range = state?.born ?? [calledAt - boundMs, Number.MAX_VALUE]
    let dies: Range = state?.dies ?? [Infinity, Infinity]
    if (expiry?.type === 'never') dies = [Infinity, Infinity]
    if (expiry?.type === 'until') dies = [expiry.at - startsAt, expiry.at - startsAt]
    if (expiry?.type === 'set' || expiry?.type === 'extend') {
      const fresh: Range = [calledAt - boundMs + expiry.ttlMs, Math.min(Number.MAX_VALUE, returnedAt + boundMs + expiry.ttlMs)]
      dies = expiry.type === 'set' || state === undefined ? fresh : [Math.max(dies[0], fresh[0]), Math.max(dies[1], fresh[1])]
    }
    const state2: PlainState = { value, version: versionOf(value), born, dies }
    const entry = shown ?? shows.find((other) => other.value === value)
    return entry === undefined ? state2 : met(state2, entry)
  }
}

const isIn = (value: number, [min, max]: Range): boolean => min <= value && value <= max
