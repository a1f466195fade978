/**
 * What a store can do and how much it takes, said by the store itself; and the checks of what a caller gives.
 * Pure. Invariant: what passes here fits every layer below; what does not is refused before anything is queued.
 * Why a pattern asks with `need` when it is built: a store that lacks something must fail at start-up, not at night.
 */
import { epochMsMax, parseDuration, type Duration, type EpochMs, type Millis } from '../base/types.ts'
import { invalid, KvError } from './errors.ts'

export interface Limits {
  /** Bytes of a key in UTF-8, with its scope. */
  readonly keyBytesMax: number
  /** Bytes of a scope's name in UTF-8 (JunoDB: namespace). */
  readonly namespaceBytesMax: number
  /** Bytes of a value. */
  readonly valueBytesMax: number
  /** The longest ttl in milliseconds. */
  readonly ttlMsMax: number
  /** Keys of one getMany. */
  readonly getManyMax: number
}

/** Presets. `wide` is the default; `juno` is what a JunoDB takes (juno: pkg/util limits; ttl 3 days, value 200 KiB). */
export const limitPresets = {
  wide: { keyBytesMax: 1_024, namespaceBytesMax: 128, valueBytesMax: 4_194_304, ttlMsMax: epochMsMax / 2, getManyMax: 1_024 },
  juno: { keyBytesMax: 128, namespaceBytesMax: 64, valueBytesMax: 204_800, ttlMsMax: 259_200_000, getManyMax: 1_024 },
} as const satisfies Record<string, Limits>

/** Limits as an option: a preset's name, or a preset with some limits changed. */
export type LimitsOption = keyof typeof limitPresets | (Partial<Limits> & { readonly preset?: keyof typeof limitPresets })

export interface Capabilities {
  /** The name of the store, for messages and reports. */
  readonly store: string
  /** An entry is dead at its very instant of expiry, not some time later. */
  readonly exactExpiry: boolean
  /** `now` in answers is one clock for all callers of the store. */
  readonly serverClock: boolean
  /** Keys can be listed. */
  readonly scan: boolean
  /** `requestId` is honoured: a repeated request is applied once. */
  readonly requestIds: boolean
  /** The grain of ttls in milliseconds; finer ones are rounded up. */
  readonly ttlGrainMs: number
  /** What an acknowledged write survives: nothing, a killed process, a power cut, the loss of a machine. */
  readonly durability: 'memory' | 'process' | 'disk' | 'replicated'
  /** How many data centres may write one key without asking each other. One: every answer is exact. */
  readonly sites: 'one' | 'many'
  readonly limits: Limits
}

/** What a pattern may ask of a store: each named capability must be true, or not worse than the value. */
export interface Needs {
  readonly exactExpiry?: true
  readonly serverClock?: true
  readonly scan?: true
  readonly requestIds?: true
  /** The ttl grain must be at most this. */
  readonly ttlGrainMs?: number
  readonly sites?: 'one'
  readonly valueBytes?: number
  readonly keyBytes?: number
  readonly ttlMs?: number
}

/**
 * Throws CAPABILITY_MISSING, naming all that `who` lacks.
 * @example need(kv, { serverClock: true, valueBytes: 65_536 }, 'idempotency')
 */
export function need(kv: { readonly capabilities: Capabilities }, needs: Needs, who: string): void {
  const { capabilities } = kv
  const { limits } = capabilities
  const missing: string[] = []
  for (const name of ['exactExpiry', 'serverClock', 'scan', 'requestIds'] as const) {
    if (needs[name] && !capabilities[name]) missing.push(name)
  }
  const atMost = (what: string, wanted: number | undefined, offered: number): void => {
    if (wanted !== undefined && wanted > offered) missing.push(`${what} of ${wanted} (it takes ${offered})`)
  }
  if (needs.ttlGrainMs !== undefined && capabilities.ttlGrainMs > needs.ttlGrainMs)
    missing.push(`a ttl grain of ${needs.ttlGrainMs} ms (it has ${capabilities.ttlGrainMs})`)
  if (needs.sites === 'one' && capabilities.sites !== 'one') missing.push('a single home for each key')
  atMost('valueBytes', needs.valueBytes, limits.valueBytesMax)
  atMost('keyBytes', needs.keyBytes, limits.keyBytesMax)
  atMost('ttlMs', needs.ttlMs, limits.ttlMsMax)
  if (missing.length > 0)
    throw new KvError('CAPABILITY_MISSING', { message: `${who} needs what the store '${capabilities.store}' lacks: ${missing.join(', ')}` })
}

