/**
 * How many in the last five minutes: a ring of sub-windows in one record.
 * Invariant: `value` is exactly what was counted since `since`, and the count of the last `window` lies between `atLeast` and `value`.
 * Why window and parts stand in the key: processes that disagree on them, as during a release, count apart and do not spoil each other's ring.
 */
import { assert } from '../../core/base/assert.ts'
import { invalid } from '../../core/kv/errors.ts'
import type { CallOptions, KV } from '../../core/kv/kv.ts'
import { checkDuration, need } from '../../core/kv/limits.ts'
import { modify } from '../../core/kv/modify.ts'
import { scoped } from '../../core/kv/scoped.ts'
import { checkRequestId, memoryOf } from './counter.ts'
import { tell } from './events.ts'
import { numbers } from './numbers.ts'
import { windowCodec } from './record.ts'
import { addToWindow, windowAt, type WindowRecord, type WindowRules } from './rules.ts'
import type { AddOptions, Windowed, WindowCount, WindowedOptions } from './types.ts'

const partsDefault = 10
const partsMax = 1_000
/** A sub-window's count with its comma and quotes. */
const bytesAPart = 19
const recordBytes = 512

/**
 * Makes a count of the last `window`. An add counts at the instant at which the store showed the state that its write rests on: at most one
 * store call before the add was called.
 * @throws KvError INVALID_ARGUMENT for an option; CAPABILITY_MISSING as `counter` does.
 * @example const visits = windowed({ kv, name: 'visits', window: '5m', parts: 10 })
 */
export function windowed(options: WindowedOptions): Windowed {
  return new RingOfWindows(options)
}

class RingOfWindows implements Windowed {
  readonly name: string
  readonly #kv: KV<WindowRecord>
  readonly #rules: WindowRules
  readonly #modify: typeof modify

  constructor({ kv, name, parts = partsDefault, modify: change = modify, ...options }: WindowedOptions) {
    const windowMs = checkDuration(options.window, 'window', 1)
    if (!Number.isSafeInteger(parts) || parts < 1 || parts > partsMax) invalid(`parts must be a whole number from 1 to ${partsMax}`)
    const widthMs = windowMs / parts
    if (!Number.isInteger(widthMs)) invalid(`window must be a whole number of milliseconds times ${parts} parts`)
    const memory = memoryOf(options)
    need(
      kv,
      {
        serverClock: true,
        sites: 'one',
        valueBytes: memory.bytesMax + (parts + 1) * bytesAPart + recordBytes,
        ttlMs: windowMs + widthMs + memory.rememberMs,
      },
      `windowed '${name}'`,
    )
    this.name = name
    this.#kv = scoped(scoped(kv, 'window'), `${name}.${windowMs}.${parts}`, { codec: windowCodec })
    this.#rules = { ...memory, widthMs, parts, most: numbers.most }
    this.#modify = change
  }

  async add(key: string, delta: number, { requestId: id, signal, deadline }: AddOptions = {}): ReturnType<Windowed['add']> {
    const amount = numbers.in(delta, 'delta')
    if (amount < 1n) invalid('a windowed count counts events: delta must be a whole number from 1')
    checkRequestId(id)
    const { widthMs, parts, rememberMs } = this.#rules
    const extend = widthMs * (parts + 1) + (id === undefined ? 0 : rememberMs)
    const last: { outcome?: ReturnType<typeof addToWindow>['outcome'] } = {}
    await this.#modify(
      this.#kv,
      key,
      (record, { now }) => {
        const decision = addToWindow(record, now, { delta: amount, id }, this.#rules)
        last.outcome = decision.outcome
        return decision.record
      },
      { signal, deadline, expiry: { extend } },
    )
    assert(last.outcome, 'modify answers only after it ran the function')
    const { value, repeated } = last.outcome
    tell('windowed', this.name, key, repeated ? 'repeated' : 'added')
    return { ok: true, value: numbers.out(value), repeated }
  }

  async get(key: string, options: CallOptions = {}): Promise<WindowCount> {
    const { entry, now } = await this.#kv.get(key, options)
    const { value, atLeast, since } = windowAt(entry?.value, now, this.#rules)
    return { value: numbers.out(value), atLeast: numbers.out(atLeast), since, now }
  }
}
