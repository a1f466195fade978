/**
 * 'hapax/ratelimit/express': the door for Express 4 and 5.
 * Invariant: the handler runs only after every limit before it has let the request pass.
 */
import type { NextFunction, Request, RequestHandler, Response } from 'express'
import { sendReply } from '../../core/http/capture.ts'
import { decisionOfRequest, LimitDoor, type LimitDoorOptions } from './http.ts'
import type { Decision, RateLimit } from './types.ts'

export { clientKey, type ClientKeyOptions } from '../../core/http/client-key.ts'
export type { Rendered } from '../../core/http/problem.ts'
export type { HeaderSpec, LimitProblemKind } from './headers.ts'
export type { LimitDoorOptions, LimitProblem, RequestEnd } from './http.ts'

/**
 * Middleware that counts each request once and answers those that are too many: 429, or 503 while the limiter does not know and denies.
 * Behind authentication the key may be a user; before it, `clientKey()`.
 * @throws KvError LIMIT_KEY_MISSING, COST_TOO_LARGE or INVALID_ARGUMENT for wrong options. To `next` go LIMIT_KEY_MISSING and what the limiter throws.
 * @example app.use(rateLimited(api, { key: clientKey({ trustProxy: 1 }) }))
 */
export function rateLimited<Name extends string>(limit: RateLimit<Name>, options: LimitDoorOptions<Request>): RequestHandler {
  const door = new LimitDoor(limit, options)
  return (req, res, next) => {
    void serve(door, req, res, next)
  }
}

async function serve(door: LimitDoor<Request>, req: Request, res: Response, next: NextFunction): Promise<void> {
  try {
    const entry = await door.enter(req, req, res)
    if (entry.type === 'reply') return sendReply(res, entry.reply)
  } catch (error) {
    return next(error)
  }
  next()
}

/** What the limiter decided about this request; undefined: it was not asked. */
export const decisionOf = <Name extends string>(req: Request, limit: RateLimit<Name>): Decision<Name> | undefined =>
  decisionOfRequest(req, limit)
