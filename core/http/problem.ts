/**
 * Refusals as RFC 9457 says them: `application/problem+json`, and a line of text for clients that take nothing else.
 * Invariant: what is written holds no bytes of the request.
 */
import type { Json } from '../base/json.ts'

/** A refusal of a door, as a value: a renderer may say it otherwise. */
export interface Problem {
  readonly status: number
  /** A short word that programs may compare: 'in-flight', 'mismatch'. */
  readonly kind: string
  /** A URI that names the kind: `urn:hapax:idempotency:in-flight`. */
  readonly type: string
  readonly title: string
  readonly detail: string
  /** When asking again makes sense, in milliseconds; said as `Retry-After`, rounded up to seconds. */
  readonly retryAfterMs?: number | undefined
  /** Where the result may be found, when the first answer said so. */
  readonly location?: string | undefined
  /** More members of the JSON object (RFC 9457, 3.2). */
  readonly members?: Readonly<Record<string, Json>> | undefined
}

/** A whole answer as it leaves. */
export interface Reply {
  readonly status: number
  readonly headers: readonly (readonly [name: string, value: string | readonly string[]])[]
  readonly body: Uint8Array
}

/** What a renderer of one's own gives: an object is sent as JSON, a string as text, unless the headers say otherwise. */
export interface Rendered {
  readonly status?: number | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly body: string | Uint8Array | object
}

const encoder = new TextEncoder()

/** The answer to a problem. `accept`: the request's header. */
export function replyTo(problem: Problem, accept: string | undefined, rendered?: Rendered): Reply {
  const headers = new Map<string, readonly [string, string]>()
  const set = (name: string, value: string): unknown => headers.set(name.toLowerCase(), [name, value])
  if (problem.retryAfterMs !== undefined) set('Retry-After', String(Math.max(1, Math.ceil(problem.retryAfterMs / 1_000))))
  if (problem.location !== undefined) set('Location', problem.location)
  let body: Uint8Array
  if (rendered !== undefined) {
    const { body: given } = rendered
    const isText = typeof given === 'string'
    if (!(given instanceof Uint8Array)) set('Content-Type', isText ? 'text/plain; charset=utf-8' : 'application/json; charset=utf-8')
    for (const [name, value] of Object.entries(rendered.headers ?? {})) set(name, value)
    body = given instanceof Uint8Array ? given : encoder.encode(isText ? given : JSON.stringify(given))
  } else if (takesJson(accept)) {
    const { type, title, status, detail, members } = problem
    set('Content-Type', 'application/problem+json')
    body = encoder.encode(JSON.stringify({ ...members, type, title, status, detail }))
  } else {
    set('Content-Type', 'text/plain; charset=utf-8')
    body = encoder.encode(`${problem.title}: ${problem.detail}\n`)
  }
  return { status: rendered?.status ?? problem.status, headers: [...headers.values()], body }
}

/** Only a client that takes text and likes JSON less gets text: a problem is better said in JSON than not at all. */
function takesJson(accept: string | undefined): boolean {
  if (accept === undefined || accept.length > 1_024) return true // longer lists are not worth the work
  const ranges = accept.split(',').map((range) => {
    const [name = '', ...parameters] = range.split(';').map((part) => part.trim().toLowerCase())
    const quality = parameters.find((parameter) => parameter.startsWith('q='))
    return { name, quality: quality === undefined ? 1 : Number(quality.slice(2)) || 0 }
  })
  const best = (wanted: RegExp): number => Math.max(0, ...ranges.filter(({ name }) => wanted.test(name)).map(({ quality }) => quality))
  const json = best(/^application\/(.*json|\*)$|^\*\/\*$/)
  return json > 0 ? json >= best(/^text\/plain$/) : best(/^text\//) === 0
}
