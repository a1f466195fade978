/**
 * The bytes of a rate limit record.
 * Pure. Invariant: what cannot be read is LIMIT_UNREADABLE, never an absent key: taking it for absent would give every limit anew.
 * Why the policies' numbers stand in it: a process whose limits were changed, or are not changed yet, knows what the states mean (P12).
 *
 *   0      magic 0x6c ('l')
 *   1      format version: 1
 *   2      number of policies
 *   3      0
 *   4..7   life, big-endian
 *   8..15  seenAt, in epoch milliseconds; like all numbers from here on a big-endian double that holds a whole number
 *   then for each policy
 *          code of the kind, length of the name, name in ASCII, limit, refill (0: none), perMs   which is compared at once, as `head`
 *          how many numbers the state has (2 bytes), and these
 *
 * A release that changes the format or adds a kind raises the version and goes on reading the one before; testdata/ holds golden records of each.
 */
import { KvError } from '../../core/kv/errors.ts'
import { adopted, rules, type Line, type LimitRecord, type Other, type Plan } from './rules.ts'
import type { Rule, State } from './rules/rule.ts'
import type { Policy } from './types.ts'

const magic = 0x6c
export const formatVersion = 1
const headerBytes = 16
const policyBytesMax = 2 + 64 + 3 * 8 + 2
/** Own and others' policies together. */
const entriesMax = 16

/** Reads and writes the records of one plan. */
export class Format {
  readonly #plan: Plan
  readonly #heads: readonly Uint8Array[]

  constructor(plan: Plan) {
    this.#plan = plan
    this.#heads = plan.lines.map(headOf)
  }

  /** Bytes that a record can take. */
  get bytesMax(): number {
    const slots = this.#plan.lines.reduce(
      (sum, { rule, policy }) => sum + (policy.kind === 'concurrency' ? policy.limit * rule.size : 0),
      0,
    )
    return headerBytes + entriesMax * (policyBytesMax + 3 * 8) + slots * 8
  }

  encode({ life, seenAt, states, others }: LimitRecord): Uint8Array {
    const heads = others.length === 0 ? this.#heads : [...this.#heads, ...others.map(headOf)]
    let length = headerBytes
    for (let index = 0; index < heads.length; index++) {
      const state = index < states.length ? states[index] : others[index - states.length]?.state
      length += (heads[index] as Uint8Array).length + 2 + (state as State).length * 8
    }
    // From Node's pool, as records of this size are written all the time.
    const bytes = Buffer.allocUnsafe(length)
    const view = new DataView(bytes.buffer, bytes.byteOffset, length)
    view.setUint32(0, (magic << 24) | (formatVersion << 16) | (heads.length << 8))
    view.setUint32(4, life)
    view.setFloat64(8, seenAt)
    let at = headerBytes
    for (let index = 0; index < heads.length; index++) {
      const head = heads[index] as Uint8Array
      const state = (index < states.length ? states[index] : others[index - states.length]?.state) as State
      for (let byte = 0; byte < head.length; byte++) bytes[at + byte] = head[byte] as number
      at += head.length
      view.setUint16(at, state.length)
      at += 2
      for (let number = 0; number < state.length; number++, at += 8) view.setFloat64(at, state[number] as number)
    }
    return bytes
  }

  /** `now`: the store's clock, to carry shares over to other limits. @throws KvError LIMIT_UNREADABLE. */
  decode(bytes: Uint8Array, now: number): LimitRecord {
    if (bytes[0] !== magic) return unreadable('it does not begin as a rate limit record')
    if (bytes[1] !== formatVersion) return unreadable(`its format version is ${bytes[1] ?? 'missing'}, this release reads ${formatVersion}`)
    if (bytes.length < headerBytes) return unreadable('it is cut short')
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    const life = view.getUint32(4)
    const seenAt = whole(view.getFloat64(8))
    return this.#ownStates(bytes, view, life, seenAt) ?? adopted(this.#plan, life, seenAt, entriesOf(bytes, view), now)
  }

  /** The record when it holds this plan's policies as they are, and nothing else: the way that nearly all records take. */
  #ownStates(bytes: Uint8Array, view: DataView, life: number, seenAt: number): LimitRecord | undefined {
    const { lines } = this.#plan
    if (bytes[2] !== lines.length) return undefined
    const states: State[] = []
    let at = headerBytes
    for (let index = 0; index < lines.length; index++) {
      const head = this.#heads[index] as Uint8Array
      for (let byte = 0; byte < head.length; byte++) if (bytes[at + byte] !== head[byte]) return undefined
      at += head.length
      if (at + 2 > bytes.length) return unreadable('it is cut short')
      const state = stateAt(view, at, (lines[index] as Line).rule)
      states.push(state)
      at += 2 + state.length * 8
    }
    if (at !== bytes.length) return unreadable('there are bytes behind its end')
    return { life, seenAt, states, others: [] }
  }
}

