/**
 * 'hapax/idempotency/express': the door for Express 4 and 5.
 * Invariant: the handler's answer is held back until it is stored, whichever way it is written.
 */
import type { NextFunction, Request, RequestHandler, Response } from 'express'
import { Capture, sendReply } from '../../core/http/capture.ts'
import { Door, onceOfRequest, type DoorOptions } from './http.ts'
import type { Idempotency, Once } from './types.ts'

export type { DoorOptions, IdempotencyProblem, ProblemKind } from './http.ts'
export type { Rendered } from '../../core/http/problem.ts'

/** A handler whose whole life the door knows: what it throws goes to Express. */
export type OnceHandler = (req: Request, res: Response, once: Once) => unknown

/**
 * Middleware that answers repetitions of a request and lets the first one through; or, with a handler, a whole route.
 * Put it after authentication and after the body parser.
 * @throws KvError SCOPE_MISSING or INVALID_ARGUMENT for wrong options. To `next` go, at the first request, APPLIED_TWICE, BODY_UNPARSED,
 * SCOPE_MISSING, and faults of the store.
 * @example app.post('/payments', auth, express.json(), idempotent(payments, { scope: (req) => req.user.id }), charge)
 */
export function idempotent(idempotency: Idempotency, options: DoorOptions<Request>, handler?: OnceHandler): RequestHandler {
  const door = new Door(idempotency, options)
  return (req, res, next) => {
    void serve(door, req, res, next, handler)
  }
}

/** What the door gives the handler of this request: steps, fence, signal. Not protected (no key): `fence` is 0. */
export const onceOf = (req: Request): Once => onceOfRequest(req)

async function serve(
  door: Door<Request>,
  req: Request,
  res: Response,
  next: NextFunction,
  handler: OnceHandler | undefined,
): Promise<void> {
  let life: Life | undefined
  let once: Once
  try {
    const { file, files } = req as { file?: unknown; files?: unknown }
    const entry = await door.enter({ context: req, req, target: req.originalUrl, body: req.body as unknown, files: files ?? file }, res)
    if (entry.type === 'reply') return sendReply(res, entry.reply)
    once = entry.once
    const { run } = entry
    if (run) {
      const capture = new Capture(res, {
        bytesMax: run.answerBytesMax,
        onAnswer: (answer) => run.answered(answer),
        onStream: (head, reason) => run.streamed(head, reason),
        onGone: () => {
          run.abandon()
          life?.gone()
        },
      })
      life = new Life(capture, (error) => void run.failed(error))
    }
  } catch (error) {
    return next(error)
  }
  if (handler === undefined) return next()
  try {
    const result = handler(req, res, once)
    await result
    // A handler that gave no promise may answer later; one that did has said all it has to say, streams apart.
    if (result instanceof Promise) life?.ended(new Error('the connection closed before the answer was ended'))
  } catch (error) {
    next(error)
    life?.ended(error)
  }
}

/**
 * T24: a client that leaves does not end its request: the handler goes on, and its answer is stored. Only when the handler has ended,
 * the connection is closed and no answer was ended will there be none.
 */
class Life {
  readonly #capture: Capture
  readonly #fail: (error: unknown) => void
  #isGone = false
  #end: { readonly error: unknown } | undefined

  constructor(capture: Capture, fail: (error: unknown) => void) {
    this.#capture = capture
    this.#fail = fail
  }
  gone(): void {
    this.#isGone = true
    this.#look()
  }
  ended(error: unknown): void {
    this.#end = { error }
    this.#look()
  }
  #look(): void {
    const end = this.#end
    if (!this.#isGone || end === undefined) return
    // After the turn: an error handler may be about to answer.
    setImmediate(() => {
      if (!this.#capture.isEnded) this.#fail(end.error)
    })
  }
}
