/**
 * The calls that are under way to Redis: where each goes, how long it is waited for, and what is known when no answer comes.
 * Invariant: a write that may have reached a server and has no answer is UNKNOWN_OUTCOME; one that surely has not is never called so.
 * Why a gate for each write: ioredis sends what was in flight once more after it has connected again. The gate is closed by then, so the
 * second sending does nothing; without it an unconditional write could be applied twice.
 */
import type { Millis } from '../base/types.ts'
import { isKvError, KvError } from '../kv/errors.ts'
import type { QueueLimits, Ticker } from './call-queue.ts'
import { Connection, type IoredisShape, type NodeRedisShape, type Topology } from './redis-client.ts'
import type { Argument, Gate, Script } from './redis-script.ts'
import type { Wait } from './verbs.ts'

/** How many replicas have to confirm a write before it is acknowledged, and how long Redis waits for them. */
export interface Replication {
  readonly replicas: number
  readonly timeoutMs: Millis
}

/** How often one call follows a redirection or looks for its server anew. A fail-over or a moved slot takes one or two. */
const redirectionsMax = 5

export class Call {
  readonly key: string
  readonly script: Script
  readonly args: readonly Argument[]
  readonly bytes: number
  /** Of a write. */
  readonly gate: Gate | undefined
  /** A server may have it, or may get it. */
  sent = false
  done = false
  link: Link | undefined
  /** Called once, by whoever ends the call. */
  finish: (error: KvError | undefined, reply?: unknown) => void = () => undefined

  constructor(key: string, script: Script, args: readonly Argument[], bytes: number, gate?: Gate) {
    this.key = key
    this.script = script
    this.args = args
    this.bytes = bytes
    this.gate = gate
  }

  end(error: KvError | undefined, reply?: unknown): void {
    if (this.done) return
    this.done = true
    this.gate?.close()
    this.link?.calls.delete(this)
    this.finish(error, reply)
  }

  /** It had no effect where it was sent: until it is sent again nobody has it. */
  takeBack(): void {
    this.link?.calls.delete(this)
    this.link = undefined
    this.sent = false
  }

  /** The signal or the deadline ended the wait. */
  giveUp(code: 'ABORTED' | 'DEADLINE_EXCEEDED', cause: unknown): void {
    const mayBeThere = this.gate !== undefined && (this.sent || this.link?.connection.isOpen === true)
    this.end(new KvError(mayBeThere ? 'UNKNOWN_OUTCOME' : code, cause === undefined ? {} : { cause }))
  }

  /** The connection was lost, or the client gave the command up. */
  lose(cause: unknown): void {
    const options = cause === undefined ? {} : { cause }
    this.end(new KvError(this.gate !== undefined && this.sent ? 'UNKNOWN_OUTCOME' : 'UNAVAILABLE', options))
  }
}

/** One server, and the calls that wait for it. */
class Link {
  readonly connection: Connection
  readonly calls = new Set<Call>()
  readonly #replication: Replication | undefined
  /** Scripts sent so far: WAIT covers those that were sent before it on its connection. */
  #sends = 0
  #wait: { readonly covers: number; readonly epoch: number; readonly confirmed: Promise<number> } | undefined

  constructor(client: IoredisShape | NodeRedisShape, replication: Replication | undefined) {
    this.#replication = replication
    this.connection = new Connection(client, {
      sending: () => {
        for (const call of this.calls) call.sent = true
      },
      lost: () => {
        // What waits in the client for its connection is sent later. A read that was sent harms nobody when it is sent again.
        for (const call of this.calls) if (call.sent && call.gate !== undefined) call.lose(new Error('the connection to Redis was lost'))
      },
    })
  }

