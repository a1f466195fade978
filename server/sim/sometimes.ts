/**
 * What has to happen now and then in an ordinary run: a rule that is never needed is a rule that is never tested.
 * Invariant: a run in which one of these never was fails; the types see to it that nothing that the shipping code counts is left out.
 * Source: docs, consistency, "Sometimes", in its words where there are any; without those of sites.
 */
import type { RegisterEvent } from '../register/work.ts'
import type { StorageEvent } from '../storage/marks.ts'
import type { Observed } from './observer.ts'

const meanings: Record<RegisterEvent | StorageEvent | Observed, string> = {
  // The register.
  'write-back': 'write-back',
  duel: 'duel',
  'floor-rejected': 'floor reject',
  'ceiling-raised': 'ceiling raised',
  'completion-hit': 'completion hit',
  'refusal-sealed': 'sealed negative',
  'floor-raised-by-eviction': 'floor raised by eviction',
  'ballot-ahead': 'ballot ahead of every clock adopted',
  'write-back-refused': 'own-ballot repair refused by floor or `purged`',
  'damage-healed': 'damaged key healed',
  'purged-rejected': 'late ACCEPT refused by `purged`',
  'late-joiner-accepted': 'late joiner forced through ACCEPT',
  'completion-hit-in-batch': 'same id twice in one batch',
  'batch-split-by-deadline': 'batch split by a deadline',
  'completion-hit-on-tombstone': 'completion hit on a tombstone',
  'completion-hit-on-expired': 'completion hit on an expired record',
  'too-old': 'operation dropped for age',
  'clock-withheld': 'answer withheld for the clock',
  'payload-fetched': 'the record came from another zone than the one that was asked for its payload',
  'expiry-sealed': 'the end of an entry was made chosen before it was told',
  'short-life-waited': 'nothing was decided on a life that may end before it is chosen (P15)',
  'record-locked': 'a record remembers as many requests as it may',
  hedge: 'a slow zone was asked a second time, or another one was',
  'read-proposed': 'a read had to go through a round',
  // Storage servers.
  'accept-in-freeze': 'ACCEPT during freeze',
  'handover-served-after-restart': 'B restarted right after the switch',
  'handover-aborted': 'aborted handover resumed',
  'stale-owner-contacted': 'stale owner contacted',
  'learner-met-difference': 'learner received a minority entry',
  'purge-confirmed': 'purge confirmed by all zones',
  'purge-delayed-by-difference': 'purge delayed by one that differs',
  'purge-delayed-by-silence': 'purge delayed by one that does not answer',
  'purge-delayed-by-promises': 'purge delayed by one that promised something, or does not know what',
  'closed-for-loss': 'closed for total loss',
  'stale-epoch-refused': 'a proxy with an old row was told the newer one',
  'learner-served': 'a learner votes again',
  'handover-served': 'a planned move came to its end',
  'shard-recovered': 'a loss was accepted',
  // An onlooker.
  'epoch-refused-after-lost-acceptance': 'an accept refused by epoch that had one acceptance from a lost store',
  'minority-older-than-purged': 'minority entry older than a purged one met',
  'late-seal-fenced-minority': 'expiry seal long after expiry that fenced a minority entry',
  'second-record-refused': 'equal ballot with another record refused, and a person told',
}

export const sometimesNames = Object.keys(meanings)
/** What each means, for the report. */
export const meaningOf = (name: string): string => meanings[name as keyof typeof meanings] ?? name
