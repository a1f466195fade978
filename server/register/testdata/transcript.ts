/**
 * Plays a transcript: real coordinators and acceptors, every message delivered by hand. In the style of cockroachdb/datadriven: commands, a
 * line `----`, and what came of them; an empty line ends a step. The words are in README.md beside this file.
 */
import { seededRandom } from '../../../core/base/random.ts'
import { epochMs } from '../../../core/base/types.ts'
import type { ExpiryChange } from '../../../core/kv/expiry.ts'
import { completionRules, type Operation, type Request } from '../../../core/record/operation.ts'
import type { ReplicaAnswer, ReplicaRequest, ShardRow } from '../../../core/wire/replica-message.ts'
import type { Ping } from '../../../core/wire/server-message.ts'
import { Coordinator } from '../../proxy/coordinator.ts'
import { Acceptor, stubOf, type Stored } from '../acceptor.ts'
import { maxBallot, noBallot, sameBallot, type Ballot } from '../ballot.ts'
import type { Instant, Work } from '../work.ts'
import { Texts } from './texts.ts'

const start = 1_700_000_000_000
const letters = 'ABCDE'
const requestKinds = ['prepare', 'accept', 'read']

interface Pending {
  readonly proxy: string
  readonly zone: number
  readonly server: string
  readonly message: ReplicaRequest | ReplicaAnswer
}

class Zone {
  readonly index: number
  server: string
  epoch = 1
  row: ShardRow
  isUp = true
  offsetMs = 0
  entries = new Map<string, Stored>()
  marks: { ceiling: Ballot; purged: Ballot } = { ceiling: noBallot, purged: noBallot }
  acceptor!: Acceptor

  constructor(index: number, row: ShardRow) {
    this.index = index
    this.server = row.servers[index] as string
    this.row = row
  }
}

interface Proxy {
  coordinator: Coordinator
  name: string
  offsetMs: number
  /** Milliseconds during which both clocks stood still. */
  suspendedMs: number
  wakes: number[]
  works: Map<Work, string>
}

export class Transcript {
  #time = 0
  #zones: Zone[] = []
  readonly #proxies = new Map<string, Proxy>()
  #row: ShardRow = { shard: 0, epoch: 1, servers: [] }
  #pending: Pending[] = []
  #lines: string[] = []
  #proposers = 0
  #promisesMax = 1_000
  readonly #texts = new Texts(start)
  #requests = 0

  /** Plays one step. @returns what came of it, a line each */
  step(commands: readonly string[]): readonly string[] {
    this.#lines = []
    for (const line of commands) {
      const command = line.replace('~ ', '')
      const [verb = '', ...words] = command.trim().split(/\s+/)
      const said = this.#lines.length
      const options = Object.fromEntries(words.filter((word) => word.includes('=')).map((word) => word.split('=') as [string, string]))
      try {
        this.#do(verb, words.filter((word) => !word.includes('=')), options)
      } catch (error) {
        this.#say(`IMPOSSIBLE: ${command}: ${(error as Error).message}`)
        continue
      }
      if (command !== line) this.#lines.length = said // preparations
    }
    return this.#lines
  }

