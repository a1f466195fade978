/** apply: what each verb does, the memory of requests, and a dumb twin that random histories must agree with. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { epochMs, epochMsMax, type Millis } from '../base/types.ts'
import type { ExpiryChange } from '../kv/expiry.ts'
import type { Entry, Version } from '../kv/kv.ts'
import {
  apply,
  completionRules,
  type CompletionRules,
  type Operation,
  type Outcome,
  type RecordContext,
  type Request,
  toldVersion,
} from './operation.ts'
import {
  completionBytes,
  completionsBytes,
  entryOf,
  forgettableAt,
  isForgettable,
  requestToken,
  type KeyRecord,
  type Verb,
} from './record.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)
const start = 1_767_225_600_000
const value = new Uint8Array([1])
const never: ExpiryChange = { type: 'never' }
const keep: ExpiryChange = { type: 'keep' }
const ttl = (ms: number): ExpiryChange => ({ type: 'set', ttlMs: ms as Millis })

let names = 0
/** A name that a store made up: not remembered. */
const nameless = (): Request => ({ session: `made-up-${++names}`, sequence: 0, remember: false, done: 0, attempt: 1 })
const named = (session: string, rest: Partial<Request> = {}): Request => ({
  session,
  sequence: 0,
  remember: true,
  done: 0,
  attempt: 1,
  ...rest,
})
const numbered = (sequence: number, rest: Partial<Request> = {}): Request => named('s', { sequence, ...rest })

interface Given {
  readonly request?: Request
  readonly value?: Uint8Array
  readonly expiry?: ExpiryChange
  readonly ifVersion?: Version | undefined
  readonly ifContext?: RecordContext
}
function operation(verb: Verb, given: Given = {}): Operation {
  const { request = nameless(), ifVersion } = given
  if (verb === 'create') return { verb, request, value: given.value ?? value, expiry: given.expiry ?? never }
  if (verb === 'destroy') return { verb, request, ifVersion }
  if (verb === 'touch') return { verb, request, expiry: given.expiry ?? keep }
  return { verb, request, value: given.value ?? value, expiry: given.expiry ?? keep, ifVersion, ifContext: given.ifContext }
}

/** One key on one clock. */
function key(rules?: CompletionRules) {
  const state: { record: KeyRecord | undefined; now: number } = { record: undefined, now: start }
  const run = (verb: Verb, given?: Given): Outcome => {
    const decision = apply(operation(verb, given), state.record, epochMs(state.now), rules)
    state.record = decision.record
    return decision.outcome
  }
  const entry = (): Entry | undefined => entryOf(state.record, epochMs(state.now))
  return { state, run, entry }
}
const entryIn = (outcome: Outcome): Entry => {
  if (outcome.type === 'missing' || outcome.type === 'fault' || outcome.entry === undefined) throw new Error(`no entry in ${outcome.type}`)
  return outcome.entry
}

test('each verb applies or refuses as the table says', () => {
  const other = 'another' as Version
  const table: readonly [Verb, 'alive' | 'absent', 'none' | 'same' | 'other', Outcome['type']][] = [
    ['create', 'absent', 'none', 'applied'],
    ['create', 'alive', 'none', 'exists'],
    ['update', 'absent', 'none', 'missing'],
    ['update', 'absent', 'other', 'missing'],
    ['update', 'alive', 'none', 'applied'],
    ['update', 'alive', 'same', 'applied'],
    ['update', 'alive', 'other', 'version'],
    ['set', 'absent', 'none', 'applied'],
    ['set', 'absent', 'other', 'missing'],
    ['set', 'alive', 'none', 'applied'],
    ['set', 'alive', 'same', 'applied'],
    ['set', 'alive', 'other', 'version'],
    ['destroy', 'absent', 'none', 'applied'],
    ['destroy', 'absent', 'other', 'missing'],
    ['destroy', 'alive', 'none', 'applied'],
    ['destroy', 'alive', 'same', 'applied'],
    ['destroy', 'alive', 'other', 'version'],
    ['touch', 'absent', 'none', 'missing'],
    ['touch', 'alive', 'none', 'applied'],
  ]
  for (const [verb, life, condition, expected] of table) {
    for (const death of ['expired', 'destroyed', 'unheard'] as const) {
      const { run, entry, state } = key()
      if (life === 'alive' || death !== 'unheard') run('create', { expiry: ttl(10) })
      if (life === 'absent' && death === 'expired') state.now += 10
      if (life === 'absent' && death === 'destroyed') run('destroy')
      const before = state.record
      const outcome = run(verb, { ifVersion: condition === 'none' ? undefined : condition === 'same' ? entry()?.version : other })
      const row = `${verb}, ${life} (${death}), ifVersion ${condition}`
      expect(outcome.type, row).toBe(expected)
      if (expected !== 'applied') expect(state.record, `${row}: a refusal changes nothing`).toBe(before)
      if (expected === 'exists' || expected === 'version') expect(entryIn(outcome), row).toEqual(entry())
    }
  }
})

