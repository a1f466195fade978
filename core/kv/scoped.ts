/**
 * A KV under a prefix, with a codec: the part of a store that one pattern or one kind of value has for itself.
 * Invariant: a key of scope `order` is stored as `order:` + key and nothing else is; names hold no colon, so no two scopes beside each other share a key.
 * Why a view knows its root: `modify` joins the callers of one key of one store, through whichever views they came.
 */
import { bytes, type Codec } from './codec.ts'
import { invalid, KvError } from './errors.ts'
import type { DestroyResult, Entry, KV, UpdateResult } from './kv.ts'
import { checkKey, checkKeys, utf8Length, type Capabilities } from './limits.ts'

export interface ScopedOptions<V> {
  /** How values become bytes. Default: bytes as they are. */
  readonly codec?: Codec<V> | undefined
}

/** What a scoped view stands on. */
export interface View {
  readonly root: KV
  readonly prefix: string
  readonly codec: Codec<unknown>
}

const views = new WeakMap<object, View>()

/** The view behind a scoped KV of this copy of hapax; undefined for any other KV. */
export const viewOf = (kv: object): View | undefined => views.get(kv)

/**
 * A view of `kv` whose keys all begin with `name` and a colon. Scopes nest: the scope `b` in the scope `a` begins with `a:b:`, so give
 * keys that come from outside an innermost scope of their own. Its `close` does nothing: whoever opened the store closes it.
 * @throws KvError INVALID_ARGUMENT, TOO_LARGE for a name that is empty, has a colon, or is longer than the store's `namespaceBytesMax`.
 * @example const orders = scoped(kv, 'order', { codec: json<Order>() })
 */
export function scoped(kv: KV, name: string): KV
export function scoped<V>(kv: KV, name: string, options: ScopedOptions<V>): KV<V>
export function scoped<V>(kv: KV, name: string, options: ScopedOptions<V> = {}): KV<V> {
  const outer = views.get(kv)
  const prefix = `${outer?.prefix ?? ''}${checkName(name, kv.capabilities)}:`
  const own = (options.codec ?? bytes) as Codec<unknown>
  const codec = outer === undefined || outer.codec === bytes ? own : through(own, outer.codec as Codec<Uint8Array>)
  const root = outer?.root ?? kv
  const capabilities = within(root.capabilities, prefix)
  const { limits } = capabilities

  const full = (key: string): string => {
    checkKey(key, limits)
    return prefix + key
  }
  const decoded = (entry: Entry): Entry<V> => ({ ...entry, value: codec.decode(entry.value) as V })
  /** Results differ in their entry alone. */
  const result = <R extends { readonly entry?: Entry | undefined }>(answer: R) =>
    (answer.entry === undefined ? answer : { ...answer, entry: decoded(answer.entry) }) as unknown

  const view: KV<V> = {
    capabilities,
    async create(key, value, callOptions) {
      const answer = await root.create(full(key), codec.encode(value), callOptions)
      return { ...answer, entry: decoded(answer.entry) }
    },
    async get(key, callOptions) {
      const { entry, now } = await root.get(full(key), callOptions)
      return entry === undefined ? { now } : { entry: decoded(entry), now }
    },
    async getMany(keys, callOptions) {
      checkKeys(keys, limits)
      const { entries, now } = await root.getMany(
        keys.map((key) => prefix + key),
        callOptions,
      )
      const found = new Map<string, Entry<V>>()
      for (const [key, entry] of entries) found.set(key.slice(prefix.length), decoded(entry))
      return { entries: found, now }
    },
    async update(key, value, callOptions) {
      return result(await root.update(full(key), codec.encode(value), callOptions)) as UpdateResult<V>
    },
    async set(key, value, callOptions) {
      return result(await root.set(full(key), codec.encode(value), callOptions)) as UpdateResult<V>
    },
    async destroy(key, callOptions) {
      const answer = await root.destroy(full(key), callOptions)
      try {
        return result(answer) as DestroyResult<V>
      } catch (error) {
        // It is gone: a value that no longer fits its codec must not turn what happened into a fault.
        if (answer.ok) return { ok: true, now: answer.now }
        throw error
      }
    },
    async close() {},
    async [Symbol.asyncDispose]() {},
  }
  views.set(view, { root, prefix, codec })
  return view
}

function checkName(name: string, { limits }: Capabilities): string {
  if (typeof name !== 'string' || name === '' || name.includes(':'))
    invalid(`a scope's name must be a string without colons, not ${JSON.stringify(name)}`)
  const length = utf8Length(name)
  if (length < 0) invalid("a scope's name must be valid Unicode: this one has a lone surrogate")
  if (length > limits.namespaceBytesMax)
    throw new KvError('TOO_LARGE', { message: `the scope's name has ${length} bytes, the store takes ${limits.namespaceBytesMax}` })
  return name
}

/** The root's capabilities with the room that the prefix leaves to keys. */
function within(capabilities: Capabilities, prefix: string): Capabilities {
  const keyBytesMax = capabilities.limits.keyBytesMax - utf8Length(prefix)
  if (keyBytesMax < 1)
    throw new KvError('TOO_LARGE', {
      message: `the scope '${prefix}' leaves no room for a key: the store takes ${capabilities.limits.keyBytesMax} bytes`,
    })
  return Object.freeze({ ...capabilities, limits: Object.freeze({ ...capabilities.limits, keyBytesMax }) })
}

/** A codec whose bytes go through another one, such as encryption at the outer scope. */
const through = (codec: Codec<unknown>, outer: Codec<Uint8Array>): Codec<unknown> => ({
  name: `${codec.name} in ${outer.name}`,
  encode: (value) => outer.encode(codec.encode(value)),
  decode: (stored) => codec.decode(outer.decode(stored)),
})
