/**
 * Replicas: what this server has of each shard, the unfinished writes included, with its durable marks. DESIGN.md, H3 to H6.
 * Pure. Invariant: a replica has an acceptor only while its state is `serving`; each new acceptor begins with floor := ceiling (R2, R12).
 * Why the floor is the whole ceiling wherever a replica begins to serve (after a start, a copy, a move, a freeze): one rule covers all that
 * was promised by anybody whose ceiling was taken over, and it costs one refused PREPARE a key at most.
 */
import { assert } from '../../core/base/assert.ts'
import { recordSize } from '../../core/record/record-bytes.ts'
import type { HandedKey } from '../../core/wire/server-message.ts'
import { Acceptor, type Stored } from '../register/acceptor.ts'
import { isBelow, maxBallot, noBallot, type Ballot } from '../register/ballot.ts'
import type { RegisterEvent } from '../register/work.ts'
import type { Journal } from './journal.ts'
import type { DiskPort, ShardMarks, StoreMarks, Written } from './marks.ts'

export interface Replica {
  readonly marks: ShardMarks
  readonly acceptor: Acceptor | undefined
}

interface Held {
  marks: ShardMarks
  acceptor: Acceptor | undefined
  /** Keys whose bytes are not what was written, with the ceiling when that was found. */
  readonly damaged: Map<string, Ballot>
  /** Told of every key that is written: what a move has to send on. */
  onWrite: ((key: string) => void) | undefined
}

export interface ReplicasOptions {
  readonly zone: number
  readonly journal: Journal
  readonly disk: DiskPort
  /** As the disk had them at the start. */
  readonly store: StoreMarks
  readonly shards: readonly ShardMarks[]
  readonly promisesMax?: number | undefined
  alarm(what: string, shard: number, key: string): void
  count(event: RegisterEvent): void
}

/** Keys found damaged that are remembered; the others are found again. */
const damagedMax = 4_096
/** A page's bytes of records. A single key may be larger. */
const pageBytesMax = 1_048_576

function fitting(keys: readonly HandedKey[]): readonly HandedKey[] {
  let bytes = 0
  const end = keys.findIndex(({ entry }, index) => {
    if (typeof entry === 'object') bytes += recordSize(entry.record)
    return index > 0 && bytes > pageBytesMax
  })
  return end < 0 ? keys : keys.slice(0, end)
}

export class Replicas {
  readonly #options: ReplicasOptions
  readonly #replicas = new Map<number, Held>()
  #store: StoreMarks

  constructor(options: ReplicasOptions) {
    this.#options = options
    this.#store = options.store
    for (const marks of options.shards) this.#hold(marks)
  }

