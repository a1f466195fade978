/**
 * Expiry: what each verb does to it, and the very instant of death. And the ends of waiting: signals and deadlines.
 * Invariant: life and death are judged by the `now` of the same answer, so that a slow machine proves nothing wrong.
 */
import { strict as assert } from 'node:assert'
import type { Duration, EpochMs } from '../base/types.ts'
import { isKvError } from '../kv/errors.ts'
import type { Entry, Expiry, KV } from '../kv/kv.ts'
import { settle } from '../testing/clock.ts'
import {
  applied,
  assertEntry,
  assertRefuses,
  assertValue,
  bytes,
  made,
  reach,
  refused,
  withoutClock,
  withoutExactTime,
  type Case,
  type Context,
} from './suite.ts'

const one = bytes(1)
const two = bytes(2)
const hourMs = 3_600_000
/** A ttl whose end a case waits for: short, where it must be waited for on the machine's clock. */
const shortMs = ({ clock, capabilities }: Context): number => Math.max(clock ? 10_000 : 40, capabilities.ttlGrainMs)

/** Asserts that an entry lasts so long from an answer's `now`: never shorter, and longer by less than the grain of the store. */
function assertLasts({ capabilities }: Context, entry: Entry, now: EpochMs, ttlMs: number, what: string): void {
  assert.ok(entry.expiresAt !== undefined, `${what}: the entry has no expiry`)
  const overMs = entry.expiresAt - now - ttlMs
  assert.ok(overMs >= 0 && overMs < capabilities.ttlGrainMs, `${what}: expires ${overMs} ms beside ${ttlMs} ms from the answer's now`)
}

interface ExpiryRow {
  readonly before: Duration | undefined
  readonly expiry: Expiry | undefined
  /** From the answer's now; 'kept': as before; undefined: never. */
  readonly after: number | 'kept' | undefined
}
const expiryRows: readonly ExpiryRow[] = [
  { before: '1h', expiry: undefined, after: 'kept' },
  { before: '1h', expiry: 'keep', after: 'kept' },
  { before: undefined, expiry: 'keep', after: undefined },
  { before: '1h', expiry: 'never', after: undefined },
  { before: '1h', expiry: { set: '30m' }, after: hourMs / 2 },
  { before: '1h', expiry: { set: '2h' }, after: 2 * hourMs },
  { before: undefined, expiry: { set: '2h' }, after: 2 * hourMs },
  { before: '1h', expiry: { extend: '2h' }, after: 2 * hourMs },
  { before: '1h', expiry: { extend: '30m' }, after: 'kept' },
  { before: undefined, expiry: { extend: '30m' }, after: undefined },
]

