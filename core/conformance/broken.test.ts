/**
 * Stores with one planted fault each. Every one must fail the kit in the group named for its fault, and nowhere that the fault does not reach:
 * a kit that finds nothing, or finds everything everywhere, has shown nothing.
 */
import { expect, test } from 'vitest'
import { KvError } from '../kv/errors.ts'
import type { Applied, CreateOptions, Entry, Expiry, KV, RequestId, UpdateOptions, Version } from '../kv/kv.ts'
import { memory } from '../stores/memory.ts'
import { settle, testClock } from '../testing/clock.ts'
import { kvConformanceReport, type GroupName } from './index.ts'

interface Broken {
  readonly fault: string
  readonly group: GroupName
  /** Groups that the fault reaches as well. */
  readonly also?: readonly GroupName[]
  readonly spoil: (kv: KV) => Partial<KV>
}

type Options = { readonly requestId?: RequestId | undefined; readonly signal?: AbortSignal | undefined }
/** Passes every write on with other options. */
const withOptions = (kv: KV, change: <T extends Options>(options: T) => T): Partial<KV> => ({
  create: (key, value, options = {}) => kv.create(key, value, change(options)),
  update: (key, value, options = {}) => kv.update(key, value, change(options)),
  set: (key, value, options = {}) => kv.set(key, value, change(options)),
  destroy: (key, options = {}) => kv.destroy(key, change(options)),
})
const withExpiry = (kv: KV, change: (expiry: Expiry | undefined) => Expiry | undefined): Partial<KV> => ({
  update: (key, value, options = {}) => kv.update(key, value, { ...options, expiry: change(options.expiry) }),
  set: (key, value, options = {}) => kv.set(key, value, { ...options, expiry: change(options.expiry) }),
})
/** Passes every call on with another key. */
const withKeys = (kv: KV, change: (key: string) => string): Partial<KV> => ({
  create: (key, value, options) => kv.create(change(key), value, options),
  get: (key, options) => kv.get(change(key), options),
  getMany: async (keys, options) => {
    const { entries, now } = await kv.getMany(keys.map(change), options)
    return { entries: new Map(keys.flatMap((key) => (entries.has(change(key)) ? [[key, entries.get(change(key)) as Entry]] : []))), now }
  },
  update: (key, value, options) => kv.update(change(key), value, options),
  set: (key, value, options) => kv.set(change(key), value, options),
  destroy: (key, options) => kv.destroy(change(key), options),
})
/** Passes every value on changed. */
const withValues = (kv: KV, change: (value: Uint8Array) => Uint8Array): Partial<KV> => ({
  create: (key, value, options) => kv.create(key, change(value), options),
  update: (key, value, options) => kv.update(key, change(value), options),
  set: (key, value, options) => kv.set(key, change(value), options),
})
/** Changes what comes back. */
const withEntries = (kv: KV, change: (entry: Entry) => Entry): Partial<KV> => {
  const changed = <R extends { readonly entry?: Entry | undefined }>(result: R): R =>
    result.entry ? { ...result, entry: change(result.entry) } : result
  return {
    create: async (key, value, options) => changed(await kv.create(key, value, options)),
    get: async (key, options) => changed(await kv.get(key, options)),
    getMany: async (keys, options) => {
      const { entries, now } = await kv.getMany(keys, options)
      return { entries: new Map([...entries].map(([key, entry]) => [key, change(entry)])), now }
    },
    update: async (key, value, options) => changed(await kv.update(key, value, options)),
    set: async (key, value, options) => changed(await kv.set(key, value, options)),
    destroy: async (key, options) => changed(await kv.destroy(key, options)),
  }
}

