/**
 * What the page sends, and what it keeps of each answer: status, header lines and body as they came.
 * Invariant: a payment that got no answer, or "not now", is sent again with the same key and the same body until it is answered.
 */
export interface Exchange {
  readonly id: number
  readonly what: string
  readonly key: string
  readonly ms: number
  /** Absent: the connection broke and there was no answer. */
  readonly status?: number
  readonly replayed: boolean
  readonly headers: readonly (readonly [string, string])[]
  readonly body: string
  /** When it is sent again. */
  readonly again?: string
}

export interface Order {
  readonly id: string
  readonly amount: number
}

export interface Ledger {
  readonly charges: number
  readonly sum: number
  readonly booked: number
  readonly asked: number
}

const customer = 'ada'
/** A shop that was killed is back within a second, and its lease over within a few: so often is enough. */
const attemptsMax = 40
let exchanges = 0

export const newKey = (): string => crypto.randomUUID()

/** One request and what came of it. */
async function send(what: string, key: string, path: string, body: unknown): Promise<Exchange> {
  const startMs = performance.now()
  const done = (rest: Pick<Exchange, 'headers' | 'body' | 'replayed'> & { status?: number }): Exchange => ({
    id: (exchanges += 1),
    what,
    key,
    ms: Math.round(performance.now() - startMs),
    ...rest,
  })
  try {
    const answer = await fetch(path, {
      method: 'POST',
      headers: { authorization: `Bearer ${customer}`, 'content-type': 'application/json', 'idempotency-key': `"${key}"` },
      body: JSON.stringify(body),
    })
    const text = await answer.text()
    return done({
      status: answer.status,
      headers: [...answer.headers],
      body: text,
      replayed: answer.headers.get('idempotent-replayed') === 'true',
    })
  } catch {
    return done({ headers: [], body: '', replayed: false })
  }
}

const retryAfterOf = ({ headers }: Exchange): string | undefined => headers.find(([name]) => name === 'retry-after')?.[1]
const isNotNow = (exchange: Exchange): boolean =>
  exchange.status === undefined || exchange.status === 503 || (exchange.status === 409 && retryAfterOf(exchange) !== undefined)

/** Sends until there is an answer that stays. Every exchange is shown. */
async function sendUntilAnswered(
  what: string,
  key: string,
  path: string,
  body: unknown,
  show: (exchange: Exchange) => void,
): Promise<Exchange> {
  for (let attempt = 1; ; attempt += 1) {
    const exchange = await send(attempt === 1 ? what : `${what}, again`, key, path, body)
    if (!isNotNow(exchange) || attempt >= attemptsMax) {
      show(exchange)
      return exchange
    }
    const retryAfter = Number(retryAfterOf(exchange) ?? 0.3)
    show({ ...exchange, again: `same key again in ${retryAfter} s` })
    await new Promise((wake) => setTimeout(wake, Math.min(retryAfter, 5) * 1000))
  }
}

export const pay = (what: string, key: string, order: Order, amount: number, show: (exchange: Exchange) => void): Promise<Exchange> =>
  sendUntilAnswered(what, key, '/payments', { order: order.id, amount }, show)

export async function newOrder(amount: number, show: (exchange: Exchange) => void): Promise<Order | undefined> {
  const made = await sendUntilAnswered('New order', newKey(), '/orders', { amount }, show)
  return made.status === 201 ? (JSON.parse(made.body) as Order) : undefined
}

export async function ledgerOf(reference: string): Promise<Ledger | undefined> {
  try {
    const answer = await fetch(`/demo/ledger?reference=${encodeURIComponent(reference)}`)
    return answer.ok ? ((await answer.json()) as Ledger) : undefined
  } catch {
    return undefined
  }
}

/** The next charge is booked by the bank, and the shop is killed before it hears of it. */
export const killInNextCharge = (): Promise<unknown> => fetch('/demo/kill-in-next-charge', { method: 'POST' })
export const killNow = (): Promise<unknown> => fetch('/demo/kill', { method: 'POST' })

/** Requests by many clients at once, sent by the supervisor. By status. */
export interface Tally {
  readonly byStatus: Readonly<Record<string, number>>
  readonly ms: number
}
/** The warehouse's own numbers. */
export interface Counts {
  readonly quotes: number
  readonly reads: number
  readonly shipped: number
}
export interface Quote {
  readonly status: number
  /** The lines of the answer that speak of limits. */
  readonly limitLines: readonly string[]
  readonly remaining: number | undefined
  readonly resetSeconds: number | undefined
}

/** A name for what this page alone counts. */
export const fresh = (what: string): string => `${what}-${crypto.randomUUID().slice(0, 8)}`

const asked = async <T>(path: string, init?: RequestInit): Promise<T> => {
  const answer = await fetch(path, init)
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`)
  return (await answer.json()) as T
}
export const countsOf = (sku = ''): Promise<Counts> => asked(`/demo/counts?sku=${sku}`)
export const stampede = (sku: string): Promise<Tally> => asked(`/demo/stampede?sku=${sku}`, { method: 'POST' })
export const race = (sku: string): Promise<Tally> => asked(`/demo/race?sku=${sku}`, { method: 'POST' })

/** New units on the shelf. @returns what is there now. */
export const deliver = (sku: string, units: number): Promise<{ left: number }> =>
  asked(`/products/${sku}/deliveries`, {
    method: 'POST',
    headers: { authorization: `Bearer ${customer}`, 'content-type': 'application/json' },
    body: JSON.stringify({ units }),
  })
export const productOf = (sku: string): Promise<{ left: number; read: number }> =>
  asked(`/products/${sku}`, { headers: { authorization: `Bearer ${customer}` } })

/** A quote, and what its answer says of the limit (RateLimit: "quotes";r=4;t=6). */
export async function quote(client: string): Promise<Quote> {
  const { status, headers } = await fetch('/quotes', { method: 'POST', headers: { authorization: `Bearer ${client}` } })
  const limitLines = [...headers].filter(([name]) => name.startsWith('ratelimit') || name === 'retry-after')
  const list = headers.get('ratelimit') ?? ''
  const numberOf = (name: string): number | undefined => {
    const found = new RegExp(`;\\s*${name}=(\\d+)`).exec(list)?.[1]
    return found === undefined ? undefined : Number(found)
  }
  return { status, limitLines: limitLines.map((line) => line.join(': ')), remaining: numberOf('r'), resetSeconds: numberOf('t') }
}

/** A process of the cluster under the shop. */
export interface Member {
  readonly name: string
  readonly role: 'storage' | 'proxy'
  readonly pid: number
  readonly address: string
  readonly state: 'serving' | 'down' | 'stopped' | 'slow'
}
/** None: the shop keeps its data in its own process. */
export const membersOf = async (): Promise<readonly Member[]> => (await asked<{ members: Member[] }>('/demo/cluster')).members
export const attackMember = (name: string, how: 'kill' | 'stop' | 'slow'): Promise<unknown> =>
  fetch(`/demo/cluster?name=${name}&how=${how}`, { method: 'POST' })
/** Many pay at once, each an order of its own; half way the named process is killed. */
export const rush = (name: string): Promise<Tally & { readonly slowestMs: number }> => asked(`/demo/rush?name=${name}`, { method: 'POST' })