  #do(verb: string, words: readonly string[], options: Readonly<Record<string, string>>): void {
    const [first = '', second = '', third = ''] = words
    switch (verb) {
      case 'zones':
        return this.#found(Number(first), Number(options['promises'] ?? 1_000))
      case 'create':
      case 'update':
      case 'set':
      case 'destroy':
      case 'get':
      case 'repair':
        return this.#call(verb, first, second, third, options)
      case 'deliver':
        for (const one of this.#take(first, second, third)) this.#arrive(one, true)
        return
      case 'ask': // a request alone; its answer waits
        for (const one of this.#take(first, second, third)) this.#arrive(one, false)
        return
      case 'copy': // it will arrive twice
        for (const one of this.#take(first, second, third)) this.#pending.push(one, { ...one })
        return
      case 'drop':
        return void this.#take(first, second, third)
      case 'run':
        return this.#run((options['without'] ?? '').split(','))
      case 'advance':
        return this.#advance(Number(first), options['silent'] !== undefined)
      case 'ping':
        return this.#pingAll()
      case 'clock':
        return this.#process(first, (zone) => (zone.offsetMs += Number(second)), (proxy) => (proxy.offsetMs += Number(second)))
      case 'suspend':
        this.#proxy(first).suspendedMs += Number(second)
        this.#time += Number(second)
        return
      case 'crash':
        return this.#process(first, (zone) => this.#restart(zone), (proxy) => this.#startProxy(proxy.name))
      case 'lose':
        return this.#replace(this.#zone(first), options['from'] ?? '')
      case 'learn': // a proxy hears the map
        return void this.#proxy(first).coordinator.learnRow(this.#row, this.#now(this.#proxy(first)))
      case 'damage':
        return void this.#zone(first).entries.set(second, { type: 'damaged', ceiling: this.#zone(first).marks.ceiling })
      case 'stub':
        return this.#stub(this.#zone(first), second)
      case 'purge':
        return this.#purge(first)
      case 'show':
        return this.#show(first)
      default:
        throw new Error(`no such command: ${verb}`)
    }
  }

  // Processes

  #found(count: number, promisesMax: number): void {
    this.#promisesMax = promisesMax
    this.#row = { shard: 0, epoch: 1, servers: [...letters.slice(0, count)] }
    this.#zones = this.#row.servers.map((_, index) => new Zone(index, this.#row))
    for (const zone of this.#zones) this.#restart(zone)
  }

  #restart(zone: Zone): void {
    const { entries } = zone
    this.#pending = this.#pending.filter((one) => isRequest(one.message) || one.server !== zone.server)
    zone.acceptor = new Acceptor({
      shard: 0,
      zone: zone.index,
      floor: zone.marks.ceiling,
      promisesMax: this.#promisesMax,
      ports: {
        get marks() {
          return zone.marks
        },
        stored: (key) => entries.get(key) ?? { type: 'absent' },
        put: (key, entry) => void entries.set(key, { type: 'entry', entry }),
        raiseCeiling: (to) => void (zone.marks = { ...zone.marks, ceiling: maxBallot(zone.marks.ceiling, to) }),
        alarm: (what, key) => this.#say(`${letters[zone.index]} ALARM: ${what}, ${key}`),
        count: () => undefined,
      },
    })
  }

  /** Another, empty server takes the place in the next epoch; the sources raise theirs before they are read. */
  #replace(zone: Zone, from: string): void {
    const sources = from.split(',').filter(Boolean).map((letter) => this.#zone(letter))
    const epoch = this.#row.epoch + 1
    this.#row = { ...this.#row, epoch, servers: this.#row.servers.map((server, index) => (index === zone.index ? `${server}'` : server)) }
    for (const one of [zone, ...sources]) {
      one.epoch = epoch
      one.row = this.#row
    }
    zone.server = this.#row.servers[zone.index] as string
    zone.entries = new Map()
    zone.marks = { ceiling: noBallot, purged: noBallot }
    for (const source of sources) {
      zone.marks = { ceiling: maxBallot(zone.marks.ceiling, source.marks.ceiling), purged: maxBallot(zone.marks.purged, source.marks.purged) }
      for (const [key, stored] of source.entries) {
        const known = zone.entries.get(key)
        const isLater = known?.type === 'entry' && stored.type === 'entry' && sameBallot(maxBallot(known.entry.ballot, stored.entry.ballot), known.entry.ballot)
        if (!isLater) zone.entries.set(key, stored)
      }
    }
    this.#restart(zone)
  }

  #startProxy(name: string): void {
    const known = this.#proxies.get(name)
    const proxy: Proxy = {
      name,
      offsetMs: known?.offsetMs ?? 0,
      suspendedMs: known?.suspendedMs ?? 0,
      wakes: [],
      works: new Map(),
      coordinator: undefined as unknown as Coordinator,
    }
    this.#pending = this.#pending.filter((one) => isRequest(one.message) || one.proxy !== name)
    proxy.coordinator = new Coordinator({
      zones: this.#zones.length,
      rows: [this.#row],
      rules: completionRules,
      ports: {
        random: { ...seededRandom(1), next: () => 0.5 },
        proposerId: ++this.#proposers,
        shardOf: () => 0,
        send: (server, message) => this.#send(proxy, server, message),
        wakeAt: (mono) => void proxy.wakes.push(mono),
        answer: (work, answer) => this.#say(`${name} ${proxy.works.get(work)}: ${this.#texts.answerText(answer)}`),
        count: () => undefined,
        wantRow: () => undefined,
      },
    })
    this.#proxies.set(name, proxy)
    this.#ping(proxy)
  }

  #proxy(name: string): Proxy {
    if (!this.#proxies.has(name)) this.#startProxy(name)
    return this.#proxies.get(name) as Proxy
  }
  #zone(letter: string): Zone {
    const zone = this.#zones[letters.indexOf(letter)]
    if (zone === undefined) throw new Error(`no such zone: ${letter}`)
    return zone
  }
  #process(name: string, zone: (zone: Zone) => unknown, proxy: (proxy: Proxy) => unknown): void {
    if (letters.includes(name)) zone(this.#zone(name))
    else proxy(this.#proxy(name))
  }
  #now(proxy: Proxy): Instant {
    const mono = this.#time - proxy.suspendedMs
    return { mono, wall: epochMs(Math.floor(start + mono + proxy.offsetMs)) }
  }

