/**
 * What one key may do, as the checker sees it: which operations can follow which state, and what they make of it.
 * Pure. Invariant: whatever an answer says is checked against a state; whatever no answer says is left open, as a range.
 * Why ranges: a write of unknown outcome has a version, a birth and an expiry that nobody may ever have seen.
 *
 * A state is named by the operation that wrote it, because values are unique. An expiry is one death at an unknown instant of true
 * time, within `boundMs` of what the record says (whole milliseconds of a clock are a part of that bound): before it everybody sees the entry, after it nobody does.
 */
import { assert } from '../../core/base/assert.ts'
import { epochMsMax } from '../../core/base/types.ts'
import type { HistoryOperation, Shown, Value } from './history.ts'

export interface ModelOptions {
  /** How far a clock by which the store decides may be from true time, in milliseconds. */
  readonly boundMs: number
  /** What a right clock of the store shows at true time 0. Default 0. */
  readonly startsAt?: number
  /** False: versions and births are not compared, a condition names the values that its version was shown with. Default true. */
  readonly isStrict?: boolean
}

/** Later than any instant, and still not "never", which is Infinity. */
const someTime = Number.MAX_VALUE
/** The state that a write left that no answer shows. Which write it was does not matter. */
const unseen = -2

/** A live state. The key without an entry is `undefined`. */
export interface State {
  /** Index of the item that wrote it, or `unseen`. */
  readonly by: number
  readonly bornMin: number
  readonly bornMax: number
  /** Infinity: it never dies. */
  readonly expiryMin: number
  readonly expiryMax: number
}

/** An operation that is, or may be, part of the order. */
export interface Item {
  readonly operation: HistoryOperation
  readonly effect: 'write' | 'destroy' | 'none'
  /** Earliest and latest instant of its effect; narrower than its call when answers to others say so. */
  from: number
  to: number
  /** The item whose state must be there before it. -1: there is no such. */
  needs: number
  /** What the answers show of the state that it wrote. */
  shows: Shown | undefined
}

export interface Model {
  /** Must be in the order, sorted by `from`. */
  readonly items: readonly Item[]
  /** May be in the order: writes and destroys of unknown outcome that no answer shows. Those of a class are alike; each is sorted by `from`. */
  readonly classes: readonly (readonly Item[])[]
  /** For each item those that must come while its state is there. */
  readonly needers: readonly (readonly number[])[]
  /** Whether any state of the history may expire. */
  readonly mayExpire: boolean
  /** The state after an item at the instant `time`, if it can come then: `{ state }`. */
  follow(item: Item, index: number, state: State | undefined, time: number): { readonly state: State | undefined } | undefined
  /** From when on the state may be dead. Infinity: it never dies. */
  deadFrom(state: State): number
}

