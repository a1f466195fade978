/**
 * The capture on Node's own response over real sockets: each way to write an answer, what is decided of it, and what leaves.
 */
import { connect } from 'node:net'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { pipeline, Readable } from 'node:stream'
import { describe, expect, onTestFinished, test } from 'vitest'
import { settle } from '../testing/clock.ts'
import { begin, gate, send, serve, type Received } from '../../test/http/client.ts'
import { Capture, type Head, type Verdict } from './capture.ts'
import type { Reply } from './problem.ts'

interface World {
  readonly answers: Reply[]
  readonly streams: (Head & { readonly reason: string })[]
  readonly thrown: unknown[]
  gone: number
}
type Write = (res: ServerResponse, req: IncomingMessage, capture: Capture) => unknown
interface Options {
  readonly bytesMax?: number
  readonly verdict?: () => Verdict | Promise<Verdict>
  readonly before?: (res: ServerResponse) => void
}

/** A server whose handler writes through a capture, and what the capture was told. */
async function captured(write: Write, { bytesMax = 1_000, verdict = () => ({}), before }: Options = {}) {
  const world: World = { answers: [], streams: [], thrown: [], gone: 0 }
  const url = await serve((req, res) => {
    before?.(res)
    const capture = new Capture(res, {
      bytesMax,
      onAnswer: async (answer) => {
        world.answers.push(answer)
        return await verdict()
      },
      onStream: async (head, reason) => {
        world.streams.push({ ...head, reason })
        return await verdict()
      },
      onGone: () => void world.gone++,
    })
    void (async () => await write(res, req, capture))().catch((error: unknown) => {
      world.thrown.push(error)
      if (!res.headersSent) res.writeHead(500).end('thrown')
    })
  })
  return { url, world }
}
const ask = async (write: Write, options?: Options): Promise<{ answer: Received; world: World }> => {
  const { url, world } = await captured(write, options)
  return { answer: await send(url), world }
}
const textOf = ({ body }: Reply): string => Buffer.from(body).toString()

