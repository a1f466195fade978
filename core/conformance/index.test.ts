/** The kit runs under any runner and without one, tells skips with their reasons, names its seed, and lets go of every store. */
import { expect, test } from 'vitest'
import type { KV } from '../kv/kv.ts'
import { memory } from '../stores/memory.ts'
import { groupNames, kvConformance, kvConformanceReport, type TestFunction } from './index.ts'

type Run = Parameters<TestFunction>[1]
function registered(...args: Parameters<typeof kvConformance> extends [unknown, ...infer Rest] ? Rest : never) {
  const tests: { name: string; run: Run }[] = []
  kvConformance((name, run) => tests.push({ name, run }), ...args)
  return tests
}
const withoutRequestIds = (): KV => {
  const kv = memory()
  return { ...kv, capabilities: { ...kv.capabilities, requestIds: false } }
}

test('every group has cases, their names begin with the group and none stands twice', () => {
  const names = registered(() => memory()).map(({ name }) => name)
  expect(new Set(names.map((name) => name.split(':')[0]))).toEqual(new Set(groupNames))
  expect(new Set(names).size).toBe(names.length)
  expect(registered(() => memory(), { groups: ['close'] }).every(({ name }) => name.startsWith('close: '))).toBe(true)
})

test('a function takes no parameter that a runner could take for a callback', () => {
  expect(registered(() => memory()).every(({ run }) => run.length === 0)).toBe(true)
})

test('a skip is told to the runner with its reason: as its context, as `this`, or not at all', async () => {
  const one = registered(withoutRequestIds, { groups: ['requests'] })[0]
  const reasons: string[] = []
  const context = { skip: (reason: string) => reasons.push(reason) }
  await one?.run(context)
  await one?.run.call(context as never)
  await one?.run()
  expect(reasons).toEqual(Array.from({ length: 2 }, () => "capabilities.requestIds of 'memory' is false"))
})

test('a group that the options skip says so in its names and opens no store', async () => {
  let opened = 0
  const tests = registered(
    () => {
      opened += 1
      return memory()
    },
    { groups: ['unknown'], skip: { unknown: 'the network is never lost here' } },
  )
  for (const { name, run } of tests) {
    expect(name).toContain('(skipped: the network is never lost here)')
    await run()
  }
  expect(opened).toBe(0)
})

test('the report counts, names store and seed, and gives the reason of each skip and failure', async () => {
  const report = await kvConformanceReport(withoutRequestIds, { seed: 42, groups: ['verbs', 'requests'] })
  expect(report).toMatchObject({ store: 'memory', seed: 42, failed: 0 })
  expect(report.passed + report.skipped).toBe(report.cases.length)
  expect(report.markdown).toContain('| verbs | ')
  expect(report.markdown).toContain("> capabilities.requestIds of 'memory' is false")
  const bad = await kvConformanceReport(
    () => {
      const kv = memory()
      return { ...kv, destroy: async () => await Promise.reject(new Error('no destroying here')) }
    },
    { seed: 42, groups: ['verbs'] },
  )
  expect(bad.failed).toBeGreaterThan(0)
  expect(bad.markdown).toContain('> no destroying here (verbs, seed 42)')
})

test('every store is closed and let go of, also after a failure', async () => {
  const open = { stores: 0, extras: 0 }
  await kvConformanceReport(
    () => {
      const kv = memory()
      open.stores += 1
      open.extras += 1
      let isOpen = true
      return {
        kv: {
          ...kv,
          get: async () => await Promise.reject(new Error('broken')),
          close: async () => {
            if (isOpen) open.stores -= 1
            isOpen = false
          },
        },
        close: () => {
          open.extras -= 1
        },
      }
    },
    { groups: ['verbs', 'bytes', 'close'] },
  )
  expect(open).toEqual({ stores: 0, extras: 0 })
})
