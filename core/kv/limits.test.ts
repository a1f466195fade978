/** Limits refuse at their very edge, presets are what they say, and `need` names all that lacks at once. */
import { expect, test } from 'vitest'
import { isKvError } from './errors.ts'
import {
  checkDuration,
  checkInstant,
  checkKey,
  checkKeys,
  checkTtl,
  checkValue,
  limitPresets,
  need,
  resolveLimits,
  utf8Length,
  type Capabilities,
} from './limits.ts'

const faultOf = (action: () => unknown): string => {
  try {
    action()
  } catch (error) {
    return isKvError(error) ? error.code : String(error)
  }
  return 'none'
}
const limits = resolveLimits({ preset: 'juno', getManyMax: 2 })

test('the presets are what JunoDB takes, and a wide one', () => {
  expect(limitPresets.juno).toMatchObject({ keyBytesMax: 128, namespaceBytesMax: 64, valueBytesMax: 204_800, ttlMsMax: 3 * 86_400_000 })
  for (const name of Object.keys(limitPresets.wide) as (keyof typeof limitPresets.wide)[]) {
    expect(limitPresets.wide[name]).toBeGreaterThanOrEqual(limitPresets.juno[name])
  }
})

test('limits are a preset, a preset with changes, or refused', () => {
  expect(resolveLimits()).toEqual(limitPresets.wide)
  expect(resolveLimits('juno')).toEqual(limitPresets.juno)
  expect(resolveLimits({ preset: 'juno', keyBytesMax: 200 })).toEqual({ ...limitPresets.juno, keyBytesMax: 200 })
  const wrong: unknown[] = [
    'tiny',
    'toString',
    null,
    5,
    { keyBytes: 1 },
    { toString: 1 },
    { keyBytesMax: 0 },
    { keyBytesMax: 1.5 },
    { ttlMsMax: '3d' },
  ]
  for (const option of wrong)
    expect(
      faultOf(() => resolveLimits(option as never)),
      JSON.stringify(option),
    ).toBe('INVALID_ARGUMENT')
})

test('lengths are bytes of UTF-8, and a lone surrogate has none', () => {
  for (const text of ['', 'a', 'é', '€', '😀', 'a😀b', '\u0000', '\uffff'])
    expect(utf8Length(text)).toBe(new TextEncoder().encode(text).length)
  for (const text of ['\ud800', '\udc00', 'a\ud800b', '\ud800\ud800\udc00', '\udc00\ud800']) expect(utf8Length(text)).toBe(-1)
})

test('what is given is refused at the edge and not before', () => {
  const rows: readonly [string, () => unknown, string][] = [
    ['empty key', () => checkKey('', limits), 'INVALID_ARGUMENT'],
    ['key of another type', () => checkKey(1 as never, limits), 'INVALID_ARGUMENT'],
    ['lone surrogate', () => checkKey('\ud800', limits), 'INVALID_ARGUMENT'],
    ['128 bytes', () => checkKey('€'.repeat(42) + 'ab', limits), 'none'],
    ['129 bytes', () => checkKey('€'.repeat(43), limits), 'TOO_LARGE'],
    ['empty value', () => checkValue(new Uint8Array(), limits), 'none'],
    ['largest value', () => checkValue(new Uint8Array(204_800), limits), 'none'],
    ['too large a value', () => checkValue(new Uint8Array(204_801), limits), 'TOO_LARGE'],
    ['a string as value', () => checkValue('x' as never, limits), 'INVALID_ARGUMENT'],
    ['no list', () => checkKeys('ab' as never, limits), 'INVALID_ARGUMENT'],
    ['two keys', () => checkKeys(['a', 'b'], limits), 'none'],
    ['three keys', () => checkKeys(['a', 'b', 'c'], limits), 'TOO_LARGE'],
    ['an empty key in a list', () => checkKeys(['a', ''], limits), 'INVALID_ARGUMENT'],
    ['three days', () => checkTtl('3d', limits), 'none'],
    ['three days and a millisecond', () => checkTtl(259_200_001, limits), 'TOO_LARGE'],
    ['a ttl of nothing', () => checkTtl(0, limits), 'INVALID_ARGUMENT'],
    ['a ttl below a millisecond', () => checkTtl('0.4ms', limits), 'INVALID_ARGUMENT'],
    ['a negative duration', () => checkDuration(-1, 'it'), 'INVALID_ARGUMENT'],
    ['a duration that is none', () => checkDuration('soon' as never, 'it'), 'INVALID_ARGUMENT'],
    ['a fractional instant', () => checkInstant(1.5, 'it'), 'INVALID_ARGUMENT'],
    ['an instant beyond dates', () => checkInstant(8_640_000_000_000_001, 'it'), 'INVALID_ARGUMENT'],
  ]
  for (const [what, action, expected] of rows) expect(faultOf(action), what).toBe(expected)
})

const able: Capabilities = {
  store: 'able',
  exactExpiry: true,
  serverClock: true,
  scan: true,
  requestIds: true,
  ttlGrainMs: 1,
  durability: 'disk',
  sites: 'one',
  limits: limitPresets.wide,
}
const needs = {
  exactExpiry: true,
  serverClock: true,
  scan: true,
  requestIds: true,
  ttlGrainMs: 1,
  sites: 'one',
  valueBytes: 1_000,
  keyBytes: 100,
  ttlMs: 1_000,
} as const

test('need passes a store that has all', () => {
  expect(faultOf(() => need({ capabilities: able }, needs, 'test'))).toBe('none')
})

test('need names all that a store lacks, and who asked', () => {
  const poor: Capabilities = {
    ...able,
    store: 'poor',
    exactExpiry: false,
    serverClock: false,
    scan: false,
    requestIds: false,
    ttlGrainMs: 1_000,
    sites: 'many',
    limits: { ...limitPresets.juno, valueBytesMax: 10, keyBytesMax: 10, ttlMsMax: 10 },
  }
  let message = ''
  try {
    need({ capabilities: poor }, needs, 'the pattern')
  } catch (error) {
    expect(isKvError(error, 'CAPABILITY_MISSING')).toBe(true)
    message = (error as Error).message
  }
  for (const part of [
    'the pattern',
    "'poor'",
    'exactExpiry',
    'serverClock',
    'scan',
    'requestIds',
    'ttl grain',
    'single home',
    'valueBytes',
    'keyBytes',
    'ttlMs',
  ]) {
    expect(message).toContain(part)
  }
})
