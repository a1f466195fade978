/**
 * Several policies on one key: whether a request fits all of them, and what the record is afterwards.
 * Pure. Invariant: a request is charged to every policy or to none (R6), and the record's time never runs backwards (R8).
 * Why a plan: what a limiter knows of its policies is worked out once, so that a decision is a walk over a short list.
 */
import { invalid, KvError } from '../../core/kv/errors.ts'
import { concurrencyRule, released, renewed, taken, type Holder } from './rules/concurrency.ts'
import { fixedWindowRule } from './rules/fixed-window.ts'
import { gcraRule } from './rules/gcra.ts'
import type { Rule, State } from './rules/rule.ts'
import { slidingWindowRule } from './rules/sliding-window.ts'
import { tokenBucketRule } from './rules/token-bucket.ts'
import type { Policy, PolicyKind, PolicyState } from './types.ts'

export const rules: Readonly<Record<PolicyKind, Rule>> = {
  gcra: gcraRule,
  'token-bucket': tokenBucketRule,
  'sliding-window': slidingWindowRule,
  'fixed-window': fixedWindowRule,
  concurrency: concurrencyRule,
}

export interface Line {
  readonly name: string
  readonly policy: Policy
  readonly rule: Rule
  /** Tells the policy and its numbers from others in a receipt. */
  readonly id: number
}

/** What a limiter knows of its policies. */
export interface Plan {
  readonly lines: readonly Line[]
  /** The largest cost that can ever fit. Slots do not count: a request takes one. */
  readonly costMax: number
  readonly hasSlots: boolean
  /** After so many milliseconds without a charge a record says nothing any more, debt included. */
  readonly lifeMs: number
}

/** A policy that another process keeps in the same record. */
export interface Other {
  readonly name: string
  readonly policy: Policy
  readonly state: State
}

export interface LimitRecord {
  /** Tells this life of the record from another one: a random number below 2^32. */
  readonly life: number
  /** The latest time that was seen: epoch milliseconds. */
  readonly seenAt: number
  /** In the order of the plan. */
  readonly states: readonly State[]
  readonly others: readonly Other[]
}

const policiesMax = 8
/** Policies of other processes in one record: those of a plan that was replaced, and of one that is being rolled out. */
const othersMax = 8

/** @throws KvError INVALID_ARGUMENT. */
export function planOf(policies: Readonly<Record<string, Policy>>): Plan {
  if (typeof policies !== 'object' || policies === null) invalid('policies must be an object, such as { burst: gcra({ ... }) }')
  const lines = Object.entries(policies).map(([name, policy]): Line => {
    if (!/^[\x21-\x7e]{1,64}$/.test(name))
      invalid(`the name of a policy must be 1 to 64 printable ASCII characters, not ${JSON.stringify(name)}`)
    if (typeof policy !== 'object' || policy === null || !Object.hasOwn(rules, policy.kind))
      invalid(`policy '${name}' must be made by gcra, tokenBucket, slidingWindow, fixedWindow or concurrency`)
    return { name, policy, rule: rules[policy.kind], id: idOf(name, policy) }
  })
  if (lines.length < 1 || lines.length > policiesMax) invalid(`there must be 1 to ${policiesMax} policies, not ${lines.length}`)
  const isSlots = ({ policy }: Line): boolean => policy.kind === 'concurrency'
  return {
    lines,
    costMax: Math.min(...lines.map((line) => (isSlots(line) ? Number.MAX_SAFE_INTEGER : line.policy.limit))),
    hasSlots: lines.some(isSlots),
    // Twice the window: a limit that is used up, and one of debt on top.
    lifeMs: Math.max(...lines.map(({ policy }) => (policy.windowMs ?? policy.perMs) * 2)),
  }
}

export const blank = ({ lines }: Plan, life: number): LimitRecord => ({
  life,
  seenAt: 0,
  states: lines.map(({ rule }) => rule.fresh),
  others: [],
})

/** @throws KvError INVALID_ARGUMENT, COST_TOO_LARGE (R4). */
export function checkCost(cost: number, { costMax }: Plan): void {
  if (!Number.isSafeInteger(cost) || cost < 0) invalid(`cost must be a whole number from 0, not ${String(cost)}`)
  if (cost > costMax)
    throw new KvError('COST_TOO_LARGE', { message: `a cost of ${cost} never fits: the smallest of the policies takes ${costMax} at once` })
}

