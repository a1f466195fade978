/**
 * One method decorator for both systems: TC39's (TypeScript without options, esbuild, Babel) and TypeScript's legacy one (experimentalDecorators).
 * Pure. Invariant: the method keeps its type, name, length, `this` and metadata; only what happens around a call is new.
 * Why told apart at run time: both systems call the same export, and a TC39 context is an object with a `kind` where legacy gives a name.
 */

/** One call of a decorated method, as what stands around it sees it. */
export interface MethodCall {
  /** The method's name: '#name' of a private one, the description of a symbol. */
  readonly method: string
  /** What the method was called on. */
  readonly self: unknown
  readonly args: readonly unknown[]
  /** Calls the method itself. */
  proceed(): Promise<unknown>
}

/** Any function: for constraints alone. */
export type AnyFunction = (this: never, ...args: never) => unknown

/** An option that takes the method's own arguments, as many of them as it needs, on the method's own `this`. */
export type OfCall<Self, Args extends readonly unknown[], Result> = (this: Self, ...args: Args) => Result

/** What to use; or a function that gives it at each call, for decorators run before a container has made anything. */
export type Lazy<Self, Target> = Target | ((self: Self) => Target)

/** What the compiler says when an option cannot take what the method is called with. */
export interface OptionsDoNotTakeTheArgumentsOfThisMethod {
  readonly hapax: never
}
type Fits<Options extends AnyFunction, Args extends readonly unknown[]> = [Options] extends [(this: never, ...args: Args) => unknown]
  ? unknown
  : OptionsDoNotTakeTheArgumentsOfThisMethod

/** What is needed of TC39's context. Arguments are inferred from here, because of a generic method TypeScript infers none from the method itself. */
interface MethodContext<This, Method> {
  readonly kind: 'method'
  readonly name: string | symbol
  readonly access: { has(object: This): boolean; get(object: This): Method }
}

/**
 * Decorates methods that give a promise of `Result`, on a `this` that is a `Self`, with arguments that each of `Options` takes.
 * A method that gives no promise does not compile: decorated, it would give one. The method's own type does not change.
 * A function that gives this type says `NoInfer<Self>`: TypeScript would infer `Self` from the method's function.
 */
export interface MethodDecorator<Options extends AnyFunction, Self = unknown, Result = unknown> {
  <This extends Self, Args extends readonly unknown[], Value extends Result>(
    method: (this: never, ...args: never) => Promise<Value>,
    context: MethodContext<This, (this: never, ...args: Args) => Promise<Value>> & Fits<Options, Args>,
  ): void
  <Args extends readonly unknown[], Value extends Result>(
    target: Self,
    name: string | symbol,
    descriptor: { readonly value?: (this: never, ...args: Args) => Promise<Value> } & Fits<Options, Args>,
  ): void
}

/** Throws the house's fault for a wrong argument: this room knows no errors but its own. */
type Invalid = (message: string) => never
type Method = (this: unknown, ...args: readonly unknown[]) => unknown

/**
 * Makes the decorator of this name. `around` answers in the place of the method and calls `proceed` if the method shall run.
 * @throws what `invalid` throws, when it stands on anything but a method.
 */
export function decorateMethod<Options extends AnyFunction, Self, Result>(
  decorator: string,
  invalid: Invalid,
  around: (call: MethodCall) => Promise<unknown>,
): MethodDecorator<Options, Self, Result> {
  const wrap = (method: Method, key: string | symbol): Method => {
    const name = nameOf(key)
    const wrapped = function (this: unknown, ...args: readonly unknown[]): Promise<unknown> {
      return around({ method: name, self: this, args, proceed: () => Reflect.apply(method, this, args) as Promise<unknown> })
    }
    for (const property of ['name', 'length'] as const)
      Object.defineProperty(wrapped, property, { value: method[property], configurable: true })
    copyMetadata(method, wrapped)
    return wrapped
  }
  const decorate = (first: unknown, second: unknown, third: unknown): unknown => {
    if (isContext(second)) {
      if (second.kind !== 'method') return invalid(`${decorator} decorates methods only, and '${nameOf(second.name)}' is a ${second.kind}`)
      return wrap(first as Method, second.name)
    }
    const key = second as string | symbol | undefined
    const descriptor = third as PropertyDescriptor | undefined
    if (key === undefined || typeof descriptor?.value !== 'function')
      return invalid(`${decorator} decorates methods only, and '${nameOf(key ?? 'a class')}' is none`)
    return { ...descriptor, value: wrap(descriptor.value as Method, key) }
  }
  return decorate as MethodDecorator<Options, Self, Result>
}

interface Context {
  readonly kind: string
  readonly name: string | symbol
}
const isContext = (value: unknown): value is Context => typeof value === 'object' && value !== null && 'kind' in value

const nameOf = (key: string | symbol): string => (typeof key === 'symbol' ? (key.description ?? '') : key)

/** What decorates this call: the target itself, or what its function gives now. @throws what `invalid` throws, when that is nothing. */
export function targetOf<Target extends object>(lazy: Lazy<never, Target>, call: MethodCall, invalid: Invalid): Target {
  const target: Target | undefined = typeof lazy === 'function' ? lazy(call.self as never) : lazy
  return target ?? invalid(`what decorates '${call.method}' is given by a function, and this gave nothing yet`)
}

/** What an option says of this call. */
export const optionOf = <Result>(option: (this: never, ...args: never) => Result, { self, args }: MethodCall): Result =>
  Reflect.apply(option as AnyFunction, self, args) as Result

/** `reflect-metadata`, if somebody has loaded it. */
interface MetadataApi {
  readonly getOwnMetadataKeys?: (target: object) => readonly unknown[]
  readonly getOwnMetadata: (key: unknown, target: object) => unknown
  readonly defineMetadata: (key: unknown, value: unknown, target: object) => void
}

/** Frameworks with legacy decorators (Nest) keep routes and guards by the method's function: a decorator above theirs would lose both. */
function copyMetadata(from: object, to: object): void {
  const api = Reflect as unknown as MetadataApi
  for (const key of api.getOwnMetadataKeys?.(from) ?? []) api.defineMetadata(key, api.getOwnMetadata(key, from), to)
}

const refusedBrand = Symbol.for('hapax.RefusedError')

/**
 * A refusal, where only an exception can say it: a decorated method gives its result or throws. No fault, so no KvError.
 * Each subclass has its own static `code`; `instanceof` holds for those of every copy of hapax in the process.
 */
export abstract class RefusedError<Code extends string> extends Error {
  readonly code: Code

  protected constructor(code: Code, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    Object.defineProperty(this, refusedBrand, { value: true })
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    const own = Object.hasOwn(this, 'code') ? (this as unknown as { code: string }).code : undefined
    if (own === undefined) return Function.prototype[Symbol.hasInstance].call(this, value)
    return typeof value === 'object' && value !== null && refusedBrand in value && (value as { code?: unknown }).code === own
  }
}
