/**
 * What clients asked for and what they were told, in true time: the material that the checker and the oracles judge.
 * Pure. Invariant: a request that is sent again is one operation, from its first sending to the answer of its latest one.
 * Why values are unique: a value then names the write that made it, and the state of a key in the model is one number.
 *
 * The simulator writes calls; tests of real processes write the same lines. "True time" is one clock for all of them.
 */
import { assert } from '../../core/base/assert.ts'
import type { Entry } from '../../core/kv/kv.ts'
import type { ExpiryChange } from '../../core/kv/expiry.ts'
import type { Answer } from '../register/work.ts'

export type HistoryVerb = 'create' | 'get' | 'update' | 'set' | 'destroy'
/** Unique among all writes of a key, refused ones and ones of unknown outcome included. */
export type Value = string | number

/** An entry as an answer showed it. */
export interface Shown {
  readonly value: Value
  readonly version: string
  /** Milliseconds on the store's clock. */
  readonly createdAt: number
  /** Milliseconds on the store's clock; absent: never. */
  readonly expiresAt?: number
}

export type CallAnswer =
  /** A write that is in effect. Its entry as it left it; for `destroy` what was there, if the store knows it. */
  | { readonly type: 'applied'; readonly entry?: Shown; readonly now: number }
  | { readonly type: 'read'; readonly entry?: Shown; readonly now: number }
  | { readonly type: 'exists' | 'version'; readonly entry: Shown; readonly now: number }
  | { readonly type: 'missing'; readonly now: number }
  /** This sending did nothing and never will. `isFinal`: nor did or will any other sending of the request. */
  | { readonly type: 'no-effect'; readonly why: string; readonly isFinal?: true; readonly now?: number }
  /** It may take effect at any later time, or never. */
  | { readonly type: 'unknown'; readonly now?: number }

interface Asked {
  readonly client: string
  readonly key: string
  readonly verb: HistoryVerb
  /** What create, update and set write. */
  readonly value?: Value
  readonly ifVersion?: string
  /** Default: `never` for create, `keep` for update and set. */
  readonly expiry?: ExpiryChange
  /** True time of the sending, in milliseconds. */
  readonly calledAt: number
}

/** One sending. */
export interface Sent extends Asked {
  /** Absent: never sent again. `attempt` counts the sendings of one request from 1. */
  readonly request?: { readonly session: string; readonly sequence: number; readonly attempt: number }
}

/** One sending with its answer. */
export interface Call extends Sent {
  /** True time of the answer, in milliseconds. Infinity: none came, or it says `unknown`. */
  readonly returnedAt: number
  readonly answer: CallAnswer
}

/** All sendings of one request. */
export interface HistoryOperation extends Asked {
  readonly request?: { readonly session: string; readonly sequence: number }
  readonly attempts: number
  readonly returnedAt: number
  readonly answer: CallAnswer
}

/** Writes down calls while they happen. */
export class Recorder {
  readonly #calls: Call[] = []

  /** @returns the call's number, for `answered` */
  sent(sent: Sent): number {
    return this.#calls.push({ ...sent, returnedAt: Infinity, answer: { type: 'unknown' } }) - 1
  }

  /** A call is answered once; of a message that comes twice the first counts. @returns false when it had its answer */
  answered(number: number, at: number, answer: CallAnswer): boolean {
    const call = this.#calls[number]
    assert(call !== undefined && at >= call.calledAt, 'an answer follows its call')
    if (call.answer.type !== 'unknown') return false
    this.#calls[number] = { ...call, returnedAt: answer.type === 'unknown' ? Infinity : at, answer }
    return true
  }

  get calls(): readonly Call[] {
    return this.#calls
  }
}

