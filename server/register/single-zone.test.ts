/** Q6: a register of one zone gives the answers of the embedded store, whose reference is the memory store. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { isKvError } from '../../core/kv/errors.ts'
import type { Expiry, KV, RequestId, Version } from '../../core/kv/kv.ts'
import { memory } from '../../core/stores/memory.ts'
import { kvOver, type Answer as StoreAnswer } from '../../core/stores/verbs.ts'
import { faultOf } from '../proxy/session.ts'
import { Cluster, start } from './testdata/cluster.ts'
import type { Answer } from './work.ts'

/** The register as a store: each call runs the cluster until it is answered. */
function registerKv(cluster: Cluster, like: KV): KV {
  const proxy = cluster.proxy()
  const ask = (key: string, operation: Parameters<typeof proxy.ask>[1]): Answer => {
    let told: Answer | undefined
    proxy.ask(key, operation, (answer) => void (told = answer))
    cluster.runUntil(cluster.now)
    const fault = told === undefined ? 'none' : faultOf(told)
    if (told === undefined || (fault !== undefined && told.type !== 'decided')) throw new Error(`the register said ${fault}`)
    return told
  }
  return kvOver({
    capabilities: like.capabilities,
    apply: (key, operation): StoreAnswer => {
      const told = ask(key, operation)
      if (told.type !== 'decided') throw new Error(told.type)
      return told
    },
    read: (keys) => ({ entries: keys.map((key) => (ask(key, undefined) as Answer & { type: 'read' }).entry), now: cluster.instant().wall }),
    close: () => Promise.resolve(),
  })
}

interface Step {
  readonly verb: 'create' | 'get' | 'update' | 'set' | 'destroy'
  readonly key: string
  readonly waitMs: number
  /** Of a step before that is sent again, counted back; 0: a request of its own. */
  readonly again: number
  readonly named: 'no' | 'plain' | 'session'
  /** Index of the version that is expected, among those seen; -1: any. */
  readonly version: number
  readonly ttl: number
  readonly expiry: 'keep' | 'never' | 'set' | 'extend' | 'until'
}

const step: fc.Arbitrary<Step> = fc.record({
  verb: fc.constantFrom('create', 'get', 'update', 'set', 'destroy'),
  key: fc.constantFrom('a', 'b'),
  waitMs: fc.constantFrom(1, 1, 5, 50, 100, 700),
  again: fc.constantFrom(0, 0, 1, 2, 5),
  named: fc.constantFrom('no', 'plain', 'session'),
  version: fc.integer({ min: -3, max: 5 }),
  ttl: fc.constantFrom(1, 50, 100, 1_000),
  expiry: fc.constantFrom('keep', 'never', 'set', 'extend', 'until'),
})

interface Sent extends Step {
  readonly requestId: RequestId | undefined
  readonly value: string
}

/** Plays the steps on one store. @returns what it answered, versions as numbers in the order in which they were seen */
async function play(kv: KV, steps: readonly Step[], goOn: (ms: number) => void): Promise<string[]> {
  const versions: Version[] = []
  const label = (version: Version): number => (versions.includes(version) ? versions.indexOf(version) : versions.push(version) - 1)
  const sent: Sent[] = []
  const answers: string[] = []
  for (const [index, one] of steps.entries()) {
    goOn(one.waitMs)
    const earlier = one.again === 0 ? undefined : sent.at(-one.again)
    const attempt = earlier === undefined ? 1 : 2
    const requestId: RequestId | undefined =
      one.named === 'no'
        ? undefined
        : one.named === 'plain'
          ? `plain-${index}`
          : { session: 's', sequence: index + 1, done: Math.max(0, index - 1), attempt }
    const sending: Sent = earlier?.requestId === undefined ? { ...one, requestId, value: `${index}` } : repeated(earlier)
    sent.push(sending)
    const { verb, key, value } = sending
    const ifVersion = sending.version < 0 ? undefined : versions[sending.version]
    const options = { requestId: sending.requestId, ifVersion }
    const bytes = new TextEncoder().encode(value)
    const expiry = expiryOf(sending)
    try {
      const result =
        verb === 'get'
          ? await kv.get(key)
          : verb === 'create'
            ? await kv.create(key, bytes, { requestId: sending.requestId, ttl: sending.ttl })
            : verb === 'destroy'
              ? await kv.destroy(key, options)
              : await kv[verb](key, bytes, { ...options, expiry })
      const { entry } = result
      answers.push(JSON.stringify({ ...result, entry: entry && { ...entry, value: [...entry.value], version: label(entry.version) } }))
    } catch (error) {
      answers.push(isKvError(error) ? error.code : String(error))
    }
  }
  return answers
}

const repeated = (sent: Sent): Sent =>
  typeof sent.requestId === 'object' ? { ...sent, requestId: { ...sent.requestId, attempt: (sent.requestId.attempt ?? 1) + 1 } } : sent

function expiryOf({ expiry, ttl }: Step): Expiry {
  if (expiry === 'set') return { set: ttl }
  if (expiry === 'extend') return { extend: ttl }
  return expiry === 'until' ? { until: epochMs(start + ttl * 5) } : expiry
}

test('with one zone every answer is that of the memory store, over random histories with repetitions and expiries (Q6)', async () => {
  const seen = new Set<string>()
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 40 }), async (steps) => {
      let now = 0
      const reference = memory({ clock: { now: () => epochMs(start + now) } })
      const expected = await play(reference, steps, (ms) => void (now += ms))
      const cluster = new Cluster({ zones: 1, delayMs: 0 })
      const answers = await play(registerKv(cluster, reference), steps, (ms) => cluster.runUntil(cluster.now + ms))
      expect(answers).toEqual(expected)
      for (const answer of expected)
        seen.add(answer.startsWith('{') ? ((JSON.parse(answer) as { refusal?: string }).refusal ?? 'ok') : answer)
    }),
    { numRuns: 300 },
  )
  // What was compared was worth it.
  expect([...seen]).toEqual(expect.arrayContaining(['REQUEST_ID_REUSED', 'exists', 'missing', 'ok', 'version']))
})
