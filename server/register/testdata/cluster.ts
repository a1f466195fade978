/**
 * Proxies and acceptors under virtual time, for tests that count rounds and answers: messages take `delayMs` one way, or are lost, as a
 * seed has it; what an acceptor is told to keep is durable at once. Whole servers with disks are in server/sim.
 */
import { Heap } from '../../../core/base/collections.ts'
import { seededRandom } from '../../../core/base/random.ts'
import { epochMs } from '../../../core/base/types.ts'
import { completionRules, type CompletionRules } from '../../../core/record/operation.ts'
import type { KeyRecord } from '../../../core/record/record.ts'
import type { ReplicaAnswer, ReplicaRequest, ShardRow } from '../../../core/wire/replica-message.ts'
import { Coordinator } from '../../proxy/coordinator.ts'
import { Acceptor, type Stored } from '../acceptor.ts'
import { noBallot, type Ballot } from '../ballot.ts'
import type { Answer, Instant, RegisterEvent, Work } from '../work.ts'

export const start = 1_700_000_000_000

export interface ClusterOptions {
  readonly zones?: number
  readonly seed?: number
  /** One way. Default 1. */
  readonly delayMs?: number
  /** More, drawn anew for each message. Default 0. */
  readonly jitterMs?: number
  readonly loss?: number
  readonly rules?: CompletionRules
  readonly waitingMax?: number
  readonly waitingBytesMax?: number
}

export class Cluster {
  now = 0
  /** Messages by type, answers included. */
  readonly sent: Record<string, number> = {}
  readonly counts: Partial<Record<RegisterEvent, number>> = {}
  /** How often each zone was told to keep an entry, and to raise its ceiling. */
  readonly puts: number[]
  readonly ceilings: number[]
  readonly entries: Map<string, Stored>[]
  /** What a zone says instead of its answer. */
  refuse: ((zone: number, message: ReplicaRequest) => 'busy' | 'closed' | 'silent' | undefined) | undefined
  readonly row: ShardRow
  readonly #options: ClusterOptions
  readonly #random
  readonly #acceptors: Acceptor[]
  readonly #marks: { ceiling: Ballot; purged: Ballot }[]
  readonly #events = new Heap<{ at: number; number: number; run: () => void }>((a, b) => a.at - b.at || a.number - b.number)
  #number = 0

  constructor(options: ClusterOptions = {}) {
    const { zones = 3, seed = 1 } = options
    this.#options = options
    this.#random = seededRandom(seed)
    const indexes = Array.from({ length: zones }, (_, zone) => zone)
    this.row = { shard: 0, epoch: 1, servers: indexes.map((zone) => `s${zone}`) }
    this.puts = indexes.map(() => 0)
    this.ceilings = indexes.map(() => 0)
    this.entries = indexes.map(() => new Map())
    this.#marks = indexes.map(() => ({ ceiling: noBallot, purged: noBallot }))
    this.#acceptors = indexes.map((zone) => this.#acceptor(zone))
  }

