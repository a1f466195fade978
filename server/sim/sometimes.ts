/**
 * What has to happen now and then in an ordinary run: a rule that is never needed is a rule that is never tested.
 * Invariant: a run in which one of these never was fails.
 */
import type { RegisterEvent } from '../register/work.ts'

export const sometimesNames = [
  'duel',
  'ballot-ahead',
  'payload-fetched',
  'completion-hit',
  'completion-hit-in-batch',
  'completion-hit-on-tombstone',
  'completion-hit-on-expired',
  'refusal-sealed',
  'expiry-sealed',
  'late-joiner-accepted',
  'batch-split-by-deadline',
  'too-old',
  'clock-withheld',
  'record-locked',
  'hedge',
  'write-back',
  'write-back-refused',
  'read-proposed',
  'ceiling-raised',
  'floor-rejected',
  'purged-rejected',
  'floor-raised-by-eviction',
  'damage-healed',
] as const satisfies readonly RegisterEvent[]
