/**
 * The promises of one replica that no accepted entry carries yet.
 * Pure. Invariant: for each key the bound that `of` gives never falls: what leaves the table raises the floor (R12).
 * Why a bound at all: each PREPARE of a new key adds a row, and keys are the clients'.
 */
import { isBelow, maxBallot, noBallot, type Ballot } from './ballot.ts'

interface Row {
  readonly key: string
  readonly ballot: Ballot
}

export class PromiseTable {
  readonly #rowsMax: number
  readonly #rows = new Map<string, Row>()
  /** A binary heap, lowest ballot first; rows that left `#rows` are dropped when they come up. */
  #heap: Row[] = []
  #floor: Ballot
  #evictions = 0

  /** @param rowsMax at least 1 */
  constructor(rowsMax: number, floor: Ballot) {
    this.#rowsMax = rowsMax
    this.#floor = floor
  }

  get floor(): Ballot {
    return this.#floor
  }
  get size(): number {
    return this.#rows.size
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
    this.#push(row)
    while (this.#rows.size > this.#rowsMax) this.#evict()
    if (this.#heap.length > 2 * this.#rowsMax + 8) this.#rebuild()
  }

  /** An accepted entry carries the ballot from now on. A promise above it stays. */
  fulfil(key: string, accepted: Ballot): void {
    const row = this.#rows.get(key)
    if (row !== undefined && !isBelow(accepted, row.ballot)) this.#rows.delete(key)
  }

  raiseFloor(to: Ballot): void {
    this.#floor = maxBallot(this.#floor, to)
  }

  #evict(): void {
    const row = this.#pop()
    if (this.#rows.get(row.key) !== row) return
    this.#rows.delete(row.key)
    this.#evictions++
    this.raiseFloor(row.ballot)
  }

  #push(row: Row): void {
    const heap = this.#heap
    let at = heap.push(row) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!isBelow(row.ballot, (heap[parent] as Row).ballot)) break
      heap[at] = heap[parent] as Row
      at = parent
    }
    heap[at] = row
  }

  #pop(): Row {
    const heap = this.#heap
    const top = heap[0] as Row
    const last = heap.pop() as Row
    if (heap.length === 0) return top
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBelow((heap[child + 1] as Row).ballot, (heap[child] as Row).ballot)) child++
      if (!isBelow((heap[child] as Row).ballot, last.ballot)) break
      heap[at] = heap[child] as Row
      at = child
    }
    heap[at] = last
    return top
  }

  #rebuild(): void {
    this.#heap = []
    for (const row of this.#rows.values()) this.#push(row)
  }
}

