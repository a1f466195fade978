/**
 * The bytes of counts, windows and slots.
 * Pure. Invariant: what cannot be read is COUNTER_UNREADABLE, never an absent key: taking it for absent would sell every seat again.
 * Why an unknown field is unreadable: a release that does not know it would drop it with its next write.
 *
 *   0    magic 0x63 ('c')
 *   1    format version: 1
 *   2    kind: 'n' count, 'w' window, 'g' slots
 *   3..  JSON
 *        n  v value, e epoch, x endsAt (absent: never), q requests
 *        w  i number of the newest sub-window, c counts (the newest first), q requests
 *        g  s slots [[owner, endsAt]]
 *        q  [[id, until, delta or null, value, epoch]], absent when there are none
 *
 * Counts are decimal strings, so that numbers and bigints share one format. A release that changes the format raises the version and goes
 * on reading the one before; testdata/ holds golden records of each.
 */
import { jsonString } from '../../core/base/json.ts'
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import type { Codec } from '../../core/kv/codec.ts'
import { KvError } from '../../core/kv/errors.ts'
import { noRequests, requestsOf, type CountRecord, type Remembered, type Requests, type SlotsRecord, type WindowRecord } from './rules.ts'

const magic = 0x63
export const formatVersion = 1
const headerBytes = 3

/** Of a bigint: more than any currency, few enough to bound a record. */
export const digitsMax = 255

const decoder = new TextDecoder('utf-8', { fatal: true })

type Fields = Readonly<Record<string, unknown>>

export const countCodec: Codec<CountRecord> = codecOf({
  name: 'count',
  kind: 'n',
  fields: ['v', 'e', 'x', 'q'],
  write: ({ value, epoch, endsAt, requests }) =>
    `"v":"${value}","e":${epoch}${endsAt === 0 ? '' : `,"x":${endsAt}`}${requestsJson(requests)}`,
  read: ({ v, e, x = 0, q }) => ({
    epoch: wholeOf(e, 'its epoch'),
    value: bigintOf(v),
    endsAt: epochMs(wholeOf(x, 'its end')),
    requests: requestsFrom(q),
  }),
})

export const windowCodec: Codec<WindowRecord> = codecOf({
  name: 'window',
  kind: 'w',
  fields: ['i', 'c', 'q'],
  write: ({ newest, counts, requests }) => `"i":${newest},"c":[${counts.map((count) => `"${count}"`).join(',')}]${requestsJson(requests)}`,
  read: ({ i, c, q }) => ({ newest: wholeOf(i, 'its newest sub-window'), counts: listOf(c).map(bigintOf), requests: requestsFrom(q) }),
})

export const slotsCodec: Codec<SlotsRecord> = codecOf({
  name: 'slots',
  kind: 'g',
  fields: ['s'],
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
  readonly fields: readonly string[]
  /** The members of the JSON. */
  write(record: R): string
  read(fields: Fields): R
}

function codecOf<R>({ name, kind, fields: known, write, read }: Format<R>): Codec<R> {
  return Object.freeze({
    name,
    encode(record: R): Uint8Array {
      const json = `{${write(record)}}`
      const bytes = Buffer.allocUnsafe(headerBytes + Buffer.byteLength(json))
      bytes[0] = magic
      bytes[1] = formatVersion
      bytes[2] = kind.charCodeAt(0)
      bytes.write(json, headerBytes)
      return bytes
    },
    decode(bytes: Uint8Array): R {
      if (bytes[0] !== magic) return unreadable('it does not begin as a count')
      if (bytes[1] !== formatVersion)
        return unreadable(`its format version is ${bytes[1] ?? 'missing'}, this release reads ${formatVersion}`)
      if (bytes[2] !== kind.charCodeAt(0)) return unreadable(`it is no ${name}`)
      let fields: unknown
      try {
        fields = JSON.parse(decoder.decode(bytes.subarray(headerBytes)))
      } catch (cause) {
        return unreadable('its JSON is damaged', cause)
      }
      if (typeof fields !== 'object' || fields === null) return unreadable('its JSON is no object')
      const unknown = Object.keys(fields).find((field) => !known.includes(field))
      if (unknown !== undefined) return unreadable(`it has a field ${JSON.stringify(unknown)}`)
      return read(fields as Fields)
    },
  })
}

function requestsJson({ list }: Requests): string {
  if (list.length === 0) return ''
  const each = list.map(
    ({ id, until, delta, value, epoch }) =>
      `[${jsonString(id)},${until},${delta === undefined ? 'null' : `"${delta}"`},"${value}",${epoch}]`,
  )
  return `,"q":[${each.join(',')}]`
}

function requestsFrom(value: unknown): Requests {
  if (value === undefined) return noRequests
  return requestsOf(
    listOf(value).map((one): Remembered => {
      const [id, until, delta, counted, epoch] = listOf(one, 5)
      return {
        id: stringOf(id),
        until: epochMs(wholeOf(until, 'an end of memory')),
        value: bigintOf(counted),
        epoch: wholeOf(epoch, 'the epoch of a request'),
        ...(delta === null ? undefined : { delta: bigintOf(delta) }),
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
