/**
 * The page: a claim, buttons that attack it, and the number that settles it.
 * Invariant: the number comes from the bank, never from the shop or from what the page believes.
 * Why one column of cards in a grid: further panels take a cell each.
 */
import { render } from 'preact'
import { useCallback, useEffect, useRef, useState } from 'preact/hooks'
import { killInNextCharge, killNow, ledgerOf, newKey, newOrder, pay, type Exchange, type Ledger, type Order } from './client.ts'
import { ClusterPanel, useMembers } from './cluster.tsx'
import { Limits, ProductPage, Stock } from './panels.tsx'

interface LogLine {
  readonly id: string
  readonly at: number
  readonly from: 'supervisor' | 'shop' | 'bank' | 'warehouse' | 'cluster'
  readonly what: string
  readonly detail?: string
  readonly code?: string
}

const exchangesShown = 12
const linesShown = 200
const amounts = [2990, 1250, 4700, 890, 15_900]

const money = (cents: number): string => `${(cents / 100).toLocaleString('en-IE', { minimumFractionDigits: 2 })} EUR`
const clock = (at: number): string => new Date(at).toTimeString().slice(0, 8)

function Page() {
  const [order, setOrder] = useState<Order>()
  const [key, setKey] = useState(newKey)
  const [busy, setBusy] = useState<string>()
  const [exchanges, setExchanges] = useState<readonly Exchange[]>([])
  const [chosen, setChosen] = useState<number>()
  const [ledger, setLedger] = useState<Ledger>()
  const { lines, live } = useEventLog()
  const members = useMembers()

  const show = useCallback((exchange: Exchange) => {
    setExchanges((before) => [exchange, ...before].slice(0, exchangesShown))
    setChosen(undefined)
  }, [])
  const openOrder = useCallback(async () => {
    const made = await newOrder(amounts[Math.floor(Math.random() * amounts.length)] ?? 2990, show)
    if (!made) return
    setOrder(made)
    setKey(newKey())
  }, [show])
  useEffect(() => void openOrder(), [openOrder])

  // Asked anew whenever the bank has said something, and after each button.
  const lastOfBank = lines.find((line) => line.from === 'bank')?.id
  useEffect(() => {
    if (order) void ledgerOf(order.id).then((read) => read && setLedger(read))
  }, [order, lastOfBank, busy])

  const press = (name: string, action: (order: Order) => Promise<unknown>) => async () => {
    if (!order || busy !== undefined) return
    setBusy(name)
    try {
      await action(order)
    } finally {
      setBusy(undefined)
    }
  }
  const off = order === undefined || busy !== undefined
  const raw = exchanges.find(({ id }) => id === chosen) ?? exchanges[0]

  return (
    <>
      <header>
        <p class="mark">
          hapax<span> / corner shop</span>
        </p>
        <h1>You are charged once.</h1>
        <p class="lead">
          Press Pay twice. Change the amount. Kill the shop while the money moves. The bank is another process with its own ledger; its
          number is the proof.
        </p>
        <p class={live ? 'live' : 'live off'} role="status">
          {live ? 'event stream open' : 'event stream lost, opening it again'}
        </p>
      </header>
      <main>
        <section class="pay" aria-labelledby="pay">
          <h2 id="pay">
            <i>1</i> Pay
          </h2>
          <div class="slip">
            <dl>
              <dt>Order</dt>
              <dd data-testid="order">{order?.id ?? '...'}</dd>
              <dt>Amount</dt>
              <dd>{order ? money(order.amount) : '...'}</dd>
              <dt>Idempotency-Key</dt>
              <dd class="key" data-testid="key">
                {key}
              </dd>
            </dl>
            <div class={ledger && ledger.booked > 1 ? 'proof wrong' : 'proof'} aria-live="polite">
              <b data-testid="booked">{ledger?.booked ?? 0}</b>
              <span>{ledger?.booked === 1 ? 'charge' : 'charges'} in the bank's ledger</span>
              <small>
                asked <em data-testid="asked">{ledger?.asked ?? 0}</em> {ledger?.asked === 1 ? 'time' : 'times'}
              </small>
            </div>
          </div>
          <div class="buttons">
            <button class="main" disabled={off} onClick={press('pay', (o) => pay('Pay', key, o, o.amount, show))}>
              Pay
            </button>
            <button
              disabled={off}
              onClick={press('twice', (o) =>
                Promise.all([pay('Pay, first', key, o, o.amount, show), pay('Pay, second', key, o, o.amount, show)]),
              )}
            >
              Pay twice at once
            </button>
            <button disabled={off} onClick={press('amount', (o) => pay('Other amount', key, o, o.amount + 100, show))}>
              Same key, other amount
            </button>
            <button disabled={off} onClick={() => setKey(newKey())}>
              New key
            </button>
            <button disabled={off} onClick={press('order', openOrder)}>
              New order
            </button>
          </div>
          <div class="buttons danger">
            <button
              disabled={off || (ledger?.booked ?? 0) > 0}
              onClick={press('kill', async (o) => {
                await killInNextCharge()
                await pay('Pay, shop killed', key, o, o.amount, show)
              })}
            >
              Kill the shop in the middle of this charge
            </button>
            <button disabled={off} onClick={press('kill-now', killNow)}>
              Kill it now
            </button>
          </div>
          <p class="hint">{hintOf(busy, ledger)}</p>
        </section>

        <section aria-labelledby="answers">
          <h2 id="answers">
            <i>2</i> Answers
          </h2>
          <ol class="exchanges">
            {exchanges.map((exchange) => (
              <li key={exchange.id}>
                <button aria-pressed={exchange === raw} onClick={() => setChosen(exchange.id)}>
                  <b class={`s${Math.floor((exchange.status ?? 0) / 100)}`}>{exchange.status ?? 'cut'}</b>
                  <span>
                    {exchange.what}
                    {exchange.replayed && <mark>replayed</mark>}
                    {exchange.again !== undefined && <small>{exchange.again}</small>}
                  </span>
                  <time>{exchange.ms} ms</time>
                </button>
              </li>
            ))}
          </ol>
          {raw && <Raw exchange={raw} />}
        </section>

        <Limits />
        <Stock />
        <ProductPage />

        <section aria-labelledby="stripe">
          <h2 id="stripe">
            <i>6</i> Bring Stripe's own client
          </h2>
          <p>The published package, not patched, with its automatic retries. It sees what it would see from Stripe.</p>
          <pre tabIndex={0}>{stripeSnippet(location.hostname, location.port)}</pre>
          <p class="total">
            The whole ledger: <b data-testid="charges">{ledger?.charges ?? 0}</b> {ledger?.charges === 1 ? 'charge' : 'charges'},{' '}
            <b>{money(ledger?.sum ?? 0)}</b>
          </p>
        </section>

        {members && <ClusterPanel number={7} members={members} />}

        <section class="wide" aria-labelledby="log">
          <h2 id="log">
            <i>{members ? 8 : 7}</i> Event log
          </h2>
          <ol class="log" tabIndex={0} aria-label="Events, newest first">
            {lines.map((line) => (
              <li key={line.id}>
                <time>{clock(line.at)}</time>
                <b class={line.from}>{line.from}</b>
                <span>
                  {line.what} <em>{line.detail}</em>
                  <small>{line.code}</small>
                </span>
              </li>
            ))}
          </ol>
        </section>
      </main>
      <footer>
        What is not promised: a bank that ignores the step's key can still be made to book twice. See examples/payments/README.md.
      </footer>
    </>
  )
}

