/**
 * What has to happen now and then in an ordinary run: a rule that is never needed is a rule that is never tested.
 * Invariant: a run in which one of these never was fails.
 */
export const sometimesNames = ['write-back', 'duel', 'floor-reject', 'ceiling-raise', 'completion-hit', 'floor-raised-by-eviction'] as const
export type Sometimes = (typeof sometimesNames)[number]
