/**
 * The store in this process's memory: the reference that every other store is compared with, and the one for tests.
 * Invariant: `apply` alone decides; this file only keeps records and counts their bytes.
 * Why nothing is ever evicted to make room: a forgotten idempotency key is a second charge. A full store refuses instead.
 */
import { epochMs, type Clock, type EpochMs } from '../base/types.ts'
import { invalid, KvError } from '../kv/errors.ts'
import type { KV } from '../kv/kv.ts'
import { resolveLimits, type LimitsOption } from '../kv/limits.ts'
import { apply, completionRules, type KvOperation } from '../record/operation.ts'
import { completionsBytes, entryOf, forgettableAt, isForgettable, noCompletions, type KeyRecord } from '../record/record.ts'
import { kvOver, type Answer } from './verbs.ts'

export interface MemoryOptions {
  /** The store's clock. Default: the machine's. */
  readonly clock?: Clock | undefined
  /** Bytes of keys and values, with 200 a record for what is around them. Beyond: MEMORY_FULL. Default: 256 MiB. */
  readonly maxBytes?: number | undefined
  /** Default: 'wide'. */
  readonly limits?: LimitsOption | undefined
}

const defaults = {
  /** Enough for a million small keys; a process of ours should not grow beyond what a container has. */
  maxBytes: 268_435_456,
} as const

/** What a Map entry, the record and its strings take beside key and value: measured as some 200 bytes. */
const recordBytes = 200
/** Records looked at for expiry with each write: two, so the dead go faster than the living come. */
const sweptAWrite = 2
/** Records looked at when a write finds the store full: bounds what a refusal costs. */
const sweptWhenFull = 10_000

const systemClock: Clock = { now: () => epochMs(Date.now()) }

/**
 * Opens an empty store in memory. It is gone with the process.
 * @throws KvError MEMORY_FULL from writes when `maxBytes` is reached and nothing has expired.
 * @example const kv = memory()
 */
export function memory(options: MemoryOptions = {}): KV {
  const { clock = systemClock, maxBytes = defaults.maxBytes } = options
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 1) invalid(`maxBytes must be a whole number from 1, not ${String(maxBytes)}`)
  const limits = resolveLimits(options.limits)
  const records = new Map<string, KeyRecord>()
  let bytes = 0
  let sweep = records.entries()
  /** Nothing is forgettable before: until then there is nothing to look for. The second one is what this pass has seen so far. */
  let sweepsFrom = Infinity
  let seenFrom = Infinity

  const put = (key: string, after: KeyRecord | undefined, grows: number): void => {
    bytes += grows
    if (after === undefined) {
      records.delete(key)
      return
    }
    records.set(key, after)
    const at = forgettableAt(after, completionRules.lifeMs) ?? Infinity
    if (at < sweepsFrom) sweepsFrom = at
    if (at < seenFrom) seenFrom = at
  }
  const sweepSome = (now: EpochMs, count: number): void => {
    if (now < sweepsFrom) return
    for (let looked = 0; looked < count && records.size > 0; looked++) {
      const next = sweep.next()
      if (next.done) {
        sweep = records.entries()
        sweepsFrom = seenFrom
        seenFrom = Infinity
        continue
      }
      const [key, record] = next.value
      if (isForgettable(record, now, completionRules.lifeMs)) put(key, undefined, -sizeOf(key, record))
      else seenFrom = Math.min(seenFrom, forgettableAt(record, completionRules.lifeMs) ?? Infinity)
    }
  }

  return kvOver({
    capabilities: Object.freeze({
      store: 'memory',
      exactExpiry: true,
      serverClock: true,
      scan: false,
      requestIds: true,
      ttlGrainMs: 1,
      durability: 'memory',
      sites: 'one',
      limits,
    }),
    apply(key: string, operation: KvOperation): Answer {
      const now = clock.now()
      sweepSome(now, sweptAWrite)
      const before = records.get(key)
      const { record, outcome, decidedAt = now } = apply(operation, before, now)
      if (record !== before && record !== undefined) {
        const after = isForgettable(record, now, completionRules.lifeMs) ? undefined : ownBytes(record, before)
        let grows = sizeOf(key, after) - sizeOf(key, before)
        if (grows > 0 && bytes + grows > maxBytes) {
          sweepSome(now, Math.min(records.size, sweptWhenFull))
          grows = sizeOf(key, after) - sizeOf(key, records.get(key))
          if (bytes + grows > maxBytes) {
            throw new KvError('MEMORY_FULL', {
              message: `the store holds ${bytes} of ${maxBytes} bytes and this write needs ${grows} more`,
            })
          }
        }
        put(key, after, grows)
      }
      return { outcome, now: decidedAt }
    },
    read(keys) {
      const now = clock.now()
      return { entries: keys.map((key) => entryOf(records.get(key), now)), now }
    },
    async close() {
      records.clear()
      bytes = 0
    },
  })
}

/** The caller may reuse its buffer, or it may be a slice of a larger one: what is kept is a copy of our own. */
function ownBytes(record: KeyRecord, before: KeyRecord | undefined): KeyRecord {
  return record.value === undefined || record.value === before?.value ? record : { ...record, value: new Uint8Array(record.value) }
}

const sizeOf = (key: string, record: KeyRecord | undefined): number =>
  record === undefined
    ? 0
    : recordBytes +
      key.length * 2 +
      (record.value?.length ?? 0) +
      (record.completions === noCompletions ? 0 : completionsBytes(record.completions))
