/**
 * A compressor as middleware: through `write` and `end`, asynchronously, with its head when it has bytes.
 * Invariant: what has an encoding already passes.
 * Why not the `compression` package: what matters of it here are these lines.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createGzip, type Gzip } from 'node:zlib'

export function gzip(req: IncomingMessage, res: ServerResponse, next: () => void): void {
  const { write, end } = res
  const accepts = /\bgzip\b/.test(String(req.headers['accept-encoding']))
  let zip: Gzip | 'not' | undefined
  const begin = (): Gzip | undefined => {
    if (zip === undefined) {
      if (res.getHeader('content-encoding') === undefined) res.setHeader('Vary', 'Accept-Encoding')
      if (!accepts || res.getHeader('content-encoding') !== undefined) zip = 'not'
      else {
        res.setHeader('Content-Encoding', 'gzip')
        res.removeHeader('Content-Length')
        const made = createGzip()
        zip = made
        made.on('data', (chunk: Buffer) => {
          if (Reflect.apply(write, res, [chunk]) === false) made.pause()
        })
        made.on('end', () => Reflect.apply(end, res, []))
        res.on('drain', () => made.resume())
      }
    }
    return zip === 'not' ? undefined : zip
  }
  res.write = ((...given: [string]) => begin()?.write(...given) ?? Reflect.apply(write, res, given)) as typeof res.write
  res.end = ((...given: unknown[]) => {
    const made = begin()
    if (made === undefined) return Reflect.apply(end, res, given) as ServerResponse
    const [chunk] = given
    if (chunk !== undefined && chunk !== null) made.write(chunk)
    made.end()
    return res
  }) as typeof res.end
  next()
}
