/**
 * One deadline for all: those that came first end first, so one timer serves them all.
 * Invariant: who is removed is not told, and holds nobody else.
 * Why a list through its members and not a Set: a Set that is filled and emptied all the time makes new tables, an old one that is not
 * collected yet keeps the next ones, and the collector copies all that they hold (measured: half of the time).
 */
export interface Timed {
  /** Local milliseconds. */
  readonly endsAt: number
  before: Timed | undefined
  behind: Timed | undefined
}

export class Deadlines<Member extends Timed> {
  readonly #elapsed: () => number
  readonly #after: (ms: number, run: () => void) => unknown
  readonly #onEnd: (member: Member) => void
  #first: Timed | undefined
  #last: Timed | undefined
  #hasTimer = false

  /** `onEnd` must remove the member. */
  constructor(elapsed: () => number, after: (ms: number, run: () => void) => unknown, onEnd: (member: Member) => void) {
    this.#elapsed = elapsed
    this.#after = after
    this.#onEnd = onEnd
  }

  /** It ends when all those that were added before have ended, or later. */
  add(member: Member, ms: number): void {
    member.before = this.#last
    if (this.#last === undefined) this.#first = member
    else this.#last.behind = member
    this.#last = member
    if (!this.#hasTimer) this.#start(ms)
  }

  /** Of one that is not there: nothing. */
  remove(member: Member): void {
    const { before, behind } = member
    if (before !== undefined) before.behind = behind
    else if (this.#first === member) this.#first = behind
    else return
    if (behind === undefined) this.#last = before
    else behind.before = before
    member.before = undefined
    member.behind = undefined
  }

  #start(ms: number): void {
    this.#hasTimer = true
    this.#after(ms, () => {
      this.#hasTimer = false
      const now = this.#elapsed()
      for (let first = this.#first; first !== undefined; first = this.#first) {
        if (first.endsAt > now) return this.#start(first.endsAt - now)
        this.#onEnd(first as Member)
      }
    })
  }
}