  get store(): StoreMarks {
    return this.#store
  }
  get journal(): Journal {
    return this.#options.journal
  }
  get shards(): readonly number[] {
    return [...this.#replicas.keys()]
  }
  of(shard: number): Replica | undefined {
    return this.#replicas.get(shard)
  }
  /** Keys of a shard that are known to be damaged. */
  damagedOf(shard: number): readonly string[] {
    return [...(this.#replicas.get(shard)?.damaged.keys() ?? [])]
  }
  /** Only one listener a shard: a second move does not begin. */
  onWrite(shard: number, listener: ((key: string) => void) | undefined): void {
    this.#held(shard).onWrite = listener
  }

  /** Changes a shard's durable marks; the first time all of them are given. */
  mark(shard: number, change: Partial<ShardMarks>): void {
    const held = this.#replicas.get(shard)
    const before: ShardMarks = held?.marks ?? { ...strange, shard }
    const marks = { ...before, ...change }
    assert(marks.epoch >= before.epoch, 'the epoch of a replica only rises')
    if (held === undefined) this.#hold(marks)
    else held.marks = marks
    this.#options.journal.markShard(marks)
  }

  /** As if the shard was never here; what is left says that it is not ours. */
  reset(shard: number): void {
    const marks: ShardMarks = { ...strange, shard }
    const held = this.#replicas.get(shard)
    if (held === undefined) this.#hold(marks)
    else held.marks = marks
    this.#options.journal.markShard(marks)
    this.clear(shard)
  }

  markStore(change: Partial<StoreMarks>): void {
    this.#store = { ...this.#store, ...change }
    this.#options.journal.markStore(this.#store)
  }

  raiseCeiling(to: Ballot): void {
    if (isBelow(this.#store.ceiling, to)) this.markStore({ ceiling: maxBallot(this.#store.ceiling, to) })
  }

  /** From now on it answers proxies. Its marks say so already, and answers wait for them. */
  serve(shard: number): void {
    const held = this.#held(shard)
    assert(held.marks.state === 'serving', 'only a replica whose marks say so serves')
    const { zone, promisesMax } = this.#options
    const ceiling = (): Ballot => this.#store.ceiling
    held.acceptor = new Acceptor({
      shard,
      zone,
      floor: this.#store.ceiling,
      ...(promisesMax === undefined ? {} : { promisesMax }),
      ports: {
        marks: {
          get ceiling() {
            return ceiling()
          },
          get purged() {
            return held.marks.purged
          },
        },
        stored: (key) => this.stored(shard, key),
        put: (key, entry) => this.put(shard, key, entry),
        count: (event) => this.#options.count(event),
        raiseCeiling: (to) => this.raiseCeiling(to),
        alarm: (what, key) => this.#options.alarm(what, shard, key),
      },
    })
  }

  /** No answer of it leaves any more, but those that wait for a write. */
  close(shard: number): void {
    this.#held(shard).acceptor = undefined
  }

  /** What is here of a key, writes that are under way included. */
  stored(shard: number, key: string): Stored {
    const written = this.#options.journal.written(shard, key)
    const found = written === undefined ? this.#options.disk.read(shard, key) : written.entry
    if (found === undefined) return { type: 'absent' }
    if (found !== 'damaged') return { type: 'entry', entry: found }
    return { type: 'damaged', ceiling: this.#noteDamage(shard, key) }
  }

  put(shard: number, key: string, entry: Written): void {
    const held = this.#held(shard)
    this.#options.journal.put(shard, key, entry)
    if (entry !== 'damaged') held.damaged.delete(key)
    held.onWrite?.(key)
  }

  /** All keys of the shard go from here. */
  clear(shard: number): void {
    this.#held(shard).damaged.clear()
    this.#options.journal.clear(shard)
  }

  /** What is durable, in order of keys, with bounded bytes. */
  page(shard: number, after: string | undefined, keysMax: number): { readonly keys: readonly HandedKey[]; readonly isLast: boolean } {
    const found = keysMax === 0 ? [] : this.#options.disk.page(shard, after, keysMax)
    for (const { key, entry } of found) if (entry === 'damaged') this.#noteDamage(shard, key)
    const keys = fitting(found)
    return { keys, isLast: keysMax > 0 && found.length < keysMax && keys.length === found.length }
  }

  /** What is durable of these keys, or of the first of them: with bounded bytes, but at least of one. */
  durable(shard: number, keys: readonly string[]): readonly HandedKey[] {
    return fitting(keys.map((key) => ({ key, entry: this.#options.disk.read(shard, key) ?? 'absent' })))
  }

  #hold(marks: ShardMarks): void {
    this.#replicas.set(marks.shard, { marks, acceptor: undefined, damaged: new Map(), onWrite: undefined })
  }

  #held(shard: number): Held {
    const held = this.#replicas.get(shard)
    assert(held !== undefined, 'a replica is marked before it is used')
    return held
  }

  #noteDamage(shard: number, key: string): Ballot {
    const { damaged } = this.#held(shard)
    const known = damaged.get(key)
    if (known !== undefined) return known
    if (damaged.size < damagedMax) damaged.set(key, this.#store.ceiling)
    this.#options.alarm('a damaged record', shard, key)
    return this.#store.ceiling
  }
}

/** Of a shard that was never here. */
const strange: Omit<ShardMarks, 'shard'> = { epoch: 0, state: 'handed', purged: noBallot, row: undefined, since: 0, keepsOwn: false }
