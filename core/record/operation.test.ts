/** What each verb does to a record, and what a record remembers: `apply` alone, without any store. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { epochMs, type EpochMs, type Millis } from '../base/types.ts'
import type { ExpiryChange } from '../kv/expiry.ts'
import type { Version } from '../kv/kv.ts'
import { apply, completionRules, type Operation, type Outcome, type Request } from './operation.ts'
import { completionsBytes, entryOf, forgettableAt, isForgettable, noCompletions, versionOf, type KeyRecord } from './record.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const at = (ms: number): EpochMs => epochMs(1_000_000 + ms)
const life = completionRules.lifeMs

let count = 0
const anonymous = (): Request => ({ session: `anonymous-${++count}`, sequence: 0, remember: false, done: 0, attempt: 1 })
const named = (session: string, more: Partial<Request> = {}): Request => ({
  session,
  sequence: 0,
  remember: true,
  done: 0,
  attempt: 1,
  ...more,
})
const inSession = (sequence: number, done = 0, attempt = 1): Request => ({ session: 's', sequence, remember: true, done, attempt })

const never: ExpiryChange = { type: 'never' }
const keep: ExpiryChange = { type: 'keep' }
const ttl = (ms: number): ExpiryChange => ({ type: 'set', ttlMs: ms as Millis })
const create = (value = 'a', request = anonymous(), expiry: ExpiryChange = never): Operation => ({
  verb: 'create',
  request,
  value: bytes(value),
  expiry,
})
const update = (value = 'b', request = anonymous(), ifVersion?: Version, expiry: ExpiryChange = keep): Operation => ({
  verb: 'update',
  request,
  value: bytes(value),
  expiry,
  ifVersion,
})
const set = (value = 'c', request = anonymous(), ifVersion?: Version, expiry: ExpiryChange = keep): Operation => ({
  verb: 'set',
  request,
  value: bytes(value),
  expiry,
  ifVersion,
})
const destroy = (request = anonymous(), ifVersion?: Version): Operation => ({ verb: 'destroy', request, ifVersion })

/** A key and its history: each call goes on from where the last one left the record. */
function key(record?: KeyRecord) {
  const state = {
    record,
    do(operation: Operation, now: EpochMs, rules = completionRules): Outcome {
      const decision = apply(operation, state.record, now, rules)
      state.record = decision.record
      return decision.outcome
    },
    live: (now: EpochMs) => entryOf(state.record, now),
  }
  return state
}
const versionIn = (outcome: Outcome): Version => {
  if (outcome.type === 'missing' || outcome.type === 'fault' || !outcome.entry) throw new Error(`no entry in ${outcome.type}`)
  return outcome.entry.version
}

describe('verbs', () => {
  test('create makes an absent key and refuses a present one with its entry', () => {
    const k = key()
    const made = k.do(create('a'), at(0))
    expect(made).toMatchObject({ type: 'applied', entry: { value: bytes('a'), createdAt: at(0) } })
    const before = k.record
    expect(k.do(create('x'), at(1))).toEqual({ type: 'exists', entry: k.live(at(1)) })
    expect(k.record).toBe(before)
  })
  test('update and destroy with ifVersion refuse an absent key as missing, update also without', () => {
    for (const operation of [
      update(),
      update('b', anonymous(), 'v' as Version),
      set('c', anonymous(), 'v' as Version),
      destroy(anonymous(), 'v' as Version),
    ]) {
      const k = key()
      expect(k.do(operation, at(0))).toEqual({ type: 'missing' })
      expect(k.record).toBeUndefined()
    }
  })
  test.each(['update', 'set', 'destroy'] as const)('%s refuses another version with the present entry and changes nothing', (verb) => {
    const k = key()
    const old = versionIn(k.do(create(), at(0)))
    k.do(update(), at(1))
    const before = k.record
    const operation =
      verb === 'destroy' ? destroy(anonymous(), old) : verb === 'set' ? set('x', anonymous(), old) : update('x', anonymous(), old)
    expect(k.do(operation, at(2))).toEqual({ type: 'version', entry: k.live(at(2)) })
    expect(k.record).toBe(before)
  })
  test('set makes an absent key and changes a present one, whose creation it keeps', () => {
    const k = key()
    expect(k.do(set('a'), at(0))).toMatchObject({ type: 'applied', entry: { createdAt: at(0) } })
    expect(k.do(set('b'), at(5))).toMatchObject({ type: 'applied', entry: { value: bytes('b'), createdAt: at(0) } })
  })
  test('destroy gives what was there, and applies to nothing too', () => {
    const k = key()
    expect(k.do(destroy(), at(0))).toEqual({ type: 'applied', entry: undefined })
    k.do(create('a'), at(1))
    expect(k.do(destroy(), at(2))).toMatchObject({ type: 'applied', entry: { value: bytes('a') } })
    expect(k.live(at(2))).toBeUndefined()
  })
})

