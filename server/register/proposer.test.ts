/** Rounds under virtual time: how many, how large, who is answered and with what. Stories of single messages are in testdata/*.txt. */
import { expect, test } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import { epochMs, type Millis } from '../../core/base/types.ts'
import { neverExpires } from '../../core/kv/expiry.ts'
import { completionRules, type Operation, type Outcome, type Request } from '../../core/record/operation.ts'
import { roundOperationsMax } from './proposer.ts'
import { Cluster, start, type TestProxy } from './testdata/cluster.ts'
import type { Answer } from './work.ts'

const nameless: Request = { session: '', sequence: 0, remember: false, done: 0, attempt: 1 }
const bytes = (text: string) => new TextEncoder().encode(text)
const set = (text: string, request: Request = nameless): Operation => ({
  verb: 'set',
  request,
  value: bytes(text),
  expiry: neverExpires,
  ifVersion: undefined,
})
const create = (text: string, request: Request = nameless): Operation => ({
  verb: 'create',
  request,
  value: bytes(text),
  expiry: neverExpires,
})
const plain = (session: string, attempt = 1): Request => ({ session, sequence: 0, remember: true, done: 0, attempt })

/** Asks, runs until it is answered, and gives answer and milliseconds. */
function call(
  cluster: Cluster,
  proxy: TestProxy,
  key: string,
  operation: Operation | undefined,
  options?: { timeoutMs?: number; isRepair?: true },
) {
  const begun = cluster.now
  let told: { answer: Answer; ms: number } | undefined
  proxy.ask(key, operation, (answer) => void (told = { answer, ms: cluster.now - begun }), options)
  for (let until = cluster.now; told === undefined && until < begun + 2_000; until++) cluster.runUntil(until + 1)
  return told as unknown as { answer: Answer; ms: number }
}
const outcomeOf = (answer: Answer | undefined): Outcome['type'] | string =>
  answer?.type === 'decided'
    ? answer.outcome.type === 'fault'
      ? answer.outcome.code
      : answer.outcome.type
    : answer?.type === 'no-effect'
      ? answer.why
      : `${answer?.type}`

test.each([1, 3, 5])(
  'with %i zones a write takes two round trips, a read and a refusal one, and a write one durable write a zone (P1, G1, Q23)',
  (zones) => {
    const cluster = new Cluster({ zones, delayMs: 4 })
    const proxy = cluster.proxy()
    expect(call(cluster, proxy, 'k', create('a'))).toMatchObject({ ms: 16 })
    expect(call(cluster, proxy, 'k', undefined)).toMatchObject({ ms: 8, answer: { type: 'read', entry: { value: bytes('a') } } })
    expect(cluster.sent['read']).toBe(Math.floor(zones / 2) + 1)
    expect(call(cluster, proxy, 'k', create('b'))).toMatchObject({ ms: 8, answer: { outcome: { type: 'exists' } } })
    expect(call(cluster, proxy, 'k', set('c'))).toMatchObject({ ms: 16 })
    cluster.runUntil(cluster.now + 50)
    expect(cluster.puts).toEqual(Array(zones).fill(2))
    expect(cluster.ceilings).toEqual(Array(zones).fill(1)) // for as many writes as there are in a quarter of a second
  },
)

test('a nearest zone that answers last does not cost a third round trip of its own (P12)', () => {
  const cluster = new Cluster({ delayMs: 5 })
  const proxy = cluster.proxy()
  call(cluster, proxy, 'k', create('a'))
  cluster.runUntil(cluster.now + 50)
  cluster.refuse = (zone, message) => {
    if (zone !== 0 || message.type !== 'prepare') return undefined
    cluster.refuse = undefined
    return 'silent'
  }
  expect(call(cluster, proxy, 'k', set('b'))).toMatchObject({ ms: 30 }) // prepare, payload, accept
})

test('64 writers on one key: none is refused, and a round carries at least 20 operations (P4, Q23)', () => {
  const cluster = new Cluster({ delayMs: 1, jitterMs: 1, seed: 5 })
  const proxy = cluster.proxy()
  const outcomes: Record<string, number> = {}
  let applied = 0
  const write = (writer: number): void =>
    proxy.ask('k', set(`${writer}`), (answer) => {
      outcomes[outcomeOf(answer)] = (outcomes[outcomeOf(answer)] ?? 0) + 1
      applied++
      if (cluster.now < 1_000) write(writer)
    })
  for (let writer = 0; writer < 64; writer++) write(writer)
  cluster.runUntil(2_000)
  expect(outcomes).toEqual({ applied })
  const rounds = (cluster.sent['accept'] as number) / 3
  expect(applied / rounds).toBeGreaterThanOrEqual(20)
  expect(cluster.record('k')?.version).toBe(applied)
})

