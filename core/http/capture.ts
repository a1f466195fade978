/**
 * Holds an outgoing answer back, whatever writes it: `res.json`, `end`, `write`, `pipe`, `sendFile`. Then it asks what to do, and only then sends.
 * Invariant: no byte leaves before the question is answered, and after it every byte does.
 * Why at write and end: everything above them ends there, and nothing below them can be called back.
 *
 *   holding --end--> deciding --send--> open            what was held leaves, and what comes later passes through
 *   holding --too much, or an event stream--> deciding  the rest waits in `#chunks`; write() says false, 'drain' follows
 *                    deciding --replace--> replaced     another answer left; what the handler writes goes nowhere
 */
import type { OutgoingHttpHeaders, ServerResponse } from 'node:http'
import type { Reply } from './problem.ts'

export type Head = Pick<Reply, 'status' | 'headers'>

/** What becomes of a held answer. `undefined`: it leaves as it is; `headers` are added. */
export interface Verdict {
  readonly replaceBy?: Reply | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
}

export interface CaptureOptions {
  /** Bytes of a body that are held; a larger one is decided as 'too-large' before its first byte leaves. */
  readonly bytesMax: number
  /** Must not throw. */
  onAnswer(answer: Reply): Promise<Verdict>
  /** Must not throw. */
  onStream(head: Head, reason: 'streamed' | 'too-large'): Promise<Verdict>
  /** The connection closed while the answer was not ended. It may still end. */
  onGone(): void
}

type Callback = (error?: Error | null) => void
interface Chunk {
  readonly bytes: Uint8Array
  readonly callback: Callback | undefined
}

export class Capture {
  readonly #res: ServerResponse
  readonly #options: CaptureOptions
  readonly #original: Pick<ServerResponse, 'writeHead' | 'write' | 'end' | 'flushHeaders'>
  /** What was set before the handler: another answer begins from here. */
  readonly #headersBefore: OutgoingHttpHeaders
  #state: 'holding' | 'deciding' | 'open' | 'replaced' = 'holding'
  #chunks: Chunk[] = []
  #bytes = 0
  #isBegun = false
  #isEnded = false
  #onEnd: Callback | undefined
  #mustDrain = false

