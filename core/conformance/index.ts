/**
 * 'hapax/conformance': whether a store keeps the contract. For any runner, or for none.
 * Invariant: every case ends as passed, failed, or skipped with the reason that the store's own capabilities give.
 * Why skips are told through the runner's own context where there is one: a skipped case must not look like a passed one.
 */
import { byteCases } from './bytes.ts'
import { concurrencyCases } from './concurrency.ts'
import { contentionCases } from './contention.ts'
import { modelCases } from './model.ts'
import { requestCases } from './requests.ts'
import { groupNames, runCase, seedOf, type Case, type GroupName, type MakeKv, type SuiteOptions } from './suite.ts'
import { timeCases } from './time.ts'
import { verbCases } from './verbs.ts'

export { groupNames, type GroupName, type MakeKv, type Setup, type SuiteOptions } from './suite.ts'

/** `test` of vitest, node:test, mocha, jest, bun or deno, or any function that runs what it is given. */
export type TestFunction = (name: string, run: (...context: unknown[]) => Promise<void>) => unknown

const allCases: readonly Case[] = [
  ...verbCases,
  ...byteCases,
  ...timeCases,
  ...requestCases,
  ...contentionCases,
  ...modelCases,
  ...concurrencyCases,
].sort((left, right) => groupNames.indexOf(left.group) - groupNames.indexOf(right.group))

const casesOf = ({ groups }: SuiteOptions): readonly Case[] => allCases.filter((one) => groups === undefined || groups.includes(one.group))

/**
 * Registers the whole suite, one test a case; names begin with the group. `makeKv` is called once a case and gives a store that is
 * open: empty, or shared with others, since all keys are new.
 * @example kvConformance(test, () => redisKv(client))
 * @example kvConformance(test, () => { const clock = testClock(); return { kv: memory({ clock }), clock } })
 */
export function kvConformance(test: TestFunction, makeKv: MakeKv, options: SuiteOptions = {}): void {
  const seed = seedOf(options)
  for (const one of casesOf(options)) {
    const reason = options.skip?.[one.group]
    const name = `${one.group}: ${one.name}${reason === undefined ? '' : ` (skipped: ${reason})`}`
    // A rest parameter, so that no runner takes the first for a callback; `this` is mocha's context.
    test(name, async function (this: unknown, ...context: unknown[]): Promise<void> {
      const outcome = await runCase(one, makeKv, options, seed)
      if (outcome.status === 'skipped') skipIn([...context, this], outcome.reason)
    })
  }
}

/** Tells the runner, when it has a way to be told. Vitest and mocha do it by throwing, node:test by a note. */
function skipIn(contexts: readonly unknown[], reason: string): void {
  for (const context of contexts) {
    if (typeof context !== 'object' || context === null || !('skip' in context) || typeof context.skip !== 'function') continue
    context.skip(reason)
    return
  }
}

export interface CaseReport {
  readonly group: GroupName
  readonly name: string
  readonly status: 'passed' | 'failed' | 'skipped'
  /** Why it failed or was skipped. */
  readonly reason?: string
}

export interface ConformanceReport {
  readonly store: string
  readonly seed: number
  readonly passed: number
  readonly failed: number
  readonly skipped: number
  readonly cases: readonly CaseReport[]
  /** A table of the groups, what failed and why, what was skipped and why. */
  readonly markdown: string
}

/**
 * Runs the suite without a runner. Failures are in the report; it throws only when `makeKv` cannot give a store to ask its name.
 * @example console.log((await kvConformanceReport(() => redisKv(client))).markdown)
 */
export async function kvConformanceReport(makeKv: MakeKv, options: SuiteOptions = {}): Promise<ConformanceReport> {
  const seed = seedOf(options)
  const made = await makeKv()
  const setup = 'kv' in made ? made : { kv: made }
  const { store } = setup.kv.capabilities
  await setup.kv.close()
  await setup.close?.()

  const cases: CaseReport[] = []
  for (const one of casesOf(options)) {
    const { group, name } = one
    try {
      cases.push({ group, name, ...(await runCase(one, makeKv, options, seed)) })
    } catch (error) {
      cases.push({ group, name, status: 'failed', reason: error instanceof Error ? error.message : String(error) })
    }
  }
  const count = (status: CaseReport['status']): number => cases.filter((one) => one.status === status).length
  const counts = { passed: count('passed'), failed: count('failed'), skipped: count('skipped') }
  return { store, seed, ...counts, cases, markdown: markdownOf(store, seed, counts, cases) }
}

function markdownOf(
  store: string,
  seed: number,
  { passed, failed, skipped }: Readonly<Record<CaseReport['status'], number>>,
  cases: readonly CaseReport[],
): string {
  const lines = [`# Conformance of the store '${store}'`, '', `${passed} passed, ${failed} failed, ${skipped} skipped. Seed ${seed}.`, '']
  lines.push('| group | passed | failed | skipped |', '| --- | ---: | ---: | ---: |')
  for (const group of groupNames) {
    const own = cases.filter((one) => one.group === group)
    if (own.length === 0) continue
    const cells = (['passed', 'failed', 'skipped'] as const).map((status) => own.filter((one) => one.status === status).length)
    lines.push(`| ${group} | ${cells.join(' | ')} |`)
  }
  for (const status of ['failed', 'skipped'] as const) {
    const own = cases.filter((one) => one.status === status)
    if (own.length > 0) lines.push('', `## ${status === 'failed' ? 'Failed' : 'Skipped'}`, '')
    for (const { group, name, reason = '' } of own)
      lines.push(`- **${group}**: ${name}`, ...reason.split('\n').map((line) => `  > ${line}`))
  }
  return `${lines.join('\n')}\n`
}
