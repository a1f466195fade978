/**
 * The public address: the page, the buttons of the demonstration, and a plain reverse proxy to the shop.
 * Invariant: a request that was on its way through the shop when that died gets no answer at all: its connection is reset, as in a real crash.
 * Why 503 while there is no shop: that is what a load balancer says, and every client knows that it may try again.
 */
import { readFileSync } from 'node:fs'
import { Agent, createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { DemoEvent, ToBank } from './channel.ts'
import { attacks, type Attack, type Cluster } from './cluster.ts'
import { race, rush, stampede, type Tally } from './crowd.ts'

export interface Front {
  readonly port: number
  /** A line for the event log. */
  log(event: DemoEvent): void
  close(): Promise<void>
}

interface Process {
  readonly port: number | undefined
  kill(): boolean
}
export interface FrontOptions {
  /** 0: any free one. */
  readonly port: number
  readonly shop: Process
  readonly bank: Process & { tell(message: ToBank): void }
  readonly warehouse: Process
  /** Where the shop keeps its data, if that is not in its own process. */
  readonly cluster?: () => Cluster | undefined
}

const limits = {
  /** Lines that a page which opens late still gets. */
  eventsKept: 200,
  /** Lines are sent in one go, ten times a second at most. */
  eventsEveryMs: 100,
  /** Open event streams. */
  watchersMax: 32,
  /** A watcher that lets so many bytes lie is cut off; its browser comes back by itself. */
  watcherBytesMax: 262_144,
  /** Connections to the shop. Further requests wait in the agent's queue. */
  shopConnectionsMax: 256,
} as const

const pageFolder = new URL('page/', import.meta.url)
const pageFiles: Readonly<Record<string, readonly [file: string, type: string]>> = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/main.js': ['main.js', 'text/javascript; charset=utf-8'],
  '/style.css': ['style.css', 'text/css; charset=utf-8'],
}
/** The page talks to this address alone, and a browser holds it to that. */
const pageHeaders = {
  'content-security-policy': "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'cache-control': 'no-cache',
}
/** Headers that belong to one connection (RFC 9110 section 7.6.1): each side of the proxy has its own. */
const ownToConnection = new Set(['connection', 'keep-alive', 'proxy-connection'])

/** Listens on 127.0.0.1. @throws what `listen` throws: EADDRINUSE. */
export async function openFront({ port, shop, bank, warehouse, cluster = () => undefined }: FrontOptions): Promise<Front> {
  const agent = new Agent({ keepAlive: true, maxSockets: limits.shopConnectionsMax })
  const events = eventLog()
  let isCrowded = false

  const server = createServer((req, res) => {
    // A browser that loses a kept connection sends a POST again, unseen, and the page could not show the crash. On a new connection it does not.
    if (req.headers['sec-fetch-site'] !== undefined) res.shouldKeepAlive = false
    const url = new URL(req.url ?? '/', 'http://127.0.0.1')
    const file = req.method === 'GET' ? pageFiles[url.pathname] : undefined
    if (file) return void res.writeHead(200, { ...pageHeaders, 'content-type': file[1] }).end(readFileSync(new URL(file[0], pageFolder)))
    if (url.pathname.startsWith('/demo/')) return demo(req, res, url)
    if (shop.port === undefined) return down(req, res)
    pass(req, res, shop.port, req.url ?? '/')
  })

  function demo(req: IncomingMessage, res: ServerResponse, url: URL): void {
    // A page from elsewhere may not press these buttons, not even through a name that points to this machine.
    if (!/^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/.test(req.headers.host ?? '') || req.headers['sec-fetch-site'] === 'cross-site') {
      return problem(res, 403, 'the buttons of the demonstration are for this machine alone')
    }
    switch (`${req.method} ${url.pathname}`) {
      case 'GET /demo/events':
        return events.watch(res)
      case 'GET /demo/ledger':
        if (bank.port === undefined) return problem(res, 503, 'the bank is down; it is being started')
        return pass(req, res, bank.port, `/ledger${url.search}`)
      case 'GET /demo/counts':
        if (warehouse.port === undefined) return problem(res, 503, 'the warehouse is down; it is being started')
        return pass(req, res, warehouse.port, `/counts${url.search}`)
      case 'POST /demo/stampede':
        return crowdOf(res, stampede, url)
      case 'POST /demo/race':
        return crowdOf(res, race, url)
      case 'GET /demo/cluster':
        return answered(res, { members: cluster()?.members() ?? [] })
      case 'POST /demo/cluster':
        return attack(res, url)
      case 'POST /demo/rush':
        return crowd(res, (shopPort) => rush(shopPort, () => void cluster()?.attack(url.searchParams.get('name') ?? '', 'kill')))
      case 'POST /demo/kill':
        shop.kill()
        return void res.writeHead(204).end()
      case 'POST /demo/kill-in-next-charge':
        bank.tell({ type: 'hold-next' })
        return void res.writeHead(204).end()
      default:
        return problem(res, 404, 'there is no such button')
    }
  }

  function attack(res: ServerResponse, { searchParams }: URL): void {
    const how = attacks.find((one): one is Attack => one === searchParams.get('how'))
    if (how === undefined) return problem(res, 400, `a storage server can be attacked by ${attacks.join(', ')}`)
    if (cluster()?.attack(searchParams.get('name') ?? '', how) !== true) return problem(res, 409, 'it does not serve now')
    res.writeHead(204).end()
  }

  function crowdOf(res: ServerResponse, send: (shopPort: number, sku: string) => Promise<Tally>, url: URL): void {
    const sku = /^[\w.-]{1,64}$/.exec(url.searchParams.get('sku') ?? '')?.[0]
    if (sku === undefined) return problem(res, 400, 'a crowd wants a sku')
    crowd(res, (shopPort) => send(shopPort, sku))
  }

  /** One crowd at a time: two at once would show each other's numbers. */
  function crowd(res: ServerResponse, send: (shopPort: number) => Promise<Tally>): void {
    if (shop.port === undefined || isCrowded) return problem(res, 503, 'the shop is down, or a crowd is there already')
    isCrowded = true
    void send(shop.port)
      .then((tally) => answered(res, tally))
      .finally(() => (isCrowded = false))
  }

  /** Hands a request on and its answer back, byte by byte. */
  function pass(req: IncomingMessage, res: ServerResponse, to: number, path: string): void {
    const onward = request({ agent, host: '127.0.0.1', port: to, method: req.method, path, headers: forwardable(req.rawHeaders) as never })
    const cut = (): void => void req.socket.resetAndDestroy()
    onward.on('response', (answer) => {
      res.sendDate = false
      res.writeHead(answer.statusCode ?? 502, forwardable(answer.rawHeaders))
      answer.on('error', cut)
      answer.pipe(res)
    })
    onward.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED') down(req, res)
      else cut()
    })
    res.on('close', () => {
      if (!res.writableFinished) onward.destroy()
    })
    req.pipe(onward)
  }

  // Longer than clients keep an idle connection, so that none is closed while a request is on its way.
  server.keepAliveTimeout = 60_000
  await new Promise<void>((listening, failed) => {
    server.once('error', failed)
    server.listen(port, '127.0.0.1', listening)
  })
  return {
    port: (server.address() as AddressInfo).port,
    log: events.log,
    async close() {
      events.close()
      agent.destroy()
      const closed = new Promise((done) => server.close(done))
      server.closeAllConnections()
      await closed
    },
  }
}

