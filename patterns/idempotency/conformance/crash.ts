/**
 * The cases with a crash: a process is interrupted before and after each of its calls, of the store and of each step, as a dry run counts them.
 * Invariant: whatever came before, one answer a key is ever given as stored, and it never changes; the stage's laws hold.
 * Why nothing is expected of a point by its number: what had been written and finished when the process fell is asked of the stage.
 */
import { strict as assert } from 'node:assert'
import { assertProblem, assertReplayOf, isReplay, outcomeOf, running, send, type Answered } from './client.ts'
import { leaseMs, Stage, storeDeadlineMs, type Case, type Interruption, type Point, type Process } from './stage.ts'
import type { MakeApp } from './world.ts'

type AfterCrash = 'refuse' | 'resume'

/** What a whole first request does. */
interface DryRun {
  readonly points: readonly Point[]
  readonly storeCalls: number
  readonly writes: number
}

async function dryRun(makeApp: MakeApp): Promise<DryRun> {
  const stage = new Stage(makeApp)
  try {
    const process = await stage.start()
    assert.equal((await send(process)).status, 201, 'the dry run is answered')
    const { store, step } = process.calls
    assert.ok(store >= 2, 'a first request claims and completes: at least two calls of the store')
    assert.equal(step, 2, 'both steps run once')
    const points = (['store', 'step'] as const).flatMap((at) =>
      Array.from({ length: process.calls[at] }, (_, index) => index + 1).flatMap((nth) =>
        (['before', 'after'] as const).map((when): Point => ({ at, nth, when })),
      ),
    )
    return { points, storeCalls: store, writes: stage.writes }
  } finally {
    await stage.close()
  }
}

const named = ({ at, nth, when, how }: Interruption): string => `${how} ${when} ${at} call ${nth}`

/** A case for all points: they are counted first, and each has a stage of its own. */
const atEachPoint = (
  name: string,
  how: Interruption['how'],
  isWanted: (point: Point, dry: DryRun) => boolean,
  run: (stage: Stage, point: Interruption, dry: DryRun) => Promise<void>,
): Case => ({
  name,
  run: async (_stage, makeApp) => {
    const dry = await dryRun(makeApp)
    for (const point of dry.points.filter((one) => isWanted(one, dry))) {
      const interruption = { ...point, how }
      const stage = new Stage(makeApp)
      try {
        await run(stage, interruption, dry)
        stage.assertLaws('in the end')
      } catch (error) {
        if (error instanceof Error) error.message = `${named(interruption)}: ${error.message}`
        throw error
      } finally {
        await stage.close()
      }
    }
  },
})
const everywhere = (): boolean => true
const atStore = ({ at }: Point): boolean => at === 'store'

/** What stood when a process fell. */
interface Fall {
  readonly isClaimed: boolean
  readonly isCompleted: boolean
  readonly began: number
  /** The steps whose results had been written down: they never run again. */
  readonly finished: readonly string[]
}
const fallOf = (stage: Stage, writesBefore: number, dry: DryRun): Fall => ({
  isClaimed: stage.writes > writesBefore,
  isCompleted: stage.writes - writesBefore >= dry.writes,
  began: stage.beginnings.length,
  finished: [...stage.steps].filter(([, { isFinished }]) => isFinished).map(([name]) => name),
})

function assertFinished(stage: Stage, { finished }: Fall): void {
  for (const name of finished) assert.equal(stage.steps.get(name)?.asked, 1, `the finished step '${name}' does not run again`)
}

/** Sends a request to a process that dies with it, and makes sure that nobody was answered. */
async function fall(process: Process): Promise<void> {
  const controller = new AbortController()
  const sent = send(process, { signal: controller.signal })
  await Promise.race([process.interrupted, outcomeOf(sent)])
  // Time for an answer that should not have left: it would have come before the next request's, on the same turn or soon after.
  await send(process, { headers: { 'x-token': 'wrong' } })
  controller.abort()
  assert.equal(await outcomeOf(sent), undefined, 'a process that died before it could know its answer stored has not answered')
}