const brokenStores: readonly Broken[] = [
  {
    fault: 'create overwrites',
    group: 'refusals',
    also: ['bytes', 'versions', 'expiry', 'requests', 'contention', 'model', 'concurrency'],
    spoil: (kv) => ({
      create: async (key, value, options = {}) => {
        const made = await kv.create(key, value, options)
        return made.ok ? made : ((await kv.set(key, value)) as Applied<Uint8Array>)
      },
    }),
  },
  {
    fault: 'a refusal carries no entry',
    group: 'refusals',
    also: ['requests', 'contention', 'model', 'concurrency'],
    spoil: (kv) => ({
      create: async (key, value, options) => {
        const made = await kv.create(key, value, options)
        return made.ok ? made : ({ ok: false, refusal: made.refusal, now: made.now } as unknown as typeof made)
      },
    }),
  },
  {
    fault: 'destroy ignores ifVersion',
    group: 'refusals',
    also: ['versions', 'expiry', 'contention', 'model', 'concurrency'],
    spoil: (kv) => ({ destroy: (key, { ifVersion: _ignored, ...options } = {}) => kv.destroy(key, options) }),
  },
  {
    fault: 'update refuses wrongly: a version that differs is called missing',
    group: 'refusals',
    also: ['versions', 'contention', 'model', 'concurrency'],
    spoil: (kv) => ({
      update: async (key, value, options) => {
        const answer = await kv.update(key, value, options)
        return answer.ok ? answer : { ok: false, refusal: 'missing', now: answer.now }
      },
    }),
  },
  {
    fault: 'getMany leaves out the first key',
    group: 'verbs',
    also: ['bytes', 'sizes', 'model'],
    spoil: (kv) => ({ getMany: (keys, options) => kv.getMany(keys.length > 1 ? keys.slice(1) : keys, options) }),
  },
  {
    fault: 'destroy answers without what was there',
    group: 'verbs',
    also: ['model', 'concurrency'],
    spoil: (kv) => ({
      destroy: async (key, options) => {
        const gone = await kv.destroy(key, options)
        return gone.ok ? { ok: true, now: gone.now } : gone
      },
    }),
  },
  {
    fault: 'createdAt moves with every change',
    group: 'verbs',
    also: ['model'],
    spoil: (kv) =>
      withEntries(kv, (entry) => ({
        ...entry,
        createdAt: (entry.createdAt + Number(entry.version.split('.')[0])) as typeof entry.createdAt,
      })),
  },
  {
    fault: 'versions count from 1 again after destroy and create',
    group: 'versions',
    also: ['model', 'concurrency'],
    spoil: (kv) => {
      const latest = new Map<string, Version>()
      const short = (version: Version): Version => version.split('.')[0] as Version
      const shortened = withEntries(kv, (entry) => ({ ...entry, version: short(entry.version) })) as KV
      const learn = async (key: string): Promise<void> => {
        const { entry } = await kv.get(key)
        if (entry) latest.set(`${key} ${short(entry.version)}`, entry.version)
      }
      const long = async <T extends UpdateOptions>(key: string, options: T): Promise<T> => {
        await learn(key)
        return options.ifVersion ? { ...options, ifVersion: latest.get(`${key} ${options.ifVersion}`) ?? options.ifVersion } : options
      }
      return {
        ...shortened,
        update: async (key, value, options = {}) => await shortened.update(key, value, await long(key, options)),
        set: async (key, value, options = {}) => await shortened.set(key, value, await long(key, options)),
        destroy: async (key, options = {}) => await shortened.destroy(key, await long(key, options)),
      }
    },
  },
  {
    fault: 'the version stays when the same bytes are written',
    group: 'versions',
    also: ['requests'],
    spoil: (kv) => ({
      update: async (key, value, options = {}) => {
        const { entry, now } = await kv.get(key)
        const isSame =
          entry && Buffer.compare(entry.value, value) === 0 && options.ifVersion === undefined && options.requestId === undefined
        return isSame && (options.expiry ?? 'keep') === 'keep' ? { ok: true, entry, now } : await kv.update(key, value, options)
      },
    }),
  },
  {
    fault: 'an entry is dead one millisecond after its expiresAt',
    group: 'expiry',
    also: ['versions', 'model'],
    spoil: (kv) => {
      const later = (expiry: Expiry | undefined): Expiry | undefined => {
        if (typeof expiry !== 'object') return expiry
        if ('until' in expiry) return { until: (expiry.until + 1) as typeof expiry.until }
        if (Number('set' in expiry ? expiry.set : expiry.extend) >= kv.capabilities.limits.ttlMsMax) return expiry
        return 'set' in expiry ? { set: Number(expiry.set) + 1 } : { extend: Number(expiry.extend) + 1 }
      }
      const create = (options: CreateOptions): CreateOptions =>
        typeof options.ttl === 'number' && options.ttl > 0 && options.ttl < 60_000 ? { ...options, ttl: options.ttl + 1 } : options
      const inner: KV = {
        ...kv,
        ...withExpiry(kv, (expiry) =>
          typeof expiry === 'object' && Object.values(expiry).every((at) => typeof at === 'number' && at > 0 && at < 60_000)
            ? later(expiry)
            : expiry,
        ),
        create: (key, value, options = {}) => kv.create(key, value, create(options)),
      }
      return withEntries(inner, (entry) =>
        entry.expiresAt === undefined || entry.expiresAt - entry.createdAt > 1_000_000
          ? entry
          : { ...entry, expiresAt: (entry.expiresAt - 1) as typeof entry.expiresAt },
      )
    },
  },
  {
    fault: 'the expiry slides with each update',
    group: 'expiry',
    also: ['model'],
    spoil: (kv) => ({
      update: async (key, value, options = {}) => {
        const { entry } = await kv.get(key)
        const slides = entry?.expiresAt !== undefined && (options.expiry ?? 'keep') === 'keep'
        return await kv.update(key, value, slides ? { ...options, expiry: { set: '1h' } } : options)
      },
    }),
  },
  {
    fault: 'extend shortens',
    group: 'expiry',
    also: ['model'],
    spoil: (kv) => withExpiry(kv, (expiry) => (typeof expiry === 'object' && 'extend' in expiry ? { set: expiry.extend } : expiry)),
  },
  {
    fault: 'set without an expiry ends the one that was there',
    group: 'expiry',
    also: ['model'],
    spoil: (kv) => ({ set: (key, value, options = {}) => kv.set(key, value, { ...options, expiry: options.expiry ?? 'never' }) }),
  },
  {
    fault: 'request ids are ignored',
    group: 'requests',
    also: ['unknown', 'model'],
    spoil: (kv) => withOptions(kv, (options) => ({ ...options, requestId: undefined })),
  },
  {
    fault: 'a request is remembered without its outcome: its repetition is refused',
    group: 'requests',
    also: ['unknown', 'model'],
    spoil: (kv) => {
      const seen = new Set<string>()
      return {
        create: async (key, value, options = {}) => {
          const name = `${key} ${JSON.stringify(options.requestId)}`
          const { entry, now } = await kv.get(key)
          if (options.requestId !== undefined && seen.has(name) && entry) return { ok: false, refusal: 'exists', entry, now }
          seen.add(name)
          return await kv.create(key, value, options)
        },
      }
    },
  },
  {
    fault: 'the watermark of a session is not kept',
    group: 'requests',
    spoil: (kv) =>
      withOptions(kv, (options) =>
        typeof options.requestId === 'object' ? { ...options, requestId: { ...options.requestId, done: 0 } } : options,
      ),
  },
  {
    fault: 'a second attempt counts as a request of its own',
    group: 'unknown',
    also: ['requests'],
    spoil: (kv) =>
      withOptions(kv, (options) => {
        const { requestId } = options
        return typeof requestId === 'object' && (requestId.attempt ?? 1) > 1
          ? { ...options, requestId: `${requestId.session.slice(0, 50)}${requestId.sequence}.${requestId.attempt}` }
          : options
      }),
  },
  {
    fault: "the store keeps the caller's buffer",
    group: 'bytes',
    spoil: (kv) => {
      const buffers = new Map<Version, Uint8Array>()
      const keep = async <R extends { readonly ok: boolean; readonly entry?: Entry | undefined }>(
        value: Uint8Array,
        writing: Promise<R>,
      ): Promise<R> => {
        const answer = await writing
        if (answer.ok && answer.entry) buffers.set(answer.entry.version, value)
        return answer
      }
      const reading = withEntries(kv, (entry) => ({ ...entry, value: buffers.get(entry.version) ?? entry.value })) as KV
      return {
        get: reading.get,
        create: (key, value, options) => keep(value, kv.create(key, value, options)),
        update: (key, value, options) => keep(value, kv.update(key, value, options)),
        set: (key, value, options) => keep(value, kv.set(key, value, options)),
      }
    },
  },
  {
    fault: 'a value ends at its first zero byte',
    group: 'bytes',
    also: ['sizes', 'model'],
    spoil: (kv) =>
      withValues(kv, (value) =>
        value instanceof Uint8Array && value.includes(0) && value[0] !== 0 ? value.slice(0, value.indexOf(0)) : value,
      ),
  },
  {
    fault: 'an empty value counts as no entry',
    group: 'bytes',
    also: ['model'],
    spoil: (kv) => ({
      get: async (key, options) => {
        const { entry, now } = await kv.get(key, options)
        return entry && entry.value.length > 0 ? { entry, now } : { now }
      },
    }),
  },
  {
    fault: 'keys are normalised',
    group: 'bytes',
    spoil: (kv) => withKeys(kv, (key) => (typeof key === 'string' ? key.normalize('NFC') : key)),
  },
  {
    fault: 'a key that is too long is cut',
    group: 'sizes',
    spoil: (kv) =>
      withKeys(kv, (key) =>
        typeof key === 'string' && key.length > kv.capabilities.limits.keyBytesMax ? key.slice(0, kv.capabilities.limits.keyBytesMax) : key,
      ),
  },
  {
    fault: 'a ttl that is too long is capped',
    group: 'sizes',
    spoil: (kv) => ({
      create: (key, value, options = {}) =>
        kv.create(
          key,
          value,
          Number(options.ttl) > kv.capabilities.limits.ttlMsMax ? { ...options, ttl: kv.capabilities.limits.ttlMsMax } : options,
        ),
    }),
  },
  {
    fault: 'values may be one byte longer than it says',
    group: 'sizes',
    spoil: (kv) => ({
      capabilities: { ...kv.capabilities, limits: { ...kv.capabilities.limits, valueBytesMax: kv.capabilities.limits.valueBytesMax - 1 } },
    }),
  },
  {
    fault: 'update compares and writes in two steps',
    group: 'contention',
    also: ['concurrency'],
    spoil: (kv) => ({
      update: async (key, value, options = {}) => {
        const { entry, now } = await kv.get(key)
        if (entry && options.ifVersion !== undefined && options.requestId === undefined) {
          if (entry.version !== options.ifVersion) return { ok: false, refusal: 'version', entry, now }
          await settle(1)
          return await kv.update(key, value, { ...options, ifVersion: undefined })
        }
        return await kv.update(key, value, options)
      },
    }),
  },
  {
    fault: 'create looks and writes in two steps',
    group: 'contention',
    also: ['concurrency'],
    spoil: (kv) => ({
      create: async (key, value, options = {}) => {
        if (options.requestId !== undefined || options.signal !== undefined) return await kv.create(key, value, options)
        const { entry } = await kv.get(key)
        if (entry) return await kv.create(key, value, options)
        await settle(1)
        const { ttl } = options
        const set = await kv.set(key, value, ttl === undefined ? { expiry: 'never' } : { expiry: { set: ttl } })
        return set as typeof set & { ok: true }
      },
    }),
  },
  {
    fault: 'while a write is under way some reads see the new state and later ones the old',
    group: 'concurrency',
    spoil: (kv) => {
      const underWay = new Map<string, Entry | undefined>()
      let reads = 0
      return {
        set: async (key, value, options) => {
          underWay.set(key, (await kv.get(key)).entry)
          const answer = await kv.set(key, value, options)
          await settle(4)
          underWay.delete(key)
          return answer
        },
        get: async (key, options) => {
          const answer = await kv.get(key, options)
          if (!underWay.has(key) || reads++ % 2 === 0) return answer
          const entry = underWay.get(key)
          return entry ? { entry, now: answer.now } : { now: answer.now }
        },
      }
    },
  },
  {
    fault: 'a call is applied although its signal was aborted before it',
    group: 'aborts',
    spoil: (kv) => ({
      set: async (key, value, options = {}) => {
        const answer = await kv.set(key, value, { ...options, signal: undefined })
        if (options.signal?.aborted) throw new KvError('ABORTED', { cause: options.signal.reason })
        return answer
      },
    }),
  },
  {
    fault: 'a write that was aborted on its way is applied and called ABORTED',
    group: 'aborts',
    spoil: (kv) => ({
      update: async (key, value, options = {}) => {
        if (options.signal === undefined || options.signal.aborted) return await kv.update(key, value, options)
        const answer = await kv.update(key, value, options)
        await settle(1)
        if (options.signal.aborted) throw new KvError('ABORTED', { cause: options.signal.reason })
        return answer
      },
    }),
  },
  {
    fault: 'destroy under a version leaves an entry that has a ttl',
    group: 'model',
    spoil: (kv) => ({
      destroy: async (key, options = {}) => {
        const { entry, now } = await kv.get(key)
        const leaves = entry?.expiresAt !== undefined && options.ifVersion === entry.version
        return leaves ? { ok: true, entry, now } : await kv.destroy(key, options)
      },
    }),
  },
  { fault: 'close does nothing', group: 'close', spoil: () => ({ close: async () => {} }) },
  {
    fault: 'closing twice fails',
    group: 'close',
    spoil: (kv) => {
      let isClosed = false
      return {
        close: async () => {
          if (isClosed) throw new KvError('CLOSED')
          isClosed = true
          await kv.close()
        },
      }
    },
  },
]

/** Short values and few updates: the faults are found as well, and the whole table takes seconds. Fixed seed: the same finds in each run. */
const limits = { preset: 'juno', valueBytesMax: 2_000 } as const
const quick = { seed: 7, updates: 300, histories: 30 } as const

for (const { fault, group, also = [], spoil } of brokenStores) {
  test(`the group '${group}' finds a store of which this holds: ${fault}`, async () => {
    const { cases } = await kvConformanceReport(() => {
      const clock = testClock()
      const kv = memory({ clock, limits })
      return { kv: { ...kv, ...spoil(kv) }, clock }
    }, quick)
    const failed = new Set(cases.filter(({ status }) => status === 'failed').map((one) => one.group))
    expect([...failed], 'groups that failed').toContain(group)
    expect(
      [...failed].filter((one) => one !== group && !also.includes(one)),
      'groups that have nothing to do with the fault',
    ).toEqual([])
  })
}

test('the same memory store without a fault passes under the same options', async () => {
  const { failed, passed, markdown } = await kvConformanceReport(() => {
    const clock = testClock()
    return { kv: memory({ clock, limits }), clock }
  }, quick)
  expect(failed, markdown).toBe(0)
  expect(passed).toBeGreaterThan(60)
})