  constructor(res: ServerResponse, options: CaptureOptions) {
    this.#res = res
    this.#options = options
    const { writeHead, write, end, flushHeaders } = res
    this.#original = { writeHead, write, end, flushHeaders }
    this.#headersBefore = { ...res.getHeaders() }
    res.writeHead = this.#writeHead as typeof res.writeHead
    res.write = this.#write as typeof res.write
    res.end = this.#end as typeof res.end
    res.flushHeaders = this.#flushHeaders
    // Whoever asks whether it is too late for another answer must hear what would be true without us.
    Object.defineProperty(res, 'headersSent', { configurable: true, get: () => this.#isBegun })
    Object.defineProperty(res, 'writableEnded', { configurable: true, get: () => this.#isEnded })
    res.once('close', () => {
      if (!this.#isEnded && this.#state !== 'open') options.onGone()
    })
  }

  /** The handler has begun to answer through the response itself. */
  get isBegun(): boolean {
    return this.#isBegun
  }
  get isEnded(): boolean {
    return this.#isEnded
  }

  /** Lets everything pass from now on; nothing has been held. */
  open(): void {
    if (this.#state === 'holding') this.#pass()
  }

  readonly #writeHead = (status: number, ...rest: unknown[]): ServerResponse => {
    const res = this.#res
    if (this.#state === 'open') return Reflect.apply(this.#original.writeHead, res, [status, ...rest]) as ServerResponse
    if (this.#state === 'replaced') return res
    if (this.#isBegun)
      throw Object.assign(new Error('Cannot write headers after they are sent to the client'), { code: 'ERR_HTTP_HEADERS_SENT' })
    if (!Number.isInteger(status) || status < 100 || status > 999)
      throw Object.assign(new RangeError(`Invalid status code: ${status}`), { code: 'ERR_HTTP_INVALID_STATUS_CODE' })
    const [reason, headers] = typeof rest[0] === 'string' ? [rest[0], rest[1]] : [undefined, rest[1] ?? rest[0]]
    if (Array.isArray(headers)) {
      for (let index = 0; index + 1 < headers.length; index += 2) res.removeHeader(String(headers[index]))
      for (let index = 0; index + 1 < headers.length; index += 2) res.appendHeader(String(headers[index]), headers[index + 1] as string)
    } else if (headers !== undefined && headers !== null) {
      for (const [name, value] of Object.entries(headers as OutgoingHttpHeaders)) if (value !== undefined) res.setHeader(name, value)
    }
    res.statusCode = status
    if (reason !== undefined) res.statusMessage = reason
    this.#isBegun = true
    return res
  }

  readonly #flushHeaders = (): void => {
    if (this.#state === 'open') return Reflect.apply(this.#original.flushHeaders, this.#res, [])
    if (this.#state !== 'holding') return
    this.#isBegun = true
    if (this.#isEventStream()) void this.#decide('streamed')
  }

  readonly #write = (chunk: unknown, ...rest: unknown[]): boolean => {
    const { encoding, callback } = readRest(rest)
    if (this.#state === 'open') return Reflect.apply(this.#original.write, this.#res, [chunk, encoding, callback]) as boolean
    if (this.#isEnded || this.#state === 'replaced') {
      if (callback) process.nextTick(callback, this.#state === 'replaced' ? null : new Error('write after end'))
      return true
    }
    this.#hold(chunk, encoding, callback)
    if (this.#state === 'holding') {
      if (this.#isEventStream()) void this.#decide('streamed')
      else if (this.#bytes > this.#options.bytesMax) void this.#decide('too-large')
    }
    if (this.#state === 'holding') return true
    this.#mustDrain = true
    return false
  }

  readonly #end = (...given: unknown[]): ServerResponse => {
    const res = this.#res
    if (this.#state === 'open') return Reflect.apply(this.#original.end, res, given) as ServerResponse
    const [chunk, rest] = typeof given[0] === 'function' ? [undefined, given] : [given[0], given.slice(1)]
    const { encoding, callback } = readRest(rest)
    if (this.#isEnded || this.#state === 'replaced') {
      if (callback) process.nextTick(callback)
      return res
    }
    if (chunk !== undefined && chunk !== null) this.#hold(chunk, encoding, undefined)
    this.#isBegun = true
    this.#isEnded = true
    this.#onEnd = callback
    if (this.#state === 'holding') void this.#decide(this.#bytes > this.#options.bytesMax ? 'too-large' : 'whole')
    return res
  }

  /** A copy: the writer may use its buffer again while we wait. */
  #hold(chunk: unknown, encoding: BufferEncoding | undefined, callback: Callback | undefined): void {
    if (typeof chunk !== 'string' && !(chunk instanceof Uint8Array)) {
      throw Object.assign(new TypeError('The "chunk" argument must be of type string or an instance of Buffer or Uint8Array.'), {
        code: 'ERR_INVALID_ARG_TYPE',
      })
    }
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk, encoding) : Buffer.from(chunk)
    this.#isBegun = true
    this.#bytes += bytes.length
    // Held bytes are taken: whoever waits for that before it goes on must not wait for the end that only it can write.
    if (callback && this.#state === 'holding') process.nextTick(callback)
    this.#chunks.push({ bytes, callback: this.#state === 'holding' ? undefined : callback })
  }

  #isEventStream(): boolean {
    return /^text\/event-stream\b/i.test(String(this.#res.getHeader('content-type') ?? ''))
  }

  async #decide(what: 'whole' | 'streamed' | 'too-large'): Promise<void> {
    this.#state = 'deciding'
    const head = { status: this.#res.statusCode, headers: headersOf(this.#res) }
    const verdict =
      what === 'whole'
        ? await this.#options.onAnswer({ ...head, body: Buffer.concat(this.#chunks.map(({ bytes }) => bytes)) })
        : await this.#options.onStream(head, what)
    if (verdict.replaceBy !== undefined) return this.#replace(verdict.replaceBy)
    for (const [name, value] of Object.entries(verdict.headers ?? {})) this.#res.setHeader(name, value)
    this.#send(what === 'whole')
  }

  #send(isWhole: boolean): void {
    const res = this.#res
    const chunks = this.#chunks
    this.#pass()
    if (res.destroyed) {
      for (const { callback } of chunks) callback?.(new Error('the connection is closed'))
      this.#onEnd?.()
      return
    }
    // In one piece Node says its length; with trailers it must not.
    if (isWhole && !res.hasHeader('trailer')) {
      Reflect.apply(this.#original.end, res, [Buffer.concat(chunks.map(({ bytes }) => bytes)), this.#onEnd])
      return
    }
    let isRoom = true
    for (const { bytes, callback } of chunks) isRoom = Reflect.apply(this.#original.write, res, [bytes, undefined, callback]) as boolean
    if (chunks.length === 0 && !this.#isEnded) Reflect.apply(this.#original.flushHeaders, res, [])
    if (this.#isEnded) Reflect.apply(this.#original.end, res, [this.#onEnd])
    else if (this.#mustDrain && isRoom) res.emit('drain')
  }

  #replace(reply: Reply): void {
    const res = this.#res
    const chunks = this.#chunks
    this.#pass()
    if (!res.destroyed) {
      for (const name of res.getHeaderNames()) res.removeHeader(name)
      for (const [name, value] of Object.entries(this.#headersBefore)) if (value !== undefined) res.setHeader(name, value)
      sendReply(res, reply)
    }
    this.#state = 'replaced'
    for (const { callback } of chunks) callback?.()
    this.#onEnd?.()
    if (this.#mustDrain) res.emit('drain')
  }

  #pass(): void {
    this.#state = 'open'
    this.#chunks = []
    Reflect.deleteProperty(this.#res, 'headersSent')
    Reflect.deleteProperty(this.#res, 'writableEnded')
  }
}

/** Sends a whole answer through Node's response. */
export function sendReply(res: ServerResponse, { status, headers, body }: Reply): void {
  res.statusCode = status
  res.statusMessage = ''
  for (const [name, value] of headers) res.setHeader(name, value)
  // Said here, because Node adds no length of its own once one was removed.
  if (status === 204 || status === 304) res.removeHeader('content-length')
  else res.setHeader('Content-Length', body.length)
  res.end(body.length === 0 ? undefined : body)
}

/** What is set, as it will be written. */
export function headersOf(res: ServerResponse): [string, string | string[]][] {
  return Object.entries(res.getHeaders()).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, Array.isArray(value) ? value.map(String) : String(value)] as [string, string | string[]]],
  )
}

function readRest(rest: readonly unknown[]): { encoding: BufferEncoding | undefined; callback: Callback | undefined } {
  const [first, second] = rest
  if (typeof first === 'function') return { encoding: undefined, callback: first as Callback }
  return { encoding: first as BufferEncoding | undefined, callback: typeof second === 'function' ? (second as Callback) : undefined }
}
