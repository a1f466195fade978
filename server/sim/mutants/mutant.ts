/**
 * Mistakes to plant in the register, each of which must be caught: by a directed transcript in the tests, and by random search.
 * Invariant: each `find` is in its `file` exactly once. The shipping code has no switch for any of them.
 * Source: docs, consistency, "Mutants to plant".
 */
import type { PageItem } from './page.ts'

export interface Patch {
  readonly file: string
  readonly find: string
  readonly replace: string
}

export interface Mutant extends Patch {
  readonly name: string
  readonly what: string
  /** A second place that the same mistake needs. */
  readonly also?: Patch
  /** The file of directed tests one of which fails with it. Undefined: transcripts do, server/register/testdata. */
  readonly killedBy?: string
  /** Items of the page's list, in its words, that it is. */
  readonly page?: readonly PageItem[]
  /** Random search need not find it: its interleaving is too rare. A transcript must. */
  readonly isRare?: true
}