/** Makes the model of one key's history; a sentence when two answers cannot both be true in any order. */
export function modelOf(operations: readonly HistoryOperation[], { boundMs, startsAt = 0, isStrict = true }: ModelOptions): Model | string {
  const writers = new Map<Value, HistoryOperation>()
  for (const operation of operations) {
    const { verb, value } = operation
    if (verb === 'get' || verb === 'destroy') continue
    assert(value !== undefined && !writers.has(value), 'each write of a key has a value of its own')
    writers.set(value, operation)
  }
  const seen = seenIn(operations, writers, isStrict)
  if (typeof seen === 'string') return seen
  const { shownOf, valuesOf } = seen

  const items: Item[] = []
  const optional: Item[] = []
  for (const operation of operations) {
    const { verb, answer, value, calledAt, returnedAt } = operation
    const wrong = nonsense(operation, isStrict)
    if (wrong !== undefined) return wrong
    const shows = verb === 'get' || verb === 'destroy' ? undefined : shownOf.get(value as Value)
    if (answer.type === 'no-effect' || (answer.type === 'unknown' && verb === 'get')) continue
    const isApplied = answer.type === 'applied' || answer.type === 'unknown'
    const effect = !isApplied ? 'none' : verb === 'destroy' ? 'destroy' : 'write'
    const item: Item = { operation, effect, from: calledAt, to: returnedAt, needs: -1, shows }
    if (answer.type === 'unknown' && shows === undefined) optional.push(item)
    else items.push(item)
  }
  items.sort((a, b) => a.from - b.from || a.to - b.to)
  const indexOf = new Map<Value, number>()
  items.forEach(({ effect, operation }, index) => effect === 'write' && indexOf.set(operation.value as Value, index))

  for (const item of items) {
    const value = valueNeeded(item, valuesOf)
    if (value === undefined) continue
    item.needs = indexOf.get(value) ?? -1
  }
  narrow(items)
  const order = items.map((_, index) => index).sort((a, b) => (items[a] as Item).from - (items[b] as Item).from)
  const places = new Map(order.map((old, place) => [old, place]))
  const sorted = order.map((old) => items[old] as Item)
  for (const item of sorted) item.needs = places.get(item.needs) ?? -1
  const needers: number[][] = sorted.map(() => [])
  sorted.forEach(({ needs }, index) => needers[needs]?.push(index))

  const mayExpire = operations.some(({ expiry }) => expiry !== undefined && expiry.type !== 'keep' && expiry.type !== 'never')
  return {
    items: sorted,
    classes: classesOf(optional),
    needers,
    mayExpire: mayExpire || [...shownOf.values()].some(({ expiresAt }) => expiresAt !== undefined),
    deadFrom: (state) => state.expiryMin - boundMs,
    follow: (item, index, before, time) => {
      const { verb, answer, ifVersion } = item.operation
      // Past its last instant the entry is not there any more: its death has to come first.
      if (before !== undefined && time > before.expiryMax + boundMs) return undefined
      if (item.needs >= 0 && before?.by !== item.needs) return undefined
      if (item.effect === 'none') {
        const isShown = 'entry' in answer && answer.entry !== undefined
        return isShown === (before !== undefined) ? { state: before } : undefined
      }
      if (verb === 'create' && before !== undefined) return undefined
      if (before === undefined && (verb === 'update' || ifVersion !== undefined)) return undefined
      if (ifVersion !== undefined && item.needs < 0 && !mayBe(before as State, ifVersion)) return undefined
      if (item.effect === 'destroy') return { state: undefined }
      const state = written(item, index, before)
      return state && { state }
    },
  }

  /** Whether a state can be the one that a version names, when that is not known beforehand. */
  function mayBe(state: State, version: string): boolean {
    const values = valuesOf.get(version)
    if (values === undefined) return state.by === unseen
    const value = (sorted[state.by] as Item | undefined)?.operation.value
    return value !== undefined && values.has(value)
  }

  function written({ operation, shows }: Item, index: number, before: State | undefined): State | undefined {
    const [bornMin, bornMax] = before ? [before.bornMin, before.bornMax] : [operation.calledAt - boundMs, someTime]
    const [expiryMin, expiryMax] = expiryRange(operation, before, boundMs, startsAt)
    if (shows === undefined) return { by: unseen, bornMin, bornMax, expiryMin, expiryMax }
    const createdAt = shows.createdAt - startsAt
    const expiresAt = (shows.expiresAt ?? Infinity) - startsAt
    if (isStrict && (createdAt < bornMin || createdAt > bornMax)) return undefined
    if (expiresAt < expiryMin || expiresAt > expiryMax) return undefined
    return { by: index, bornMin: createdAt, bornMax: createdAt, expiryMin: expiresAt, expiryMax: expiresAt }
  }
}

