/** Reads under virtual time. Their stories, message by message, are in testdata/*.txt. */
import { expect, test } from 'vitest'
import { neverExpires } from '../../core/kv/expiry.ts'
import type { Operation } from '../../core/record/operation.ts'
import { Cluster } from './testdata/cluster.ts'
import type { Answer } from './work.ts'

const create: Operation = {
  verb: 'create',
  request: { session: '', sequence: 0, remember: false, done: 0, attempt: 1 },
  value: new Uint8Array([7]),
  expiry: neverExpires,
}
/** A cluster in which all zones hold `k`, and a proxy that knows how long they take. */
function stand(zones: number) {
  const cluster = new Cluster({ zones, delayMs: 1 })
  const proxy = cluster.proxy()
  proxy.ask('k', create, () => undefined)
  cluster.runUntil(50)
  const get = () => {
    const begun = cluster.now
    let told: { answer: Answer; ms: number } | undefined
    proxy.ask('k', undefined, (answer) => void (told = { answer, ms: cluster.now - begun }))
    for (let until = begun; told === undefined && until < begun + 700; until++) cluster.runUntil(until + 1)
    return told as unknown as { answer: Answer; ms: number }
  }
  return { cluster, proxy, get }
}

test.each([
  [3, 1],
  [5, 2],
])(
  'with %i zones and %i of them silent a read costs one patience more, whichever they are; then they are not asked first (G4)',
  (zones, silent) => {
    for (let first = 0; first < zones; first++) {
      const { cluster, get } = stand(zones)
      for (let index = 0; index < 300; index++) get()
      cluster.refuse = (zone) => ((zone - first + zones) % zones < silent ? 'silent' : undefined)
      const { answer, ms } = get()
      expect(answer).toMatchObject({ type: 'read', entry: { value: new Uint8Array([7]) } })
      expect(ms).toBeLessThanOrEqual(2 + 2 + 2) // patience of 2 ms, the others, and perhaps the payload
    }
  },
)

test('a quorum that refuses gives no answer, and the read goes on until its deadline (G4)', () => {
  const { cluster, get } = stand(3)
  cluster.refuse = (zone) => (zone < 2 ? 'closed' : undefined)
  expect(get()).toMatchObject({ ms: 600, answer: { type: 'no-effect', why: 'no-quorum' } })
  expect((cluster.sent['read'] as number) + (cluster.sent['prepare'] as number)).toBeLessThan(200)
})

test('a zone that refuses is made up for at once, without patience (G4)', () => {
  const { cluster, get } = stand(3)
  cluster.refuse = (zone) => (zone === 0 ? 'busy' : undefined)
  expect(get()).toMatchObject({ ms: 4, answer: { type: 'read', entry: { value: new Uint8Array([7]) } } })
})

test('gets that come while a read is under way share the next one (G2)', () => {
  const { cluster, proxy } = stand(3)
  const before = cluster.sent['read'] ?? 0
  const at: number[] = []
  const begun = cluster.now
  proxy.ask('k', undefined, () => void at.push(cluster.now - begun))
  cluster.runUntil(begun + 1)
  for (let index = 0; index < 50; index++) proxy.ask('k', undefined, () => void at.push(cluster.now - begun))
  cluster.runUntil(begun + 20)
  expect(at).toEqual([2, ...Array<number>(50).fill(4)])
  expect((cluster.sent['read'] as number) - before).toBe(4)
})

test('a get past its deadline is answered, and the others of its round go on', () => {
  const { cluster, proxy } = stand(3)
  cluster.refuse = () => 'silent'
  const told: string[] = []
  for (const timeoutMs of [20, 500]) proxy.ask('k', undefined, (answer) => void told.push(`${timeoutMs} ${answer.type}`), { timeoutMs })
  cluster.runUntil(cluster.now + 30)
  expect(told).toEqual(['20 no-effect'])
  cluster.refuse = undefined
  cluster.runUntil(cluster.now + 200)
  expect(told).toEqual(['20 no-effect', '500 read'])
})

test('servers that are slow for everybody get longer from round to round: the read is no write in the end (G4)', () => {
  const cluster = new Cluster({ zones: 3, delayMs: 40 })
  const proxy = cluster.proxy()
  proxy.ask('k', create, () => undefined)
  cluster.runUntil(600)
  const prepares = cluster.sent['prepare']
  const told: string[] = []
  proxy.ask('k', undefined, (answer) => void told.push(answer.type))
  cluster.runUntil(1_000)
  expect(told).toEqual(['read'])
  expect(cluster.sent['prepare']).toBe(prepares)
})

test('a get that has no time for three rounds becomes a write in time: else what is half made would never be settled (G4)', () => {
  const cluster = new Cluster({ zones: 3, delayMs: 30 })
  const proxy = cluster.proxy()
  cluster.refuse = () => 'closed'
  const told: string[] = []
  proxy.ask('k', undefined, (answer) => void told.push(answer.type), { timeoutMs: 150 })
  cluster.runUntil(140)
  expect(cluster.sent['prepare']).toBeGreaterThan(0)
  cluster.runUntil(200)
  expect(told).toEqual(['no-effect'])
})