const expiryCases: readonly Case[] = [
  {
    group: 'expiry',
    name: 'create with a ttl says when the entry dies',
    run: async (context) => {
      const { kv, key } = context
      const created = await kv.create(key(), one, { ttl: '1h' })
      assertLasts(context, applied(created, 'create'), created.now, hourMs, 'create')
      assertEntry((await kv.get(key())).entry, applied(created, 'create'), 'get')
    },
  },
  ...(['update', 'set'] as const).map((verb): Case => ({
    group: 'expiry',
    name: `${verb} keeps, sets, extends and ends the expiry as it is told, and keeps it when it is not`,
    run: async (context) => {
      const { kv, key } = context
      for (const [index, { before, expiry, after }] of expiryRows.entries()) {
        const name = key(`-${index}`)
        const old = applied(await kv.create(name, one, { ttl: before }), 'create')
        if (context.clock) await context.clock.advance(1_000)
        const answer = await kv[verb](name, two, { expiry })
        const entry = applied(answer, verb)
        const what = `${verb} of ttl ${String(before)} with expiry ${JSON.stringify(expiry) ?? 'not given'}`
        if (after === 'kept') assert.equal(entry.expiresAt, old.expiresAt, what)
        else if (after === undefined) assert.equal(entry.expiresAt, undefined, what)
        else assertLasts(context, entry, answer.now, after, what)
        assertEntry((await kv.get(name)).entry, entry, `get after ${what}`)
      }
    },
  })),
  {
    group: 'expiry',
    name: 'expiry can be an instant',
    run: async (context) => {
      const { kv, key } = context
      const { now } = await kv.get(key())
      await made(kv, key(), one)
      const entry = applied(await kv.update(key(), two, { expiry: { until: (now + hourMs) as EpochMs } }), 'update')
      assert.ok(entry.expiresAt !== undefined)
      const overMs = entry.expiresAt - now - hourMs
      assert.ok(overMs >= 0 && overMs < context.capabilities.ttlGrainMs, `expires ${overMs} ms beside the given instant`)
    },
  },
  {
    group: 'expiry',
    name: 'set on an absent key takes keep and never for no expiry, and a set ttl as it is',
    run: async (context) => {
      const { kv, key } = context
      for (const expiry of ['keep', 'never', undefined] as const) {
        assert.equal(applied(await kv.set(key(`-${String(expiry)}`), one, { expiry }), 'set').expiresAt, undefined)
      }
      const answer = await kv.set(key('-ttl'), one, { expiry: { set: '1h' } })
      assertLasts(context, applied(answer, 'set'), answer.now, hourMs, 'set')
    },
  },
  {
    group: 'expiry',
    name: 'an entry lives one millisecond before its expiresAt and is dead at expiresAt',
    skip: (context) => withoutClock(context) ?? withoutExactTime(context),
    run: async (context) => {
      const { kv, clock, key } = context
      const entry = await made(kv, key(), one, 10_000)
      const expiresAt = entry.expiresAt as EpochMs
      await clock?.advance(expiresAt - (await kv.get(key())).now - 1)
      assertEntry((await kv.get(key())).entry, entry, 'one millisecond before its expiry')
      assertEntry((await kv.getMany([key()])).entries.get(key()), entry, 'getMany one millisecond before')
      refused(await kv.create(key(), two), 'exists', 'create one millisecond before')
      await clock?.advance(1)
      assert.equal((await kv.get(key())).entry, undefined, 'at its very expiry')
      assert.equal((await kv.getMany([key()])).entries.size, 0, 'getMany at its very expiry')
      refused(await kv.update(key(), two), 'missing', 'update at its very expiry')
      applied(await kv.create(key(), two), 'create at its very expiry')
    },
  },
  {
    group: 'expiry',
    name: 'an answer shows an entry exactly when its now is before expiresAt',
    skip: withoutExactTime,
    run: async (context) => {
      const { kv, key, clock } = context
      const { expiresAt = 0 } = await made(kv, key(), one, shortMs(context))
      for (;;) {
        const { entry, now } = await kv.get(key())
        assert.equal(entry !== undefined, now < expiresAt, `at ${now} of ${expiresAt} the entry is ${entry ? 'there' : 'gone'}`)
        if (now >= expiresAt) break
        if (clock) await clock.advance(Math.min(1_000, expiresAt - now))
        else await settle()
      }
    },
  },
  {
    group: 'expiry',
    name: 'a dead entry is absent for every verb, and the next life is a new one',
    skip: withoutExactTime,
    run: async (context) => {
      const { kv, key } = context
      const old = await made(kv, key(), one, shortMs(context))
      await reach(context, old.expiresAt as EpochMs)
      refused(await kv.update(key(), two), 'missing', 'update of the dead')
      refused(await kv.update(key(), two, { ifVersion: old.version }), 'missing', 'update of the dead under its version')
      refused(await kv.destroy(key(), { ifVersion: old.version }), 'missing', 'destroy of the dead under its version')
      const gone = await kv.destroy(key())
      assert.ok(gone.ok && gone.entry === undefined, 'destroy of the dead finds nothing')
      const entry = await made(kv, key(), two)
      assert.equal(entry.expiresAt, undefined, 'a new life does not inherit the expiry')
      assert.ok(entry.createdAt >= (old.expiresAt as number), 'a new life has its own createdAt')
    },
  },
  {
    group: 'expiry',
    name: 'set on a dead entry keeps nothing of it',
    skip: withoutExactTime,
    run: async (context) => {
      const { kv, key } = context
      const old = await made(kv, key(), one, shortMs(context))
      await reach(context, old.expiresAt as EpochMs)
      const entry = applied(await kv.set(key(), two, { expiry: 'keep' }), 'set')
      assert.equal(entry.expiresAt, undefined, 'the expiry of the dead is not kept')
      assertEntry((await kv.get(key())).entry, entry, 'get')
    },
  },
  {
    group: 'expiry',
    name: 'an instant in the past is applied, and the entry is dead at once',
    skip: withoutExactTime,
    run: async ({ kv, key }) => {
      const { createdAt } = await made(kv, key(), one)
      const update = await kv.update(key(), two, { expiry: { until: (createdAt - 1) as EpochMs } })
      assert.equal(update.ok, true, 'update')
      assert.equal((await kv.get(key())).entry, undefined, 'the entry is dead')
      await made(kv, key(), one)
    },
  },
]