  /** Sends the call's script and, for a write, waits for the replicas. */
  async send(call: Call, asText: boolean, isAsking: boolean): Promise<unknown> {
    call.link = this
    this.calls.add(call)
    call.sent = this.connection.isOpen
    const number = ++this.#sends
    // The next command of this connection is the script: nothing is awaited in between.
    if (isAsking) this.connection.ask()
    const reply = await this.connection.run(call.script, asText, call.key, call.args)
    if (call.gate !== undefined && this.#replication !== undefined) await this.#confirm(number, this.#replication)
    return reply
  }

  /**
   * Resolves when enough replicas have what the script of this number did. One WAIT serves all that were sent before it: Redis answers
   * nothing else of a connection while it waits, so a WAIT for each write would make them wait for each other.
   */
  async #confirm(number: number, { replicas, timeoutMs }: Replication): Promise<void> {
    const { epoch } = this.connection
    if (this.#wait === undefined || this.#wait.covers < number || this.#wait.epoch !== epoch) {
      const confirmed = this.connection.wait(replicas, timeoutMs)
      const wait = { covers: this.#sends, epoch, confirmed }
      this.#wait = wait
      const over = (): void => {
        if (this.#wait === wait) this.#wait = undefined
      }
      confirmed.then(over, over)
    }
    const { confirmed } = this.#wait
    const count = await confirmed.catch((cause: unknown) => {
      throw new KvError('UNKNOWN_OUTCOME', { message: 'the write is applied, but Redis could not say whether replicas have it', cause })
    })
    if (epoch !== this.connection.epoch)
      throw new KvError('UNKNOWN_OUTCOME', { message: 'the write was applied, but the connection was lost before replicas confirmed it' })
    if (count >= replicas) return
    throw new KvError('UNKNOWN_OUTCOME', {
      message: `the write is applied, but ${count} of ${replicas} replicas confirmed it within ${timeoutMs} ms`,
      hint: 'a fail-over may lose it: repeat it with the same requestId, or read the key, once the replicas are back',
    })
  }
}

export interface CallsOptions {
  readonly topology: Topology
  readonly replication: Replication | undefined
  readonly ticker: Ticker
  readonly limits: QueueLimits
}

export class Calls {
  readonly #topology: Topology
  readonly #replication: Replication | undefined
  readonly #ticker: Ticker
  readonly #limits: QueueLimits
  readonly #links = new Map<IoredisShape | NodeRedisShape, Link>()
  #learning: Promise<void> | undefined
  #count = 0
  #bytes = 0
  #whenIdle: (() => void) | undefined

  constructor({ topology, replication, ticker, limits }: CallsOptions) {
    this.#topology = topology
    this.#replication = replication
    this.#ticker = ticker
    this.#limits = limits
  }

  /** Runs calls at once, under one deadline and one signal, and gives their replies. The first that fails ends all. */
  run(calls: readonly Call[], wait: Wait): Promise<unknown[]> {
    this.#admit(calls)
    return new Promise((resolve, reject) => {
      const replies: unknown[] = Array.from({ length: calls.length })
      const { signal } = wait
      let left = calls.length
      const onAbort = (): void => {
        for (const call of calls) call.giveUp('ABORTED', signal?.reason)
      }
      const cancelTimer = this.#ticker.after(wait.deadlineMs ?? this.#limits.deadlineMs, () => {
        for (const call of calls) call.giveUp('DEADLINE_EXCEEDED', undefined)
      })
      signal?.addEventListener('abort', onAbort, { once: true })
      for (const [index, call] of calls.entries()) {
        call.finish = (error, reply) => {
          replies[index] = reply
          this.#release(call)
          if (error !== undefined) {
            reject(error)
            for (const other of calls) other.end(error)
          }
          if (--left > 0) return
          cancelTimer()
          signal?.removeEventListener('abort', onAbort)
          resolve(replies)
        }
      }
      for (const call of calls) void this.#perform(call)
    })
  }

