/**
 * The Redis clients that a store can be given, told apart by their shape, and one connection of any of them.
 * Invariant: a client stays the caller's: nothing here closes or configures it; listeners that are added are taken off again.
 * Why a cluster's nodes are spoken to one by one and not through the cluster client: that one sends a command again by itself when a
 * connection is lost, and it sends WAIT, which names no key, to any node.
 */
import { invalid } from '../kv/errors.ts'
import type { Argument, Script } from './redis-script.ts'

/** What every client has: events. */
interface Emitter {
  on(event: string, listener: () => void): unknown
  off(event: string, listener: () => void): unknown
}
/** A `Redis` of ioredis. */
export interface IoredisShape extends Emitter {
  /** Beside each command there is one of the name and `Buffer`, which its types do not tell. */
  evalsha(sha: string, keys: string, ...keyAndArgs: Argument[]): Promise<unknown>
  eval(text: string, keys: string, ...keyAndArgs: Argument[]): Promise<unknown>
  wait(replicas: string, timeoutMs: string): Promise<unknown>
  asking(): Promise<unknown>
  readonly status: string
}
type InBuffers = Readonly<Record<'evalshaBuffer' | 'evalBuffer', IoredisShape['evalsha']>>
/** A `Cluster` of ioredis. */
export interface IoredisClusterShape extends Emitter {
  exists(key: string): Promise<unknown>
  nodes(role: 'master'): readonly IoredisShape[]
  readonly slots: readonly (readonly string[])[]
  readonly status: string
  refreshSlotsCache(done: () => void): void
}
/** A client of node-redis (`redis`), made by `createClient`. */
export interface NodeRedisShape extends Emitter {
  sendCommand(args: readonly Argument[], options?: object): Promise<unknown>
  readonly isOpen: boolean
  readonly isReady: boolean
}
/** A cluster client of node-redis, made by `createCluster`. */
export interface NodeRedisClusterShape extends Emitter {
  sendCommand(firstKey: Argument | undefined, isReadonly: boolean | undefined, args: Argument[], options?: object): Promise<unknown>
  readonly slots: readonly ({ readonly master: NodeRedisNode } | undefined)[]
  readonly masters: readonly NodeRedisNode[]
  nodeClient(node: unknown): Promise<NodeRedisShape> | NodeRedisShape
}
interface NodeRedisNode {
  readonly address: string
}
export type RedisClient = IoredisShape | IoredisClusterShape | NodeRedisShape | NodeRedisClusterShape

/**
 * One server as one client reaches it: over one connection at a time.
 * A client of ioredis sends what waits in it when it is ready; one of node-redis may do so as soon as it is connected.
 */
export class Connection {
  /** Connections made so far, as far as is known: what was answered under another number was answered by another connection. */
  epoch = 0
  readonly #client: IoredisShape | NodeRedisShape
  readonly #listeners: readonly (readonly [event: string, listener: () => void])[]
  #isConnected: boolean