/** Makes a write and ends the wait for it; then holds the answer against what a read shows. */
async function assertEnds(kv: KV, key: string, write: () => Promise<unknown>, was: Uint8Array, becomes: Uint8Array): Promise<void> {
  const outcome = await write().then(
    () => 'done' as const,
    (error: unknown) => (isKvError(error) ? error.code : assert.fail(`the end of a wait threw ${String(error)}`)),
  )
  for (let look = 0; look < 3; look++) {
    const { entry } = await kv.get(key)
    if (outcome === 'done') assertValue(entry, becomes, 'a write that was answered')
    else if (outcome === 'ABORTED' || outcome === 'DEADLINE_EXCEEDED') assertValue(entry, was, `a write that ended with ${outcome}`)
    else assert.equal(outcome, 'UNKNOWN_OUTCOME', 'how a wait may end')
    await settle()
  }
}

const abortCases: readonly Case[] = [
  {
    group: 'aborts',
    name: 'a signal that is aborted already is ABORTED for every verb, with its reason, and applies nothing',
    run: async ({ kv, key }) => {
      const entry = await made(kv, key(), one)
      const signal = AbortSignal.abort('the client left')
      const calls = {
        create: () => kv.create(key('-new'), two, { signal }),
        get: () => kv.get(key(), { signal }),
        getMany: () => kv.getMany([key()], { signal }),
        update: () => kv.update(key(), two, { signal }),
        set: () => kv.set(key(), two, { signal }),
        destroy: () => kv.destroy(key(), { signal }),
      }
      for (const [verb, call] of Object.entries(calls)) {
        await assertRefuses(call, 'ABORTED', verb)
        const error: unknown = await call().catch((caught: unknown) => caught)
        assert.equal((error as Error).cause, 'the client left', `the cause of ${verb}`)
      }
      await settle()
      assertEntry((await kv.get(key())).entry, entry, 'the entry')
      assert.equal((await kv.get(key('-new'))).entry, undefined, 'the new key')
    },
  },
  {
    group: 'aborts',
    name: 'a signal during a write ends it as done, as ABORTED without effect or as UNKNOWN_OUTCOME',
    run: async ({ kv, key }) => {
      for (let turns = 0; turns < 8; turns++) {
        const name = key(`-${turns}`)
        await made(kv, name, one)
        const controller = new AbortController()
        const write = async (): Promise<unknown> => {
          const writing = kv.update(name, two, { signal: controller.signal })
          writing.catch(() => undefined)
          if (turns > 0) await settle(turns - 1)
          controller.abort()
          return await writing
        }
        await assertEnds(kv, name, write, one, two)
      }
    },
  },
  {
    group: 'aborts',
    name: 'a short deadline ends a write as done, as DEADLINE_EXCEEDED without effect or as UNKNOWN_OUTCOME',
    run: async ({ kv, key }) => {
      for (let round = 0; round < 5; round++) {
        const name = key(`-${round}`)
        await made(kv, name, one)
        await assertEnds(kv, name, () => kv.set(name, two, { deadline: 1 }), one, two)
      }
    },
  },
  {
    group: 'aborts',
    name: 'a signal that fires after the answer changes nothing, and a used one serves many calls',
    run: async ({ kv, key }) => {
      const controller = new AbortController()
      const { signal } = controller
      const entry = applied(await kv.create(key(), one, { signal, deadline: '1m' }), 'create')
      for (let call = 0; call < 20; call++) await kv.get(key(), { signal })
      controller.abort()
      await settle()
      assertEntry((await kv.get(key())).entry, entry, 'the entry')
    },
  },
]

export const timeCases: readonly Case[] = [...expiryCases, ...abortCases]
