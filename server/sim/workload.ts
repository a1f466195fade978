/**
 * Simulated clients: each asks for one thing after the other, sends it again through another proxy when no answer comes, and writes
 * down what it asked and what it was told.
 * Invariant: a client takes only the answer of its latest sending, and ends a request when its retry window is over.
 */
import type { ExpiryChange } from '../../core/kv/expiry.ts'
import type { RequestId, Version } from '../../core/kv/kv.ts'
import type { EpochMs, Millis } from '../../core/base/types.ts'
import type { ClientRequest } from '../proxy/session.ts'
import { wallStart } from './clock.ts'
import { answerOf, type HistoryVerb, type Recorder, type Shown, type Value } from './history.ts'
import { linkIn, linkText } from './oracles.ts'
import { scaledRules } from './scale.ts'
import type { Site } from './site.ts'
import type { World } from './world.ts'

/**
 * `session`: as our clients do. `plain`: one id each, which nobody says is done, sent again when no answer comes; JunoDB's Java client, told to.
 * `plain-once`: such ids, never sent again. `nameless`: none, never sent again.
 */
export type ClientKind = 'session' | 'plain' | 'plain-once' | 'nameless'

export interface WorkloadKnobs {
  readonly clients: number
  readonly keys: readonly string[]
  /** Milliseconds between an answer and the next request, at most. */
  readonly thinkMsMax: number
  /** How often each verb is asked for. */
  readonly weights: Readonly<Record<HistoryVerb, number>>
  /** Milliseconds that entries live, where they expire. */
  readonly ttlsMs: readonly number[]
  readonly expiring: number
  readonly conditional: number
  /** Milliseconds that a proxy may take. */
  readonly timeoutMs: number
  /** Milliseconds until a client sends again. */
  readonly patienceMs: number
  /** Milliseconds from the first sending until it gives up. */
  readonly retryWindowMs: number
  /** How each client names its requests. */
  readonly kinds: readonly ClientKind[]
  /** This key counts: it is read, created and updated on condition alone, and its states are one chain (oracles.ts). */
  readonly countingKey: string | undefined
  /** No new requests between these true times. */
  readonly quiet: { readonly from: number; readonly until: number } | undefined
  /** No new requests from here on, in true time. */
  readonly endsAt: number
}

/** Counting keys hold texts, all others numbers. */
export function valueIn(bytes: Uint8Array): Value {
  return bytes.length === 4 ? new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) : Buffer.from(bytes).toString('latin1')
}
export function bytesOf(value: Value): Uint8Array {
  if (typeof value === 'string') return Buffer.from(value, 'latin1')
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value)
  return bytes
}

export class Workload {
  readonly #world: World
  readonly #site: Site
  readonly #knobs: WorkloadKnobs
  readonly #recorder: Recorder
  readonly #verbs: readonly HistoryVerb[]
  #values = 0

  constructor(world: World, site: Site, knobs: WorkloadKnobs, recorder: Recorder) {
    this.#world = world
    this.#site = site
    this.#knobs = knobs
    this.#recorder = recorder
    this.#verbs = Object.entries(knobs.weights).flatMap(([verb, weight]) => Array.from({ length: weight }, () => verb as HistoryVerb))
  }

  start(): void {
    const { clients, kinds } = this.#knobs
    for (let index = 0; index < clients; index++) new SimulatedClient(this, `c${index}`, kinds[index % kinds.length] as ClientKind).start()
  }

