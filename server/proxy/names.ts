/**
 * Proxy names: what a request is called that its client gave no name: a session of the proxy itself, a sequence each. N1 of register/DESIGN.md.
 * Pure. Invariant: a sequence leaves a key's record as soon as a later request of this proxy is applied to it after it was answered.
 * Why a name at all: a round that came to nothing may have been accepted all the same, and the next round must know its own work again.
 */
import type { Operation, Request } from '../../core/record/operation.ts'
import type { Work } from '../register/work.ts'

export class ProxyNames {
  /** New at each start, as the proposer id is. */
  readonly session: string
  #sequence = 0

  constructor(proposerId: number) {
    this.session = `~${proposerId.toString(36)}`
  }

  /** Names the request of a work; `unanswered` are those of its key that have no answer, and holds this one from now on. */
  name(work: Work, unanswered: Set<number>): void {
    const sequence = ++this.#sequence
    unanswered.add(sequence)
    const request = new NamedHere(this.session, sequence, unanswered)
    work.operation = { ...work.operation, request } as Operation
  }
}

/** `done` is read when the request is applied, not when it came: on a key for which thousands wait it would be long out of date by then. */
class NamedHere implements Request {
  readonly session: string
  readonly sequence: number
  readonly remember = true
  readonly attempt = 1
  readonly #unanswered: ReadonlySet<number>

  constructor(session: string, sequence: number, unanswered: ReadonlySet<number>) {
    this.session = session
    this.sequence = sequence
    this.#unanswered = unanswered
  }

  get done(): number {
    const [lowest = 0] = this.#unanswered
    return lowest
  }
}