test("a context of JunoDB's clients is the present state only when all that it says is equal", () => {
  const { run, state } = key()
  expect(run('update', { ifContext: { version: 1 } }).type).toBe('missing')
  run('create')
  state.now += 2_500
  run('update')
  const createdAtS = start / 1_000
  const lastModifiedAt = epochMs(start + 2_500)
  for (const ifContext of [
    { version: 1 },
    { version: 3 }, // also a later one: who knows it knows a life that is over
    { version: 2, createdAtS: createdAtS + 1 },
    { version: 2, createdAtS, lastModifiedAt: epochMs(start) },
  ])
    expect(run('update', { ifContext }).type, JSON.stringify(ifContext)).toBe('version')
  for (const ifContext of [{ version: 2 }, { version: 3, createdAtS }, { version: 4, createdAtS, lastModifiedAt }])
    expect(run('update', { ifContext }).type, JSON.stringify(ifContext)).toBe(ifContext.version === 4 ? 'version' : 'applied')
  expect(run('update', { ifContext: { version: 4, createdAtS, lastModifiedAt: epochMs(start + 2_502) } }).type).toBe('applied')
  run('destroy')
  expect(run('update', { ifContext: { version: 5 } }).type).toBe('missing')
})

test("a context of JunoDB's clients counts versions as they were told, again from 1 after the last", () => {
  const { run } = key()
  const versionMax = 3
  run('create')
  for (const told of [1, 2, 3, 1, 2, 3, 1]) {
    for (const version of [1, 2, 3, 4, 5].filter((one) => one !== told))
      expect(run('update', { ifContext: { version, versionMax } }).type, `${version} instead of ${told}`).toBe('version')
    expect(run('update', { ifContext: { version: told, versionMax } }).type, `${told}`).toBe('applied')
  }
  expect([0, 1, 65_535, 65_536, 131_071].map((version) => toldVersion(version, 65_535))).toEqual([0, 1, 65_535, 1, 1])
})

test('an entry is dead at the very instant of its expiry, and alive a millisecond before', () => {
  const { run, entry, state } = key()
  run('create', { expiry: ttl(1_000) })
  state.now = start + 999
  expect(entry()?.expiresAt).toBe(start + 1_000)
  expect(run('create').type).toBe('exists')
  state.now = start + 1_000
  expect(entry()).toBeUndefined()
  expect(run('update').type).toBe('missing')
  expect(run('create').type).toBe('applied')
})

test('expiry is kept, set, extended, fixed and lifted as asked', () => {
  const after = (before: ExpiryChange, change: ExpiryChange, verb: Verb = 'update'): number | undefined => {
    const { run } = key()
    run('create', { expiry: before })
    const { expiresAt } = entryIn(run(verb, { expiry: change }))
    return expiresAt === undefined ? undefined : expiresAt - start
  }
  const extend = (ms: number): ExpiryChange => ({ type: 'extend', ttlMs: ms as Millis })
  const made: ExpiryChange = { type: 'keep', ttlMs: 70 as Millis }
  expect(after(ttl(50), made, 'set')).toBe(50)
  expect(after(never, made, 'set')).toBeUndefined()
  const unmade = key()
  expect(entryIn(unmade.run('set', { expiry: made })).expiresAt).toBe(start + 70)
  for (const verb of ['update', 'set'] as const) {
    expect(after(ttl(50), keep, verb)).toBe(50)
    expect(after(never, keep, verb)).toBeUndefined()
    expect(after(ttl(50), ttl(20), verb)).toBe(20)
    expect(after(ttl(50), extend(20), verb)).toBe(50)
    expect(after(ttl(50), extend(80), verb)).toBe(80)
    expect(after(never, extend(80), verb), 'what never dies is not shortened').toBeUndefined()
    expect(after(ttl(50), { type: 'until', at: epochMs(start + 7) }, verb)).toBe(7)
    expect(after(ttl(50), never, verb)).toBeUndefined()
  }
  expect(entryIn(key().run('set', { expiry: extend(80) })).expiresAt, 'extend on an absent key lives so long').toBe(start + 80)
  expect(entryIn(key().run('set', { expiry: keep })).expiresAt).toBeUndefined()
  expect(entryIn(key().run('create', { expiry: ttl(epochMsMax) })).expiresAt).toBe(epochMsMax)
})

