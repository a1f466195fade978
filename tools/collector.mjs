/**
 * Collector: stands in for the test runner in a bundle of directed tests that has a mistake in it (sim.mjs, `bundleTests`).
 * Invariant: the matchers are the runner's own, which the run that loads the bundle hands over: what is judged here is what `npm test` judges.
 * Why not the runner itself: one start of it takes a second, and there are more than a hundred mistakes.
 */
const found = []
const path = []

/** The runner's, left by who loads the bundle. */
export const expect = globalThis[Symbol.for('hapax.expect')]

export function describe(name, body) {
  path.push(name)
  body()
  path.pop()
}

export function test(name, run) {
  found.push({ name: [...path, name].join(' > '), run })
}
test.each = (rows) => (name, body) => {
  for (const row of rows) {
    const values = Array.isArray(row) ? row : [row]
    test(filled(name, values), () => body(...values))
  }
}
export const it = test

/** A name with its values: enough to find the row again. */
function filled(name, values) {
  const rest = [...values]
  return name.replaceAll(/%[sij]/g, () => {
    const value = rest.shift()
    return typeof value === 'string' ? value : JSON.stringify(value)
  })
}

/** How many tests there are: a bundle without any would let every mistake pass. */
export const count = () => found.length

/** Runs the tests until one fails. @returns its name and its error; undefined when all pass */
export async function firstFailure() {
  for (const { name, run } of found) {
    try {
      await run()
    } catch (error) {
      return { test: name, error }
    }
  }
  return undefined
}
