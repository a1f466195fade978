/**
 * Assertions about our own code. Input from outside is never asserted: it is refused with a KvError.
 * Pure. Why they stay on in production: a store that knows it is wrong must stop, not go on.
 */

/** A broken law of our own: a bug in hapax. */
export class AssertionError extends Error {
  override readonly name = 'AssertionError'
}

/** Stops with `law` (a sentence that says what must hold) unless `condition` holds. */
export function assert(condition: unknown, law: string): asserts condition {
  if (!condition) throw new AssertionError(`hapax is broken: ${law}. Please report this.`)
}

/** For the default branch of a switch: a new member of the union does not compile until it is handled. */
export function unreachable(value: never): never {
  throw new AssertionError(`hapax is broken: unexpected ${JSON.stringify(value)}`)
}
