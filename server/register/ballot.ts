/**
 * Ballots and quorums.
 * Pure. Invariant: ballots are totally ordered, and no two proposers ever make the same one.
 * Why `raise` keeps the milliseconds and adds to the counter: whoever outbids a ballot that a fast clock made must not carry the
 * clock's fault on into milliseconds of its own; three rules read them as time (DESIGN.md, O2).
 */
import { assert } from '../../core/base/assert.ts'
import type { Ballot } from '../../core/wire/replica-message.ts'

export type { Ballot } from '../../core/wire/replica-message.ts'

/** Below every ballot that a proposer makes. */
export const noBallot: Ballot = Object.freeze({ ms: 0, counter: 0, proposer: 0 })

/** Negative: `a` is below `b`. */
export const compareBallots = (a: Ballot, b: Ballot): number => a.ms - b.ms || a.counter - b.counter || a.proposer - b.proposer
export const isBelow = (a: Ballot, b: Ballot): boolean => compareBallots(a, b) < 0
export const isAtMost = (a: Ballot, b: Ballot): boolean => compareBallots(a, b) <= 0
export const sameBallot = (a: Ballot, b: Ballot): boolean => a.ms === b.ms && a.counter === b.counter && a.proposer === b.proposer
export const maxBallot = (a: Ballot, b: Ballot): Ballot => (isBelow(a, b) ? b : a)

/** 2^48 - 1: at a million ballots a second it lasts nine years. */
const counterMax = 2 ** 48 - 1

/**
 * The ballots of one process. No two are the same, also for one key and after a step of the clock: the counter only rises.
 * Without that, a proposer that forgot a key and sees it again would outbid the same ballot in the same way, with another record.
 */
export class Ballots {
  readonly #proposer: number
  #counter = 0

  /** @param proposer 1 to 2^48 - 1, new at each start of the process */
  constructor(proposer: number) {
    assert(Number.isSafeInteger(proposer) && proposer > 0 && proposer < 2 ** 48, 'a proposer id has 48 bits and is not 0')
    this.#proposer = proposer
  }

  /** A new ballot above `seen` at the wall-clock time `now`. */
  above(seen: Ballot, now: number): Ballot {
    this.#counter++
    const ms = Math.max(seen.ms, now)
    if (ms === seen.ms && this.#counter <= seen.counter) this.#counter = seen.counter + 1
    assert(this.#counter <= counterMax, 'a process makes fewer ballots than its counter holds')
    return { ms, counter: this.#counter, proposer: this.#proposer }
  }
}

/** The greatest ballot of a millisecond that is `ms` after another's: what a ceiling is raised to. */
export const ballotAfter = (ballot: Ballot, ms: number): Ballot => ({ ...ballot, ms: ballot.ms + ms })

/** The next ballot of anybody. */
export const justAbove = (ballot: Ballot): Ballot => ({ ...ballot, counter: ballot.counter + 1 })

export const ballotText = ({ ms, counter, proposer }: Ballot): string => `${ms}.${counter}.${proposer}`

/** Zones a cluster may have: fixed for its life, because a quorum of 3 and one of 5 can be disjoint. */
export const zoneCounts: readonly number[] = [1, 3, 5]
/** floor(N/2)+1: two quorums of a shard always share a zone (JunoDB's A20). */
export const quorumOf = (zones: number): number => Math.floor(zones / 2) + 1
/** Voting members that a learner must copy, so that every quorum that excludes the learner shares one with them. */
export const sourcesOf = (zones: number): number => zones - quorumOf(zones) + 1
