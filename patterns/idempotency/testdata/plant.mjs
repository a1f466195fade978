/**
 * Runs the tests of a trap over sources with a mistake planted in them: in memory, no file is changed.
 * Invariant: a mistake is there in its own run alone.
 * Why one Vitest for all: the transformed sources stay warm, so a mistake costs a fraction of a second and not three.
 *
 * stdin: [{ trap, file, find, replace, tests }], paths from the root; stdout: after a line of dashes [{ trap, applied, failed }].
 */
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { createVitest } from 'vitest/node'

const root = fileURLToPath(new URL('../../../', import.meta.url))
let mistake
let applied = 0
const plant = {
  name: 'plant',
  enforce: 'pre',
  transform(code, id) {
    if (mistake === undefined || id !== root + mistake.file) return undefined
    const pieces = code.split(mistake.find)
    applied = pieces.length - 1
    return { code: pieces.join(mistake.replace), map: null }
  },
}
const options = { root, watch: false, pool: 'threads', maxWorkers: 1, testTimeout: 5_000, bail: 1, reporters: [{}] }
const vitest = await createVitest('test', options, { plugins: [plant] })
const results = []
for (mistake of JSON.parse(await text(process.stdin))) {
  applied = 0
  const named = new RegExp(`\\((?:[A-Z]\\d+, )*${mistake.trap}\\b`)
  vitest.setGlobalTestNamePattern(named)
  vitest.invalidateFile(root + mistake.file)
  const { testModules } = await vitest.runTestSpecifications(await vitest.globTestSpecifications([mistake.tests]))
  vitest.invalidateFile(root + mistake.file)
  // Vitest still knows the runs before: only this file and this trap count.
  const tests = testModules
    .filter(({ moduleId }) => moduleId === root + mistake.tests)
    .flatMap((module) => [...module.children.allTests()])
    .filter(({ name }) => named.test(name))
  const failed = tests.filter((test) => test.result().state === 'failed').map((test) => test.fullName)
  results.push({ trap: mistake.trap, applied, failed })
}
process.stdout.write(`\n-----\n${JSON.stringify(results)}\n`)
await vitest.close()
process.exit(0)
