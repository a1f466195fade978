/**
 * The first level: values in this process's memory, bounded in bytes, each with the version of the record that it came from.
 * Invariant: a value is served no later than `until`, which lies within `fresh` of the store's word and within the record's own life (K7).
 * Why second chance and not true LRU: a hit then sets a flag, where moving the entry in the Map would take as long as all else.
 */
import type { Version } from '../../core/kv/kv.ts'
import type { Slot } from './key.ts'

/** What is known of a value when it comes. */
export interface Known<V> {
  readonly value: V
  /** What `get` gives; undefined: each caller gets a clone. */
  readonly answer: Promise<V> | undefined
  /** Of the record; undefined: loaded past the store. */
  readonly version: Version | undefined
  readonly tags: readonly string[]
  readonly isError: boolean
  /** On the local monotonic clock. */
  readonly until: number
}

/** A value as callers get it. A class and no spread of an object: what a spread makes takes five times as long to read. */
export class Memo<V> implements Known<V> {
  readonly value: V
  readonly answer: Promise<V> | undefined
  readonly version: Version | undefined
  readonly tags: readonly string[]
  readonly isError: boolean
  readonly bytes: number
  until: number
  /** Which round of `expireAll` it belongs to. */
  round: number
  used = false

  constructor(known: Known<V>, bytes: number, round: number) {
    this.value = known.value
    this.answer = known.answer
    this.version = known.version
    this.tags = known.tags
    this.isError = known.isError
    this.bytes = bytes
    this.until = known.until
    this.round = round
  }
}

/** A Map entry, the memo, its promise and the object around a value: measured as some 400 bytes. */
const memoBytes = 400

export class FirstLevel<V> {
  /** Read by `get` directly: a call less on the hot path. */
  readonly memos = new Map<Slot, Memo<V>>()
  round = 0
  readonly #bytesMax: number
  #bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get bytes(): number {
    return this.#bytes
  }

  /** `bodyBytes`: of the encoded value; decoded it takes about twice that. */
  put(slot: Slot, known: Known<V>, bodyBytes: number): void {
    this.drop(slot)
    const bytes = memoBytes + 2 * bodyBytes + (typeof slot === 'string' ? 2 * slot.length : 0)
    if (bytes > this.#bytesMax) return
    this.memos.set(slot, new Memo(known, bytes, this.round))
    this.#bytes += bytes
    while (this.#bytes > this.#bytesMax) this.#evict()
  }

  /** The store has said again that it holds. */
  renew(memo: Memo<V>, until: number): void {
    memo.until = until
    memo.round = this.round
  }

  drop(slot: Slot): void {
    const memo = this.memos.get(slot)
    if (memo === undefined) return
    this.#bytes -= memo.bytes
    this.memos.delete(slot)
  }

  clear(): void {
    this.memos.clear()
    this.#bytes = 0
  }

  /** No value is served before the store has said again that it holds. */
  expireAll(): void {
    this.round++
  }

  #evict(): void {
    for (const [slot, memo] of this.memos) {
      if (!memo.used) return this.drop(slot)
      memo.used = false
      this.memos.delete(slot)
      this.memos.set(slot, memo)
    }
  }
}

/** Freezes a value and all that it holds, but bytes, which cannot be frozen. */
export function deepFreeze<V>(value: V, seen?: Set<object>): V {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value) || seen?.has(value)) return value
  // Not told by Object.isFrozen: a schema may have frozen the outside alone.
  const all = (seen ?? new Set()).add(value)
  Object.freeze(value)
  for (const name of Reflect.ownKeys(value)) deepFreeze((value as Record<PropertyKey, unknown>)[name], all)
  return value
}
