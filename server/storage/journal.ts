/**
 * Journal: gathers what a turn makes durable, one batch at a time, and what has to wait for it. DESIGN.md, H1 and H2.
 * Pure. Invariant: nothing that waits for a batch runs before that batch, and all before it, are durable (R1, R3).
 * Why answers wait for the youngest batch that touches their key or any mark, and not for the exact one: marks change a few times a
 * second, and a rule without cases cannot have the wrong one.
 */
import { assert } from '../../core/base/assert.ts'
import type { Batch, ShardMarks, StoreMarks, Written } from './marks.ts'

interface Gathering {
  readonly cleared: Set<number>
  readonly entries: Map<string, { readonly shard: number; readonly key: string; readonly entry: Written }>
  readonly shards: Map<number, ShardMarks>
  store: StoreMarks | undefined
  readonly then: (() => void)[]
}

const newBatch = (): Gathering => ({ cleared: new Set(), entries: new Map(), shards: new Map(), store: undefined, then: [] })
const marks = (batch: Gathering): boolean => batch.shards.size > 0 || batch.store !== undefined || batch.cleared.size > 0
const isEmpty = (batch: Gathering): boolean => batch.entries.size === 0 && !marks(batch)
const touches = (batch: Gathering | undefined, id: string): batch is Gathering =>
  batch !== undefined && (marks(batch) || batch.entries.has(id))

/** The last one: a step asks about its key several times, and to make and hash the text is most of what that costs. */
let known = { shard: -1, key: '', id: '' }
function idOf(shard: number, key: string): string {
  if (known.shard !== shard || known.key !== key) known = { shard, key, id: `${shard}/${key}` }
  return known.id
}

export class Journal {
  readonly #commit: (batch: Batch) => void
  #gathering = newBatch()
  #inFlight: Gathering | undefined

  constructor(commit: (batch: Batch) => void) {
    this.#commit = commit
  }

  /** Actions that wait for the batch that is being gathered. */
  get waiting(): number {
    return this.#gathering.then.length
  }

  put(shard: number, key: string, entry: Written): void {
    this.#gathering.entries.set(idOf(shard, key), { shard, key, entry })
  }
  markShard(shard: ShardMarks): void {
    this.#gathering.shards.set(shard.shard, shard)
  }
  markStore(store: StoreMarks): void {
    this.#gathering.store = store
  }
  /** All keys of a shard go. */
  clear(shard: number): void {
    const { cleared, entries } = this.#gathering
    cleared.add(shard)
    for (const [id, one] of entries) if (one.shard === shard) entries.delete(id)
  }

  /** What is written but not yet durable of a key; undefined: the disk knows. */
  written(shard: number, key: string): { readonly entry: Written } | undefined {
    for (const batch of [this.#gathering, this.#inFlight]) {
      const one = batch?.entries.get(idOf(shard, key))
      if (one !== undefined) return one
      if (batch?.cleared.has(shard)) return { entry: undefined }
    }
    return undefined
  }

  /** Runs when everything that a word about this key may rest on is durable. */
  afterKey(shard: number, key: string, run: () => void): void {
    const id = idOf(shard, key)
    if (touches(this.#gathering, id)) this.#gathering.then.push(run)
    else if (touches(this.#inFlight, id)) this.#inFlight.then.push(run)
    else run()
  }

  /** Runs when everything written so far is durable. */
  afterAll(run: () => void): void {
    if (!isEmpty(this.#gathering)) this.#gathering.then.push(run)
    else if (this.#inFlight !== undefined) this.#inFlight.then.push(run)
    else run()
  }

  /** Writes what the turn gathered, if no write is under way: a slow disk makes larger batches and not a longer line. */
  endTurn(): void {
    if (this.#inFlight !== undefined || isEmpty(this.#gathering)) return
    const batch = this.#gathering
    this.#inFlight = batch
    this.#gathering = newBatch()
    const { cleared, entries, store, shards } = batch
    this.#commit({ cleared, entries, store, shards })
  }

  /** The batch under way is durable. */
  committed(): void {
    const batch = this.#inFlight
    assert(batch !== undefined, 'only a batch under way becomes durable')
    this.#inFlight = undefined
    for (const run of batch.then) run()
    this.endTurn()
  }
}