test('a round takes a bounded number of operations, in order, and the rest follows (P4)', () => {
  const cluster = new Cluster()
  const proxy = cluster.proxy()
  const order: number[] = []
  const count = 3 * roundOperationsMax - 1
  for (let index = 0; index < count; index++) proxy.ask('k', set(`${index}`), () => void order.push(index))
  cluster.runUntil(100)
  expect(order).toEqual(Array.from({ length: count }, (_, index) => index))
  expect(cluster.sent['accept']).toBe(3 * 3)
})

test('thousands of writers on one key, without names, are never refused for what the record remembers (Q3, N1)', () => {
  const cluster = new Cluster({ jitterMs: 2, seed: 3 })
  const proxies = [cluster.proxy(1), cluster.proxy(2)]
  const answers: Record<string, number> = {}
  let asked = 0
  const ask = (proxy: TestProxy): void => {
    asked++
    proxy.ask('k', set('x'), (answer) => void (answers[outcomeOf(answer)] = (answers[outcomeOf(answer)] ?? 0) + 1), { timeoutMs: 10_000 })
  }
  for (let index = 0; index < 2_000; index++) for (const proxy of proxies) ask(proxy)
  cluster.runUntil(8_000)
  expect(answers).toEqual({ applied: asked })
  ask(proxies[0] as TestProxy)
  cluster.runUntil(9_000)
  expect(cluster.record('k')?.completions.entries.length).toBeLessThanOrEqual(2 * roundOperationsMax)
  expect(cluster.counts['record-locked']).toBeUndefined()
})

test('a counter that retry-safe clients hit 500 times a second is never refused, and remembers a handful (R7, Q3)', () => {
  const cluster = new Cluster({ jitterMs: 3, seed: 11 })
  const proxies = [cluster.proxy(1), cluster.proxy(2), cluster.proxy(3)]
  const clients = 25
  const answers: Record<string, number> = {}
  let asked = 0
  let entriesMost = 0
  const begin = (client: number): void => {
    const open = new Set<number>()
    let sequence = 0
    const next = (): void => {
      if (cluster.now >= 30_000) return
      const number = ++sequence
      open.add(number)
      asked++
      const send = (attempt: number): void => {
        const request: Request = {
          session: `client-${client}-of-a-name-as-long-as-a-ulid`,
          sequence: number,
          remember: true,
          done: Math.min(...open),
          attempt,
        }
        proxies[(client + attempt) % 3]?.ask('k', set(`${client}`, request), (answer) => {
          const outcome = outcomeOf(answer)
          // A proxy may have lost a duel for 600 ms: the client sends it again, as it would in life.
          if (outcome !== 'applied' && outcome !== 'RECORD_LOCKED' && attempt < 10) return send(attempt + 1)
          open.delete(number)
          answers[outcome] = (answers[outcome] ?? 0) + 1
        })
      }
      send(1)
      cluster.after(50, next)
    }
    cluster.after(client * 2, next)
  }
  for (let client = 0; client < clients; client++) begin(client)
  for (let until = 0; until <= 31_000; until += 20) {
    cluster.runUntil(until)
    entriesMost = Math.max(entriesMost, cluster.record('k')?.completions.entries.length ?? 0)
  }
  cluster.runUntil(40_000)
  expect(asked).toBe(clients * 600)
  expect(answers).toEqual({ applied: asked })
  expect(cluster.counts['record-locked']).toBeUndefined()
  expect(cluster.record('k')?.version).toBe(asked)
  expect(entriesMost).toBeLessThanOrEqual(8 * clients)
})

