/**
 * Unique names for requests, sessions and stores: the first 22 characters of a ULID, which hold time and 60 bits of chance, and a count.
 * Invariant: two calls never give the same name, in this process or in another.
 * Why a count: every write without a request id takes a name. `ulid()` asks for randomness character by character, some 100 us a call,
 * and a monotonic factory adds one to a text, half a microsecond (docs/decisions/0003). Not pure: with `modify`, one of the two files of
 * this room that may read clock and chance.
 */
import { monotonicFactory } from 'ulid'

const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const pairs = Array.from({ length: 1_024 }, (_, index) => `${alphabet[index >> 5]}${alphabet[index & 31]}`)
const pairOf = (number: number): string => pairs[number & 1_023] as string

/** How long names keep one stem, in milliseconds: a new one draws new randomness, and that is what costs. */
const stemMs = 1_000
const stemLength = 22
/** Names of one stem: as many as the other four characters count. */
const countMax = 1_048_576

const next = monotonicFactory()
let stamp = 0
let stem = ''
let count = countMax

/** A new ULID: 26 characters, rising within the process. Its time stamp is at most a second old. */
export function newId(): string {
  const now = Date.now()
  if (now - stamp >= stemMs || count === countMax) {
    stamp = Math.max(now, stamp + 1) // never the same stamp again, also after the clock stepped back: the factory would only add one
    stem = next(stamp).slice(0, stemLength)
    count = 0
  }
  const at = count++
  return stem + pairOf(at >> 10) + pairOf(at)
}
