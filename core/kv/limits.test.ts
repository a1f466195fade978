import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { memory } from '../stores/memory.ts'
import { isKvError } from './errors.ts'
import {
  checkDuration,
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

const codeOf = (action: () => unknown): string | undefined => {
  try {
    action()
  } catch (error) {
    return isKvError(error) ? error.code : `foreign: ${String(error)}`
  }
  return undefined
}

describe('limits (G12)', () => {
  test('the preset juno is what JunoDB takes', () => {
    expect(limitPresets.juno).toMatchObject({ keyBytesMax: 128, namespaceBytesMax: 64, valueBytesMax: 204_800, ttlMsMax: 3 * 86_400_000 })
  })
  test('an option is a preset, or a preset with some limits changed', () => {
    expect(resolveLimits()).toEqual(limitPresets.wide)
    expect(resolveLimits('juno')).toEqual(limitPresets.juno)
    expect(resolveLimits({ preset: 'juno', keyBytesMax: 64 })).toEqual({ ...limitPresets.juno, keyBytesMax: 64 })
  })
  test('refuses unknown presets, unknown limits and nonsense', () => {
    for (const option of ['huge', { preset: 'huge' }, { keyBytes: 5 }, { keyBytesMax: 0 }, { keyBytesMax: 1.5 }])
      expect(codeOf(() => resolveLimits(option as never))).toBe('INVALID_ARGUMENT')
  })
  test('a key of just the limit passes, in bytes of UTF-8, and one more does not', () => {
    const { juno } = limitPresets
    expect(codeOf(() => checkKey('é'.repeat(64), juno))).toBeUndefined()
    expect(codeOf(() => checkKey('é'.repeat(64) + 'a', juno))).toBe('TOO_LARGE')
    for (const key of ['', '\ud800', 'a\udc00b', 7]) expect(codeOf(() => checkKey(key as string, juno))).toBe('INVALID_ARGUMENT')
  })
  test('values, ttls and lists of keys stop at their limits', () => {
    const { juno } = limitPresets
    expect(codeOf(() => checkValue(new Uint8Array(204_800), juno))).toBeUndefined()
    expect(codeOf(() => checkValue(new Uint8Array(204_801), juno))).toBe('TOO_LARGE')
    expect(codeOf(() => checkValue('text' as never, juno))).toBe('INVALID_ARGUMENT')
    expect(checkTtl('3d', juno)).toBe(259_200_000)
    expect(codeOf(() => checkTtl(259_200_001, juno))).toBe('TOO_LARGE')
    for (const ttl of [0, -1, 1.5, Number.NaN, '3', '3 s', '-3s', null])
      expect(codeOf(() => checkTtl(ttl as never, juno))).toBe('INVALID_ARGUMENT')
    expect(
      codeOf(() =>
        checkKeys(
          Array.from({ length: 1_025 }, () => 'a'),
          juno,
        ),
      ),
    ).toBe('TOO_LARGE')
  })
  test('durations are read with their unit, fractions too', () => {
    expect(['250ms', '30s', '1.5m', '2h', '1d', 77].map((text) => checkDuration(text as never, 'it'))).toEqual([
      250, 30_000, 90_000, 7_200_000, 86_400_000, 77,
    ])
  })
  test('utf8Length counts as TextEncoder does', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(utf8Length(text)).toBe(new TextEncoder().encode(text).length)
      }),
    )
  })
})

describe('need', () => {
  const weak: Capabilities = {
    ...memory().capabilities,
    store: 'weak',
    serverClock: false,
    requestIds: false,
    ttlGrainMs: 1_000,
    sites: 'many',
    limits: limitPresets.juno,
  }
  test('passes when the store has it all', () => {
    expect(
      codeOf(() =>
        need(memory(), { serverClock: true, exactExpiry: true, requestIds: true, ttlGrainMs: 1, sites: 'one', valueBytes: 1_000 }, 'it'),
      ),
    ).toBeUndefined()
  })
  test('names the pattern, the store and everything that it lacks', () => {
    const wanted = {
      serverClock: true,
      requestIds: true,
      scan: true,
      ttlGrainMs: 10,
      sites: 'one',
      valueBytes: 1_000_000,
      ttlMs: 86_400_000 * 7,
    } as const
    let said = ''
    try {
      need({ capabilities: weak }, wanted, 'idempotency')
    } catch (error) {
      expect(isKvError(error, 'CAPABILITY_MISSING')).toBe(true)
      said = (error as Error).message
    }
    for (const word of ['idempotency', 'weak', 'serverClock', 'requestIds', 'scan', 'grain', 'home', 'valueBytes', 'ttlMs'])
      expect(said).toContain(word)
    expect(said).not.toContain('exactExpiry')
  })
})