function Raw({ exchange }: { readonly exchange: Exchange }) {
  const text =
    exchange.status === undefined
      ? 'The connection broke. No answer came; whether the money moved is not known.\nThe page asks again with the same key.'
      : `HTTP ${exchange.status}\n${exchange.headers.map(([name, value]) => `${name}: ${value}`).join('\n')}\n\n${exchange.body}`
  return (
    <pre class="raw" tabIndex={0} aria-label="The answer as it came" data-testid="raw">
      {text}
    </pre>
  )
}

function hintOf(busy: string | undefined, ledger: Ledger | undefined): string {
  if (busy === 'kill')
    return 'The bank has booked; the shop is dead. The page asks again with the same key until the lease is over and the shop resumes.'
  if (busy !== undefined) return 'On its way ...'
  if (ledger === undefined || ledger.booked === 0) return 'Nothing is booked yet. Pay, or kill the shop while it charges.'
  if (ledger.booked === 1)
    return 'Booked once. Press Pay as often as you like; with a new key the shop refuses, because the order is paid. Take a new order to kill the shop while it charges.'
  return 'Booked more than once: that is a bug. Please report it.'
}

const stripeSnippet = (host: string, port: string): string => `import Stripe from 'stripe'

const stripe = new Stripe('sk_test_demo', {
  host: '${host}', port: ${port || 80}, protocol: 'http',
})
await stripe.paymentIntents.create({
  amount: 2990, currency: 'eur', confirm: true,
  payment_method: 'pm_card_visa',
})`

/** The lines of all processes, newest first. The browser opens the stream again by itself. */
function useEventLog(): { readonly lines: readonly LogLine[]; readonly live: boolean } {
  const [lines, setLines] = useState<readonly LogLine[]>([])
  const [live, setLive] = useState(false)
  const waiting = useRef<LogLine[]>([])
  useEffect(() => {
    const source = new EventSource('/demo/events')
    source.onopen = () => setLive(true)
    source.onerror = () => setLive(false)
    source.onmessage = (message) => {
      waiting.current.unshift({ ...(JSON.parse(message.data as string) as LogLine), id: message.lastEventId })
      if (waiting.current.length > 1) return
      queueMicrotask(() => {
        const fresh = waiting.current.splice(0)
        setLines((before) => {
          const known = new Set(before.map(({ id }) => id))
          return [...fresh.filter(({ id }) => !known.has(id)), ...before].slice(0, linesShown)
        })
      })
    }
    return () => source.close()
  }, [])
  return { lines, live }
}

const root = document.getElementById('page')
if (root) render(<Page />, root)
