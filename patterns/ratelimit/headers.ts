/**
 * What a limit tells its clients: `RateLimit` and `RateLimit-Policy`, the sets of headers that came before them, `Retry-After`, and problem types.
 * Pure. Invariant: no header promises more than the limiter would give, and every value is rounded to the side on which a client waits longer.
 * Why the draft has a number in its name: what `t` means changed with the eleventh (draft-ietf-httpapi-ratelimit-headers).
 */
import { invalid } from '../../core/kv/errors.ts'

/**
 * `draft-11`: lists of all policies; `t` is the effective window, in which a client can use no more than `r`. It is stretched so that `r` in `t`
 * is never faster than the policy (section 6). `draft-10`: the same lists; `t` is the time until there is more (`draft-8` and `draft-9` are equal).
 * `draft-7`, `draft-6`: the policies as a list, and the state of the tightest one. `x-ratelimit`: `X-RateLimit-Limit`, `-Remaining` and
 * `-Reset` of the tightest one, the last in epoch seconds, as express-rate-limit has it.
 */
export type HeaderSpec = 'draft-11' | 'draft-10' | 'draft-7' | 'draft-6' | 'x-ratelimit'

/** One policy, and how much of it is left. */
export interface LimitLine {
  /** Printable ASCII, as a structured field wants it (RFC 9651, 3.3.3); `planOf` takes no other names. */
  readonly name: string
  readonly limit: number
  readonly remaining: number
  /** Until there is more. Absent: not known, as of slots. */
  readonly resetMs?: number | undefined
  /** Absent: the policy has no window. */
  readonly windowMs?: number | undefined
  /** A unit of the draft's registry: 'requests', 'content-bytes', 'concurrent-requests'. */
  readonly unit: string
  readonly violated: boolean
  /** Of the `pk` parameter. Absent: none is said. */
  readonly partitionKey?: Uint8Array | undefined
}

export interface HeaderFacts {
  /** The lines that come now. */
  readonly added: readonly LimitLine[]
  /** Those that earlier limiters of this response brought, too: some sets can tell of one line only. */
  readonly all: readonly LimitLine[]
  /** For `x-ratelimit`. Epoch milliseconds. */
  readonly nowMs: number
  /** From 1: how much longer every wait is said to be, so that not all clients come back at once. */
  readonly stretch?: number | undefined
  /** Of a refusal, before it is stretched. */
  readonly retryAfterMs?: number | undefined
}

/** One header: a list that goes behind what is there, or a value that replaces it. */
export interface LimitHeader {
  readonly name: string
  readonly value: string
  readonly isList: boolean
}

const drafts: readonly string[] = ['draft-11', 'draft-10', 'draft-7', 'draft-6'] satisfies HeaderSpec[]

/** Checks which sets are asked for. @throws KvError INVALID_ARGUMENT: an unknown one, or two that use one name. */
export function headerSpecs(given: HeaderSpec | readonly HeaderSpec[]): readonly HeaderSpec[] {
  const specs: readonly HeaderSpec[] = typeof given === 'string' ? [given] : given
  for (const spec of specs)
    if (spec !== 'x-ratelimit' && !drafts.includes(spec))
      invalid(`spec: ${JSON.stringify(spec)} is no set of headers`, `these are: ${drafts.join(', ')}, x-ratelimit`)
  if (specs.filter((spec) => spec !== 'x-ratelimit').length > 1)
    invalid('spec: two drafts use the same header names', 'choose one draft; x-ratelimit may stand beside it')
  return specs
}

export function limitHeaders(spec: HeaderSpec, facts: HeaderFacts): LimitHeader[] {
  if (facts.added.length === 0) return []
  return spec === 'draft-11' || spec === 'draft-10' ? lists(spec, facts) : tightestOf(spec, facts)
}

function lists(spec: 'draft-11' | 'draft-10', { added, stretch = 1, retryAfterMs }: HeaderFacts): LimitHeader[] {
  const retryAfterS = retryAfterMs === undefined ? Infinity : retryAfterSeconds(retryAfterMs, stretch)
  const policies: string[] = []
  const states: string[] = []
  for (const line of added) {
    const { limit, windowMs, unit, partitionKey } = line
    const name = quoted(line.name)
    const pk = partitionKey === undefined ? '' : `;pk=:${Buffer.from(partitionKey).toString('base64')}:`
    policies.push(`${name};q=${whole(limit)}${unit === 'requests' ? '' : `;qu=${quoted(unit)}`}${windowText(windowMs)}${pk}`)
    const untilMs = spec === 'draft-11' ? effectiveWindowMs(line) : line.resetMs
    const untilS = untilMs === undefined ? Infinity : secondsUp(untilMs * stretch)
    // Retry-After should not be earlier than what `t` says (section 6), so a longer `t` is left out.
    const isSaid = untilS !== Infinity && untilS <= retryAfterS
    states.push(`${name};r=${left(line)}${isSaid ? `;t=${untilS}` : ''}${pk}`)
  }
  return [list('RateLimit-Policy', policies), list('RateLimit', states)]
}

