/** Storage servers on a test stand: every message, sync and millisecond is the test's. */
import { seededRandom } from '../../../core/base/random.ts'
import { epochMs } from '../../../core/base/types.ts'
import { noCompletions, type KeyRecord } from '../../../core/record/record.ts'
import type { ReplicaAnswer, ReplicaRequest } from '../../../core/wire/replica-message.ts'
import type { Pong, RepairRequest, ServerMessage } from '../../../core/wire/server-message.ts'
import { MemoryMap } from '../../cluster/memory-map.ts'
import type { Ballot } from '../../register/ballot.ts'
import type { Instant } from '../../register/work.ts'
import { Disk } from '../../sim/disk.ts'
import { Host } from '../host.ts'
import type { DurabilityMode } from '../boot.ts'
import type { ReplicaState, StorageTimes } from '../marks.ts'

export const wall0 = 1_700_000_000_000
export const times: StorageTimes = {
  boundMs: 30,
  completionsLifeMs: 760,
  purgeAgeMs: 800,
  purgeHorizonMs: 500,
  pingLifeMs: 500,
  retryMs: 20,
  pollMs: 50,
  ceilingMs: 100,
  freezeMs: 200,
}

type Any = Pong | ReplicaAnswer | ServerMessage | RepairRequest
interface Sent {
  readonly from: string
  readonly to: string
  readonly message: Any
}
interface Server {
  readonly name: string
  readonly zone: number
  disk: Disk
  host: Host | undefined
  wallOffset: number
  bootId: string | undefined
}

export const ballot = (ms: number, counter = 1, proposer = 7): Ballot => ({ ms: wall0 + ms, counter, proposer })

/** A live record; `dies` and `changed` in milliseconds of the stand. */
export function record(text: string | undefined, { dies, changed = 0 }: { dies?: number; changed?: number } = {}): KeyRecord {
  return {
    value: text === undefined ? undefined : new TextEncoder().encode(text),
    version: 1,
    createdAt: epochMs(wall0),
    lastModifiedAt: epochMs(wall0 + changed),
    changedAt: epochMs(wall0 + changed),
    expiresAt: epochMs(dies === undefined ? 0 : wall0 + dies),
    originator: 'o',
    lastRequest: text ?? 'gone',
    completions: noCompletions,
  }
}

export const textOf = (value: Uint8Array | undefined): string | undefined => (value === undefined ? undefined : new TextDecoder().decode(value))

export class Stand {
  readonly zones: number
  readonly map: MemoryMap
  readonly servers = new Map<string, Server>()
  now = 0
  mapIsAway = false
  /** Messages that this says yes to stay in `held`. */
  holds: (sent: Sent) => boolean = () => false
  held: Sent[] = []
  /** Everything that ever left. */
  readonly sent: Sent[] = []
  readonly alarms: string[] = []
  readonly counts = new Map<string, number>()
  /** Servers whose writes wait for `sync`. */
  readonly slow = new Set<string>()
  readonly #mode: DurabilityMode
  readonly #random = seededRandom(4711)
  #queue: Sent[] = []
  #syncs = new Set<string>()
  #id = 0

  /** @param names e.g. s0 s1 s2: the digit is the zone */
  constructor(zones: number, { mode = 'fsync' }: { readonly mode?: DurabilityMode } = {}) {
    this.zones = zones
    this.map = new MemoryMap(zones, 1)
    this.#mode = mode
    for (let zone = 0; zone < zones; zone++) this.add(`s${zone}`)
    this.run(60)
  }

