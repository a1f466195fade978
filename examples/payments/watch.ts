/**
 * Tells the supervisor what happens to idempotency keys, for the event log of the page.
 * Why the diagnostics channel: the shop's own code stays free of it, and without a listener nothing is built.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { IdempotencyEvent } from 'hapax/idempotency'
import { report } from './channel.ts'

/** In the words of the page. What is not here happens too often to be read. */
const words: Partial<Record<IdempotencyEvent['type'], readonly [what: string, code: string]>> = {
  claimed: ['key claimed', 'patterns/idempotency/idempotency.ts'],
  'taken-over': ['taken over after a crash', 'patterns/idempotency/rules.ts'],
  replayed: ['stored answer sent again', 'patterns/idempotency/http.ts'],
  refused: ['refused', 'patterns/idempotency/rules.ts'],
  'step-saved': ['step saved', 'patterns/idempotency/idempotency.ts'],
  lost: ['claim lost', 'patterns/idempotency/idempotency.ts'],
  completed: ['answer stored', 'patterns/idempotency/idempotency.ts'],
  unstored: ['answered, too large to store', 'patterns/idempotency/idempotency.ts'],
  'handed-back': ['key handed back', 'patterns/idempotency/idempotency.ts'],
  unsaved: ['answer not stored yet', 'patterns/idempotency/idempotency.ts'],
  'store-error': ['the store is away', 'patterns/idempotency/idempotency.ts'],
  released: ['released by a person', 'patterns/idempotency/idempotency.ts'],
}

/** @returns how to stop. */
export function watchIdempotency(): () => void {
  const onEvent = (message: unknown): void => {
    const event = message as IdempotencyEvent
    const line = words[event.type]
    if (!line) return
    const attempt = event.attempt !== undefined && event.attempt > 1 ? ` attempt ${event.attempt}` : ''
    const refusal = event.refusal === undefined ? '' : ` ${event.refusal}`
    report('shop', line[0], { detail: `${event.id.slice(0, 8)}${attempt}${refusal}`, code: line[1] })
  }
  subscribe('hapax:idempotency', onEvent)
  return () => unsubscribe('hapax:idempotency', onEvent)
}
