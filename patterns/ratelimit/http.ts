/**
 * Limits over HTTP, of no framework: asks the limiter once for each request, says what its headers are, and which answer it gets instead.
 * Invariant: one limiter counts one request under one key once, however often it is mounted; what is given back at its end is given back once.
 * Why the end of a request is read from its response: there every framework ends, with an answer or without.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { replyTo, type Problem, type Rendered, type Reply } from '../../core/http/problem.ts'
import { invalid, isKvError, KvError } from '../../core/kv/errors.ts'
import { tell } from './events.ts'
import { headerSpecs, limitHeaders, limitProblems, type HeaderSpec, type LimitLine, type LimitProblemKind } from './headers.ts'
import { checkCost, planOf } from './rules.ts'
import type { Acquired, Decision, RateLimit, Settlement } from './types.ts'

export interface LimitProblem extends Problem {
  readonly kind: LimitProblemKind
  /** The policies that refused, as `RateLimit-Policy` names them. Empty when nobody knows. */
  readonly violated: readonly string[]
}

/** How a request ended. */
export interface RequestEnd {
  /** `finished`: an answer was sent whole. `closed`: the connection closed before that. */
  readonly type: 'finished' | 'closed'
  /** Of the answer, as far as it was set. */
  readonly status: number
  /** What the handler threw. Koa alone shows it: in Express it goes to the error handlers, and `status` is what these made of it. */
  readonly error?: unknown
}

/** Options of a door. `C` is the framework's request or context. */
export interface LimitDoorOptions<C> {
  /** Who asks: a user's id, an API key, or `clientKey({ trustProxy })`. Each key has its own share of each policy. Never empty. */
  readonly key: (context: C) => string | Promise<string>
  /** What a request takes: a whole number from 0. Default: 1. A request that can never fit is answered as `quota-exceeded`, without Retry-After. */
  readonly cost?: number | ((context: C) => number | Promise<number>) | undefined
  /** True: this request is not counted and gets no headers. */
  readonly skip?: ((context: C) => boolean | Promise<boolean>) | undefined
  /**
   * What a request costs after all, once it has ended. `success`: an answer below 400 costs nothing, so that only failures count (logins).
   * `failure`: an answer from 400 on costs nothing. Who leaves before the answer pays under both, or leaving would be free.
   * Or a function that says the real cost (bytes, tokens of a language model); undefined: what was charged.
   */
  readonly refundOn?: 'success' | 'failure' | ((end: RequestEnd, context: C) => number | undefined) | undefined
  /** Which headers are sent: one draft, `x-ratelimit`, both, or none: []. Default: 'draft-11'. */
  readonly spec?: HeaderSpec | readonly HeaderSpec[] | undefined
  /** What is said as `pk`, so that a client can tell its partitions apart. Nothing secret. Default: nothing is said. */
  readonly partitionKey?: ((key: string, context: C) => string | Uint8Array) | undefined
  /** Every wait is said to be longer by a random share of up to so much, 0 to 1, so that not all clients come back at once. Default: 0. */
  readonly jitter?: number | undefined
  /** True: a refused client is told `abnormal-usage-detected`. Default: never. */
  readonly abnormal?: ((decision: Decision, context: C) => boolean) | undefined
  /** Says refusals in another way. Default: application/problem+json (RFC 9457). */
  readonly problem?: ((problem: LimitProblem, context: C) => Rendered) | undefined
  /** In [0, 1), for jitter. Default: Math.random. */
  readonly random?: (() => number) | undefined
}

/** The request may go on. */
export interface Passed {
  readonly type: 'passed'
  /** The handler threw; the request has not ended by that. */
  failed(error: unknown): void
}

export type LimitEntry = Passed | { readonly type: 'reply'; readonly reply: Reply }

const defaults = {
  spec: 'draft-11',
  /** How soon to ask again when nobody knows: store outages last seconds, and a client that waits less adds to them. */
  unknownRetryMs: 1_000,
} as const

interface Counted {
  readonly limit: object
  readonly key: string
  decision?: Decision
}

/** What the doors of one request know of each other. */
interface Visit {
  readonly counted: Counted[]
  readonly lines: LimitLine[]
  /** Names of the headers that were set. */
  readonly names: Set<string>
}

/** Weak, so it lives as long as the request. */
const visits = new WeakMap<IncomingMessage, Visit>()