/** The answer that stands: a first one or its replay, and two more replays of the very same bytes. */
async function assertStands(process: Process, known: Answered | undefined, what: string): Promise<Answered> {
  const answer = await send(process)
  assert.equal(answer.status, 201, `${what}: ${answer.body.toString()}`)
  if (known !== undefined) assertReplayOf(known, answer, what)
  for (let index = 0; index < 2; index++) assertReplayOf(isReplay(answer) ? (known ?? answer) : answer, await send(process), what)
  return answer
}

async function crashAndRetry(stage: Stage, afterCrash: AfterCrash, point: Interruption, dry: DryRun): Promise<void> {
  await fall(await stage.start(afterCrash, point))
  const then = fallOf(stage, 0, dry)
  const next = await stage.start(afterCrash)
  if (then.isCompleted || !then.isClaimed) {
    await assertStands(next, undefined, 'the retry')
    assert.equal(stage.beginnings.length, then.isCompleted ? then.began : then.began + 1, 'it ran once')
    return
  }
  assertProblem(await send(next), 409, 'a retry before the lease of the first has ended')
  await stage.advance(leaseMs - 1_000)
  assertProblem(await send(next), 409, 'a retry a second before the lease of the first ends')
  assert.equal(stage.beginnings.length, then.began, 'no second run before the lease of the first has ended')
  await stage.advance(2_000)
  if (afterCrash === 'refuse') {
    for (let count = 0; count < 2; count++) {
      assert.match(assertProblem(await send(next), 409, 'a retry after the lease'), /outcome-unknown$/)
    }
    assert.equal(stage.beginnings.length, then.began, 'what may have happened does not happen again by itself')
    return
  }
  await assertStands(next, undefined, 'the retry after the lease')
  assert.equal(stage.beginnings.length, then.began + 1, 'one more attempt')
  assertFinished(stage, then)
}

/** The second process dies as well, at each point of its own; a third one finishes. */
async function crashTwice(stage: Stage, point: Interruption, dry: DryRun, second: Interruption): Promise<void> {
  await fall(await stage.start('resume', point))
  const first = fallOf(stage, 0, dry)
  if (first.isCompleted || !first.isClaimed) return
  await stage.advance(leaseMs + 1_000)
  const heir = await stage.start('resume', second)
  const controller = new AbortController()
  const sent = send(heir, { signal: controller.signal })
  await Promise.race([heir.interrupted, outcomeOf(sent)])
  controller.abort()
  const answered = await outcomeOf(sent) // an attempt that finds finished steps makes fewer calls, and may not fall at all
  await stage.advance(leaseMs + 1_000)
  const last = await stage.start('resume')
  await assertStands(last, answered, 'the third process')
  assertFinished(stage, first)
}

/** Stopped for longer than a lease, as by a debugger or a starved machine: it comes back and knows nothing of it. */
async function stallAndReturn(stage: Stage, afterCrash: AfterCrash, point: Interruption): Promise<void> {
  const late = await stage.start(afterCrash, point)
  const sent = send(late)
  await Promise.race([late.interrupted, outcomeOf(sent)])
  const next = await stage.start(afterCrash)
  await stage.advance(leaseMs + 1_000)
  const winner = await send(next)
  await late.resume(leaseMs + 1_000)
  const loser = await sent
  if (winner.status === 201) {
    if (loser.status === 201) assert.ok(loser.body.equals(winner.body), 'who was overtaken gives its client the answer that stands')
    else assertProblem(loser, 409, 'who was overtaken has no answer of its own')
    await assertStands(next, isReplay(winner) ? undefined : winner, 'afterwards')
    return
  }
  for (const answer of [winner, loser, await send(next)]) {
    assert.match(assertProblem(answer, 409, 'an outcome that was given up stays so'), /outcome-unknown$/)
  }
}

