/**
 * `@Counted`: a method whose calls are counted, and that does not run beyond the bounds of its counter.
 * Invariant: the method begins only after its call was counted; a call that was refused is not counted.
 * Why a call stays counted when the method throws: what it did by then nobody knows. Who knows gives it back with `add`.
 */
import { decorateMethod, optionOf, RefusedError, targetOf } from '../../core/base/decorate.ts'
import type { Lazy, MethodDecorator, OfCall } from '../../core/base/decorate.ts'
import type { Duration } from '../../core/base/types.ts'
import { invalid } from '../../core/kv/errors.ts'
import type { AddOptions, CountRefused } from './types.ts'

/** What counts: a counter, a windowed or a sharded one. */
export interface Countable<N extends number | bigint> {
  add(key: string, delta: N, options?: AddOptions): Promise<{ readonly ok: true } | CountRefused<N>>
}

/**
 * Options of `@Counted`. A function takes the method's own arguments, with their types written out, and may leave the last ones away.
 * `Self` is the class, `K`, `B`, `R` and `G` are the arguments of each option.
 */
export interface CountedOptions<
  N extends number | bigint,
  Self,
  K extends readonly unknown[],
  B extends readonly unknown[],
  R extends readonly unknown[],
  G extends readonly unknown[],
> {
  /** What is counted. */
  readonly key: OfCall<Self, K, string>
  /** How much a call counts: a whole number that is not 0. Default: 1; a counter of bigints has none. */
  readonly by?: N | OfCall<Self, B, N> | undefined
  /** Names a request that may come again: it is counted once. The method runs each time. Default: each call counts. */
  readonly requestId?: OfCall<Self, R, AddOptions['requestId']> | undefined
  readonly signal?: OfCall<Self, G, AbortSignal | undefined> | undefined
  /** How long the counting may take. Default: the store's. */
  readonly deadline?: Duration | undefined
}

/**
 * Counts each call before the method runs. For methods that give a promise, static and private ones too, in TC39 and in legacy mode.
 * The method then throws CountRefusedError beyond a bound, and KvError as `add` does: UNKNOWN_OUTCOME when it is not known whether the
 * call was counted. In both cases it has not run.
 * @throws KvError INVALID_ARGUMENT on anything but a method.
 * @example @Counted(seats, { key: (flight: string) => flight, by: -1, requestId: (_flight: string, order: Order) => order.id })
 */
export function Counted<
  Self = unknown,
  K extends readonly unknown[] = [],
  B extends readonly unknown[] = [],
  R extends readonly unknown[] = [],
  G extends readonly unknown[] = [],
>(
  counter: Lazy<Self, Countable<number>>,
  options: CountedOptions<number, Self, K, B, R, G>,
): MethodDecorator<
  OfCall<never, K, unknown> | OfCall<never, B, unknown> | OfCall<never, R, unknown> | OfCall<never, G, unknown>,
  NoInfer<Self>
>
export function Counted<
  Self = unknown,
  K extends readonly unknown[] = [],
  B extends readonly unknown[] = [],
  R extends readonly unknown[] = [],
  G extends readonly unknown[] = [],
>(
  counter: Lazy<Self, Countable<bigint>>,
  options: CountedOptions<bigint, Self, K, B, R, G> & { readonly by: bigint | OfCall<Self, B, bigint> },
): MethodDecorator<
  OfCall<never, K, unknown> | OfCall<never, B, unknown> | OfCall<never, R, unknown> | OfCall<never, G, unknown>,
  NoInfer<Self>
>
export function Counted(counter: unknown, options: unknown): MethodDecorator<never> {
  return decorateMethod('@Counted', invalid, async (call) => {
    const { key, by = 1, requestId, signal, deadline } = options as AnyOptions
    const result = await targetOf(counter as Lazy<never, Countable<number | bigint>>, call, invalid).add(
      optionOf(key, call),
      typeof by === 'function' ? optionOf(by, call) : by,
      {
        requestId: requestId === undefined ? undefined : optionOf(requestId, call),
        signal: signal === undefined ? undefined : optionOf(signal, call),
        deadline,
      },
    )
    if (!result.ok) throw new CountRefusedError(call.method, result)
    return call.proceed()
  })
}

type AnyOptions = CountedOptions<number | bigint, never, never, never, never, never>

/** Why a method with `@Counted` did not run. Nothing was counted. */
export class CountRefusedError extends RefusedError<'COUNT_REFUSED'> {
  static readonly code = 'COUNT_REFUSED'
  override readonly name = 'CountRefusedError'
  readonly refusal: CountRefused['refusal']
  /** The count as it stands. */
  readonly value: number | bigint

  constructor(method: string, { refusal, value }: Pick<CountRefused<number | bigint>, 'refusal' | 'value'>) {
    super('COUNT_REFUSED', `'${method}' was not run: its counter stands at ${value} and would cross its bound`)
    this.refusal = refusal
    this.value = value
  }
}