  add(name: string): void {
    const server = { name, zone: Number(name.slice(1)), disk: this.newDisk(), host: undefined, wallOffset: 0, bootId: '1' }
    this.servers.set(name, server)
    this.start(name)
  }
  newDisk(): Disk {
    return new Disk(this.#mode === 'fsync')
  }
  server(name: string): Server {
    return this.servers.get(name) as Server
  }
  instant(name: string): Instant {
    return { wall: epochMs(wall0 + this.now + this.server(name).wallOffset), mono: this.now }
  }
  state(name: string): ReplicaState | undefined {
    return this.server(name).disk.shards[0]?.state
  }
  marks(name: string) {
    return this.server(name).disk.shards[0]
  }
  entry(name: string, key: string) {
    const found = this.server(name).disk.read(0, key)
    return found === 'damaged' ? undefined : found
  }

  start(name: string): void {
    const server = this.server(name)
    const { disk, zone } = server
    server.host = new Host({
      server: name,
      zone,
      zones: this.zones,
      machine: { mode: this.#mode, bootId: server.bootId },
      store: disk.store,
      shards: disk.shards,
      now: this.instant(name),
      times,
      ports: {
        random: this.#random,
        disk: {
          read: (shard, key) => disk.read(shard, key),
          page: (shard, after, keysMax) => disk.page(shard, after, keysMax),
          due: (shard, until, after, keysMax) => disk.due(shard, until, after, keysMax, times),
          commit: (batch) => {
            disk.begin(batch)
            this.#syncs.add(name)
          },
        },
        send: (to, message) => this.post({ from: name, to, message }),
        askMap: (request) => {
          if (this.mapIsAway) return
          const host = server.host
          const answer = this.map.step(request)
          this.#later.push(() => server.host === host && host?.heardMap(answer, this.instant(name)))
        },
        count: (event) => void this.counts.set(event, (this.counts.get(event) ?? 0) + 1),
        alarm: (what, _shard, key) => void this.alarms.push(`${what} ${key} at ${name}`.replace('  ', ' ')),
      },
    })
  }
  #later: (() => unknown)[] = []

  crash(name: string, keepsWrite = false): void {
    const server = this.server(name)
    server.disk.crash(keepsWrite)
    server.host = undefined
    this.#syncs.delete(name)
  }
  /** The directory is lost; the server comes back on an empty one. */
  lose(name: string): void {
    this.crash(name)
    this.server(name).disk = this.newDisk()
  }
  restart(name: string): void {
    if (this.server(name).host !== undefined) this.crash(name)
    this.start(name)
  }

  post(sent: Sent): void {
    this.sent.push(sent)
    if (this.holds(sent)) this.held.push(sent)
    else this.#queue.push(sent)
  }
  /** Lets go what was held. */
  release(): void {
    this.holds = () => false
    this.#queue.push(...this.held.splice(0))
    this.settle()
  }

  sync(name: string): void {
    if (!this.#syncs.delete(name)) return
    this.server(name).disk.finish()
    this.server(name).host?.committed()
  }
  isWriting(name: string): boolean {
    return this.#syncs.has(name)
  }

  /** Delivers and syncs until nothing is under way. */
  settle(): void {
    for (let turn = 0; turn < 10_000; turn++) {
      for (const { host } of this.servers.values()) host?.endTurn()
      const queue = this.#queue.splice(0)
      const later = this.#later.splice(0)
      const syncs = [...this.#syncs].filter((name) => !this.slow.has(name))
      if (queue.length + later.length + syncs.length === 0) return
      for (const run of later) run()
      for (const { from, to, message } of queue) {
        const server = this.servers.get(to)
        if (server?.host) server.host.hear(from, message as ServerMessage, this.instant(to))
      }
      for (const name of syncs) this.sync(name)
    }
    throw new Error('it never settles')
  }

  /** Lets time go by in steps of 10 ms. */
  run(ms: number, pings = false): void {
    for (const end = this.now + ms; this.now < end; ) {
      this.now += 10
      for (const { name, host } of this.servers.values()) {
        if (pings) host?.hear('p', { type: 'ping', id: 0, clock: epochMs(wall0 + this.now) }, this.instant(name))
        host?.tick(this.instant(name))
      }
      this.settle()
    }
  }

  /** A proxy's message and what came of it; undefined: no answer. */
  ask(name: string, message: Partial<ReplicaRequest> & Pick<ReplicaRequest, 'type'>): ReplicaAnswer | undefined {
    const id = ++this.#id
    const full = { id, shard: 0, key: 'k', epoch: this.map.rows[0]?.epoch ?? 1, wants: 'whole', isRaised: false, ...message } as ReplicaRequest
    this.server(name).host?.step('p', full, this.instant(name))
    this.settle()
    return this.answerTo(id)
  }
  answerTo(id: number): ReplicaAnswer | undefined {
    return this.sent.find(({ to, message }) => to === 'p' && 'id' in message && message.id === id)?.message as ReplicaAnswer | undefined
  }
  prepare(name: string, b: Ballot, more: object = {}): ReplicaAnswer | undefined {
    return this.ask(name, { type: 'prepare', ballot: b, ...more })
  }
  accept(name: string, b: Ballot, r: KeyRecord, more: object = {}): ReplicaAnswer | undefined {
    return this.ask(name, { type: 'accept', ballot: b, record: r, ...more })
  }
  read(name: string, more: object = {}): ReplicaAnswer | undefined {
    return this.ask(name, { type: 'read', ...more })
  }
  /** What a read shows: a value, 'no key', or why not. */
  shows(name: string, more: object = {}): string {
    const answer = this.read(name, more)
    if (answer === undefined) return 'no answer'
    if (answer.type === 'rejected') return answer.reason
    return answer.type === 'shown' ? (textOf(answer.entry?.record.value) ?? (answer.entry ? 'dead' : 'no key')) : answer.type
  }
}
