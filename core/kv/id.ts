/**
 * Unique names for requests, sessions and stores: one monotonic ULID factory a process.
 * Invariant: two calls never give the same name, in this process or in another.
 * Why one shared factory: `ulid()` asks for randomness character by character, some 100 us a call; a monotonic factory takes
 * half a microsecond (docs/decisions). Not pure: with `modify`, one of the two files of this room that may read clock and chance.
 */
import { monotonicFactory } from 'ulid'

/** A new ULID: 26 characters, rising within the process. */
export const newId: () => string = monotonicFactory()