describe('expiry', () => {
  test('an entry is alive until its instant and dead at it', () => {
    const k = key()
    k.do(create('a', anonymous(), ttl(10)), at(0))
    expect(k.live(at(9))).toBeDefined()
    expect(k.live(at(10))).toBeUndefined()
    expect(k.do(update(), at(10))).toEqual({ type: 'missing' })
    expect(k.do(create('b'), at(10))).toMatchObject({ type: 'applied' })
  })
  test.each<[string, ExpiryChange, number | undefined]>([
    ['keep keeps', keep, 100],
    ['never takes it away', never, undefined],
    ['set counts from now', ttl(30), 80],
    ['extend does not shorten', { type: 'extend', ttlMs: 30 as Millis }, 100],
    ['extend lengthens', { type: 'extend', ttlMs: 70 as Millis }, 120],
    ['until is an instant', { type: 'until', at: at(75) }, 75],
  ])('%s', (_name, expiry, expected) => {
    const k = key()
    k.do(create('a', anonymous(), ttl(100)), at(0))
    k.do(update('b', anonymous(), undefined, expiry), at(50))
    expect(k.record?.expiresAt).toBe(expected === undefined ? 0 : at(expected))
  })
  test('extend leaves an entry that never dies, and counts from now where there was none', () => {
    const k = key()
    k.do(create(), at(0))
    k.do(update('b', anonymous(), undefined, { type: 'extend', ttlMs: 5 as Millis }), at(1))
    expect(k.record?.expiresAt).toBe(0)
    const other = key()
    other.do(set('b', anonymous(), undefined, { type: 'extend', ttlMs: 5 as Millis }), at(1))
    expect(other.record?.expiresAt).toBe(at(6))
  })
})

describe('versions', () => {
  test('never repeat: destroy and create in one millisecond, and under a clock that steps back', () => {
    const k = key()
    const seen = new Set<Version>()
    for (const now of [at(0), at(0), at(-500), at(-500), at(3)]) {
      for (const operation of [create(), update(), destroy()]) {
        const outcome = k.do(operation, now)
        if (operation.verb !== 'destroy') {
          expect(seen).not.toContain(versionIn(outcome))
          seen.add(versionIn(outcome))
        }
      }
    }
    expect(seen.size).toBe(10)
  })
  test('content times only rise', () => {
    const k = key()
    k.do(create(), at(100))
    k.do(update(), at(0))
    expect(k.record?.lastModifiedAt).toBe(at(101))
  })
})

