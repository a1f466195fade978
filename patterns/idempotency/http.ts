/**
 * Idempotency over HTTP, of no framework: reads the key, claims it, and says for each request whether its handler runs or which answer it gets.
 * Invariant: nothing reaches the store before key, scope and body have been checked, and no answer leaves before it is stored.
 * Why answers are values here (`Reply`): Express sends them through the response, Koa through its context.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Head, Verdict } from '../../core/http/capture.ts'
import { hasBody, headerLines, inEncodingOf, isUnparsed, mediaType, splitTarget, type Call } from '../../core/http/exchange.ts'
import { replyTo, type Problem, type Rendered, type Reply } from '../../core/http/problem.ts'
import { invalid, KvError } from '../../core/kv/errors.ts'
import { newId } from '../../core/kv/id.ts'
import { NotJsonError, type Json } from '../../core/base/json.ts'
import { fingerprintOf, stepKeyOf } from './fingerprint.ts'
import { parseKey } from './key.ts'
import type { Fingerprint, Idempotency, Once, Refused, Replay, Run, Saved } from './types.ts'

export type ProblemKind = Refused['refusal'] | 'key-missing' | 'key-invalid'

export interface IdempotencyProblem extends Problem {
  readonly kind: ProblemKind
}

/** Options of a door. `C` is the framework's request or context. */
export interface DoorOptions<C> {
  /** Who asks, as the server knows it after authentication: a tenant or a principal. 'public' shares answers with everybody. */
  readonly scope: (context: C) => string | Promise<string>
  /** Refuse requests without a key (400). Default: false, they run unprotected. */
  readonly required?: boolean | undefined
  /**
   * Names what is asked for. Default: method and path, as in 'POST /payments'. Under one name given as a string another path is another request (422);
   * a function says all that tells requests apart.
   */
  readonly operation?: string | ((context: C) => string) | undefined
  /** Take only quoted keys, as the draft wants them. Default: false. */
  readonly strict?: boolean | undefined
  /** The header that carries the key. Default: 'Idempotency-Key'. */
  readonly header?: string | undefined
  /** Methods that are protected; others pass. Default: POST and PATCH. */
  readonly methods?: readonly string[] | undefined
  /** What of the request must be equal in a repetition, beside method, path, query and content type. Default: the parsed body and uploaded files. */
  readonly fingerprint?: ((context: C) => unknown) | undefined
  /** Headers of an answer that are kept beside the usual ones. Never kept: cookies, credentials, Date and what belongs to the connection. */
  readonly headers?: readonly string[] | undefined
  /** Says refusals in another way. Default: application/problem+json (RFC 9457). */
  readonly problem?: ((problem: IdempotencyProblem, context: C) => Rendered) | undefined
}

const defaults = {
  header: 'Idempotency-Key',
  /** POST and PATCH are not idempotent by themselves (RFC 9110, 9.2.2); the others are, or must be made so. */
  methods: ['POST', 'PATCH'],
} as const

/** What describes the content and its place; nothing that belongs to a client, a connection or a moment. */
const keptHeaders = [
  'content-type',
  'content-language',
  'content-encoding',
  'content-disposition',
  'content-location',
  'location',
  'link',
  'etag',
  'last-modified',
  'vary',
  'cache-control',
  'expires',
]
const neverKept = new Set(
  'set-cookie,authorization,proxy-authorization,proxy-authenticate,www-authenticate,authentication-info,date,connection,keep-alive,te,trailer,transfer-encoding,upgrade,content-length,age'.split(
    ',',
  ),
)

/** The request may run: at the end exactly one of `answered`, `streamed`, `failed`. */
export interface Entered {
  readonly type: 'entered'
  readonly once: Once
  /** Absent: not protected, because it has no key or its method passes. */
  readonly run?: ProtectedRun | undefined
}

export interface ProtectedRun {
  /** Bytes of a body that can be stored at most. */
  readonly answerBytesMax: number
  /** Stores the answer; says what leaves instead, if another run's answer stands. Never throws. */
  answered(answer: Reply): Promise<Verdict>
  streamed(head: Head, reason: 'streamed' | 'too-large'): Promise<Verdict>
  /** The handler has ended, and there will be no answer. */
  failed(error: unknown): Promise<void>
  /** The client has gone and the answer has not come. It may come: the claim is kept for a bounded time. */
  abandon(): void
}

export type Entry = Entered | { readonly type: 'reply'; readonly reply: Reply }

/** By request: what `onceOf` gives. Weak, so it lives as long as the request. */
const entered = new WeakMap<IncomingMessage, { once: Once | undefined }>()

/** What the door made of this request. @throws KvError INVALID_ARGUMENT when no door stands before. */
export function onceOfRequest(req: IncomingMessage): Once {
  const once = entered.get(req)?.once
  return once ?? invalid('onceOf: no idempotency door has let this request in', 'put idempotent(...) before the handler')
}

