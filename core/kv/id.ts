/**
 * Unique names for requests, sessions and stores: one monotonic ULID factory a process.
 * Invariant: two calls never give the same name, in this process or in another.
 * Why one shared factory: `ulid()` asks for randomness character by character, some 100 us a call; a monotonic factory takes
 * half a microsecond (docs/decisions). Not pure: with `modify`, one of the two files of this room that may read clock and chance.
 */
import { monotonicFactory } from 'ulid'

/** How long names keep one time stamp, in milliseconds: a new one draws new randomness, and that is what costs. */
const stampMs = 1_000

const next = monotonicFactory()
let stamp = 0

/** A new ULID: 26 characters, rising within the process. Its time stamp is at most a second old. */
export function newId(): string {
  const now = Date.now()
  if (now - stamp >= stampMs) stamp = now
  return next(stamp)
}
