/**
 * Plants a violation of each wall in a copy of the folders and sees the linter refuse it.
 * Invariant: each row fails for its own rule and on its own file; the clean rows pass.
 * Why a copy: a planted file in the real folders would break everybody else's check while this runs.
 */
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'hapax-walls-'))
copyFileSync(join(root, '.oxlintrc.json'), join(folder, '.oxlintrc.json'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const lines = (count: number) => `${'// a line\n'.repeat(count - 1)}export const a = 1\n`
const imports = (specifier: string) => `export { a } from '${specifier}'\n`

/** Wall, file, what is planted, the rule that must refuse it. */
const planted: [wall: string, path: string, code: string, rule: string][] = [
  ['base imports kv', 'core/base/p1.ts', imports('../kv/kv.ts'), 'no-restricted-imports'],
  ['base imports a package', 'core/base/p2.ts', imports('ulid'), 'no-restricted-imports'],
  ['base imports node', 'core/base/p3.ts', imports('node:fs'), 'no-restricted-imports'],
  ['kv imports record', 'core/kv/p1.ts', imports('../record/record.ts'), 'no-restricted-imports'],
  ['kv imports types of a store', 'core/kv/p2.ts', "export type { A } from '../stores/memory.ts'\n", 'no-restricted-imports'],
  ['kv imports a pattern', 'core/kv/p3.ts', imports('../../patterns/idempotency/rules.ts'), 'no-restricted-imports'],
  ['kv imports ulid outside id.ts', 'core/kv/p4.ts', imports('ulid'), 'no-restricted-imports'],
  ['kv imports node', 'core/kv/p5.ts', imports('node:crypto'), 'no-restricted-imports'],
  ['record imports a store', 'core/record/p1.ts', imports('../stores/memory.ts'), 'no-restricted-imports'],
  ['record imports the random ids', 'core/record/p2.ts', imports('../kv/id.ts'), 'no-restricted-imports'],
  ['engine imports a store', 'core/engine/p1.ts', imports('../stores/memory.ts'), 'no-restricted-imports'],
  ['engine imports an addon by value', 'core/engine/p2.ts', imports('rocksdb'), 'no-restricted-imports'],
  ['engine imports a socket', 'core/engine/p3.ts', imports('node:net'), 'no-restricted-imports'],
  ['stores import testing', 'core/stores/p1.ts', imports('../testing/clock.ts'), 'no-restricted-imports'],
  ['the memory store imports an engine', 'core/stores/memory.ts', imports('../engine/volatile.ts'), 'no-restricted-imports'],
  [
    'http imports a framework by value',
    'core/http/p1.ts',
    "import express from 'express'\nexport const a = express()\n",
    'no-restricted-imports',
  ],
  ['http imports a store', 'core/http/p2.ts', imports('../stores/memory.ts'), 'no-restricted-imports'],
  ['testing imports conformance', 'core/testing/p1.ts', imports('../conformance/index.ts'), 'no-restricted-imports'],
  ['the bridge imports a pattern', 'core/opentelemetry/p1.ts', imports('../../patterns/idempotency/events.ts'), 'no-restricted-imports'],
  ['the bridge loads OpenTelemetry', 'core/opentelemetry/p2.ts', imports('@opentelemetry/api'), 'no-restricted-imports'],
  ['conformance imports a test runner', 'core/conformance/p1.ts', imports('vitest'), 'no-restricted-imports'],
  ["'hapax' imports the embedded store", 'core/index.ts', imports('./stores/embedded.ts'), 'no-restricted-imports'],
  ['core imports the server', 'core/stores/p2.ts', imports('../../server/index.ts'), 'no-restricted-imports'],
  ['a test of core imports the server', 'core/stores/p3.test.ts', imports('../../server/index.ts'), 'no-restricted-imports'],
  ['a pattern imports another', 'patterns/counters/p1.ts', imports('../idempotency/rules.ts'), 'no-restricted-imports'],
  ['a test of a pattern imports another', 'patterns/counters/p2.test.ts', imports('../idempotency/rules.ts'), 'no-restricted-imports'],
  ['a pattern imports the server', 'patterns/counters/p3.ts', imports('../../server/index.ts'), 'no-restricted-imports'],
  ['a pattern imports a store', 'patterns/counters/p4.ts', imports('../../core/stores/memory.ts'), 'no-restricted-imports'],
  ['a pattern imports a socket', 'patterns/counters/p5.ts', imports('node:net'), 'no-restricted-imports'],
  [
    'a pattern loads a module at run time',
    'patterns/counters/p6.ts',
    "export const a = () => import('../ratelimit/index.ts')\n",
    'no-restricted-imports',
  ],
  ['a pattern imports the disk', 'patterns/counters/p7.ts', imports('node:fs/promises'), 'no-restricted-imports'],
  ['rules import node', 'patterns/counters/rules.ts', imports('node:crypto'), 'no-restricted-imports'],
  ['one of many rules imports node', 'patterns/ratelimit/rules/p1.ts', imports('node:crypto'), 'no-restricted-imports'],
  ['a record imports http', 'patterns/counters/record.ts', imports('../../core/http/exchange.ts'), 'no-restricted-imports'],
  ['the wire imports a store', 'core/wire/p1.ts', imports('../stores/memory.ts'), 'no-restricted-imports'],
  ['a socket knows a message', 'core/net/p1.ts', imports('../wire/replica-message.ts'), 'no-restricted-imports'],
  ['a socket knows a record', 'core/net/p2.ts', imports('../record/record.ts'), 'no-restricted-imports'],
  ['the register imports storage', 'server/register/p1.ts', imports('../storage/host.ts'), 'no-restricted-imports'],
  ['the register imports a pattern', 'server/register/p2.ts', imports('../../patterns/counters/index.ts'), 'no-restricted-imports'],
  ['the map imports storage', 'server/cluster/p1.ts', imports('../storage/host.ts'), 'no-restricted-imports'],
  ['storage imports the proxy', 'server/storage/p1.ts', imports('../proxy/coordinator.ts'), 'no-restricted-imports'],
  ['the proxy imports node', 'server/proxy/p1.ts', imports('node:net'), 'no-restricted-imports'],
  ['the edge imports the simulator', 'server/edge/p1.ts', imports('../sim/world.ts'), 'no-restricted-imports'],
  ['the command line imports the simulator', 'server/cli/p1.ts', imports('../sim/world.ts'), 'no-restricted-imports'],
  ['the edge imports a pattern', 'server/edge/p2.ts', imports('../../patterns/counters/index.ts'), 'no-restricted-imports'],
  ['the simulator imports a store', 'server/sim/p1.ts', imports('../../core/stores/memory.ts'), 'no-restricted-imports'],
  ['what hurts clusters looks into a storage server', 'server/chaos/p1.ts', imports('../storage/host.ts'), 'no-restricted-imports'],
  ['an example imports a path of core', 'examples/payments/p1.ts', imports('../../core/index.ts'), 'no-restricted-imports'],
  ['an example imports a path of dist', 'examples/payments/stripe/p2.ts', imports('../../../dist/core/index.js'), 'no-restricted-imports'],

  ['a pure room reads the date', 'core/record/q1.ts', 'export const a = () => Date.now()\n', 'no-restricted-globals'],
  ['a pure room reads the performance clock', 'core/base/q2.ts', 'export const a = () => performance.now()\n', 'no-restricted-globals'],
  ['a pure room sets a timer', 'core/kv/q3.ts', 'export const a = () => setTimeout(() => 1, 1)\n', 'no-restricted-globals'],
  ['a pure room reads the environment', 'core/kv/q4.ts', 'export const a = process.env\n', 'no-restricted-globals'],
  ['a pure room takes the back door', 'core/kv/q5.ts', 'export const a = globalThis.Date\n', 'no-restricted-globals'],
  ['a pure room hashes by itself', 'patterns/counters/key.ts', 'export const a = () => crypto.randomUUID()\n', 'no-restricted-globals'],
  ['one of many rules reads the date', 'patterns/ratelimit/rules/q8.ts', 'export const a = () => Date.now()\n', 'no-restricted-globals'],
  ['a pure room draws a number', 'core/record/q6.ts', 'export const a = () => Math.random()\n', 'no-restricted-properties'],
  ['the wire reads the date', 'core/wire/q1.ts', 'export const a = () => Date.now()\n', 'no-restricted-globals'],
  ['the register sets a timer', 'server/register/q1.ts', 'export const a = () => setTimeout(() => 1, 1)\n', 'no-restricted-globals'],
  ['storage is async', 'server/storage/q1.ts', 'export const a = async () => 1\n', 'no-async-await'],
  ['the proxy draws a number', 'server/proxy/q1.ts', 'export const a = () => Math.random()\n', 'no-restricted-properties'],
  ['the map reads the date', 'server/cluster/q1.ts', 'export const a = () => Date.now()\n', 'no-restricted-globals'],
  ['the simulated world reads the date', 'server/sim/q1.ts', 'export const a = () => Date.now()\n', 'no-restricted-globals'],
  ['a pure room is async', 'core/record/q7.ts', 'export const a = async () => 1\n', 'no-async-await'],

  ['a published file prints', 'core/stores/r1.ts', "console.log('x')\n", 'no-console'],
  ['a published file awaits at its top', 'core/stores/r2.ts', 'export const a = await Promise.resolve(1)\n', 'no-top-level-await'],
  ['a published file has a default export', 'core/stores/r3.ts', 'export default 1\n', 'no-default-export'],
  ['a file says any', 'core/stores/r4.ts', 'export const a = (b: any) => b\n', 'no-explicit-any'],
  ['a file silences the compiler', 'core/stores/r5.ts', '// @ts-ignore\nexport const a = 1\n', 'ban-ts-comment'],
  ['a file is unfinished', 'core/stores/r6.ts', '// TO' + 'DO: finish\nexport const a = 1\n', 'no-warning-comments'],
  ['a file has over 400 lines', 'core/stores/r7.ts', lines(401), 'max-lines'],
  ['a test has over 600 lines', 'core/stores/r8.test.ts', lines(601), 'max-lines'],
  ['a test is alone', 'core/stores/r9.test.ts', "import { test } from 'vitest'\ntest.only('a', () => {})\n", 'no-focused-tests'],
]

/** What must stay allowed: the walls have doors. */
const clean: [what: string, path: string, code: string][] = [
  ['record stands on kv', 'core/record/ok1.ts', imports('../kv/kv.ts')],
  ['a store imports a deep node module', 'core/stores/ok6.ts', imports('node:fs/promises')],
  ['modify has timers', 'core/kv/modify.ts', 'export const a = async () => setTimeout(() => Math.random(), 1)\n'],
  ['ids come from ulid', 'core/kv/id.ts', imports('ulid')],
  [
    'a door imports the types of its framework',
    'patterns/counters/express.ts',
    "import type { Request } from 'express'\nexport type A = Request\n",
  ],
  ['the simulator stands on the proxy', 'server/sim/ok1.ts', imports('../proxy/coordinator.ts')],
  ['the command of the simulator reads the clock', 'server/sim/main.ts', 'export const a = () => Date.now()\n'],
  ['conformance stands on a store', 'patterns/counters/conformance.ts', imports('../../core/stores/memory.ts')],
  ['an example imports the package', 'examples/payments/ok2.ts', imports('hapax/idempotency')],
  ['an example has folders', 'examples/payments/stripe/ok3.ts', imports('../shop.ts')],
  ['a file has 400 lines', 'core/stores/ok4.ts', lines(400)],
  ['a test has 600 lines', 'core/stores/ok5.test.ts', lines(600)],
]

const cycle = ['core/stores/cycle-a.ts', 'core/stores/cycle-b.ts'] as const

interface Diagnostic {
  readonly code: string
  readonly filename: string
}

/** One run over everything that is planted: path -> names of the rules that refused it. */
function lint(): Map<string, string[]> {
  const plant = (path: string, code: string) => {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), code)
  }
  for (const [, path, code] of [...planted, ...clean]) plant(path, code)
  plant(cycle[0], "import { b } from './cycle-b.ts'\nexport const a = (): number => b()\n")
  plant(cycle[1], "import { a } from './cycle-a.ts'\nexport const b = (): number => a()\n")
  const run = spawnSync(process.execPath, [join(root, 'node_modules/oxlint/bin/oxlint'), '--format=json'], {
    cwd: folder,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  })
  const found = new Map<string, string[]>()
  for (const { code, filename } of (JSON.parse(run.stdout) as { diagnostics: Diagnostic[] }).diagnostics) {
    const rule = /\((?:[\w-]+\/)?([\w-]+)\)/.exec(code)?.[1] ?? code
    found.set(filename, [...(found.get(filename) ?? []), rule])
  }
  return found
}

describe('the walls (G2)', () => {
  const found = lint()

  test.each(planted)('refuse when %s', (_wall, path, _code, rule) => {
    expect(found.get(path)).toContain(rule)
  })
  test.each(clean)('allow that %s', (_what, path) => {
    expect(found.get(path) ?? []).toEqual([])
  })
  test('refuse a cycle', () => {
    expect(found.get(cycle[0])).toContain('no-cycle')
  })
})

describe('names (G2)', () => {
  test.each(['string-utils.ts', 'helpers.ts', 'common.mjs', 'task-manager.test.ts', 'service.ts'])(
    'refuse a file called %s',
    async (name) => {
      const { badNames } = (await import(new URL('../../tools/check.mjs', import.meta.url).href)) as { badNames(folder: string): string[] }
      const names = mkdtempSync(join(tmpdir(), 'hapax-names-'))
      try {
        mkdirSync(join(names, 'core/kv'), { recursive: true })
        writeFileSync(join(names, 'core/kv/kv.ts'), '')
        expect(badNames(names)).toEqual([])
        writeFileSync(join(names, 'core/kv', name), '')
        expect(badNames(names)).toEqual([join('core/kv', name)])
      } finally {
        rmSync(names, { recursive: true, force: true })
      }
    },
  )
})
