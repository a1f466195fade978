/**
 * A simulated site: storage servers and proxies as the shipping state machines make them, joined by the simulated network and disks.
 * Invariant: nothing here decides what a register answers; it only carries messages, writes and time.
 */
import { completionRules, type CompletionRules, type Operation } from '../../core/record/operation.ts'
import type { ReplicaAnswer, ReplicaRequest, ShardRow } from '../../core/wire/replica-message.ts'
import type { Ping, Pong, RepairRequest, ServerMessage } from '../../core/wire/server-message.ts'
import { MemoryMap } from '../cluster/memory-map.ts'
import type { Answer, Instant, Work } from '../register/work.ts'
import { Coordinator } from '../proxy/coordinator.ts'
import type { DurabilityMode } from '../storage/boot.ts'
import { Host } from '../storage/host.ts'
import type { StorageTimes } from '../storage/marks.ts'
import { Disk } from './disk.ts'
import { Network, type NetworkKnobs } from './network.ts'
import { Process, SkewedClock, type World } from './world.ts'

/** Scaled down, in their order: see scenario.ts. */
export const simulatedTimes: StorageTimes = {
  boundMs: 30,
  completionsLifeMs: 760,
  purgeAgeMs: 800,
  purgeHorizonMs: 500,
  pingLifeMs: 500,
  retryMs: 30,
  pollMs: 60,
  ceilingMs: 100,
  freezeMs: 150,
}
/** How often a storage server's `tick` is called, and a proxy pings. */
const tickMs = 10
const pingMs = 100

export interface SiteKnobs {
  readonly zones: number
  /** What clients ask for. */
  readonly keys: readonly string[]
  /** A second storage server in each zone, to move to. */
  readonly hasSpares?: boolean
  readonly mode?: DurabilityMode
  readonly proxies: number
  readonly network: NetworkKnobs
  /** Of a sync. */
  readonly syncMs: readonly [number, number]
  readonly promisesMax: number
  readonly rules?: CompletionRules
  /** The greatest difference of a server's clock to true time, either way, and of a proxy's. */
  readonly serverSkewMs: number
  readonly proxySkewMs: number
  readonly times?: StorageTimes
}

export class Site {
  readonly world: World
  readonly knobs: SiteKnobs
  readonly network: Network
  readonly servers: StorageProcess[] = []
  readonly proxies: ProxyProcess[] = []
  readonly map: MemoryMap
  /** The map's source does not answer. */
  mapIsAway = false
  readonly #firstRow: ShardRow
  readonly processes = new Map<string, Process>()
  readonly alarms: string[] = []
  readonly notes: string[] = []
  /** Milliseconds of a sync, drawn between the two. */
  syncMs: readonly [number, number]

  constructor(world: World, knobs: SiteKnobs) {
    this.world = world
    this.knobs = knobs
    this.syncMs = knobs.syncMs
    this.network = new Network(
      world.random,
      knobs.network,
      () => world.now,
      (ms, run) => world.after(ms, run),
    )
    const names = Array.from({ length: knobs.zones }, (_, zone) => `s${zone}`)
    this.#firstRow = { shard: 0, epoch: 1, servers: names }
    this.map = new MemoryMap(knobs.zones, 1)
    for (const [zone, name] of names.entries()) this.#add(new StorageProcess(this, name, zone), this.servers)
    if (knobs.hasSpares === true) this.#addSpares(names.length)
    for (let index = 0; index < knobs.proxies; index++) this.#add(new ProxyProcess(this, `p${index}`), this.proxies)
  }

