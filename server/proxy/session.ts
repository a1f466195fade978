/**
 * Session: what a proxy does with a client's request before the register sees it, and with the register's answer before the client does.
 * S1 to S4 of register/DESIGN.md. Pure. Invariant: an answer that says "no effect" is true of this sending, and 26 is never said.
 * Why ages and gaps: a request that waited somewhere until its completion was forgotten would be applied a second time (interleaving 5).
 */
import { unreachable } from '../../core/base/assert.ts'
import type { EpochMs } from '../../core/base/types.ts'
import type { KvErrorCode } from '../../core/kv/errors.ts'
import type { ExpiryChange } from '../../core/kv/expiry.ts'
import type { RequestId, Version } from '../../core/kv/kv.ts'
import { completionRules, type Operation, type Outcome, type RecordContext, type Request } from '../../core/record/operation.ts'
import type { Verb } from '../../core/record/record.ts'
import type { Answer, Instant, Work } from '../register/work.ts'
import { clockBoundMs } from './clock.ts'

/** No new ballot for a request after this, whatever its client would wait. */
export const attemptMsMax = 600
/** How long after its first sending a request may be sent again. */
const retryWindowMs = 10_000

/** A client's request, read and checked by the codec. */
export interface ClientRequest {
  readonly verb: 'get' | Verb
  /** Of create, update and set. */
  readonly value?: Uint8Array
  /** Of these and of touch, which is a get that extends a life. */
  readonly expiry?: ExpiryChange
  readonly ifVersion?: Version | undefined
  /** Of an update by a client that knows no `Version`. */
  readonly ifContext?: RecordContext | undefined
  /** As the client named it; undefined: it did not. */
  readonly requestId?: RequestId | undefined
  /** How long the client waits for this sending, in milliseconds. */
  readonly timeoutMs: number
  /** When the client sent it first, by the store's clock; undefined: it does not say, as JunoDB's do not. */
  readonly sentAt?: EpochMs | undefined
}

export interface SessionOptions {
  /**
   * Clients whose ids are plain, JunoDB's, may send a request again. Then each of their ids is remembered for the completions' life, refusals
   * included, and a key takes some 60 of their requests a second. Default false: JunoDB's Go client never does, its Java client only if told to.
   */
  readonly plainIdsRepeat?: boolean | undefined
}

/** Makes the work of a request that came now. */
export function workOf(request: ClientRequest, now: Instant, { plainIdsRepeat = false }: SessionOptions = {}): Work {
  return {
    operation: request.verb === 'get' ? undefined : operationOf(request.verb, request, plainIdsRepeat),
    deadlineMono: now.mono + Math.min(attemptMsMax, request.timeoutMs),
    sentAt: request.sentAt,
    acceptWasSent: 'no',
  }
}

function operationOf(verb: Verb, { requestId, value, expiry, ifVersion, ifContext }: ClientRequest, plainIdsRepeat: boolean): Operation {
  const request = requestOf(verb, requestId, plainIdsRepeat)
  if (verb === 'destroy') return { verb, request, ifVersion }
  if (verb === 'touch') return { verb, request, expiry: expiry as ExpiryChange }
  const content = { request, value: value as Uint8Array, expiry: expiry as ExpiryChange }
  return verb === 'create' ? { verb, ...content } : { verb, ...content, ifVersion, ifContext }
}

/** `remember` false: the proxy gives it a name of its own (names.ts). */
function requestOf(verb: Verb, id: RequestId | undefined, plainIdsRepeat: boolean): Request {
  const nameless = { session: '', sequence: 0, remember: false, done: 0, attempt: 1 }
  if (id === undefined) return nameless
  if (typeof id !== 'string')
    return { session: clientName(id.session), sequence: id.sequence, remember: true, done: id.done ?? 0, attempt: id.attempt ?? 1 }
  // It may be a repetition, and does not say so.
  if (plainIdsRepeat) return { ...nameless, session: clientName(id), remember: true, attempt: 2 }
  // The life that a create begins carries its name, so a second sending is known by it, however late.
  return verb === 'create' ? { ...nameless, session: clientName(id), remember: true } : nameless
}

/** Never one of a proxy's own, which begin with one tilde (names.ts). */
const clientName = (name: string): string => (name.startsWith('~') ? `~${name}` : name)

/** JunoDB's status of an answer. */
export function statusOf(verb: ClientRequest['verb'], answer: Answer): 0 | 3 | 4 | 7 | 8 | 12 | 14 | 19 | 25 {
  switch (answer.type) {
    case 'read':
      return answer.entry === undefined ? 3 : 0
    case 'decided':
      return statusOfOutcome(verb, answer.outcome)
    case 'no-effect':
      return noEffect[answer.why].status
    case 'unknown':
      return 25
    default:
      return unreachable(answer)
  }
}

function statusOfOutcome(verb: ClientRequest['verb'], outcome: Outcome): 0 | 3 | 4 | 7 | 8 | 19 {
  switch (outcome.type) {
    case 'applied':
      return 0
    case 'missing':
      return 3
    case 'exists':
      return 4
    case 'version':
      return 19
    case 'fault':
      if (outcome.code === 'RECORD_LOCKED') return 8
      if (outcome.code === 'REQUEST_ID_REUSED') return 7
      return verb === 'create' ? 4 : 19 // it was refused, and what it met is not needed here
    default:
      return unreachable(outcome)
  }
}

/** The fault that a client of ours throws; undefined: the answer is a result. */
export function faultOf(answer: Answer): KvErrorCode | undefined {
  switch (answer.type) {
    case 'read':
      return undefined
    case 'decided':
      return answer.outcome.type === 'fault' ? answer.outcome.code : undefined
    case 'no-effect':
      return noEffect[answer.why].code
    case 'unknown':
      return 'UNKNOWN_OUTCOME'
    default:
      return unreachable(answer)
  }
}

/** This sending did nothing. After an earlier one whose outcome is unknown the client says "unknown" all the same. */
const noEffect = {
  contention: { status: 8, code: 'CONTENTION' },
  'no-quorum': { status: 12, code: 'UNAVAILABLE' },
  clock: { status: 12, code: 'UNAVAILABLE' },
  overload: { status: 14, code: 'BUSY' },
  'too-old': { status: 14, code: 'DEADLINE_EXCEEDED' },
} as const satisfies Record<(Answer & { type: 'no-effect' })['why'], { status: number; code: KvErrorCode }>

/** What a request may wait unread: what is left of the completions' life after the retry window, an attempt and twice the clocks' bound. */
export const gapMsMax = completionRules.lifeMs - retryWindowMs - attemptMsMax - 2 * clockBoundMs

/**
 * Sees that the process stood still. What lies unread in its sockets may be of any age then, and most clients do not say when they sent it:
 * the edge drops it and closes its clients' connections. A machine that was suspended shows by its wall clock alone.
 */
export class TurnWatch {
  readonly #gapMsMax: number
  #last: Instant | undefined

  /** @param gapMs the longest time between two turns, in milliseconds; there must be one at least every third of it */
  constructor(gapMs = gapMsMax) {
    this.#gapMsMax = gapMs
  }

  /** To be called as a turn begins, before anything is read. @returns true when what waits to be read must be dropped */
  begin(now: Instant): boolean {
    const last = this.#last
    this.#last = now
    if (last === undefined) return false
    return Math.max(now.mono - last.mono, now.wall - last.wall) > this.#gapMsMax
  }
}
