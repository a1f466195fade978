/** The checker that judges concurrent histories: what it must call impossible, and what it must not. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { linearizable, type Call } from './concurrency.ts'

type Shape = Pick<Call, 'verb'> & Partial<Call>
const call = (calledAt: number, answeredAt: number, shape: Shape): Call => ({
  actor: 0,
  writes: 0,
  expects: undefined,
  calledAt,
  answeredAt,
  answer: 'unknown',
  ...shape,
})
const ok = (shows: number) => ({ ok: true, refusal: undefined, shows })
const no = (refusal: string, shows: number) => ({ ok: false, refusal, shows })

test('a history one call at a time is explained exactly when each answer fits', () => {
  const create = call(0, 1, { verb: 'create', writes: 1, answer: ok(1) })
  expect(linearizable([create, call(2, 3, { verb: 'get', answer: ok(1) })])).toBe('explained')
  expect(linearizable([create, call(2, 3, { verb: 'get', answer: ok(0) })])).toBe('impossible')
  expect(linearizable([create, call(2, 3, { verb: 'create', writes: 2, answer: no('exists', 1) })])).toBe('explained')
  expect(linearizable([create, call(2, 3, { verb: 'create', writes: 2, answer: ok(2) })])).toBe('impossible')
})

test('two updates under one version cannot both be applied', () => {
  const create = call(0, 1, { verb: 'create', writes: 1, answer: ok(1) })
  const first = call(2, 5, { verb: 'update', writes: 2, expects: 1, answer: ok(2) })
  expect(linearizable([create, first, call(3, 4, { verb: 'update', writes: 3, expects: 1, answer: ok(3) })])).toBe('impossible')
  expect(linearizable([create, first, call(3, 4, { verb: 'update', writes: 3, expects: 1, answer: no('version', 2) })])).toBe('explained')
})

test('overlapping calls may take either order, later ones may not go back', () => {
  const write = call(0, 10, { verb: 'set', writes: 1, answer: ok(1) })
  const sees = call(1, 2, { verb: 'get', answer: ok(1) })
  const doesNot = (calledAt: number) => call(calledAt, calledAt + 1, { verb: 'get', answer: ok(0) })
  expect(linearizable([write, sees])).toBe('explained')
  expect(linearizable([write, doesNot(1)])).toBe('explained')
  expect(linearizable([write, sees, doesNot(3)])).toBe('impossible')
})

test('a write of unknown outcome may take effect late or never, and never before it was called', () => {
  const unknown = call(2, Infinity, { verb: 'set', writes: 7 })
  const get = (calledAt: number, shows: number) => call(calledAt, calledAt + 1, { verb: 'get', answer: ok(shows) })
  expect(linearizable([unknown, get(3, 0), get(5, 0)])).toBe('explained')
  expect(linearizable([unknown, get(3, 0), get(5, 7)])).toBe('explained')
  expect(linearizable([unknown, get(3, 7), get(5, 0)])).toBe('impossible')
  expect(linearizable([get(0, 7), unknown])).toBe('impossible')
})

test('a search that takes too long is undecided, never explained', () => {
  const calls = Array.from({ length: 12 }, (_, index) => call(0, 1, { verb: 'set', writes: index + 1, answer: ok(index + 1) }))
  expect(linearizable([...calls, call(2, 3, { verb: 'get', answer: ok(99) })], 50)).toBe('undecided')
})

test('it agrees with trying every order, on small random histories', () => {
  const shape = fc.record({
    verb: fc.constantFrom('create' as const, 'get' as const, 'set' as const, 'destroy' as const),
    start: fc.nat(8),
    length: fc.integer({ min: 1, max: 6 }),
    shows: fc.nat(3),
    ok: fc.boolean(),
    unknown: fc.boolean(),
  })
  const judge = fc.property(fc.array(shape, { maxLength: 5 }), (shapes) => {
    const calls = shapes.map(({ verb, start, length, shows, ok: isOk, unknown }, index) => {
      const writes = verb === 'get' || verb === 'destroy' ? 0 : index + 1
      const lost = unknown && verb !== 'get'
      const answer = lost
        ? ('unknown' as const)
        : verb === 'create' && !isOk
          ? no('exists', shows)
          : ok(verb === 'set' || verb === 'create' ? writes : shows)
      return call(start * 2, lost ? Infinity : (start + length) * 2 + 1, { verb, writes, answer })
    })
    expect(linearizable(calls)).toBe(byTrying(calls, 0) ? 'explained' : 'impossible')
  })
  fc.assert(judge, { seed: Number(process.env.HAPAX_SEED), numRuns: 500 })
})

/** The slow twin: every order of every choice of unknown calls, verbs without conditions only. */
function byTrying(calls: readonly Call[], state: number): boolean {
  if (calls.every(({ answer }) => answer === 'unknown')) return true
  return calls.some((one, index) => {
    const others = calls.filter((_, at) => at !== index)
    if (others.some(({ answeredAt }) => answeredAt < one.calledAt)) return false
    const { verb, writes, answer } = one
    const isRefused = verb === 'create' && state !== 0
    const next = verb === 'get' || isRefused ? state : verb === 'destroy' ? 0 : writes
    if (answer === 'unknown') return byTrying(others, next)
    const shows = verb === 'get' || verb === 'destroy' || isRefused ? state : next
    const fits = answer.shows === shows || (verb === 'destroy' && answer.shows === 0) // a destroy may be answered from memory
    return answer.ok === !isRefused && fits && byTrying(others, next)
  })
}