  /** A proxy; `answer` is called once for each work, or the test must fail. */
  proxy(id = 1): TestProxy {
    return new TestProxy(this, id, this.#options)
  }

  instant(): Instant {
    return { mono: this.now, wall: epochMs(Math.floor(start + this.now)) }
  }
  after(ms: number, run: () => void): void {
    this.#events.push({ at: this.now + ms, number: ++this.#number, run })
  }
  runUntil(until: number): void {
    const events = this.#events
    while (events.first !== undefined && events.first.at <= until) {
      const { at, run } = events.pop() as { at: number; run: () => void }
      this.now = at
      run()
    }
    this.now = Math.max(this.now, until)
  }

  record(key: string, zone = 0): KeyRecord | undefined {
    const stored = this.entries[zone]?.get(key)
    return stored?.type === 'entry' ? stored.entry.record : undefined
  }

  carry(type: string, run: () => void): void {
    this.sent[type] = (this.sent[type] ?? 0) + 1
    const { delayMs = 1, jitterMs = 0, loss = 0 } = this.#options
    if (loss > 0 && this.#random.chance(loss)) return
    this.after(delayMs + (jitterMs === 0 ? 0 : this.#random.next() * jitterMs), run)
  }

  step(zone: number, message: ReplicaRequest): ReplicaAnswer | undefined {
    const { id, shard, key, epoch } = message
    const clock = this.instant().wall
    const instead = this.refuse?.(zone, message)
    if (instead === 'silent') return undefined
    if (instead !== undefined) return { id, shard, key, epoch, zone, clock, type: 'rejected', reason: instead }
    return (this.#acceptors[zone] as Acceptor).step(message, epoch, clock)
  }

  #acceptor(zone: number): Acceptor {
    const entries = this.entries[zone] as Map<string, Stored>
    const marks = this.#marks[zone] as { ceiling: Ballot; purged: Ballot }
    return new Acceptor({
      shard: 0,
      zone,
      floor: noBallot,
      ports: {
        marks,
        stored: (key) => entries.get(key) ?? { type: 'absent' },
        put: (key, entry) => {
          this.puts[zone] = (this.puts[zone] as number) + 1
          entries.set(key, { type: 'entry', entry })
        },
        raiseCeiling: (to) => {
          this.ceilings[zone] = (this.ceilings[zone] as number) + 1
          marks.ceiling = to
        },
        alarm: (what, key) => {
          throw new Error(`${what}: ${key}`)
        },
        count: (event) => this.count(event),
      },
    })
  }

  count(event: RegisterEvent): void {
    this.counts[event] = (this.counts[event] ?? 0) + 1
  }
}

export class TestProxy {
  readonly coordinator: Coordinator
  readonly #cluster: Cluster
  readonly #answers = new Map<Work, (answer: Answer) => void>()
  #wakeAt = Infinity

  constructor(cluster: Cluster, id: number, { zones = 3, rules = completionRules, waitingMax, waitingBytesMax, seed = 1 }: ClusterOptions) {
    this.#cluster = cluster
    this.coordinator = new Coordinator({
      zones,
      rows: [cluster.row],
      rules,
      ...(waitingMax === undefined ? {} : { waitingMax }),
      ...(waitingBytesMax === undefined ? {} : { waitingBytesMax }),
      ports: {
        random: seededRandom(seed + id),
        proposerId: id,
        shardOf: (key) => (key.startsWith('lost') ? 1 : 0),
        send: (server, message) => {
          const zone = Number(server.slice(1))
          if (message.type === 'ping')
            return this.coordinator.receive(server, { type: 'pong', id: message.id, zone, clock: cluster.instant().wall }, cluster.instant())
          cluster.carry(message.type, () => {
            const answer = cluster.step(zone, message)
            if (answer) cluster.carry(answer.type, () => this.coordinator.receive(server, answer, cluster.instant()))
          })
        },
        wakeAt: (mono) => this.#wake(mono),
        answer: (work, answer) => {
          const give = this.#answers.get(work)
          if (give === undefined) throw new Error('a work was answered twice')
          this.#answers.delete(work)
          give(answer)
        },
        count: (event) => cluster.count(event),
        wantRow: () => undefined,
      },
    })
    const ping = (): void => {
      this.coordinator.ping(cluster.instant())
      cluster.after(1_000, ping)
    }
    ping()
  }

  /** Works without an answer. */
  get open(): number {
    return this.#answers.size
  }

  ask(key: string, operation: Work['operation'], give: (answer: Answer) => void, options: { timeoutMs?: number; isRepair?: true } = {}): void {
    const now = this.#cluster.instant()
    const { timeoutMs = 600, isRepair } = options
    const work: Work = { operation, deadlineMono: now.mono + timeoutMs, sentAt: undefined, acceptWasSent: 'no', ...(isRepair ? { isRepair } : {}) }
    this.#answers.set(work, give)
    if (operation === undefined && !isRepair) this.coordinator.read(key, work, now)
    else this.coordinator.write(key, work, now)
  }

  #wake(mono: number): void {
    if (mono >= this.#wakeAt) return
    this.#wakeAt = mono
    this.#cluster.after(Math.max(0, mono - this.#cluster.now), () => {
      if (this.#wakeAt !== mono) return
      this.#wakeAt = Infinity
      this.coordinator.wake(this.#cluster.instant())
    })
  }
}