describe('completions (R6 to R10)', () => {
  test('a repeated request is applied once and gets its first answer, whatever came after', () => {
    const k = key()
    const first = k.do(create('a', named('r')), at(0))
    k.do(update('b'), at(1))
    expect(k.do(create('a', named('r')), at(2))).toEqual(first)
    k.do(destroy(), at(3))
    expect(k.do(create('a', named('r')), at(4))).toEqual(first)
    expect(k.live(at(4))).toBeUndefined()
  })
  test('without a request id nothing is remembered', () => {
    const k = key()
    for (const operation of [create(), update(), set(), destroy()]) k.do(operation, at(0))
    expect(k.record?.completions).toBe(noCompletions)
    expect(isForgettable(k.record as KeyRecord, at(0), life)).toBe(true)
  })
  test('a destroy that is repeated after another create does not destroy that one', () => {
    const k = key()
    k.do(create('a'), at(0))
    k.do(destroy(named('d')), at(1))
    k.do(create('b'), at(2))
    expect(k.do(destroy(named('d')), at(3))).toEqual({ type: 'applied', entry: undefined })
    expect(k.live(at(3))?.value).toEqual(bytes('b'))
  })
  test('a refusal is remembered from the second sending on (R9), on an absent key too', () => {
    const k = key()
    expect(k.do(update('b', inSession(1)), at(0))).toEqual({ type: 'missing' })
    expect(k.record).toBeUndefined()
    expect(k.do(update('b', inSession(1, 0, 2)), at(1))).toEqual({ type: 'missing' })
    k.do(create('a'), at(2))
    expect(k.do(update('b', inSession(1, 0, 3)), at(3))).toEqual({ type: 'missing' })
    expect(k.live(at(3))?.value).toEqual(bytes('a'))
  })
  test('a remembered refusal comes with its entry, or says that the entry is gone', () => {
    const k = key()
    k.do(create('a'), at(0))
    const refused = k.do(create('x', inSession(1, 0, 2)), at(1))
    expect(refused).toMatchObject({ type: 'exists', entry: { value: bytes('a') } })
    expect(k.do(create('x', inSession(1, 0, 3)), at(2))).toEqual(refused)
    k.do(update('b'), at(3))
    expect(k.do(create('x', inSession(1, 0, 4)), at(4))).toEqual({ type: 'fault', code: 'ANSWER_GONE' })
  })
  test('a completion lives by the wall clock of its recording (R8) and no longer than its life', () => {
    const k = key()
    k.do(create('a'), at(0))
    k.do(update('b', named('r')), at(10))
    k.do(update('c'), at(life))
    expect(k.do(update('b', named('r')), at(10 + life - 1))).toMatchObject({ type: 'applied' })
    expect(k.live(at(life))?.value).toEqual(bytes('c'))
    k.do(update('d', named('r')), at(10 + life))
    expect(k.live(at(10 + life))?.value).toEqual(bytes('d'))
  })
  test('a create whose completion is too old is still known by the life that it began, alive or dead', () => {
    const k = key()
    const first = k.do(create('a', named('r')), at(0))
    k.do(update('b'), at(1))
    expect(k.do(create('a', named('r')), at(2 * life))).toEqual(first)
    k.do(destroy(), at(2 * life + 1))
    expect(k.do(create('a', named('r')), at(2 * life + 2))).toMatchObject({ type: 'applied' })
    expect(k.live(at(2 * life + 2))).toBeUndefined()
  })
  test('what a session says is done leaves at once, and may not be sent again', () => {
    const k = key()
    k.do(create('0', inSession(1)), at(0))
    for (let sequence = 2; sequence <= 50; sequence++) k.do(update(String(sequence), inSession(sequence, sequence - 1)), at(sequence))
    expect(k.record?.completions.entries.map((entry) => entry.sequence)).toEqual([49, 50])
    expect(k.do(update('x', inSession(3)), at(60))).toEqual({ type: 'fault', code: 'REQUEST_ID_REUSED' })
    expect(k.live(at(60))?.value).toEqual(bytes('50'))
  })
  test('a session speaks only for itself', () => {
    const k = key()
    k.do(create('a', { ...inSession(1), session: 'other' }), at(0))
    k.do(update('b', inSession(5, 5)), at(1))
    expect(k.record?.completions.entries.map((entry) => entry.session)).toEqual(['other', 's'])
  })
  test('full refuses without effect and never forgets by count (R7); a quarter is kept for what changes something', () => {
    const rules = { ...completionRules, bytesMax: 1_000_000, countMax: 8 }
    const k = key()
    k.do(create('a'), at(0), rules)
    for (let index = 0; index < 6; index++) k.do(create('x', named(`refused-${index}`, { attempt: 2 })), at(1), rules)
    expect(k.do(create('x', named('one-more', { attempt: 2 })), at(1), rules)).toEqual({ type: 'fault', code: 'RECORD_LOCKED' })
    expect(k.do(update('b', named('u1')), at(1), rules)).toMatchObject({ type: 'applied' })
    expect(k.do(update('c', named('u2')), at(1), rules)).toMatchObject({ type: 'applied' })
    const before = k.record
    expect(k.do(update('d', named('u3')), at(1), rules)).toEqual({ type: 'fault', code: 'RECORD_LOCKED' })
    expect(k.record).toBe(before)
    expect(k.do(update('d', named('u3')), at(1 + life), rules)).toMatchObject({ type: 'applied' })
  })
  test('is bounded in bytes', () => {
    const k = key()
    k.do(create('a'), at(0))
    let locked = 0
    for (let index = 0; index < 2_000; index++) if (k.do(update('b', named(`request-${index}`)), at(1)).type === 'fault') locked++
    expect(locked).toBeGreaterThan(0)
    expect(completionsBytes(k.record?.completions ?? noCompletions)).toBeLessThanOrEqual(completionRules.bytesMax)
  })
  test('one name for two verbs is refused', () => {
    const k = key()
    k.do(create('a', named('r')), at(0))
    expect(k.do(update('b', named('r')), at(1))).toEqual({ type: 'fault', code: 'REQUEST_ID_REUSED' })
    expect(k.live(at(1))?.value).toEqual(bytes('a'))
  })
  test('outlives destroy, and a tombstone goes when nothing is remembered any more', () => {
    const k = key()
    k.do(create('a', named('c')), at(0))
    k.do(destroy(named('d')), at(5))
    const record = k.record as KeyRecord
    expect(isForgettable(record, at(5 + life - 1), life)).toBe(false)
    expect(isForgettable(record, at(5 + life), life)).toBe(true)
    expect(forgettableAt(record, life)).toBe(at(5 + life))
  })
})

