/**
 * Random histories of all verbs, one call at a time, against a model so dumb that it can be read at a glance.
 * Invariant: the model judges by the `now` of each answer, so that it needs no clock of its own.
 * Why an own generator and not fast-check: the kit is published and must run with nothing installed; steps are plain data
 * that stay valid when others are left out, so shrinking is leaving out.
 */
import { strict as assert } from 'node:assert'
import { seededRandom, type Random } from '../base/random.ts'
import type { EpochMs } from '../base/types.ts'
import { newId } from '../kv/id.ts'
import type { Entry, Expiry, Version } from '../kv/kv.ts'
import { realSleep } from '../testing/clock.ts'
import { withoutExactTime, type Case, type Context } from './suite.ts'

const defaultHistories = 100
const stepsMax = 40
const keysOfAHistory = 3
/** Runs that shrinking may take. */
const shrinkRunsMax = 300

type IfVersion = 'none' | 'present' | 'earlier'
interface Step {
  readonly verb: 'create' | 'get' | 'getMany' | 'update' | 'set' | 'destroy' | 'wait'
  readonly key: number
  readonly value: Uint8Array
  readonly ifVersion: IfVersion
  readonly ttl: number | undefined
  readonly expiry: Expiry | undefined
  /** Sent twice under one request id, where the store takes them. */
  readonly twice: boolean
  readonly waitMs: number
}

const verbs = ['create', 'create', 'get', 'getMany', 'update', 'update', 'update', 'set', 'set', 'destroy', 'wait', 'wait'] as const

function stepOf(random: Random): Step {
  const ttls = [1, 10, 25, 1_000]
  const expiries: readonly (Expiry | undefined)[] = [undefined, 'keep', 'never', { set: random.pick(ttls) }, { extend: random.pick(ttls) }]
  return {
    verb: random.pick(verbs),
    key: random.int(keysOfAHistory),
    value: Uint8Array.from({ length: random.int(6) }, () => random.int(256)),
    ifVersion: random.pick(['none', 'none', 'present', 'present', 'earlier']),
    ttl: random.pick([undefined, ...ttls]),
    expiry: random.pick(expiries),
    twice: random.chance(0.2),
    waitMs: random.pick([0, 1, 5, 10, 24]),
  }
}

/** What the model knows of a key. */
interface Known {
  life: { value: Uint8Array; version: Version; createdAt: number; expiresAt: number | undefined } | undefined
  readonly versions: Set<Version>
}
type Answer = { readonly ok?: boolean; readonly refusal?: string; readonly entry?: Entry | undefined; readonly now: EpochMs }