export function resolveLimits(option: LimitsOption = 'wide'): Limits {
  if (typeof option !== 'string' && (typeof option !== 'object' || option === null))
    invalid('limits must be the name of a preset or an object')
  const { preset = 'wide', ...changes } = typeof option === 'string' ? { preset: option } : option
  const base: Limits = Object.hasOwn(limitPresets, preset)
    ? limitPresets[preset]
    : invalid(`limits: there is no preset '${String(preset)}'`, "use 'wide' or 'juno'")
  for (const [name, value] of Object.entries(changes)) {
    if (!Object.hasOwn(base, name)) invalid(`limits: unknown limit '${name}'`)
    if (!Number.isSafeInteger(value) || value < 1) invalid(`limits.${name} must be a whole number from 1, not ${String(value)}`)
  }
  return Object.freeze({ ...base, ...changes })
}

/** The length of a string in UTF-8 bytes, or -1 when it holds a lone surrogate (which UTF-8 cannot say). */
export function utf8Length(text: string): number {
  let bytes = 0
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    if (unit < 0x80) bytes += 1
    else if (unit < 0x800) bytes += 2
    else if (unit < 0xd800 || unit > 0xdfff) bytes += 3
    else {
      const next = unit < 0xdc00 ? text.charCodeAt(index + 1) : 0
      if (!(next >= 0xdc00 && next <= 0xdfff)) return -1
      bytes += 4
      index++
    }
  }
  return bytes
}

export function checkKey(key: string, limits: Limits): void {
  if (typeof key !== 'string' || key.length === 0) invalid('a key must be a string of at least one character')
  const bytes = utf8Length(key)
  if (bytes < 0) invalid('a key must be valid Unicode: this one has a lone surrogate')
  if (bytes > limits.keyBytesMax)
    throw new KvError('TOO_LARGE', {
      message: `the key has ${bytes} bytes, the store takes ${limits.keyBytesMax}`,
      hint: 'hash long keys to a fixed length',
    })
}

export function checkValue(value: Uint8Array, limits: Limits): void {
  if (!(value instanceof Uint8Array))
    invalid('a value must be a Uint8Array', 'use scoped(kv, name, { codec: json() }) to store other values')
  if (value.length > limits.valueBytesMax)
    throw new KvError('TOO_LARGE', { message: `the value has ${value.length} bytes, the store takes ${limits.valueBytesMax}` })
}

export function checkKeys(keys: readonly string[], limits: Limits): void {
  if (!Array.isArray(keys)) invalid('getMany takes an array of keys')
  if (keys.length > limits.getManyMax)
    throw new KvError('TOO_LARGE', { message: `getMany was asked for ${keys.length} keys, the store takes ${limits.getManyMax} at once` })
  for (const key of keys) checkKey(key, limits)
}

/** A duration in milliseconds; `what` names the option in the error. */
export function checkDuration(duration: Duration, what: string, least = 0): Millis {
  const ms = parseDuration(duration)
  if (ms === undefined || ms < least)
    invalid(`${what} must be a duration of at least ${least} ms, such as 1500 or '30s', not ${JSON.stringify(duration)}`)
  return ms as Millis
}

/** A ttl of at least 1 ms that the store takes. */
export function checkTtl(duration: Duration, limits: Limits): Millis {
  const ms = checkDuration(duration, 'a ttl', 1)
  if (ms > limits.ttlMsMax) throw new KvError('TOO_LARGE', { message: `the ttl is ${ms} ms, the store takes ${limits.ttlMsMax}` })
  return ms
}

/** An instant that a Date can show. */
export function checkInstant(instant: number, what: string): EpochMs {
  if (!Number.isSafeInteger(instant) || instant < 0 || instant > epochMsMax)
    invalid(`${what} must be whole epoch milliseconds, not ${String(instant)}`)
  return instant as EpochMs
}
