/**
 * `@RateLimited`: a method that runs only as often as its limiter allows, outside HTTP too.
 * Invariant: the method begins only after a decision that lets it; slots are held while it runs, and given back when it has ended.
 * Why a denial is thrown here: a method has no other way to say it. `RateLimit.consume` gives it as a value.
 */
import { decorateMethod, optionOf, RefusedError, targetOf } from '../../core/base/decorate.ts'
import type { Lazy, MethodDecorator, OfCall } from '../../core/base/decorate.ts'
import { invalid } from '../../core/kv/errors.ts'
import type { Decision, RateLimit } from './types.ts'

/** What of a limiter a decorator needs. */
export type MethodLimit<Name extends string> = Pick<RateLimit<Name>, 'name' | 'hasSlots' | 'consume' | 'acquire'>

/**
 * Options of `@RateLimited`. A function takes the method's own arguments, with their types written out, and may leave the last ones away.
 * `Self` is the class, `K`, `C` and `G` are the arguments of each option.
 */
export interface RateLimitedOptions<Self, K extends readonly unknown[], C extends readonly unknown[], G extends readonly unknown[]> {
  /** Whose limit it is. */
  readonly key: OfCall<Self, K, string>
  /** A whole number from 0. Default: 1. */
  readonly cost?: number | OfCall<Self, C, number> | undefined
  /** Ends the wait for the decision. */
  readonly signal?: OfCall<Self, G, AbortSignal | undefined> | undefined
}

/**
 * Asks the limiter before the method runs. For methods that give a promise, static and private ones too, in TC39 and in legacy mode.
 * A limiter with a concurrency policy holds the slot until the method's promise is settled. A charge stays when the method throws.
 * The method then throws RateLimitedError when it may not run, by the limiter's `onUnknown` also while the store does not decide;
 * and KvError as `consume` does. In both cases it has not run.
 * @throws KvError INVALID_ARGUMENT on anything but a method.
 * @example @RateLimited(api, { key: (userId: string) => userId, cost: (_userId: string, rows: number) => rows })
 */
export function RateLimited<
  Self = unknown,
  K extends readonly unknown[] = [],
  C extends readonly unknown[] = [],
  G extends readonly unknown[] = [],
>(
  limit: Lazy<Self, MethodLimit<string>>,
  options: RateLimitedOptions<Self, K, C, G>,
): MethodDecorator<OfCall<never, K, unknown> | OfCall<never, C, unknown> | OfCall<never, G, unknown>, NoInfer<Self>> {
  const { key, cost, signal } = options as RateLimitedOptions<never, never, never, never>
  return decorateMethod('@RateLimited', invalid, async (call) => {
    const limiter = targetOf(limit, call, invalid)
    const name = optionOf(key, call)
    const asked = {
      cost: typeof cost === 'function' ? optionOf(cost, call) : cost,
      signal: signal === undefined ? undefined : optionOf(signal, call),
    }
    if (!limiter.hasSlots) {
      const decision = await limiter.consume(name, asked)
      if (!decision.allowed) throw new RateLimitedError(call.method, limiter.name, decision)
      return call.proceed()
    }
    const acquired = await limiter.acquire(name, asked)
    if (!acquired.allowed) throw new RateLimitedError(call.method, limiter.name, acquired)
    try {
      return await call.proceed()
    } finally {
      await acquired.slot?.release()
    }
  })
}

/** Why a method with `@RateLimited` did not run. */
export class RateLimitedError<Name extends string = string> extends RefusedError<'RATE_LIMITED'> {
  static readonly code = 'RATE_LIMITED'
  override readonly name = 'RateLimitedError'
  /** The name of the limiter. */
  readonly limiter: string
  /** `denied`; or `unknown`, when the store did not decide and the limiter's `onUnknown` says no. */
  readonly decision: Decision<Name>

  constructor(method: string, limiter: string, decision: Decision<Name>) {
    super('RATE_LIMITED', `'${method}' was not run: ${sentenceOf(limiter, decision)}`, decision.cause)
    this.limiter = limiter
    this.decision = decision
  }

  /** When calling again makes sense, in milliseconds; undefined: not known. */
  get retryAfterMs(): number | undefined {
    return this.decision.retryAfterMs
  }
}

const sentenceOf = (limiter: string, { outcome, violated, reason = 'store' }: Decision): string =>
  outcome === 'unknown' ? `the limiter '${limiter}' could not decide (${reason})` : `over the limit ${violated.join(', ')} of '${limiter}'`

/**
 * Tells a denial by this limiter, and knows the names of its policies.
 * @example if (isRateLimited(error, api)) console.log(error.decision.policies.burst.remaining)
 */
export const isRateLimited = <Name extends string>(
  error: unknown,
  limit: { readonly name: string; readonly policies: Readonly<Record<Name, unknown>> },
): error is RateLimitedError<Name> => error instanceof RateLimitedError && error.limiter === limit.name
