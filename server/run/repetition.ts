/**
 * How often the same line is written.
 * Pure. Invariant: of one kind at most `most` lines a window; the first line of a later window says how many were left out. What is kept is bounded.
 * Why: a disk or a peer that fails does so a thousand times a second, and a full log hides what came first.
 */
export interface Repetition {
  /** Lines of one kind in a window. */
  readonly most: number
  readonly windowMs: number
  /** Kinds that are remembered; beyond, the oldest is forgotten. */
  readonly kindsMax: number
}

export const repetitionDefault: Repetition = { most: 10, windowMs: 60_000, kindsMax: 256 }

interface Window {
  readonly sinceMs: number
  told: number
  leftOut: number
}

export class Repetitions {
  readonly #bounds: Repetition
  /** By kind, the one that was begun longest ago first. */
  readonly #windows = new Map<string, Window>()

  constructor(bounds: Repetition = repetitionDefault) {
    this.#bounds = bounds
  }

  /** @returns how many of its kind were left out before this one; undefined: this one is left out, too. */
  take(kind: string, nowMs: number): number | undefined {
    const { most, windowMs, kindsMax } = this.#bounds
    const window = this.#windows.get(kind)
    if (window !== undefined && nowMs - window.sinceMs < windowMs) {
      if (window.told >= most) {
        window.leftOut++
        return undefined
      }
      window.told++
      return 0
    }
    this.#windows.delete(kind)
    this.#windows.set(kind, { sinceMs: nowMs, told: 1, leftOut: 0 })
    const [oldest] = this.#windows.keys()
    if (this.#windows.size > kindsMax && oldest !== undefined) this.#windows.delete(oldest)
    return window?.leftOut ?? 0
  }
}