/** What all answers together show: of each value its entry, of each version its values. */
function seenIn(
  operations: readonly HistoryOperation[],
  writers: ReadonlyMap<Value, HistoryOperation>,
  isStrict: boolean,
): { readonly shownOf: Map<Value, Shown>; readonly valuesOf: Map<string, Set<Value>> } | string {
  const shownOf = new Map<Value, Shown>()
  const valuesOf = new Map<string, Set<Value>>()
  for (const { answer } of operations) {
    if (!('entry' in answer) || answer.entry === undefined) continue
    const { entry } = answer
    const { value, version } = entry
    const writer = writers.get(value)
    if (writer === undefined) return `${value} is shown, and nobody wrote it`
    if (writer.answer.type !== 'applied' && writer.answer.type !== 'unknown')
      return `${value} is shown, and the operation that was to write it was answered ${writer.answer.type}`
    const before = shownOf.get(value)
    if (before === undefined) shownOf.set(value, entry)
    else if (isStrict && before.version !== version) return `${value} is shown with two versions, ${before.version} and ${version}`
    else if (isStrict && before.createdAt !== entry.createdAt) return `${value} is shown with two times of birth`
    else if (before.expiresAt !== entry.expiresAt) return `${value} is shown with two expiries`
    const values = valuesOf.get(version)
    if (values === undefined) valuesOf.set(version, new Set([value]))
    else if (isStrict && !values.has(value)) return `version ${version} is shown with two values, ${[...values][0]} and ${value}`
    else values.add(value)
  }
  return { shownOf, valuesOf }
}

/** An answer that its verb never gets, or that contradicts its own question. */
function nonsense({ verb, answer, ifVersion, value }: HistoryOperation, isStrict: boolean): string | undefined {
  const isAllowed = (() => {
    switch (answer.type) {
      case 'read':
        return verb === 'get'
      case 'applied':
        return verb === 'destroy' || (verb !== 'get' && answer.entry?.value === value)
      case 'exists':
        return verb === 'create'
      case 'missing':
        return verb === 'update' || ((verb === 'set' || verb === 'destroy') && ifVersion !== undefined)
      case 'version':
        return ifVersion !== undefined && verb !== 'create' && verb !== 'get' && !(isStrict && answer.entry.version === ifVersion)
      default:
        return true
    }
  })()
  return isAllowed ? undefined : `a ${verb}${ifVersion === undefined ? '' : ` with a condition`} was answered ${JSON.stringify(answer)}`
}

/** The value that must be there before an item. */
function valueNeeded({ operation, effect }: Item, valuesOf: ReadonlyMap<string, ReadonlySet<Value>>): Value | undefined {
  const { answer, ifVersion } = operation
  if (effect !== 'write' && 'entry' in answer && answer.entry !== undefined) return answer.entry.value
  if (effect === 'none' || ifVersion === undefined) return undefined
  const values = valuesOf.get(ifVersion)
  return values?.size === 1 ? [...values][0] : undefined
}

/** Nobody sees a state before it was asked for, and whoever is answered with it proves that it was there by then. */
function narrow(items: readonly Item[]): void {
  for (const item of items) {
    const writer = items[item.needs]
    if (writer) item.from = Math.max(item.from, writer.from)
  }
  for (const item of items.toReversed()) {
    const writer = items[item.needs]
    if (writer) writer.to = Math.min(writer.to, item.to)
  }
}

function expiryRange(
  { verb, expiry, calledAt, returnedAt }: HistoryOperation,
  before: State | undefined,
  boundMs: number,
  startsAt: number,
): [number, number] {
  const kept: [number, number] = before ? [before.expiryMin, before.expiryMax] : [Infinity, Infinity]
  if (expiry === undefined) return verb === 'create' ? [Infinity, Infinity] : kept
  if (expiry.type === 'keep') return kept
  if (expiry.type === 'never') return [Infinity, Infinity]
  if (expiry.type === 'until') return [expiry.at - startsAt, expiry.at - startsAt]
  const min = Math.min(calledAt - boundMs + expiry.ttlMs, epochMsMax - startsAt)
  const max = returnedAt === Infinity ? someTime : Math.min(returnedAt + boundMs + expiry.ttlMs, epochMsMax - startsAt)
  if (expiry.type === 'set' || before === undefined) return [min, max]
  return [Math.max(kept[0], min), Math.max(kept[1], max)]
}

/** Effects that nobody can tell apart: of each class the one called first may stand for all. */
function classesOf(optional: readonly Item[]): Item[][] {
  const classes = new Map<string, Item[]>()
  for (const item of optional.toSorted((a, b) => a.from - b.from)) {
    const { verb, ifVersion, expiry } = item.operation
    const name = JSON.stringify([verb, ifVersion ?? null, expiry ?? null])
    const list = classes.get(name)
    if (list) list.push(item)
    else classes.set(name, [item])
  }
  return [...classes.values()]
}
