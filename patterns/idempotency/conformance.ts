/**
 * 'hapax/idempotency/conformance': whether a door keeps what an Idempotency-Key promises, over real HTTP, with crashes. For any runner, any framework.
 * Invariant: each case has a store, clocks and a bank of its own; the app under test is the only thing that is not ours.
 * Why the handler is ours too (`world.handle`): what is answered, and when, is then the same in every framework, and only the door differs.
 */
import { crashCases } from './conformance/crash.ts'
import { Stage, type Case } from './conformance/stage.ts'
import { tableCases } from './conformance/table.ts'
import type { MakeApp } from './conformance/world.ts'

export type { AppUnderTest, HandlerAnswer, MakeApp, Steps, World } from './conformance/world.ts'

/** `test` of vitest, node:test, mocha, jest, bun or deno, or any function that runs what it is given. */
export type TestFunction = (name: string, run: () => Promise<void>) => unknown

/**
 * Registers the suite: one test a case. `makeApp` is called for each process that a case starts, which are hundreds: it must be quick.
 * @example idempotencyConformance(test, (world) => expressApp(world))
 */
export function idempotencyConformance(test: TestFunction, makeApp: MakeApp): void {
  for (const { name, run } of [...tableCases, ...crashCases]) test(name, () => onStage(makeApp, run))
}

async function onStage(makeApp: MakeApp, run: Case['run']): Promise<void> {
  const stage = new Stage(makeApp)
  try {
    await run(stage, makeApp)
  } finally {
    await stage.close()
  }
}