/** Keeps the last lines and sends them to whoever watches (text/event-stream). */
function eventLog() {
  const kept: { id: number; event: DemoEvent }[] = []
  const watchers = new Set<ServerResponse>()
  let lastId = 0
  let fresh: typeof kept = []
  let timer: NodeJS.Timeout | undefined

  const asText = (lines: typeof kept): string => lines.map(({ id, event }) => `id: ${id}\ndata: ${JSON.stringify(event)}\n\n`).join('')
  const flush = (): void => {
    timer = undefined
    const text = asText(fresh.slice(-limits.eventsKept))
    fresh = []
    for (const watcher of watchers) {
      if (watcher.writableLength > limits.watcherBytesMax) watcher.destroy()
      else watcher.write(text)
    }
  }
  return {
    log(event: DemoEvent): void {
      const line = { id: (lastId += 1), event }
      kept.push(line)
      if (kept.length > limits.eventsKept) kept.shift()
      if (watchers.size === 0) return
      fresh.push(line)
      if (fresh.length > limits.eventsKept) fresh.shift()
      timer ??= setTimeout(flush, limits.eventsEveryMs)
    },
    watch(res: ServerResponse): void {
      if (watchers.size >= limits.watchersMax) return problem(res, 503, `there are ${limits.watchersMax} watchers already`)
      res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
      res.write(`retry: 500\n\n${asText(kept)}`)
      watchers.add(res)
      res.on('close', () => watchers.delete(res))
    },
    close(): void {
      clearTimeout(timer)
      for (const watcher of watchers) watcher.end()
    },
  }
}

/** Stripe's clients look for `error` in the body and take everything else for the object that they asked for, whatever the status. */
function down(req: IncomingMessage, res: ServerResponse): void {
  const title = 'the shop is down; it is being started'
  if (!req.url?.startsWith('/v1/')) return problem(res, 503, title)
  if (res.headersSent || res.destroyed) return
  const headers = { 'content-type': 'application/json', 'retry-after': '1', 'stripe-should-retry': 'true' }
  res.writeHead(503, headers).end(`${JSON.stringify({ error: { type: 'api_error', message: title } })}\n`)
}

const answered = (res: ServerResponse, body: unknown): void =>
  void res.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store' }).end(JSON.stringify(body))

function problem(res: ServerResponse, status: number, title: string): void {
  if (res.headersSent || res.destroyed) return
  const retry = status === 503 ? { 'retry-after': '1' } : {}
  res
    .writeHead(status, { 'content-type': 'application/problem+json', ...retry })
    .end(`${JSON.stringify({ type: 'about:blank', title, status })}\n`)
}

/** The header lines in their order and spelling, without those of the connection. */
function forwardable(rawHeaders: readonly string[]): string[] {
  const kept: string[] = []
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const [name = '', value = ''] = [rawHeaders[index], rawHeaders[index + 1]]
    if (!ownToConnection.has(name.toLowerCase())) kept.push(name, value)
  }
  return kept
}