  // Messages

  #send(proxy: Proxy, server: string, message: ReplicaRequest | Ping): void {
    if (message.type === 'ping') {
      const zone = this.#zones.find((one) => one.server === server)
      if (zone) proxy.coordinator.receive(server, { type: 'pong', id: message.id, zone: zone.index, clock: this.#clockOf(zone) } as never, this.#now(proxy))
      return
    }
    const zone = this.#row.servers.indexOf(server)
    const index = zone >= 0 ? zone : letters.indexOf(server[0] as string)
    this.#pending.push({ proxy: proxy.name, zone: index, server, message })
    const last = this.#lines.at(-1)
    const line = `  ${proxy.name} sends ${this.#texts.requestText(message)} to `
    if (last?.startsWith(line)) this.#lines[this.#lines.length - 1] = `${last} ${letters[index]}`
    else this.#say(`${line}${letters[index]}`)
  }

  /** As the host does: whoever asks in an older epoch gets the row, a newer one is taken over; of a server that is gone nothing comes. */
  #arrive({ proxy, zone: index, server, message }: Pending, isThrough: boolean): void {
    if (!isRequest(message)) {
      const owner = this.#proxies.get(proxy) as Proxy
      owner.coordinator.receive(server, message, this.#now(owner))
      return
    }
    const zone = this.#zones[index] as Zone
    if (zone.server !== server) return this.#say(`  ${server} is gone`)
    const { id, shard, key } = message
    const clock = this.#clockOf(zone)
    let answer: ReplicaAnswer
    if (message.epoch < zone.epoch) answer = { id, shard, key, zone: index, clock, epoch: zone.epoch, type: 'rejected', reason: 'epoch', row: zone.row }
    else {
      zone.epoch = message.epoch
      answer = zone.acceptor.step(message, zone.epoch, clock)
    }
    this.#say(`  ${letters[index]} to ${proxy}: ${this.#texts.replyText(answer)}`)
    const reply = { proxy, zone: index, server, message: answer }
    if (isThrough) this.#arrive(reply, true)
    else this.#pending.push(reply)
  }

  #clockOf = (zone: Zone) => epochMs(Math.floor(start + this.#time + zone.offsetMs))

  /** Of each zone named the first one; of none, all. */
  #take(proxy: string, kind: string, zones: string): Pending[] {
    const isOne = ({ proxy: of, message }: Pending): boolean => of === proxy && message.type === kind
    const taken: Pending[] = []
    if (zones === '') taken.push(...this.#pending.filter(isOne))
    for (const letter of zones === '' ? [] : zones) {
      const one = this.#pending.find((each) => isOne(each) && letters[each.zone] === letter && !taken.includes(each))
      if (one) taken.push(one)
      else if (letter !== ',') throw new Error(`no ${kind} of ${proxy} waits for ${letter}`)
    }
    this.#pending = this.#pending.filter((one) => !taken.includes(one))
    return taken
  }

  #run(without: readonly string[]): void {
    const mayMove = ({ proxy, zone }: Pending): boolean => !without.includes(proxy) && !without.includes(letters[zone] as string)
    for (let moved = 0; moved < 1_000; moved++) {
      const next = this.#pending.find(mayMove)
      if (next === undefined) return
      this.#pending.splice(this.#pending.indexOf(next), 1)
      this.#arrive(next, true)
    }
    throw new Error('it does not come to rest')
  }

