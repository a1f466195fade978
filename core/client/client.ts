/**
 * 'hapax/client': the contract on a cluster of proxies, over JunoDB's protocol with a field of our own.
 * Invariant: what a call says of its outcome is true: a value, a refusal, "nothing happened", or UNKNOWN_OUTCOME.
 */
import { randomInt } from 'node:crypto'
import { epochMs, type Duration } from '../base/types.ts'
import { invalid, KvError } from '../kv/errors.ts'
import type { Entry, KV } from '../kv/kv.ts'
import { checkDuration, utf8Length, type Capabilities, type Limits } from '../kv/limits.ts'
import { Pool } from '../net/pool.ts'
import { Hold, systemTicker } from '../net/ticker.ts'
import { Credentials, type TlsFiles } from '../net/tls.ts'
import type { KvOperation, Outcome } from '../record/operation.ts'
import { kvOver } from '../stores/verbs.ts'
import { JunoCodec } from '../wire/juno-codec.ts'
import { Opcode, Status, type JunoMessage } from '../wire/juno-message.ts'
import { decodeOwnAnswer, decodeOwnLimits, encodeOwnRequest } from '../wire/own-field.ts'
import { Calls, type Sending, type Told } from './calls.ts'
import { parseUrl, type Target } from './url.ts'

export interface ConnectOptions {
  /** Paths of PEM files: the authority of the cluster, and the certificate and key of this client. Absent: in the clear, on this machine alone. */
  readonly tls?: TlsFiles | undefined
  /** Connections to all proxies together, 1 to 64. Default 4: what goes out in a turn is joined, so few are faster than many. */
  readonly connections?: number | undefined
  /** For a call that brings no deadline of its own. Default '5s'. */
  readonly deadline?: Duration | undefined
  /** How long to wait for the first proxy. Default '5s'. */
  readonly connectTimeout?: Duration | undefined
}

const pingTimeoutMs = 2_000
/** Of one connection: three of the largest values. */
const queueBytesMax = 16_777_216

/**
 * Connects to a cluster. Without a URL it is the environment's HAPAX_URL.
 * @throws KvError INVALID_ARGUMENT for a URL or certificates that make no sense; UNAVAILABLE when nobody answers in time, or who does is not to be trusted.
 * Calls: as `KV`, and FORBIDDEN for what the policy of the cluster does not allow.
 * @example const kv = await connect('hapax://10.0.0.5:5080,10.0.0.6:5080/pay', { tls: { ca, cert, key } })
 */
export async function connect(url: string | undefined = process.env['HAPAX_URL'], options: ConnectOptions = {}): Promise<KV> {
  if (url === undefined) invalid('there is no URL of a cluster', 'give one, or set HAPAX_URL')
  const { tls, connections = 4 } = options
  const target = parseUrl(url, { isPlain: tls === undefined })
  const connectMs = options.connectTimeout === undefined ? 5_000 : checkDuration(options.connectTimeout, 'connectTimeout', 1)
  const deadlineMs = options.deadline === undefined ? undefined : checkDuration(options.deadline, 'deadline', 1)
  const credentials = tls === undefined ? undefined : await Credentials.open(tls)
  const client = new Client(target, credentials, connections, deadlineMs)
  try {
    return kvOver(await client.begin(connectMs))
  } catch (error) {
    await client.close()
    throw error
  }
}

class Client {
  readonly #namespace: Uint8Array
  readonly #credentials: Credentials | undefined
  readonly #pool: Pool<JunoMessage, JunoMessage>
  readonly #calls: Calls
  readonly #hold = new Hold()

