/**
 * From what a loader answered to what is stored and given, and back.
 * Invariant: the first caller gets what the codec makes of the loader's result, as every later one does; nobody gets the loader's own object (K11).
 * Why kinds beside the codec: undefined and "not found" are answers too, and JSON can hold neither (K10).
 */
import type { EpochMs } from '../../core/base/types.ts'
import type { Codec } from '../../core/kv/codec.ts'
import { KvError } from '../../core/kv/errors.ts'
import { checkOwnTtl, tagsMax, type Loaded } from './loader.ts'
import { jittered, lifeOf, type Held, type HeldKind, type Stamp } from './rules.ts'
import type { Settings } from './settings.ts'
import { NotFound, Unchanged } from './types.ts'

export interface Fresh {
  readonly value: unknown
  readonly held: Held
  /** After jitter. */
  readonly ttlMs: number
}

const noBody = new Uint8Array(0)

/** @throws KvError VALUE_INVALID when it does not fit the codec or schema; LOAD_INVALID. */
export function heldOf(settings: Settings, loaded: Loaded, previous: Held | undefined, stamp: Stamp, now: EpochMs): Fresh {
  const { result, deltaMs } = loaded
  const { kind, body, tags } = contentOf(settings.codec, loaded, previous)
  const saidMs =
    loaded.ttlMs ?? (result instanceof NotFound && result.ttl !== undefined ? checkOwnTtl(result.ttl, settings) : settings.ttlMs)
  const ttlMs = jittered(saidMs, settings.jitter, settings.random())
  const held: Held = { kind, ...lifeOf(kind, { ...settings, ttlMs }, now), deltaMs, stamp, tags, body }
  return { value: readHeld(settings.codec, held), held, ttlMs }
}

function contentOf(codec: Codec<unknown>, { result, tags }: Loaded, previous: Held | undefined): Pick<Held, 'kind' | 'body' | 'tags'> {
  if (result instanceof Unchanged) {
    if (previous === undefined)
      throw new KvError('LOAD_INVALID', { message: 'the loader answered `unchanged`, and there is nothing before' })
    const all = [...new Set([...previous.tags, ...tags])]
    if (all.length > tagsMax)
      throw new KvError('LOAD_INVALID', { message: `with those that it had before, the value has more than ${tagsMax} tags` })
    return { kind: previous.kind, body: previous.body, tags: all }
  }
  const kind: HeldKind = result instanceof NotFound ? 'missing' : result === undefined ? 'undefined' : 'value'
  // A copy: a codec may give the loader's own bytes.
  return { kind, body: kind === 'value' ? new Uint8Array(codec.encode(result)) : noBody, tags }
}

/** @throws KvError VALUE_INVALID when it no longer fits the codec or schema. */
export const readHeld = (codec: Codec<unknown>, { kind, body }: Held): unknown => (kind === 'value' ? codec.decode(body) : undefined)

/** What stands in the record for a value that is too large: others then load by themselves and do not wait for a lease (K19). */
export const oversized = (held: Held): Held => ({
  ...held,
  kind: 'oversize',
  staleUntil: held.freshUntil,
  keptUntil: held.freshUntil,
  tags: [],
  body: noBody,
})