/** The instant to judge at: the record's time never runs backwards (R8). */
const instantOf = ({ seenAt }: LimitRecord, now: number): number => (seenAt > now ? seenAt : now)

/** When `cost` fits all policies; `now` or earlier: at once. Infinity: nobody knows. */
export function fitsAt(plan: Plan, record: LimitRecord, cost: number, now: number): number {
  const at = instantOf(record, now)
  let latest = at
  for (let index = 0; index < plan.lines.length; index++) {
    const { rule, policy } = plan.lines[index] as Line
    const fits = rule.earliest(record.states[index] as State, policy, cost, at)
    if (fits > latest) latest = fits
  }
  return latest === at ? now : latest
}

/** Names the policies that `cost` does not fit now. */
export function violatedBy(plan: Plan, record: LimitRecord, cost: number, now: number): string[] {
  const at = instantOf(record, now)
  const names: string[] = []
  for (const [index, { name, rule, policy }] of plan.lines.entries())
    if (rule.earliest(record.states[index] as State, policy, cost, at) > at) names.push(name)
  return names
}

/** Charges every policy, whether it fits or not. `when`: the instant that is charged, `now` or a later one. */
export function charged(plan: Plan, record: LimitRecord, cost: number, now: number, when = now): LimitRecord {
  const at = instantOf(record, now)
  const from = when > at ? when : at
  const { lines } = plan
  const states: State[] = []
  for (let index = 0; index < lines.length; index++) {
    const { rule, policy } = lines[index] as Line
    // Nothing keeps more than one limit of debt, so a larger cost says no more.
    states.push(rule.charge(record.states[index] as State, policy, Math.min(cost, policy.limit * 2), from))
  }
  return { life: record.life, seenAt: at, states, others: others(record, at) }
}

/** Takes a slot of each concurrency policy, beside what `charged` did. */
export function withSlots(plan: Plan, record: LimitRecord, holder: Holder): LimitRecord {
  return onSlots(plan, record, (state, policy) => taken(state, policy, holder, record.seenAt)) ?? record
}

/** Undefined: it has been lost. */
export function slotRenewed(plan: Plan, record: LimitRecord, holder: Holder, now: number): LimitRecord | undefined {
  const at = instantOf(record, now)
  return onSlots(plan, { ...record, seenAt: at }, (state, policy) => renewed(state, policy, holder, at))
}

/** Undefined: there was none. */
export function slotReleased(plan: Plan, record: LimitRecord, holder: Holder, now: number): LimitRecord | undefined {
  return onSlots(plan, { ...record, seenAt: instantOf(record, now) }, (state) => released(state, holder))
}

function onSlots(plan: Plan, record: LimitRecord, change: (state: State, policy: Policy) => State | undefined): LimitRecord | undefined {
  const states = [...record.states]
  for (const [index, { policy }] of plan.lines.entries()) {
    if (policy.kind !== 'concurrency') continue
    const next = change(states[index] as State, policy)
    if (next === undefined) return undefined
    states[index] = next
  }
  return { ...record, states }
}

/** FNV-1a, 32 bits. */
function idOf(name: string, { kind, limit, refill = 0, perMs }: Policy): number {
  let hash = 0x811c9dc5
  for (const char of `${name} ${kind} ${limit} ${refill} ${perMs}`) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193)
  return hash >>> 0
}

/** What a receipt remembers: of each policy its id, which changes with its numbers, and the mark of the charge. */
export function marksOf({ lines }: Plan, { states }: LimitRecord): number[] {
  const marks: number[] = []
  for (let index = 0; index < lines.length; index++) {
    const { id, rule } = lines[index] as Line
    marks.push(id, rule.mark(states[index] as State))
  }
  return marks
}

const markOf = (marks: readonly number[], id: number): number | undefined => {
  for (let index = 0; index < marks.length; index += 2) if (marks[index] === id) return marks[index + 1]
  return undefined
}

/** Gives back what is left of a charge; undefined: nothing is, its windows are over, its life is, or its limits have changed (R7). */
export function refunded(
  plan: Plan,
  record: LimitRecord,
  { life, marks }: { readonly life: number; readonly marks: readonly number[] },
  cost: number,
  now: number,
): LimitRecord | undefined {
  if (record.life !== life) return undefined
  const at = instantOf(record, now)
  let isChanged = false
  const states = plan.lines.map(({ id, rule, policy }, index): State => {
    const state = record.states[index] as State
    const mark = markOf(marks, id)
    if (mark === undefined) return state
    const next = rule.refund(state, policy, cost, mark, at)
    if (next !== undefined) isChanged = true
    return next ?? state
  })
  return isChanged ? { life, seenAt: at, states, others: others(record, at) } : undefined
}