describe('a whole answer', () => {
  const ways: readonly [string, Write][] = [
    ['end(text)', (res) => void res.end('hello')],
    ['end(bytes)', (res) => void res.end(Buffer.from('hello'))],
    ['end(Uint8Array)', (res) => void res.end(new TextEncoder().encode('hello'))],
    ['end(text, encoding)', (res) => void res.end('68656c6c6f', 'hex')],
    ['write, write, end', (res) => (res.write('he'), res.write(Buffer.from('l')), void res.end('lo'))],
    ['write(text, encoding), end(callback)', (res) => (res.write('aGVsbG8=', 'base64'), void res.end(() => {}))],
    ['pipe', (res) => void Readable.from([Buffer.from('hel'), Buffer.from('lo')]).pipe(res)],
    ['pipeline', (res) => void pipeline(Readable.from(['hel', 'lo']), res, () => {})],
    ['writes in later turns', async (res) => (res.write('hel'), await settle(2), res.write('lo'), await settle(2), void res.end())],
    ['flushHeaders, end', (res) => (res.flushHeaders(), void res.end('hello'))],
    ['cork and uncork', (res) => (res.cork(), res.write('hel'), res.uncork(), void res.end('lo'))],
  ]
  test.each(ways)('is held, decided and sent in one piece after %s', async (_name, write) => {
    const { answer, world } = await ask(write)
    expect(world.answers.map(textOf)).toEqual(['hello'])
    expect(world.streams).toEqual([])
    expect(answer.text).toBe('hello')
    expect(answer.headers['content-length']).toBe('5')
    expect(answer.headers).not.toHaveProperty('transfer-encoding')
    expect(world.thrown).toEqual([])
  })

  const heads: readonly [string, Write][] = [
    ['an object', (res) => void res.writeHead(201, { 'Content-Type': 'a/b', 'X-List': ['1', '2'] }).end()],
    ['a reason and an object', (res) => void res.writeHead(201, 'Made', { 'Content-Type': 'a/b', 'X-List': ['1', '2'] }).end()],
    ['a flat list', (res) => void res.writeHead(201, ['Content-Type', 'a/b', 'X-List', '1', 'X-List', '2']).end()],
    [
      'a list of pairs',
      (res) =>
        void res
          .writeHead(201, [
            ['Content-Type', 'a/b'],
            ['X-List', ['1', '2']],
          ] as never)
          .end(),
    ],
    [
      'headers set before, overridden',
      (res) => {
        res.setHeader('content-type', 'x/y')
        res.setHeader('X-LIST', ['1', '2'])
        res.writeHead(201, { 'Content-Type': 'a/b' }).end()
      },
    ],
    [
      'setHeader and appendHeader',
      (res) => {
        res.statusCode = 201
        res.setHeader('Content-Type', 'a/b')
        res.appendHeader('X-List', '1').appendHeader('X-List', '2')
        res.end()
      },
    ],
  ]
  test.each(heads)('has its head from %s', async (_name, write) => {
    const { answer, world } = await ask(write)
    expect(world.answers).toHaveLength(1)
    expect(world.answers[0]?.status).toBe(201)
    expect(Object.fromEntries(world.answers[0]?.headers ?? [])).toEqual({ 'content-type': 'a/b', 'x-list': ['1', '2'] })
    expect(answer.status).toBe(201)
    expect(answer.headers).toMatchObject({ 'content-type': 'a/b', 'x-list': '1, 2', 'content-length': '0' })
  })

  test('leaves only after the decision', async () => {
    const asked = gate()
    const may = gate()
    let isDecided = false
    const { url } = await captured((res) => void res.end('hello'), {
      verdict: async () => {
        asked.open()
        await may.promise
        isDecided = true
        return { headers: { 'X-More': 'yes' } }
      },
    })
    const { answer } = begin(url)
    await asked.promise
    let isAnswered = false
    void answer.then(() => (isAnswered = true))
    await settle(20)
    expect(isAnswered).toBe(false)
    may.open()
    expect((await answer).headers['x-more']).toBe('yes')
    expect(isDecided).toBe(true)
  })

  test.each([204, 304])('with status %i has no body, whatever is written', async (status) => {
    const { answer, world } = await ask((res) => void res.writeHead(status).end('ignored'))
    expect(world.answers.map(textOf)).toEqual([''])
    expect(answer.status).toBe(status)
    expect(answer.text).toBe('')
    expect(answer.headers).not.toHaveProperty('transfer-encoding')
  })

  test('keeps its trailers', async () => {
    const { answer, world } = await ask((res) => {
      res.setHeader('Trailer', 'X-Sum')
      res.write('hel')
      res.addTrailers({ 'X-Sum': '5' })
      res.end('lo')
    })
    expect(world.answers.map(textOf)).toEqual(['hello'])
    expect(answer.text).toBe('hello')
    expect(answer.trailers).toEqual({ 'x-sum': '5' })
  })

  test('keeps a copy of buffers that the writer uses again', async () => {
    const { answer } = await ask((res) => {
      const buffer = Buffer.from('hel')
      res.write(buffer)
      buffer.write('XXX')
      res.end('lo')
    })
    expect(answer.text).toBe('hello')
  })

  test('calls back each write and the end', async () => {
    const called: string[] = []
    const ended = gate()
    const { answer } = await ask(async (res) => {
      await new Promise<void>((resolve) => res.write('hel', () => (called.push('write'), resolve())))
      res.write('l', 'utf8', () => called.push('write 2'))
      res.end('o', 'utf8', () => (called.push('end'), ended.open()))
    })
    await ended.promise
    expect(answer.text).toBe('hello')
    expect(called).toEqual(['write', 'write 2', 'end'])
  })

  test("tells 'finish' and 'close' after it has left, once", async () => {
    const events: string[] = []
    const closed = gate()
    const { answer } = await ask((res) => {
      res.on('finish', () => events.push('finish'))
      res.on('close', () => (events.push('close'), closed.open()))
      res.end('hello')
      expect(res.writableEnded).toBe(true)
      expect(res.writableFinished).toBe(false)
    })
    expect(answer.text).toBe('hello')
    await closed.promise
    expect(events).toEqual(['finish', 'close'])
  })

  test('stands once begun: later heads throw as in Node, a later status is not heard, a second end does nothing', async () => {
    const { answer, world } = await ask(
      (res) => {
        res.write('hel')
        expect(res.headersSent).toBe(true)
        for (const late of [
          () => res.setHeader('X-Late', '1'),
          () => res.appendHeader('X-Late', '1'),
          () => res.removeHeader('X-Early'),
          () => res.writeHead(500),
        ]) {
          expect(late).toThrow(expect.objectContaining({ code: 'ERR_HTTP_HEADERS_SENT' }) as Error)
        }
        res.end('lo')
        res.statusCode = 500
        res.statusMessage = 'Late'
        res.end('again')
      },
      { before: (res) => res.setHeader('X-Early', '1') },
    )
    expect(world.answers).toHaveLength(1)
    expect(answer.status).toBe(200)
    expect(answer.headers['x-early']).toBe('1')
    expect(answer.text).toBe('hello')
  })

  test('answers a write after its end with an error, as Node does', async () => {
    const failed = gate<unknown>()
    const { answer } = await ask((res) => {
      res.end('hello')
      expect(res.write('late', (error) => failed.open(error))).toBe(false)
    })
    expect(answer.text).toBe('hello')
    expect(await failed.promise).toMatchObject({ code: 'ERR_STREAM_WRITE_AFTER_END' })
  })

  test.each<[string, string, Write]>([
    ['a status out of range', 'ERR_HTTP_INVALID_STATUS_CODE', (res) => void res.writeHead(99)],
    ['a status that is no number', 'ERR_HTTP_INVALID_STATUS_CODE', (res) => ((res.statusCode = Number.NaN), void res.end('x'))],
    ['a reason with a line break', 'ERR_INVALID_CHAR', (res) => void res.writeHead(200, 'a\r\nb')],
    ['a list of an odd length', 'ERR_INVALID_ARG_VALUE', (res) => void res.writeHead(200, ['a'])],
    ['a header with a line break', 'ERR_INVALID_CHAR', (res) => void res.writeHead(200, { a: 'b\r\nc' })],
    ['a chunk that is no bytes', 'ERR_INVALID_ARG_TYPE', (res) => void res.write({} as never)],
    ['a number to end with', 'ERR_INVALID_ARG_TYPE', (res) => void res.end(7 as never)],
  ])('throws at the handler, who can still answer, for %s', async (_name, code, write) => {
    const { answer, world } = await ask(write)
    expect(world.thrown).toEqual([expect.objectContaining({ code })])
    expect(answer.status).toBe(500)
    expect(world.answers.map(textOf)).toEqual(['thrown'])
  })

  test('gives whoever waits for the head a turn before it is decided (on-headers)', async () => {
    const { answer, world } = await ask((res) => {
      const { writeHead } = res
      res.writeHead = function (this: ServerResponse, ...args: never[]) {
        if (!this.headersSent) this.setHeader('X-Listener', 'yes')
        return Reflect.apply(writeHead, this, args) as ServerResponse
      }
      res.write('hel')
      res.end('lo')
    })
    expect(Object.fromEntries(world.answers[0]?.headers ?? [])).toMatchObject({ 'x-listener': 'yes' })
    expect(answer.headers['x-listener']).toBe('yes')
  })

  test('lets informational answers pass at once', async () => {
    const may = gate()
    const { url } = await captured(async (res) => {
      res.writeProcessing()
      res.writeEarlyHints({ link: '</a.css>; rel=preload' })
      await may.promise
      res.end('hello')
    })
    const { port } = new URL(url)
    const socket = connect(Number(port), '127.0.0.1')
    onTestFinished(() => void socket.destroy())
    let text = ''
    const hints = gate()
    const end = gate()
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
      if (text.includes('preload\r\n\r\n')) hints.open()
      if (text.includes('hello')) end.open()
    })
    socket.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n')
    await hints.promise
    expect(text).not.toContain('200 OK')
    may.open()
    await end.promise
    expect(text).toMatch(/^HTTP\/1.1 102 .*\r\n\r\nHTTP\/1.1 103 [^]*HTTP\/1.1 200 OK\r\n/)
  })

  test('is closed, and the process goes on, when Node refuses to send it', async () => {
    const { url, world } = await captured((res) => {
      res.strictContentLength = true
      res.setHeader('Content-Length', 3)
      res.end('hello')
    })
    await expect(send(url)).rejects.toMatchObject({ code: 'ECONNRESET' })
    expect(world.answers).toHaveLength(1)
  })

  test('is closed when the decision fails: nothing undecided leaves', async () => {
    const { url } = await captured((res) => void res.end('hello'), { verdict: () => Promise.reject(new Error('no')) })
    await expect(send(url)).rejects.toMatchObject({ code: 'ECONNRESET' })
  })
})
