/**
 * One copy of one key behind slow and lossy wires: histories that are right by construction, and the same with one planted mistake.
 * Invariant: without a mistake each request takes effect at one instant between its sending and its answer, by the shipping `apply`.
 * Why it exists: a checker that calls everything good is found out here, and so is one that cries wolf.
 */
import { Heap } from '../../core/base/collections.ts'
import { seededRandom } from '../../core/base/random.ts'
import { epochMs, type EpochMs, type Millis } from '../../core/base/types.ts'
import type { ExpiryChange } from '../../core/kv/expiry.ts'
import type { Version } from '../../core/kv/kv.ts'
import { apply, type Operation } from '../../core/record/operation.ts'
import { entryOf, isDead, noCompletions, versionOf, type KeyRecord } from '../../core/record/record.ts'
import { answerOf, Recorder, type Call, type CallAnswer, type HistoryVerb, type Sent, type Shown } from './history.ts'

export interface SingleCopyKnobs {
  readonly seed: number
  readonly clients: number
  /** Requests in all; each may be sent several times. */
  readonly requests: number
  /** Chance that a sending, or its answer, is lost, and that it comes late. */
  readonly loss: number
  /** Chance that a write has an expiry. */
  readonly expiring: number
  /** Greatest difference of a clock to true time. At least 1, because clocks show whole milliseconds. */
  readonly boundMs: number
  readonly mistake?: Mistake
}

export const mistakes = [
  'stale read',
  'lost update',
  'lost write',
  'repeated request applied twice',
  'back after destroy',
  'back after it was seen dead',
  'alive past its expiry',
  'dead before its expiry',
  'effect after no-effect',
  'version repeats',
  'birth changes',
  'expiry lost',
] as const
export type Mistake = (typeof mistakes)[number]

export interface SingleCopyHistory {
  readonly calls: readonly Call[]
  /** When the mistake was made; undefined: there was no occasion for it. */
  readonly mistakeAt: number | undefined
}

/** A state that was, and who may know of it. */
interface Former {
  readonly record: KeyRecord
  /** What ended it was acknowledged at this time. */
  endedFor: number
}

const bytesOf = (value: number): Uint8Array => new Uint8Array(new Uint32Array([value]).buffer)
const valueIn = (bytes: Uint8Array): number => new Uint32Array(bytes.slice().buffer)[0] as number
const timeoutMs = 40
const attemptsMax = 3
/** What the store's clocks show at true time 0. */
const startsAt = 1_000_000

