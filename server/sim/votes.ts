/**
 * An oracle of the laws that a storage server keeps: its promises, its epochs, what it must not say after it lost something, what it took over.
 * Invariant: it looks at messages, and at what was done to a server's disk; it calls nothing wrong once all zones lost their power at once.
 * Why beside the checker: one replica that breaks its word is mostly outvoted, so the harm is seen in few histories, and long after.
 * Source: register/DESIGN.md, A1 and A10; storage/DESIGN.md, H4, L3, V11, B2, B6. A server answers about one key in the order in which it decided.
 */
import type { Ballot, Prepare, Promised, Accepted, Accept, ReadAnswer } from '../../core/wire/replica-message.ts'
import { ballotText, isBelow, noBallot, sameBallot } from '../register/ballot.ts'
import type { Disk } from './disk.ts'
import { remember } from './remember.ts'
import type { Site } from './site.ts'
import type { StorageProcess } from './storage-process.ts'

/** Of each kind of thing that is remembered. */
const rememberedMax = 16_384

/** The highest promise of a server about a key, and what it held when it gave that. */
interface Word {
  readonly disk: Disk
  readonly epoch: number
  readonly promised: Ballot
  readonly held: Ballot
}

export class VoteOracle {
  readonly #site: Site
  /** By proxy and id. */
  readonly #prepares = new Map<string, Prepare | 'ambiguous'>()
  readonly #accepts = new Map<string, Accept | 'ambiguous'>()
  /** By server and key. */
  readonly #words = new Map<string, Word>()
  readonly #epochs = new Map<string, number>()
  /** By server: what it was told of purged keys when it took a shard over. */
  readonly #taken = new Map<string, { readonly disk: Disk; readonly purged: Ballot }>()

  constructor(site: Site) {
    this.#site = site
    site.taps.add((from, to, message) => {
      if (message.type === 'prepare') ask(this.#prepares, from, message)
      if (message.type === 'accept') ask(this.#accepts, from, message)
      const server = site.seamAt === undefined ? site.server(from) : undefined
      if (server === undefined) return 'goes'
      if (message.type === 'promised' || message.type === 'accepted' || message.type === 'shown') this.#voted(server, message)
      if (message.type === 'promised') this.#promised(server, to, message)
      if (message.type === 'accepted') this.#accepted(server, to, message)
      if (message.type === 'page' && !this.#votesFor(server, message.shard)) this.#alarm(server, 'gives others what it is still learning')
      // Whoever learns takes what the other zones have, and nothing of a move that came to nothing.
      if (message.type === 'copy') this.#taken.delete(from)
      if (message.type === 'part' && message.tail !== undefined) this.#handed(to, message.tail.purged)
      return 'goes'
    })
  }

  #voted(server: StorageProcess, { key, shard, epoch }: Promised | Accepted | ReadAnswer): void {
    const { lostInEpoch = 0, hasCopy } = server
    if (epoch <= lostInEpoch && !hasCopy) this.#alarm(server, `votes for key ${key} in epoch ${epoch}, in which it lost what it had`)
    const name = `${server.name} ${key}`
    const latest = this.#epochs.get(name) ?? 0
    if (epoch < latest) this.#alarm(server, `answers about key ${key} in epoch ${epoch} after it did in epoch ${latest}`)
    remember(this.#epochs, name, Math.max(epoch, latest), rememberedMax)
    const taken = this.#taken.get(server.name)
    const marks = server.disk.shards.find((one) => one.shard === shard)
    if (taken?.disk === server.disk && marks !== undefined && isBelow(marks.purged, taken.purged))
      this.#alarm(server, 'votes without what it was told of purged keys')
  }

  #promised(server: StorageProcess, to: string, { id, key, epoch, entry }: Promised): void {
    const prepare = this.#prepares.get(`${to} ${id}`)
    if (prepare === undefined || prepare === 'ambiguous' || prepare.key !== key) return
    const { disk } = server
    const name = `${server.name} ${key}`
    const word = this.#words.get(name)
    if (word?.disk === disk && word.epoch === epoch && isBelow(prepare.ballot, word.promised)) return
    remember(this.#words, name, { disk, epoch, promised: prepare.ballot, held: entry?.ballot ?? noBallot }, rememberedMax)
  }

  #accepted(server: StorageProcess, to: string, { id, key, epoch }: Accepted): void {
    const accept = this.#accepts.get(`${to} ${id}`)
    const word = this.#words.get(`${server.name} ${key}`)
    if (accept === undefined || accept === 'ambiguous' || accept.key !== key) return
    if (word?.disk !== server.disk || word.epoch !== epoch) return
    // What it held already may come again, below whatever was promised: that changes nothing.
    if (isBelow(word.held, accept.ballot) && isBelow(accept.ballot, word.promised))
      this.#alarm(server, `accepted ${ballotText(accept.ballot)} of key ${key} after it had promised ${ballotText(word.promised)}`)
  }

  /** The latest tail counts: a giver that lost what it had knows less than the one before. */
  #handed(to: string, purged: Ballot): void {
    const server = this.#site.servers.find(({ address }) => address === to)
    if (server !== undefined) this.#taken.set(server.name, { disk: server.disk, purged })
  }

  #votesFor({ disk }: StorageProcess, shard: number): boolean {
    return disk.shards.some((one) => one.shard === shard && one.state !== 'learning' && one.state !== 'receiving')
  }

  #alarm({ name }: StorageProcess, what: string): void {
    this.#site.alarms.push(`${name} ${what}`)
  }
}

/** A proxy that starts anew may use a number again: then nobody knows which one is answered. */
function ask<T extends Prepare | Accept>(map: Map<string, T | 'ambiguous'>, from: string, message: T): void {
  const name = `${from} ${message.id}`
  const before = map.get(name)
  const isOther =
    before !== undefined && (before === 'ambiguous' || before.key !== message.key || !sameBallot(before.ballot, message.ballot))
  remember(map, name, isOther ? 'ambiguous' : message, rememberedMax)
}
