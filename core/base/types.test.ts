/** Durations: what is one, what is none, and their edges. */
import { expect, test } from 'vitest'
import { epochMsMax, parseDuration, type Duration } from './types.ts'

test('reads numbers as milliseconds and text with its unit', () => {
  const rows: readonly [Duration, number][] = [
    [0, 0],
    [1_500, 1_500],
    ['250ms', 250],
    ['30s', 30_000],
    ['1.5s', 1_500],
    ['2m', 120_000],
    ['24h', 86_400_000],
    ['3d', 259_200_000],
    ['0.0004s', 0],
    [epochMsMax, epochMsMax],
  ]
  for (const [given, ms] of rows) expect(parseDuration(given), String(given)).toBe(ms)
})

test('anything else is no duration', () => {
  const wrong: unknown[] = [
    -1,
    1.5,
    Number.NaN,
    Infinity,
    epochMsMax + 1,
    '',
    '30',
    '30 s',
    '-1s',
    '1e3s',
    '.5s',
    '1.s',
    '1w',
    's',
    ' 1s',
    '1s\n',
    '99999999999999d',
    null,
    undefined,
    {},
    true,
    10n,
  ]
  for (const given of wrong) expect(parseDuration(given as Duration), String(given)).toBeUndefined()
})
