/**
 * All mistakes to plant, by the room that they are in.
 * Source: docs, consistency, "Mutants to plant".
 */
import { bootMutants } from './mutants/boot.ts'
import { epochMutants } from './mutants/epochs.ts'
import type { Mutant } from './mutants/mutant.ts'
import { movesMutants } from './mutants/moves.ts'
import { outcomeMutants } from './mutants/outcomes.ts'
import { registerMutants } from './mutants/register.ts'
import { roundMutants } from './mutants/rounds.ts'
import { storageMutants } from './mutants/storage.ts'

export type { Mutant } from './mutants/mutant.ts'
export const mutants: readonly Mutant[] = [
  ...registerMutants,
  ...roundMutants,
  ...outcomeMutants,
  ...storageMutants,
  ...movesMutants,
  ...bootMutants,
  ...epochMutants,
]
