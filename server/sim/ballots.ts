/**
 * An oracle of the laws of ballots: no two rounds make the same one, and its milliseconds are those of a clock.
 * Invariant: it looks at messages alone.
 * Why beside the checker: a ballot that two share, or that runs ahead of all clocks, does harm long after, and in few histories.
 * Source: register/DESIGN.md, O1 and O2; docs, consistency, "raising keeps the seen milliseconds".
 */
import type { Ballot, Prepare } from '../../core/wire/replica-message.ts'
import { ballotText } from '../register/ballot.ts'
import type { Site } from './site.ts'

/** Ballots that are remembered. */
const ballotsMax = 4_096

export class BallotOracle {
  readonly #site: Site
  /** By key and ballot: the round that made it. */
  readonly #rounds = new Map<string, string>()
  /** By key: the greatest milliseconds that an acceptor told. */
  readonly #toldMs = new Map<string, number>()

  constructor(site: Site) {
    this.#site = site
    site.taps.add((from, _, message) => {
      if (message.type === 'prepare') this.#prepare(from, message)
      if (message.type === 'rejected' && 'bound' in message) this.#bound(message.key, message.bound)
      return 'goes'
    })
  }

  #prepare(from: string, { key, id, ballot }: Prepare): void {
    const name = `${key} ${ballotText(ballot)}`
    const round = `${from} ${id}`
    const earlier = this.#rounds.get(name)
    if (earlier === undefined) {
      this.#rounds.set(name, round)
      if (this.#rounds.size > ballotsMax) this.#rounds.delete(this.#rounds.keys().next().value as string)
    } else if (earlier !== round)
      this.#site.alarms.push(`key ${key}: the rounds ${earlier} and ${round} have one ballot, ${ballotText(ballot)}`)
    const wall = this.#site.proxies.find((proxy) => proxy.name === from)?.clock.instant().wall ?? Infinity
    if (ballot.ms > Math.max(wall, this.#toldMs.get(key) ?? 0))
      this.#site.alarms.push(`key ${key}: the ballot ${ballotText(ballot)} is ahead of the clock of ${from} and of all that was told`)
  }

  #bound(key: string, { ms }: Ballot): void {
    this.#toldMs.set(key, Math.max(ms, this.#toldMs.get(key) ?? 0))
  }
}