function entriesOf(bytes: Uint8Array, view: DataView): Other[] {
  const found: Other[] = []
  const count = bytes[2] as number
  if (count > entriesMax) return unreadable('it has too many policies')
  let at = headerBytes
  for (let index = 0; index < count; index++) {
    const nameLength = bytes[at + 1] ?? 0
    const numbersAt = at + 2 + nameLength
    if (numbersAt + 26 > bytes.length) return unreadable('it is cut short')
    const rule = ruleOf(bytes[at] as number)
    const name = String.fromCharCode(...bytes.subarray(at + 2, numbersAt))
    const limit = whole(view.getFloat64(numbersAt))
    const refill = whole(view.getFloat64(numbersAt + 8))
    const perMs = whole(view.getFloat64(numbersAt + 16))
    const needsRefill = rule.kind === 'gcra' || rule.kind === 'token-bucket'
    if (limit < 1 || perMs < 1 || needsRefill !== refill > 0) return unreadable('a policy has no limit')
    const policy: Policy = { kind: rule.kind, limit, perMs, unit: 'requests', ...(needsRefill ? { refill } : undefined) }
    const state = stateAt(view, numbersAt + 24, rule)
    found.push({ name, policy, state })
    at = numbersAt + 26 + state.length * 8
  }
  if (at !== bytes.length) return unreadable('there are bytes behind its end')
  return found
}

function stateAt(view: DataView, at: number, { kind, size }: Rule): State {
  const count = view.getUint16(at)
  if (kind === 'concurrency' ? count % size !== 0 : count !== size) return unreadable('a state has the wrong length')
  if (at + 2 + count * 8 > view.byteLength) return unreadable('it is cut short')
  const state: number[] = []
  for (let index = 0; index < count; index++) state.push(whole(view.getFloat64(at + 2 + index * 8)))
  return state
}

/** What stands in a record before the state of a policy. */
function headOf({ name, policy }: { readonly name: string; readonly policy: Policy }): Uint8Array {
  const head = new Uint8Array(2 + name.length + 24)
  head[0] = rules[policy.kind].code
  head[1] = name.length
  for (let index = 0; index < name.length; index++) head[2 + index] = name.charCodeAt(index)
  const view = new DataView(head.buffer)
  view.setFloat64(2 + name.length, policy.limit)
  view.setFloat64(10 + name.length, policy.refill ?? 0)
  view.setFloat64(18 + name.length, policy.perMs)
  return head
}

const byCode: ReadonlyMap<number, Rule> = new Map(Object.values(rules).map((rule) => [rule.code, rule]))
const ruleOf = (code: number): Rule => byCode.get(code) ?? unreadable(`it has a policy of an unknown kind, ${code}`)

const whole = (number: number): number => (Number.isSafeInteger(number) && number >= 0 ? number : unreadable('a number in it is not whole'))

function unreadable(why: string): never {
  throw new KvError('LIMIT_UNREADABLE', { message: `the stored rate limit record cannot be read: ${why}` })
}