/** Brings the sendings of each request together, in order of their first sending. */
export function operationsOf(calls: readonly Call[]): HistoryOperation[] {
  const groups = new Map<string, Call[]>()
  calls.forEach((call, index) => {
    const { request, key } = call
    const name = request === undefined ? `${index}` : JSON.stringify([key, request.session, request.sequence])
    const group = groups.get(name)
    if (group) group.push(call)
    else groups.set(name, [call])
  })
  return [...groups.values()].map(joined).sort((a, b) => a.calledAt - b.calledAt)
}

function joined(sendings: readonly Call[]): HistoryOperation {
  const sorted = sendings.toSorted((a, b) => (a.request?.attempt ?? 1) - (b.request?.attempt ?? 1))
  const first = sorted[0] as Call
  const last = sorted.at(-1) as Call
  assert(
    sorted.every(
      (one) => one.verb === first.verb && one.value === first.value && one.ifVersion === first.ifVersion && one.client === first.client,
    ),
    'all sendings of a request ask for the same',
  )
  const { client, key, verb, value, ifVersion, expiry, request } = first
  // Refused this time, but an earlier sending may still be on its way.
  const isOpen = last.answer.type === 'no-effect' && !last.answer.isFinal && sorted.some(({ answer }) => answer.type !== 'no-effect')
  const answer: CallAnswer = isOpen ? { type: 'unknown' } : last.answer
  return {
    client,
    key,
    verb,
    ...(value === undefined ? {} : { value }),
    ...(ifVersion === undefined ? {} : { ifVersion }),
    ...(expiry === undefined ? {} : { expiry }),
    ...(request === undefined ? {} : { request: { session: request.session, sequence: request.sequence } }),
    attempts: sorted.length,
    // Only the latest sending of a get was answered; those of a write are all at work.
    calledAt: verb === 'get' ? last.calledAt : Math.min(...sorted.map(({ calledAt }) => calledAt)),
    returnedAt: answer.type === 'unknown' ? Infinity : last.returnedAt,
    answer,
  }
}

/** By key: one key's history is explained without the others. */
export function byKey(operations: readonly HistoryOperation[]): Map<string, HistoryOperation[]> {
  const keys = new Map<string, HistoryOperation[]>()
  for (const operation of operations) {
    const list = keys.get(operation.key)
    if (list) list.push(operation)
    else keys.set(operation.key, [operation])
  }
  return keys
}

/** What was known at the instant `end`: whatever is not answered by then is of unknown outcome. */
export const historyUntil = (operations: readonly HistoryOperation[], end: number): HistoryOperation[] =>
  operations
    .filter(({ calledAt }) => calledAt <= end)
    .map((one) => (one.returnedAt <= end ? one : { ...one, returnedAt: Infinity, answer: { type: 'unknown' } }))

/** What a register answered, as a history has it. `valueOf` reads the bytes that the workload wrote. */
export function answerOf(answer: Answer, valueOf: (bytes: Uint8Array) => Value): CallAnswer {
  const shown = ({ value, version, createdAt, expiresAt }: Entry): Shown =>
    expiresAt === undefined ? { value: valueOf(value), version, createdAt } : { value: valueOf(value), version, createdAt, expiresAt }
  const { now } = answer
  switch (answer.type) {
    case 'read':
      return answer.entry ? { type: 'read', entry: shown(answer.entry), now } : { type: 'read', now }
    case 'no-effect':
      return { type: 'no-effect', why: answer.why, now }
    case 'unknown':
      return { type: 'unknown', now }
    case 'decided': {
      const { outcome } = answer
      if (outcome.type === 'missing') return { type: 'missing', now }
      if (outcome.type === 'applied')
        return outcome.entry ? { type: 'applied', entry: shown(outcome.entry), now } : { type: 'applied', now }
      if (outcome.type !== 'fault') return { type: outcome.type, entry: shown(outcome.entry), now }
      // A refusal that is remembered, but can no longer be shown: the request is over.
      if (outcome.code === 'ANSWER_GONE') return { type: 'no-effect', why: outcome.code, isFinal: true, now }
      return { type: 'no-effect', why: outcome.code, now }
    }
  }
}

