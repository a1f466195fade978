/**
 * Makes the faults that were drawn, and heals them.
 * Invariant: what a fault claims is free again only when it is healed and whoever it hurt is ready: it votes again, or reaches its majorities.
 */
import { clientName, members, pause, type ChaosCluster, type Process } from './cluster.ts'
import type { Ends, Fault, FaultKind, Hurt } from './faults.ts'
import type { Link } from './links.ts'

/** A zone that was hurt for so long without a pause has to heal, so that the others have their turn, too. In milliseconds. */
const zoneHurtMsMax = 6_000
const etcdTries = 5

export class Injector {
  readonly #cluster: ChaosCluster
  readonly #clients: number
  readonly #onFault: (text: string) => void
  readonly #log: (text: string) => void
  readonly #under = new Map<Fault, Promise<void>>()
  readonly #claims = new Set<string>()
  readonly counts = new Map<FaultKind, number>()
  #zoneSince = 0

  constructor(cluster: ChaosCluster, clients: number, onFault: (text: string) => void, log: (text: string) => void) {
    this.#cluster = cluster
    this.#clients = clients
    this.#onFault = onFault
    this.#log = log
  }

  get hurt(): Hurt {
    const zone = [...this.#under.keys()].find((fault) => fault.zone !== undefined)?.zone
    return { zone, claims: this.#claims, isZoneTired: zone !== undefined && performance.now() - this.#zoneSince > zoneHurtMsMax }
  }

  get total(): number {
    return [...this.counts.values()].reduce((sum, count) => sum + count, 0)
  }

  /** Makes a fault; it heals by itself. @returns when it is healed */
  inject(fault: Fault): Promise<void> {
    if (fault.zone !== undefined && this.hurt.zone === undefined) this.#zoneSince = performance.now()
    for (const claim of fault.claims) this.#claims.add(claim)
    this.#count(fault.kind)
    this.#log(`${fault.kind} ${fault.process ?? fault.links?.map(({ source, target }) => `${source}>${target}`).join(' ') ?? ''}`)
    const healed = this.#make(fault)
      .catch((error: unknown) => this.#onFault(`${fault.kind} of ${fault.process ?? 'links'} did not heal: ${String(error)}`))
      .finally(() => {
        for (const claim of fault.claims) this.#claims.delete(claim)
        this.#under.delete(fault)
      })
    this.#under.set(fault, healed)
    return healed
  }

  /** But for an authority that is being exchanged: that takes long, beside everything else. */
  async allHealed(): Promise<void> {
    while (this.#under.size > 0) await Promise.all(this.#under.values())
  }

  /** Beside whatever else comes. @returns when it is done */
  async rotateAuthority(): Promise<void> {
    if (this.#claims.has('certificates')) return
    this.#count('authority-rotated')
    this.#log('authority-rotated')
    this.#claims.add('certificates')
    await this.#cluster
      .rotateAuthority()
      .catch((error: unknown) => this.#onFault(`the authority could not be exchanged: ${String(error)}`))
      .finally(() => this.#claims.delete('certificates'))
    this.#log('authority-rotated: done')
  }

  /** Each process after the other ends gracefully and comes back. Nothing else may be hurt. */
  async rollingRestart(): Promise<void> {
    this.#count('rolling-restart')
    this.#log('rolling-restart')
    for (const one of this.#cluster.processes) {
      await this.#restart(one)
      await Promise.all(this.#cluster.processes.map((other) => other.ready()))
    }
  }

  #count(kind: FaultKind): void {
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1)
  }

  async #make(fault: Fault): Promise<void> {
    const { kind, holdMs, ways = [] } = fault
    const { etcd } = this.#cluster
    const links = (fault.links ?? []).flatMap((ends) => this.#linksOf(ends))
    switch (kind) {
      case 'storage-killed':
      case 'proxy-killed':
      case 'storage-wiped': {
        const one = this.#process(fault)
        await one.kill()
        if (kind === 'storage-wiped') one.wipe()
        await pause(holdMs)
        one.start()
        return await one.ready()
      }
      case 'storage-restarted':
        return await this.#restart(this.#process(fault))
      case 'storage-stopped':
      case 'proxy-stopped': {
        const one = this.#process(fault)
        one.signal('SIGSTOP')
        await pause(holdMs)
        one.signal('SIGCONT')
        return await one.ready()
      }
      case 'cut':
      case 'one-way':
        return await heal(
          holdMs,
          links.map((link) => link.hold(ways)),
        )
      case 'slow':
        return await heal(
          holdMs,
          links.map((link) => link.slow(fault.delayMs ?? 0)),
        )
      case 'half-closed':
        return await heal(
          holdMs,
          links.flatMap((link) => ways.map((way) => link.halfClose(way))),
        )
      case 'reset':
        for (const link of links) link.reset()
        return await pause(holdMs)
      case 'etcd-stopped':
        etcd.signal('SIGSTOP')
        await pause(holdMs)
        return etcd.signal('SIGCONT')
      case 'etcd-killed':
        await etcd.kill()
        await pause(holdMs)
        return await again(etcdTries, () => etcd.restart())
      case 'certificates-rotated':
        await this.#cluster.rotateCertificates()
        return await pause(holdMs)
    }
  }

  async #restart(one: Process): Promise<void> {
    if (!(await one.end())) this.#onFault(`${one.member.name} had to be killed, for it did not end by itself:\n${one.said}`)
    one.start()
    await one.ready()
  }

  #process({ process: name }: Fault): Process {
    return this.#cluster.processes.find(({ member }) => member.name === name) as Process
  }

  #linksOf({ source, target }: Ends): readonly Link[] {
    const names = members.map(({ name }) => name)
    const sources =
      source === '*' ? names : source === 'client' ? Array.from({ length: this.#clients }, (_, client) => clientName(client)) : [source]
    const targets = target === '*' ? members.filter(({ role }) => role === 'storage').map(({ name }) => name) : [target]
    return sources.flatMap((from) => targets.filter((to) => to !== from).map((to) => this.#cluster.links.link(from, to)))
  }
}

async function heal(holdMs: number, ends: readonly (() => void)[]): Promise<void> {
  await pause(holdMs)
  for (const end of ends) end()
}

async function again(tries: number, act: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await act()
    } catch (error) {
      if (attempt === tries) throw error
      await pause(100)
    }
  }
}