  /** Waits for what is under way and takes all listeners off. */
  async close(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve))
    for (const link of this.#links.values()) link.connection.leave()
    this.#links.clear()
  }

  #admit(calls: readonly Call[]): void {
    const bytes = calls.reduce((sum, call) => sum + call.bytes, 0)
    const { callsMax, bytesMax } = this.#limits
    if (this.#count > 0 && this.#count + calls.length > callsMax)
      throw new KvError('BUSY', { message: `${this.#count} calls wait for Redis, of at most ${callsMax}` })
    if (this.#bytes > 0 && this.#bytes + bytes > bytesMax)
      throw new KvError('BUSY', { message: `calls with ${this.#bytes} bytes wait for Redis, of at most ${bytesMax}` })
    this.#count += calls.length
    this.#bytes += bytes
  }

  #release(call: Call): void {
    this.#count--
    this.#bytes -= call.bytes
    if (this.#count === 0) this.#whenIdle?.()
  }

  /** Brings one call to its end. Never throws. */
  async #perform(call: Call): Promise<void> {
    let asText = false
    let asked: string | undefined
    for (let turn = 1; !call.done; turn++) {
      try {
        const link = await this.#linkFor(call, asked)
        if (call.done) return
        if (link !== undefined) {
          call.end(undefined, await link.send(call, asText, asked !== undefined))
          return
        }
        if (turn > redirectionsMax) throw new KvError('UNAVAILABLE', { message: 'no server of the cluster has the slot of this key' })
        asked = undefined
        await this.#learn(call.key)
      } catch (error) {
        if (call.done) return
        const word = serverWord(error)
        // A server that was started anew or was not asked yet; it keeps the script from now on.
        const isUnread = word === 'NOSCRIPT' && !asText
        const isUnsent = word === undefined && !isKvError(error) && !call.sent
        const isElsewhere = this.#topology.isCluster && turn <= redirectionsMax && (word === 'MOVED' || word === 'ASK' || isUnsent)
        if (!isUnread && !isElsewhere) {
          if (isKvError(error)) call.end(error)
          else if (word === undefined) call.lose(error)
          else call.end(refusalOf(word, error))
          return
        }
        call.takeBack()
        if (isUnread) asText = true
        else asked = word === 'ASK' ? addressIn(error) : undefined
        if (isElsewhere && word !== 'ASK') await this.#learn(call.key).catch(() => undefined)
      }
    }
  }

  async #linkFor(call: Call, asked: string | undefined): Promise<Link | undefined> {
    const client = await (asked === undefined ? this.#topology.clientOf(call.key) : this.#topology.clientAt(asked))
    if (client === undefined) return undefined
    let link = this.#links.get(client)
    if (link === undefined) {
      this.#forgetUnused()
      link = new Link(client, this.#replication)
      this.#links.set(client, link)
    }
    return link
  }

  /** Nodes of a cluster come and go; a link without calls to a client without a connection is made anew when it is needed. */
  #forgetUnused(): void {
    for (const [client, link] of this.#links) {
      if (link.calls.size > 0 || link.connection.isOpen) continue
      link.connection.leave()
      this.#links.delete(client)
    }
  }

  /** One at a time: it serves all that lost their way. */
  #learn(key: string): Promise<void> {
    this.#learning ??= this.#topology.learn(key).finally(() => {
      this.#learning = undefined
    })
    return this.#learning
  }
}

/** The words with which a server refuses a command before it has any effect. Other errors are the client's, and say nothing about that. */
const refusals = new Set(
  'ASK BUSY CLUSTERDOWN ERR LOADING MASTERDOWN MISCONF MOVED NOAUTH NOPERM NOREPLICAS NOSCRIPT OOM READONLY TRYAGAIN WRONGPASS WRONGTYPE'.split(
    ' ',
  ),
)
const messageOf = (error: unknown): string => (error instanceof Error ? error.message : '')

/** Redis 6 wraps what a command inside of a script was refused with. */
function serverWord(error: unknown): string | undefined {
  const message = messageOf(error)
  const [, word] = /^ERR Error running script.*?: -?([A-Z]+) /.exec(message) ?? /^([A-Z]+)\b/.exec(message) ?? []
  return word !== undefined && refusals.has(word) ? word : undefined
}

/** Of `ASK 3999 127.0.0.1:6381`. */
const addressIn = (error: unknown): string | undefined => messageOf(error).split(' ')[2]

/** Scripts write at their very end and once, so an error means that nothing was written. */
function refusalOf(word: string, cause: unknown): KvError {
  switch (word) {
    case 'OOM':
      return new KvError('MEMORY_FULL', {
        message: 'Redis has reached its maxmemory',
        hint: "give it more, or entries a ttl; keep maxmemory-policy at 'noeviction', for a forgotten key is a second charge",
        cause,
      })
    case 'WRONGTYPE':
      return new KvError('RECORD_FOREIGN', { cause })
    case 'NOAUTH':
    case 'NOPERM':
    case 'WRONGPASS':
      return new KvError('UNAVAILABLE', {
        message: 'Redis refuses this user',
        hint: 'allow it EVAL, EVALSHA, TIME, GET, SET, DEL (with `wait` also WAIT, EXISTS, SETRANGE) and the keys of the prefix',
        cause,
      })
    case 'MOVED':
      return new KvError('UNAVAILABLE', {
        message: 'Redis says that another server has this key',
        hint: 'for a cluster give redisKv a Cluster of ioredis, or what createCluster of redis gives',
        cause,
      })
    default:
      return new KvError('UNAVAILABLE', { message: `Redis refused the call: ${word}`, cause })
  }
}