/** What a limiter decided about this request, the newest first; undefined: it has not been asked. */
export function decisionOfRequest<Name extends string>(req: IncomingMessage, limit: RateLimit<Name>): Decision<Name> | undefined {
  return visits.get(req)?.counted.findLast((counted) => counted.limit === limit)?.decision as Decision<Name> | undefined
}

/** The headers that doors have set on this answer, for frameworks that take all headers away when a handler throws. */
export function limitHeadersOf(req: IncomingMessage, res: ServerResponse): Record<string, string> {
  const names = [...(visits.get(req)?.names ?? [])]
  return Object.fromEntries(names.flatMap((name) => (res.hasHeader(name) ? [[name, String(res.getHeader(name))]] : [])))
}

export class LimitDoor<C> {
  readonly #limit: RateLimit
  readonly #options: LimitDoorOptions<C>
  readonly #specs: readonly HeaderSpec[]

  constructor(limit: RateLimit, options: LimitDoorOptions<C>) {
    if (typeof options?.key !== 'function')
      throw new KvError('LIMIT_KEY_MISSING', { message: 'rateLimited(...) needs `key`: a function that says who asks' })
    const { jitter = 0, cost = 1, spec = defaults.spec } = options
    if (!(jitter >= 0 && jitter <= 1)) invalid('jitter must be from 0 to 1')
    // One that is the same for all requests and never fits would refuse all of them.
    if (typeof cost !== 'function') checkCost(cost, planOf(limit.policies))
    this.#specs = headerSpecs(spec)
    this.#limit = limit
    this.#options = options
  }

  /** @throws KvError LIMIT_KEY_MISSING, INVALID_ARGUMENT: mistakes in the program; and what the limiter throws. */
  async enter(context: C, req: IncomingMessage, res: ServerResponse): Promise<LimitEntry> {
    const { skip, key: keyOf, cost: given = 1, jitter = 0, random = Math.random } = this.#options
    const limit = this.#limit
    if (await skip?.(context)) return passed
    const key = await keyOf(context)
    if (typeof key !== 'string' || key === '') throw new KvError('LIMIT_KEY_MISSING')
    const visit = visitOf(req)
    if (visit.counted.some((counted) => counted.limit === limit && counted.key === key)) {
      tell(limit.name, { type: 'counted-before' })
      return passed
    }
    const counted: Counted = { limit, key }
    visit.counted.push(counted)
    const cost = typeof given === 'function' ? await given(context) : given
    const stretch = 1 + jitter * random()

    let decision: Acquired
    try {
      decision = await (limit.hasSlots ? limit.acquire(key, { cost }) : limit.consume(key, { cost }))
    } catch (error) {
      if (!isKvError(error, 'COST_TOO_LARGE')) throw error
      const violated = Object.entries(limit.policies).flatMap(([name, { kind, limit: most }]) =>
        kind !== 'concurrency' && cost > most ? [name] : [],
      )
      const detail = 'This request is larger than the whole quota, so it can never be taken. Send a smaller one.'
      return this.#refused('quota-exceeded', { violated, detail }, req, res, context)
    }
    counted.decision = decision
    // Before anything of the user's runs that could throw: a slot that nobody gives back would be renewed for ever.
    const entry = decision.allowed ? this.#followToEnd(decision, res, context) : undefined
    const names = this.#setHeaders(visit, decision, stretch, key, res, context)
    const { outcome, reason, cause } = decision
    if (outcome === 'unknown') tell(limit.name, { type: decision.allowed ? 'passed-unknown' : 'refused-unknown', reason, cause })
    if (entry !== undefined) return entry

    const { retryAfterMs = decision.outcome === 'unknown' ? defaults.unknownRetryMs : undefined } = decision
    const more = {
      violated: decision.violated.map((name) => names.get(name) ?? name),
      retryAfterMs: retryAfterMs && retryAfterMs * stretch,
    }
    if (decision.outcome === 'unknown') return this.#refused('temporary-reduced-capacity', more, req, res, context)
    const kind = this.#options.abnormal?.(decision, context) ? 'abnormal-usage-detected' : 'quota-exceeded'
    return this.#refused(kind, more, req, res, context)
  }

