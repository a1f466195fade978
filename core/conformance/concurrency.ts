/**
 * Concurrent histories on one key, checked for an order that explains them: linearizability (Wing and Gong 1993, memo by Lowe 2017).
 * Invariant: a write of unknown outcome may take effect at any time after its call, or never; it is never taken for failed.
 * Why values name states: every write has a value of its own, so one number is the whole state of the model.
 */
import { strict as assert } from 'node:assert'
import { seededRandom, type Random } from '../base/random.ts'
import { isKvError } from '../kv/errors.ts'
import type { Entry, KV, Version } from '../kv/kv.ts'
import { settle } from '../testing/clock.ts'
import { faulty } from '../testing/faulty.ts'
import type { Case } from './suite.ts'

const histories = 60
const actors = 4
const callsAnActor = 5
/** Steps of one search. A history of 20 calls takes some hundreds; beyond the bound it is undecided, which fails too. */
const searchMax = 500_000

/** 0: no entry. Else the number that the entry's value holds. */
type State = number

export interface Call {
  readonly actor: number
  readonly verb: 'create' | 'get' | 'update' | 'set' | 'destroy'
  /** The state that a write makes. */
  readonly writes: State
  /** The state that a condition names; undefined: no condition. */
  readonly expects: State | undefined
  readonly calledAt: number
  /** Infinity: the outcome is unknown. */
  answeredAt: number
  /** 'unknown', or whether it was applied, with the state that the answer shows. */
  answer: 'unknown' | { readonly ok: boolean; readonly refusal: string | undefined; readonly shows: State }
}

/** The state after the call in this state; undefined when the answer cannot have come from it. */
function after(call: Call, state: State): State | undefined {
  const { verb, writes, answer } = call
  const refusal = verb === 'create' ? (state ? 'exists' : undefined) : refusalOf(call, state)
  const next = verb === 'get' || refusal !== undefined ? state : verb === 'destroy' ? 0 : writes
  if (answer === 'unknown') return next
  if (verb === 'get') return answer.shows === state ? state : undefined
  if (answer.ok !== (refusal === undefined) || answer.refusal !== refusal) return undefined
  // What was destroyed need not be shown: an answer from memory has forgotten it, and a store may have repeated the request by itself.
  if (verb === 'destroy' && answer.ok && answer.shows === 0) return next
  const shows = verb === 'destroy' || refusal !== undefined ? state : next
  return answer.shows === shows ? next : undefined
}

function refusalOf({ verb, expects }: Call, state: State): string | undefined {
  if (verb === 'get') return undefined
  if (expects === undefined) return verb === 'update' && state === 0 ? 'missing' : undefined
  return state === 0 ? 'missing' : state === expects ? undefined : 'version'
}

export type Judgement = 'explained' | 'impossible' | 'undecided'

/** Looks for an order of the calls that respects real time and explains every answer, beginning with no entry. */
export function linearizable(calls: readonly Call[], budget: number = searchMax): Judgement {
  const seen = new Set<string>()
  const stack: { readonly done: bigint; readonly state: State }[] = [{ done: 0n, state: 0 }]
  for (let steps = 0; stack.length > 0; steps++) {
    if (steps > budget) return 'undecided'
    const { done, state } = stack.pop() as (typeof stack)[number]
    const waiting = calls.flatMap((call, index) => ((done >> BigInt(index)) & 1n ? [] : [{ call, bit: 1n << BigInt(index) }]))
    // Calls of unknown outcome need not be in the order at all.
    if (waiting.every(({ call }) => call.answer === 'unknown')) return 'explained'
    const firstAnswerAt = Math.min(...waiting.map(({ call }) => call.answeredAt))
    for (const { call, bit } of waiting) {
      if (call.calledAt > firstAnswerAt) continue // something was answered before this one was called
      const next = after(call, state)
      if (next === undefined) continue
      const memo = `${done | bit} ${next}`
      if (seen.has(memo)) continue
      seen.add(memo)
      stack.push({ done: done | bit, state: next })
    }
  }
  return 'impossible'
}

const stateOf = (entry: Entry | undefined): State => (entry ? new DataView(entry.value.buffer, entry.value.byteOffset).getUint32(0) : 0)
function valueOf(state: State): Uint8Array {
  const value = new Uint8Array(4)
  new DataView(value.buffer).setUint32(0, state)
  return value
}

