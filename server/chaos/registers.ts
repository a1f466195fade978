/**
 * Clients that create, read, change and destroy a few keys at once, and write down what they asked and were told: the history that the checker judges.
 * Invariant: each write has a value of its own; a call whose outcome is not known is written down as such, whatever came before it.
 * Why keys are left after a while: the checker takes a key's operations together, and its work grows faster than they do.
 */
import type { Random } from '../../core/base/random.ts'
import type { Millis } from '../../core/base/types.ts'
import { isKvError, type KvErrorCode } from '../../core/kv/errors.ts'
import type { Entry, KV, Version } from '../../core/kv/kv.ts'
import type { CallAnswer, Recorder, Sent, Shown } from '../sim/history.ts'
import { pause } from './cluster.ts'

export interface RegisterOptions {
  readonly random: Random
  readonly recorder: Recorder
  readonly keys: Keys
  readonly thinkMs: number
  /** Something that no client may ever be told. */
  readonly onFault: (text: string) => void
}

const slots = 48
/** Of the busiest; a key that rests between its calls shows what a server missed meanwhile, one that never rests is written anew too soon. */
const slotOf = (random: Random): number => Math.floor(slots * random.next() ** 2)
const operationsPerKey = 120
/** Entries in these slots die by themselves. */
const isMortal = (slot: number): boolean => slot % 4 === 3

/** Which keys are in use now, and which ever were. */
export class Keys {
  readonly #uses: number[] = Array.from({ length: slots }, () => 0)
  readonly all = new Set<string>()

  draw(random: Random): { readonly key: string; readonly isMortal: boolean } {
    const slot = slotOf(random)
    const uses = (this.#uses[slot] as number)++
    const key = `register/${slot}/${Math.floor(uses / operationsPerKey)}`
    this.all.add(key)
    return { key, isMortal: isMortal(slot) }
  }
}

/** These say that nothing happened; to a `get` nothing ever happens. */
const harmless: readonly KvErrorCode[] = ['UNAVAILABLE', 'BUSY', 'CONTENTION', 'RECORD_LOCKED', 'DEADLINE_EXCEEDED', 'ANSWER_GONE']

/** One client's calls, one after another, until it is told to end. */
export async function register(client: string, kv: KV, isOver: () => boolean, options: RegisterOptions): Promise<void> {
  const { random, keys, thinkMs } = options
  /** What this client saw last of each key. */
  const seen = new Map<string, Version>()
  for (let count = 1; !isOver(); count++) {
    const { key, isMortal } = keys.draw(random)
    const sent = drawCall(client, key, `${client}.${count}`, seen.get(key), isMortal, random)
    const entry = await call(kv, sent, options)
    if (entry === 'gone') seen.delete(key)
    else if (entry !== undefined) seen.set(key, entry.version)
    await pause(thinkMs * (0.5 + random.next()))
  }
}

type Drawn = Omit<Sent, 'calledAt'>

function drawCall(client: string, key: string, value: string, known: Version | undefined, isMortal: boolean, random: Random): Drawn {
  const expiry = isMortal && random.chance(0.7) ? { type: 'set' as const, ttlMs: (300 + random.int(2_000)) as Millis } : undefined
  const asked = { client, key, ...(expiry === undefined ? {} : { expiry }) }
  const condition: Pick<Drawn, 'ifVersion'> = known !== undefined && random.chance(0.7) ? { ifVersion: known } : {}
  const draw = random.next()
  if (draw < 0.4) return { client, key, verb: 'get' }
  if (draw < 0.55) return { ...asked, verb: 'create', value }
  if (draw < 0.8) return { ...asked, verb: 'update', value, ...condition }
  if (draw < 0.9) return { ...asked, verb: 'set', value, ...condition }
  return { client, key, verb: 'destroy', ...condition }
}

/** @returns the entry as it is now, if that was told */
export async function call(
  kv: KV,
  drawn: Drawn,
  { recorder, onFault }: Pick<RegisterOptions, 'recorder' | 'onFault'>,
): Promise<Entry | 'gone' | undefined> {
  const number = recorder.sent({ ...drawn, calledAt: performance.now() })
  try {
    const { answer, entry } = await ask(kv, drawn)
    recorder.answered(number, performance.now(), answer)
    return entry
  } catch (error) {
    const at = performance.now()
    if (!isKvError(error)) throw error
    if (error.code === 'UNKNOWN_OUTCOME') return undefined // as it stands in the history already
    const isExpected = harmless.includes(error.code)
    if (!isExpected) onFault(`a ${drawn.verb} of ${drawn.key} threw ${error.code}: ${error.message}`)
    recorder.answered(number, at, isExpected ? { type: 'no-effect', why: error.code, isFinal: true } : { type: 'unknown' })
    return undefined
  }
}

async function ask(kv: KV, drawn: Drawn): Promise<{ readonly answer: CallAnswer; readonly entry: Entry | 'gone' }> {
  const { key, verb } = drawn
  const value = bytes(String(drawn.value))
  const ifVersion = drawn.ifVersion as Version | undefined
  const ttlMs = drawn.expiry?.type === 'set' ? drawn.expiry.ttlMs : undefined
  if (verb === 'get') {
    const { entry, now } = await kv.get(key)
    return { answer: { type: 'read', ...(entry === undefined ? {} : { entry: shown(entry) }), now }, entry: entry ?? 'gone' }
  }
  const result =
    verb === 'create'
      ? await kv.create(key, value, { ttl: ttlMs })
      : verb === 'destroy'
        ? await kv.destroy(key, { ifVersion })
        : await kv[verb](key, value, { ifVersion, expiry: ttlMs === undefined ? 'keep' : { set: ttlMs } })
  const { now, entry } = result
  if (!result.ok) {
    if (result.entry === undefined) return { answer: { type: 'missing', now }, entry: 'gone' }
    return { answer: { type: result.refusal, entry: shown(result.entry), now }, entry: result.entry }
  }
  return {
    answer: { type: 'applied', ...(entry === undefined ? {} : { entry: shown(entry) }), now },
    entry: verb === 'destroy' || entry === undefined ? 'gone' : entry,
  }
}

const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text))

function shown({ value, version, createdAt, expiresAt }: Entry): Shown {
  const what = { value: Buffer.from(value).toString(), version, createdAt }
  return expiresAt === undefined ? what : { ...what, expiresAt }
}
