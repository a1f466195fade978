/**
 * What the processes of the demonstration say to each other, over the channel that Node opens to a child.
 * Invariant: a child whose channel is closed ends, so nothing outlives the supervisor, not even when that is killed.
 */

/** One line of the event log. */
export interface DemoEvent {
  /** Epoch milliseconds. */
  readonly at: number
  readonly from: 'supervisor' | 'shop' | 'bank' | 'warehouse' | 'cluster'
  /** A few words: 'claimed', 'charge booked'. */
  readonly what: string
  readonly detail?: string
  /** The file that did it. */
  readonly code?: string
}

export type FromChild =
  | { readonly type: 'ready'; readonly port: number }
  | { readonly type: 'event'; readonly event: DemoEvent }
  /** The bank has booked a charge and keeps its answer back. */
  | { readonly type: 'holding' }

export type ToBank = {
  /** Book the next charge, say so, and never answer it. */
  readonly type: 'hold-next'
}

/** Tells the supervisor. A process that was started by hand has none and says nothing. */
export function tell(message: FromChild): void {
  if (process.connected) process.send?.(message)
}

export const report = (from: DemoEvent['from'], what: string, more: { detail?: string; code?: string } = {}): void =>
  tell({ type: 'event', event: { at: Date.now(), from, what, ...more } })

/** Runs `close` and ends the process when the supervisor lets go or is gone; by hand, on the usual signals. */
export function liveWithSupervisor(close: () => Promise<void>): void {
  let ending = false
  const end = (): void => {
    if (ending) return
    ending = true
    close().then(
      () => process.exit(0),
      (error: unknown) => {
        console.error(error)
        process.exit(1)
      },
    )
  }
  if (process.env.SUPERVISED === 'yes') {
    // Ctrl-C reaches every process of the terminal, and service managers signal all of a group: the supervisor decides in which order they end.
    process.on('SIGINT', () => undefined)
    process.on('SIGTERM', () => undefined)
    process.once('disconnect', end)
    // Let go before we got here.
    if (!process.connected) end()
  } else {
    process.once('SIGINT', end)
    process.once('SIGTERM', end)
  }
}
