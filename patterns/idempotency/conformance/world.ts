/**
 * What the suite and an app under test say to each other: all that a user of the suite sees.
 * Invariant: an app adds nothing to `world.handle` but its framework.
 */
import type { IdempotencyOptions } from '../types.ts'

/** What the suite needs of what a door gives its handler. A door without steps of its own gives one key for each name, the same in each attempt. */
export interface Steps {
  step<T>(name: string, fn: (step: { readonly key: string }) => Promise<T>): Promise<T>
}

/** What the handler answers: to be sent as it is. */
export interface HandlerAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
}

/** What an app under test is made of. */
export interface World {
  /** For `idempotency({ name: 'charges', ...world.options })`. */
  readonly options: Omit<IdempotencyOptions, 'name'>
  /** The handler of every route: given the parsed JSON body, which it changes, and the steps. */
  handle(body: unknown, steps: Steps): Promise<HandlerAnswer>
}

/**
 * An app with the routes `POST /charges`, `POST /refunds`, `GET /charges` and `POST /twice`. In this order stand before `world.handle`:
 * an authentication of the app's own, which answers 401 when the header `x-token` is `wrong`; a parser of JSON bodies; and the door under
 * test with `required: true` and the scope from the header `x-principal`; on `/twice` the door stands there twice.
 */
export interface AppUnderTest {
  /** Of the server, without a slash at the end. */
  readonly url: string
  /** Closes it with all its connections. */
  close(): void | Promise<void>
}
export type MakeApp = (world: World) => AppUnderTest | Promise<AppUnderTest>