  /** Once the cluster is founded: before that they would be founders. */
  #addSpares(zones: number): void {
    this.world.after(50, () => {
      if (this.map.rows.length === 0) return this.#addSpares(zones)
      for (let zone = 0; zone < zones; zone++) this.#add(new StorageProcess(this, `t${zone}`, zone), this.servers)
    })
  }

  #add<P extends StorageProcess | ProxyProcess>(process: P, to: P[]): void {
    to.push(process)
    this.processes.set(process.name, process)
    process.start()
  }

  get keys(): readonly string[] {
    return this.knobs.keys
  }

  /** As a proxy finds them at its start. */
  get rows(): readonly ShardRow[] {
    return this.map.rows.length > 0 ? this.map.rows : [this.#firstRow]
  }

  newClock(skewMs: number): SkewedClock {
    return new SkewedClock(this.world, (this.world.random.next() * 2 - 1) * skewMs, 1)
  }

  /** What a person would be told. Damage and lost directories are planted, so they are none. */
  alarm(what: string, key: string, server: string): void {
    if (what === 'two records under one ballot') this.alarms.push(`${what}: ${key} at ${server}`)
    else this.notes.push(`${what} ${key} at ${server}`)
  }

  /** How often each rare thing was. */
  readonly sometimes: Record<string, number> = {}
  count(event: string): void {
    this.sometimes[event] = (this.sometimes[event] ?? 0) + 1
  }

  /** Carries something to a process, unless the network loses it. */
  carry(from: string, to: string, run: () => void): void {
    this.network.send(from, to, () => this.processes.get(to)?.deliver(run))
  }

  /** Between a client and a proxy: a connection breaks as a whole, and never says a thing twice. A client is always there. */
  carryOnce(from: string, to: string, run: () => void): void {
    this.network.sendOnce(from, to, () => {
      const process = this.processes.get(to)
      if (process) process.deliver(run)
      else run()
    })
  }
}

export class StorageProcess extends Process {
  disk: Disk
  readonly zone: number
  /** Of its machine: a power cycle makes another. */
  bootId = 1
  readonly #site: Site
  #host: Host | undefined
  #turnIsDue = false

  constructor(site: Site, name: string, zone: number) {
    super(name, site.newClock(site.knobs.serverSkewMs))
    this.#site = site
    this.zone = zone
    this.disk = this.#newDisk()
  }

  get host(): Host {
    return this.#host as Host
  }

  start(): void {
    const site = this.#site
    this.isUp = true
    const life = ++this.life
    this.#turnIsDue = false
    const { disk } = this
    const times = site.knobs.times ?? simulatedTimes
    const host: Host = new Host({
      server: this.name,
      zone: this.zone,
      zones: site.knobs.zones,
      machine: { mode: site.knobs.mode ?? 'fsync', bootId: `${this.bootId}` },
      store: disk.store,
      shards: disk.shards,
      now: this.clock.instant(),
      times,
      promisesMax: site.knobs.promisesMax,
      ports: {
        random: site.world.random,
        disk: {
          read: (shard, key) => disk.read(shard, key),
          page: (shard, after, keysMax) => disk.page(shard, after, keysMax),
          due: (shard, until, after, keysMax) => disk.due(shard, until, after, keysMax, times),
          commit: (batch) => {
            disk.begin(batch)
            const [least, most] = site.syncMs
            site.world.after(least + site.world.random.next() * (most - least), () => {
              if (this.life !== life) return
              disk.finish() // the disk works on while the process is paused
              this.#turn(life, () => host.committed())
            })
          },
        },
        send: (to, message) => this.#send(to, message),
        askMap: (request) => {
          if (site.mapIsAway) return
          site.network.send(this.name, 'map', () => {
            if (site.mapIsAway) return
            const answer = site.map.step(request)
            site.network.send('map', this.name, () => this.#turn(life, () => host.heardMap(answer, this.clock.instant())))
          })
        },
        alarm: (what, _shard, key) => void site.alarm(what, key, this.name),
        count: (event) => site.count(event),
      },
    })
    this.#host = host
    const tick = (): void => {
      if (this.life !== life) return
      this.#turn(life, () => host.tick(this.clock.instant()))
      site.world.after(tickMs, tick)
    }
    tick()
  }

  receive(from: string, message: ReplicaRequest): void {
    this.#turn(this.life, () => this.host.step(from, message, this.clock.instant()))
  }
  hear(from: string, message: ServerMessage | Ping): void {
    this.#turn(this.life, () => this.host.hear(from, message, this.clock.instant()))
  }

  handOver(to: string): void {
    this.#turn(this.life, () => void this.host.handOver(0, to, this.clock.instant()))
  }

  crash(keepsWrite: boolean): void {
    this.disk.crash(keepsWrite)
    this.kill()
  }

  /** The directory is gone; it comes back empty. */
  loseDirectory(): void {
    this.crash(false)
    this.disk = this.#newDisk()
  }

  #newDisk(): Disk {
    return new Disk(this.#site.knobs.mode !== 'os')
  }

  #send(to: string, message: ReplicaAnswer | ServerMessage | RepairRequest | Pong): void {
    const site = this.#site
    site.carry(this.name, to, () => {
      const process = site.processes.get(to)
      if (process instanceof ProxyProcess) process.receive(this.name, message as ReplicaAnswer | RepairRequest | Pong)
      else if (process instanceof StorageProcess) process.hear(this.name, message as ServerMessage)
    })
  }

