/**
 * Requests that are sent again, and outcomes that nobody knows: what makes a retry safe.
 * Invariant: a request with an id is applied once, whatever came between, and its repetition gets the first answer (RIFL).
 * Why faults are put around the store and not into it: any store can then be tried, and the fault stands exactly where the case wants it.
 */
import { strict as assert } from 'node:assert'
import type { KV, RequestId } from '../kv/kv.ts'
import { isKvError } from '../kv/errors.ts'
import { newId } from '../kv/id.ts'
import { realSleep } from '../testing/clock.ts'
import { faulty, type Verdict } from '../testing/faulty.ts'
import { applied, assertEntry, assertRefuses, assertValue, bytes, made, refused, withoutRequestIds, type Case } from './suite.ts'

const one = bytes(1)
const two = bytes(2)
const three = bytes(3)

const repeated: readonly Case[] = [
  {
    group: 'requests',
    name: 'a repeated create is applied once and answers as at first',
    run: async ({ kv, key }) => {
      const requestId = newId()
      const first = applied(await kv.create(key(), one, { ttl: '1h', requestId }), 'create')
      assertEntry(applied(await kv.create(key(), one, { ttl: '1h', requestId }), 'the same create again'), first, 'the first answer')
      assertEntry((await kv.get(key())).entry, first, 'what is there')
    },
  },
  {
    group: 'requests',
    name: 'a repeated update, set or destroy is applied once, also after another change',
    run: async ({ kv, key }) => {
      await made(kv, key(), one)
      for (const verb of ['update', 'set'] as const) {
        const requestId = newId()
        const first = applied(await kv[verb](key(), two, { requestId }), verb)
        const later = applied(await kv.update(key(), three), 'another update')
        assert.equal(
          applied(await kv[verb](key(), two, { requestId }), `the same ${verb} again`).version,
          first.version,
          'the first answer',
        )
        assertEntry((await kv.get(key())).entry, later, `what came after the first ${verb}`)
      }
      const requestId = newId()
      assert.ok((await kv.destroy(key(), { requestId })).ok, 'destroy')
      const next = await made(kv, key(), one)
      assert.ok((await kv.destroy(key(), { requestId })).ok, 'the same destroy again')
      assertEntry((await kv.get(key())).entry, next, 'the life that began after the first destroy')
    },
  },
  {
    group: 'requests',
    name: 'a repeated conditional update answers applied, not that its own version differs',
    run: async ({ kv, key }) => {
      const { version: ifVersion } = await made(kv, key(), one)
      const requestId = newId()
      const first = applied(await kv.update(key(), two, { ifVersion, requestId }), 'update')
      assertEntry(applied(await kv.update(key(), two, { ifVersion, requestId }), 'the same update again'), first, 'the first answer')
    },
  },
  {
    group: 'requests',
    name: 'a repeated create answers as at first after destroy, and does not bring the entry back',
    run: async ({ kv, key }) => {
      const requestId = newId()
      const first = applied(await kv.create(key(), one, { requestId }), 'create')
      await kv.destroy(key())
      assert.equal(applied(await kv.create(key(), one, { requestId }), 'the same create again').version, first.version, 'the first answer')
      assert.equal((await kv.get(key())).entry, undefined, 'what was destroyed stays so')
    },
  },
  {
    group: 'requests',
    name: 'a repeated request tells when it was decided at first: by that time its outcome is right',
    run: async ({ kv, key, clock }) => {
      for (const verb of ['create', 'update', 'destroy'] as const) {
        const requestId = newId()
        const send = () => (verb === 'destroy' ? kv.destroy(key(), { requestId }) : kv[verb](key(), one, { requestId }))
        const first = await send()
        await (clock ? clock.advance(20) : realSleep(20))
        assert.equal((await send()).now, first.now, `the time of a repeated ${verb}`)
      }
    },
  },
  {
    group: 'requests',
    name: 'the same request sent at once many times is applied once',
    run: async ({ kv, key }) => {
      const requestId = newId()
      const answers = await Promise.all(Array.from({ length: 16 }, () => kv.create(key(), one, { requestId })))
      assert.equal(new Set(answers.map((answer) => applied(answer, 'create').version)).size, 1, 'one answer for all')
    },
  },
  {
    group: 'requests',
    name: 'an id belongs to one request: another verb under it is REQUEST_ID_REUSED',
    run: async ({ kv, key }) => {
      const requestId = newId()
      const { entry } = await kv.create(key(), one, { requestId })
      await assertRefuses(() => kv.update(key(), two, { requestId }), 'REQUEST_ID_REUSED', 'update under the id of a create')
      await assertRefuses(() => kv.destroy(key(), { requestId }), 'REQUEST_ID_REUSED', 'destroy under the id of a create')
      assertEntry((await kv.get(key())).entry, entry, 'what is there')
    },
  },
  {
    group: 'requests',
    name: 'the same id on two keys names two requests',
    run: async ({ kv, key }) => {
      const requestId = newId()
      await kv.create(key('-a'), one, { requestId })
      assertValue(applied(await kv.create(key('-b'), two, { requestId }), 'create of another key'), two, 'the other key')
    },
  },
  {
    group: 'requests',
    name: 'sequences of a session are requests of their own',
    run: async ({ kv, key }) => {
      const session = newId()
      const id = (sequence: number): RequestId => ({ session, sequence, attempt: 1 })
      const first = applied(await kv.set(key(), one, { requestId: id(1) }), 'the first')
      const second = applied(await kv.set(key(), two, { requestId: id(2) }), 'the second')
      assert.equal(
        applied(await kv.set(key(), one, { requestId: { session, sequence: 1, attempt: 2 } }), 'the first again').version,
        first.version,
      )
      assertEntry((await kv.get(key())).entry, second, 'what is there')
    },
  },
  {
    group: 'requests',
    name: 'a sequence below the watermark done is refused, and those from it on are remembered',
    run: async ({ kv, key }) => {
      const session = newId()
      const set = (sequence: number, done = 0) => kv.set(key(), bytes(sequence), { requestId: { session, sequence, done } })
      await set(1)
      const second = applied(await set(2), 'the second')
      const third = applied(await set(3, 2), 'the third, which says that those below 2 are done')
      await assertRefuses(() => set(1), 'REQUEST_ID_REUSED', 'the first again')
      assert.equal(applied(await set(2), 'the second again').version, second.version, 'its first answer')
      assertEntry((await kv.get(key())).entry, third, 'what is there')
    },
  },
  {
    group: 'requests',
    name: 'a refusal is remembered from the second attempt on, and is ANSWER_GONE once the entry that it met is gone',
    run: async ({ kv, key }) => {
      const entry = await made(kv, key(), one)
      const requestId = { session: newId(), sequence: 1, attempt: 2 }
      for (let sending = 0; sending < 2; sending++) {
        const answer = await kv.create(key(), two, { requestId })
        refused(answer, 'exists', 'create')
        assertEntry(answer.entry, entry, 'the refusal')
      }
      await kv.destroy(key())
      await assertRefuses(() => kv.create(key(), two, { requestId }), 'ANSWER_GONE', 'the same create when the entry is gone')
      assert.equal((await kv.get(key())).entry, undefined, 'a refused request is never applied later')
    },
  },
  {
    group: 'requests',
    name: 'ids that are no ids are INVALID_ARGUMENT',
    run: async ({ kv, key }) => {
      const session = newId()
      const ids: readonly RequestId[] = [
        '',
        'x'.repeat(65),
        'line\nfeed',
        'é',
        { session, sequence: 0 },
        { session, sequence: 1.5 },
        { session, sequence: 1, done: 2 },
        { session, sequence: 1, attempt: 0 },
        { session: '', sequence: 1 },
      ]
      for (const requestId of ids) {
        await assertRefuses(() => kv.create(key(), one, { requestId }), 'INVALID_ARGUMENT', `create under ${JSON.stringify(requestId)}`)
      }
      assert.equal((await kv.get(key())).entry, undefined)
    },
  },
]

