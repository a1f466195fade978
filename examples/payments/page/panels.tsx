/**
 * Rate limit, stock and product page: each a claim, a button that attacks it, and a number of the warehouse's that settles it.
 * Invariant: what a panel says was granted comes from the answers; what really happened comes from the warehouse.
 */
import { useEffect, useState } from 'preact/hooks'
import { countsOf, deliver, fresh, productOf, quote, race, stampede, type Quote } from './client.ts'

const limit = 10
const burst = 20
const units = 20

/** A panel's button: off while its request is on its way; what goes wrong is said in the panel. */
export function usePress(): { readonly busy: boolean; readonly fault: string | undefined; press(action: () => Promise<void>): () => void } {
  const [busy, setBusy] = useState(false)
  const [fault, setFault] = useState<string>()
  const press = (action: () => Promise<void>) => () => {
    if (busy) return
    setBusy(true)
    setFault(undefined)
    action()
      .catch((error: unknown) => setFault(String(error)))
      .finally(() => setBusy(false))
  }
  return { busy, fault, press }
}

export function Proof({ id, value, isWrong, children }: { id: string; value: number; isWrong: boolean; children: string }) {
  return (
    <div class={isWrong ? 'proof wrong' : 'proof'} aria-live="polite">
      <b data-testid={id}>{value}</b>
      <span>{children}</span>
    </div>
  )
}

export function Limits() {
  const [client] = useState(() => fresh('guest'))
  const [last, setLast] = useState<Quote>()
  const [sums, setSums] = useState({ granted: 0, refused: 0, given: 0 })
  const { busy, fault, press } = usePress()

  const ask = async (count: number): Promise<void> => {
    const before = await countsOf()
    const answers = await Promise.all(Array.from({ length: count }, () => quote(client)))
    const after = await countsOf()
    const granted = answers.filter(({ status }) => status === 200).length
    setSums((sum) => ({
      granted: sum.granted + granted,
      refused: sum.refused + answers.filter(({ status }) => status === 429).length,
      given: sum.given + after.quotes - before.quotes,
    }))
    const least = answers.reduce((low, answer) => ((answer.remaining ?? limit) <= (low.remaining ?? limit) ? answer : low))
    setLast(least)
  }
  const left = last?.remaining ?? limit
  return (
    <section aria-labelledby="limits">
      <h2 id="limits">
        <i>3</i> Rate limit
      </h2>
      <p>
        {limit} quotes in 10 s for each client, by GCRA. The meter follows the header <code>RateLimit</code>.
      </p>
      <div class="slip">
        <div>
          <meter min={0} max={limit} value={left} aria-label="Quotes left" data-testid="quotes-left">
            {left}
          </meter>
          <p class="total">
            <b data-testid="quotes-granted">{sums.granted}</b> answered, <b data-testid="quotes-refused">{sums.refused}</b> refused with 429
          </p>
        </div>
        <Proof id="quotes-given" value={sums.given} isWrong={sums.given > sums.granted}>
          quotes given, says the warehouse
        </Proof>
      </div>
      <div class="buttons">
        <button disabled={busy} onClick={press(() => ask(1))}>
          Ask for a quote
        </button>
        <button disabled={busy} onClick={press(() => ask(burst))}>
          Ask {burst} times at once
        </button>
      </div>
      {last && (
        <pre tabIndex={0} data-testid="limit-lines">
          {`HTTP ${last.status}\n${last.limitLines.join('\n')}`}
        </pre>
      )}
      <p class="fault">{fault}</p>
    </section>
  )
}

export function Stock() {
  const [left, setLeft] = useState(0)
  const [sums, setSums] = useState({ sold: 0, refused: 0, shipped: 0 })
  const { busy, fault, press } = usePress()

  const raceForUnits = async (): Promise<void> => {
    const sku = fresh('lamp')
    setSums({ sold: 0, refused: 0, shipped: 0 })
    setLeft((await deliver(sku, units)).left)
    const { byStatus } = await race(sku)
    const { shipped } = await countsOf(sku)
    setSums({ sold: byStatus['201'] ?? 0, refused: byStatus['409'] ?? 0, shipped })
    setLeft((await productOf(sku)).left)
  }
  return (
    <section aria-labelledby="stock">
      <h2 id="stock">
        <i>4</i> Stock
      </h2>
      <p>A counter that never goes below 0, however many buy at once.</p>
      <div class="slip">
        <p class="total">
          <b data-testid="stock-left">{left}</b> on the shelf, <b data-testid="stock-sold">{sums.sold}</b> sold,{' '}
          <b data-testid="stock-refused">{sums.refused}</b> refused
        </p>
        <Proof id="oversold" value={Math.max(0, sums.shipped - units)} isWrong={sums.shipped > units}>
          {`oversold: the warehouse has shipped ${sums.shipped} of ${units}`}
        </Proof>
      </div>
      <div class="buttons">
        <button disabled={busy} onClick={press(raceForUnits)}>
          100 buyers race for {units} units
        </button>
      </div>
      <p class="fault">{fault}</p>
    </section>
  )
}

export function ProductPage() {
  const [sku, setSku] = useState(() => fresh('book'))
  const [reads, setReads] = useState(0)
  const [crowd, setCrowd] = useState({ answered: 0, ms: 0 })
  const { busy, fault, press } = usePress()
  useEffect(() => {
    setReads(0)
    setCrowd({ answered: 0, ms: 0 })
  }, [sku])

  const ask = async (): Promise<void> => {
    const { byStatus, ms } = await stampede(sku)
    setCrowd({ answered: byStatus['200'] ?? 0, ms })
    setReads((await countsOf(sku)).reads)
  }
  return (
    <section aria-labelledby="cache">
      <h2 id="cache">
        <i>5</i> Product page
      </h2>
      <p>The warehouse needs 150 ms for a product. Cached, with a lease: one reader asks it, the others wait for that one.</p>
      <div class="slip">
        <p class="total">
          <b data-testid="cache-answered">{crowd.answered}</b> readers answered in {crowd.ms} ms
        </p>
        <Proof id="cache-reads" value={reads} isWrong={reads > 1}>
          {`${reads === 1 ? 'read' : 'reads'} of the warehouse`}
        </Proof>
      </div>
      <div class="buttons">
        <button disabled={busy} onClick={press(ask)}>
          500 readers at once
        </button>
        <button disabled={busy} onClick={() => setSku(fresh('book'))}>
          Another product
        </button>
      </div>
      <p class="fault">{fault}</p>
    </section>
  )
}
