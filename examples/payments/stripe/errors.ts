/**
 * Stripe's error shapes, as far as this shop gives them (docs.stripe.com/api/errors).
 * Invariant: every refusal under /v1 is `{ error: { type, message, ... } }` with the status that Stripe gives it.
 */
import type { Response } from 'express'

export interface StripeError {
  readonly type: 'invalid_request_error' | 'idempotency_error' | 'card_error' | 'api_error'
  readonly message: string
  readonly code?: string
  readonly param?: string
  readonly decline_code?: string
  readonly charge?: string
  readonly payment_intent?: object
}

export function fail(res: Response, status: number, error: StripeError): void {
  res.status(status).json({ error })
}

export const invalid = (res: Response, message: string, more: { code?: string; param?: string } = {}): void =>
  fail(res, 400, { type: 'invalid_request_error', message, ...more })

export const missing = (res: Response, what: string, id: string): void =>
  fail(res, 404, { type: 'invalid_request_error', code: 'resource_missing', param: 'id', message: `No such ${what}: '${id}'` })
