/**
 * `@Idempotent`: a method that runs once for each key, outside HTTP: consumers of queues, jobs, services.
 * Invariant: the method begins only under a claim, and its caller gets the first run's result, or an error that says why not.
 * Why a refusal is thrown here: a method has no other way to say it. `Idempotency.run` gives it as a value.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { decorateMethod, optionOf, RefusedError, targetOf } from '../../core/base/decorate.ts'
import type { Lazy, MethodCall, MethodDecorator, OfCall } from '../../core/base/decorate.ts'
import { invalid, KvError } from '../../core/kv/errors.ts'
import type { Idempotency, KeyRef, Once, Refusal, RunRequest } from './types.ts'

/**
 * Options of `@Idempotent`. A function takes the method's own arguments, with their types written out, and may leave the last ones away.
 * `Self` is the class, `S`, `K`, `I` and `G` are the arguments of each option.
 */
export interface IdempotentOptions<
  Self,
  S extends readonly unknown[],
  K extends readonly unknown[],
  I extends readonly unknown[],
  G extends readonly unknown[],
> {
  /** Who asks: a tenant or principal that the server itself knows. Never empty; 'public' shares results with everybody. */
  readonly scope: string | OfCall<Self, S, string>
  /** The client's key, or the message's id: 1 to 255 characters. */
  readonly key: OfCall<Self, K, string>
  /** What must be equal in a repetition: anything JSON can hold, or bytes. Default: all arguments. */
  readonly input?: OfCall<Self, I, unknown> | undefined
  /** What is asked for: part of the key's identity. Default: the method's name; say it when two classes share one idempotency. */
  readonly operation?: string | undefined
  /** Ends the waiting, and reaches the method as `currentOnce().signal`. */
  readonly signal?: OfCall<Self, G, AbortSignal | undefined> | undefined
}

/**
 * Runs the method once for each key; a repetition gets the first run's result, as JSON makes it. For methods that give a promise,
 * static and private ones too, in TC39 and in legacy mode. `currentOnce` inside it has steps, signal and fence.
 * The method then throws IdempotencyRefusedError for a refusal; KvError SCOPE_MISSING, APPLIED_TWICE when it runs inside itself under one key,
 * INVALID_ARGUMENT for a key or an input that is none; and what `Idempotency.run` throws.
 * @throws KvError INVALID_ARGUMENT on anything but a method.
 * @example @Idempotent(payments, { scope: (tenant: string) => tenant, key: (_tenant: string, order: Order) => order.id })
 */
export function Idempotent<
  Self = unknown,
  S extends readonly unknown[] = [],
  K extends readonly unknown[] = [],
  I extends readonly unknown[] = [],
  G extends readonly unknown[] = [],
>(
  idempotency: Lazy<Self, Idempotency>,
  options: IdempotentOptions<Self, S, K, I, G>,
): MethodDecorator<
  OfCall<never, S, unknown> | OfCall<never, K, unknown> | OfCall<never, I, unknown> | OfCall<never, G, unknown>,
  NoInfer<Self>
> {
  return decorateMethod('@Idempotent', invalid, async (call) => {
    const target = targetOf(idempotency, call, invalid)
    const request = requestOf(options, call)
    const outer = frames.getStore()
    for (let frame = outer; frame !== undefined; frame = frame.outer)
      if (isSame(frame, target, request))
        throw new KvError('APPLIED_TWICE', {
          message: `'${call.method}' runs inside itself under one idempotency key`,
          hint: 'remove one of two @Idempotent, or give the inner call another key or operation',
        })
    const result = await target.run(request, async (once) => {
      const frame: Frame = { target, request, once, outer, isOpen: true }
      try {
        return await frames.run(frame, call.proceed)
      } finally {
        frame.isOpen = false
      }
    })
    if (result.ok) return result.value
    throw new IdempotencyRefusedError(call.method, result.refusal, result.retryAfterMs, result.cause)
  })
}

/** One run under way, and what it was called in. */
interface Frame {
  readonly target: Idempotency
  readonly request: KeyRef
  readonly once: Once
  readonly outer: Frame | undefined
  /** False when the run has ended: what it left behind in the background may call the method again, and gets the replay. */
  isOpen: boolean
}
const frames = new AsyncLocalStorage<Frame>()

const isSame = (frame: Frame, target: Idempotency, { scope, key, operation }: KeyRef): boolean =>
  frame.isOpen &&
  frame.target === target &&
  frame.request.scope === scope &&
  frame.request.key === key &&
  frame.request.operation === operation

/**
 * What the innermost `@Idempotent` method that runs now is given: steps, fence, signal.
 * @throws KvError INVALID_ARGUMENT outside such a method.
 * @example const charge = await currentOnce().step('charge', ({ key }) => psp.charge(order, { idempotencyKey: key }))
 */
export const currentOnce = (): Once => frames.getStore()?.once ?? invalid('currentOnce() is asked outside of a method with @Idempotent')

/** Why a method with `@Idempotent` did not run, and there is no result to give. */
export class IdempotencyRefusedError extends RefusedError<'IDEMPOTENCY_REFUSED'> {
  static readonly code = 'IDEMPOTENCY_REFUSED'
  override readonly name = 'IdempotencyRefusedError'
  readonly refusal: Refusal
  /** When calling again makes sense, in milliseconds; undefined: not by itself. */
  readonly retryAfterMs: number | undefined

  constructor(method: string, refusal: Refusal, retryAfterMs?: number, cause?: unknown) {
    super('IDEMPOTENCY_REFUSED', `'${method}' was not run: ${sentences[refusal]}`, cause)
    this.refusal = refusal
    this.retryAfterMs = retryAfterMs
  }
}

const sentences = {
  'in-flight': 'the first call under this key still runs',
  mismatch: 'another call came under this key before',
  'outcome-unknown': 'the first call under this key never said how it ended',
  unstored: 'it was run before, and its result could not be kept',
  'store-unavailable': 'the store cannot be reached',
} as const satisfies Record<Refusal, string>

type AnyOptions<Self> = IdempotentOptions<Self, never, never, never, never>

function requestOf<Self>(options: unknown, call: MethodCall): RunRequest & { operation: string } {
  const { scope, key, input, signal, operation = call.method } = options as AnyOptions<Self>
  if (operation === '') invalid('@Idempotent on a method without a name needs an operation')
  return {
    scope: typeof scope === 'function' ? optionOf(scope, call) : scope,
    key: optionOf(key, call),
    operation,
    input: input === undefined ? allOf(call.args) : optionOf(input, call),
    signal: signal === undefined ? undefined : optionOf(signal, call),
  }
}

/** All arguments as one input. An optional one that is not given and one that is undefined are the same request. */
function allOf(args: readonly unknown[]): readonly unknown[] {
  let length = args.length
  while (length > 0 && args[length - 1] === undefined) length--
  return args.slice(0, length).map((arg) => (arg === undefined ? null : arg))
}
