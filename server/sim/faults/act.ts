/** What one fault is: something that happens at an instant, and may end after a while. */
import type { Carried, Fate, Site, Tap } from '../site.ts'
import type { World } from '../world.ts'

export interface Scene {
  readonly world: World
  readonly site: Site
  /** How long it lasts, in milliseconds of true time. */
  readonly lengthMs: number
  /** Runs after a while, unless everything is healed by then. */
  later(ms: number, run: () => void): void
  /** Looks at each message until it is stopped, or everything is healed. @returns stops it */
  watch(tap: Tap): () => void
}

/** @returns false when there was no occasion for it */
export type Act = (scene: Scene) => boolean

/** Looks at each message until it has seen the one that it was waiting for. `undefined`: not this one. */
export function awaitMessage(
  { watch, later }: Scene,
  patienceMs: number,
  see: (from: string, to: string, message: Carried) => Fate | undefined,
): void {
  const stop = watch((from, to, message) => {
    const fate = see(from, to, message)
    if (fate !== undefined) stop()
    return fate ?? 'goes'
  })
  later(patienceMs, stop)
}