function tightestOf(spec: 'draft-7' | 'draft-6' | 'x-ratelimit', { added, all, nowMs, stretch = 1 }: HeaderFacts): LimitHeader[] {
  const line = all.reduce((one, other) => (byTightness(one, other) <= 0 ? one : other))
  const [limit, remaining] = [whole(line.limit), left(line)]
  const resetMs = line.resetMs === undefined ? undefined : line.resetMs * stretch
  if (spec === 'x-ratelimit') {
    const headers = [single('X-RateLimit-Limit', limit), single('X-RateLimit-Remaining', remaining)]
    return resetMs === undefined ? headers : [...headers, single('X-RateLimit-Reset', secondsUp(nowMs + resetMs))]
  }
  const policies = list(
    'RateLimit-Policy',
    added.map((one) => `${whole(one.limit)}${windowText(one.windowMs)}`),
  )
  if (spec === 'draft-7') return [policies, single('RateLimit', `limit=${limit}, remaining=${remaining}, reset=${secondsUp(resetMs ?? 0)}`)]
  const headers = [policies, single('RateLimit-Limit', limit), single('RateLimit-Remaining', remaining)]
  return resetMs === undefined ? headers : [...headers, single('RateLimit-Reset', secondsUp(resetMs))]
}

const list = (name: string, items: readonly string[]): LimitHeader => ({ name, value: items.join(', '), isList: true })
const single = (name: string, value: number | string): LimitHeader => ({ name, value: String(value), isList: false })

/** The value of `Retry-After`: whole seconds, rounded up, at least 1. */
export const retryAfterSeconds = (ms: number, stretch = 1): number => Math.max(1, secondsUp(ms * stretch))

/** `limit` of the draft's problem types that a refusal is. */
export type LimitProblemKind = keyof typeof limitProblems

const registry = 'https://iana.org/assignments/http-problem-types'
/** Section 5. The titles are ours. */
export const limitProblems = {
  'quota-exceeded': {
    status: 429,
    type: `${registry}#quota-exceeded`,
    title: 'Too many requests',
    detail: 'The quota of this client is used up. Send the request again after the time that Retry-After says.',
  },
  'temporary-reduced-capacity': {
    status: 503,
    type: `${registry}#temporary-reduced-capacity`,
    title: 'The request cannot be taken now',
    detail: 'Whether a quota is left cannot be told now, so the request was not processed. Send it again later.',
  },
  'abnormal-usage-detected': {
    status: 429,
    type: `${registry}#abnormal-usage-detected`,
    title: 'Unusual requests',
    detail: 'This client is refused for longer, because it went on after it had been refused. Wait as long as Retry-After says.',
  },
} as const

/** In this time no more than `remaining` can be used, and using it evenly is not faster than the policy as a whole (sections 6 and 8.5). */
function effectiveWindowMs(line: LimitLine): number | undefined {
  const { limit, resetMs, windowMs } = line
  if (resetMs === undefined || windowMs === undefined || limit < 1) return resetMs
  return Math.max(resetMs, (windowMs * left(line)) / whole(limit))
}

/** What stops the client first: what stopped it now, else what has the smallest share left; of equals, what takes longest to come back. */
function byTightness(one: LimitLine, other: LimitLine): number {
  const share = ({ remaining, limit }: LimitLine): number => (limit <= 0 ? 0 : remaining / limit)
  return Number(other.violated) - Number(one.violated) || share(one) - share(other) || (other.resetMs ?? 0) - (one.resetMs ?? 0)
}

const windowText = (windowMs: number | undefined): string => (windowMs === undefined ? '' : `;w=${secondsUp(windowMs)}`)
const quoted = (text: string): string => (/["\\]/.test(text) ? JSON.stringify(text) : `"${text}"`)
/** Rounded up: a window of less than a second is told as one, which promises less. */
const secondsUp = (ms: number): number => whole(Math.ceil(ms / 1_000))
/** Never more than all. */
const left = ({ remaining, limit }: LimitLine): number => whole(Math.min(remaining, limit))
/** RFC 9651, 3.3.1: fifteen digits. */
const whole = (value: number): number => Math.min(999_999_999_999_999, Math.max(0, Math.floor(value)))