const withoutId: Case = {
  group: 'requests',
  name: 'without an id nothing is remembered: the same write again is another request',
  run: async ({ kv, key }) => {
    const first = applied(await kv.create(key(), one), 'create')
    refused(await kv.create(key(), one), 'exists', 'the same create again')
    const second = applied(await kv.update(key(), one), 'update')
    assert.equal(new Set([first.version, second.version, applied(await kv.update(key(), one), 'update again').version]).size, 3)
  },
}

const unknownVerdicts = ['unknown-before', 'unknown-after', 'unknown-later'] as const satisfies readonly Verdict[]

/** A store whose first write of each case ends as the verdict says. */
const failingOnce = (kv: KV, verdict: Verdict) => {
  let calls = 0
  return faulty(kv, { on: () => (calls++ === 0 ? verdict : 'pass') })
}

const unknownCases: readonly Case[] = [
  {
    group: 'unknown',
    name: 'a read resolves a create of unknown outcome: the nonce in its value says whose entry it is',
    run: async ({ kv, key }) => {
      for (const verdict of unknownVerdicts) {
        const name = key(`-${verdict}`)
        const nonce = bytes(9, 9, 9)
        const store = failingOnce(kv, verdict)
        await assertRefuses(() => store.create(name, nonce), 'UNKNOWN_OUTCOME', 'create')
        await store.calm()
        const { entry } = await store.get(name)
        if (verdict === 'unknown-before') assert.equal(entry, undefined, 'what never reached the store')
        else assertValue(entry, nonce, `what reached the store, ${verdict}`)
      }
    },
  },
  {
    group: 'unknown',
    name: 'a read resolves an update and a destroy of unknown outcome by the version',
    run: async ({ kv, key }) => {
      for (const verdict of ['unknown-before', 'unknown-after'] as const) {
        const name = key(`-${verdict}`)
        const before = await made(kv, name, one)
        const updating = failingOnce(kv, verdict)
        await assertRefuses(() => updating.update(name, two, { ifVersion: before.version }), 'UNKNOWN_OUTCOME', 'update')
        const { entry } = await updating.get(name)
        assert.ok(entry)
        assert.equal(entry.version !== before.version, verdict === 'unknown-after', 'the version changed exactly when it was applied')
        const destroying = failingOnce(kv, verdict)
        await assertRefuses(() => destroying.destroy(name, { ifVersion: entry.version }), 'UNKNOWN_OUTCOME', 'destroy')
        assert.equal(
          (await destroying.get(name)).entry === undefined,
          verdict === 'unknown-after',
          'the entry is gone exactly when it was applied',
        )
      }
    },
  },
  {
    group: 'unknown',
    name: 'a write of unknown outcome that is repeated under its id is applied once',
    skip: withoutRequestIds,
    run: async ({ kv, key }) => {
      for (const verdict of unknownVerdicts) {
        const name = key(`-${verdict}`)
        const requestId = newId()
        const store = failingOnce(kv, verdict)
        await assertRefuses(() => store.create(name, one, { requestId }), 'UNKNOWN_OUTCOME', 'create')
        const entry = applied(await store.create(name, one, { requestId }), 'create again')
        await store.calm()
        assertEntry((await kv.get(name)).entry, entry, 'what is there')
      }
    },
  },
  {
    group: 'unknown',
    name: 'additions over a store that loses a third of its answers come to the exact sum, each repeated under its id',
    skip: withoutRequestIds,
    run: async ({ kv, key, seed }) => {
      const additions = 100
      const store = faulty(kv, { seed, unknownBeforeApply: 0.15, unknownAfterApply: 0.15, unavailable: 0.1 })
      const session = newId()
      await made(kv, key(), bytes(0))
      for (let sequence = 1; sequence <= additions; sequence++) {
        const read = await kv.get(key())
        assert.ok(read.entry)
        const value = bytes((read.entry.value[0] as number) + 1)
        for (let attempt = 1; ; attempt++) {
          try {
            const requestId = { session, sequence, done: sequence - 1, attempt }
            applied(await store.update(key(), value, { ifVersion: read.entry.version, requestId }), 'update')
            break
          } catch (error) {
            if (!isKvError(error, 'UNKNOWN_OUTCOME') && !isKvError(error, 'UNAVAILABLE')) throw error
          }
        }
      }
      assertValue((await kv.get(key())).entry, bytes(additions), 'the sum')
      assert.ok(store.counts().unknownAfter > 0 && store.counts().unknownBefore > 0, 'both kinds of loss happened')
    },
  },
]

export const requestCases: readonly Case[] = [...repeated.map((one) => ({ ...one, skip: withoutRequestIds })), withoutId, ...unknownCases]
