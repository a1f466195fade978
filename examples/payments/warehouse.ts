/**
 * The warehouse: a process of its own behind the shop, slow as a database far away, and the independent number of three panels.
 * Invariant: it counts what it is asked and refuses nothing: whoever sells more than there is finds it here.
 * Why it keeps its counts in memory: they are for the eye, and nothing rests on them.
 *
 * GET /products/:sku   POST /shipments (wants Idempotency-Key)   POST /quotes   GET /counts?sku=
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { liveWithSupervisor, report, tell } from './channel.ts'

const bodyBytesMax = 4_096
/** Products that are counted; beyond, the oldest is forgotten: a demonstration has a handful. */
const productsMax = 10_000
const shipmentsMax = 1_000_000
/** How long a read of a product takes, in milliseconds. */
const delayMs = Number(process.env.WAREHOUSE_DELAY_MS ?? 0)

interface Counts {
  reads: number
  shipped: number
}
const products = new Map<string, Counts>()
const shipments = new Set<string>()
let quotes = 0

type Answer = readonly [status: number, body: unknown]

function countsOf(sku: string): Counts {
  const present = products.get(sku)
  if (present) return present
  const counts = { reads: 0, shipped: 0 }
  products.set(sku, counts)
  const [oldest] = products.keys()
  if (products.size > productsMax && oldest !== undefined) products.delete(oldest)
  return counts
}

async function answerTo(req: IncomingMessage): Promise<Answer> {
  const url = new URL(req.url ?? '/', 'http://warehouse')
  const sku = /^\/products\/([\w.-]{1,64})$/.exec(url.pathname)?.[1]
  switch (`${req.method} ${sku === undefined ? url.pathname : '/products'}`) {
    case 'GET /products': {
      const reads = (countsOf(sku as string).reads += 1)
      report('warehouse', 'product read', { detail: `${sku} read ${reads}`, code: 'examples/payments/warehouse.ts' })
      if (delayMs > 0) await new Promise((wake) => setTimeout(wake, delayMs))
      return [200, { sku, name: `Product ${sku}`, price: 2_990, read: reads }]
    }
    case 'POST /shipments': {
      const key = req.headers['idempotency-key']
      if (typeof key !== 'string' || key === '' || key.length > 255)
        return [400, { error: 'Idempotency-Key must have 1 to 255 characters' }]
      const wanted = await bodyOf(req)
      if (typeof wanted?.sku !== 'string' || !/^[\w.-]{1,64}$/.test(wanted.sku)) return [400, { error: 'a shipment has a sku' }]
      if (!shipments.has(key)) {
        if (shipments.size >= shipmentsMax) return [507, { error: 'this demonstration has shipped enough' }]
        shipments.add(key)
        countsOf(wanted.sku).shipped += 1
      }
      return [201, { sku: wanted.sku }]
    }
    case 'POST /quotes':
      quotes += 1
      return [200, { price: 2_900 + (quotes % 100) }]
    case 'GET /counts':
      return [200, { quotes, ...(products.get(url.searchParams.get('sku') ?? '') ?? { reads: 0, shipped: 0 }) }]
    default:
      return [404, { error: 'there is nothing here' }]
  }
}

async function bodyOf(req: IncomingMessage): Promise<Record<string, unknown> | undefined> {
  let text = ''
  for await (const chunk of req.setEncoding('utf8')) {
    text += chunk
    if (text.length > bodyBytesMax) return undefined
  }
  try {
    const body: unknown = JSON.parse(text)
    return typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

function send(res: ServerResponse, [status, body]: Answer): void {
  res.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`)
}

const server = createServer((req, res) => {
  answerTo(req).then(
    (answer) => send(res, answer),
    (error: unknown) => {
      console.error(error)
      send(res, [500, { error: 'the warehouse failed' }])
    },
  )
})
// Longer than any client of ours keeps an idle connection, so that none is closed while a request is on its way.
server.keepAliveTimeout = 60_000
server.listen(Number(process.env.WAREHOUSE_PORT ?? 0), '127.0.0.1', () =>
  tell({ type: 'ready', port: (server.address() as AddressInfo).port }),
)
liveWithSupervisor(async () => {
  server.closeAllConnections()
  server.close()
})
