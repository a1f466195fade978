/**
 * The capture where an answer is not whole when it is decided, or not sent as the handler made it: streams, large bodies, clients that leave,
 * another answer instead.
 */
import { once } from 'node:events'
import { connect } from 'node:net'
import type { ServerResponse } from 'node:http'
import { pipeline, Readable } from 'node:stream'
import { pipeline as piped } from 'node:stream/promises'
import { createGzip, gunzipSync } from 'node:zlib'
import { expect, onTestFinished, test } from 'vitest'
import { settle } from '../testing/clock.ts'
import { begin, gate, gone, send, serve } from '../../test/http/client.ts'
import { Capture, type Verdict } from './capture.ts'
import type { Reply } from './problem.ts'

interface Told {
  readonly what: 'whole' | 'streamed' | 'too-large' | 'gone'
  readonly status?: number
  readonly text?: string
}
interface Options {
  readonly decide?: (told: Told) => Verdict | Promise<Verdict>
  readonly before?: (res: ServerResponse) => void
}
type Write = (res: ServerResponse, capture: Capture) => unknown

async function captured(write: Write, { decide = () => ({}), before }: Options = {}) {
  const told: Told[] = []
  const failed: unknown[] = []
  const tell = (one: Told): Verdict | Promise<Verdict> => {
    told.push(one)
    return decide(one)
  }
  const url = await serve((_req, res) => {
    before?.(res)
    const capture = new Capture(res, {
      bytesMax: 1_000,
      onAnswer: async ({ status, body }) => await tell({ what: 'whole', status, text: Buffer.from(body).toString() }),
      onStream: async ({ status }, what) => await tell({ what, status }),
      onGone: () => void tell({ what: 'gone' }),
    })
    void (async () => await write(res, capture))().catch((error: unknown) => void failed.push(error))
  })
  return { url, told, failed }
}

const kilobyte = Buffer.alloc(1_000, 'x')
const another: Reply = { status: 409, headers: [['Content-Type', 'text/plain']], body: Buffer.from('another') }
const replaced = { replaceBy: another }

test('a body beyond the bound is decided once, before its first byte, and leaves whole', async () => {
  const may = gate()
  const asked = gate()
  let pieces = 0
  const { url, told } = await captured(
    async (res) => {
      for (; pieces < 300; pieces++) if (!res.write(kilobyte)) await once(res, 'drain')
      res.end('end')
    },
    {
      decide: async () => {
        asked.open()
        await may.promise
        return {}
      },
    },
  )
  const { answer } = begin(url)
  await asked.promise
  await settle(5)
  expect(pieces).toBe(1) // write() said no, and so it waits
  may.open()
  expect((await answer).body.length).toBe(300_003)
  expect(told).toEqual([{ what: 'too-large', status: 200 }])
})

test('a piped body beyond the bound leaves whole, as does a pipeline of it', async () => {
  for (const write of [
    (res: ServerResponse) => void Readable.from(Array.from({ length: 200 }, () => kilobyte)).pipe(res),
    (res: ServerResponse) => void pipeline(Readable.from(Array.from({ length: 200 }, () => kilobyte)), res, () => {}),
    async (res: ServerResponse) => await piped(Readable.from(Array.from({ length: 200 }, () => kilobyte)), res),
  ]) {
    const { url, told, failed } = await captured(write)
    expect((await send(url)).body.length).toBe(200_000)
    expect(told.map(({ what }) => what)).toEqual(['too-large'])
    expect(failed).toEqual([])
  }
})

test('a body beyond the bound in one piece has its length, and its end is called back', async () => {
  const ended = gate()
  const { url, told } = await captured((res) => void res.end(Buffer.alloc(5_000, 'x'), () => ended.open()))
  const answer = await send(url)
  expect(answer.headers['content-length']).toBe('5000')
  expect(answer.body.length).toBe(5_000)
  expect(told).toEqual([{ what: 'too-large', status: 200 }])
  await ended.promise
})

test('a body that is announced as too large is not held at all', async () => {
  const { url, told } = await captured((res) => {
    res.setHeader('Content-Length', 2_000)
    expect(res.write('x')).toBe(false)
    res.once('drain', () => res.end(Buffer.alloc(1_999, 'x')))
  })
  const answer = await send(url)
  expect(told).toEqual([{ what: 'too-large', status: 200 }])
  expect(answer.headers['content-length']).toBe('2000')
  expect(answer.body.length).toBe(2_000)
})

