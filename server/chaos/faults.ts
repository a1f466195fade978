/**
 * Which faults there are, and which comes next.
 * Pure. Invariant: at most one zone of three and one proxy of two are hurt at once, so a majority and a way to it are always there.
 * Why a deck: every kind comes about as often as it should in a short run, too, and what cannot come now comes later.
 */
import type { Random } from '../../core/base/random.ts'
import { ways, type Way } from './links.ts'
import type { Member } from './cluster.ts'

/** How often each kind is in the deck. What takes long stands beside it: `rolling-restart` and `authority-rotated` come at times of their own. */
const deck = {
  'storage-killed': 3,
  'storage-stopped': 3,
  'storage-wiped': 1,
  'storage-restarted': 1,
  'proxy-killed': 1,
  'proxy-stopped': 1,
  cut: 2,
  'one-way': 2,
  slow: 2,
  'half-closed': 2,
  reset: 1,
  'etcd-stopped': 1,
  'etcd-killed': 1,
  'certificates-rotated': 1,
} as const
export type DrawnKind = keyof typeof deck
export const drawnKinds = Object.keys(deck) as DrawnKind[]
export type FaultKind = DrawnKind | 'rolling-restart' | 'authority-rotated'

/** Links by their ends; '*': each. `client` is each of the clients. */
export interface Ends {
  readonly source: string
  readonly target: string
}

export interface Fault {
  readonly kind: DrawnKind
  /** Of processes. */
  readonly process?: string
  /** Of the links that are hurt. */
  readonly links?: readonly Ends[]
  readonly ways?: readonly Way[]
  /** Of slow links, for each piece. */
  readonly delayMs?: number
  /** How long it lasts. */
  readonly holdMs: number
  /** What it has for itself, so that nothing else hurts the same. Zones are shared by what hurts the same zone. */
  readonly claims: readonly string[]
  readonly zone?: number
}

/** What is hurt now. */
export interface Hurt {
  /** At most one. */
  readonly zone: number | undefined
  readonly claims: ReadonlySet<string>
  /** The zone was hurt for so long that it has to heal. */
  readonly isZoneTired: boolean
}

const holdMsMin = 500
const holdMsMax = 4_000

export class FaultDeck {
  readonly #random: Random
  readonly #members: readonly Member[]
  #left: DrawnKind[] = []

  constructor(random: Random, members: readonly Member[]) {
    this.#random = random
    this.#members = members
  }

  /** The next fault that may come now; undefined: none of the deck may. */
  draw(hurt: Hurt): Fault | undefined {
    for (let round = 0; round < 2; round++) {
      for (const [index, kind] of this.#left.entries()) {
        const fault = this.#make(kind, hurt)
        if (fault === undefined) continue
        this.#left.splice(index, 1)
        return fault
      }
      if (this.#left.length > 6) return undefined // what is left waits for its turn
      this.#left.push(...this.#shuffled())
    }
    return undefined
  }

  /** One storage server alone is killed or stopped: what V2 and V4 measure. */
  drawAlone(kind: 'storage-killed' | 'storage-stopped'): Fault {
    const none: Hurt = { zone: undefined, claims: new Set(), isZoneTired: false }
    return { ...(this.#make(kind, none) as Fault), holdMs: 2_000 }
  }

  #shuffled(): DrawnKind[] {
    const kinds = drawnKinds.flatMap((kind) => Array.from({ length: deck[kind] }, () => kind))
    for (let at = kinds.length - 1; at > 0; at--) {
      const other = this.#random.int(at + 1)
      ;[kinds[at], kinds[other]] = [kinds[other] as DrawnKind, kinds[at] as DrawnKind]
    }
    return kinds
  }

  #make(kind: DrawnKind, hurt: Hurt): Fault | undefined {
    const random = this.#random
    const holdMs = holdMsMin + random.int(holdMsMax - holdMsMin)
    switch (kind) {
      case 'storage-killed':
      case 'storage-stopped':
      case 'storage-wiped':
      case 'storage-restarted': {
        const found = this.#member('storage', hurt)
        return found && { kind, holdMs, process: found.name, zone: found.zone, claims: [found.name] }
      }
      case 'proxy-killed':
      case 'proxy-stopped': {
        const found = this.#member('proxy', hurt)
        return found && { kind, holdMs, process: found.name, claims: [found.name, 'proxies'] }
      }
      case 'cut':
      case 'one-way':
      case 'slow':
      case 'half-closed':
      case 'reset': {
        const place = this.#place(hurt)
        if (place === undefined) return undefined
        const hurtWays = kind === 'cut' ? ways : [random.pick(ways)]
        const delayMs = 20 + random.int(280)
        return { kind, holdMs: kind === 'reset' ? holdMsMin : holdMs, ways: hurtWays, delayMs, ...place }
      }
      case 'etcd-stopped':
      case 'etcd-killed':
        return hurt.claims.has('etcd') ? undefined : { kind, holdMs, claims: ['etcd'] }
      case 'certificates-rotated':
        return hurt.claims.has('certificates') ? undefined : { kind, holdMs: holdMsMin, claims: ['certificates'] }
    }
  }

  #member(role: Member['role'], hurt: Hurt): Member | undefined {
    if (role === 'proxy' && hurt.claims.has('proxies')) return undefined
    if (role === 'storage' && hurt.isZoneTired) return undefined
    const free = this.#members.filter(
      (one) => one.role === role && !hurt.claims.has(one.name) && (role === 'proxy' || hurt.zone === undefined || one.zone === hurt.zone),
    )
    return free.length === 0 ? undefined : this.#random.pick(free)
  }

  /** A set of links: all of a zone or of one server, one link to a server, those of the clients to one proxy, or of one process to etcd. */
  #place(hurt: Hurt): Pick<Fault, 'links' | 'claims' | 'zone'> | undefined {
    const random = this.#random
    const draw = random.next()
    if (draw < 0.7) {
      const server = this.#member('storage', hurt)
      if (server === undefined) return undefined
      const { name, zone } = server
      const zoneMates = this.#members.filter((one) => one.zone === zone).map((one) => one.name)
      if (draw < 0.15 && !zoneMates.some((mate) => hurt.claims.has(mate)))
        return { links: zoneMates.flatMap(allOf), zone, claims: zoneMates }
      if (draw < 0.4) return { links: allOf(name), zone, claims: [name] }
      const source = random.pick(this.#members.filter((one) => one.name !== name)).name
      return { links: [{ source, target: name }], zone, claims: [name] }
    }
    if (draw < 0.9) {
      const proxy = this.#member('proxy', hurt)
      return proxy && { links: [{ source: 'client', target: proxy.name }], claims: [proxy.name, 'proxies'] }
    }
    if (hurt.claims.has('etcd')) return undefined
    return { links: [{ source: random.pick(this.#members).name, target: 'etcd' }], claims: ['etcd'] }
  }
}

const allOf = (name: string): readonly Ends[] => [
  { source: '*', target: name },
  { source: name, target: '*' },
]
