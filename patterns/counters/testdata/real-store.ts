/**
 * What counters promise, on a store that is really there: three instances of a service on one key, answers lost after the write.
 * Invariant: nothing here knows which store it is, and no check depends on how fast it is.
 * Why each instance has a faulty store of its own: it is a root of its own to `modify`, so instances meet in the store alone.
 */
import { expect, type TestAPI } from 'vitest'
import { isKvError } from '../../../core/kv/errors.ts'
import type { KV } from '../../../core/kv/kv.ts'
import { faulty, type StoreCall, type Verdict } from '../../../core/testing/index.ts'
import { counter } from '../counter.ts'
import { gauge } from '../gauge.ts'
import { requestSession } from '../session.ts'
import { windowed } from '../windowed.ts'

const upTo = (n: number): number[] => Array.from({ length: n }, (_, index) => index + 1)

/** Of four updates one is applied and its answer lost, and one is lost on its way; of five reads one fails. */
const losing = ({ verb, nth }: StoreCall): Verdict => {
  if (verb === 'update' && nth % 4 === 1) return 'unknown-after'
  if (verb === 'update' && nth % 4 === 3) return 'unknown-before'
  return verb === 'get' && nth % 5 === 0 ? 'unavailable' : 'pass'
}

/** Sends until it is answered, as a client does whose answers are lost. */
async function insist<T>(send: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await send()
    } catch (error) {
      if (!isKvError(error) || error.retry === 'never') throw error
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
}

/** `open` gives a store of the same data for each instance, under keys that no other test has. */
export function countsOnRealStore(test: TestAPI, open: () => Promise<readonly KV[]>): void {
  /** Without request ids of the store's own, so that every lost answer comes to the caller. */
  const instances = async (requestIds: boolean) => {
    const stores = (await open()).map((kv) => faulty({ ...kv, capabilities: { ...kv.capabilities, requestIds } }, { on: losing }))
    return { stores, lost: () => stores.reduce((sum, store) => sum + store.counts().unknownAfter, 0) }
  }

  test('adds without an id count once each, and no two have the same place (P1)', async () => {
    const { stores, lost } = await instances(true)
    const counters = stores.map((kv) => counter({ kv, name: 'visits' }))
    const told: number[] = []
    const visiting = async (caller: number): Promise<void> => {
      for (let visit = 0; visit < 20; visit++) {
        const { value } = await insistUnlessUnknown(() => counters[caller % 3]!.add('home', 1))
        told.push(value)
      }
    }
    await Promise.all(upTo(30).map(visiting))
    expect(told.sort((a, b) => a - b)).toEqual(upTo(600))
    expect(await insist(() => counters[0]!.get('home'))).toMatchObject({ value: 600 })
    expect(lost()).toBeGreaterThan(0)
  })

  test('requests that are sent by two instances at once, and again after lost answers, count once (C1)', async () => {
    const { stores, lost } = await instances(false)
    const counters = stores.map((kv) => counter({ kv, name: 'orders', ttl: '1h' }))
    const ordering = async (order: number): Promise<void> => {
      const sendings = [order, order + 1].map((at) => insist(() => counters[at % 3]!.add('all', 1, { requestId: `order-${order}` })))
      const [one, two] = await Promise.all(sendings)
      expect({ ...one, repeated: true }).toEqual({ ...two, repeated: true })
    }
    const client = async (first: number): Promise<void> => {
      for (let order = first; order <= 200; order += 20) await ordering(order)
    }
    await Promise.all(upTo(20).map(client))
    expect(await insist(() => counters[0]!.get('all'))).toMatchObject({ value: 200 })
    expect(lost()).toBeGreaterThan(0)
  })

  test('60 seats are sold to 150 buyers of three instances, each once, and none is sold twice (P1)', async () => {
    const { stores, lost } = await instances(false)
    const seats = stores.map((kv) => counter({ kv, name: 'seats', start: 60, min: 0, max: 60 }))
    const results = await Promise.all(
      upTo(150).map((buyer) => insist(() => seats[buyer % 3]!.add('flight-7', -1, { requestId: `buyer-${buyer}` }))),
    )
    const sold = results.filter(({ ok }) => ok).map(({ value }) => value)
    expect(sold.sort((a, b) => a - b)).toEqual(upTo(60).map((n) => n - 1))
    expect(await insist(() => seats[0]!.get('flight-7'))).toMatchObject({ value: 0 })
    expect(lost()).toBeGreaterThan(0)
  })

  test('a window counts requests of sessions once each, with a memory far below their number (C1)', async () => {
    const { stores } = await instances(false)
    const fleet = stores.map((kv) => ({ last: windowed({ kv, name: 'hits', window: '1h', requestsMax: 64 }), session: requestSession() }))
    const hitting = async (caller: number): Promise<void> => {
      const { last, session } = fleet[caller % 3]!
      for (let hit = 0; hit < 30; hit++) await session.run((requestId) => insist(() => last.add('all', 1, { requestId })))
    }
    await Promise.all(upTo(12).map(hitting))
    expect(await insist(() => fleet[0]!.last.get('all'))).toMatchObject({ value: 360 })
  })

  test('no more than three slots are held at once, and all come back (C12)', async () => {
    // A release that the store does not take comes back with the lease alone: here none fails.
    const stores = (await open()).map((kv) => faulty(kv, { on: (call) => (call.verb === 'update' ? losing(call) : 'pass') }))
    const gauges = stores.map((kv) => gauge({ kv, name: 'exports', max: 3, lease: '60s' }))
    let [inside, most, done] = [0, 0, 0]
    const exporting = async (caller: number): Promise<void> => {
      for (;;) {
        await using slot = await insistUnlessUnknown(() => gauges[caller % 3]!.acquire('all'))
        if (slot.ok) {
          most = Math.max(most, ++inside)
          await new Promise((resolve) => setImmediate(resolve))
          inside--
          done++
          return
        }
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    await Promise.all(upTo(24).map(exporting))
    expect({ most, done }).toEqual({ most: 3, done: 24 })
    expect(await gauges[0]!.get('all')).toMatchObject({ inUse: 0 })
  })
}

/** Without an id only what surely had no effect may be sent again. */
const insistUnlessUnknown = <T>(send: () => Promise<T>): Promise<T> =>
  insist(() =>
    send().catch((error: unknown) => {
      if (isKvError(error, 'UNKNOWN_OUTCOME')) throw new Error('nobody knows whether it counted', { cause: error })
      throw error
    }),
  )