  /**
   * Before the handler, so that every answer has them, a redirect and a stream too. They say what the limiter knows: of an unknown decision nothing.
   * @returns the names that they give to policies: two limiters of one answer may use one name.
   */
  #setHeaders(visit: Visit, decision: Decision, stretch: number, key: string, res: ServerResponse, context: C): Map<string, string> {
    const names = new Map<string, string>()
    if (res.headersSent || decision.outcome === 'unknown') return names
    const said = this.#specs.length === 0 ? undefined : this.#options.partitionKey?.(key, context)
    const partitionKey = typeof said === 'string' ? new TextEncoder().encode(said) : said
    const added = Object.entries(decision.policies).map(([policy, state]): LimitLine => {
      const isTaken = (name: string): boolean => visit.lines.some((line) => line.name === name)
      let name = policy
      for (let count = 1; isTaken(name); count++) name = `${this.#limit.name}/${policy}${count === 1 ? '' : `/${count}`}`
      names.set(policy, name)
      return { ...state, name, partitionKey }
    })
    visit.lines.push(...added)
    const { retryAfterMs } = decision
    for (const spec of this.#specs) {
      for (const { name, value, isList } of limitHeaders(spec, { added, all: visit.lines, nowMs: Date.now(), stretch, retryAfterMs })) {
        const before = isList ? res.getHeader(name) : undefined
        res.setHeader(name, before === undefined ? value : `${Array.isArray(before) ? before.join(', ') : before}, ${value}`)
        visit.names.add(name)
      }
    }
    return names
  }

  #refused(
    kind: LimitProblemKind,
    more: { readonly violated: readonly string[]; readonly detail?: string; readonly retryAfterMs?: number | undefined },
    req: IncomingMessage,
    res: ServerResponse,
    context: C,
  ): LimitEntry {
    if (res.headersSent) invalid('an answer has left before the limit refused the request', 'put rateLimited(...) before whatever answers')
    const problem: LimitProblem = { ...limitProblems[kind], kind, ...more, members: { 'violated-policies': [...more.violated] } }
    return { type: 'reply', reply: replyTo(problem, req.headers.accept, this.#options.problem?.(problem, context)) }
  }

  /** At the end of the request, whichever way it comes, slots and what it did not cost go back: once. */
  #followToEnd(decision: Acquired, res: ServerResponse, context: C): Passed {
    const { refundOn } = this.#options
    const { slot, receipt } = decision
    if (slot === undefined && (refundOn === undefined || receipt === undefined)) return passed
    let error: unknown
    onEnd(res, (type) => {
      const end: RequestEnd = { type, status: res.statusCode, ...(error === undefined ? {} : { error }) }
      const settle = async (): Promise<Settlement | undefined> => {
        const cost = typeof refundOn === 'function' ? refundOn(end, context) : refundOn && costAfter(refundOn, end)
        return cost === undefined ? undefined : await this.#limit.settle(receipt, cost)
      }
      const work = slot === undefined ? [settle()] : [settle(), slot.release()]
      void Promise.allSettled(work).then((all) => {
        for (const one of all) {
          if (one.status === 'rejected') tell(this.#limit.name, { type: 'not-settled', cause: one.reason })
          else if (one.value?.outcome === 'unknown')
            tell(this.#limit.name, { type: 'not-settled', reason: one.value.reason, cause: one.value.cause })
        }
      })
    })
    return { type: 'passed', failed: (thrown) => void (error = thrown) }
  }
}

const passed: Passed = { type: 'passed', failed: () => {} }

function visitOf(req: IncomingMessage): Visit {
  let visit = visits.get(req)
  if (visit === undefined) visits.set(req, (visit = { counted: [], lines: [], names: new Set() }))
  return visit
}

const costAfter = (refundOn: 'success' | 'failure', { type, status }: RequestEnd): number | undefined =>
  type === 'finished' && status < 400 === (refundOn === 'success') ? 0 : undefined

/** Calls back once: when the answer has been sent, or the connection has closed, be it long ago. Some responses that are not Node's own never close. */
function onEnd(res: ServerResponse, run: (type: RequestEnd['type']) => void): void {
  const end = (): void => {
    res.off('finish', end)
    res.off('close', end)
    run(res.writableFinished ? 'finished' : 'closed')
  }
  res.on('finish', end)
  res.on('close', end)
  if (res.writableFinished || res.destroyed) end()
}