  /** Runs in this process, and ends the turn once all that came at the same instant was taken. */
  #turn(life: number, run: () => void): void {
    this.deliver(() => {
      if (this.life !== life) return
      run()
      if (this.#turnIsDue) return
      this.#turnIsDue = true
      this.#site.world.after(0, () => {
        if (this.life !== life) return
        this.deliver(() => {
          if (this.life !== life) return
          this.#turnIsDue = false
          this.host.endTurn()
        })
      })
    })
  }
}

/** A client's request as a proxy gets it, the codec aside. */
export interface ClientRequest {
  readonly key: string
  /** Undefined: a get. */
  readonly operation: Operation | undefined
  readonly timeoutMs: number
  readonly sentAt: Work['sentAt']
  readonly answer: (answer: Answer) => void
}

export class ProxyProcess extends Process {
  readonly #site: Site
  #coordinator: Coordinator | undefined
  #timerMono = Infinity

  constructor(site: Site, name: string) {
    super(name, site.newClock(site.knobs.proxySkewMs))
    this.#site = site
  }

  start(): void {
    const site = this.#site
    this.isUp = true
    const life = ++this.life
    this.#timerMono = Infinity
    const answers = new WeakMap<Work, (answer: Answer) => void>()
    const coordinator = new Coordinator({
      zones: site.knobs.zones,
      rows: site.rows,
      clockBoundMs: (site.knobs.times ?? simulatedTimes).boundMs,
      rules: site.knobs.rules ?? completionRules,
      ports: {
        random: site.world.random,
        proposerId: 2 ** 47 + site.world.random.int(2 ** 31) * 2 ** 8 + life,
        shardOf: () => 0,
        send: (to, message) => {
          site.carry(this.name, to, () => {
            const server = site.processes.get(to) as StorageProcess
            if (message.type === 'ping') server.hear(this.name, message)
            else server.receive(this.name, message)
          })
        },
        wakeAt: (mono) => this.#wakeAt(mono, life),
        answer: (work, answer) => answers.get(work)?.(answer),
        count: (event) => site.count(event),
        wantRow: () => undefined,
      },
    })
    this.#coordinator = coordinator
    this.#answers = answers
    const ping = (): void => {
      if (this.life !== life) return
      this.deliver(() => {
        coordinator.ping(this.clock.instant())
        // Rarely: what a stale owner says has to be enough.
        if (!site.mapIsAway && site.world.random.chance(0.1)) for (const row of site.rows) coordinator.learnRow(row, this.clock.instant())
      })
      site.world.after(pingMs, ping)
    }
    ping()
  }
  #answers = new WeakMap<Work, (answer: Answer) => void>()

  request({ key, operation, timeoutMs, sentAt, answer }: ClientRequest): void {
    const now = this.clock.instant()
    const work: Work = { operation, deadlineMono: now.mono + Math.min(600, timeoutMs), sentAt, acceptWasSent: 'no' }
    this.#answers.set(work, answer)
    const coordinator = this.#coordinator as Coordinator
    if (operation === undefined) coordinator.read(key, work, now)
    else coordinator.write(key, work, now)
  }

  receive(from: string, message: ReplicaAnswer | RepairRequest | Pong): void {
    if (message.type === 'repair') {
      const now = this.clock.instant()
      const work: Work = { operation: undefined, deadlineMono: now.mono + 100, sentAt: undefined, acceptWasSent: 'no', isRepair: true }
      return this.#coordinator?.write(message.key, work, now)
    }
    this.#coordinator?.receive(from, message, this.clock.instant())
  }

  #wakeAt(mono: number, life: number): void {
    if (mono >= this.#timerMono) return
    this.#timerMono = mono
    this.#site.world.after(this.clock.trueMsUntil(mono), () => {
      if (this.life !== life) return
      this.deliver(() => {
        if (this.life !== life || this.#timerMono !== mono) return
        this.#timerMono = Infinity
        const now: Instant = this.clock.instant()
        this.#coordinator?.wake({ ...now, mono: Math.max(now.mono, mono) })
      })
    })
  }
}
