/**
 * The headers of a limit, read back by a parser of structured fields that is not ours.
 */
import { parseList, type BareItem } from 'structured-headers'
import { describe, expect, test } from 'vitest'
import { seededRandom } from '../../core/base/random.ts'
import {
  headerSpecs,
  limitHeaders,
  limitProblems,
  retryAfterSeconds,
  type HeaderFacts,
  type HeaderSpec,
  type LimitLine,
} from './headers.ts'

const seed = Number(process.env['HAPAX_SEED'] ?? 4711)
const nowMs = 1_767_225_600_000

const burst: LimitLine = { name: 'burst', limit: 100, remaining: 50, resetMs: 600, windowMs: 60_000, unit: 'requests', violated: false }
const daily: LimitLine = {
  name: 'daily',
  limit: 1_000,
  remaining: 900,
  resetMs: 36_000_000,
  windowMs: 86_400_000,
  unit: 'requests',
  violated: false,
}
const slots: LimitLine = { name: 'slots', limit: 5, remaining: 2, unit: 'concurrent-requests', violated: false }

const headersOf = (spec: HeaderSpec, lines: readonly LimitLine[], more: Partial<HeaderFacts> = {}): Record<string, string> =>
  Object.fromEntries(limitHeaders(spec, { added: lines, all: lines, nowMs, ...more }).map(({ name, value }) => [name, value]))

/** As a client reads them. */
const items = (header: string | undefined): [BareItem, Record<string, BareItem>][] =>
  parseList(header ?? '').map((item) => [item[0] as BareItem, Object.fromEntries(item[1])])

describe('draft-11', () => {
  test('lists each policy with its quota, window and unit, and what is left of each (P6)', () => {
    const headers = headersOf('draft-11', [burst, daily, slots])
    expect(headers['RateLimit-Policy']).toBe('"burst";q=100;w=60, "daily";q=1000;w=86400, "slots";q=5;qu="concurrent-requests"')
    expect(items(headers['RateLimit']).map(([name, { r }]) => [name, r])).toEqual([
      ['burst', 50],
      ['daily', 900],
      ['slots', 2],
    ])
  })

  test('stretches the effective window so that nobody is invited to a burst: r in t is not faster than q in w', () => {
    // Of 100 a minute 50 are left, and one more comes in 600 ms: "50 in 1 s" would be 3000 a minute.
    expect(headersOf('draft-11', [burst])['RateLimit']).toBe('"burst";r=50;t=30')
    expect(headersOf('draft-11', [daily])['RateLimit']).toBe('"daily";r=900;t=77760')
    expect(headersOf('draft-11', [{ ...burst, remaining: 0 }])['RateLimit']).toBe('"burst";r=0;t=1')
  })

  test('says no time for slots, whose return nobody knows', () => {
    expect(headersOf('draft-11', [slots])['RateLimit']).toBe('"slots";r=2')
  })

  test('says the partition key as a byte sequence in both lists', () => {
    const partitionKey = new Uint8Array([0, 255, 62, 63])
    const headers = headersOf('draft-11', [{ ...burst, partitionKey }])
    expect(headers['RateLimit-Policy']).toBe('"burst";q=100;w=60;pk=:AP8+Pw==:')
    expect(new Uint8Array(items(headers['RateLimit'])[0]?.[1]['pk'] as ArrayBuffer)).toEqual(partitionKey)
  })

  test('leaves out a time that is later than Retry-After, which must not be the earlier of both', () => {
    const violated = { ...burst, remaining: 0, resetMs: 4_000, violated: true }
    expect(headersOf('draft-11', [violated, daily], { retryAfterMs: 4_000 })['RateLimit']).toBe('"burst";r=0;t=4, "daily";r=900')
  })
})

describe('draft-10', () => {
  test('says when there is more, not an effective window', () => {
    expect(headersOf('draft-10', [burst, daily])['RateLimit']).toBe('"burst";r=50;t=1, "daily";r=900;t=36000')
    expect(headersOf('draft-10', [burst])['RateLimit-Policy']).toBe(headersOf('draft-11', [burst])['RateLimit-Policy'])
  })
})

