/**
 * Sees what no process can: interleavings between several of them that the rules exist for, and that a run must have met (Q12).
 * Invariant: it changes nothing. It looks at each message as it leaves, and at all disks.
 * Source: docs, consistency, "Sometimes".
 */
import type { Ballot, ReplicaEntry } from '../../core/wire/replica-message.ts'
import { isBelow } from '../register/ballot.ts'
import { wallStart } from './clock.ts'
import { scaledRules } from './scale.ts'
import type { Carried, Fate, Site } from './site.ts'
import { remember } from './remember.ts'

/** What the page lists and only an onlooker can see. */
export const observed = [
  /** An ACCEPT was refused by epoch after a store that was lost since had accepted it. */
  'epoch-refused-after-lost-acceptance',
  /** A replica showed an entry that is older than what another zone has purged of the key. */
  'minority-older-than-purged',
  /** Long after an entry expired its end was made chosen, while one zone held a write that never was. */
  'late-seal-fenced-minority',
  /** A server kept what it has when a broken proxy sent another record under its ballot, and told a person. */
  'second-record-refused',
] as const
export type Observed = (typeof observed)[number]

/** Accepts of which an answer may still come. */
const acceptsMax = 4_096

export class Observer {
  readonly #site: Site
  /** By proxy and id: what was asked. */
  readonly #accepts = new Map<string, { readonly key: string; readonly ballot: Ballot }>()
  /** By key and ballot: who accepted, and in which epoch. */
  readonly #accepted = new Map<string, { readonly server: string; readonly epoch: number }[]>()

  constructor(site: Site) {
    this.#site = site
    site.taps.add((from, to, message) => this.#see(from, to, message))
  }

  #see(from: string, to: string, message: Carried): Fate {
    switch (message.type) {
      case 'accept':
        remember(this.#accepts, `${from} ${message.id}`, message, acceptsMax)
        if (this.#isLateSeal(message.key, message)) this.#count('late-seal-fenced-minority')
        break
      case 'accepted': {
        const asked = this.#accepts.get(`${to} ${message.id}`)
        if (asked === undefined) break
        const name = nameOf(asked.key, asked.ballot)
        remember(this.#accepted, name, [...(this.#accepted.get(name) ?? []), { server: from, epoch: message.epoch }], acceptsMax)
        break
      }
      case 'rejected': {
        const asked = message.reason === 'epoch' ? this.#accepts.get(`${to} ${message.id}`) : undefined
        const accepted = asked === undefined ? [] : (this.#accepted.get(nameOf(asked.key, asked.ballot)) ?? [])
        if (accepted.some(({ server, epoch }) => (this.#site.server(server)?.lostInEpoch ?? -1) >= epoch))
          this.#count('epoch-refused-after-lost-acceptance')
        break
      }
      case 'promised':
      case 'shown':
        if (message.entry !== undefined && this.#isPurgedElsewhere(message.key, message.entry)) this.#count('minority-older-than-purged')
        break
      default:
    }
    return 'goes'
  }

  #isPurgedElsewhere(key: string, { ballot }: ReplicaEntry): boolean {
    return this.#site.servers.some(({ disk }) => {
      const purged = disk.shards[0]?.purged
      return purged !== undefined && !isBelow(purged, ballot) && disk.shards[0]?.state === 'serving' && disk.read(0, key) === undefined
    })
  }

  #isLateSeal(key: string, { ballot, record }: ReplicaEntry): boolean {
    const { expiresAt, changedAt, lastRequest } = record
    // It may be a stub by then, so whether it has a value says nothing.
    if (expiresAt === 0 || Math.max(expiresAt, changedAt) + scaledRules.lifeMs > wallStart + this.#site.world.now) return false
    return this.#site.servers.some(({ disk }) => {
      const entry = disk.shards[0]?.state === 'serving' ? disk.read(0, key) : undefined
      if (entry === undefined || entry === 'damaged') return false
      return entry.record.lastRequest !== lastRequest && isBelow(entry.ballot, ballot)
    })
  }

  #count(event: Observed): void {
    this.#site.count(event)
  }
}

const nameOf = (key: string, { ms, counter, proposer }: Ballot): string => `${key} ${ms} ${counter} ${proposer}`
