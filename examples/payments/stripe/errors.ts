/**
 * Stripe's error shapes, as far as this shop gives them (docs.stripe.com/api/errors).
 * Invariant: every refusal under /v1 is `{ error: { type, message, ... } }` with the status that Stripe gives it.
 */
import type { Request, Response } from 'express'
import type { IdempotencyProblem, Rendered } from 'hapax/idempotency/express'

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

/** The door's refusals as Stripe says them. 409 may be tried again, and Stripe's clients do; other parameters never become right. */
export function asStripe({ status, kind }: IdempotencyProblem, req: Request): Rendered {
  const key = (req.get('idempotency-key') ?? '').slice(0, 255)
  const headers = { 'Stripe-Should-Retry': String(status === 409 || status === 503) }
  const say = (status: number, error: StripeError): Rendered => ({ status, headers, body: { error } })
  if (kind === 'mismatch') {
    const message = `Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key other than '${key}' if you meant to execute a different request.`
    return say(400, { type: 'idempotency_error', message })
  }
  if (kind === 'in-flight') {
    const message = `There is currently another in-progress request using this idempotency key: ${key}. Please try again later.`
    return say(409, { type: 'invalid_request_error', code: 'idempotency_key_in_use', message })
  }
  return say(status, {
    type: status < 500 ? 'invalid_request_error' : 'api_error',
    message: `The idempotency key cannot be used: ${kind}.`,
  })
}
