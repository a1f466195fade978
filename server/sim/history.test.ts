/** Calls and operations: what a request that is sent again amounts to, and the lines and pictures of a history. */
import { describe, expect, it } from 'vitest'
import type { Entry, Version } from '../../core/kv/kv.ts'
import { epochMs, type Millis } from '../../core/base/types.ts'
import { answerOf, byKey, callsIn, drawn, historyUntil, linesOf, operationsOf, Recorder, type Call, type CallAnswer } from './history.ts'

const applied: CallAnswer = { type: 'applied', entry: { value: 1, version: 'v1', createdAt: 5 }, now: 5 }
const noEffect: CallAnswer = { type: 'no-effect', why: 'contention' }
const unknown: CallAnswer = { type: 'unknown' }

/** The sendings of one request, one after the other. */
const sendings = (...answers: readonly CallAnswer[]): Call[] =>
  answers.map((answer, index) => ({
    client: 'c0',
    key: 'k',
    verb: 'set',
    value: 1,
    request: { session: 's', sequence: 7, attempt: index + 1 },
    calledAt: 10 * index,
    returnedAt: answer.type === 'unknown' ? Infinity : 10 * index + 4,
    answer,
  }))
const joined = (...answers: readonly CallAnswer[]) => operationsOf(sendings(...answers))[0]

describe('operationsOf', () => {
  it('makes one operation of a request, from its first sending to the answer of its latest', () => {
    expect(operationsOf(sendings(unknown, unknown, applied))).toEqual([
      {
        client: 'c0',
        key: 'k',
        verb: 'set',
        value: 1,
        request: { session: 's', sequence: 7 },
        attempts: 3,
        calledAt: 0,
        returnedAt: 24,
        answer: applied,
      },
    ])
  })

  it('takes the latest sending by its number, in whatever order they were written down', () => {
    expect(operationsOf(sendings(applied, unknown).toReversed())[0]).toMatchObject({ calledAt: 0, returnedAt: Infinity, answer: unknown })
  })

  it('calls an operation without effect only when none of its sendings can have one', () => {
    expect(joined(noEffect, noEffect)).toMatchObject({ answer: noEffect, returnedAt: 14 })
    expect(joined(unknown, noEffect)).toMatchObject({ answer: unknown, returnedAt: Infinity })
    expect(joined(applied, noEffect)).toMatchObject({ answer: unknown, returnedAt: Infinity })
    expect(joined(unknown, { type: 'no-effect', why: 'ANSWER_GONE', isFinal: true })?.answer.type).toBe('no-effect')
  })

  it('counts a get from the sending that was answered', () => {
    const gets = sendings(unknown, { type: 'read', now: 5 }).map(({ value: _, ...call }): Call => ({ ...call, verb: 'get' }))
    expect(operationsOf(gets)).toMatchObject([{ calledAt: 10, returnedAt: 14 }])
  })

  it('keeps calls without a request, and equal requests on two keys, apart', () => {
    const [call] = sendings(applied) as [Call]
    const { request: _, ...plain } = call
    const operations = operationsOf([plain, { ...plain, value: 2 }, call, { ...call, key: 'l' }])
    expect(operations).toHaveLength(4)
    expect([...byKey(operations)].map(([key, list]) => [key, list.length])).toEqual([
      ['k', 3],
      ['l', 1],
    ])
  })

  it('refuses sendings of one request that ask for different things', () => {
    const [first, second] = sendings(unknown, unknown) as [Call, Call]
    expect(() => operationsOf([first, { ...second, value: 2 }])).toThrow('all sendings of a request ask for the same')
  })
})

describe('Recorder', () => {
  it('has a call of unknown outcome until it is answered, and takes the first answer', () => {
    const recorder = new Recorder()
    const number = recorder.sent({ client: 'c0', key: 'k', verb: 'get', calledAt: 3 })
    expect(recorder.calls).toMatchObject([{ returnedAt: Infinity, answer: { type: 'unknown' } }])
    expect(recorder.answered(number, 4, { type: 'read', now: 9 })).toBe(true)
    expect(recorder.answered(number, 5, { type: 'read', now: 10 })).toBe(false)
    expect(recorder.calls).toMatchObject([{ returnedAt: 4, answer: { type: 'read', now: 9 } }])
  })

  it('has no time of return for an answer that says unknown', () => {
    const recorder = new Recorder()
    recorder.answered(recorder.sent({ client: 'c0', key: 'k', verb: 'destroy', calledAt: 3 }), 4, { type: 'unknown', now: 9 })
    expect(recorder.calls).toMatchObject([{ returnedAt: Infinity, answer: { type: 'unknown', now: 9 } }])
  })

  it('refuses an answer before its call', () => {
    const recorder = new Recorder()
    const number = recorder.sent({ client: 'c0', key: 'k', verb: 'get', calledAt: 3 })
    expect(() => recorder.answered(number, 2, { type: 'read', now: 9 })).toThrow('an answer follows its call')
  })
})