test('a write with an instant that has passed is applied, and dead at once', () => {
  const { run, entry } = key()
  run('create')
  expect(entryIn(run('update', { expiry: { type: 'until', at: epochMs(start) } })).expiresAt).toBe(start)
  expect(entry()).toBeUndefined()
})

test('createdAt is of this life, and versions change with every change', () => {
  const { run, state } = key()
  const made = entryIn(run('create'))
  state.now += 5
  const changed = entryIn(run('update'))
  expect(changed.createdAt).toBe(made.createdAt)
  run('destroy')
  const born = entryIn(run('create'))
  expect(born.createdAt).toBeGreaterThan(made.createdAt)
  expect(new Set([made.version, changed.version, born.version]).size).toBe(3)
})

test('versions never repeat over destroy and create in one millisecond and a clock that steps back (ABA)', () => {
  const { run, state } = key()
  const seen = new Set<string>()
  let latest = 0
  for (let round = 0; round < 300; round++) {
    const { version } = entryIn(run(round % 3 === 1 ? 'update' : 'set'))
    expect(seen.has(version)).toBe(false)
    seen.add(version)
    expect(state.record!.lastModifiedAt).toBeGreaterThan(latest)
    latest = state.record!.lastModifiedAt
    if (round % 3 === 2) run('destroy')
    if (round % 7 === 0) state.now -= 13
  }
})

test('nothing is kept without a request id', () => {
  const { run, state } = key()
  for (const verb of ['create', 'update', 'set', 'destroy'] as const) {
    run(verb)
    expect(state.record?.completions.entries).toEqual([])
  }
})

for (const verb of ['create', 'update', 'set', 'destroy'] as const) {
  test(`a repeated ${verb} is applied once and gets its first answer, whatever came between`, () => {
    const { run, state, entry } = key()
    if (verb !== 'create') run('create', { expiry: ttl(60_000) })
    const first = run(verb, { request: named('r', { attempt: 1 }) })
    expect(first.type).toBe('applied')
    run('set', { value: new Uint8Array([9]) })
    run('destroy')
    run('create', { value: new Uint8Array([7]) })
    state.now += 11_999
    const before = entry()
    const again = run(verb, { request: named('r', { attempt: 2 }) })
    if (verb === 'destroy') expect(again).toEqual({ type: 'applied', entry: undefined })
    else expect(again).toEqual(first)
    expect(entry()).toEqual(before)
  })
}

test('a touch changes the expiry and changedAt alone, and nothing at all where the life is long enough', () => {
  const { run, state } = key()
  run('create', { expiry: ttl(50) })
  const before = state.record as KeyRecord
  state.now += 5
  const touched = run('touch', { expiry: { type: 'extend', ttlMs: 80 as Millis } })
  expect(entryIn(touched)).toEqual({ ...entryOf(before, epochMs(start)), expiresAt: start + 85 })
  expect(state.record).toEqual({ ...before, expiresAt: start + 85, changedAt: start + 5 })
  const { record } = state
  expect(entryIn(run('touch', { expiry: { type: 'extend', ttlMs: 10 as Millis } }))).toEqual(entryOf(record, epochMs(start)))
  expect(state.record).toBe(record)
})

test('a repeated touch extends once, and is told what is there by then', () => {
  const { run, state } = key()
  run('create', { expiry: ttl(50) })
  const touch = (attempt: number) => run('touch', { request: named('t', { attempt }), expiry: { type: 'extend', ttlMs: 80 as Millis } })
  touch(1)
  run('set', { value: new Uint8Array([9]), expiry: keep })
  state.now += 20
  expect(entryIn(touch(2))).toMatchObject({ value: new Uint8Array([9]), expiresAt: start + 80 })
  run('destroy')
  expect(touch(3)).toEqual({ type: 'missing' })
})