/** T6: the store's answer is lost, whether it had applied the write or not. */
async function loseAnswer(stage: Stage, point: Interruption): Promise<void> {
  const process = await stage.start('refuse', point)
  const sent = send(process)
  await Promise.race([process.interrupted, outcomeOf(sent)])
  await stage.advance(2_000) // it asks again
  const first = await sent
  assert.equal(first.status, 201, first.body.toString())
  assert.equal(stage.beginnings.length, 1, 'a lost answer is no reason to run again')
  await assertStands(process, first, 'a repetition')
}

/** T4: the store is away when the handler has ended; what happened has happened. */
async function loseStoreAtTheEnd(stage: Stage, point: Interruption): Promise<void> {
  const process = await stage.start('refuse', point)
  const sent = send(process)
  await Promise.race([process.interrupted, outcomeOf(sent)])
  await stage.advance(storeDeadlineMs + 1_000)
  const first = await sent
  assert.equal(first.status, 201, 'the client gets its answer although it could not be stored')
  await process.resume()
  await stage.advance(2_000)
  const again = await send(process)
  assert.equal(again.status, 201, 'it is stored as soon as the store is back')
  assert.ok(again.body.equals(first.body))
  assert.equal(stage.beginnings.length, 1)
}

/** The heir of a process that fell while its lease was being renewed: the later lease counts, if it was written. */
async function crashRenewing(stage: Stage, when: Point['when']): Promise<void> {
  const process = await stage.start('resume')
  const { first, release } = await running(stage, process)
  process.interrupt({ at: 'store', nth: process.calls.store + 1, when, how: 'dies' })
  for (let waited = 0; waited < leaseMs && !process.isDead; waited += 1_000) await stage.advance(1_000)
  assert.ok(process.isDead, 'the lease is renewed before it ends')
  const fellAt = stage.clock.now()
  const isRenewed = when === 'after'
  const next = await stage.start('resume')
  release()
  const beganAt = stage.beginnings[0]?.at ?? assert.fail('it began')
  const endsAt = (isRenewed ? fellAt : beganAt) + leaseMs
  await stage.advance(endsAt - stage.clock.now() - 1_000)
  assertProblem(await send(next), 409, 'a second before the lease ends')
  await stage.advance(2_000)
  await assertStands(next, undefined, 'after the lease')
  await process.app?.close()
  assert.equal(await outcomeOf(first), undefined)
}

const both = ['refuse', 'resume'] as const

export const crashCases: readonly Case[] = [
  ...both.map((afterCrash) =>
    atEachPoint(
      `crash, ${afterCrash}: before and after every call, the retry runs within the law and one answer stands (T1, T5)`,
      'dies',
      everywhere,
      (stage, point, dry) => crashAndRetry(stage, afterCrash, point, dry),
    ),
  ),
  ...both.map((afterCrash) =>
    atEachPoint(
      `stall, ${afterCrash}: before and after every call, who comes back too late changes nothing (T2, T3)`,
      'stalls',
      everywhere,
      (stage, point) => stallAndReturn(stage, afterCrash, point),
    ),
  ),
  {
    name: 'crash twice, resume: before and after every call of the first and of the second, the third finishes (T1)',
    run: async (_stage, makeApp) => {
      const dry = await dryRun(makeApp)
      for (const second of dry.points) {
        const after = atEachPoint('', 'dies', everywhere, (stage, point) => crashTwice(stage, point, dry, { ...second, how: 'dies' }))
        await after.run(_stage, makeApp)
      }
    },
  },
  atEachPoint('lost answer: of every call of the store, applied or not, the handler runs once (T6)', 'lost', atStore, loseAnswer),
  atEachPoint(
    'store away at the end: the client gets its answer, and repetitions the same (T4)',
    'away',
    ({ at, nth, when }, { storeCalls }) => at === 'store' && nth === storeCalls && when === 'before',
    loseStoreAtTheEnd,
  ),
  ...(['before', 'after'] as const).map((when): Case => ({
    name: `crash ${when} a renewal: the lease that the store has is the one that counts (T2, T23)`,
    run: async (stage) => {
      await crashRenewing(stage, when)
      stage.assertLaws('in the end')
    },
  })),
]
