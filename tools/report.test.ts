/**
 * The counting of `npm test`: a run that proves nothing must not look green.
 * Invariant: every way to end without a result is a failure.
 * Why fixtures by hand and one real run: the shape of vitest's report is theirs to change, and one real run would notice.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'

interface Count {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
  readonly notes: readonly string[]
}
interface Report {
  countGroup(report: unknown, end: { code: number | null; timedOut: boolean }): Count
  failedGroup(why: string): Count
  missingGroup(why: string, ci: boolean): Count
  lastLine(counts: readonly Count[]): string
}

const { countGroup, failedGroup, lastLine, missingGroup } = (await import(new URL('report.mjs', import.meta.url).href)) as Report

const ended = (code: number | null, timedOut = false) => ({ code, timedOut })
const file = (status: string, ...statuses: string[]) => ({
  name: 'a.test.ts',
  status,
  message: '',
  assertionResults: statuses.map((each, index) => ({ status: each, fullName: `test ${index}` })),
})
const numbers = ({ passed, failed, skipped }: Count) => [passed, failed, skipped]

test('a group whose program is not to be had is skipped with the reason, and fails with CI=true (G3)', () => {
  expect(missingGroup('no x', false)).toEqual({ passed: 0, failed: 0, skipped: 1, notes: ['skipped: no x'] })
  expect(missingGroup('no x', true)).toEqual({ passed: 0, failed: 1, skipped: 0, notes: ['cannot be left out with CI=true: no x'] })
})

describe('countGroup', () => {
  const rows: [string, unknown, { code: number | null; timedOut: boolean }, number[]][] = [
    ['all passed', { testResults: [file('passed', 'passed', 'passed')] }, ended(0), [2, 0, 0]],
    ['some failed', { testResults: [file('failed', 'passed', 'failed')] }, ended(1), [1, 1, 0]],
    ['skipped and todo', { testResults: [file('passed', 'passed', 'skipped', 'pending', 'todo')] }, ended(0), [1, 0, 3]],
    ['a file that does not load', { testResults: [file('failed'), file('passed', 'passed')] }, ended(1), [1, 1, 0]],
    ['a hook that fails', { testResults: [file('failed', 'skipped', 'skipped')] }, ended(1), [0, 1, 2]],
    ['an unhandled error beside green tests', { testResults: [file('passed', 'passed')] }, ended(1), [1, 1, 0]],
    ['a signal after the report', { testResults: [file('passed', 'passed')] }, ended(null), [1, 1, 0]],
    ['no report', undefined, ended(0), [0, 1, 0]],
    ['a crash without report', undefined, ended(139), [0, 1, 0]],
    ['a hang', undefined, ended(null, true), [0, 1, 0]],
    ['a hang after some results', { testResults: [file('passed', 'passed')] }, ended(0, true), [1, 1, 0]],
    ['no test', { testResults: [] }, ended(0), [0, 1, 0]],
    ['a plain command', { passed: 4, failed: 1 }, ended(1), [4, 1, 0]],
  ]
  test.each(rows)('counts %s', (_name, report, end, expected) => {
    expect(numbers(countGroup(report, end))).toEqual(expected)
  })
})

describe('lastLine', () => {
  const count = (passed: number, failed: number, skipped: number): Count => ({ passed, failed, skipped, notes: [] })
  test('sums groups and leaves out skipped when there is none', () => {
    expect(lastLine([count(2, 0, 0), count(3, 1, 0)])).toBe('5 passed, 1 failed')
    expect(lastLine([count(2, 0, 1), failedGroup('hang')])).toBe('2 passed, 1 failed, 1 skipped')
  })
})

describe('a real report of vitest', () => {
  const root = fileURLToPath(new URL('..', import.meta.url))
  mkdirSync(join(root, '.cache'), { recursive: true })
  const folder = mkdtempSync(join(root, '.cache', 'report-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  test('is counted when files pass, fail, skip, do not load and fail in a hook', () => {
    const head = "import { beforeAll, expect, test } from 'vitest'\n"
    writeFileSync(
      join(folder, 'mixed.test.ts'),
      `${head}test('a', () => {})\ntest('b', () => expect(1).toBe(2))\ntest.skip('c', () => {})\ntest.todo('d')\n`,
    )
    writeFileSync(join(folder, 'broken.test.ts'), "import './absent.ts'\n")
    writeFileSync(join(folder, 'hook.test.ts'), `${head}beforeAll(() => { throw new Error('x') })\ntest('e', () => {})\n`)
    writeFileSync(join(folder, 'vitest.config.mjs'), 'export default {}\n')
    const report = join(folder, 'report.json')
    const vitest = join(root, 'node_modules/vitest/vitest.mjs')
    const args = [vitest, 'run', '--root', folder, '--reporter=json', `--outputFile.json=${report}`]
    const run = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' })
    const count = countGroup(JSON.parse(readFileSync(report, 'utf8')), ended(run.status))
    expect(numbers(count), JSON.stringify(count.notes)).toEqual([1, 3, 3])
  })
})
