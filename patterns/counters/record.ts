/**
 * The bytes of counts, windows and slots.
 * Pure. Invariant: what cannot be read is COUNTER_UNREADABLE, never an absent key: taking it for absent would sell every seat again.
 * Why an unknown field is unreadable: a release that does not know it would drop it with its next write.
 *
 *   0    magic 0x63 ('c')
 *   1    format version: 2 where sessions are remembered, else 1
 *   2    kind: 'n' count, 'w' window, 'g' slots
 *   3..  JSON
 *        n  v value, e epoch, x endsAt (absent: never), q requests
 *        w  i number of the newest sub-window, c counts (the newest first), q requests
 *        g  s slots [[owner, endsAt]]
 *        q  [[id, until, delta or null, value, epoch]], absent when there are none
 *        p  since version 2: [[session, done, until, [[sequence, delta or null, value, epoch]]]], absent when there are none
 *
 * Counts are decimal strings, so that numbers and bigints share one format. A release that changes the format raises the version and goes
 * on reading the one before; testdata/ holds golden records of each.
 */
import { jsonString } from '../../core/base/json.ts'
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import type { Codec } from '../../core/kv/codec.ts'
import { KvError } from '../../core/kv/errors.ts'
import { requestsOf, type Answer, type Requests } from './requests.ts'
import { CountRecord, WindowRecord, type SlotsRecord } from './rules.ts'

const magic = 0x63
/** The newest that is read. Written is the oldest that can say it, so that a release before reads what it can. */
export const formatVersion = 2
const headerBytes = 3

/** Of a bigint: more than any currency, few enough to bound a record. */
export const digitsMax = 255

const decoder = new TextDecoder('utf-8', { fatal: true })

type Fields = Readonly<Record<string, unknown>>

export const countCodec: Codec<CountRecord> = codecOf({
  name: 'count',
  kind: 'n',
  fields: ['v', 'e', 'x', 'q'],
  version: ({ requests }) => versionOf(requests),
  write: ({ value, epoch, endsAt, requests }) =>
    `"v":"${value}","e":${epoch}${endsAt === 0 ? '' : `,"x":${endsAt}`}${requestsJson(requests)}`,
  read: ({ v, e, x = 0, q, p }) =>
    new CountRecord(wholeOf(e, 'its epoch'), bigintOf(v), epochMs(wholeOf(x, 'its end')), requestsFrom(q, p)),
})

export const windowCodec: Codec<WindowRecord> = codecOf({
  name: 'window',
  kind: 'w',
  fields: ['i', 'c', 'q'],
  version: ({ requests }) => versionOf(requests),
  write: ({ newest, counts, requests }) => `"i":${newest},"c":[${counts.map((count) => `"${count}"`).join(',')}]${requestsJson(requests)}`,
  read: ({ i, c, q, p }) => new WindowRecord(wholeOf(i, 'its newest sub-window'), listOf(c).map(bigintOf), requestsFrom(q, p)),
})

export const slotsCodec: Codec<SlotsRecord> = codecOf({
  name: 'slots',
  kind: 'g',
  fields: ['s'],
  version: () => 1,
  write: ({ slots }) => `"s":[${slots.map(({ owner, endsAt }) => `[${jsonString(owner)},${endsAt}]`).join(',')}]`,
  read: ({ s }) => ({
    slots: listOf(s).map((slot) => {
      const [owner, endsAt] = listOf(slot, 2)
      return { owner: stringOf(owner), endsAt: epochMs(wholeOf(endsAt, 'the end of a lease')) }
    }),
  }),
})

interface Format<R> {
  readonly name: string
  readonly kind: string
  /** Of version 1. */
  readonly fields: readonly string[]
  /** The oldest version that can say the record. */
  version(record: R): number
  /** The members of the JSON. */
  write(record: R): string
  read(fields: Fields): R
}

