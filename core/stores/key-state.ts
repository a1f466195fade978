/**
 * What a batch or a grouped read knows of the keys that it names: their records, from memory or in one read from disk.
 * Invariant: a key whose record cannot be read has a fault here, and is never taken for absent.
 */
import { KvError } from '../kv/errors.ts'
import type { KeyRecord } from '../record/record.ts'
import { readFault, type Engine } from '../engine/engine.ts'
import { decodeRecord, recordKey } from '../engine/layout.ts'
import type { Call } from './call-queue.ts'
import type { Expired } from './expiry-sweep.ts'
import { recordIn, type RecordCache, type Slot } from './record-cache.ts'

/** What a batch knows of one key. */
export interface KeyState {
  readonly key: string
  readonly diskKey: Buffer
  before: KeyRecord | undefined
  after: KeyRecord | undefined
  /** What the cache is to keep of the key when `after` is durable: bytes that it does not have yet. */
  bytes: Buffer | undefined
  /** The key's place in the cache, if it has one. */
  readonly slot: Slot | undefined
  /** The record could not be read. */
  fault: KvError | undefined
}

/** The records of all keys that the calls name, from memory or in one read from disk. */
export function loadStates(engine: Engine, cache: RecordCache, calls: readonly Call[], swept: readonly Expired[]): Map<string, KeyState> {
  const states = new Map<string, KeyState>()
  const absent: KeyState[] = []
  const want = (key: string): void => {
    if (states.has(key)) return
    const slot = cache.slot(key)
    const record = slot && recordIn(slot)
    const state: KeyState = { key, diskKey: recordKey(key), before: record, after: record, bytes: undefined, slot, fault: undefined }
    states.set(key, state)
    if (record === undefined) absent.push(state)
  }
  for (const call of calls) {
    if (call.type === 'write') want(call.key)
    else for (const key of call.keys) want(key)
  }
  for (const { key } of swept) want(key)
  if (absent.length === 0) return states
  let values: ReturnType<Engine['getMany']>
  try {
    values = engine.getMany(absent.map((state) => state.diskKey))
  } catch (error) {
    values = absent.map(() => readFault(error))
  }
  for (const [index, state] of absent.entries()) {
    try {
      const value = values[index]
      if (value instanceof Uint8Array) {
        const bytes = ownBuffer(value)
        state.before = state.after = decodeRecord(state.diskKey, bytes)
        state.bytes = bytes
      } else if (value !== undefined) throw value
    } catch (error) {
      state.fault = namingKey(error, state.key)
    }
  }
  return states
}

/** The bytes in a buffer that is no part of a larger one, so that a record in the cache pins nothing else. */
function ownBuffer(bytes: Uint8Array): Buffer {
  return bytes.buffer.byteLength === bytes.byteLength
    ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    : Buffer.from(new Uint8Array(bytes).buffer)
}

function namingKey(error: unknown, key: string): KvError {
  if (!(error instanceof KvError)) throw error
  const { code, hint, retry, cause } = error
  const message = error.message.slice(error.id.length + 1)
  return new KvError(code, { message: `${message} (key ${JSON.stringify(key)})`, hint, retry, cause })
}