  constructor({ addresses, namespace }: Target, credentials: Credentials | undefined, connections: number, deadlineMs: number | undefined) {
    if (utf8Length(namespace) < 0) invalid('a namespace must be valid Unicode')
    this.#namespace = Buffer.from(namespace)
    this.#credentials = credentials
    this.#pool = new Pool({
      addresses,
      size: connections,
      security: credentials === undefined ? 'plain' : { credentials, roles: ['proxy'] },
      codec: new JunoCodec(),
      random: chance,
      ping: { ...requestOf(Opcode.nop), isRequest: true },
      pingTimeoutMs,
      queueBytesMax,
      drainMs: 5_000,
    })
    this.#calls = new Calls({
      ticker: systemTicker,
      random: () => chance.next(),
      send: (sending, wait) => this.#send(sending, wait),
      deadlineMs,
      hold: this.#hold,
    })
  }

  /** Asks what the namespace takes, and is then ready. */
  async begin(timeoutMs: number) {
    const own = encodeOwnRequest({ timeoutMs })
    const nop = requestOf(Opcode.nop, { own, namespace: this.#namespace })
    const answer = await this.#hold.during(() => this.#pool.request(nop, { timeoutMs }))
    const told = answer.meta.own === undefined ? undefined : decodeOwnLimits(answer.meta.own)
    if (told === undefined)
      throw new KvError('UNAVAILABLE', {
        message: 'what answered is no proxy of hapax',
        hint: "a JunoDB is reached by PayPal's clients; look at the URL",
        retry: 'never',
      })
    this.#calls.hear(told.now)
    const { keyBytesMax, namespaceBytesMax, valueBytesMax, ttlMsMax } = told
    const limits: Limits = { keyBytesMax, namespaceBytesMax, valueBytesMax, ttlMsMax, getManyMax: 1_024 }
    const capabilities: Capabilities = Object.freeze({
      store: 'cluster',
      exactExpiry: true,
      serverClock: true,
      scan: false,
      requestIds: true,
      ttlGrainMs: 1,
      durability: 'replicated',
      sites: 'one',
      limits: Object.freeze(limits),
    })
    return {
      capabilities,
      apply: (key: string, operation: KvOperation, wait: Parameters<Calls['write']>[2]) => this.#calls.write(key, operation, wait),
      read: async (keys: readonly string[], wait: Parameters<Calls['write']>[2]) => {
        const [only] = keys
        if (keys.length === 1 && only !== undefined) {
          const { entry, now } = await this.#calls.read(only, wait)
          return { entries: [entry], now }
        }
        const answers = await Promise.all(keys.map((key) => this.#calls.read(key, wait)))
        // Each key was read at a moment of its own; the latest is the answer's, and what has died by then is not shown.
        const now = keys.length === 0 ? (this.#calls.storeTime ?? epochMs(0)) : epochMs(Math.max(...answers.map((answer) => answer.now)))
        const entries = answers.map(({ entry }) => (entry?.expiresAt !== undefined && entry.expiresAt <= now ? undefined : entry))
        return { entries, now }
      },
      close: () => this.close(),
    }
  }

  async close(): Promise<void> {
    await this.#hold.during(async () => {
      await this.#calls.close()
      await this.#pool.close()
      await this.#credentials?.[Symbol.asyncDispose]()
    })
    this.#hold.end()
  }

  async #send(
    { key, operation, own }: Sending,
    wait: { readonly timeoutMs: number; readonly signal: AbortSignal | undefined },
  ): Promise<Told> {
    const opcode = operation === undefined ? Opcode.get : opcodes[operation.verb]
    const value = operation !== undefined && 'value' in operation ? operation.value : undefined
    const message = requestOf(opcode, {
      own: encodeOwnRequest(own),
      namespace: this.#namespace,
      key: Buffer.from(key),
      payload: value === undefined || value.length === 0 ? undefined : clear(value),
    })
    const answer = await this.#pool.request(message, wait)
    return toldOf(operation, answer, value)
  }
}

const opcodes = { create: Opcode.create, update: Opcode.update, set: Opcode.set, destroy: Opcode.destroy } as const

/** A payload has its type before it: 0 for bytes as they are. */
function clear(value: Uint8Array): Uint8Array {
  const payload = new Uint8Array(1 + value.length)
  payload.set(value, 1)
  return payload
}

function valueOf(payload: Uint8Array | undefined): Uint8Array {
  if (payload === undefined) return new Uint8Array(0)
  if (payload[0] !== 0)
    throw new KvError('VALUE_INVALID', {
      message: `the value was written by a client that compressed or encrypted it (type ${payload[0]})`,
      hint: "PayPal's Java client compresses when it is told to: read it with that client, or tell it not to",
    })
  // A view of a larger piece would hold that in memory as long as the user keeps the value.
  return Uint8Array.from(payload.subarray(1))
}

function toldOf(operation: KvOperation | undefined, answer: JunoMessage, sent: Uint8Array | undefined): Told {
  const own = answer.meta.own === undefined ? undefined : decodeOwnAnswer(answer.meta.own)
  if (own === undefined)
    throw new KvError('UNAVAILABLE', {
      message: `the proxy answered status ${answer.status} in a way that is not known`,
      retry: 'same-request-id',
    })
  const { now, fault } = own
  if (fault !== undefined) return { now, fault }
  const { status } = answer
  const shown = own.entry
  const entry = ((): Entry | undefined => {
    if (shown === undefined) return undefined
    const { version, createdAt, expiresAt } = shown
    const isOwn = status === Status.ok && sent !== undefined
    const value = isOwn ? sent : valueOf(answer.payload)
    return expiresAt === undefined ? { value, version, createdAt } : { value, version, createdAt, expiresAt }
  })()
  return { now, fault: undefined, outcome: operation === undefined ? 'read' : outcomeOf(status, entry), entry }
}

function outcomeOf(status: number, entry: Entry | undefined): Outcome {
  if (status === Status.ok) return { type: 'applied', entry }
  if (status === Status.noKey) return { type: 'missing' }
  if (status === Status.dupKey && entry !== undefined) return { type: 'exists', entry }
  if (status === Status.versionConflict && entry !== undefined) return { type: 'version', entry }
  throw new KvError('UNAVAILABLE', { message: `the proxy answered a write with status ${status}`, retry: 'same-request-id' })
}

const empty = new Uint8Array(0)

function requestOf(
  opcode: number,
  content: {
    readonly own?: Uint8Array
    readonly namespace?: Uint8Array
    readonly key?: Uint8Array
    readonly payload?: Uint8Array | undefined
  } = {},
): JunoMessage {
  const { own, namespace = empty, key = empty, payload } = content
  return {
    isRequest: true,
    opaque: 0,
    opcode,
    flags: 0,
    status: 0,
    meta: own === undefined ? {} : { own },
    namespace,
    key,
    payload,
    hasPayload: true,
  }
}

const chance = {
  next: () => Math.random(),
  int: (below: number) => randomInt(below),
  chance: (probability: number) => Math.random() < probability,
  pick: <T>(items: readonly T[]) => items[randomInt(items.length)] as T,
}
