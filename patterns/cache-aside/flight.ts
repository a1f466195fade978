/**
 * One answer under way, which all callers of a key in this process share.
 * Invariant: a caller joins only while the answer will rest on what is read after it came, or was read at most `fresh` before it.
 * Why not simply join whatever flies: a load that began before another process's invalidation would answer a caller that came after it.
 */
import type { Slot } from './key.ts'

/** What a load was begun for: a flight, or a refresh in the background. */
export interface Work<K> {
  readonly slot: Slot
  readonly key: K
  readonly storeKey: string
  /** An invalidation came: what this work brings is for those who asked before, and is not kept in memory. */
  isVoid: boolean
}

export class Flight<K, V> implements Work<K> {
  readonly slot: Slot
  readonly key: K
  readonly storeKey: string
  isVoid = false
  /** When that on which its answer rests was asked for, on the local clock. */
  since = 0
  /** Nothing that its answer will rest on has been asked for yet. */
  isOpen = true
  /** Begins when this one has landed, for those who came too late. */
  next: Flight<K, V> | undefined
  readonly promise: Promise<V>
  resolve: (value: V) => void = () => {}
  reject: (error: unknown) => void = () => {}

  constructor(slot: Slot, key: K, storeKey: string) {
    this.slot = slot
    this.key = key
    this.storeKey = storeKey
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    // All callers may have left.
    this.promise.catch(() => undefined)
  }

  admits(now: number, freshMs: number): boolean {
    return this.isOpen || now - this.since < freshMs
  }

  /** The store is asked, or the loader begins. */
  readonly close = (now: number): void => {
    this.isOpen = false
    this.since = now
  }
}
