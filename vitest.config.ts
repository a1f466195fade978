/**
 * How tests run: `hapax` and `hapax/...` are the sources, so that a test and an example need no build.
 * Invariant: the aliases are derived from `exports` in package.json and stand nowhere else.
 * Why two workers: the smallest machine that runs the checks has two cores, and some groups start processes of their own.
 */
import { randomInt } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const root = fileURLToPath(new URL('.', import.meta.url))
const { exports } = JSON.parse(readFileSync(`${root}package.json`, 'utf8')) as { exports: Record<string, string | { default: string }> }

const alias = Object.entries(exports).flatMap(([subpath, target]) =>
  typeof target === 'string'
    ? []
    : [
        {
          find: new RegExp(`^hapax${subpath.slice(1)}$`),
          replacement: root + target.default.replace('./dist/', '').replace(/\.js$/, '.ts'),
        },
      ],
)

// One seed a run, shared by all workers. `npm test` gives it; a single run draws and prints its own.
if (process.env.HAPAX_SEED === undefined) {
  process.env.HAPAX_SEED = String(randomInt(2 ** 31))
  console.log(`seed: HAPAX_SEED=${process.env.HAPAX_SEED}`)
}

export default defineConfig({
  resolve: { alias },
  test: {
    include: ['{core,patterns,server,examples,test,tools,bench}/**/*.test.ts'],
    exclude: ['**/node_modules/**', 'dist/**'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
    env: { HAPAX_SEED: process.env.HAPAX_SEED, HAPAX_VERIFY: '1' },
  },
})