describe('historyUntil', () => {
  it('has what was asked by then, and of later answers none', () => {
    const operations = operationsOf([
      ...sendings(applied),
      { client: 'c1', key: 'k', verb: 'get', calledAt: 6, returnedAt: 8, answer: { type: 'read', now: 1 } },
    ])
    expect(historyUntil(operations, 3)).toMatchObject([{ verb: 'set', returnedAt: Infinity, answer: { type: 'unknown' } }])
    expect(historyUntil(operations, 8)).toEqual(operations)
  })
})

describe('answerOf', () => {
  const entry: Entry = { value: new Uint8Array([7]), version: 'v' as Version, createdAt: epochMs(1), expiresAt: epochMs(9) }
  const shown = { value: 7, version: 'v', createdAt: 1, expiresAt: 9 }
  const now = epochMs(3)
  const valueOf = (bytes: Uint8Array): number => bytes[0] as number

  it('says what a register answered', () => {
    expect(answerOf({ type: 'read', entry, now }, valueOf)).toEqual({ type: 'read', entry: shown, now })
    expect(answerOf({ type: 'read', entry: undefined, now }, valueOf)).toEqual({ type: 'read', now })
    expect(answerOf({ type: 'unknown', now }, valueOf)).toEqual({ type: 'unknown', now })
    expect(answerOf({ type: 'no-effect', why: 'overload', now }, valueOf)).toEqual({ type: 'no-effect', why: 'overload', now })
    expect(answerOf({ type: 'decided', outcome: { type: 'exists', entry }, now }, valueOf)).toEqual({ type: 'exists', entry: shown, now })
    expect(answerOf({ type: 'decided', outcome: { type: 'missing' }, now }, valueOf)).toEqual({ type: 'missing', now })
    expect(answerOf({ type: 'decided', outcome: { type: 'applied', entry: undefined }, now }, valueOf)).toEqual({ type: 'applied', now })
  })

  it('takes a fault for no effect, and only a remembered refusal for the end of its request', () => {
    const fault = (code: 'RECORD_LOCKED' | 'REQUEST_ID_REUSED' | 'ANSWER_GONE') =>
      answerOf({ type: 'decided', outcome: { type: 'fault', code }, now }, valueOf)
    expect(fault('RECORD_LOCKED')).toEqual({ type: 'no-effect', why: 'RECORD_LOCKED', now })
    expect(fault('REQUEST_ID_REUSED')).toEqual({ type: 'no-effect', why: 'REQUEST_ID_REUSED', now })
    expect(fault('ANSWER_GONE')).toEqual({ type: 'no-effect', why: 'ANSWER_GONE', isFinal: true, now })
  })
})

describe('lines', () => {
  it('give back the calls that were written, those without an answer included', () => {
    const calls: Call[] = [
      ...sendings(unknown, applied),
      {
        client: 'c1',
        key: 'k\n"',
        verb: 'destroy',
        ifVersion: 'v\n1',
        calledAt: 0.5,
        returnedAt: 2.25,
        answer: { type: 'missing', now: 3 },
      },
    ]
    expect(callsIn(linesOf(calls))).toEqual(calls)
    expect(linesOf(calls).split('\n')).toHaveLength(4)
  })

  it('that are no call are refused by their number', () => {
    expect(() => callsIn(`${linesOf(sendings(applied))}{"key":"k"}\n`)).toThrow('line 2 is no call')
  })
})

describe('drawn', () => {
  it('shows one line an operation in order, with its interval, and explains short versions', () => {
    const calls: Call[] = [
      { client: 'c1', key: 'k', verb: 'get', calledAt: 16, returnedAt: 31, answer: { type: 'read', now: 1 } },
      ...sendings(unknown, applied),
      {
        client: 'c2',
        key: 'k',
        verb: 'update',
        value: 2,
        ifVersion: 'v1',
        expiry: { type: 'set', ttlMs: 30 as Millis },
        calledAt: 20,
        returnedAt: Infinity,
        answer: unknown,
      },
    ]
    expect(drawn(operationsOf(calls))).toBe(
      [
        'client  called  returned                                     verb    value  condition  expiry  request  answer',
        'c0      0       14        |-------------|                    set     1                         s/7 x2   applied 1 v1 since 5',
        'c1      16      31                        |--------------|   get                                        read nothing',
        'c2      20      ...                           |----------->  update  2      if v1      set 30           unknown',
        '  v1 = v1',
      ].join('\n'),
    )
  })
})