/** Lets actors loose on one key and writes down what they saw. */
async function record(kv: KV, key: string, random: Random): Promise<Call[]> {
  const calls: Call[] = []
  let time = 0
  let states = 0
  const actor = async (index: number): Promise<void> => {
    let known: Entry | undefined
    for (let turn = 0; turn < callsAnActor; turn++) {
      await settle(random.int(3))
      const verb = random.pick(['create', 'get', 'update', 'update', 'set', 'destroy'] as const)
      const condition = verb !== 'create' && verb !== 'get' && known && random.chance(0.6) ? known : undefined
      const call: Call = {
        actor: index,
        verb,
        writes: verb === 'get' || verb === 'destroy' ? 0 : ++states,
        expects: condition ? stateOf(condition) : undefined,
        calledAt: time++,
        answeredAt: Infinity,
        answer: 'unknown',
      }
      calls.push(call)
      try {
        const answer = await send(kv, key, call, condition?.version)
        known = answer.entry ?? known
        call.answer = { ok: answer.ok ?? true, refusal: answer.refusal, shows: stateOf(answer.entry) }
        call.answeredAt = time++
      } catch (error) {
        if (!isKvError(error, 'UNKNOWN_OUTCOME')) throw error
      }
    }
  }
  await Promise.all(Array.from({ length: actors }, (_, index) => actor(index)))
  return calls
}

function send(
  kv: KV,
  key: string,
  { verb, writes }: Call,
  ifVersion: Version | undefined,
): Promise<{ ok?: boolean; refusal?: string; entry?: Entry | undefined }> {
  switch (verb) {
    case 'create':
      return kv.create(key, valueOf(writes))
    case 'get':
      return kv.get(key)
    case 'destroy':
      return kv.destroy(key, { ifVersion })
    default:
      return kv[verb](key, valueOf(writes), { ifVersion })
  }
}

function drawn(calls: readonly Call[]): string {
  const line = ({ actor, verb, writes, expects, calledAt, answeredAt, answer }: Call): string => {
    const did = `${verb}${writes ? ` ${writes}` : ''}${expects === undefined ? '' : ` if ${expects}`}`
    const got = answer === 'unknown' ? 'unknown' : `${answer.refusal ?? 'ok'}, shows ${answer.shows}`
    return `  actor ${actor}  ${String(calledAt).padStart(3)} to ${String(answeredAt).padStart(8)}  ${did}: ${got}`
  }
  return calls.map(line).join('\n')
}

/** The shortest start of a history that cannot be explained. Calls still under way at its end are of unknown outcome there. */
function shortestBad(calls: readonly Call[]): readonly Call[] {
  const ends = calls.map((call) => call.answeredAt).filter(Number.isFinite)
  for (const end of ends.sort((left, right) => left - right)) {
    const start = calls
      .filter((call) => call.calledAt <= end)
      .map((call): Call => (call.answeredAt <= end ? call : { ...call, answeredAt: Infinity, answer: 'unknown' }))
    if (linearizable(start) === 'impossible') return start
  }
  return calls
}

async function assertExplained(kv: KV, key: (name: string) => string, random: Random): Promise<void> {
  for (let history = 0; history < histories; history++) {
    const calls = await record(kv, key(`-${history}`), seededRandom(random.int(2 ** 32)))
    const judgement = linearizable(calls)
    if (judgement !== 'explained')
      assert.fail(`history ${history} is ${judgement}: no order of these calls gives these answers\n${drawn(shortestBad(calls))}`)
  }
}

export const concurrencyCases: readonly Case[] = [
  {
    group: 'concurrency',
    name: 'concurrent calls on one key are explained by some order of them',
    run: async ({ kv, key, random }) => await assertExplained(kv, key, random),
  },
  {
    group: 'concurrency',
    name: 'concurrent calls with lost answers are explained by some order of them',
    run: async ({ kv, key, random, seed }) => {
      const store = faulty(kv, { seed, unknownBeforeApply: 0.08, unknownAfterApply: 0.08, unknownApplyLater: 0.04 })
      await assertExplained(store, key, random)
    },
  },
]
