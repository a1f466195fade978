/** What a proxy does around the rounds of its keys: admission, names, answers, the map. */
import { expect, test } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import { neverExpires } from '../../core/kv/expiry.ts'
import type { Operation } from '../../core/record/operation.ts'
import type { ReplicaAnswer, ReplicaRequest } from '../../core/wire/replica-message.ts'
import { Cluster } from '../register/testdata/cluster.ts'
import type { Answer, Work } from '../register/work.ts'
import { Coordinator } from './coordinator.ts'

const nameless = { session: '', sequence: 0, remember: false, done: 0, attempt: 1 }
const set = (length = 1): Operation => ({
  verb: 'set',
  request: nameless,
  value: new Uint8Array(length),
  expiry: neverExpires,
  ifVersion: undefined,
})
const why = (answer: Answer | undefined) => (answer?.type === 'no-effect' ? answer.why : answer?.type)

test('one operation too many is refused at once, and room comes back with the answers (W1)', () => {
  const cluster = new Cluster({ waitingMax: 3 })
  const proxy = cluster.proxy()
  const told: (string | undefined)[] = []
  for (const key of ['a', 'a', 'b', 'c']) proxy.ask(key, key === 'b' ? undefined : set(), (answer) => void told.push(why(answer)))
  expect(told).toEqual(['overload'])
  expect(proxy.coordinator.keys).toBe(2)
  cluster.runUntil(50)
  expect(told).toEqual(['overload', 'read', 'decided', 'decided'])
  proxy.ask('c', set(), (answer) => void told.push(why(answer)))
  cluster.runUntil(100)
  expect(told.at(-1)).toBe('decided')
})

test('values that wait are bounded in bytes, and their bytes come back with the answers (W1)', () => {
  const cluster = new Cluster({ waitingBytesMax: 1_000 })
  const proxy = cluster.proxy()
  const told: (string | undefined)[] = []
  const ask = (length: number) => proxy.ask('k', set(length), (answer) => void told.push(why(answer)))
  for (let round = 0; round < 20; round++) {
    ask(600)
    ask(401)
    ask(400)
    expect(told.splice(0)).toEqual(['overload'])
    cluster.runUntil(cluster.now + 50)
    expect(told.splice(0)).toEqual(['decided', 'decided'])
  }
})

test('a key whose shard the map does not have says "no quorum", and the map is asked (W2)', () => {
  const cluster = new Cluster()
  const proxy = cluster.proxy()
  let told: Answer | undefined
  proxy.ask('lost', set(), (answer) => void (told = answer))
  expect(why(told)).toBe('no-quorum')
  expect(proxy.coordinator.waiting).toBe(0)
})

test('a request without a name gets one of the proxy, rising, and what is answered is said to be done (N1)', () => {
  const cluster = new Cluster()
  const proxies = [cluster.proxy(35), cluster.proxy(36)]
  for (let index = 0; index < 10; index++) {
    proxies[index % 2]?.ask('k', set(), () => undefined)
    proxies[index % 2]?.ask('other', set(), () => undefined)
    cluster.runUntil(cluster.now + 50)
  }
  const { entries, marks } = cluster.record('k')?.completions ?? { entries: [], marks: [] }
  expect(entries.map(({ session, sequence }) => [session, sequence])).toEqual([
    ['~z', 9],
    ['~10', 9],
  ])
  expect(marks.map(({ session, below }) => [session, below])).toEqual([
    ['~z', 9],
    ['~10', 9],
  ])
})

test('an operation whose accept was lost is not applied again by the next round: the proxy knows its own work (N1, R6)', () => {
  const cluster = new Cluster()
  const proxy = cluster.proxy()
  let told: Answer | undefined
  proxy.ask('k', set(), () => undefined)
  cluster.runUntil(50)
  let isLost = true
  // The accepts arrive, their answers do not.
  const { carry } = cluster
  cluster.carry = (type, run) => (type === 'accepted' && isLost ? undefined : carry.call(cluster, type, run))
  proxy.ask('k', set(), (answer) => void (told = answer))
  cluster.runUntil(100)
  expect(told).toBeUndefined()
  isLost = false
  cluster.runUntil(300)
  expect(why(told)).toBe('decided')
  expect(cluster.record('k')?.version).toBe(2)
  expect(cluster.counts['completion-hit']).toBe(1)
})

