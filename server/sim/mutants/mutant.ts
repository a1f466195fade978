/**
 * Mistakes to plant in the register, each of which must be caught: by a directed transcript in the tests, and by random search.
 * Invariant: `find` is in `file` exactly once. The shipping code has no switch for any of them.
 * Source: docs, consistency, "Mutants to plant".
 */
export interface Mutant {
  readonly name: string
  readonly what: string
  readonly file: string
  readonly find: string
  readonly replace: string
  /** Random search need not find it: its interleaving is too rare. A transcript must. */
  readonly isRare?: true
}