export function singleCopy(knobs: SingleCopyKnobs): SingleCopyHistory {
  const random = seededRandom(knobs.seed)
  const recorder = new Recorder()
  const events = new Heap<{ readonly at: number; readonly run: (at: number) => void }>((a, b) => a.at - b.at)
  const after = (now: number, most: number, run: (at: number) => void): void => events.push({ at: now + random.next() * most, run })
  const skews = [0, 1, 2].map(() => (random.next() * 2 - 1) * (knobs.boundMs - 1))
  let record: KeyRecord | undefined
  const former: Former[] = []
  /** When a value was first told to somebody. */
  const told = new Map<number, number>()
  let left = knobs.requests
  let values = 0
  let mistakeAt: number | undefined
  const due = (mistake: Mistake): boolean => knobs.mistake === mistake && mistakeAt === undefined && left < knobs.requests * 0.7

  for (let index = 0; index < knobs.clients; index++) {
    const client = `c${index}`
    let known: Shown | undefined
    let sequence = 0
    const next = (now: number): void => {
      if (left-- <= 0) return
      const verb = random.pick<HistoryVerb>(['create', 'create', 'get', 'get', 'get', 'update', 'update', 'set', 'destroy'])
      const isWrite = verb !== 'get' && verb !== 'destroy'
      const hasCondition = verb !== 'get' && verb !== 'create' && known !== undefined && random.chance(0.6)
      const request = { session: client, sequence: ++sequence }
      send(now, 1, {
        client,
        key: 'k',
        verb,
        ...(isWrite ? { value: ++values, expiry: drawExpiry(verb, now) } : {}),
        ...(hasCondition ? { ifVersion: (known as Shown).version } : {}),
        request: { ...request, attempt: 1 },
        calledAt: now,
      })
    }
    const send = (now: number, attempt: number, sent: Sent): void => {
      const asked: Sent = { ...sent, calledAt: now, request: { ...(sent.request as NonNullable<Sent['request']>), attempt } }
      const number = recorder.sent(asked)
      let isOver = false
      if (!random.chance(knobs.loss))
        after(now, random.chance(knobs.loss) ? 400 : 12, (effectAt) => {
          const mayPlant = mistakeAt === undefined && !isOver
          const { answer, ends } = effect(asked, effectAt, mayPlant)
          // A mistake has to be told, or nobody can know of it.
          const isTold = mayPlant && mistakeAt !== undefined
          if (!isTold && random.chance(knobs.loss)) return
          after(effectAt, isTold ? 0 : 12, (at) => {
            if (isOver) return
            isOver = true
            recorder.answered(number, at, answer)
            for (const one of ends) one.endedFor = Math.min(one.endedFor, at)
            if ('entry' in answer && answer.entry) {
              known = answer.entry
              const value = known.value as number
              if (!told.has(value)) told.set(value, at)
            }
            after(at, 15, next)
          })
        })
      events.push({
        at: now + timeoutMs,
        run: (at) => {
          if (isOver) return
          isOver = true
          if (attempt < attemptsMax && random.chance(0.7)) send(at, attempt + 1, asked)
          else after(at, 15, next)
        },
      })
    }
    after(0, 15, next)
  }
  for (let event = events.pop(); event !== undefined; event = events.pop()) event.run(event.at)
  return { calls: recorder.calls, mistakeAt }

  function drawExpiry(verb: HistoryVerb, now: number): ExpiryChange {
    if (!random.chance(knobs.expiring)) return verb === 'create' || random.chance(0.3) ? { type: 'never' } : { type: 'keep' }
    const ttlMs = random.pick([20, 60, 200]) as Millis
    if (random.chance(0.2)) return { type: 'until', at: epochMs(Math.floor(startsAt + now + ttlMs - 20)) }
    return verb === 'create' || random.chance(0.5) ? { type: 'set', ttlMs } : { type: 'extend', ttlMs }
  }

  /** What happens in the copy, at one instant. `ends`: the states that end with it. */
  function effect(asked: Sent, at: number, mayPlant: boolean): { readonly answer: CallAnswer; readonly ends: readonly Former[] } {
    const now = epochMs(Math.floor(startsAt + at + random.pick(skews)))
    const planted = mayPlant ? plant(asked, at, now) : undefined
    if (planted) return { answer: planted, ends: [] }
    const ends: Former[] = []
    const become = (to: KeyRecord | undefined): void => {
      if (record === to) return
      // A refusal that is remembered makes another record, and not another state.
      if (record?.value !== undefined && record.value !== to?.value) ends.push({ record, endedFor: Infinity })
      record = to
    }
    // Whoever sees it dead buries it, so that nobody with a slower clock sees it alive again.
    if (record?.value !== undefined && isDead(record, now)) become({ ...record, value: undefined, changedAt: now })
    const operation = operationOf(asked)
    if (operation === undefined) {
      const entry = entryOf(record, now)
      former.push(...ends)
      return { answer: answerOf({ type: 'read', entry, now }, valueIn), ends }
    }
    const refusesFirst = random.chance(knobs.loss / 2)
    const refused = { answer: { type: 'no-effect', why: 'contention', now }, ends: [] } as const
    if (refusesFirst && !(mayPlant && due('effect after no-effect') && asked.request?.attempt === 1)) return refused
    const { record: made, outcome } = apply(operation, record, now)
    if (refusesFirst) {
      if (made?.lastRequest === record?.lastRequest || made?.value === undefined) return refused
      mistakeAt = at
      record = made
      return refused
    }
    become(made)
    former.push(...ends)
    return { answer: answerOf({ type: 'decided', outcome, now }, valueIn), ends }
  }

  /** Makes the mistake, when this is an occasion at which a client must notice it. */
  function plant(asked: Sent, at: number, now: EpochMs): CallAnswer | undefined {
    const was = former.at(-1)
    const isKnown = was !== undefined && was.endedFor < asked.calledAt
    const read = (from: KeyRecord | undefined): CallAnswer => {
      mistakeAt = at
      return answerOf({ type: 'read', entry: from && entryOf({ ...from, expiresAt: from.expiresAt }, 0 as EpochMs), now }, valueIn)
    }
    const isAlive = record?.value !== undefined && !isDead(record, now)
    /** Somebody was told of the present state before this was asked. */
    const isSettled = isAlive && (told.get(valueIn((record as KeyRecord).value as Uint8Array)) ?? Infinity) < asked.calledAt
    if (asked.verb === 'get') {
      if (due('stale read') && isKnown && isAlive && !isDead(was.record, now)) return read(was.record)
      if (due('back after destroy') && isKnown && record?.value === undefined && !isDead(was.record, now)) {
        record = was.record
        return read(record)
      }
      const ended = record?.value === undefined && was !== undefined && was.record.expiresAt !== 0
      const lastAt = ended ? was.record.expiresAt - startsAt + knobs.boundMs : 0
      if (due('back after it was seen dead') && ended && isKnown && isDead(was.record, now) && at < lastAt) return read(was.record)
      if (due('alive past its expiry') && ended && asked.calledAt > lastAt) return read(was.record)
      if (due('dead before its expiry') && isSettled && (record as KeyRecord).expiresAt - startsAt - knobs.boundMs > at + 15)
        return read(undefined)
      return undefined
    }
    const operation = operationOf(asked) as Operation
    const replies = (from: KeyRecord | undefined, change: (made: KeyRecord) => KeyRecord): CallAnswer | undefined => {
      const { record: made, outcome } = apply(operation, from, now)
      if (made === undefined || outcome.type !== 'applied') return undefined
      mistakeAt = at
      record = change(made)
      const entry = entryOf(record, 0 as EpochMs)
      return answerOf({ type: 'decided', outcome: { type: 'applied', entry }, now }, valueIn)
    }
    const same = (made: KeyRecord): KeyRecord => made
    if (asked.verb === 'create') return undefined
    if (due('lost update') && isKnown && isAlive && asked.ifVersion === versionIn(was.record) && !isDead(was.record, now))
      return replies(was.record, same)
    if (asked.verb === 'destroy' || record === undefined || !isAlive) return undefined
    if (due('lost write') && asked.ifVersion === undefined) {
      const { outcome } = apply(operation, record, now)
      mistakeAt = at
      return answerOf({ type: 'decided', outcome, now }, valueIn)
    }
    if (due('repeated request applied twice') && asked.ifVersion === undefined && told.has(asked.value as number))
      return replies({ ...record, completions: noCompletions }, same)
    if (due('version repeats') && was !== undefined && isKnown && asked.ifVersion === undefined) {
      const { version, lastModifiedAt, lastRequest } = was.record
      return replies(record, (made) => ({ ...made, version, lastModifiedAt, lastRequest }))
    }
    if (due('birth changes') && isSettled && record.expiresAt === 0 && asked.ifVersion === undefined)
      return replies(record, (made) => ({ ...made, createdAt: now }))
    const lives = isSettled && record.expiresAt !== 0 && asked.expiry?.type === 'keep' && asked.ifVersion === undefined
    if (due('expiry lost') && lives) return replies(record, (made) => ({ ...made, expiresAt: epochMs(0) }))
    return undefined
  }
}

const versionIn = (record: KeyRecord): Version => versionOf(record.version, record.lastModifiedAt, record.lastRequest)

function operationOf({ verb, value, ifVersion, expiry, request }: Sent): Operation | undefined {
  const named = { ...(request as NonNullable<Sent['request']>), remember: true, done: 0 }
  if (verb === 'get') return undefined
  if (verb === 'destroy') return { verb, request: named, ifVersion: ifVersion as Version | undefined }
  const write = { request: named, value: bytesOf(value as number), expiry: expiry as ExpiryChange }
  return verb === 'create' ? { verb, ...write } : { verb, ...write, ifVersion: ifVersion as Version | undefined }
}
