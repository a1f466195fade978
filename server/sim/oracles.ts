/**
 * Laws that are cheap to look after: in sorted order, so that they hold over millions of operations of real processes.
 * Pure. Invariant: each sentence that comes back is a fault; what unknown outcomes, destroys and expiries can explain is none.
 * Why beside the checker: they know nothing of orders, so a mistake in the checker does not hide the same fault from them.
 */
import { assert } from '../../core/base/assert.ts'
import type { HistoryOperation, Shown, Value } from './history.ts'
import type { ModelOptions } from './register-model.ts'

/**
 * What the writes of a counting key hold: a name of their own, the version that they were written over, and what they add to which count.
 * Such a key is only created and updated on condition, without expiry, so its states are one chain.
 */
export interface Link {
  readonly id: number
  /** Undefined: the first of its chain. */
  readonly over: string | undefined
  readonly by: number
  /** With `by`. */
  readonly count: number
}

export const linkText = ({ id, over = '', by, count }: Link): string => `${id} ${by} ${count} ${over}`
/** Reads what `linkText` wrote. */
export function linkIn(value: Value): Link {
  const [, id, by, count, over] = /^(\d+) (-?\d+) (-?\d+) ([^]*)$/.exec(String(value)) ?? []
  assert(over !== undefined, `a counting key holds links, not ${value}`)
  return { id: Number(id), over: over === '' ? undefined : over, by: Number(by), count: Number(count) }
}

/** Of the operations of one key: each acknowledged create begins a life, so between two of them an end must at least be possible. */
export function createFaults(operations: readonly HistoryOperation[], options: ModelOptions): string[] {
  const creates = operations.filter(({ verb, answer }) => verb === 'create' && answer.type === 'applied')
  const ends = operations.flatMap((one) => possibleEnd(one, options)).sort((a, b) => a.from - b.from)
  const faults: string[] = []
  if (creates.length > ends.length + 1) faults.push(`${creates.length} creates were acknowledged, and ${ends.length} lives can have ended`)
  let next = 0
  let latest = -Infinity
  creates.sort((a, b) => a.returnedAt - b.returnedAt)
  for (let index = 1; index < creates.length; index++) {
    const one = creates[index - 1] as HistoryOperation
    const other = creates[index] as HistoryOperation
    for (; next < ends.length && (ends[next] as Span).from <= other.returnedAt; next++) latest = Math.max(latest, (ends[next] as Span).to)
    if (latest < Math.min(one.calledAt, other.calledAt))
      faults.push(`creates of ${one.value} and ${other.value} were both acknowledged, and nothing can have ended a life between them`)
  }
  return faults
}

interface Span {
  readonly from: number
  readonly to: number
}

/** When an operation may have ended a life, or may have made one that ends by itself. */
function possibleEnd(one: HistoryOperation, { boundMs, startsAt = 0 }: ModelOptions): Span[] {
  const { verb, answer, expiry, calledAt, returnedAt } = one
  if (answer.type !== 'applied' && answer.type !== 'unknown') return []
  if (verb === 'destroy') return [{ from: calledAt, to: returnedAt }]
  if (verb === 'get') return []
  const shown = answer.type === 'applied' ? answer.entry : undefined
  if (shown?.expiresAt !== undefined)
    return [
      { from: Math.max(calledAt, shown.expiresAt - startsAt - boundMs), to: Math.max(returnedAt, shown.expiresAt - startsAt + boundMs) },
    ]
  const mayExpire = shown === undefined && expiry !== undefined && expiry.type !== 'never' && expiry.type !== 'keep'
  return mayExpire ? [{ from: calledAt, to: Infinity }] : []
}

/**
 * Of the operations of one counting key: walks back from its last state, from each value to the version that it was written over.
 * Every acknowledged value has to be met on the way, and none of a refused write may be.
 * @param final what a read showed when nothing was under way any more; undefined: nothing was there
 */
export function chainFaults(operations: readonly HistoryOperation[], final: Shown | undefined): string[] {
  const faults: string[] = []
  const writes = new Map<Value, HistoryOperation>()
  const valueOf = new Map<string, Value>()
  for (const { verb, value, answer, ...one } of operations) {
    assert(
      verb === 'create' || verb === 'get' || (verb === 'update' && one.ifVersion !== undefined),
      'a counting key is created, and updated on condition',
    )
    if (value !== undefined) writes.set(value, { verb, value, answer, ...one })
    if (!('entry' in answer) || answer.entry === undefined) continue
    const { entry } = answer
    const known = valueOf.get(entry.version)
    if (known !== undefined && known !== entry.value) faults.push(`version ${entry.version} is shown with two values`)
    valueOf.set(entry.version, entry.value)
  }

  const met = new Set<Value>()
  for (let value = final?.value; value !== undefined;) {
    if (met.has(value)) return [...faults, `the chain comes to ${value} a second time`]
    met.add(value)
    const write = writes.get(value)
    if (write === undefined) return [...faults, `the chain has ${value}, which nobody wrote`]
    if (write.answer.type !== 'applied' && write.answer.type !== 'unknown')
      faults.push(`the chain has ${value}, whose write was answered ${write.answer.type}`)
    const { over, by, count } = linkIn(value)
    const before = over === undefined ? undefined : valueOf.get(over)
    if (over !== undefined && before === undefined) return [...faults, `${value} was written over version ${over}, which nobody was shown`]
    if (over !== write.ifVersion) faults.push(`${value} says another version than its condition`)
    if (count !== by + (before === undefined ? 0 : linkIn(before).count))
      faults.push(`${value} does not count on from ${before ?? 'nothing'}`)
    value = before
  }
  for (const [value, { answer }] of writes)
    if (answer.type === 'applied' && !met.has(value)) faults.push(`${value} was acknowledged, and is not in the chain`)
  return faults
}

export interface Increment {
  readonly by: number
  readonly outcome: 'applied' | 'none' | 'unknown'
}

/** What the writes of a counting key were to add. */
export const incrementsOf = (operations: readonly HistoryOperation[]): Increment[] =>
  operations.flatMap(({ value, answer: { type } }) =>
    value === undefined ? [] : [{ by: linkIn(value).by, outcome: type === 'applied' || type === 'unknown' ? type : 'none' }],
  )

/** The final count is the sum of the acknowledged increments, give or take those of unknown outcome. */
export function countFault(increments: readonly Increment[], final: number, begin: number = 0): string | undefined {
  let least = begin
  let most = begin
  for (const { by, outcome } of increments) {
    if (outcome === 'none') continue
    least += outcome === 'applied' ? by : Math.min(0, by)
    most += outcome === 'applied' ? by : Math.max(0, by)
  }
  if (least <= final && final <= most) return undefined
  return `the count is ${final}, and what was acknowledged makes ${least === most ? least : `${least} to ${most}`}`
}