  /** What one client does from its first to its last request. */
  get parts() {
    return { world: this.#world, site: this.#site, knobs: this.#knobs, recorder: this.#recorder, verbs: this.#verbs }
  }
  nextValue(): number {
    return ++this.#values
  }
}

/** Between two sendings. */
const retryPauseMsMax = 30
const firstLookMs = 150
/** How many creates are repeated when their completion is gone, and until when. */
const lateRepeats = 0.3
const lateRepeatMsMax = 700

interface Asking {
  readonly key: string
  readonly verb: HistoryVerb
  readonly value: Value | undefined
  readonly ifVersion: string | undefined
  readonly expiry: ExpiryChange
  readonly name: { readonly session: string; readonly sequence: number }
  readonly firstAt: number
  /** The store's time at the first sending, as this client knows it. */
  readonly sentAt: EpochMs | undefined
}

class SimulatedClient {
  readonly #workload: Workload
  readonly #name: string
  readonly #kind: ClientKind
  /** What was seen last of each key. */
  readonly #seen = new Map<string, Shown>()
  #sequence = 0
  /** Store time minus true time, from the latest answer. */
  #storeOffsetMs: number | undefined

  constructor(workload: Workload, name: string, kind: ClientKind) {
    this.#workload = workload
    this.#name = name
    this.#kind = kind
  }

  /** A get does no harm when it is sent again. */
  get #mayRepeat(): boolean {
    return this.#kind === 'session' || this.#kind === 'plain'
  }