  /** `sending`: what waited in the client is being sent. `lost`: what was sent has no answer any more. */
  constructor(client: IoredisShape | NodeRedisShape, on: { sending(): void; lost(): void }) {
    this.#client = client
    this.#isConnected = 'isReady' in client && client.isOpen
    const sending = (): void => {
      this.epoch++
      this.#isConnected = true
      on.sending()
    }
    const lost = (): void => {
      this.#isConnected = false
      on.lost()
    }
    this.#listeners =
      'isReady' in client
        ? [['connect', sending] as const, ['reconnecting', lost] as const, ['end', lost] as const]
        : [['ready', sending] as const, ['close', lost] as const, ['end', lost] as const]
    for (const [event, listener] of this.#listeners) client.on(event, listener)
  }

  /** Whether a command that the client has may reach the socket; else it waits in the client or fails. */
  get isOpen(): boolean {
    const client = this.#client
    return 'isReady' in client ? client.isReady || this.#isConnected : client.status === 'ready' || client.status === 'connect'
  }

  /** Runs a script on one key. Commands of one connection are answered in the order in which they are sent. Bulk strings come as Buffers. */
  run(script: Script, asText: boolean, key: string, args: readonly Argument[]): Promise<unknown> {
    const client = this.#client
    if ('isReady' in client) {
      return client.sendCommand([asText ? 'EVAL' : 'EVALSHA', asText ? script.text : script.sha, '1', key, ...args], asBuffers)
    }
    // Not `call`: with enableAutoPipelining it loses the name of its command.
    const commands = client as IoredisShape & InBuffers
    return asText ? commands.evalBuffer(script.text, '1', key, ...args) : commands.evalshaBuffer(script.sha, '1', key, ...args)
  }

  /** How many replicas confirmed all that this connection has written so far. */
  async wait(replicas: number, timeoutMs: number): Promise<number> {
    const client = this.#client
    const args = [String(replicas), String(timeoutMs)] as const
    return Number(await ('isReady' in client ? client.sendCommand(['WAIT', ...args]) : client.wait(...args)))
  }

  /** The next command may be about a slot that is on its way to this server. A refusal shows in that command's answer. */
  ask(): void {
    const client = this.#client
    const asked = 'isReady' in client ? client.sendCommand(['ASKING']) : client.asking()
    asked.catch(() => undefined)
  }

  leave(): void {
    for (const [event, listener] of this.#listeners) this.#client.off(event, listener)
  }
}

/** node-redis gives bulk strings (`$`) as they are when it is told so. */
const asBuffers = Object.freeze({ typeMapping: Object.freeze({ 36: Buffer }) })

/** How long a redirection may take to be learned before the next call tries again. */
const learnMsMax = 500

/** Where the keys of a store live. */
export interface Topology {
  readonly isCluster: boolean
  /** The client of the server that has the key, as far as the client knows; undefined while it does not. */
  clientOf(key: string): Promise<IoredisShape | NodeRedisShape | undefined> | IoredisShape | NodeRedisShape | undefined
  /** The client of a server by its address, as redirections name it. */
  clientAt(address: string): Promise<IoredisShape | NodeRedisShape | undefined> | IoredisShape | NodeRedisShape | undefined
  /** Lets the client learn anew who has the key. */
  learn(key: string): Promise<void>
}

/**
 * What clients of node-redis have from version 6 on. Those of 5 (5.12.1 too) write into a socket that has just ended, and after they have
 * connected again they may give calls the answers of others. Those of 4 give values as texts.
 */
const sinceRedis6 = 'increx'

/** @throws KvError INVALID_ARGUMENT for what is no client that a store can be built on. */
export function topologyOf(client: RedisClient): Topology {
  if (typeof client !== 'object' || client === null) return unknownShape()
  if (hasKeyPrefix(client))
    invalid('the client has a keyPrefix of its own', 'say it as `prefix` of redisKv: a client does not put its own before all keys')
  if (has(client, 'nodeClient', 'sendCommand', sinceRedis6)) return nodeRedisCluster(client as NodeRedisClusterShape)
  if (has(client, 'nodes', 'exists', 'refreshSlotsCache')) return ioredisCluster(client as IoredisClusterShape)
  // A pool or a sentinel of node-redis gives each command to a connection of its choice.
  if (has(client, 'evalshaBuffer', 'evalBuffer', 'wait', 'on') && 'status' in client) return single(client as IoredisShape)
  if (has(client, 'sendCommand', 'on', 'duplicate', sinceRedis6) && 'isReady' in client && !has(client, 'acquire'))
    return single(client as NodeRedisShape)
  return unknownShape()
}

const unknownShape = (): never =>
  invalid(
    'redisKv takes a Redis or Cluster of ioredis 5 or later, or what createClient or createCluster of redis 6 or later gives',
    'a pool or a sentinel of node-redis cannot be used: two commands in a row must take one connection',
  )

const has = (client: object, ...names: readonly string[]): boolean =>
  names.every((name) => typeof (client as Record<string, unknown>)[name] === 'function')

/** Where the options of a client are: a cluster of node-redis has no other name for them. */
function hasKeyPrefix(client: object): boolean {
  const { options, _options = options } = client as Readonly<Record<'options' | '_options', { readonly keyPrefix?: unknown } | undefined>>
  return Boolean(options?.keyPrefix) || Boolean(_options?.keyPrefix)
}

const single = (client: IoredisShape | NodeRedisShape): Topology => ({
  isCluster: false,
  clientOf: () => client,
  clientAt: () => undefined,
  learn: async () => undefined,
})

function ioredisCluster(cluster: IoredisClusterShape): Topology {
  const clientAt = (address: string | undefined): IoredisShape | undefined =>
    address === undefined ? undefined : cluster.nodes('master').find((node) => addressOf(node) === address)
  return {
    isCluster: true,
    clientOf: (key) => clientAt(cluster.slots[slotOf(key)]?.[0]),
    clientAt,
    async learn(key) {
      if (cluster.status === 'ready') await new Promise<void>((resolve) => cluster.refreshSlotsCache(resolve))
      // Connects if nobody has yet, and is answered when the slots are known.
      else await cluster.exists(key)
    },
  }
}

/** As ioredis itself names a node in `slots`. */
function addressOf(node: IoredisShape): string {
  const { host = '127.0.0.1', port = 6_379 } =
    (node as { readonly options?: { readonly host?: string; readonly port?: number } }).options ?? {}
  return `${host}:${port}`
}

function nodeRedisCluster(cluster: NodeRedisClusterShape): Topology {
  const clientOf = (node: NodeRedisNode | undefined) => (node === undefined ? undefined : cluster.nodeClient(node))
  return {
    isCluster: true,
    clientOf: (key) => clientOf(cluster.slots[slotOf(key)]?.master),
    clientAt: (address) => clientOf(cluster.masters.find((node) => node.address === address)),
    // It has no public way to learn; a command that is redirected makes it learn. To a master that is away the command would wait for ever.
    async learn(key) {
      await cluster.sendCommand(key, false, ['EXISTS', key], { abortSignal: AbortSignal.timeout(learnMsMax) })
    },
  }
}

/** CRC-16/XMODEM, the hash of Redis Cluster (polynomial 0x1021). */
const crcTable = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1
  return crc
})

/** The slot of a key, 0 to 16383: of what stands between its first `{` and the next `}`, if anything does. */
export function slotOf(key: string): number {
  const open = key.indexOf('{')
  const end = open < 0 ? -1 : key.indexOf('}', open + 1)
  let crc = 0
  for (const byte of Buffer.from(end > open + 1 ? key.slice(open + 1, end) : key)) {
    crc = ((crc << 8) & 0xffff) ^ (crcTable[(crc >> 8) ^ byte] as number)
  }
  return crc & 16_383
}
