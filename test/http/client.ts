/**
 * A server on a free port, and a client that sees answers as they came.
 * Invariant: a server ends with its test, and each request has a connection of its own.
 * Why not `fetch`: it joins header lines, follows redirects and inflates bodies, and just those are looked at.
 */
import { createServer, request, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'

/** Serves on a free port until the test ends. */
export async function serve(listener: RequestListener): Promise<string> {
  const server: Server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

export interface Sent {
  readonly method?: string
  readonly path?: string
  /** A list is several lines. Absent: no key. */
  readonly key?: string | readonly string[] | undefined
  /** Sent as JSON, unless it is a string or bytes. */
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string | readonly string[]>>
}
export interface Received {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly rawHeaders: readonly string[]
  readonly trailers: IncomingMessage['trailers']
  readonly body: Buffer
  readonly text: string
  json(): { readonly [name: string]: unknown }
}
export interface Pending {
  readonly answer: Promise<Received>
  /** Closes the connection. `answer` then rejects. */
  leave(): void
}

/** Begins a request on a connection of its own. */
export function begin(url: string, { method = 'POST', path = '/payments', key, body, headers = {} }: Sent = {}): Pending {
  const isRaw = typeof body === 'string' || body instanceof Uint8Array
  const payload = body === undefined ? undefined : isRaw ? body : JSON.stringify(body)
  const length = payload === undefined || 'transfer-encoding' in headers ? {} : { 'content-length': Buffer.byteLength(payload) }
  const sent = request(url + path, {
    method,
    agent: false,
    headers: {
      ...(payload === undefined ? {} : { 'content-type': 'application/json' }),
      ...length,
      ...(key === undefined ? {} : { 'idempotency-key': typeof key === 'string' ? key : [...key] }),
      ...(headers as Record<string, string | string[]>),
    },
  })
  const answer = new Promise<Received>((resolve, reject) => {
    sent.on('error', reject)
    sent.on('response', (response) => {
      const chunks: Uint8Array[] = []
      response.on('data', (chunk: Uint8Array) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        const whole = Buffer.concat(chunks)
        const { statusCode = 0, rawHeaders, trailers } = response
        const text = whole.toString()
        resolve({
          status: statusCode,
          headers: response.headers,
          rawHeaders,
          trailers,
          body: whole,
          text,
          json: () => JSON.parse(text) as { [name: string]: unknown },
        })
      })
    })
  })
  answer.catch(() => {}) // who leaves need not listen
  sent.end(payload)
  return { answer, leave: () => void sent.destroy() }
}

export const send = (url: string, sent: Sent = {}): Promise<Received> => begin(url, sent).answer

/** A promise to be resolved from outside. */
export function gate<T = void>(): { readonly promise: Promise<T>; open(value: T): void } {
  let open: (value: T) => void = () => {}
  const promise = new Promise<T>((resolve) => {
    open = resolve
  })
  return { promise, open }
}

/** Resolves when the server has seen that the client left. */
export const gone = (req: IncomingMessage): Promise<unknown> =>
  req.socket.destroyed ? Promise.resolve() : new Promise((resolve) => req.socket.once('close', resolve))