test('a request is forgotten 12 s after it was recorded, on the stored wall clock (R8)', () => {
  const { run, state } = key()
  run('create')
  run('update', { request: named('r') })
  state.now += completionRules.lifeMs
  const before = state.record?.version
  run('update', { request: named('r', { attempt: 2 }) })
  expect(state.record?.version).toBe(before! + 1)
})

test('a clock that steps back forgets nothing', () => {
  const { run, state } = key()
  run('create')
  const first = run('update', { request: named('r') })
  state.now -= 3_600_000
  expect(run('update', { request: named('r', { attempt: 2 }) })).toEqual(first)
})

test('a refusal is remembered from the second sending on, and not before (R9)', () => {
  const { run, state, entry } = key()
  expect(run('update', { request: named('r') }).type).toBe('missing')
  expect(state.record, 'a first sending leaves nothing behind').toBeUndefined()
  expect(run('update', { request: named('r', { attempt: 2 }) }).type).toBe('missing')
  run('create')
  expect(run('update', { request: named('r', { attempt: 3 }) }).type, 'the answer given is the answer').toBe('missing')
  expect(entry()?.value).toEqual(value)
})

test('a repeated destroy of nothing does not delete what was made since (R9, interleaving 12)', () => {
  const { run, entry } = key()
  run('destroy', { request: named('d', { attempt: 2 }) })
  run('create')
  expect(run('destroy', { request: named('d', { attempt: 3 }) })).toEqual({ type: 'applied', entry: undefined })
  expect(entry()).toBeDefined()
})

test('a remembered refusal whose entry is gone is a fault, not another answer', () => {
  const { run } = key()
  run('create')
  const refused = run('create', { request: named('r', { attempt: 2 }) })
  expect(refused.type).toBe('exists')
  expect(run('create', { request: named('r', { attempt: 3 }) })).toEqual(refused)
  run('update')
  expect(run('create', { request: named('r', { attempt: 4 }) })).toEqual({ type: 'fault', code: 'ANSWER_GONE' })
})

test('a name used for another verb is refused', () => {
  const { run } = key()
  run('create', { request: named('r') })
  expect(run('destroy', { request: named('r', { attempt: 2 }) })).toEqual({ type: 'fault', code: 'REQUEST_ID_REUSED' })
})

test('what a session says is done leaves at once, and may not come again', () => {
  const { run, state } = key()
  run('create', { request: numbered(1) })
  run('update', { request: numbered(2) })
  run('update', { request: numbered(3, { done: 3 }) })
  expect(state.record?.completions.entries.map(({ sequence }) => sequence)).toEqual([3])
  const before = state.record
  expect(run('update', { request: numbered(2, { attempt: 2 }) })).toEqual({ type: 'fault', code: 'REQUEST_ID_REUSED' })
  expect(run('create', { request: numbered(1, { attempt: 2 }) })).toEqual({ type: 'fault', code: 'REQUEST_ID_REUSED' })
  expect(state.record).toBe(before)
})

test('a mark never falls, and one session says nothing about another', () => {
  const { run } = key()
  run('create')
  run('update', { request: named('other', { sequence: 1 }) })
  run('update', { request: numbered(9, { done: 9 }) })
  run('update', { request: numbered(10, { done: 2 }) })
  expect(run('update', { request: numbered(8, { attempt: 2 }) }).type).toBe('fault')
  expect(run('update', { request: named('other', { sequence: 1, attempt: 2 }) }).type).toBe('applied')
})