describe('the sets before', () => {
  test('draft-7 lists the policies and says the state of the tightest', () => {
    expect(headersOf('draft-7', [daily, burst, slots])).toEqual({
      'RateLimit-Policy': '1000;w=86400, 100;w=60, 5',
      RateLimit: 'limit=5, remaining=2, reset=0',
    })
    expect(headersOf('draft-7', [burst])['RateLimit']).toBe('limit=100, remaining=50, reset=1')
  })

  test('draft-6 says it in three headers', () => {
    expect(headersOf('draft-6', [daily, burst])).toEqual({
      'RateLimit-Policy': '1000;w=86400, 100;w=60',
      'RateLimit-Limit': '100',
      'RateLimit-Remaining': '50',
      'RateLimit-Reset': '1',
    })
  })

  test('x-ratelimit gives the reset in epoch seconds, as express-rate-limit does', () => {
    expect(headersOf('x-ratelimit', [daily])).toEqual({
      'X-RateLimit-Limit': '1000',
      'X-RateLimit-Remaining': '900',
      'X-RateLimit-Reset': String(nowMs / 1_000 + 36_000),
    })
    expect(headersOf('x-ratelimit', [slots])).toEqual({ 'X-RateLimit-Limit': '5', 'X-RateLimit-Remaining': '2' })
  })

  test('take what refused now for the tightest, else the smallest share, else the longest wait', () => {
    const limitOf = (...lines: LimitLine[]): string | undefined => headersOf('x-ratelimit', lines)['X-RateLimit-Limit']
    expect(limitOf(burst, { ...daily, violated: true })).toBe('1000')
    expect(limitOf(daily, burst)).toBe('100')
    expect(limitOf({ ...burst, remaining: 0 }, { ...daily, remaining: 0 })).toBe('1000')
  })

  test('tell of the tightest of all limiters of a response, and list only the policies that come now (R16)', () => {
    const facts = { added: [daily], all: [burst, daily], nowMs }
    expect(limitHeaders('draft-6', facts).map(({ name, value, isList }) => [name, value, isList])).toEqual([
      ['RateLimit-Policy', '1000;w=86400', true],
      ['RateLimit-Limit', '100', false],
      ['RateLimit-Remaining', '50', false],
      ['RateLimit-Reset', '1', false],
    ])
    expect(limitHeaders('draft-11', facts).map(({ value, isList }) => [value.startsWith('"daily"'), isList])).toEqual([
      [true, true],
      [true, true],
    ])
  })
})

describe('numbers', () => {
  test('are rounded so that nobody comes back too early or too often', () => {
    const odd: LimitLine = { name: 'odd', limit: 10.9, remaining: 3.9, resetMs: 1_001, windowMs: 1_500, unit: 'requests', violated: false }
    expect(headersOf('draft-10', [odd])).toEqual({ 'RateLimit-Policy': '"odd";q=10;w=2', RateLimit: '"odd";r=3;t=2' })
    expect(headersOf('draft-10', [{ ...odd, windowMs: 10 }])['RateLimit-Policy']).toBe('"odd";q=10;w=1')
    expect([0, 1, 999, 1_000, 1_001].map((ms) => retryAfterSeconds(ms))).toEqual([1, 1, 1, 1, 2])
  })

  test('are stretched together: a jittered Retry-After is not earlier than a jittered t', () => {
    const violated = { ...burst, remaining: 0, resetMs: 10_000, violated: true }
    expect(retryAfterSeconds(10_000, 1.25)).toBe(13)
    expect(headersOf('draft-11', [violated], { retryAfterMs: 10_000, stretch: 1.25 })['RateLimit']).toBe('"burst";r=0;t=13')
    expect(headersOf('draft-6', [violated], { stretch: 1.25 })['RateLimit-Reset']).toBe('13')
    expect(headersOf('x-ratelimit', [violated], { stretch: 1.25 })['X-RateLimit-Reset']).toBe(String(nowMs / 1_000 + 13))
  })

  test(`always fit a structured field, and t keeps the pace of the policy: 20,000 lines (seed ${seed})`, () => {
    const random = seededRandom(seed)
    const size = (): number => random.pick([0, 1, random.int(100), random.next() * 1e6, 1e15, Number.MAX_SAFE_INTEGER, -5])
    for (let count = 0; count < 20_000; count++) {
      const name = Array.from({ length: 1 + random.int(8) }, () => String.fromCharCode(0x20 + random.int(0x5f))).join('')
      const limit = random.pick([1 + random.int(10_000), Number.MAX_SAFE_INTEGER])
      const line = {
        name,
        limit,
        remaining: random.pick([size(), Math.floor(random.next() * limit)]),
        resetMs: random.pick([size(), undefined]),
        windowMs: random.pick([1 + random.int(1e8), undefined]),
        unit: random.pick(['requests', 'content-bytes']),
        violated: random.chance(0.5),
      }
      const headers = headersOf('draft-11', [line], random.chance(0.5) ? { retryAfterMs: size() } : {})
      const [policy, state] = [items(headers['RateLimit-Policy'])[0], items(headers['RateLimit'])[0]]
      expect(policy?.[0]).toBe(name)
      expect(state?.[0]).toBe(name)
      const { q, w } = (policy?.[1] ?? {}) as { q: number; w?: number }
      const { r, t } = (state?.[1] ?? {}) as { r: number; t?: number }
      if (w === 0 || r < 0 || (t ?? 0) < 0) expect(line).toEqual({})
      if (w !== undefined && t !== undefined && line.windowMs !== undefined && r * line.windowMs > q * t * 1_000 * (1 + 1e-12))
        expect(line).toEqual({})
    }
  })
})

describe('choices', () => {
  test('of two drafts are refused, because they use the same names; x-ratelimit may stand beside one', () => {
    expect(headerSpecs(['draft-11', 'x-ratelimit'])).toEqual(['draft-11', 'x-ratelimit'])
    expect(headerSpecs([])).toEqual([])
    for (const specs of [['draft-11', 'draft-7'], ['draft-6', 'draft-10'], 'draft-5'])
      expect(() => headerSpecs(specs as HeaderSpec[])).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }))
  })

  test('of problem types are those of the draft, with its status codes (section 5)', () => {
    expect(Object.entries(limitProblems).map(([kind, { type, status }]) => [type.endsWith(`http-problem-types#${kind}`), status])).toEqual([
      [true, 429],
      [true, 503],
      [true, 429],
    ])
  })
})
