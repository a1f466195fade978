/**
 * A simulated site: storage servers and proxies as the shipping state machines make them, joined by the simulated network and disks.
 * Invariant: nothing here decides what a register answers; it only carries messages, writes and time.
 */
import { completionRules, type CompletionRules, type Operation } from '../../core/record/operation.ts'
import type { ReplicaAnswer, ReplicaRequest, ShardRow } from '../../core/wire/replica-message.ts'
import { noBallot } from '../register/ballot.ts'
import type { Answer, Instant, Work } from '../register/work.ts'
import { Coordinator } from '../proxy/coordinator.ts'
import { Host } from '../storage/host.ts'
import { Disk } from './disk.ts'
import { Network, type NetworkKnobs } from './network.ts'
import { Process, SkewedClock, type World } from './world.ts'

export interface SiteKnobs {
  readonly zones: number
  readonly proxies: number
  readonly network: NetworkKnobs
  /** Of a sync. */
  readonly syncMs: readonly [number, number]
  readonly promisesMax: number
  readonly rules?: CompletionRules
  /** The greatest difference of a clock to true time, either way. */
  readonly skewMs: number
}

export class Site {
  readonly world: World
  readonly knobs: SiteKnobs
  readonly network: Network
  readonly servers: StorageProcess[] = []
  readonly proxies: ProxyProcess[] = []
  rows: ShardRow[]
  readonly processes = new Map<string, Process>()
  readonly alarms: string[] = []
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
    this.rows = [{ shard: 0, epoch: 1, servers: names }]
    for (const [zone, name] of names.entries()) this.#add(new StorageProcess(this, name, zone), this.servers)
    for (let index = 0; index < knobs.proxies; index++) this.#add(new ProxyProcess(this, `p${index}`), this.proxies)
  }

  #add<P extends StorageProcess | ProxyProcess>(process: P, to: P[]): void {
    to.push(process)
    this.processes.set(process.name, process)
    process.start()
  }

  newClock(): SkewedClock {
    const { skewMs } = this.knobs
    return new SkewedClock(this.world, (this.world.random.next() * 2 - 1) * skewMs, 1)
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
  readonly disk = new Disk()
  readonly zone: number
  readonly #site: Site
  #host: Host | undefined
  #turnIsDue = false

  constructor(site: Site, name: string, zone: number) {
    super(name, site.newClock())
    this.#site = site
    this.zone = zone
    this.disk.format([{ shard: 0, epoch: 1, state: 'serving', purged: noBallot }])
  }

  start(): void {
    const site = this.#site
    this.isUp = true
    const life = ++this.life
    this.#turnIsDue = false
    const host = new Host({
      server: this.name,
      zone: this.zone,
      store: this.disk.store,
      shards: this.disk.shards,
      promisesMax: site.knobs.promisesMax,
      ports: {
        read: (shard, key) => this.disk.read(shard, key),
        commit: (batch) => {
          this.disk.begin(batch)
          const [least, most] = site.syncMs
          site.world.after(least + site.world.random.next() * (most - least), () => {
            if (this.life !== life) return
            this.disk.finish() // the disk works on while the process is paused
            this.deliver(() => {
              if (this.life !== life) return
              host.committed()
            })
          })
        },
        send: (to, message) => site.carry(this.name, to, () => (site.processes.get(to) as ProxyProcess).receive(message)),
        alarm: (what, _shard, key) => void site.alarms.push(`${what}: ${key} at ${this.name}`),
      },
    })
    for (const row of site.rows) host.learnRow(row)
    this.#host = host
  }

  receive(from: string, message: ReplicaRequest): void {
    const host = this.#host as Host
    host.step(from, message, this.clock.instant())
    if (this.#turnIsDue) return
    this.#turnIsDue = true
    const { life } = this
    this.#site.world.after(0, () => {
      if (this.life !== life) return
      this.deliver(() => {
        if (this.life !== life) return
        this.#turnIsDue = false
        host.endTurn()
      })
    })
  }

  crash(keepsWrite: boolean): void {
    this.disk.crash(keepsWrite)
    this.kill()
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
    super(name, site.newClock())
    this.#site = site
  }

  start(): void {
    const site = this.#site
    this.isUp = true
    const life = ++this.life
    this.#timerMono = Infinity
    const answers = new WeakMap<Work, (answer: Answer) => void>()
    const coordinator = new Coordinator({
      rows: site.rows,
      rules: site.knobs.rules ?? completionRules,
      ports: {
        random: site.world.random,
        proposerId: 2 ** 47 + site.world.random.int(2 ** 31) * 2 ** 8 + life,
        shardOf: () => 0,
        send: (to, message) => site.carry(this.name, to, () => (site.processes.get(to) as StorageProcess).receive(this.name, message)),
        wakeAt: (mono) => this.#wakeAt(mono, life),
        answer: (work, answer) => answers.get(work)?.(answer),
        clockIsTrusted: () => true,
        wantRow: () => undefined,
        heardClock: () => undefined,
        hedgeMs: () => 8,
        nearest: (row) => site.world.random.int(row.servers.length),
      },
    })
    this.#coordinator = coordinator
    this.#answers = answers
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

  receive(message: ReplicaAnswer): void {
    this.#coordinator?.receive(message, this.clock.instant())
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