test('random histories end as a dumb twin says', () => {
  const verb = fc.constantFrom('create', 'update', 'set', 'destroy' as const)
  const step = fc.record({
    verb,
    value: fc.integer({ min: 0, max: 9 }),
    id: fc.option(fc.integer({ min: 0, max: 5 })),
    wait: fc.nat({ max: 20 }),
    ttlMs: fc.option(fc.integer({ min: 1, max: 40 })),
    right: fc.boolean(),
    conditional: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const k = key()
      let twin: { value: string; expiresAt: number } | undefined
      const answers = new Map<string, unknown>()
      let now = 0
      for (const { verb, value, id, wait, ttlMs, right, conditional } of steps) {
        now += wait
        if (twin && twin.expiresAt <= now) twin = undefined
        const request = id === null ? anonymous() : named(`${verb}-${id}`)
        const expiry = ttlMs === null ? never : ttl(ttlMs)
        const entry = k.live(at(now))
        const ifVersion = conditional ? (right && entry ? entry.version : ('other' as Version)) : undefined
        const text = id === null ? String(value) : `${verb}-${id}`
        const operation: Operation =
          verb === 'create'
            ? create(text, request, expiry)
            : verb === 'destroy'
              ? destroy(request, ifVersion)
              : { verb, request, value: bytes(text), expiry, ifVersion }
        const outcome = k.do(operation, at(now))
        const known = id === null ? undefined : answers.get(request.session)
        if (known !== undefined) {
          expect(outcome).toEqual(known)
        } else {
          const holds = verb === 'create' || !conditional || (right && twin !== undefined)
          const expected = !holds
            ? twin
              ? 'version'
              : 'missing'
            : verb === 'create'
              ? twin
                ? 'exists'
                : 'applied'
              : verb === 'update' && !twin
                ? 'missing'
                : 'applied'
          expect(outcome.type).toBe(expected)
          if (expected === 'applied') {
            twin = verb === 'destroy' ? undefined : { value: text, expiresAt: ttlMs === null ? Infinity : now + ttlMs }
            // Remembered only when something changed: a first destroy of nothing is not (R9).
            if (id !== null && (verb !== 'destroy' || entry))
              answers.set(request.session, verb === 'destroy' ? { type: 'applied', entry: undefined } : outcome)
          }
        }
        const live = k.live(at(now))
        expect(live && new TextDecoder().decode(live.value)).toBe(twin && twin.expiresAt > now ? twin.value : undefined)
      }
    }),
    { numRuns: 400, seed: Number(process.env.HAPAX_SEED ?? 1) },
  )
})

test('a version names content, time and request', () => {
  expect(versionOf(3, at(0), 'r')).toBe(`3.${(1_000_000).toString(36)}.r`)
})
