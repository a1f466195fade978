/**
 * What every group of the kit is written with: a case, its store, and assertions that name what was expected.
 * Invariant: each case opens a store of its own and lets go of it, also when it fails; its keys are new, so a shared server will do.
 * Why node:assert and no runner: the kit must run under any of them, and without one.
 */
import { strict as assert } from 'node:assert'
import { randomInt } from 'node:crypto'
import { seededRandom, type Random } from '../base/random.ts'
import type { EpochMs } from '../base/types.ts'
import { isKvError, type KvErrorCode } from '../kv/errors.ts'
import { newId } from '../kv/id.ts'
import type { Entry, KV, Version } from '../kv/kv.ts'
import type { Capabilities } from '../kv/limits.ts'
import { realSleep, type TestClock } from '../testing/clock.ts'

/** In the order in which they run: what is basic first. */
export const groupNames = [
  'verbs',
  'refusals',
  'bytes',
  'sizes',
  'versions',
  'expiry',
  'requests',
  'aborts',
  'unknown',
  'contention',
  'model',
  'concurrency',
  'close',
] as const
export type GroupName = (typeof groupNames)[number]

/** What a maker of stores may give beside the store. */
export interface Setup {
  /** A store that is open. The kit closes it. */
  readonly kv: KV
  /** The clock that the store obeys. Without it the kit waits for short ttls on the machine's clock. */
  readonly clock?: TestClock
  /** How another process reaches this very store; without it the test with four processes is skipped. */
  readonly processes?: {
    /** A module that plain `node` can import: a file URL. It exports `openKv(...args)`, which gives a KV or a promise of one. */
    readonly module: string
    readonly args?: readonly string[]
  }
  /** Lets go of what the maker opened beside the store. Called after `kv.close()`. */
  readonly close?: () => void | Promise<void>
}
export type MakeKv = () => KV | Setup | Promise<KV | Setup>

export interface SuiteOptions {
  /** Decides all random histories. Default: HAPAX_SEED, else drawn. It stands in the message of each failure. */
  readonly seed?: number
  /** Default: all. */
  readonly groups?: readonly GroupName[]
  /** Groups that this store cannot pass, with the reason, which is shown. */
  readonly skip?: Partial<Readonly<Record<GroupName, string>>>
  /** Updates through `modify` in the contention group. Default: 10,000. */
  readonly updates?: number
  /** Random histories in the model group. Default: 100. */
  readonly histories?: number
}

export interface Context extends Setup {
  readonly capabilities: Capabilities
  readonly seed: number
  readonly random: Random
  readonly options: SuiteOptions
  /** A key that nobody else uses; the same name gives the same key within a case. At most 32 bytes and the name. */
  key(name?: string): string
}

export interface Case {
  readonly group: GroupName
  readonly name: string
  /** Why the case cannot run on this store; undefined when it can. */
  readonly skip?: (context: Context) => string | undefined
  readonly run: (context: Context) => Promise<void>
}

export type Outcome = { readonly status: 'passed' } | { readonly status: 'skipped'; readonly reason: string }

/** Runs one case on a store of its own. @throws what the case threw, with the seed in its message. */
export async function runCase(one: Case, makeKv: MakeKv, options: SuiteOptions, seed: number): Promise<Outcome> {
  const refused = options.skip?.[one.group]
  if (refused !== undefined) return { status: 'skipped', reason: refused }
  const made = await makeKv()
  const setup: Setup = 'kv' in made ? made : { kv: made }
  try {
    const prefix = `c${newId().slice(-16)}`
    const context: Context = {
      ...setup,
      capabilities: setup.kv.capabilities,
      seed,
      random: seededRandom(seed),
      options,
      key: (name = '') => `${prefix}${name}`,
    }
    const reason = one.skip?.(context)
    if (reason !== undefined) return { status: 'skipped', reason }
    await one.run(context)
    return { status: 'passed' }
  } catch (error) {
    if (error instanceof Error) error.message += ` (${one.group}, seed ${seed})`
    throw error
  } finally {
    await setup.kv.close()
    await setup.close?.()
  }
}

/** The seed of a run: as given, else the environment's, else a new one. */
export function seedOf(options: SuiteOptions): number {
  const given = options.seed ?? Number(process.env.HAPAX_SEED ?? Number.NaN)
  return Number.isSafeInteger(given) ? given : randomInt(2 ** 31)
}