function codecOf<R>({ name, kind, fields: known, version, write, read }: Format<R>): Codec<R> {
  return Object.freeze({
    name,
    encode(record: R): Uint8Array {
      const json = `{${write(record)}}`
      const bytes = Buffer.allocUnsafe(headerBytes + Buffer.byteLength(json))
      bytes[0] = magic
      bytes[1] = version(record)
      bytes[2] = kind.charCodeAt(0)
      bytes.write(json, headerBytes)
      return bytes
    },
    decode(bytes: Uint8Array): R {
      if (bytes[0] !== magic) return unreadable('it does not begin as a count')
      const format = bytes[1]
      if (format === undefined || format < 1 || format > formatVersion)
        return unreadable(`its format version is ${format ?? 'missing'}, this release reads 1 to ${formatVersion}`)
      if (bytes[2] !== kind.charCodeAt(0)) return unreadable(`it is no ${name}`)
      let fields: unknown
      try {
        fields = JSON.parse(decoder.decode(bytes.subarray(headerBytes)))
      } catch (cause) {
        return unreadable('its JSON is damaged', cause)
      }
      if (typeof fields !== 'object' || fields === null) return unreadable('its JSON is no object')
      const unknown = Object.keys(fields).find((field) => !known.includes(field) && !(format > 1 && field === 'p'))
      if (unknown !== undefined) return unreadable(`it has a field ${JSON.stringify(unknown)}`)
      return read(fields as Fields)
    },
  })
}

const versionOf = ({ sessions }: Requests): number => (sessions.length === 0 ? 1 : 2)

const answerJson = ({ delta, value, epoch }: Answer): string => `${delta === undefined ? 'null' : `"${delta}"`},"${value}",${epoch}`

function requestsJson({ list, sessions }: Requests): string {
  const ids = list.map((one) => `[${jsonString(one.id)},${one.until},${answerJson(one)}]`)
  const each = sessions.map(
    ({ session, done, until, applied }) =>
      `[${jsonString(session)},${done},${until},[${applied.map((one) => `[${one.sequence},${answerJson(one)}]`).join(',')}]]`,
  )
  return `${ids.length === 0 ? '' : `,"q":[${ids.join(',')}]`}${each.length === 0 ? '' : `,"p":[${each.join(',')}]`}`
}

function requestsFrom(q: unknown = [], p: unknown = []): Requests {
  const answerOf = (delta: unknown, value: unknown, epoch: unknown): Answer => ({
    value: bigintOf(value),
    epoch: wholeOf(epoch, 'the epoch of a request'),
    ...(delta === null ? undefined : { delta: bigintOf(delta) }),
  })
  const untilOf = (until: unknown): EpochMs => epochMs(wholeOf(until, 'an end of memory'))
  return requestsOf(
    listOf(q).map((one) => {
      const [id, until, delta, value, epoch] = listOf(one, 5)
      return { id: stringOf(id), until: untilOf(until), ...answerOf(delta, value, epoch) }
    }),
    listOf(p).map((one) => {
      const [session, done, until, applied] = listOf(one, 4)
      return {
        session: stringOf(session),
        done: wholeOf(done, 'what a session is done with'),
        until: untilOf(until),
        applied: listOf(applied).map((request) => {
          const [sequence, delta, value, epoch] = listOf(request, 4)
          return { sequence: wholeOf(sequence, 'a sequence'), ...answerOf(delta, value, epoch) }
        }),
      }
    }),
  )
}

const decimal = /^(?:0|-?[1-9]\d{0,254})$/
const bigintOf = (value: unknown): bigint =>
  typeof value === 'string' && decimal.test(value) ? BigInt(value) : unreadable('a count is no whole number')

const wholeOf = (value: unknown, what: string): EpochMs =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? epochMs(value) : unreadable(`${what} is no whole number`)

const stringOf = (value: unknown): string => (typeof value === 'string' ? value : unreadable('a name is no string'))

const listOf = (value: unknown, length?: number): readonly unknown[] =>
  Array.isArray(value) && (length === undefined || value.length === length) ? value : unreadable('a list is missing or damaged')

function unreadable(why: string, cause?: unknown): never {
  const message = `the stored count cannot be read: ${why}`
  throw new KvError('COUNTER_UNREADABLE', cause === undefined ? { message } : { message, cause })
}
