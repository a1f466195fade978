/**
 * A simulated storage server: the shipping host on a simulated disk.
 * Invariant: whatever an earlier life of the process asked for never reaches a later one, what the disk has does.
 */
import type { MapRequest, Ping, ServerMessage } from '../../core/wire/server-message.ts'
import { Host } from '../storage/host.ts'
import type { Batch } from '../storage/marks.ts'
import { Disk, type Snapshot } from './disk.ts'
import type { Message, Site } from './site.ts'
import { Process } from './world.ts'

/** How often `tick` is called. */
const tickMs = 10
/** Whatever starts processes again waits so long. */
const restartMs = 15

/** What the disk answers to writes. */
export type DiskHealth = 'sound' | 'sync-fails' | 'tears' | 'full'

export class StorageProcess extends Process {
  readonly zone: number
  disk: Disk
  diskHealth: DiskHealth = 'sound'
  /** Of its machine: a power cycle makes another. */
  bootId = 1
  /** The map's epoch when this server lost what it had; it has it again in a later one. */
  lostInEpoch: number | undefined
  /** In its directory's place stands a copy of one. Whether it may vote is a matter of what the map knows of it. */
  hasCopy = false
  /** A directory that was copied before this true time is known to be an old one: the map had a later word of this server's. */
  toldAt = 0
  readonly #site: Site
  #host: Host | undefined
  #turnIsDue = false

  constructor(site: Site, name: string, zone: number) {
    super(name, site.newClock(site.knobs.serverClock()))
    this.#site = site
    this.zone = zone
    this.disk = this.#newDisk()
  }

  get host(): Host {
    return this.#host as Host
  }

  start(): void {
    const site = this.#site
    const life = this.begin()
    this.#turnIsDue = false
    const { disk } = this
    const { zones, mode, times, promisesMax, waitingMax } = site.knobs
    const host: Host = new Host({
      server: this.name,
      zone: this.zone,
      zones,
      machine: { mode, bootId: `${this.bootId}` },
      store: disk.store,
      shards: disk.shards,
      now: this.clock.instant(),
      times,
      promisesMax,
      waitingMax,
      ports: {
        random: site.world.random,
        disk: {
          read: (shard, key) => disk.read(shard, key),
          page: (shard, after, keysMax) => disk.page(shard, after, keysMax),
          due: (shard, until, after, keysMax) => disk.due(shard, until, after, keysMax, times),
          commit: (batch) => this.#commit(life, batch),
        },
        send: (to, message) => site.carry(this.name, to, message),
        askMap: (request) => this.#askMap(life, request),
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
    if (mode === 'os') this.#keepSyncing(life, disk)
  }

  take(from: string, message: Message): void {
    this.#turn(this.life, () => {
      const now = this.clock.instant()
      if (message.type === 'prepare' || message.type === 'accept' || message.type === 'read') this.host.step(from, message, now)
      else this.host.hear(from, message as ServerMessage | Ping, now)
    })
  }

  handOver(to: string): void {
    this.#turn(this.life, () => void this.host.handOver(0, to, this.clock.instant()))
  }

  crash(keepsWrite: boolean): void {
    this.disk.crash(keepsWrite)
    this.kill()
  }

  /** Only now and then the power takes what the operating system had: in `os` mode alone there is something to take. */
  losePower(): void {
    const { random } = this.#site.world
    this.crash(random.chance(0.5))
    this.bootId++
    if (this.#site.knobs.mode === 'os') this.#lose()
    this.disk.losePower(Math.max(0, this.disk.unsynced - random.pick([1, 2, 8, Infinity])))
  }

  /** The directory is gone; it comes back empty. */
  loseDirectory(): void {
    this.crash(false)
    this.#lose()
    this.hasCopy = false
    this.disk = this.#newDisk()
  }

  /** Another directory stands in the place of its own. */
  replaceDirectory(by: Snapshot): void {
    this.loseDirectory()
    this.hasCopy = true
    this.disk.restore(by)
  }

  #lose(): void {
    this.lostInEpoch = this.#site.map.rows[0]?.epoch ?? 0
  }

  #newDisk(): Disk {
    return new Disk(this.#site.knobs.mode !== 'os')
  }

  #commit(life: number, batch: Batch): void {
    const { world, syncMs } = this.#site
    const { disk } = this
    disk.begin(batch)
    const [least, most] = syncMs
    world.after(least + world.random.next() * (most - least), () => {
      if (this.life !== life) return
      if (this.diskHealth !== 'sound') return this.#fail()
      disk.finish() // the disk works on while the process is paused
      this.#turn(life, () => this.host.committed())
    })
  }

  /** A write that failed ends the process. What a failed sync left on the disk nobody knows; on a full disk, or torn, it is not there. */
  #fail(): void {
    const { world } = this.#site
    this.crash(this.diskHealth === 'sync-fails' && world.random.chance(0.5))
    if (this.diskHealth !== 'full') this.diskHealth = 'sound'
    world.after(restartMs, () => this.isUp || this.start())
  }

  #keepSyncing(life: number, disk: Disk): void {
    const { world, knobs } = this.#site
    world.after(world.random.next() * knobs.osSyncMs, () => {
      if (this.life !== life) return
      disk.sync()
      this.#keepSyncing(life, disk)
    })
  }

  #askMap(life: number, request: MapRequest): void {
    const site = this.#site
    const sentAt = site.world.now
    site.askMap(this.name, request, (answer) => {
      if (answer.isDone && (request.type === 'map-ceiling' || request.type === 'map-raise')) this.toldAt = Math.max(this.toldAt, sentAt)
      this.#turn(life, () => this.host.heardMap(answer, this.clock.instant()))
    })
  }

  /** Runs in this process, and ends the turn once all that came at the same instant was taken. */
  #turn(life: number, run: () => void): void {
    if (this.life !== life) return
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
