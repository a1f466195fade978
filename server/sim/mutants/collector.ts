/**
 * Collector: stands in for the test runner in a bundle of directed tests that has a mistake in it.
 * Invariant: the matchers are the runner's own, which the run that loads the bundle hands over; what is judged here is what `npm test` judges.
 * Why not the runner itself: one start of it takes a second, and there are more than a hundred mistakes.
 */
type Body = (...row: readonly unknown[]) => unknown
interface Found {
  readonly name: string
  readonly run: () => unknown
}
/** Of the first test that fails. */
export interface Failure {
  readonly test: string
  readonly error: unknown
}

/** Where the run that loads a bundle leaves the runner's `expect`. */
export const handedOver = Symbol.for('hapax.expect')

const found: Found[] = []
const path: string[] = []

export const expect: unknown = (globalThis as { [handedOver]?: unknown })[handedOver]

export function describe(name: string, body: () => void): void {
  path.push(name)
  body()
  path.pop()
}

const add = (name: string, run: () => unknown): void => void found.push({ name: [...path, name].join(' > '), run })

export const test = Object.assign(add, {
  each: (rows: readonly unknown[]) => (name: string, body: Body) => {
    for (const row of rows) {
      const values: readonly unknown[] = Array.isArray(row) ? row : [row]
      add(filled(name, values), () => body(...values))
    }
  },
})
export const it = test

/** A name with its values: enough to find the row again. */
function filled(name: string, values: readonly unknown[]): string {
  const rest = [...values]
  return name.replaceAll(/%[sij]/g, () => {
    const value = rest.shift()
    return typeof value === 'string' ? value : JSON.stringify(value)
  })
}

/** How many tests there are: a bundle without any would let every mistake pass. */
export const count = (): number => found.length

/** Runs the tests until one fails. @returns undefined when all pass */
export async function firstFailure(): Promise<Failure | undefined> {
  for (const { name, run } of found) {
    try {
      await run()
    } catch (error) {
      return { test: name, error }
    }
  }
  return undefined
}
