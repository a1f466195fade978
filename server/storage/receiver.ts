/**
 * Receiver: server B's side of a planned move. DESIGN.md, V5, V6 and V11.
 * Pure. Invariant: B counts for nothing before the map names it, and what it then has is what A had, with a ceiling that is at least A's.
 * Why the move lives in memory: a B that ended in between begins anew, from an empty shard; only `received` outlives it, for then all is there.
 */
import type { Offer, Part, Ready, Refused, Stored } from '../../core/wire/server-message.ts'
import type { ShardMarks } from './marks.ts'
import type { Replicas } from './replicas.ts'

export class Receiver {
  readonly #server: string
  readonly #zone: number
  readonly #replicas: Replicas
  readonly #send: (to: string, message: Ready | Stored | Refused) => void
  readonly #moves = new Map<number, { readonly id: number; readonly from: string; number: number }>()

  constructor(server: string, zone: number, replicas: Replicas, send: (to: string, message: Ready | Stored | Refused) => void) {
    this.#server = server
    this.#zone = zone
    this.#replicas = replicas
    this.#send = send
  }

  /** False for a move that began before this server's start. */
  knows(shard: number): boolean {
    return this.#moves.has(shard)
  }

  heardOffer(from: string, { id, shard, row }: Offer): void {
    const known = this.#moves.get(shard)
    const ready = (): void => this.#send(from, { type: 'ready', id, shard })
    if (known?.id === id) return known.number === 0 ? this.#replicas.journal.afterAll(ready) : undefined
    const marks = this.#replicas.of(shard)?.marks
    const mayBegin =
      row.servers[this.#zone] === from && row.servers[this.#zone] !== this.#server && (marks === undefined || givesWay(marks, row.epoch))
    if (!mayBegin) return this.#send(from, { type: 'refused', id, shard })
    this.#moves.set(shard, { id, from, number: 0 })
    this.#replicas.mark(shard, { state: 'receiving', epoch: row.epoch, row, since: row.epoch + 1, keepsOwn: false })
    this.#replicas.clear(shard) // leftovers first
    this.#replicas.journal.afterAll(ready)
  }

  heardPart(from: string, { id, shard, number, keys, tail }: Part): void {
    const move = this.#moves.get(shard)
    const marks = this.#replicas.of(shard)?.marks
    const stored = (): void => this.#send(from, { type: 'stored', id, shard, number })
    if (move?.id !== id || move.from !== from || marks === undefined) return this.#send(from, { type: 'refused', id, shard })
    if (number <= move.number) return this.#replicas.journal.afterAll(stored)
    if (marks.state !== 'receiving' || number !== move.number + 1) return
    move.number = number
    for (const { key, entry } of keys) this.#replicas.put(shard, key, entry === 'absent' ? undefined : entry)
    if (tail !== undefined) {
      this.#replicas.raiseCeiling(tail.ceiling)
      this.#replicas.mark(shard, { state: 'received', purged: tail.purged })
    }
    this.#replicas.journal.afterAll(stored)
  }
}

/** What may be overwritten. Who sent all of a shard in an epoch is frozen in it, so a second offer of that epoch is an old one. */
const givesWay = ({ state, epoch }: ShardMarks, offered: number): boolean =>
  state === 'received' ? offered > epoch : (state === 'handed' || state === 'receiving') && offered >= epoch