/** Why cases about request ids are skipped on a store. */
export const withoutRequestIds = ({ capabilities }: Context): string | undefined =>
  capabilities.requestIds ? undefined : `capabilities.requestIds of '${capabilities.store}' is false`
/** Where the store's own `now` says nothing about life and death, a case about the instant of death proves nothing. */
export const withoutExactTime = ({ capabilities }: Context): string | undefined => {
  const missing = (['exactExpiry', 'serverClock'] as const).filter((name) => !capabilities[name])
  return missing.length === 0 ? undefined : `capabilities.${missing.join(' and ')} of '${capabilities.store}' is false`
}
export const withoutClock = ({ clock }: Context): string | undefined =>
  clock ? undefined : 'the store was made without a clock that the kit can move'

export const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values)
export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Asserts a rejection (never a synchronous throw) with one of the codes. */
export async function assertRefuses(
  call: () => Promise<unknown>,
  codes: KvErrorCode | readonly KvErrorCode[],
  what: string,
): Promise<void> {
  const promise = call()
  assert.ok(promise instanceof Promise, `${what}: a verb answers with a promise`)
  const expected = typeof codes === 'string' ? [codes] : codes
  const error = await promise.then(
    () => assert.fail(`${what}: expected ${expected.join(' or ')}, but it was done`),
    (caught: unknown) => caught,
  )
  if (!isKvError(error)) assert.fail(`${what}: expected ${expected.join(' or ')}, but it threw ${String(error)}`)
  assert.ok(expected.includes(error.code), `${what}: expected ${expected.join(' or ')}, but it threw ${error.code}: ${error.message}`)
}

/** Asserts that two entries are the same state of a key, byte by byte. */
export function assertEntry(actual: Entry | undefined, expected: Entry | undefined, what: string): asserts actual {
  assert.deepEqual(shown(actual), shown(expected), what)
}

export function assertValue(actual: Entry | undefined, expected: Uint8Array, what: string): asserts actual is Entry {
  assert.ok(actual, `${what}: there is no entry`)
  assert.ok(actual.value instanceof Uint8Array, `${what}: a value is a Uint8Array`)
  assert.equal(Buffer.compare(actual.value, expected), 0, `${what}: the value has other bytes`)
}

/** Asserts `ok: true` with an entry. */
export function applied<R extends { readonly ok: boolean; readonly entry?: Entry | undefined; readonly refusal?: string }>(
  result: R,
  what: string,
): Entry {
  assert.equal(result.ok, true, `${what}: refused with '${result.refusal}'`)
  assert.ok(result.entry, `${what}: the answer carries no entry`)
  return result.entry
}

/** Asserts a refusal. */
export function refused(
  result: { readonly ok: boolean; readonly refusal?: string },
  refusal: 'exists' | 'missing' | 'version',
  what: string,
): void {
  assert.equal(result.ok, false, `${what}: expected the refusal '${refusal}', but it was applied`)
  assert.equal(result.refusal, refusal, what)
}

function shown(entry: Entry | undefined): unknown {
  if (entry === undefined) return undefined
  const { value, version, createdAt, expiresAt } = entry
  return { value: Buffer.from(value).toString('base64'), version, createdAt, expiresAt }
}

/** Creates an entry and gives it. */
export async function made(kv: KV, key: string, value: Uint8Array, ttl?: number): Promise<Entry> {
  return applied(await kv.create(key, value, ttl === undefined ? {} : { ttl }), `create of ${JSON.stringify(key)}`)
}

/** Lets the store's clock reach an instant: exactly, when the kit can move it. */
export async function reach({ kv, clock, key }: Context, instant: EpochMs): Promise<void> {
  for (;;) {
    const { now } = await kv.get(key('nothing'))
    if (now >= instant) return
    if (clock) await clock.advance(instant - now)
    else await realSleep(Math.min(instant - now, 50))
  }
}

/** A version that is well formed for the store and belongs to no state of the key. */
export async function foreignVersion(context: Context): Promise<Version> {
  const { kv, key } = context
  return (await made(kv, key(`foreign${context.random.int(2 ** 30)}`), bytes(0))).version
}
