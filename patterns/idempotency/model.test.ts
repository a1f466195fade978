/**
 * G26: random interleavings of several processes over one store, with crashes and a clock that moves, judged by two laws:
 * a key has one answer for ever, and while one run has not ended another begins only after the first one's lease has passed on the store's clock.
 * Planted mistakes must break a law. They are looked for under fixed seeds, so that finding them is no matter of luck.
 */
import { describe, expect, test } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import type { KV } from '../../core/kv/kv.ts'
import { memory } from '../../core/stores/memory.ts'
import { intercept, testClock } from '../../core/testing/index.ts'
import { idempotency } from './idempotency.ts'
import type { Idempotency } from './types.ts'

const leaseMs = 10_000
const processes = 3
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const forever = new Promise<never>(() => {})

interface Execution {
  readonly beganAt: number
  /** Returned, or its process died. A dead process has not ended its run: the lease must pass. */
  hasEnded: boolean
}
interface Verdict {
  readonly answers: ReadonlySet<string>
  readonly overlaps: number
  readonly executions: number
  readonly crashes: number
}

async function history(seed: number, mutate: (kv: KV) => KV = (kv) => kv): Promise<Verdict> {
  const random = seededRandom(seed)
  const clock = testClock()
  const store = memory({ clock })
  const executions: Execution[] = []
  const answers = new Set<string>()
  let overlaps = 0
  let crashes = 0

  const engineOver = (kv: KV): Idempotency =>
    idempotency({
      kv: mutate(kv),
      name: 'model',
      lease: leaseMs,
      retention: '1h',
      storeDeadline: '60s',
      afterCrash: 'resume',
      timers: clock,
      random: random.next,
    })
  const request = { scope: 'ada', key: 'order-7', input: { total: 1 } }
  const attempt = async (engine: Idempotency, label: string, isDead: () => boolean): Promise<boolean> => {
    const result = await engine.run(request, async (once) => {
      const execution: Execution = { beganAt: clock.now(), hasEnded: false }
      overlaps += executions.filter((other) => !other.hasEnded && execution.beganAt - other.beganAt < leaseMs).length
      executions.push(execution)
      await once.step('charge', () => `charge of ${label}`).catch(() => undefined)
      for (let pause = random.int(8); pause > 0; pause--) await turn()
      if (isDead()) return await forever
      execution.hasEnded = true
      return { by: label, attempt: executions.length }
    })
    // An answer that the store has not taken says so (T4): only the others are promised.
    if (result.ok && result.saved && !isDead()) answers.add(JSON.stringify(result.value))
    return result.ok
  }

  const live = async (process: number): Promise<void> => {
    let isDead = false
    let pausedUntil = 0
    let die = (): void => {}
    const dead = new Promise<void>((resolve) => (die = resolve))
    const kv = intercept(store, async (_call, run) => {
      for (let pause = random.int(3); pause > 0; pause--) await turn()
      if (isDead) return await forever
      // Stopped for longer than a lease, as by a debugger or a starved machine; it comes back and knows nothing of it.
      if (random.chance(0.08)) pausedUntil = clock.now() + leaseMs * 2
      while (clock.now() < pausedUntil) await turn()
      const isLast = random.chance(0.06)
      if (isLast) {
        crashes++
        isDead = true
        die()
        if (random.chance(0.5)) await run()
        return await forever
      }
      const answer = await run()
      await turn()
      return isDead ? await forever : answer
    })
    const engine = engineOver(kv)
    for (let count = 0; count < 4 && !isDead; count++) {
      await Promise.race([dead, attempt(engine, `${process}-${count}`, () => isDead)])
      for (let pause = random.int(10); pause > 0; pause--) await turn()
    }
  }

  let isOver = false
  const time = (async () => {
    while (!isOver) {
      await turn()
      if (random.chance(0.3)) await clock.advance(random.pick([1, 400, 2_500, 4_000]))
    }
  })()
  await Promise.all(Array.from({ length: processes }, (_, process) => live(process)))
  isOver = true
  await time

  // In the end a process without faults gets an answer, and it is the one that others got.
  const last = engineOver(store)
  for (let count = 0; count < 5; count++) {
    await clock.advance(leaseMs + 1_000)
    if (await attempt(last, `last-${count}`, () => false)) break
  }
  await attempt(last, 'again', () => false)
  await store.close()
  return { answers, overlaps, executions: executions.length, crashes }
}

describe('random interleavings', () => {
  test(
    'each key has one answer for ever, and nobody takes over before a lease has passed on the store’s clock',
    { timeout: 120_000 },
    async () => {
      const first = Number(process.env.HAPAX_SEED ?? 1)
      let executions = 0
      let crashes = 0
      for (let index = 0; index < 300; index++) {
        const seed = (first + index) % 2 ** 31
        const verdict = await history(seed)
        expect({ seed, answers: verdict.answers.size, overlaps: verdict.overlaps }).toEqual({ seed, answers: 1, overlaps: 0 })
        executions += verdict.executions
        crashes += verdict.crashes
      }
      // The histories must have been worth the name.
      expect(executions).toBeGreaterThan(300)
      expect(crashes).toBeGreaterThan(60)
    },
  )
})

describe('a planted mistake is found (fixed seeds)', () => {
  const mistakes: readonly (readonly [string, (kv: KV) => KV])[] = [
    [
      'T1, T23: a claim is compared with a clock that is ahead of the store’s',
      (kv) => ({
        ...kv,
        create: async (key, value, options) => {
          const answer = await kv.create(key, value, options)
          return answer.ok ? answer : { ...answer, now: (answer.now + leaseMs) as typeof answer.now }
        },
      }),
    ],
    [
      'T2: writes forget the version that they rest on',
      (kv) => ({ ...kv, update: (key, value, options) => kv.update(key, value, { ...options, ifVersion: undefined }) }),
    ],
    [
      'T17: a claim is not conditional',
      (kv) => ({
        ...kv,
        create: async (key, value, { ttl, requestId } = {}) => {
          const answer = await kv.set(key, value, { requestId, expiry: ttl === undefined ? 'never' : { set: ttl } })
          if (!answer.ok) throw new Error('a set without a condition applies')
          return answer
        },
      }),
    ],
    [
      'T5: an answer leaves that was never stored',
      (kv) => ({
        ...kv,
        update: async (key, value, options) => {
          const { entry, now } = await kv.get(key)
          // Only what ends a claim is longer than it: it is dropped, and said to be written.
          return entry !== undefined && new TextDecoder().decode(value).includes('"by"')
            ? { ok: true, entry, now }
            : await kv.update(key, value, options)
        },
      }),
    ],
  ]
  test.each(mistakes)('%s', { timeout: 120_000 }, async (_name, mutate) => {
    let found = 0
    for (let seed = 1; seed <= 500; seed++) {
      const verdict = await history(seed, mutate)
      if (verdict.answers.size > 1 || verdict.overlaps > 0) found++
    }
    expect(found).toBeGreaterThan(0)
  })
})
