/**
 * An oracle of the register's own laws: a ballot has one record, and what a quorum accepted is what every later ballot builds on.
 * Invariant: it looks at messages alone, and calls nothing wrong that the page allows: a dead state may be forgotten once it may be purged.
 * Why beside the checker: a chosen state that is lost is a fault also when no client was told of it yet, so it is seen much sooner.
 * Source: register/DESIGN.md, "The argument".
 */
import { digestOf } from '../../core/record/digest.ts'
import type { KeyRecord } from '../../core/record/record.ts'
import type { Accept, Accepted, Ballot } from '../../core/wire/replica-message.ts'
import { isBelow, quorumOf, sameBallot } from '../register/ballot.ts'
import { wallStart } from './clock.ts'
import { scaledBoundMs } from './scale.ts'
import { remember } from './remember.ts'
import type { Site } from './site.ts'

interface Sent {
  readonly ballot: Ballot
  readonly record: KeyRecord
}
interface Chosen extends Sent {
  readonly epoch: number
}

/** Of each kind of thing that is remembered by name. */
const rememberedMax = 8_192
/** Accepts of a key that are remembered. A ballot that is chosen so late would have timed out long before. */
const sentMax = 256

export class ChosenOracle {
  readonly #site: Site
  /** By proxy and id: the accept that an answer belongs to. */
  readonly #asked = new Map<string, Accept>()
  readonly #sent = new Map<string, Sent[]>()
  /** By key, ballot and epoch: the zones that accepted. */
  readonly #zones = new Map<string, Set<number>>()
  readonly #chosen = new Map<string, Chosen>()

  constructor(site: Site) {
    this.#site = site
    site.taps.add((from, to, message) => {
      if (message.type === 'accept') this.#accept(from, message)
      if (message.type === 'accepted') this.#accepted(to, message)
      return 'goes'
    })
  }

  #accept(from: string, message: Accept): void {
    const { key, ballot, record } = message
    remember(this.#asked, `${from} ${message.id}`, message, rememberedMax)
    const sent = this.#sent.get(key) ?? []
    const known = sent.find((one) => sameBallot(one.ballot, ballot))
    if (known !== undefined) {
      if (known.record !== record && digestOf(known.record) !== digestOf(record))
        this.#site.alarms.push(`key ${key}: ${textOf(known.record)} and ${textOf(record)} are two records under one ballot`)
      return
    }
    sent.push({ ballot, record })
    if (sent.length > sentMax) sent.shift()
    this.#sent.set(key, sent)
    const chosen = this.#chosen.get(key)
    if (chosen === undefined) return
    this.#compare(key, chosen, { ballot, record })
    // A create that is repeated, however late, is known by its name in the life that it began.
    const { originator, createdAt } = chosen.record
    if (record.originator !== originator || record.createdAt === createdAt || this.#isOutOfSight(chosen, ballot)) return
    const mayLieBetween = sent.some(
      (one) => one.record.originator !== originator && isBelow(chosen.ballot, one.ballot) && isBelow(one.ballot, ballot),
    )
    if (mayLieBetween) return
    this.#site.alarms.push(`key ${key}: ${textOf(record)} begins a life for the second time, after ${textOf(chosen.record)}`)
  }

  #accepted(to: string, { id, key, zone, epoch }: Accepted): void {
    const asked = this.#asked.get(`${to} ${id}`)
    if (asked === undefined || asked.key !== key) return
    const { ballot, record } = asked
    const name = `${key} ${epoch} ${ballot.ms} ${ballot.counter} ${ballot.proposer}`
    const zones = this.#zones.get(name) ?? new Set()
    remember(this.#zones, name, zones.add(zone), rememberedMax)
    if (zones.size !== quorumOf(this.#site.knobs.zones)) return
    const chosen = { ballot, record, epoch }
    for (const later of this.#sent.get(key) ?? []) this.#compare(key, chosen, later)
    const before = this.#chosen.get(key)
    if (before === undefined || isBelow(before.ballot, ballot)) this.#chosen.set(key, chosen)
  }

  #compare(key: string, { ballot, record: known, epoch }: Chosen, later: Sent): void {
    if (this.#isOutOfSight({ ballot, record: known }, later.ballot)) return
    const { record } = later
    const isSame = record.lastModifiedAt === known.lastModifiedAt && record.lastRequest === known.lastRequest
    const isLater = record.lastModifiedAt > known.lastModifiedAt && (record.createdAt !== known.createdAt || record.version > known.version)
    if (!isSame && !isLater)
      this.#site.alarms.push(
        `key ${key}: ${textOf(known)} was chosen in epoch ${epoch}, and ${textOf(record)} under a later ballot does not build on it`,
      )
  }

  /** After an accepted loss nothing is promised of what was before. */
  #isOutOfSight({ ballot, record }: Sent, later: Ballot): boolean {
    return this.#site.seamAt !== undefined || !isBelow(ballot, later) || this.#mayBeForgotten(record)
  }

  /** Dead for as long as a purge waits, by the slowest clock. */
  #mayBeForgotten({ value, expiresAt, changedAt }: KeyRecord): boolean {
    if (value !== undefined && expiresAt === 0) return false
    const diesAt = value === undefined ? changedAt : Math.max(expiresAt, changedAt)
    const { purgeAgeMs, completionsLifeMs } = this.#site.knobs.times
    return diesAt + Math.max(purgeAgeMs, completionsLifeMs) - 2 * scaledBoundMs <= wallStart + this.#site.world.now
  }
}

const textOf = ({ version, lastRequest, lastModifiedAt }: KeyRecord): string =>
  `v${version} by ${lastRequest.replaceAll('\n', '/')} at ${lastModifiedAt}`
