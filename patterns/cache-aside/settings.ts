/**
 * The options of a cache, checked, with all defaults in place and every duration in milliseconds.
 * Invariant: what passes here fits the store: a cache that the store cannot serve is refused when it is built.
 * Why each default is what it is stands beside it.
 */
import { json, type Codec, type StandardSchema } from '../../core/kv/codec.ts'
import { invalid, KvError } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import { checkDuration, checkTtl, need } from '../../core/kv/limits.ts'
import type { Duration } from '../../core/base/types.ts'
import type { CacheSettings, Timers } from './types.ts'
import { storeKeyBytes } from './identity.ts'

export const defaults = {
  /** Longer than any query that a person waits for; after a crash nobody gets a value from the store sooner. */
  hard: '10s',
  /** A load that takes longer is likely lost with its process; half a lease. */
  wait: '5s',
  backoff: '1s',
  /** What a reload by hand takes; one call of the store a second and key costs nothing. */
  fresh: '1s',
  /** A sixteenth of a small container. */
  memoryBytesMax: 67_108_864,
  /** Ten in a hundred to both sides spreads a simultaneous fill over a fifth of its ttl. */
  jitter: 0.1,
  /** More than a pool of database connections has. */
  loadsMax: 64,
  /** Beyond, asking the source is faster. */
  storeDeadline: '500ms',
} as const

/** Bytes of a record without its body: tags included, they take at most 32 times 256 characters. */
const recordBytesLeast = 1_024
const hardMsMax = 3_600_000

export interface Settings {
  readonly kv: KV
  readonly name: string
  readonly version: number
  readonly codec: Codec<unknown>
  readonly ttlMs: number
  readonly ttlMaxMs: number
  /** The longest that an entry lives, from the beginning of its load. */
  readonly lifeMs: number
  readonly staleMs: number
  readonly maxStaleMs: number
  readonly softMs: number
  readonly hardMs: number
  readonly waitMs: number
  readonly backoffMs: number
  readonly errorTtlMs: (error: unknown) => number
  readonly freshMs: number
  readonly memoryBytesMax: number
  readonly share: 'frozen' | 'cloned' | 'as-is'
  readonly jitter: number
  readonly early: number
  readonly loadsMax: number
  readonly storeDeadlineMs: number
  readonly lagMs: number
  readonly isInline: boolean
  readonly waitUntil: (work: Promise<unknown>) => void
  readonly timers: Timers
  readonly elapsed: () => number
  readonly random: () => number
}

type Given = CacheSettings & { readonly codec?: unknown; readonly schema?: unknown }

export function settingsOf(options: Given): Settings {
  const { kv, name, share = 'frozen', jitter = defaults.jitter, early = 0, version = 1, waitUntil, random = Math.random } = options
  const { loadsMax = defaults.loadsMax, memoryBytesMax = defaults.memoryBytesMax, errorTtl = 0 } = options
  const timers: Timers = options.timers ?? globalThis
  if (kv?.capabilities === undefined) invalid('a cache needs `kv`, a store')
  if (typeof name !== 'string' || name === '' || name.length > 64) invalid('cache: name must be 1 to 64 characters')
  if (!['frozen', 'cloned', 'as-is'].includes(share)) invalid(`share must be 'frozen', 'cloned' or 'as-is', not ${JSON.stringify(share)}`)
  if (!(jitter >= 0 && jitter <= 0.5)) invalid(`jitter must be from 0 to 0.5, not ${String(jitter)}`)
  if (!(early >= 0 && early <= 100)) invalid(`early must be from 0 to 100, not ${String(early)}`)
  whole('version', version, 1)
  whole('loadsMax', loadsMax, 1)
  whole('memoryBytesMax', memoryBytesMax, 0)
  if (waitUntil !== undefined && waitUntil !== 'inline' && typeof waitUntil !== 'function')
    invalid("waitUntil must be a function or 'inline'")
  const ttlMs = checkTtl(options.ttl, kv.capabilities.limits)
  const staleMs = checkDuration(options.stale ?? 0, 'stale')
  const maxStaleMs = checkDuration(options.maxStale ?? staleMs, 'maxStale')
  if (maxStaleMs < staleMs) invalid('maxStale must be at least stale: what is served during a load is also served after a failed one')
  const hardMs = checkDuration(options.hard ?? defaults.hard, 'hard', 100)
  if (hardMs > hardMsMax) invalid(`hard must be at most ${hardMsMax} ms: so long a lease holds after its process has died`)
  const ttlMaxMs = checkDuration(options.ttlMax ?? ttlMs, 'ttlMax', ttlMs)
  // A write-back comes at most a lease's record after its load began.
  const lifeMs = Math.ceil(ttlMaxMs * (1 + jitter)) + maxStaleMs + 4 * hardMs
  const needs = { serverClock: true, sites: 'one', keyBytes: storeKeyBytes, valueBytes: recordBytesLeast, ttlMs: lifeMs } as const
  need(kv, needs, `cache '${name}'`)
  if (kv.capabilities.limits.getManyMax < 2)
    throw new KvError('CAPABILITY_MISSING', { message: `cache '${name}' reads two keys at once: an entry and its generations` })
  return Object.freeze({
    kv,
    name,
    version,
    codec: codecOf(options),
    ttlMs,
    ttlMaxMs,
    lifeMs,
    staleMs,
    maxStaleMs,
    softMs: checkDuration(options.soft ?? 0, 'soft'),
    hardMs,
    waitMs: checkDuration(options.wait ?? defaults.wait, 'wait'),
    backoffMs: checkDuration(options.backoff ?? defaults.backoff, 'backoff'),
    errorTtlMs: typeof errorTtl === 'function' ? (error: unknown) => checkDuration(errorTtl(error), 'errorTtl') : constant(errorTtl),
    freshMs: checkDuration(options.fresh ?? defaults.fresh, 'fresh'),
    memoryBytesMax,
    share,
    jitter,
    early,
    loadsMax,
    storeDeadlineMs: checkDuration(options.storeDeadline ?? defaults.storeDeadline, 'storeDeadline', 1),
    lagMs: checkDuration(options.lag ?? 0, 'lag'),
    isInline: waitUntil === 'inline',
    waitUntil: typeof waitUntil === 'function' ? waitUntil : () => {},
    timers,
    elapsed: timers.elapsed?.bind(timers) ?? (() => performance.now()),
    random,
  })
}

function codecOf({ codec, schema }: Given): Codec<unknown> {
  if (codec !== undefined && schema !== undefined) invalid('a cache takes a codec or a schema: give the schema to the codec, json(schema)')
  if (codec !== undefined) return codec as Codec<unknown>
  return schema === undefined ? json() : json(schema as StandardSchema)
}

function constant(duration: Duration): () => number {
  const ms = checkDuration(duration, 'errorTtl')
  return () => ms
}

function whole(what: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) invalid(`${what} must be a whole number from ${least}, not ${String(value)}`)
}

/** A timer of whole milliseconds. `isIdle`: it keeps no process alive. */
export function timerOf({ timers }: Settings, run: () => void, ms: number, isIdle: boolean): unknown {
  const timer = timers.setTimeout(run, Math.min(Math.ceil(ms), 2_147_483_647))
  if (isIdle && typeof timer === 'object' && timer !== null && 'unref' in timer && typeof timer.unref === 'function') timer.unref()
  return timer
}
