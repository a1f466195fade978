/**
 * A simulated proxy: the shipping coordinator and session behind simulated sockets, the codec aside.
 * Invariant: what a client wrote reaches the session once or never, and an answer goes to the connection that asked, if it is still open.
 */
import type { ReplicaAnswer } from '../../core/wire/replica-message.ts'
import type { Pong, RepairRequest } from '../../core/wire/server-message.ts'
import { Coordinator } from '../proxy/coordinator.ts'
import { statusOf, TurnWatch, workOf, type ClientRequest } from '../proxy/session.ts'
import type { Answer, Instant, Work } from '../register/work.ts'
import { clientsEnd } from './network.ts'
import { gapMs } from './scale.ts'
import type { Message, Site } from './site.ts'
import { Process } from './world.ts'

const pingMs = 100
/** A turn comes at least so often: a third of the longest gap. */
const turnMs = gapMs / 3
/** How long a repair may take. */
const repairMs = 100

/** What a client sends, and who hears the answer. */
export interface Asking {
  readonly key: string
  readonly request: ClientRequest
  readonly answer: (answer: Answer) => void
}

interface Waiting {
  readonly key: string
  readonly verb: ClientRequest['verb']
  readonly answer: (answer: Answer) => void
}

export class ProxyProcess extends Process {
  readonly #site: Site
  #coordinator: Coordinator | undefined
  #watch = new TurnWatch(gapMs)
  #timerMono = Infinity
  #waiting = new Map<Work, Waiting>()
  /** All connections of clients are closed at once; the next ones have a higher number. */
  #connections = 0

  constructor(site: Site, name: string) {
    super(name, site.newClock(site.knobs.proxyClock()))
    this.#site = site
  }

  start(): void {
    const site = this.#site
    const { zones, times, rules, proxiesHaveRows } = site.knobs
    const life = this.begin()
    this.#timerMono = Infinity
    this.#watch = new TurnWatch(gapMs)
    this.#waiting = new Map()
    this.#connections++
    this.#coordinator = new Coordinator({
      zones,
      rows: proxiesHaveRows ? site.rows : [],
      clockBoundMs: times.boundMs,
      rules,
      ports: {
        random: site.world.random,
        proposerId: 2 ** 47 + site.world.random.int(2 ** 31) * 2 ** 8 + life,
        shardOf: () => 0,
        send: (to, message) => site.carry(this.address, to, message),
        wakeAt: (mono) => this.#wakeAt(mono, life),
        answer: (work, answer) => this.#answer(work, answer),
        count: (event) => site.count(event),
        wantRow: () => this.#askMap(life),
      },
    })
    this.#repeat(life, pingMs, () => {
      this.#coordinator?.ping(this.clock.instant())
      // Rarely: what a stale owner says has to be enough.
      if (site.world.random.chance(0.1)) this.#askMap(life)
    })
    this.#repeat(life, turnMs, () => undefined)
  }

  /** Servers answer on the connections that a proxy opened, and these end with it. */
  override get address(): string {
    return `${this.name}/${this.life}`
  }

  /** A client sends a request on a connection that is open now, and hears the answer unless the connection is closed before. */
  ask({ key, request, answer }: Asking): void {
    const { network, world } = this.#site
    const connection = this.#connections
    const askedAt = world.now
    const take = (): void => {
      if (connection !== this.#connections) return
      // Out of the retry window, and nobody can see it: of such a request nothing is promised.
      if (request.sentAt === undefined && world.now - askedAt > gapMs) return
      this.#request(key, request, (given) => {
        if (connection === this.#connections) network.sendOnce(this.name, clientsEnd, () => answer(given))
      })
    }
    network.sendOnce(clientsEnd, this.name, () => this.deliver(take, 'client'))
  }

  take(from: string, message: Message): void {
    this.deliver(() => this.#hear(from, message as ReplicaAnswer | RepairRequest | Pong))
  }

  /** S4: what lies unread may be of any age once the process stood still. */
  protected override beginTurn(): boolean {
    if (!this.#watch.begin(this.clock.instant())) return false
    this.#site.count('unread-dropped')
    this.#connections++
    return true
  }

  #hear(from: string, message: ReplicaAnswer | RepairRequest | Pong): void {
    const now = this.clock.instant()
    if (message.type !== 'repair') return this.#coordinator?.receive(from, message, now)
    const work: Work = { operation: undefined, deadlineMono: now.mono + repairMs, sentAt: undefined, acceptWasSent: 'no', isRepair: true }
    this.#coordinator?.write(message.key, work, now)
  }

  #request(key: string, request: ClientRequest, answer: (answer: Answer) => void): void {
    const now = this.clock.instant()
    const { plainIdsRepeat } = this.#site.knobs
    const work = workOf(request, now, { plainIdsRepeat })
    this.#waiting.set(work, { key, verb: request.verb, answer })
    if (work.operation === undefined) this.#coordinator?.read(key, work, now)
    else this.#coordinator?.write(key, work, now)
  }

  #answer(work: Work, answer: Answer): void {
    const waiting = this.#waiting.get(work)
    this.#waiting.delete(work)
    if (waiting === undefined) return // a repair
    const { world, onAnswer } = this.#site
    onAnswer?.(this.name, waiting.key, work, answer)
    world.log(`${world.now.toFixed(3)} ${this.name} ${waiting.verb} ${waiting.key} ${statusOf(waiting.verb, answer)}`)
    waiting.answer(answer)
  }

  #askMap(life: number): void {
    const site = this.#site
    site.askMap(this.name, { type: 'map-read', id: 1 + site.world.random.int(2 ** 31) }, ({ rows }) => {
      if (this.life !== life) return
      this.deliver(() => {
        const now = this.clock.instant()
        for (const row of rows) this.#coordinator?.learnRow(row, now)
      })
    })
  }

  #repeat(life: number, everyMs: number, run: () => void): void {
    if (this.life !== life) return
    this.deliver(run)
    this.#site.world.after(everyMs, () => this.#repeat(life, everyMs, run))
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
        // The clock stood still meanwhile. What is left of a millisecond is rounding.
        if (mono - now.mono > 0.001) return this.#wakeAt(mono, life)
        this.#coordinator?.wake({ ...now, mono: Math.max(now.mono, mono) })
      })
    })
  }
}
