/**
 * Between JunoDB's messages and the session: what a message asks for, and what an answer looks like.
 * Pure. Invariant: every request has one answer; what JunoDB's clients are told is the end of the request, or that it may be sent again.
 * Source: juno-reference 1.8, 2.1, 3.3 (juno: cmd/proxy/proc, pkg/proto). Clients of ours say more, in a field of their own (own-field.ts).
 */
import { epochMs, type EpochMs, type Millis } from '../../core/base/types.ts'
import type { KvErrorCode } from '../../core/kv/errors.ts'
import type { ExpiryChange } from '../../core/kv/expiry.ts'
import type { Entry } from '../../core/kv/kv.ts'
import { toldVersion, type RecordContext } from '../../core/record/operation.ts'
import { Opcode, opcodeEnd, replicationFlag, Status, type JunoMessage, type JunoMeta } from '../../core/wire/juno-message.ts'
import { decodeOwnRequest, encodeOwnAnswer, encodeOwnLimits, type OwnRequest } from '../../core/wire/own-field.ts'
import type { Answer } from '../register/work.ts'
import { statusOfRefusal, type NamespaceLimits, type PolicyVerb, type Verdict } from './policy.ts'
import { attemptMsMax, faultOf, statusOf, type ClientRequest } from './session.ts'

/** What a message is, before its namespace is known to take it. */
export type Reading =
  | { readonly type: 'answer'; readonly answer: JunoMessage }
  /** A ping. A client of ours wants the limits of the namespace with it. */
  | { readonly type: 'nop'; readonly wantsLimits: boolean }
  | { readonly type: 'request'; readonly verb: PolicyVerb; readonly ttlMs: number; readonly own: OwnRequest | undefined }

const verbs: Readonly<Record<number, PolicyVerb>> = {
  [Opcode.create]: 'create',
  [Opcode.get]: 'get',
  [Opcode.update]: 'update',
  [Opcode.set]: 'set',
  [Opcode.destroy]: 'destroy',
  // Server functions are not run: JunoDB answers an unknown one with the value as it is, and stores the parameters of any (2.1).
  [Opcode.udfGet]: 'get',
  [Opcode.udfSet]: 'set',
}

export function readRequest(message: JunoMessage, now: EpochMs): Reading {
  const { opcode, isBad, isRequest, meta } = message
  const refuse = (status: number): Reading => ({ type: 'answer', answer: refusalOf(message, status) })
  if (isBad === true || !isRequest) return refuse(Status.badMessage)
  if (opcode === Opcode.nop) return { type: 'nop', wantsLimits: meta.own !== undefined }
  const verb = verbs[opcode]
  // Such a message comes back with all that it had.
  if (opcode >= opcodeEnd || verb === undefined)
    return { type: 'answer', answer: { ...message, isRequest: false, status: Status.notSupported } }
  if (meta.own === undefined) {
    // Replication between sites comes from proxies, on a port of their own.
    if ((message.flags & replicationFlag) !== 0) return refuse(Status.serviceDenied)
    if (meta.requestId === undefined) return refuse(Status.badParam)
    return { type: 'request', verb, ttlMs: ttlMsOf(meta, now), own: undefined }
  }
  const own = decodeOwnRequest(meta.own)
  if (own === undefined) return refuse(Status.badMessage)
  const ttlMs = own.expiry !== undefined && 'ttlMs' in own.expiry ? (own.expiry.ttlMs ?? 0) : 0
  return { type: 'request', verb, ttlMs, own }
}

function ttlMsOf({ ttlS, expiresAtS }: JunoMeta, now: EpochMs): number {
  if (ttlS !== undefined) return ttlS * 1_000
  // Ruby says when instead of how long.
  return expiresAtS === undefined ? 0 : Math.max(1_000, expiresAtS * 1_000 - now)
}

/** @param value as it is to be stored */
export function requestOf(
  message: JunoMessage,
  { verb, ttlMs, own }: Reading & { type: 'request' },
  value: Uint8Array,
  limits: NamespaceLimits,
): { readonly request: ClientRequest; readonly plainIdsRepeat: boolean | undefined } {
  if (own !== undefined) {
    const { timeoutMs, sentAt, expiry, requestId, ifVersion } = own
    const request = { verb, value, expiry: expiry ?? { type: 'keep' }, ifVersion, requestId, timeoutMs, sentAt } as const
    // Whoever gives a name of his own wants it to be known again.
    return { request, plainIdsRepeat: true }
  }
  const { meta } = message
  const requestId = Buffer.from(meta.requestId as Uint8Array).toString('hex')
  const head = { requestId, timeoutMs: attemptMsMax, value }
  const isTouch = verb === 'get' && ttlMs > 0
  const ifContext = verb === 'update' ? contextOf(meta, limits) : undefined
  return {
    request: {
      ...head,
      verb: isTouch ? 'touch' : verb,
      expiry: expiryOf(verb, ttlMs, limits),
      ...(ifContext === undefined ? {} : { ifContext }),
    },
    plainIdsRepeat: undefined,
  }
}

/** 2.1, TTL rules: an insert without one has the default, and a life is never made shorter. */
function expiryOf(verb: PolicyVerb, ttlMs: number, { ttlMsDefault }: NamespaceLimits): ExpiryChange {
  const ttl = ttlMs as Millis
  if (verb === 'create') {
    const given = ttlMs > 0 ? ttl : (ttlMsDefault as Millis)
    return given > 0 ? { type: 'set', ttlMs: given } : { type: 'never' }
  }
  if (ttlMs > 0) return { type: 'extend', ttlMs: ttl }
  return verb === 'set' && ttlMsDefault > 0 ? { type: 'keep', ttlMs: ttlMsDefault as Millis } : { type: 'keep' }
}

