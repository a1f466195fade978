/**
 * An oracle of the promise itself: what a client is told was applied is in a record that a quorum accepted, within one epoch.
 * Invariant: it looks at messages and answers alone, and calls nothing wrong of a request that no ACCEPT carried: its answer changed nothing.
 * Why beside the checker: who is told too soon is mostly lucky, and the state is chosen a moment later.
 * Source: register/DESIGN.md, P3 and "The argument".
 */
import { noCompletions, type KeyRecord } from '../../core/record/record.ts'
import type { Accept, Ballot } from '../../core/wire/replica-message.ts'
import { ballotText, quorumOf } from '../register/ballot.ts'
import type { Answer, Work } from '../register/work.ts'
import { remember } from './remember.ts'
import type { Site } from './site.ts'

/** Of each kind of thing that is remembered. */
const rememberedMax = 16_384

export class ToldOracle {
  readonly #site: Site
  /** By proxy and id: the accept that an answer belongs to. */
  readonly #asked = new Map<string, Accept>()
  /** By key and ballot: its record. */
  readonly #records = new Map<string, KeyRecord>()
  /** By key, ballot and epoch: the zones that hold it. */
  readonly #zones = new Map<string, Set<number>>()
  /** Requests that an ACCEPT carried, by key; and those that a quorum holds. */
  readonly #sent = new Map<string, true>()
  readonly #held = new Map<string, true>()
  /** By key and session: the sequence below which all left a record that a quorum holds, for their client says that they are done. */
  readonly #below = new Map<string, number>()

  constructor(site: Site) {
    this.#site = site
    site.taps.add((from, to, message) => {
      if (message.type === 'accept') this.#accept(from, message)
      if (message.type === 'accepted') {
        const asked = this.#asked.get(`${to} ${message.id}`)
        if (asked?.key === message.key) this.#hold(message.key, asked.ballot, message)
      }
      if ((message.type === 'promised' || message.type === 'shown') && message.entry) this.#hold(message.key, message.entry.ballot, message)
      return 'goes'
    })
    site.onAnswer = (proxy, key, work, answer) => this.#told(proxy, key, work, answer)
  }

  #accept(from: string, message: Accept): void {
    const { key, ballot, record } = message
    remember(this.#asked, `${from} ${message.id}`, message, rememberedMax)
    remember(this.#records, `${key} ${ballotText(ballot)}`, record, rememberedMax)
    for (const { session, sequence } of record.completions.entries)
      remember(this.#sent, nameOf(key, session, sequence), true, rememberedMax)
  }

  #hold(key: string, ballot: Ballot, { zone, epoch }: { readonly zone: number; readonly epoch: number }): void {
    const id = `${key} ${ballotText(ballot)}`
    const zones = this.#zones.get(`${id} ${epoch}`) ?? new Set()
    if (zones.has(zone)) return
    remember(this.#zones, `${id} ${epoch}`, zones.add(zone), rememberedMax)
    if (zones.size < quorumOf(this.#site.knobs.zones)) return
    const { entries, marks } = this.#records.get(id)?.completions ?? noCompletions
    for (const { session, sequence } of entries) remember(this.#held, nameOf(key, session, sequence), true, rememberedMax)
    for (const { session, below } of marks) {
      const name = `${key} ${session}`
      remember(this.#below, name, Math.max(below, this.#below.get(name) ?? 0), rememberedMax)
    }
  }

  #told(proxy: string, key: string, { operation }: Work, answer: Answer): void {
    if (operation === undefined || answer.type !== 'decided' || answer.outcome.type !== 'applied') return
    // Nothing was there to destroy, in this round: nothing says so in a record.
    if (answer.outcome.entry === undefined) return
    const { session, sequence } = operation.request
    const name = nameOf(key, session, sequence)
    const isDone = sequence < (this.#below.get(`${key} ${session}`) ?? 0)
    if (this.#sent.has(name) && !this.#held.has(name) && !isDone)
      this.#site.alarms.push(`key ${key}: ${proxy} told that ${session}/${sequence} is applied before a quorum of one epoch held it`)
  }
}

const nameOf = (key: string, session: string, sequence: number): string => `${key} ${session} ${sequence}`