export class Door<C> {
  readonly #idempotency: Idempotency
  readonly #options: DoorOptions<C>
  readonly #header: string
  readonly #methods: ReadonlySet<string>
  readonly #kept: ReadonlySet<string>

  constructor(idempotency: Idempotency, options: DoorOptions<C>) {
    if (typeof options?.scope !== 'function')
      throw new KvError('SCOPE_MISSING', { message: 'idempotent(...) needs `scope`: a function that says who asks' })
    this.#idempotency = idempotency
    this.#options = options
    this.#header = options.header ?? defaults.header
    this.#methods = new Set((options.methods ?? defaults.methods).map((method) => method.toUpperCase()))
    const added = (options.headers ?? []).map((name) => name.toLowerCase())
    for (const name of added)
      if (neverKept.has(name)) invalid(`headers: '${name}' is never kept: it belongs to one client, connection or moment`)
    this.#kept = new Set([...keptHeaders, ...added])
  }

  /** @throws KvError APPLIED_TWICE, SCOPE_MISSING, BODY_UNPARSED, INVALID_ARGUMENT: mistakes in the program; and faults of the store. */
  async enter(call: Call<C>, res: ServerResponse): Promise<Entry> {
    const { req, context } = call
    const { required = false, strict } = this.#options
    const before = entered.get(req)
    if (before !== undefined) {
      before.once?.release() // a mistake in the program must not use up the client's key
      throw new KvError('APPLIED_TWICE')
    }
    const place: { once: Once | undefined } = { once: undefined }
    entered.set(req, place)
    const method = req.method ?? 'GET'
    const { path, query } = splitTarget(call.target)
    const operation = this.#operationOf(context, `${method} ${path}`)
    if (!this.#methods.has(method)) return { type: 'entered', once: (place.once = unprotected(operation)) }

    const parsed = parseKey(headerLines(req, this.#header), { strict })
    if (parsed.type === 'invalid') return await this.#refused('key-invalid', call, { detail: parsed.problem })
    if (parsed.type === 'absent') {
      if (required) return await this.#refused('key-missing', call)
      return { type: 'entered', once: (place.once = unprotected(operation)) }
    }
    if (res.headersSent) invalid('an answer has left before the idempotency door', 'put idempotent(...) before whatever answers')
    const scope = await this.#options.scope(context)
    if (typeof scope !== 'string' || scope === '') throw new KvError('SCOPE_MISSING')
    const fingerprint = this.#fingerprintOf(call, operation, path, query)

    const claim = await this.#idempotency.claim({ scope, key: parsed.key, operation, fingerprint })
    if (claim.type !== 'run') return { type: 'reply', reply: await this.#instead(claim, call) }
    place.once = claim.once
    return { type: 'entered', once: claim.once, run: this.#protect(claim, call) }
  }

  #operationOf(context: C, usual: string): string {
    const { operation = usual } = this.#options
    return typeof operation === 'function' ? operation(context) : operation
  }

  /** Before any handler can change what was parsed (T9). */
  #fingerprintOf(call: Call<C>, operation: string, path: string, query: string): Fingerprint {
    const { req, body, context, files } = call
    const own = this.#options.fingerprint
    // One name for '/orders/:id/capture' must not answer order 2 with order 1.
    const place = typeof this.#options.operation === 'string' ? `${operation} ${req.method ?? ''} ${path}` : operation
    if (own === undefined && isUnparsed(req, body)) throw new KvError('BODY_UNPARSED')
    const contentType = hasBody(req) ? mediaType(req.headers['content-type']) : ''
    try {
      const what = own ? own(context) : files === undefined ? bodyOf(req, body) : [body ?? null, uploads(files)]
      return fingerprintOf({ operation: place, query, contentType, body: what })
    } catch (cause) {
      if (!(cause instanceof NotJsonError)) throw cause
      throw new KvError('INVALID_ARGUMENT', {
        message: `the request's body cannot be compared with a repetition: ${cause.message}`,
        hint: 'say with `fingerprint` what of the request must be equal',
        cause,
      })
    }
  }

  #protect(run: Run, call: Call<C>): ProtectedRun {
    let isOver = false
    const end = async (work: () => Promise<Saved>): Promise<Verdict> => {
      if (isOver) return {}
      isOver = true
      const saved = await work()
      if (saved.type === 'unsaved') return { headers: { 'Idempotency-Status': 'unsaved' } }
      return saved.type === 'overtaken' ? { replaceBy: await this.#instead(saved.by, call) } : {}
    }
    return {
      answerBytesMax: this.#idempotency.answerBytesMax,
      answered: ({ body, ...head }) => end(() => run.complete({ head: this.#headOf(head), body }, { status: head.status })),
      streamed: (head, reason) => end(() => run.unstored(this.#headOf(head), reason)),
      failed: async (error) => void (await end(() => run.failed(error))),
      abandon: () => run.abandon(),
    }
  }

  #headOf({ status, headers }: Head): Json {
    return { status, headers: headers.filter(([name]) => this.#kept.has(name.toLowerCase())) as unknown as Json }
  }

  /** What a request gets that does not run. */
  async #instead(claim: Replay | Refused, call: Call<C>): Promise<Reply> {
    if (claim.type === 'refused') {
      const location = claim.refusal === 'unstored' ? locationIn(claim.head) : undefined
      return (await this.#refused(claim.refusal, call, { retryAfterMs: claim.retryAfterMs, location })).reply
    }
    const { status, headers } = headIn(claim.answer.head)
    const stored = { status, headers: [...headers, ['Idempotent-Replayed', 'true'] as const], body: claim.answer.body }
    return await inEncodingOf(stored, call.req.headers['accept-encoding'])
  }

  async #refused(
    kind: ProblemKind,
    { req, context }: Call<C>,
    more: { detail?: string; retryAfterMs?: number | undefined; location?: string | undefined } = {},
  ): Promise<{ type: 'reply'; reply: Reply }> {
    const { status, title, detail } = problems[kind]
    const problem: IdempotencyProblem = { status, kind, type: `urn:hapax:idempotency:${kind}`, title, detail, ...more }
    return { type: 'reply', reply: replyTo(problem, req.headers.accept, this.#options.problem?.(problem, context)) }
  }
}

const problems: Readonly<Record<ProblemKind, { status: number; title: string; detail: string }>> = {
  'key-missing': {
    status: 400,
    title: 'Idempotency-Key is missing',
    detail: 'This operation needs an Idempotency-Key header. Send a new key with each new request and the same key with each repetition.',
  },
  'key-invalid': { status: 400, title: 'Idempotency-Key is not valid', detail: 'The Idempotency-Key header cannot be read.' },
  mismatch: {
    status: 422,
    title: 'Idempotency-Key is already used',
    detail: 'This key was first sent with another request. Use a new key for a new request.',
  },
  'in-flight': {
    status: 409,
    title: 'A request is outstanding for this Idempotency-Key',
    detail: 'The first request with this key is still being processed. Send it again later with the same key.',
  },
  'outcome-unknown': {
    status: 409,
    title: 'The outcome of the first request is unknown',
    detail: 'The first request with this key began and did not end. It is not run again by itself; somebody has to look.',
  },
  unstored: {
    status: 409,
    title: 'The answer was not kept',
    detail: 'The first request with this key was answered, but its answer was too large or streamed. It is not run again.',
  },
  'store-unavailable': {
    status: 503,
    title: 'The request cannot be protected now',
    detail: 'The store of idempotency keys is away, so the request was not processed. Send it again later with the same key.',
  },
}

/** Bytes that a parser kept whole are compared as they came; what it made of them, in canonical form. */
function bodyOf(req: IncomingMessage, body: unknown): unknown {
  if (typeof body === 'string') return { text: body }
  return hasBody(req) ? body : undefined // Express 4 leaves {} where there was nothing
}

/**
 * multer's files: `req.file`, or `req.files` as a list or by field.
 * @throws KvError BODY_UNPARSED for files whose bytes are not here: on disk, or left by a parser whose files look otherwise.
 */
function uploads(files: unknown): unknown {
  if (files === null || files === undefined) return null
  if (Array.isArray(files)) return files.map(uploads)
  const isByField = Object.values(files).every((value) => typeof value === 'object' && value !== null && !(value instanceof Uint8Array))
  if (isByField) return Object.entries(files).map(([field, list]) => [field, uploads(list)])
  const { fieldname, originalname, mimetype, buffer } = files as Record<string, unknown>
  if (!(buffer instanceof Uint8Array)) {
    throw new KvError('BODY_UNPARSED', {
      message: 'the bytes of an uploaded file are not in memory, so they cannot be compared with a repetition',
      hint: 'keep uploads in memory, or say with `fingerprint` what must be equal',
    })
  }
  return [String(fieldname), String(originalname), String(mimetype), fingerprintOf({ operation: 'upload', body: buffer })]
}

/** Our own record, so its shape is known; a damaged one does not decode. */
function headIn(head: Json): Head {
  const { status, headers } = head as unknown as Head
  return { status, headers }
}

function locationIn(head: Json | undefined): string | undefined {
  if (head === undefined || head === null) return undefined
  const found = headIn(head).headers.find(([name]) => name.toLowerCase() === 'location')?.[1]
  return typeof found === 'string' ? found : undefined
}

/** A request without a key: its steps run, nothing is remembered, and each has a key that nobody else has. */
function unprotected(operation: string): Once {
  const id = newId()
  return {
    scope: '',
    key: '',
    operation,
    fence: 0,
    signal: new AbortController().signal,
    owned: false,
    step: async (name, fn) => await fn({ key: stepKeyOf(id, name), signal: new AbortController().signal }),
    release: () => undefined,
  }
}