  #advance(ms: number, isSilent: boolean): void {
    const until = this.#time + ms
    for (;;) {
      const due = [...this.#proxies.values()].flatMap((proxy) => proxy.wakes.map((mono) => mono + proxy.suspendedMs)).filter((at) => at <= until)
      if (due.length === 0) break
      this.#time = Math.max(this.#time, Math.min(...due))
      for (const proxy of this.#proxies.values()) {
        const now = this.#now(proxy)
        const isDue = proxy.wakes.some((mono) => mono <= now.mono)
        proxy.wakes = proxy.wakes.filter((mono) => mono > now.mono)
        if (isDue) proxy.coordinator.wake(now)
      }
    }
    this.#time = until
    if (!isSilent) this.#pingAll()
  }

  #pingAll(): void {
    for (const proxy of this.#proxies.values()) this.#ping(proxy)
  }
  #ping(proxy: Proxy): void {
    proxy.coordinator.ping(this.#now(proxy))
  }

  // Calls

  #call(verb: string, name: string, key: string, value: string, options: Readonly<Record<string, string>>): void {
    const proxy = this.#proxy(name)
    const now = this.#now(proxy)
    const work: Work = {
      operation: verb === 'get' || verb === 'repair' ? undefined : this.#operation(verb, value, options),
      deadlineMono: now.mono + Number(options['timeout'] ?? 600),
      sentAt: options['sent'] === undefined ? undefined : epochMs(start + Number(options['sent'])),
      acceptWasSent: 'no',
      ...(verb === 'repair' ? { isRepair: true } : {}),
    }
    proxy.works.set(work, [verb, key, value, options['id'] === undefined ? '' : `(${options['id']})`].filter(Boolean).join(' '))
    if (verb === 'get') proxy.coordinator.read(key, work, now)
    else proxy.coordinator.write(key, work, now)
  }

  #operation(verb: string, value: string, { id, attempt, done, ttl, extend, expiry, nameless, if: label }: Readonly<Record<string, string>>): Operation {
    const [session = `r${++this.#requests}`, sequence = '0'] = id?.split('.') ?? []
    const request: Request = { session, sequence: Number(sequence), remember: nameless === undefined, done: Number(done ?? 0), attempt: Number(attempt ?? 1) }
    const ifVersion = label === undefined ? undefined : this.#texts.versionOf(label)
    const change: ExpiryChange = ttl !== undefined ? ttlOf('set', ttl) : extend !== undefined ? ttlOf('extend', extend) : { type: expiry === 'never' || verb === 'create' ? 'never' : 'keep' }
    if (verb === 'destroy') return { verb, request, ifVersion }
    const bytes = new TextEncoder().encode(value)
    if (verb === 'create') return { verb, request, value: bytes, expiry: change }
    return { verb: verb as 'update' | 'set', request, value: bytes, expiry: change, ifVersion }
  }

  // What storage does beside the register

  #stub(zone: Zone, key: string): void {
    const stored = zone.entries.get(key)
    if (stored?.type === 'entry') zone.entries.set(key, { type: 'entry', entry: stubOf(stored.entry) })
  }

  /** Only what all zones hold alike may go, and a bound stays behind (R14). */
  #purge(key: string): void {
    const held = this.#zones.map((zone) => zone.entries.get(key))
    const [first] = held
    if (first?.type !== 'entry' || !held.every((one) => one?.type === 'entry' && sameBallot(one.entry.ballot, first.entry.ballot)))
      return this.#say('  not purged: the zones differ')
    for (const zone of this.#zones) {
      zone.entries.delete(key)
      zone.marks = { ...zone.marks, purged: maxBallot(zone.marks.purged, first.entry.ballot) }
    }
    this.#say('  purged')
  }

  // Text

  #say(line: string): void {
    this.#lines.push(line)
  }
  #show(key: string): void {
    for (const zone of this.#zones) {
      const stored = zone.entries.get(key)
      const promised = zone.acceptor.promises.of(key)
      const { floor } = zone.acceptor.promises
      const parts = [stored === undefined ? 'nothing' : stored.type === 'entry' ? this.#texts.entryText(stored.entry) : stored.type]
      if (!sameBallot(promised, noBallot)) parts.push(`promised ${this.#texts.ballotText(promised)}`)
      if (!sameBallot(floor, noBallot)) parts.push(`floor ${this.#texts.ballotText(floor)}`)
      this.#say(`  ${letters[zone.index]}: ${parts.join(', ')}`)
    }
  }
}

const isRequest = (message: ReplicaRequest | ReplicaAnswer): message is ReplicaRequest => requestKinds.includes(message.type)
const ttlOf = (type: 'set' | 'extend', ms: string): ExpiryChange => ({ type, ttlMs: Number(ms) as never })