test('a record that remembers all it may refuses with "record locked"; a quarter is kept for what changes something (R7)', () => {
  const rules = { ...completionRules, countMax: 8 }
  const cluster = new Cluster({ rules })
  const proxy = cluster.proxy()
  const told = (operation: Operation) => outcomeOf(call(cluster, proxy, 'k', operation).answer)
  expect(told(create('a', plain('first')))).toBe('applied')
  for (let index = 0; index < 5; index++) expect(told(create('b', plain(`no${index}`, 2)))).toBe('exists')
  expect(told(create('b', plain('no5', 2)))).toBe('RECORD_LOCKED')
  for (let index = 0; index < 2; index++) expect(told(set('c', plain(`yes${index}`)))).toBe('applied')
  expect(told(set('d', plain('yes2')))).toBe('RECORD_LOCKED')
  expect(told(set('c', plain('yes1')))).toBe('applied') // a repetition is remembered all the same
  expect(call(cluster, proxy, 'k', undefined).answer).toMatchObject({ entry: { value: bytes('c') } })
  cluster.runUntil(cluster.now + rules.lifeMs)
  expect(told(set('d', plain('yes2')))).toBe('applied')
})

test.each([
  ['busy', 'overload'],
  ['closed', 'no-quorum'],
  ['silent', 'no-quorum'],
] as const)('when all zones are %s nothing happened, and the answer says %s (P11)', (instead, why) => {
  const cluster = new Cluster()
  const proxy = cluster.proxy()
  cluster.refuse = () => instead
  const write = call(cluster, proxy, 'k', set('a'))
  const read = call(cluster, proxy, 'k', undefined)
  expect([outcomeOf(write.answer), outcomeOf(read.answer)]).toEqual([why, why])
  if (instead === 'busy') {
    expect(write.ms + read.ms).toBeLessThanOrEqual(4) // at once: more rounds are more load
    expect(cluster.sent['prepare']).toBe(3)
  } else expect(write.ms).toBe(600)
  expect(cluster.sent['prepare']).toBeLessThan(300) // the rounds wait between them
  cluster.refuse = undefined
  cluster.runUntil(cluster.now + 100)
  expect(outcomeOf(call(cluster, proxy, 'k', set('a')).answer)).toBe('applied')
})

test('when an accept left, overload is no answer: it may be applied, so it goes on, and says "unknown" at its deadline (P9)', () => {
  const cluster = new Cluster()
  const proxy = cluster.proxy()
  cluster.refuse = (zone, { type }) =>
    type === 'accept' && zone === 0 ? undefined : type === 'prepare' && cluster.now < 3 ? undefined : 'busy'
  expect(call(cluster, proxy, 'k', set('a'))).toMatchObject({ ms: 600, answer: { type: 'unknown' } })
})

test('two proxies that write one key without end both get on (P10)', () => {
  const cluster = new Cluster({ delayMs: 2, jitterMs: 2, seed: 2 })
  const counts = [0, 0]
  const others: string[] = []
  for (const [index, proxy] of [cluster.proxy(1), cluster.proxy(2)].entries()) {
    const write = (): void =>
      proxy.ask('k', set(`${index}`), (answer) => {
        if (outcomeOf(answer) === 'applied') counts[index] = (counts[index] as number) + 1
        else others.push(outcomeOf(answer))
        if (cluster.now < 20_000) write()
      })
    write()
  }
  cluster.runUntil(21_000)
  for (const count of counts) expect(count).toBeGreaterThan(200)
  expect(others.length).toBeLessThan(20)
})

test('every work is answered exactly once, in time, whatever is lost; and nothing is kept of a key that rests (P9)', () => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = seededRandom(seed)
    const cluster = new Cluster({
      seed,
      zones: random.pick([1, 3, 5]),
      loss: random.pick([0, 0.05, 0.3]),
      jitterMs: random.pick([0, 5, 80]),
    })
    const proxies = [cluster.proxy(1), cluster.proxy(2)]
    let asked = 0
    let answered = 0
    for (let step = 0; step < 150; step++) {
      const proxy = random.pick(proxies)
      const timeoutMs = random.pick([0, 1, 40, 100, 600])
      const operation = random.pick([
        undefined,
        set('a'),
        create('b', plain(`${step}`)),
        { verb: 'destroy', request: nameless, ifVersion: undefined } as Operation,
      ])
      asked++
      const begun = cluster.now
      const give = (): void => {
        answered++
        expect(cluster.now - begun).toBeLessThanOrEqual(timeoutMs + 1)
      }
      proxy.ask(random.pick(['a', 'b']), operation, give, {
        timeoutMs,
        ...(random.chance(0.05) && operation === undefined ? { isRepair: true } : {}),
      })
      cluster.runUntil(cluster.now + random.pick([0, 0, 1, 10, 60]))
      if (random.chance(0.1)) cluster.refuse = () => (random.chance(0.5) ? random.pick(['busy', 'closed', 'silent']) : undefined)
      if (random.chance(0.2)) cluster.refuse = undefined
    }
    cluster.runUntil(cluster.now + 700)
    expect([seed, answered, proxies.map(({ open }) => open)]).toEqual([seed, asked, [0, 0]])
    expect(proxies.map(({ coordinator }) => [coordinator.waiting, coordinator.keys])).toEqual([
      [0, 0],
      [0, 0],
    ])
  }
})

