/**
 * Holds an outgoing answer back, whatever writes it: `res.json`, `end`, `write`, `pipe`, `sendFile`. Then it asks what to do, and only then sends.
 * Invariant: no byte leaves before the question is answered, and after it every byte does.
 * Why at write and end: everything above them ends there, and nothing below them can be called back.
 *
 *   holding --end--> deciding --send--> open            what was held leaves, and what comes later passes through
 *   holding --too much, or an event stream--> deciding  the rest waits in `#chunks`; write() says false, 'drain' follows
 *                    deciding --replace--> replaced     another answer left; what the handler writes goes nowhere
 *
 * Informational answers (1xx) pass at any time. While an answer is held, Node's own marks on the response say what they would say without us.
 */
import type { OutgoingHttpHeaders, ServerResponse } from 'node:http'
import { joinedVary } from './exchange.ts'
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
  /** Called once at most, as `onStream`, and never both. Should it throw, the connection is closed: nothing that was not decided leaves. */
  onAnswer(answer: Reply): Promise<Verdict>
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
  readonly #original: Pick<ServerResponse, 'writeHead' | 'write' | 'end' | 'flushHeaders' | 'emit'>
  /** What was set before the handler: another answer begins from here. */
  readonly #headersBefore: OutgoingHttpHeaders
  #state: 'holding' | 'deciding' | 'open' | 'replaced' = 'holding'
  #chunks: Chunk[] = []
  #bytes = 0
  /** As it was at the first byte: what is set afterwards is too late, as in Node. */
  #begun: { readonly status: number; readonly message: string } | undefined
  #isEnded = false
  /** The event of a connection that closed while the answer was held. */
  #close: unknown[] | undefined
  #onEnd: Callback | undefined
  #mustDrain = false

  constructor(res: ServerResponse, options: CaptureOptions) {
    this.#res = res
    this.#options = options
    const { writeHead, write, end, flushHeaders, emit } = res
    this.#original = { writeHead, write, end, flushHeaders, emit }
    this.#headersBefore = { ...res.getHeaders() }
    res.writeHead = this.#writeHead as typeof res.writeHead
    res.write = this.#write as typeof res.write
    res.end = this.#end as typeof res.end
    res.flushHeaders = this.#flushHeaders
    res.emit = this.#emit as typeof res.emit
    Object.defineProperty(res, 'headersSent', { configurable: true, get: () => this.#begun !== undefined })
    Object.defineProperty(res, 'writableEnded', { configurable: true, get: () => this.#isEnded })
    if (res.destroyed) process.nextTick(() => options.onGone())
  }

  /** The handler has begun to answer through the response itself. */
  get isBegun(): boolean {
    return this.#begun !== undefined
  }
  get isEnded(): boolean {
    return this.#isEnded
  }

  /** Lets everything pass from now on; nothing has been held. */
  open(): void {
    if (this.#state !== 'holding') return
    this.#pass()
    this.#tellClose()
  }

  /** Takes back what the handler has set: another answer begins from what was there before it. */
  restoreHeaders(): void {
    const res = this.#res
    for (const name of res.getHeaderNames()) res.removeHeader(name)
    for (const [name, value] of Object.entries(this.#headersBefore)) if (value !== undefined) res.setHeader(name, value)
  }

  readonly #writeHead = (given: number, ...rest: unknown[]): ServerResponse => {
    const res = this.#res
    // A compressor further out may ask for the head of another answer only when it has bytes.
    if (this.#state === 'open' || (this.#state === 'replaced' && !res.headersSent)) {
      return Reflect.apply(this.#original.writeHead, res, [given, ...rest]) as ServerResponse
    }
    if (this.#state === 'replaced') return res
    if (this.#begun) throw coded(new Error('Cannot write headers after they are sent to the client'), 'ERR_HTTP_HEADERS_SENT')
    const status = Math.trunc(Number(given))
    if (!(status >= 100 && status <= 999)) throw coded(new RangeError(`Invalid status code: ${given}`), 'ERR_HTTP_INVALID_STATUS_CODE')
    const [reason, headers] = typeof rest[0] === 'string' ? [rest[0], rest[1]] : [messageOf(res), rest[1] ?? rest[0]]
    if (/[^\t\x20-\x7e\x80-\xff]/.test(reason)) throw coded(new TypeError('Invalid character in statusMessage'), 'ERR_INVALID_CHAR')
    if (Array.isArray(headers)) {
      const list: unknown[] = headers.every(Array.isArray) ? headers.flat() : headers
      if (list.length % 2 !== 0) throw coded(new TypeError('The list of headers must have a value for each name'), 'ERR_INVALID_ARG_VALUE')
      for (let index = 0; index < list.length; index += 2) res.removeHeader(String(list[index]))
      for (let index = 0; index < list.length; index += 2) res.appendHeader(String(list[index]), list[index + 1] as string)
    } else if (headers !== undefined && headers !== null) {
      for (const [name, value] of Object.entries(headers as OutgoingHttpHeaders)) if (value !== undefined) res.setHeader(name, value)
    }
    res.statusCode = status
    setMessage(res, reason)
    this.#begun = { status, message: reason }
    markHead(res, 'held')
    return res
  }

  /** Does at the first byte what Node does there: who waits for the head (on-headers) gets a turn, and a wrong status is refused. */
  #begin(): void {
    if (this.#begun === undefined) this.#res.writeHead(this.#res.statusCode)
  }

  readonly #flushHeaders = (): void => {
    if (this.#state === 'open') return Reflect.apply(this.#original.flushHeaders, this.#res, [])
    if (this.#state !== 'holding') return
    this.#begin()
    if (this.#isEventStream()) void this.#decide('streamed')
  }

  /** Pipes end at 'close'. While an answer is held they must not: it is wanted for the repetition (T24). */
  readonly #emit = (event: string | symbol, ...rest: unknown[]): boolean => {
    if (event !== 'close' || this.#state === 'open' || this.#state === 'replaced') {
      return Reflect.apply(this.#original.emit, this.#res, [event, ...rest]) as boolean
    }
    this.#close = rest
    if (!this.#isEnded) this.#options.onGone()
    return true
  }

  readonly #write = (chunk: unknown, ...rest: unknown[]): boolean => {
    const { encoding, callback } = readRest(rest)
    if (this.#state === 'open') return Reflect.apply(this.#original.write, this.#res, [chunk, encoding, callback]) as boolean
    if (this.#state === 'replaced') {
      if (callback) process.nextTick(callback)
      return true
    }
    if (this.#isEnded) {
      if (callback) process.nextTick(callback, coded(new Error('write after end'), 'ERR_STREAM_WRITE_AFTER_END'))
      return false
    }
    this.#hold(chunk, encoding, callback)
    if (this.#state === 'holding') {
      if (this.#isEventStream()) void this.#decide('streamed')
      else if (this.#isTooLarge()) void this.#decide('too-large')
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
    else this.#begin()
    this.#isEnded = true
    this.#onEnd = callback
    if (this.#state === 'holding') void this.#decide(this.#isEventStream() ? 'streamed' : this.#isTooLarge() ? 'too-large' : 'whole')
    return res
  }

  /** A copy: the writer may use its buffer again while we wait. */
  #hold(chunk: unknown, encoding: BufferEncoding | undefined, callback: Callback | undefined): void {
    if (typeof chunk !== 'string' && !(chunk instanceof Uint8Array)) {
      throw coded(
        new TypeError('The "chunk" argument must be of type string or an instance of Buffer or Uint8Array.'),
        'ERR_INVALID_ARG_TYPE',
      )
    }
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk, encoding) : Buffer.from(chunk)
    this.#begin()
    this.#bytes += bytes.length
    // Held bytes are taken: whoever waits for that before it goes on must not wait for the end that only it can write.
    if (callback && this.#state === 'holding') process.nextTick(callback)
    this.#chunks.push({ bytes, callback: this.#state === 'holding' ? undefined : callback })
  }

  #isEventStream(): boolean {
    return /^text\/event-stream\b/i.test(String(this.#res.getHeader('content-type') ?? ''))
  }

  /** Announced bytes count like written ones: there is no use in holding the beginning of a file. */
  #isTooLarge(): boolean {
    const announced = Number(this.#res.getHeader('content-length') ?? 0)
    return mayHaveBody(this.#begun?.status) && (this.#bytes > this.#options.bytesMax || announced > this.#options.bytesMax)
  }

  async #decide(what: 'whole' | 'streamed' | 'too-large'): Promise<void> {
    this.#state = 'deciding'
    const res = this.#res
    try {
      const head = { status: this.#begun?.status ?? res.statusCode, headers: headersOf(res) }
      const body = mayHaveBody(head.status) ? joined(this.#chunks) : Buffer.alloc(0)
      const { replaceBy, headers = {} } =
        what === 'whole' ? await this.#options.onAnswer({ ...head, body }) : await this.#options.onStream(head, what)
      const chunks = this.#chunks
      this.#pass()
      if (res.destroyed || this.#close) this.#drop(chunks, new Error('the connection is closed'))
      else if (replaceBy) this.#replace(replaceBy, chunks)
      else this.#send(chunks, headers)
    } catch {
      // Node refuses what it was told to send, a body that is not as long as announced, say; the handler that could have heard it has ended.
      this.#pass()
      res.destroy()
    }
    this.#tellClose()
  }

  #send(chunks: readonly Chunk[], headers: Readonly<Record<string, string>>): void {
    const res = this.#res
    res.statusCode = this.#begun?.status ?? res.statusCode
    setMessage(res, this.#begun?.message ?? '')
    for (const [name, value] of Object.entries(headers)) res.setHeader(name, value)
    if (this.#isEnded) {
      // In one piece, so that Node says its length, unless there are trailers.
      for (const { callback } of chunks) if (callback) process.nextTick(callback)
      Reflect.apply(this.#original.end, res, [joined(chunks), this.#onEnd])
      return
    }
    let isRoom = true
    for (const { bytes, callback } of chunks) isRoom = Reflect.apply(this.#original.write, res, [bytes, undefined, callback]) as boolean
    if (chunks.length === 0) Reflect.apply(this.#original.flushHeaders, res, [])
    else if (this.#mustDrain && isRoom) res.emit('drain') // else Node does, when the socket has taken it
  }

  #replace(reply: Reply, chunks: readonly Chunk[]): void {
    this.restoreHeaders()
    sendReply(this.#res, reply)
    this.#state = 'replaced'
    this.#drop(chunks)
  }

  #drop(chunks: readonly Chunk[], error?: Error): void {
    for (const { callback } of chunks) if (callback) process.nextTick(callback, error)
    if (this.#onEnd) process.nextTick(this.#onEnd, error)
    if (this.#mustDrain && !this.#isEnded) this.#res.emit('drain')
  }

  #pass(): void {
    this.#state = 'open'
    this.#chunks = []
    markHead(this.#res, null)
    Reflect.deleteProperty(this.#res, 'headersSent')
    Reflect.deleteProperty(this.#res, 'writableEnded')
  }

  #tellClose(): void {
    const close = this.#close
    this.#close = undefined
    if (close) Reflect.apply(this.#original.emit, this.#res, ['close', ...close])
  }
}

/** Sends a whole answer through Node's response. */
export function sendReply(res: ServerResponse, { status, headers, body }: Reply): void {
  res.statusCode = status
  setMessage(res, '')
  for (const [name, value] of headers) res.setHeader(name, name.toLowerCase() === 'vary' ? joinedVary(res.getHeader(name), value) : value)
  // Said here, because Node adds no length of its own once one was removed.
  if (mayHaveBody(status)) res.setHeader('Content-Length', body.length)
  else res.removeHeader('content-length')
  res.end(body.length === 0 ? undefined : body)
}

/** RFC 9110, 6.4.1: these statuses have no body, whatever is written. */
export const mayHaveBody = (status = 200): boolean => status >= 200 && status !== 204 && status !== 304

/**
 * HTTP/1 keeps the bytes of the head here once they are made. Set, it refuses to change headers, and older middleware that asks here whether it is
 * too late for another answer hears so. In HTTP/2 it is read-only, and then nothing is set.
 */
const markHead = (res: ServerResponse, head: string | null): boolean => Reflect.set(res, '_header', head)

/** HTTP/2 has none, and Node warns whoever asks. */
const messageOf = (res: ServerResponse): string => (res.req.httpVersionMajor < 2 ? (res.statusMessage ?? '') : '')

function setMessage(res: ServerResponse, message: string): void {
  if (res.req.httpVersionMajor < 2) res.statusMessage = message
}

const coded = (error: Error, code: string): Error => Object.assign(error, { code })

const joined = (chunks: readonly Chunk[]): Buffer => Buffer.concat(chunks.map(({ bytes }) => bytes))

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