test('a full memory refuses without effect, by count and by bytes, and a quarter is kept for changes (R7)', () => {
  for (const rules of [
    { lifeMs: 12_000, bytesMax: 1_000_000, countMax: 8 },
    { lifeMs: 12_000, bytesMax: 640, countMax: 1_000 },
  ]) {
    const { run, state } = key(rules)
    run('create', { request: named('creation-') })
    let refusals = 0
    while (run('create', { request: named(`refused-${refusals}`, { attempt: 2 }) }).type === 'exists') refusals++
    expect(refusals).toBeGreaterThan(2)
    let changes = 0
    while (run('update', { request: named(`changed-${changes}`) }).type === 'applied') changes++
    expect(changes).toBeGreaterThan(0)
    const { entries } = state.record!.completions
    expect(entries.length).toBeLessThanOrEqual(rules.countMax)
    expect(completionsBytes(state.record!.completions)).toBeLessThanOrEqual(rules.bytesMax)
    // The bound that was set small is the one that was met: one more of them would not fit.
    if (rules.countMax === 8) expect([refusals, changes]).toEqual([5, 2])
    else expect(completionsBytes(state.record!.completions) + completionBytes(entries.at(-1)!)).toBeGreaterThan(rules.bytesMax)
    const before = state.record
    expect(run('update', { request: named('late') })).toEqual({ type: 'fault', code: 'RECORD_LOCKED' })
    expect(state.record).toBe(before)
    expect(run('update', { request: named('changed-0', { attempt: 2 }) }).type, 'what is known is still answered').toBe('applied')
    expect(run('update').type, 'a caller without a request id is not locked out').toBe('applied')
    state.now += 12_000
    expect(run('update', { request: named('late') }).type).toBe('applied')
    expect(state.record?.completions.entries).toHaveLength(1)
  }
})

test('a create is known by the life that it began, also after its completion went, alive or dead', () => {
  const { run, state, entry } = key()
  const first = run('create', { request: named('r') })
  run('update')
  state.now += 60_000
  expect(run('create', { request: named('r', { attempt: 2 }) })).toEqual(first)
  run('destroy', { request: named('d') }) // its completion keeps the tombstone
  state.now += 1
  expect(run('create', { request: named('r', { attempt: 3 }) })).toEqual(first)
  expect(entry()).toBeUndefined()
})

test('a tombstone that only carries a request is nobody’s life: no create takes it for its own', () => {
  const { run, entry } = key()
  run('destroy', { request: named('r', { attempt: 2 }) })
  expect(run('create', { request: named('\n') }).type).toBe('applied')
  expect(entry()).toBeDefined()
})

test('what is remembered survives expiry, destroy and a create over the tombstone', () => {
  const { run, state } = key()
  const first = run('create', { request: named('r'), expiry: ttl(1_000) })
  state.now += 1_000
  expect(run('create', { request: named('r', { attempt: 2 }) }), 'expired').toEqual(first)
  run('create')
  run('destroy')
  expect(run('create', { request: named('r', { attempt: 3 }) }), 'destroyed and remade').toEqual(first)
})

test('a record may go once it is dead and remembers nothing, and forgettableAt is that instant', () => {
  const { run, state } = key()
  run('create', { expiry: ttl(100), request: named('r') })
  const at = forgettableAt(state.record!, completionRules.lifeMs)!
  expect(at).toBe(start + 12_000)
  expect(isForgettable(state.record!, epochMs(at - 1), completionRules.lifeMs)).toBe(false)
  expect(isForgettable(state.record!, at, completionRules.lifeMs)).toBe(true)
  run('update', { expiry: never })
  expect(forgettableAt(state.record!, completionRules.lifeMs)).toBeUndefined()
})

test('two names never make one token', () => {
  expect(requestToken({ session: 'a', sequence: 0 })).not.toBe(requestToken({ session: 'a', sequence: 1 }))
  expect(requestToken({ session: 'a1', sequence: 1 })).not.toBe(requestToken({ session: 'a', sequence: 11 }))
})

/** The dumb twin: a value, an instant of death, and the answers given to names. No version arithmetic, no memory bounds. */
interface Twin {
  alive: { value: number; version: string; expiresAt: number | undefined } | undefined
}
const verbs = fc.constantFrom<Verb>('create', 'update', 'set', 'destroy')
const expiries = fc.oneof(
  fc.constant(keep),
  fc.constant(never),
  fc.integer({ min: 1, max: 30 }).map(ttl),
  fc.integer({ min: 1, max: 30 }).map((ms): ExpiryChange => ({ type: 'extend', ttlMs: ms as Millis })),
  fc.integer({ min: -5, max: 30 }).map((ms): ExpiryChange => ({ type: 'until', at: epochMs(start + ms) })),
)
const steps = fc.array(
  fc.record({
    verb: verbs,
    value: fc.integer({ min: 0, max: 255 }),
    expiry: expiries,
    condition: fc.constantFrom('none', 'none', 'same', 'old'),
    passes: fc.integer({ min: -3, max: 10 }),
    request: fc.option(fc.integer({ min: 1, max: 6 }), { nil: undefined }),
  }),
  { maxLength: 60 },
)