test('writes during a decision are called back and sent in their order', async () => {
  const called: number[] = []
  const all = gate()
  const { url } = await captured((res) => {
    res.write(Buffer.alloc(1_001, '0'), () => called.push(0))
    for (let count = 1; count < 4; count++) res.write(String(count), () => called.push(count))
    res.end('4', () => (called.push(4), all.open()))
  })
  expect((await send(url)).text.slice(1_000)).toBe('01234')
  await all.promise
  expect(called).toEqual([0, 1, 2, 3, 4])
})

test.each<[string, Write]>([
  ['write', (res) => (res.setHeader('Content-Type', 'text/event-stream'), void res.write('data: 1\n\n'))],
  [
    'flushHeaders',
    (res) => (res.setHeader('Content-Type', 'Text/Event-Stream; charset=utf-8'), res.flushHeaders(), void res.write('data: 1\n\n')),
  ],
  ['writeHead', (res) => (res.writeHead(200, { 'content-type': 'text/event-stream' }), void res.write('data: 1\n\n'))],
])('an event stream is decided at its first %s and flows (T12)', async (_name, write) => {
  const may = gate()
  const { url, told } = await captured(async (res, capture) => {
    await write(res, capture)
    await may.promise
    res.end('data: 2\n\n')
  })
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  const first = gate()
  const closed = once(socket, 'close')
  let text = ''
  socket.setEncoding('utf8').on('data', (piece: string) => {
    text += piece
    if (text.includes('data: 1')) first.open()
  })
  socket.write('POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
  await first.promise // while the handler goes on
  expect(told).toEqual([{ what: 'streamed', status: 200 }])
  may.open()
  await closed
  expect(text).toContain('data: 2')
})

test('an event stream in one end is a stream, too', async () => {
  const { url, told } = await captured((res) => void res.writeHead(200, { 'Content-Type': 'text/event-stream' }).end('data: 1\n\n'))
  expect((await send(url)).text).toBe('data: 1\n\n')
  expect(told).toEqual([{ what: 'streamed', status: 200 }])
})

test('another answer leaves instead, from what was set before the handler', async () => {
  const ended = gate()
  const { url } = await captured(
    (res) => {
      res.setHeader('X-Handler', '1')
      res.setHeader('X-Outer', 'changed')
      res.setHeader('Vary', 'X-Handler')
      res.writeHead(201, 'Made up', { 'Content-Length': 5 })
      res.end('hello', () => ended.open())
    },
    {
      decide: () => ({ replaceBy: { ...another, headers: [...another.headers, ['Vary', 'Accept']] } }),
      before: (res) => {
        res.setHeader('X-Outer', 'kept')
        res.setHeader('Vary', 'Origin, accept')
      },
    },
  )
  const answer = await send(url)
  expect(answer.status).toBe(409)
  expect(answer.text).toBe('another')
  expect(answer.headers).toMatchObject({ 'x-outer': 'kept', 'content-type': 'text/plain', 'content-length': '7', vary: 'Origin, accept' })
  expect(answer.headers).not.toHaveProperty('x-handler')
  await ended.promise
})

test.each<[string, Write]>([
  ['a pipe', (res) => once(Readable.from(Array.from({ length: 50 }, () => kilobyte)).pipe(res), 'unpipe')],
  [
    'an event stream',
    async (res) => {
      res.writeHead(200, { 'Content-Type': 'text/event-stream' })
      for (let count = 0; count < 5; count++) if (!res.write('data: 1\n\n')) await once(res, 'drain')
      res.write('data: 2\n\n')
      await new Promise<void>((resolve) => res.end('data: 3', () => resolve()))
    },
  ],
])('what the handler still writes after another answer left goes nowhere: %s', async (_name, write) => {
  const over = gate()
  const { url, failed } = await captured(
    async (res, capture) => {
      await write(res, capture)
      over.open()
    },
    { decide: () => replaced },
  )
  const answer = await send(url)
  await over.promise // nothing of it waits for ever
  expect([answer.status, answer.text]).toEqual([409, 'another'])
  await settle()
  expect(failed).toEqual([])
})

test('a client that leaves is told once, and the answer is decided all the same (T24)', async () => {
  const entered = gate<ServerResponse>()
  const may = gate()
  const closed = gate()
  const { url, told } = await captured(async (res) => {
    entered.open(res)
    await may.promise
    res.on('close', () => closed.open())
    res.write('hel')
    res.end('lo')
  })
  const first = begin(url)
  const res = await entered.promise
  first.leave()
  await gone(res.req)
  await settle(1)
  expect(told).toEqual([{ what: 'gone' }])
  may.open()
  await closed.promise // after the answer, as if it had left
  expect(told).toEqual([{ what: 'gone' }, { what: 'whole', status: 200, text: 'hello' }])
})

test('a pipe goes on when the client has left in its middle (T24)', async () => {
  const entered = gate<ServerResponse>()
  const may = gate()
  const decided = gate<Told>()
  const { url } = await captured(
    (res) => {
      const source = Readable.from(
        (async function* () {
          yield 'hel'
          entered.open(res)
          await may.promise
          yield 'lo'
        })(),
      )
      source.pipe(res)
    },
    { decide: (told) => (told.what === 'gone' ? {} : (decided.open(told), {})) },
  )
  const first = begin(url)
  const res = await entered.promise
  first.leave()
  await gone(res.req)
  await settle(1)
  may.open()
  expect(await decided.promise).toEqual({ what: 'whole', status: 200, text: 'hello' })
})

test('a client that leaves while its answer is decided changes nothing; callbacks hear of it (T24)', async () => {
  const asked = gate<ServerResponse>()
  const may = gate()
  const heard = gate<unknown>()
  const { url, told, failed } = await captured(
    (res) => {
      res.end('hello', ((error?: Error) => heard.open(error)) as () => void)
      asked.open(res)
    },
    {
      decide: async () => {
        await may.promise
        return {}
      },
    },
  )
  const first = begin(url)
  const res = await asked.promise
  first.leave()
  await gone(res.req)
  may.open()
  expect(await heard.promise).toBeInstanceOf(Error)
  expect(told).toEqual([{ what: 'whole', status: 200, text: 'hello' }])
  expect(failed).toEqual([])
})

test('a client that left before the capture began is told', async () => {
  const entered = gate<ServerResponse>()
  const url = await serve((_req, res) => entered.open(res))
  const first = begin(url)
  const res = await entered.promise
  const closed = once(res, 'close')
  first.leave()
  await closed
  const heard = gate()
  const unused = async (): Promise<Verdict> => await Promise.resolve({})
  void new Capture(res, { bytesMax: 1, onAnswer: unused, onStream: unused, onGone: () => heard.open() })
  await heard.promise
})

test('open() lets everything pass that comes later, undecided', async () => {
  const { url, told } = await captured((res, capture) => {
    capture.open()
    capture.open()
    res.write('hel')
    expect(res.headersSent).toBe(true)
    res.end('lo')
    capture.open()
  })
  expect((await send(url)).text).toBe('hello')
  expect(told).toEqual([])
})

/** As a compressor does it: through `end` and `write`, asynchronously, with its head when it has bytes. */
function gzip(res: ServerResponse): void {
  const { write, end } = res
  const zip = createGzip()
  let isBegun = false
  const head = (): void => {
    if (isBegun) return
    isBegun = true
    res.setHeader('Content-Encoding', 'gzip')
    res.removeHeader('Content-Length')
    res.writeHead(res.statusCode)
  }
  zip.on('data', (chunk: Buffer) => {
    head()
    if (!Reflect.apply(write, res, [chunk])) zip.pause()
  })
  zip.on('end', () => Reflect.apply(end, res, []))
  res.on('drain', () => zip.resume())
  res.write = ((chunk: string) => zip.write(chunk)) as typeof res.write
  res.end = ((chunk?: string) => (zip.end(chunk), res)) as typeof res.end
}

test('a compressor further out gets what was held, and another answer as well (T26)', async () => {
  for (const verdict of [{}, replaced] as Verdict[]) {
    const { url, told } = await captured(
      (res) => {
        res.write('hel')
        res.end('lo')
      },
      { before: gzip, decide: () => verdict },
    )
    const answer = await send(url)
    expect(told).toEqual([{ what: 'whole', status: 200, text: 'hello' }])
    expect(answer.headers['content-encoding']).toBe('gzip')
    expect(gunzipSync(answer.body).toString()).toBe(verdict.replaceBy ? 'another' : 'hello')
    expect(answer.status).toBe(verdict.replaceBy ? 409 : 200)
  }
})

test('a compressor further in is held like any writer (T26)', async () => {
  const { url, told } = await captured((res) => {
    gzip(res)
    res.write('hel')
    res.end('lo')
  })
  const answer = await send(url)
  expect(told).toHaveLength(1)
  expect(gunzipSync(answer.body).toString()).toBe('hello')
  expect(answer.headers['content-encoding']).toBe('gzip')
})