test('who asks again within its answer finds no machine at work: both are answered (W3)', () => {
  const cluster = new Cluster({ delayMs: 1 })
  const proxy = cluster.proxy()
  const told: string[] = []
  proxy.ask('k', set(), () => {
    told.push('first')
    proxy.ask('k', undefined, (answer) => void told.push(`get ${answer.type}`))
    proxy.ask('k', set(), () => void told.push('second'))
    proxy.ask('k', set(), () => void told.push('late'), { timeoutMs: 0 })
  })
  cluster.runUntil(100)
  expect(told).toEqual(['first', 'late', 'get read', 'second'])
  expect([proxy.open, proxy.coordinator.waiting, proxy.coordinator.keys]).toEqual([0, 0, 0])
})

test('a map of another number of zones is not taken: its quorums may miss ours (W2)', () => {
  const cluster = new Cluster()
  const { coordinator } = cluster.proxy()
  const row = { shard: 0, epoch: 2, servers: ['s0', 's1', 's2', 's3', 's4'] }
  expect(coordinator.learnRow(row, cluster.instant())).toBe(false)
  expect(coordinator.learnRow({ ...row, servers: ['s0', 's1', 's2'] }, cluster.instant())).toBe(true)
  expect(coordinator.learnRow({ ...row, servers: ['s0', 's1', 's2'] }, cluster.instant())).toBe(false)
})

test('rounds under an older row begin anew under the newer one, without a wait (P3, G8)', () => {
  const sent: [string, ReplicaRequest][] = []
  const wakes: number[] = []
  const cluster = new Cluster()
  const now = cluster.instant()
  const coordinator = new Coordinator({
    zones: 1,
    rows: [{ shard: 0, epoch: 1, servers: ['old'] }],
    ports: {
      random: seededRandom(1),
      proposerId: 1,
      shardOf: () => 0,
      send: (to, message) => (message.type === 'ping' ? undefined : void sent.push([to, message])),
      wakeAt: (mono) => void wakes.push(mono),
      answer: () => undefined,
      count: () => undefined,
      wantRow: () => undefined,
    },
  })
  coordinator.ping(now)
  coordinator.receive('old', { type: 'pong', id: 1, zone: 0, clock: now.wall }, now)
  const work = (): Work => ({ operation: undefined, deadlineMono: 600, sentAt: undefined, acceptWasSent: 'no' })
  coordinator.read('k', work(), now)
  coordinator.write('k', work(), now)
  expect(sent.map(([to, { type, epoch }]) => [to, type, epoch])).toEqual([
    ['old', 'read', 1],
    ['old', 'prepare', 1],
  ])
  coordinator.learnRow({ shard: 0, epoch: 2, servers: ['new'] }, now)
  expect(wakes.at(-1)).toBe(now.mono)
  coordinator.wake(now)
  expect(sent.slice(2).map(([to, { type, epoch }]) => [to, type, epoch])).toEqual([
    ['new', 'prepare', 2],
    ['new', 'read', 2],
  ])
})

test('an answer of another epoch is no vote, whoever sends it (P3, R11)', () => {
  const cluster = new Cluster({ zones: 1 })
  const proxy = cluster.proxy()
  proxy.ask('k', set(), () => undefined)
  proxy.ask('k', undefined, () => undefined)
  const { step } = cluster
  cluster.step = (zone, message) => ({ ...(step.call(cluster, zone, message) as ReplicaAnswer), epoch: 2 })
  cluster.runUntil(5)
  expect([cluster.sent['promised'], cluster.sent['shown'], cluster.sent['accept'], proxy.open]).toEqual([1, 1, undefined, 2])
})

test('a hot key with thousands of deadlines is woken once a turn, not once a deadline', () => {
  const cluster = new Cluster({ waitingMax: 20_000 })
  const proxy = cluster.proxy()
  cluster.refuse = () => 'silent'
  let answered = 0
  for (let index = 0; index < 10_000; index++) proxy.ask('k', set(), () => void answered++, { timeoutMs: 300 })
  cluster.runUntil(299)
  expect(answered).toBe(0)
  cluster.runUntil(300)
  expect(answered).toBe(10_000)
})