test('random histories agree with a dumb twin', () => {
  fc.assert(
    fc.property(steps, (history) => {
      const { run, state, entry } = key()
      const twin: Twin = { alive: undefined }
      const versions = new Set<string>()
      let old = 'old' as Version
      for (const step of history) {
        state.now += step.passes
        const { now } = state
        const alive = twin.alive && !(twin.alive.expiresAt !== undefined && twin.alive.expiresAt <= now) ? twin.alive : undefined
        const conditional = step.verb !== 'create' && step.condition !== 'none'
        const ifVersion = !conditional ? undefined : step.condition === 'same' ? ((alive?.version ?? old) as Version) : old
        const outcome = run(step.verb, { value: new Uint8Array([step.value]), expiry: step.expiry, ifVersion })

        let expected: Outcome['type'] = 'applied'
        if (step.verb === 'create' && alive) expected = 'exists'
        else if ((step.verb === 'update' || conditional) && !alive) expected = 'missing'
        else if (conditional && alive && ifVersion !== alive.version) expected = 'version'
        expect(outcome.type).toBe(expected)
        if (expected === 'applied' && step.verb === 'destroy') {
          if (alive) old = alive.version as Version
          if (alive) twin.alive = undefined
        } else if (expected === 'applied') {
          const made = entryIn(outcome)
          expect(versions.has(made.version)).toBe(false)
          versions.add(made.version)
          if (alive) old = alive.version as Version
          twin.alive = { value: step.value, version: made.version, expiresAt: twinExpiry(step.expiry, alive, now) }
        }
        const shown = twin.alive && !(twin.alive.expiresAt !== undefined && twin.alive.expiresAt <= now) ? twin.alive : undefined
        const seen = entry()
        expect(seen && { value: seen.value[0], version: seen.version, expiresAt: seen.expiresAt }).toEqual(shown)
      }
    }),
    { seed, numRuns: 400 },
  )
})

function twinExpiry(change: ExpiryChange, alive: { expiresAt: number | undefined } | undefined, now: number): number | undefined {
  if (change.type === 'never') return undefined
  if (change.type === 'keep') return alive?.expiresAt
  if (change.type === 'set') return now + change.ttlMs
  if (change.type === 'until') return change.at
  if (alive === undefined) return now + change.ttlMs
  return alive.expiresAt === undefined ? undefined : Math.max(alive.expiresAt, now + change.ttlMs)
}

test('in random histories no request is applied twice, and an applied one keeps its answer', () => {
  fc.assert(
    fc.property(steps, (history) => {
      const { run, state } = key()
      const sent = new Map<number, { verb: Verb; attempt: number; value: Uint8Array; outcome: Outcome }>()
      const effects = new Map<string, number>()
      for (const step of history) {
        state.now += step.passes
        const earlier = step.request === undefined ? undefined : sent.get(step.request)
        const attempt = (earlier?.attempt ?? 0) + 1
        // A repetition is the same call again; its condition could only be refused, so there is none.
        const verb = earlier?.verb ?? step.verb
        const bytes = earlier?.value ?? new Uint8Array([step.value])
        const request = step.request === undefined ? nameless() : named(`r${step.request}`, { attempt })
        const before = state.record?.lastRequest
        const outcome = run(verb, { value: bytes, expiry: step.expiry, request })
        if (state.record?.lastRequest !== before && state.record?.lastRequest === requestToken(request)) {
          effects.set(request.session, (effects.get(request.session) ?? 0) + 1)
        }
        if (step.request === undefined) continue
        if (earlier?.outcome.type === 'applied' && verb !== 'destroy') expect(outcome).toEqual(earlier.outcome)
        sent.set(step.request, { verb, attempt, value: bytes, outcome: earlier?.outcome.type === 'applied' ? earlier.outcome : outcome })
      }
      for (const [name, count] of effects) expect(count, name).toBe(1)
    }),
    { seed, numRuns: 400 },
  )
})