/** One JSON line a call. */
export const linesOf = (calls: readonly Call[]): string => calls.map((call) => `${JSON.stringify(call)}\n`).join('')

/** Reads what `linesOf` wrote. Throws an Error with the line's number for one that is no call. */
export function callsIn(lines: string): Call[] {
  return lines.split('\n').flatMap((line, index) => {
    if (line.trim() === '') return []
    const call = JSON.parse(line) as Omit<Call, 'returnedAt'> & { readonly returnedAt: number | null }
    if (typeof call.key !== 'string' || typeof call.calledAt !== 'number' || typeof call.answer?.type !== 'string')
      throw new Error(`line ${index + 1} is no call: ${line.slice(0, 80)}`)
    return [{ ...call, returnedAt: call.returnedAt ?? Infinity }] // JSON has no Infinity
  })
}

const barLength = 32
/** Microseconds are enough to read, and the order of two instants is in the lines' order and the bars. */
const rounded = (ms: number): string => String(Math.round(ms * 1_000) / 1_000)

/** A history as text: one line an operation in order of its sending. Versions get short names, which stand below. */
export function drawn(operations: readonly HistoryOperation[]): string {
  const versions = new Map<string, string>()
  const short = (version: string): string => {
    const known = versions.get(version)
    if (known !== undefined) return known
    const name = `v${versions.size + 1}`
    versions.set(version, name)
    return name
  }
  const sorted = operations.toSorted((a, b) => a.calledAt - b.calledAt || a.returnedAt - b.returnedAt)
  const times = sorted.flatMap(({ calledAt, returnedAt }) => (returnedAt === Infinity ? [calledAt] : [calledAt, returnedAt]))
  const from = Math.min(...times)
  const scale = (barLength - 1) / Math.max(1, Math.max(...times) - from)
  const rows = sorted.map((one) => {
    const start = Math.floor((one.calledAt - from) * scale)
    const end = one.returnedAt === Infinity ? barLength : Math.floor((one.returnedAt - from) * scale)
    const bar = `${' '.repeat(start)}|${'-'.repeat(Math.max(0, end - start - 1))}${one.returnedAt === Infinity ? '>' : end > start ? '|' : ''}`
    const expiry =
      one.expiry === undefined
        ? ''
        : 'ttlMs' in one.expiry
          ? `${one.expiry.type} ${one.expiry.ttlMs}`
          : 'at' in one.expiry
            ? `until ${one.expiry.at}`
            : one.expiry.type
    const sending =
      one.request === undefined ? '' : `${one.request.session}/${one.request.sequence}${one.attempts > 1 ? ` x${one.attempts}` : ''}`
    return [
      one.client,
      rounded(one.calledAt),
      one.returnedAt === Infinity ? '...' : rounded(one.returnedAt),
      bar,
      one.verb,
      one.value === undefined ? '' : String(one.value),
      one.ifVersion === undefined ? '' : `if ${short(one.ifVersion)}`,
      expiry,
      sending,
      told(one.answer, short),
    ]
  })
  const head = ['client', 'called', 'returned', '', 'verb', 'value', 'condition', 'expiry', 'request', 'answer']
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] as string).length)))
  widths[3] = barLength + 1
  const lines = [head, ...rows].map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] as number))
      .join('  ')
      .trimEnd(),
  )
  return [...lines, ...[...versions].map(([version, name]) => `  ${name} = ${version.replaceAll('\n', '\\n')}`)].join('\n')
}

function told(answer: CallAnswer, short: (version: string) => string): string {
  const what = answer.type === 'no-effect' ? `no effect: ${answer.why}` : answer.type
  if (!('entry' in answer) || answer.entry === undefined) return answer.type === 'read' ? 'read nothing' : what
  const { value, version, createdAt, expiresAt } = answer.entry
  return `${what} ${value} ${short(version)} since ${createdAt}${expiresAt === undefined ? '' : ` until ${expiresAt}`}`
}
