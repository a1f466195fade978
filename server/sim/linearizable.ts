/**
 * Looks for an order of a key's operations that respects true time and explains every answer: linearizability.
 * Pure. Invariant: `linearizable` comes with such an order, `violation` means that all orders were ruled out, and whatever was not
 * searched to its end is `undecided`.
 * Source: Wing and Gong 1993; the memo of (what is done, state) from Lowe, "Testing for linearizability", 2017.
 *
 * Why it stays fast with many unknown outcomes: a write that some answer shows must have come before that answer, so only those
 * that nobody saw are optional; and a state is never left while an answer that shows it still waits, for it cannot come again.
 */
import { byKey, drawn, historyUntil, type HistoryOperation } from './history.ts'
import { modelOf, type Item, type Model, type ModelOptions, type State } from './register-model.ts'

export interface CheckOptions extends ModelOptions {
  /** Nodes of one search. Default 200,000; a history of 100 operations needs some hundreds. */
  readonly stepsMax?: number
}

export type Verdict =
  | { readonly type: 'linearizable'; readonly steps: number; readonly order: readonly HistoryOperation[] }
  | {
      readonly type: 'violation'
      readonly steps: number
      readonly reason: string
      /** The shortest start of the history that cannot be explained; what is not answered at its end is unknown there. */
      readonly prefix: readonly HistoryOperation[]
    }
  | { readonly type: 'undecided'; readonly steps: number }

const stepsMaxDefault = 200_000

/** Checks the operations of one key. */
export function check(operations: readonly HistoryOperation[], options: CheckOptions): Verdict {
  const found = explain(operations, options)
  if (found.type !== 'violation') return found
  const ends = operations.map(({ returnedAt }) => returnedAt).filter(Number.isFinite)
  ends.sort((a, b) => a - b)
  // A start of an explainable history is explainable, so the first bad end can be halved for.
  let prefix = operations
  let { reason } = found
  let low = 0
  let high = ends.length - 1
  while (low <= high) {
    const middle = (low + high) >> 1
    const start = historyUntil(operations, ends[middle] as number)
    const verdict = explain(start, options)
    if (verdict.type === 'violation') {
      prefix = start
      reason = verdict.reason
      high = middle - 1
    } else low = middle + 1
  }
  return { type: 'violation', steps: found.steps, reason, prefix }
}

/** Checks each key of a history for itself. */
export function checkAll(operations: readonly HistoryOperation[], options: CheckOptions): Map<string, Verdict> {
  return new Map([...byKey(operations)].map(([key, list]) => [key, check(list, options)]))
}

/** For a transcript: what is wrong, and the shortest bad start. */
export const told = ({ reason, prefix }: Verdict & { type: 'violation' }): string => `no order explains this: ${reason}\n${drawn(prefix)}`

/** One partial order. Nodes of a search hang together by `before`, so that the order can be read off. */
interface Node {
  /** Bit of each item that is done, 16 a word. */
  readonly done: Uint16Array
  /** How many of each class are done. */
  readonly used: Uint8Array
  readonly count: number
  /** The first item that is not done. */
  readonly first: number
  readonly state: State | undefined
  /** No later effect is earlier than this. */
  readonly time: number
  readonly item: Item | undefined
  readonly before: Node | undefined
}

type Found =
  | Extract<Verdict, { type: 'linearizable' | 'undecided' }>
  | { readonly type: 'violation'; readonly steps: number; readonly reason: string }

function explain(operations: readonly HistoryOperation[], options: CheckOptions): Found {
  const model = modelOf(operations, options)
  if (typeof model === 'string') return { type: 'violation', steps: 0, reason: model }
  const { stepsMax = stepsMaxDefault } = options
  const root: Node = {
    done: new Uint16Array((model.items.length + 15) >> 4),
    used: new Uint8Array(model.classes.length),
    count: 0,
    first: 0,
    state: undefined,
    time: -Infinity,
    item: undefined,
    before: undefined,
  }
  const stack = [root]
  const states = new Map<string, number>()
  const earliest = new Map<string, number>()
  let deepest = root
  let steps = 0
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    if (node.count === model.items.length) return { type: 'linearizable', steps, order: orderTo(node) }
    if (++steps > stepsMax) return { type: 'undecided', steps }
    if (node.count > deepest.count) deepest = node
    for (const next of nextNodes(node, model)) {
      const name = nameOf(next, states)
      const known = earliest.get(name)
      if (known !== undefined && known <= next.time) continue // an earlier time leaves more open
      earliest.set(name, next.time)
      stack.push(next)
    }
  }
  return { type: 'violation', steps, reason: stuckAt(deepest, model) }
}