/** Plays a history. @returns what went wrong, or undefined. */
async function play({ kv, clock, key, capabilities }: Context, steps: readonly Step[]): Promise<string | undefined> {
  const history = newId().slice(-8)
  const known: Known[] = Array.from({ length: keysOfAHistory }, () => ({ life: undefined, versions: new Set() }))
  const nameOf = (index: number): string => key(`-${history}-${index}`)

  for (const [at, step] of steps.entries()) {
    const what = `step ${at + 1} ${shown(step)}`
    try {
      await playStep(step, what)
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }
  return undefined

  async function playStep(step: Step, what: string): Promise<void> {
    const of = known[step.key] as Known
    const name = nameOf(step.key)
    if (step.verb === 'wait') return await (clock ? clock.advance(step.waitMs) : realSleep(step.waitMs))
    if (step.verb === 'getMany') {
      const { entries, now } = await kv.getMany(known.map((_, index) => nameOf(index)))
      for (const [index, each] of known.entries()) sameAsModel(entries.get(nameOf(index)), each, now, what)
      return
    }
    if (step.verb === 'get') {
      const { entry, now } = await kv.get(name)
      return sameAsModel(entry, of, now, what)
    }
    const ifVersion = step.verb === 'create' || step.ifVersion === 'none' ? undefined : versionOf(of, step.ifVersion)
    const requestId = step.twice && capabilities.requestIds ? newId() : undefined
    const send = (): Promise<Answer> => {
      if (step.verb === 'create') return kv.create(name, step.value, { ttl: step.ttl, requestId })
      if (step.verb === 'destroy') return kv.destroy(name, { ifVersion, requestId })
      return kv[step.verb as 'update' | 'set'](name, step.value, { ifVersion, expiry: step.expiry, requestId })
    }
    const answer = await send()
    judge(step, of, answer, ifVersion, what)
    if (requestId !== undefined && answer.ok) {
      const again = await send()
      assert.ok(again.ok, `${what}: sent again it was refused`)
      if (step.verb !== 'destroy') assert.equal(again.entry?.version, answer.entry?.version, `${what}: sent again it was applied again`)
    }
  }

  function judge(step: Step, of: Known, answer: Answer, ifVersion: Version | undefined, what: string): void {
    const { now } = answer
    const live = liveAt(of, now)
    const refusal = expectedRefusal(step.verb, live, ifVersion)
    assert.equal(answer.ok, refusal === undefined, `${what}: expected ${refusal ?? 'applied'}, got ${answer.refusal ?? 'applied'}`)
    if (refusal !== undefined) {
      assert.equal(answer.refusal, refusal, what)
      return sameAsModel(answer.entry, of, now, `${what}: the refusal's entry`)
    }
    if (step.verb === 'destroy') {
      // An answer from memory has forgotten it, and a store may have repeated the request by itself.
      if (answer.entry !== undefined) sameAsModel(answer.entry, of, now, `${what}: what was destroyed`)
      of.life = undefined
      return
    }
    const { entry } = answer
    assert.ok(entry, `${what}: no entry in the answer`)
    assert.ok(!of.versions.has(entry.version), `${what}: version ${entry.version} repeats`)
    of.versions.add(entry.version)
    assert.equal(hex(entry.value), hex(step.value), `${what}: value`)
    if (live) assert.equal(entry.createdAt, live.createdAt, `${what}: createdAt`)
    const change: Expiry = step.verb === 'create' ? (step.ttl === undefined ? 'never' : { set: step.ttl }) : (step.expiry ?? 'keep')
    sameExpiry(entry.expiresAt, change, live, now, capabilities.ttlGrainMs, what)
    of.life = { value: step.value, version: entry.version, createdAt: entry.createdAt, expiresAt: entry.expiresAt }
  }
}

const liveAt = ({ life }: Known, now: number) => (life && (life.expiresAt === undefined || now < life.expiresAt) ? life : undefined)

function expectedRefusal(verb: Step['verb'], live: Known['life'], ifVersion: Version | undefined): string | undefined {
  if (verb === 'create') return live ? 'exists' : undefined
  if (verb === 'update' && !live) return 'missing'
  if (ifVersion === undefined) return undefined
  return live ? (live.version === ifVersion ? undefined : 'version') : 'missing'
}

/** On an absent key `extend` is `set`; on an entry that never dies it changes nothing. */
function sameExpiry(actual: number | undefined, change: Expiry, live: Known['life'], now: number, grainMs: number, what: string): void {
  const before = live?.expiresAt
  let expected: number | undefined
  if (change === 'keep') expected = before
  else if (typeof change === 'object' && 'set' in change) expected = now + Number(change.set)
  else if (typeof change === 'object' && 'extend' in change && (before !== undefined || !live)) {
    expected = Math.max(before ?? 0, now + Number(change.extend))
  }
  const isWithin = actual !== undefined && expected !== undefined && actual >= expected && actual < expected + grainMs
  assert.ok(actual === expected || isWithin, `${what}: expiresAt is ${actual}, expected ${expected} (now ${now})`)
}

function sameAsModel(entry: Entry | undefined, of: Known, now: number, what: string): void {
  const live = liveAt(of, now)
  assert.equal(entry !== undefined, live !== undefined, `${what}: the entry is ${entry ? 'there' : 'absent'}`)
  if (!entry || !live) return
  const line = (one: Entry | NonNullable<Known['life']>): string => `${hex(one.value)} ${one.version} ${one.createdAt} ${one.expiresAt}`
  assert.equal(line(entry), line(live), what)
}

/** The present version, or one of an earlier state; where there is none, one that never was. */
function versionOf(of: Known, which: IfVersion): Version {
  const versions = [...of.versions]
  return (which === 'present' ? versions.at(-1) : versions.at(-2)) ?? ('1.0.never' as Version)
}

const hex = (value: Uint8Array): string => Buffer.from(value).toString('hex')
function shown({ verb, key, value, ifVersion, ttl, expiry, twice, waitMs }: Step): string {
  if (verb === 'wait') return `wait ${waitMs} ms`
  if (verb === 'get' || verb === 'getMany') return `${verb} ${key}`
  const parts = [verb, key, verb === 'destroy' ? '' : hex(value)]
  if (verb === 'create') parts.push(ttl === undefined ? '' : `ttl ${ttl}`)
  else parts.push(ifVersion === 'none' ? '' : `ifVersion ${ifVersion}`, verb === 'destroy' ? '' : JSON.stringify(expiry ?? 'keep'))
  return [...parts, twice ? 'twice' : ''].filter((part) => part !== '').join(' ')
}

/** Leaves out steps as long as the history still fails. */
async function shrunk(context: Context, steps: readonly Step[], failure: string): Promise<{ steps: readonly Step[]; failure: string }> {
  let best = { steps, failure }
  let runs = 0
  for (let size = Math.ceil(steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < best.steps.length && runs < shrinkRunsMax; runs++) {
      const fewer = best.steps.filter((_, index) => index < from || index >= from + size)
      const again = await play(context, fewer)
      if (again === undefined) from += size
      else best = { steps: fewer, failure: again }
    }
  }
  return best
}

export const modelCases: readonly Case[] = [
  {
    group: 'model',
    name: 'random histories of all verbs answer as the dumb model does',
    skip: withoutExactTime,
    run: async (context) => {
      const { random, options } = context
      for (let history = 0; history < (options.histories ?? defaultHistories); history++) {
        const seed = random.int(2 ** 32)
        const own = seededRandom(seed)
        const steps = Array.from({ length: 1 + own.int(stepsMax) }, () => stepOf(own))
        const failure = await play(context, steps)
        if (failure === undefined) continue
        const least = await shrunk(context, steps, failure)
        assert.fail(
          `${least.failure}\nshortest history found:\n${least.steps.map((step) => `  ${shown(step)}`).join('\n')}\n(history ${history})`,
        )
      }
    },
  },
]