  start(): void {
    const { world, knobs } = this.#workload.parts
    world.after(world.random.next() * knobs.thinkMsMax, () => this.#next())
  }

  #next(): void {
    const { world, knobs, verbs } = this.#workload.parts
    const { random } = world
    const { quiet, endsAt } = knobs
    if (world.now >= endsAt) return
    if (quiet !== undefined && world.now >= quiet.from && world.now < quiet.until)
      return world.after(quiet.until - world.now + random.next() * knobs.thinkMsMax, () => this.#next())
    const key = random.pick(knobs.keys)
    if (key === knobs.countingKey) return this.#count(key)
    // After a silence everybody looks before anybody writes: what was told then has to hold when something old comes in.
    const isFirstLook = quiet !== undefined && world.now >= quiet.until && world.now < quiet.until + firstLookMs
    const verb = isFirstLook ? 'get' : random.pick(verbs)
    const seen = this.#seen.get(key)
    const isWrite = verb === 'create' || verb === 'update' || verb === 'set'
    const mayHaveCondition = verb === 'update' || verb === 'set' || verb === 'destroy'
    this.#begin({
      key,
      verb,
      value: isWrite ? this.#workload.nextValue() : undefined,
      ifVersion: mayHaveCondition && seen && random.chance(knobs.conditional) ? seen.version : undefined,
      expiry: isWrite ? this.#drawExpiry(verb) : { type: 'never' },
    })
  }

  /** Adds a little to the count that it saw last, or looks. */
  #count(key: string): void {
    const { random } = this.#workload.parts.world
    const seen = this.#seen.get(key)
    const none = { key, ifVersion: undefined, expiry: { type: 'keep' } } as const
    if (random.chance(0.3)) return this.#begin({ ...none, verb: 'get', value: undefined })
    const by = 1 + random.int(3)
    const link = {
      id: this.#workload.nextValue(),
      over: seen?.version,
      by,
      count: by + (seen === undefined ? 0 : linkIn(seen.value).count),
    }
    const value = linkText(link)
    if (seen === undefined) this.#begin({ ...none, verb: 'create', value, expiry: { type: 'never' } })
    else this.#begin({ ...none, verb: 'update', value, ifVersion: seen.version })
  }

  #begin(asked: Pick<Asking, 'key' | 'verb' | 'value' | 'ifVersion' | 'expiry'>): void {
    const { now } = this.#workload.parts.world
    const isSession = this.#kind === 'session'
    this.#sequence++
    const name = isSession ? { session: this.#name, sequence: this.#sequence } : { session: `${this.#name}-${this.#sequence}`, sequence: 0 }
    // Others do not tell when they sent it.
    const sentAt = isSession && this.#storeOffsetMs !== undefined ? ((wallStart + now + this.#storeOffsetMs) as EpochMs) : undefined
    this.#send({ ...asked, name, firstAt: now, sentAt }, 1)
  }

  #drawExpiry(verb: HistoryVerb): ExpiryChange {
    const { world, knobs } = this.#workload.parts
    const { random } = world
    if (!random.chance(knobs.expiring)) return verb === 'create' ? { type: 'never' } : random.pick([{ type: 'keep' }, { type: 'never' }])
    const ttlMs = random.pick(knobs.ttlsMs) as Millis
    return verb === 'create' || random.chance(0.5) ? { type: 'set', ttlMs } : { type: 'extend', ttlMs }
  }

  #send(asking: Asking, attempt: number): void {
    const { world, site, knobs, recorder } = this.#workload.parts
    const { key, verb, value, ifVersion, expiry, name } = asking
    const number = recorder.sent({
      client: this.#name,
      key,
      verb,
      ...(value === undefined ? {} : { value, expiry }),
      ...(ifVersion === undefined ? {} : { ifVersion }),
      calledAt: world.now,
      ...(this.#mayRepeat ? { request: { ...name, attempt } } : {}),
    })
    let isOver = false
    /** Goes on to the next sending or the next request. */
    const end = (mayRepeat: boolean): void => {
      if (isOver) return
      isOver = true
      if (mayRepeat && this.#mayRepeat && world.now - asking.firstAt < knobs.retryWindowMs)
        return world.after(world.random.next() * retryPauseMsMax, () => this.#send(asking, attempt + 1))
      world.after(world.random.next() * knobs.thinkMsMax, () => this.#next())
    }
    const proxy = world.random.pick(site.proxies)
    proxy.ask({
      key,
      request: this.#requestOf(asking, attempt),
      answer: (answer) => {
        if (isOver) return
        const told = answerOf(answer, valueIn)
        world.log(`${world.now.toFixed(3)} ${this.#name} ${verb} ${key} ${told.type}`)
        recorder.answered(number, world.now, told)
        if (told.now !== undefined) this.#storeOffsetMs = told.now - wallStart - world.now
        if ('entry' in told && told.entry) this.#seen.set(key, told.entry)
        if (verb === 'create' && told.type === 'applied' && told.entry && this.#kind === 'plain')
          this.#repeatLate(asking, told.entry, attempt)
        end(told.type === 'unknown' || told.type === 'no-effect')
      },
    })
    world.after(knobs.patienceMs, () => end(true))
  }

  /**
   * Somebody finds an old create in a queue, and sends it again when its completion is gone. The life that it began still knows its name;
   * after that life it is a create like any other, and is written down as one.
   */
  #repeatLate(asking: Asking, created: Shown, attempt: number): void {
    const { world, site, knobs, recorder } = this.#workload.parts
    const { random } = world
    if (asking.key === knobs.countingKey || !random.chance(lateRepeats)) return
    world.after(scaledRules.lifeMs + random.next() * lateRepeatMsMax, () => {
      if (world.now >= knobs.endsAt) return
      const { key, expiry } = asking
      const late: Asking = { ...asking, value: this.#workload.nextValue() }
      const number = recorder.sent({ client: this.#name, key, verb: 'create', value: late.value as Value, expiry, calledAt: world.now })
      random.pick(site.proxies).ask({
        key,
        request: this.#requestOf(late, attempt + 1),
        answer: (answer) => {
          const told = answerOf(answer, valueIn)
          const isKnown = told.type === 'applied' && told.entry?.version === created.version
          recorder.answered(number, world.now, isKnown ? { type: 'no-effect', why: 'its life knows its name', now: told.now } : told)
        },
      })
    })
  }

  #requestOf({ verb, value, ifVersion, expiry, name, sentAt }: Asking, attempt: number): ClientRequest {
    const { knobs } = this.#workload.parts
    const requestId: RequestId | undefined =
      this.#kind === 'session' ? { ...name, done: name.sequence, attempt } : this.#kind === 'nameless' ? undefined : name.session
    const asked = { timeoutMs: knobs.timeoutMs, sentAt }
    if (verb === 'get') return { verb, ...asked }
    const condition = ifVersion as Version | undefined
    if (verb === 'destroy') return { verb, requestId, ifVersion: condition, ...asked }
    return { verb, requestId, value: bytesOf(value as Value), expiry, ifVersion: condition, ...asked }
  }
}