const isDone = ({ done }: Node, index: number): boolean => (((done[index >> 4] as number) >> (index & 15)) & 1) === 1

/** All ways to go on, the most promising last. */
function nextNodes(node: Node, model: Model): readonly Node[] {
  const { items, classes, needers, mayExpire } = model
  const { state, time } = node
  const waiting: number[] = []
  let firstEnd = Infinity
  for (let index = node.first; index < items.length; index++) {
    const item = items[index] as Item
    if (item.from > firstEnd) break // those after it begin later still, and end later
    if (isDone(node, index)) continue
    waiting.push(index)
    firstEnd = Math.min(firstEnd, item.to)
  }
  const isWaitedFor = (except: number): boolean =>
    state !== undefined && (needers[state.by]?.some((needer) => needer !== except && !isDone(node, needer)) ?? false)

  const nodes: Node[] = []
  const isHeld = isWaitedFor(-1)
  if (!isHeld) {
    classes.forEach((list, index) => {
      const item = list[node.used[index] as number]
      if (item === undefined || item.from > firstEnd) return
      const at = timeOf(item, time, mayExpire)
      const next = model.follow(item, -1, state, at)
      if (next === undefined || isSame(next.state, state)) return
      const used = node.used.slice()
      used[index] = (used[index] as number) + 1
      nodes.push({ ...node, used, state: next.state, time: at, item, before: node })
    })
    const deadFrom = state === undefined ? Infinity : model.deadFrom(state)
    if (deadFrom <= firstEnd && deadFrom < Infinity)
      nodes.push({ ...node, state: undefined, time: Math.max(time, deadFrom), item: undefined, before: node })
  }
  waiting.sort((a, b) => (items[b] as Item).to - (items[a] as Item).to)
  for (const index of waiting) {
    const item = items[index] as Item
    const at = timeOf(item, time, mayExpire)
    const next = model.follow(item, index, state, at)
    if (next === undefined) continue
    if (item.effect !== 'none' && isHeld && isWaitedFor(index)) continue
    const done = node.done.slice()
    done[index >> 4] = (done[index >> 4] as number) | (1 << (index & 15))
    const taken: Node = { ...node, done, count: node.count + 1, state: next.state, time: at, item, before: node }
    const child = { ...taken, first: firstOpen(taken, items.length) }
    // What changes nothing and is possible now may come now: whatever else is possible stays so.
    if (item.effect === 'none' && at === time) return [child]
    nodes.push(child)
  }
  return nodes
}

/** Without expiry nothing depends on the time that has passed, and fewer nodes differ. */
const timeOf = (item: Item, time: number, mayExpire: boolean): number => (mayExpire ? Math.max(time, item.from) : time)

function firstOpen(node: Node, length: number): number {
  let { first } = node
  while (first < length && isDone(node, first)) first++
  return first
}

const isSame = (a: State | undefined, b: State | undefined): boolean =>
  a === undefined || b === undefined
    ? a === b
    : a.by === b.by && a.bornMin === b.bornMin && a.bornMax === b.bornMax && a.expiryMin === b.expiryMin && a.expiryMax === b.expiryMax

/** Two nodes of one name differ in nothing but their time. */
function nameOf({ done, used, state }: Node, states: Map<string, number>): string {
  const text = state === undefined ? '' : `${state.by} ${state.bornMin} ${state.bornMax} ${state.expiryMin} ${state.expiryMax}`
  let number = states.get(text)
  if (number === undefined) states.set(text, (number = states.size))
  return `${number} ${String.fromCharCode(...done)}${String.fromCharCode(...used)}`
}

function orderTo(node: Node): HistoryOperation[] {
  const order: HistoryOperation[] = []
  for (let at: Node | undefined = node; at !== undefined; at = at.before) if (at.item) order.push(at.item.operation)
  return order.toReversed()
}

/** Where the search came furthest: for the person who reads the transcript. */
function stuckAt(node: Node, { items, needers }: Model): string {
  const { state } = node
  const asked = ({ operation: { client, verb, value, answer } }: Item): string =>
    `${verb}${value === undefined ? '' : ` ${value}`} of ${client} (${answer.type})`
  const there =
    state === undefined ? 'no entry' : state.by < 0 ? 'a value that nobody saw' : String((items[state.by] as Item).operation.value)
  const left = items.filter((_, index) => !isDone(node, index))
  const next = left.reduce((first, item) => (item.to < first.to ? item : first))
  const held = (needers[state?.by ?? -1] ?? []).map((index) => items[index] as Item).find((item) => item !== next && left.includes(item))
  const why = held === undefined ? '' : `, and ${asked(held)} still has to find it`
  return `${items.length - left.length} of ${items.length} can be put in order; then there is ${there}${why}, but ${asked(next)} has to come next`
}