/** The Go client sends version, creation time and originator of a context, the Java client the version. */
function contextOf({ version, createdAtS, originator }: JunoMeta, { versionMax }: NamespaceLimits): RecordContext | undefined {
  if (version === undefined) return undefined
  return { version, versionMax, createdAtS, ...(originator === undefined ? {} : { lastModifiedAt: lastModifiedIn(originator) }) }
}

/**
 * In JunoDB the originator names the request that made a life, and clients send it back with a context. Here it says when the content was
 * made, which is unique for a key: so a context of the Go client names one state.
 */
function originatorOf(lastModifiedAt: number): Buffer {
  const bytes = Buffer.alloc(16)
  bytes.writeBigUInt64BE(BigInt(lastModifiedAt), 8)
  return bytes
}
const lastModifiedIn = (originator: Uint8Array): EpochMs =>
  epochMs(Number(Buffer.from(originator.buffer, originator.byteOffset, originator.byteLength).readBigUInt64BE(8)))

/** What an answer to one of JunoDB's clients needs beside what was decided. */
export interface Telling {
  readonly handlingMs: number
  /** Of the namespace, as it was when the request was read. */
  readonly versionMax: number
}

/** @param payload of the entry, as it goes to the client; undefined: there is none */
export function answerMessage(
  message: JunoMessage,
  verb: ClientRequest['verb'],
  answer: Answer,
  payload: Uint8Array | undefined,
  { handlingMs, versionMax }: Telling,
): JunoMessage {
  const status = statusOf(verb, answer)
  const entry = entryOf(answer)
  if (message.meta.own !== undefined) {
    const shown = entry && { version: entry.version, createdAt: entry.createdAt, expiresAt: entry.expiresAt }
    const own = encodeOwnAnswer({ now: answer.now, fault: faultOf(answer), entry: shown })
    return { ...headOf(message, status), meta: { own }, payload, hasPayload: payload !== undefined }
  }
  const { requestId } = message.meta
  const isShown = status === Status.ok || status === Status.versionConflict
  const tellsValue = verb === 'get' || verb === 'touch' || status === Status.versionConflict
  const head = { ...headOf(message, status), namespace: message.namespace, key: message.key, hasPayload: true }
  // JunoDB tells of no life that was ended: version 1, and who ended it.
  if (verb === 'destroy' && status === Status.ok) {
    const expiresAtS = entry?.expiresAt === undefined ? undefined : Math.ceil(entry.expiresAt / 1_000)
    return {
      ...head,
      meta: { handlingMs: handled(handlingMs), requestId, originator: requestId, version: 1, expiresAtS },
      payload: undefined,
    }
  }
  if (!isShown || entry === undefined) return { ...head, meta: { requestId }, payload: undefined }
  const [number = '0', stamp = '0'] = entry.version.split('.')
  const lastModifiedAt = Number.parseInt(stamp, 36)
  const meta: JunoMeta = {
    requestId,
    version: toldVersion(Number(number), versionMax),
    createdAtS: Math.floor(entry.createdAt / 1_000),
    ...(entry.expiresAt === undefined
      ? {}
      : { ttlS: Math.max(1, Math.ceil((entry.expiresAt - answer.now) / 1_000)), expiresAtS: Math.ceil(entry.expiresAt / 1_000) }),
    ...(status === Status.ok
      ? {
          handlingMs: handled(handlingMs),
          originator: originatorOf(lastModifiedAt),
          lastModifiedNs: BigInt(lastModifiedAt) * 1_000_000n,
        }
      : {}),
  }
  return { ...head, meta, payload: tellsValue ? payload : undefined }
}

/** Zero would be no field. */
const handled = (ms: number): number => Math.max(1, Math.round(ms))

/** What an answer shows of the key. */
export function entryOf(answer: Answer): Entry | undefined {
  if (answer.type === 'read') return answer.entry
  if (answer.type !== 'decided') return undefined
  const { outcome } = answer
  return 'entry' in outcome ? outcome.entry : undefined
}

/** What was refused before it came to the register: JunoDB's clients get a status, ours the fault too. */
export function deniedMessage(message: JunoMessage, { fault }: Verdict & { isAllowed: false }, now: EpochMs): JunoMessage {
  return faultMessage(message, fault, statusOfRefusal(fault), now)
}

export function faultMessage(message: JunoMessage, fault: KvErrorCode, status: number, now: EpochMs): JunoMessage {
  const refusal = refusalOf(message, status)
  return message.meta.own === undefined ? refusal : { ...refusal, meta: { own: encodeOwnAnswer({ now, fault }) }, hasPayload: false }
}

export function limitsMessage(message: JunoMessage, limits: NamespaceLimits, now: EpochMs): JunoMessage {
  const { keyBytesMax, namespaceBytesMax, valueBytesMax, ttlMsMax } = limits
  const own = encodeOwnLimits({ now, keyBytesMax, namespaceBytesMax, valueBytesMax, ttlMsMax })
  return { ...headOf(message, Status.ok), meta: { own } }
}

/** A ping comes back as it came: the Java client looks for its own name in it. */
export const echoOf = (message: JunoMessage): JunoMessage => ({ ...message, isRequest: false, status: Status.ok })

function refusalOf(message: JunoMessage, status: number): JunoMessage {
  const { requestId } = message.meta
  return { ...headOf(message, status), meta: { requestId }, namespace: message.namespace, key: message.key, hasPayload: message.hasPayload }
}

const empty = new Uint8Array(0)
const headOf = ({ opaque, opcode, flags }: JunoMessage, status: number): JunoMessage => ({
  isRequest: false,
  opaque,
  opcode,
  flags,
  status,
  meta: {},
  namespace: empty,
  key: empty,
  payload: undefined,
  hasPayload: false,
})