test('after everything healed a key answers at once, also one whose ballots are far ahead (P2, Q9)', () => {
  const cluster = new Cluster({ delayMs: 1 })
  const proxy = cluster.proxy()
  call(cluster, proxy, 'k', set('a'))
  for (const entries of cluster.entries) {
    const stored = entries.get('k')
    if (stored?.type === 'entry')
      entries.set('k', { type: 'entry', entry: { ...stored.entry, ballot: { ...stored.entry.ballot, ms: start + 3_600_000 } } })
  }
  const { answer, ms } = call(cluster, proxy, 'k', set('b'))
  expect(outcomeOf(answer)).toBe('applied')
  expect(ms).toBeLessThanOrEqual(12) // one round to learn of them, a moment's wait, two more
})

test('a zone that never heard of ballots far ahead believes a proposer that was told them (A2, P2)', () => {
  const cluster = new Cluster({ delayMs: 1 })
  const proxy = cluster.proxy()
  call(cluster, proxy, 'k', set('a'))
  const stored = cluster.entries[0]?.get('k')
  if (stored?.type === 'entry')
    cluster.entries[0]?.set('k', { type: 'entry', entry: { ...stored.entry, ballot: { ...stored.entry.ballot, ms: start + 3_600_000 } } })
  cluster.refuse = (zone) => (zone === 1 ? 'silent' : undefined)
  expect(outcomeOf(call(cluster, proxy, 'k', set('b')).answer)).toBe('applied')
  expect(cluster.counts['ballot-ahead']).toBeGreaterThan(0)
})

test('a repair writes anew what is chosen already, so that all zones come to hold one ballot (P5)', () => {
  const cluster = new Cluster()
  const proxy = cluster.proxy()
  call(cluster, proxy, 'k', set('a'))
  cluster.entries[2]?.delete('k')
  expect(call(cluster, proxy, 'k', undefined, { isRepair: true }).answer).toMatchObject({ type: 'read', entry: { value: bytes('a') } })
  cluster.runUntil(cluster.now + 10)
  expect(new Set(cluster.entries.map((entries) => JSON.stringify(entries.get('k')))).size).toBe(1)
})

test('a time to live that is over when it is written is a tombstone at once, and the writer sees what it wrote (P6)', () => {
  const cluster = new Cluster()
  const proxy = cluster.proxy()
  const past: Operation = {
    verb: 'set',
    request: nameless,
    value: bytes('a'),
    expiry: { type: 'until', at: epochMs(start - 1) },
    ifVersion: undefined,
  }
  expect(call(cluster, proxy, 'k', past).answer).toMatchObject({
    outcome: { type: 'applied', entry: { value: bytes('a'), expiresAt: start - 1 } },
  })
  expect(cluster.record('k')?.value).toBeUndefined()
  expect(call(cluster, proxy, 'k', undefined)).toMatchObject({ ms: 2, answer: { entry: undefined } })
})

test('at the very instant of its expiry a key is dead for reader and writer alike (R13)', () => {
  for (const operation of [undefined, create('b')]) {
    const cluster = new Cluster({ delayMs: 0 })
    const proxy = cluster.proxy()
    call(cluster, proxy, 'k', { ...create('a'), expiry: { type: 'set', ttlMs: 100 as Millis } } as Operation)
    cluster.runUntil(99)
    expect(call(cluster, proxy, 'k', undefined).answer).toMatchObject({ entry: { expiresAt: start + 100 } })
    cluster.runUntil(100)
    const { answer } = call(cluster, proxy, 'k', operation)
    expect(answer).toMatchObject(operation ? { outcome: { type: 'applied' } } : { type: 'read', entry: undefined })
  }
})
