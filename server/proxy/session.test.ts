/** What a client hears, and what its request is called. */
import { expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { errors } from '../../core/kv/errors.ts'
import type { Entry, Version } from '../../core/kv/kv.ts'
import type { Outcome } from '../../core/record/operation.ts'
import type { Answer, Instant } from '../register/work.ts'
import { ProxyNames } from './names.ts'
import { faultOf, gapMsMax, statusOf, TurnWatch, workOf, type ClientRequest } from './session.ts'

const now = epochMs(1_700_000_000_000)
const at = (mono: number, wall: number = mono): Instant => ({ wall: epochMs(now + wall), mono })
const entry: Entry = { value: new Uint8Array(1), version: '1.x.a' as Version, createdAt: now }
const decided = (outcome: Outcome): Answer => ({ type: 'decided', outcome, now })
const noEffect = (why: (Answer & { type: 'no-effect' })['why']): Answer => ({ type: 'no-effect', why, now })

test.each<[ClientRequest['verb'], Answer, number, string | undefined]>([
  ['get', { type: 'read', entry, now }, 0, undefined],
  ['get', { type: 'read', entry: undefined, now }, 3, undefined],
  ['create', decided({ type: 'applied', entry }), 0, undefined],
  ['destroy', decided({ type: 'applied', entry: undefined }), 0, undefined],
  ['touch', decided({ type: 'applied', entry }), 0, undefined],
  ['touch', decided({ type: 'missing' }), 3, undefined],
  ['create', decided({ type: 'exists', entry }), 4, undefined],
  ['update', decided({ type: 'missing' }), 3, undefined],
  ['update', decided({ type: 'version', entry }), 19, undefined],
  ['set', decided({ type: 'fault', code: 'RECORD_LOCKED' }), 8, 'RECORD_LOCKED'],
  ['set', decided({ type: 'fault', code: 'REQUEST_ID_REUSED' }), 7, 'REQUEST_ID_REUSED'],
  ['create', decided({ type: 'fault', code: 'ANSWER_GONE' }), 4, 'ANSWER_GONE'],
  ['update', decided({ type: 'fault', code: 'ANSWER_GONE' }), 19, 'ANSWER_GONE'],
  ['set', noEffect('contention'), 8, 'CONTENTION'],
  ['set', noEffect('no-quorum'), 12, 'UNAVAILABLE'],
  ['set', noEffect('clock'), 12, 'UNAVAILABLE'],
  ['set', noEffect('overload'), 14, 'BUSY'],
  ['set', noEffect('too-old'), 14, 'DEADLINE_EXCEEDED'],
  ['set', { type: 'unknown', now }, 25, 'UNKNOWN_OUTCOME'],
])('%s answered %j has status %i and throws %s (S1)', (verb, answer, status, code) => {
  expect(statusOf(verb, answer)).toBe(status)
  expect(faultOf(answer)).toBe(code)
})

test('what had no effect may be sent again as one likes, an unknown outcome only under its name (S1)', () => {
  for (const why of ['contention', 'no-quorum', 'clock', 'overload', 'too-old'] as const)
    expect(errors[faultOf(noEffect(why)) as keyof typeof errors].retry).toBe('safe')
  expect(errors[faultOf({ type: 'unknown', now }) as keyof typeof errors].retry).toBe('same-request-id')
})

const named = (verb: ClientRequest['verb'], requestId: ClientRequest['requestId'], plainIdsRepeat?: boolean) =>
  workOf({ verb, value: new Uint8Array(1), expiry: { type: 'never' }, requestId, timeoutMs: 400 }, at(0), { plainIdsRepeat }).operation
    ?.request

test('a name of ours is taken as it is, with what is done and the attempt (S2)', () => {
  expect(named('set', { session: 's', sequence: 7, done: 5, attempt: 3 })).toEqual({
    session: 's',
    sequence: 7,
    done: 5,
    attempt: 3,
    remember: true,
  })
})

test('plain ids are not remembered by default, but a create keeps its own, by which its repetition is known (S2)', () => {
  expect(named('set', 'id')).toMatchObject({ session: '', remember: false })
  expect(named('create', 'id')).toMatchObject({ session: 'id', sequence: 0, remember: true, attempt: 1 })
  expect(named('create', undefined)).toMatchObject({ session: '', remember: false })
})

test('plain ids that may repeat are remembered, refusals included (S2)', () => {
  expect(named('destroy', 'id', true)).toMatchObject({ session: 'id', sequence: 0, remember: true, attempt: 2 })
})

test('no client has the name of a proxy, nor two clients one name (N1)', () => {
  const names = ['z', '~z', '~~z'].map((session) => named('set', { session, sequence: 1 })?.session)
  expect(names).toEqual(['z', '~~z', '~~~z'])
  expect([named('create', '~z')?.session, named('set', '~z', true)?.session]).toEqual(['~~z', '~~z'])
  expect(new ProxyNames(35).session).toBe('~z')
})

test.each([
  [400, 1_400],
  [600, 1_600],
  [30_000, 1_600],
])('a client that waits %i ms gets no new ballot after %i ms (S3)', (timeoutMs, deadlineMono) => {
  expect(workOf({ verb: 'get', timeoutMs }, at(1_000))).toMatchObject({ operation: undefined, deadlineMono, acceptWasSent: 'no' })
})

test.each([
  ['nothing', 400, 400, false],
  ['a stop', 401, 401, true],
  ['a suspended machine, whose monotonic clock stood still', 10, 60_000, true],
  ['a wall clock that stepped back', 10, -60_000, false],
])('between two turns there was %s: unread input is dropped as it should be (S4)', (_, mono, wall, isGap) => {
  expect(gapMsMax).toBe(400)
  const watch = new TurnWatch()
  expect(watch.begin(at(0))).toBe(false)
  expect(watch.begin(at(mono, wall))).toBe(isGap)
  expect(watch.begin(at(mono + 1, wall + 1))).toBe(false)
})