/** How each policy stands. `violated`: those that denied. */
export function standing(plan: Plan, record: LimitRecord, now: number, violated: readonly string[]): Record<string, PolicyState> {
  const at = instantOf(record, now)
  const policies: Record<string, PolicyState> = {}
  for (let index = 0; index < plan.lines.length; index++) {
    const { name, rule, policy } = plan.lines[index] as Line
    const state = record.states[index] as State
    const remaining = rule.remaining(state, policy, at)
    const moreAt = rule.moreAt(state, policy, at, remaining)
    policies[name] = {
      limit: policy.limit,
      remaining,
      resetMs: moreAt === undefined ? undefined : moreAt <= at ? 0 : moreAt - now,
      windowMs: policy.windowMs,
      unit: policy.unit,
      violated: violated.length > 0 && violated.includes(name),
    }
  }
  return policies
}

/** How each policy is shown when nobody knows how it stands. */
export function unknownStanding({ lines }: Plan): Record<string, PolicyState> {
  return Object.fromEntries(
    lines.map(({ name, policy: { limit, windowMs, unit } }) => [name, { limit, remaining: 0, windowMs, unit, violated: false }]),
  )
}

/** From this instant on the record says nothing any more: its expiry belongs to its states and not to its last write (R1). */
export function endsAt(plan: Plan, record: LimitRecord): number {
  let end = record.seenAt + 1
  for (let index = 0; index < plan.lines.length; index++) {
    const { rule, policy } = plan.lines[index] as Line
    const ends = rule.endsAt(record.states[index] as State, policy)
    if (ends > end) end = ends
  }
  for (const { policy, state } of record.others) end = Math.max(end, rules[policy.kind].endsAt(state, policy))
  return end
}

/**
 * What a record of other policies means under this plan: a policy of the same name and kind keeps its share, under another kind it begins
 * anew, and policies that this plan does not have are kept for the processes that do (R18, P12).
 */
export function adopted(plan: Plan, life: number, seenAt: number, found: readonly Other[], now: number): LimitRecord {
  const at = Math.max(seenAt, now)
  const states = plan.lines.map(({ name, policy, rule }): State => {
    const one = found.find((other) => other.name === name && other.policy.kind === policy.kind)
    if (one === undefined) return rule.fresh
    const { limit, refill, perMs } = one.policy
    const isSame = limit === policy.limit && (refill ?? 0) === (policy.refill ?? 0) && perMs === policy.perMs
    return isSame ? one.state : rule.rescale(one.state, one.policy, policy, at)
  })
  const isOwn = ({ name, policy }: Other): boolean => plan.lines.some((line) => line.name === name && line.policy.kind === policy.kind)
  return { life, seenAt, states, others: found.filter((one) => !isOwn(one)) }
}

/** Those that still say something; of too many, those that end last. */
function others({ others: all }: LimitRecord, at: number): readonly Other[] {
  if (all.length === 0) return all
  const endOf = ({ policy, state }: Other): number => rules[policy.kind].endsAt(state, policy)
  const left = all.filter((one) => endOf(one) > at)
  return left.length <= othersMax ? left : left.toSorted((one, two) => endOf(two) - endOf(one)).slice(0, othersMax)
}

/** The limits of one of `instances` processes that share them, for deciding without the store. A limit never falls below 1. */
export function partOf({ lines }: Plan, instances: number): Plan {
  const part = (policy: Policy): Policy => {
    const limit = Math.max(1, Math.floor(policy.limit / instances))
    const { kind, perMs } = policy
    if (kind === 'concurrency') return { ...policy, limit }
    // Rates are stretched, not divided: a few units in many processes come to less than one.
    if (policy.refill !== undefined)
      return { ...policy, limit, perMs: perMs * instances, windowMs: Math.ceil((limit * perMs * instances) / policy.refill) }
    const slow = perMs * Math.max(1, Math.ceil(instances / policy.limit))
    return { ...policy, limit, perMs: slow, windowMs: slow }
  }
  return planOf(Object.fromEntries(lines.map(({ name, policy }) => [name, part(policy)])))
}
