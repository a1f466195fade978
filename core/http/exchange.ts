/**
 * What a pattern needs of a request, read from Node's own objects, which Express and Koa both carry.
 * Invariant: nothing here reads the body's stream; it only tells whether somebody has.
 */
import type { IncomingMessage } from 'node:http'
import type { Reply } from './problem.ts'

/** One request as a door sees it. `C` is what the framework hands to the user's functions: a request, or a context. */
export interface Call<C> {
  readonly context: C
  readonly req: IncomingMessage
  /** Path and query as the client sent them, before any router cut them. */
  readonly target: string
  /** What a body parser made of the body; undefined: nothing. */
  readonly body: unknown
  /** Uploaded files, as multer leaves them. */
  readonly files?: unknown
}

/** The lines of a header, each for itself: a joined string hides that there were two. */
export function headerLines(req: IncomingMessage, name: string): string[] {
  const wanted = name.toLowerCase()
  const lines: string[] = []
  for (let index = 0; index + 1 < req.rawHeaders.length; index += 2) {
    if (req.rawHeaders[index]?.toLowerCase() === wanted) lines.push(req.rawHeaders[index + 1] ?? '')
  }
  return lines
}

/** Path and query of a target: '/a?b=c' or 'http://host/a?b=c'. */
export function splitTarget(target: string): { readonly path: string; readonly query: string } {
  const [line = ''] = target.split('#', 1)
  const mark = line.indexOf('?')
  const path = (mark < 0 ? line : line.slice(0, mark)).replace(/^[a-z][a-z0-9+.-]*:\/\/[^/]*/i, '')
  return { path: path === '' ? '/' : path, query: mark < 0 ? '' : line.slice(mark + 1) }
}

/** The media type without its parameters (a multipart boundary differs with each sending), in lower case. */
export const mediaType = (contentType: string | undefined): string => (contentType ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? ''

/** RFC 9112, 6.3: a request has a body when it says how long it is. */
export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0

/** True when the body has come and nobody who read it to its end left something in `body`. */
export const isUnparsed = (req: IncomingMessage, body: unknown): boolean => hasBody(req) && (body === undefined || !req.readableEnded)

/** The same answer for a client that does not take the encoding in which it was stored. */
export async function inEncodingOf(reply: Reply, acceptEncoding: string | undefined): Promise<Reply> {
  const encoding = reply.headers.find(([name]) => name.toLowerCase() === 'content-encoding')?.[1]
  if (typeof encoding !== 'string' || encoding === 'identity' || takes(encoding, acceptEncoding)) return reply
  const decode = decoders[encoding.toLowerCase()]
  if (decode === undefined) return reply // RFC 9110, 12.5.3: an answer in another encoding is better than none
  const body = await decode(reply.body).catch(() => undefined)
  if (body === undefined) return reply // not what its header says: it is the handler's answer all the same
  const headers = reply.headers.filter(([name]) => !['content-encoding', 'etag', 'vary'].includes(name.toLowerCase()))
  const vary = reply.headers.find(([name]) => name.toLowerCase() === 'vary')?.[1]
  return { ...reply, headers: [...headers, ['Vary', joinedVary(vary, 'Accept-Encoding')] as const], body }
}

/** What two layers say of `Vary`, each name once. */
export function joinedVary(...values: readonly (number | string | readonly string[] | undefined)[]): string {
  const names = new Map<string, string>()
  for (const name of values.flat().join(',').split(',')) {
    const trimmed = name.trim()
    if (trimmed !== '' && !names.has(trimmed.toLowerCase())) names.set(trimmed.toLowerCase(), trimmed)
  }
  return names.has('*') ? '*' : [...names.values()].join(', ')
}

/** RFC 9110, 12.5.3. Without the header a client takes every encoding, but one that sends none rarely means it: it gets plain bytes. */
function takes(encoding: string, acceptEncoding: string | undefined): boolean {
  let isAnyTaken = false
  for (const item of (acceptEncoding ?? '').split(',')) {
    const [name = '', ...parameters] = item.split(';').map((part) => part.trim().toLowerCase())
    const isTaken = !parameters.some((parameter) => /^q=0(\.0*)?$/.test(parameter))
    if (name === encoding.toLowerCase()) return isTaken
    if (name === '*') isAnyTaken = isTaken
  }
  return isAnyTaken
}

/** A stored answer is our own application's, and small; more than this is not made of it. */
const decodedBytesMax = 67_108_864

type Decoder = (bytes: Uint8Array) => Promise<Uint8Array>
const decoders: Readonly<Record<string, Decoder | undefined>> = {
  gzip: (bytes) => unzipped('gunzip', bytes),
  'x-gzip': (bytes) => unzipped('gunzip', bytes),
  deflate: (bytes) => unzipped('inflate', bytes),
  br: (bytes) => unzipped('brotliDecompress', bytes),
}

async function unzipped(name: 'gunzip' | 'inflate' | 'brotliDecompress', bytes: Uint8Array): Promise<Uint8Array> {
  const zlib = await import('node:zlib') // only for the rare client: a door loads fast
  return await new Promise((resolve, reject) => {
    const unzip = zlib[name] as typeof zlib.gunzip // brotli takes other options, but this one of the same name
    unzip(bytes, { maxOutputLength: decodedBytesMax }, (error, result) => (error ? reject(error) : resolve(result)))
  })
}
