/**
 * JunoDB's clients as its functional tests use them: a namespace, the name of an application, and a method a verb, over the wire.
 * Source: juno: pkg/client, test/testutil/testhelper.go. What a client would refuse by itself (a namespace that is empty) is sent here.
 */
import { randomBytes } from 'node:crypto'
import { createConnection } from 'node:net'
import type { TestError } from 'vitest'
import type { Address } from '../../../core/net/address.ts'
import type { Pool } from '../../../core/net/pool.ts'
import { JunoCodec } from '../../../core/wire/juno-codec.ts'
import { Opcode, Status, type JunoMessage, type JunoMeta } from '../../../core/wire/juno-message.ts'
import { writeSource } from '../../../core/wire/juno-source.ts'

export type StatusName = keyof typeof Status
export type OpcodeName = keyof typeof Opcode
const statusNames = new Map<number, StatusName>(Object.entries(Status).map(([name, number]) => [number, name as StatusName]))

/** What a client hears. */
export interface Told {
  readonly status: StatusName
  /** Without its type. */
  readonly value: Buffer
  /** 0: not told, as of all numbers here. */
  readonly version: number
  readonly ttlS: number
  readonly createdAtS: number
  readonly expiresAtS: number
  readonly meta: JunoMeta
  readonly message: JunoMessage
}

export interface Sending {
  readonly key?: Uint8Array | undefined
  readonly value?: Uint8Array | undefined
  readonly ttlS?: number | undefined
  /** What the Go client sends of a record's context; the Java client only the version. */
  readonly context?: JunoMeta | undefined
  readonly requestId?: Uint8Array | undefined
}

export class JunoClient {
  readonly #pool: Pool<JunoMessage, JunoMessage>
  readonly #namespace: Buffer
  readonly #source: Buffer

  constructor(pool: Pool<JunoMessage, JunoMessage>, namespace: string, application: string) {
    this.#pool = pool
    this.#namespace = Buffer.from(namespace)
    this.#source = writeSource({ name: application, port: 0, address: Uint8Array.of(127, 0, 0, 1) })
  }

  message(verb: OpcodeName, { key, value, ttlS, context = {}, requestId = randomBytes(16) }: Sending): JunoMessage {
    return {
      isRequest: true,
      opaque: 0,
      opcode: Opcode[verb],
      flags: 0,
      status: 0,
      meta: { ...context, requestId, ttlS, sourceInfo: this.#source },
      namespace: this.#namespace,
      key: key ?? new Uint8Array(),
      // A type before nothing, or nothing at all: both are the empty value.
      payload: value === undefined ? undefined : Buffer.concat([Uint8Array.of(0), value]),
      hasPayload: true,
    }
  }

  async send(verb: OpcodeName, sending: Sending): Promise<Told> {
    return toldIn(await this.#pool.request(this.message(verb, sending), { timeoutMs: 10_000 }))
  }

  create(key: Uint8Array | undefined, value: Uint8Array | undefined, ttlS?: number): Promise<Told> {
    return this.send('create', { key, value, ttlS })
  }
  get(key: Uint8Array | undefined, ttlS?: number): Promise<Told> {
    return this.send('get', { key, ttlS })
  }
  set(key: Uint8Array | undefined, value: Uint8Array | undefined, ttlS?: number): Promise<Told> {
    return this.send('set', { key, value, ttlS })
  }
  update(key: Uint8Array | undefined, value: Uint8Array | undefined, ttlS?: number, context?: JunoMeta): Promise<Told> {
    return this.send('update', { key, value, ttlS, context })
  }
  destroy(key: Uint8Array | undefined): Promise<Told> {
    return this.send('destroy', { key })
  }
}

/** Statuses that say "send it again": a machine that has a lot to do may not get an attempt through in its 600 ms. */
const slow: readonly number[] = [Status.busy, Status.commitFailure, Status.noStorage, Status.recordLocked]
const slowness = 'the machine was too slow for this case'

/** Of a group: its cases run side by side, and one begins anew, with other keys, when the cluster asked for that and nothing else. */
export const cases = {
  concurrent: true,
  retry: { count: 9, condition: (error: TestError): boolean => error.message.startsWith(slowness) },
}

export function toldIn(message: JunoMessage): Told {
  const { status, payload, meta } = message
  if (slow.includes(status)) throw new Error(`${slowness}: ${statusNames.get(status)}`)
  return {
    status: statusNames.get(status) ?? 'internal',
    value: payload === undefined ? Buffer.alloc(0) : Buffer.from(payload.subarray(1)),
    version: meta.version ?? 0,
    ttlS: meta.ttlS ?? 0,
    createdAtS: meta.createdAtS ?? 0,
    expiresAtS: meta.expiresAtS ?? 0,
    meta,
    message,
  }
}

/** What the Go client keeps of an answer, for a conditional update. */
export const contextOf = ({ meta: { version, createdAtS, originator } }: Told): JunoMeta => ({ version, createdAtS, originator })
/** What the Java client keeps of it. */
export const versionOf = ({ meta: { version } }: Told): JunoMeta => ({ version })

/**
 * Sends messages as the Java client does a batch: on one connection, at once, all under one opaque. Answers are known by their request ids.
 * @returns what was told of each, in the order of the messages
 */
export async function sendBatch(address: Address, messages: readonly JunoMessage[], opaque = 7): Promise<readonly Told[]> {
  const socket = createConnection('path' in address ? { path: address.path } : address)
  const codec = new JunoCodec()
  const decoder = codec.decoder()
  const answers = new Map<string, Told>()
  try {
    await new Promise<void>((resolve, reject) => {
      socket.on('error', reject)
      socket.on('close', () => reject(new Error(`closed after ${answers.size} of ${messages.length} answers`)))
      socket.on('data', (bytes: Buffer) => {
        decoder.push(bytes, (answer) => {
          if (answer.opaque !== opaque) reject(new Error(`the opaque is ${answer.opaque}, not ${opaque}`))
          try {
            answers.set(hexOf(answer), toldIn(answer))
          } catch (error) {
            reject(error as Error)
          }
        })
        if (answers.size === messages.length) resolve()
      })
      socket.write(Buffer.concat(messages.map((message) => codec.encode(message, opaque))))
    })
  } finally {
    socket.destroy()
  }
  return messages.map((message) => answers.get(hexOf(message)) as Told)
}

const hexOf = ({ meta: { requestId } }: JunoMessage): string => Buffer.from(requestId ?? new Uint8Array()).toString('hex')
