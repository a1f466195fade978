/**
 * The client of the suite, on Node's own `http`: it can send a header twice, hang up, and sees the bytes as they came.
 * Invariant: every request has a connection of its own, so that hanging up ends nothing else.
 */
import { strict as assert } from 'node:assert'
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { amounts, type Process, type Stage } from './stage.ts'

export interface Sending {
  /** The lines of the header. Default: one, quoted. */
  readonly key?: string | readonly string[]
  readonly principal?: string
  readonly amount?: number
  readonly method?: string
  readonly path?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}
export interface Answered {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

/** Sends one request. Should nobody await it, its failure is no news. */
export function send(server: { readonly url: string }, sending: Sending = {}): Promise<Answered> {
  const { key = '"k-1"', principal = 'ada', amount = amounts.usual, method = 'POST', path = '/charges', headers, signal } = sending
  const body = method === 'GET' ? undefined : JSON.stringify({ amount })
  const answered = new Promise<Answered>((resolve, reject) => {
    const req = httpRequest(
      server.url + path,
      {
        agent: false,
        method,
        headers: {
          'x-principal': principal,
          'idempotency-key': typeof key === 'string' ? [key] : [...key],
          ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
          ...headers,
        },
        ...(signal ? { signal } : {}),
      },
      (res) => {
        const chunks: Buffer[] = []
        res.on('data', (chunk: Buffer) => chunks.push(chunk))
        res.once('error', reject)
        res.once('end', () => resolve({ status: res.statusCode ?? 0, headers: res.headers, body: Buffer.concat(chunks) }))
      },
    )
    req.once('error', reject)
    req.end(body)
  })
  answered.catch(() => undefined)
  return answered
}

/** A request that ends without an answer: undefined. */
export async function outcomeOf(sent: Promise<Answered>): Promise<Answered | undefined> {
  return await sent.catch(() => undefined)
}

/** A first request whose handler waits for the service downstream, and what lets it go on. */
export async function running(
  stage: Stage,
  process: Process,
  sending: Sending = {},
): Promise<{ readonly first: Promise<Answered>; readonly release: () => void }> {
  const release = stage.hold()
  const began = stage.beginnings.length
  const first = send(process, sending)
  await until(() => stage.beginnings.length > began, first)
  return { first, release }
}

/** Sends a request that must not run, while the handler of another waits: should it run, it is not waited for. */
export async function sendBeside(stage: Stage, process: Process, sending: Sending = {}): Promise<Answered> {
  const began = stage.beginnings.length
  const beside = send(process, sending)
  await until(() => stage.beginnings.length > began, beside)
  assert.equal(stage.beginnings.length, began, 'no second handler runs beside the first')
  return await beside
}

/** Turns of the event loop until something has happened, or the request has been answered without it. */
async function until(isSo: () => boolean, request: Promise<unknown>): Promise<void> {
  let isAnswered = false
  const note = (): void => {
    isAnswered = true
  }
  request.then(note, note)
  while (!isSo() && !isAnswered) await new Promise((resolve) => setImmediate(resolve))
}

export const isReplay = ({ headers }: Answered): boolean => headers['idempotent-replayed'] === 'true'

/** What a replay repeats beside the status and the body. */
const repeated = ['content-type', 'content-encoding', 'content-length', 'location', 'vary'] as const

export function assertReplayOf(first: Answered, second: Answered, what = 'a repetition'): void {
  assert.equal(isReplay(second), true, `${what} is marked: Idempotent-Replayed: true (status ${second.status})`)
  assert.equal(second.status, first.status, `${what} has the status of the first answer`)
  assert.ok(second.body.equals(first.body), `${what} has the bytes of the first answer`)
  for (const name of repeated) assert.equal(second.headers[name], first.headers[name], `${what} has the first answer's ${name}`)
  assert.equal(second.headers['set-cookie'], undefined, `${what} never has Set-Cookie (T15)`)
}

/** RFC 9457. Gives the problem's type. */
export function assertProblem(answer: Answered, status: number, what: string): string {
  assert.equal(answer.status, status, what)
  assert.match(answer.headers['content-type'] ?? '', /^application\/problem\+json/, what)
  const problem = JSON.parse(answer.body.toString()) as Record<string, unknown>
  assert.equal(problem.status, status, `${what}: the problem says the status`)
  assert.equal(typeof problem.title, 'string', `${what}: the problem has a title`)
  if (typeof problem.type !== 'string') assert.fail(`${what}: the problem has a type`)
  return problem.type
}
