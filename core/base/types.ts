/**
 * The few types that everything else is written in.
 * Pure. Invariant: inside the house a time is epoch milliseconds and a length of time is milliseconds; strings such as '30s' live only at the door.
 * Why brands: two numbers that could be swapped in a call should not compile when they are.
 */

declare const brand: unique symbol
/** A `T` that cannot be given where another brand of `T` is asked for. */
export type Brand<T, Name extends string> = T & { readonly [brand]: Name }

/** An instant: whole milliseconds since 1970-01-01T00:00Z. */
export type EpochMs = Brand<number, 'EpochMs'>
/** A length of time in whole milliseconds, never negative. */
export type Millis = Brand<number, 'Millis'>

/** A length of time as a user writes it: milliseconds, or a number with its unit. */
export type Duration = number | `${number}${'ms' | 's' | 'm' | 'h' | 'd'}`

/** A source of time. Stores and tests hand one in; pure rooms get instants instead. */
export interface Clock {
  /** Epoch milliseconds. */
  now(): EpochMs
}

const unitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

/** The latest instant that a Date can show (ECMA-262 21.4.1.1); later ones are refused. */
export const epochMsMax = 8_640_000_000_000_000

/**
 * Reads a duration. Fractions are allowed with a unit ('1.5s') and are rounded to whole milliseconds.
 * @returns undefined when the text or number is no duration, is negative, or does not fit.
 */
export function parseDuration(duration: Duration): Millis | undefined {
  let ms: number
  if (typeof duration === 'number') {
    ms = duration
  } else {
    const match = typeof duration === 'string' ? /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(duration) : null
    if (!match) return undefined
    ms = Math.round(Number(match[1]) * unitMs[match[2] as keyof typeof unitMs])
  }
  return Number.isInteger(ms) && ms >= 0 && ms <= epochMsMax ? (ms as Millis) : undefined
}

/** Brands a number that is known to be an instant. */
export const epochMs = (ms: number): EpochMs => ms as EpochMs
