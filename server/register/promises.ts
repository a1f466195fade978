/**
 * The promises of one replica that no accepted entry carries yet.
 * Pure. Invariant: for each key the bound that `of` gives never falls: what leaves the table raises the floor (R12).
 * Why a bound at all: each PREPARE of a new key adds a row, and keys are the clients'.
 */
import { Heap } from '../../core/base/collections.ts'
import { compareBallots, isBelow, maxBallot, noBallot, type Ballot } from './ballot.ts'

interface Row {
  readonly key: string
  readonly ballot: Ballot
}

export class PromiseTable {
  readonly #rowsMax: number
  readonly #rows = new Map<string, Row>()
  readonly #lowest = new Heap<Row>((a, b) => compareBallots(a.ballot, b.ballot))
  #forgotten: Ballot
  #refused: Ballot = noBallot
  #evictions = 0

  /** @param rowsMax at least 1 */
  constructor(rowsMax: number, floor: Ballot) {
    this.#rowsMax = rowsMax
    this.#forgotten = floor
  }

  get floor(): Ballot {
    return maxBallot(this.#forgotten, this.#refused)
  }
  /** Of any key something up to here may have been promised that is not in the table. */
  get forgotten(): Ballot {
    return this.#forgotten
  }
  get size(): number {
    return this.#rows.size
  }
  /** Rows in memory, those that left and were not yet dropped included. */
  get held(): number {
    return this.#lowest.size
  }
  /** How often a promise went to make room. */
  get evictions(): number {
    return this.#evictions
  }

  /** The promise of a key; `noBallot` when there is none beyond the floor. */
  of(key: string): Ballot {
    return this.#rows.get(key)?.ballot ?? noBallot
  }

  /** Remembers a promise that is above all that `of` and `floor` give. */
  make(key: string, ballot: Ballot): void {
    const row = { key, ballot }
    this.#rows.set(key, row)
    this.#lowest.push(row)
    while (this.#rows.size > this.#rowsMax) this.#evict()
    if (this.#lowest.size > 2 * this.#rowsMax + 8) this.#rebuild()
  }

  /** An accepted entry carries the ballot from now on. A promise above it stays. */
  fulfil(key: string, accepted: Ballot): void {
    const row = this.#rows.get(key)
    if (row !== undefined && !isBelow(accepted, row.ballot)) this.#rows.delete(key)
  }

  raiseFloor(to: Ballot): void {
    this.#forgotten = maxBallot(this.#forgotten, to)
  }

  /** Raises the floor without that anything was forgotten. */
  refuse(upTo: Ballot): void {
    this.#refused = maxBallot(this.#refused, upTo)
  }

  #evict(): void {
    const row = this.#lowest.pop()
    if (row === undefined || this.#rows.get(row.key) !== row) return
    this.#rows.delete(row.key)
    this.#evictions++
    this.raiseFloor(row.ballot)
  }

  /** Rows that left are dropped when they come up; with too many of them it is made anew. */
  #rebuild(): void {
    this.#lowest.clear()
    for (const row of this.#rows.values()) this.#lowest.push(row)
  }
}
