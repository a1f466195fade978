/**
 * Whether a proxy has all keys under which values of the cluster lie, before it serves anybody.
 * Invariant: a key is remembered in the map before the first value is sealed under it; a proxy whose key file lacks one that was remembered, or has
 * another one of that version, does not start, and one that runs keeps the file that it had.
 * Why in the map and not on the disks: storage servers hold no key and know none (docs/decisions/0009), and the map is asked at every start.
 * Source: docs, reliability, "Encryption at rest".
 */
import { isKvError, KvError } from '../../core/kv/errors.ts'
import type { KeyCheck, Source } from '../cluster/source.ts'
import { sealingKey, type KeyRing } from '../edge/sealer.ts'
import { faultFields, type Log } from './log.ts'

const againMs = 5_000

export interface KeyWatchOptions {
  readonly source: Pick<Source, 'keyChecks'>
  /** Versions under which nothing lies any more, as somebody said. */
  readonly retired: readonly number[]
  readonly log: Log
}

export class KeyWatch {
  readonly #options: KeyWatchOptions
  #timer: NodeJS.Timeout | undefined
  #why: string | undefined

  constructor(options: KeyWatchOptions) {
    this.#options = options
  }

  /** Why it is not ready: the map was not heard yet, or it says that a key is missing. */
  get why(): string | undefined {
    return this.#why
  }

  /**
   * Looks whether a ring has all keys, and remembers the one that seals. No ring: values are not sealed.
   * @throws KvError KEY_MISSING; UNAVAILABLE when the map cannot be asked
   */
  async check(ring: KeyRing | undefined): Promise<void> {
    const { source, retired } = this.#options
    needAll(ring, await source.keyChecks([]), retired)
    const current = ring && sealingKey(ring)
    // Another one may have remembered another key of this version in between.
    if (current !== undefined) needAll(ring, await source.keyChecks([{ version: current.version, check: current.check }]), retired)
    this.#why = undefined
  }

  /** At the start. While the map is away it goes on with what it has, is not ready, and asks again. @throws KvError KEY_MISSING */
  async begin(ring: () => KeyRing | undefined): Promise<void> {
    try {
      await this.check(ring())
    } catch (error) {
      if (!isKvError(error, 'UNAVAILABLE')) throw error
      this.#why = 'the map could not be asked which keys seal values'
      this.#options.log.warn('alarm', { what: this.#why })
      this.#timer = setTimeout(() => void this.#again(ring), againMs)
      this.#timer.unref()
    }
  }

  close(): void {
    clearTimeout(this.#timer)
  }

  async #again(ring: () => KeyRing | undefined): Promise<void> {
    try {
      await this.begin(ring)
    } catch (error) {
      this.#why = error instanceof Error ? error.message : String(error)
      this.#options.log.error('alarm', faultFields(error))
    }
  }
}

function needAll(ring: KeyRing | undefined, known: readonly KeyCheck[], retired: readonly number[]): void {
  const needed = known.filter(({ version }) => !retired.includes(version))
  if (ring === undefined && needed.length > 0)
    throw new KvError('KEY_MISSING', {
      message: `values of the cluster are sealed under key ${versionsOf(needed)}, and encryption is off`,
      hint: 'give the key file that the other proxies have (keys), and leave encryption on; nothing was changed',
    })
  const missing = needed.filter(({ version }) => ring?.every((one) => one.version !== version))
  if (missing.length > 0)
    throw new KvError('KEY_MISSING', {
      message: `values of the cluster are sealed under key ${versionsOf(missing)}, which the key file does not have`,
      hint: 'put the line back, or give the key file that the other proxies have; when nothing lies under it any more, name it in keys-retired',
    })
  const other = needed.filter(({ version, check }) => ring?.some((one) => one.version === version && one.check !== check))
  if (other.length > 0)
    throw new KvError('KEY_MISSING', {
      message: `the key file has another key ${versionsOf(other)} than the one that seals values of the cluster`,
      hint: 'give the key file that the other proxies have; a new key has a new version (hapax cert key)',
    })
}

const versionsOf = (keys: readonly KeyCheck[]): string => `version ${keys.map(({ version }) => version).join(', ')}`
