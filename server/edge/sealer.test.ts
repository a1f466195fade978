/** Sealing: what opens, what does not, and that nothing secret comes out in words. */
import { inspect } from 'node:util'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isKvError } from '../../core/kv/errors.ts'
import { newKeyLine, parseKeyRing, ringKey, sealBytes, Sealer, sealedType, type RingKey } from './sealer.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)
const key = (version: number, fill = version): RingKey => ringKey(version, new Uint8Array(32).fill(fill))
const messageOf = (act: () => unknown): string => {
  try {
    act()
  } catch (error) {
    if (isKvError(error)) return `${error.code}: ${error.message}`
    throw error
  }
  return 'nothing thrown'
}

test('what was sealed for a key opens for it again, whatever it is', () => {
  const sealer = new Sealer([key(1)])
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary' }).map((text) => Buffer.from(text).toString('latin1')),
      fc.uint8Array({ maxLength: 2_000 }),
      (name, payload) => {
        const sealed = sealer.seal(name, payload)
        expect(sealed.length).toBe(payload.length + sealBytes)
        expect(sealed[0]).toBe(sealedType)
        expect([...sealer.open(name, sealed)]).toEqual([...payload])
      },
    ),
    { seed },
  )
})

test('the value of one key put in the place of another does not open', () => {
  const sealer = new Sealer([key(1)])
  const sealed = sealer.seal('\x03payrich', Buffer.from('1,000,000'))
  expect(messageOf(() => sealer.open('\x03paypoor', sealed))).toMatch(/^DAMAGED: .*not what was sealed for this key/)
  expect(messageOf(() => sealer.open('\x04payrich', sealed))).toMatch(/^DAMAGED/)
})

test('a changed byte, wherever it is, and a shortened value do not open', () => {
  const sealer = new Sealer([key(1), key(2)])
  const sealed = sealer.seal('a', Buffer.from('value'))
  for (let at = 0; at < sealed.length; at++) {
    const changed = Buffer.from(sealed)
    changed[at] = (changed[at] as number) ^ 1
    expect(
      messageOf(() => sealer.open('a', changed)),
      `byte ${at}`,
    ).toMatch(/^DAMAGED/)
  }
  for (let length = 0; length < sealed.length; length++)
    expect(
      messageOf(() => sealer.open('a', sealed.subarray(0, length))),
      `${length} bytes`,
    ).toMatch(/^DAMAGED/)
})

test('no nonce is drawn twice, over several pools', () => {
  const sealer = new Sealer([key(1)])
  const nonces = new Set(Array.from({ length: 3_000 }, () => sealer.seal('a', Buffer.alloc(0)).subarray(5, 17).toString('hex')))
  expect(nonces.size).toBe(3_000)
  expect(nonces.has('00'.repeat(12))).toBe(false)
})

describe('rotation', () => {
  test('the highest version seals, all open, and a version that is gone is named', () => {
    const sealer = new Sealer([key(1)])
    const old = sealer.seal('a', Buffer.from('old'))
    sealer.replace([key(1), key(2)])
    expect(sealer.version).toBe(2)
    const fresh = sealer.seal('a', Buffer.from('new'))
    expect(fresh.readUInt32BE(1)).toBe(2)
    expect([sealer.open('a', old).toString(), sealer.open('a', fresh).toString()]).toEqual(['old', 'new'])
    sealer.replace([key(2)])
    expect(messageOf(() => sealer.open('a', old))).toMatch(/^DAMAGED: .*version 1, which is not in the ring/)
  })

  test('a key that only opens seals nothing, until the word is gone: no proxy has to open what it has no key for', () => {
    const lines = [newKeyLine(1), newKeyLine(2, true)]
    const first = new Sealer(parseKeyRing(lines.join('\n')))
    const second = new Sealer(parseKeyRing(lines.join('\n')))
    expect(first.version).toBe(1)
    first.replace(parseKeyRing(lines.join('\n').replace(' opens', '')))
    expect(first.version).toBe(2)
    expect(second.open('a', first.seal('a', Buffer.from('x'))).toString()).toBe('x')
    expect(first.open('a', second.seal('a', Buffer.from('y'))).toString()).toBe('y')
  })

  test('counts what one key has sealed', () => {
    const sealer = new Sealer([key(1)])
    sealer.seal('a', Buffer.alloc(1))
    sealer.seal('a', Buffer.alloc(1))
    sealer.replace([key(1)])
    expect(sealer.sealed).toBe(2)
    sealer.replace([key(1), key(2)])
    expect(sealer.sealed).toBe(0)
  })

  test('another key under the same version is told apart, and does not open', () => {
    expect(key(1, 1).check).not.toBe(key(1, 2).check)
    const sealed = new Sealer([key(1, 1)]).seal('a', Buffer.from('x'))
    expect(messageOf(() => new Sealer([key(1, 2)]).open('a', sealed))).toMatch(/^DAMAGED/)
  })
})

describe('the key file', () => {
  test('has a line a key, in any order, with comments', () => {
    const ring = parseKeyRing(`# ring of pay\n2 ${'ab'.repeat(32)}   # since Monday\n\n1 ${'CD'.repeat(32)}\n`)
    expect(ring.map(({ version }) => version)).toEqual([1, 2])
    expect(ring[1]?.check).toBe(ringKey(2, Buffer.alloc(32, 0xab)).check)
  })

  test('takes the lines that are made for it, and each is another', () => {
    const lines = [newKeyLine(1), newKeyLine(2)]
    const ring = parseKeyRing(lines.join('\n'))
    expect(new Set(ring.map(({ check }) => check)).size).toBe(2)
  })

  test.each([
    ['nothing', '', /no key/],
    ['a short key', `1 ${'ab'.repeat(31)}`, /line 1/],
    ['a version that is none', `0 ${'ab'.repeat(32)}`, /line 1/],
    ['a version that is too large', `4294967296 ${'ab'.repeat(32)}`, /line 1/],
    ['no key that seals', `1 ${'ab'.repeat(32)} opens`, /only open/],
    ['a word that is none', `1 ${'ab'.repeat(32)} open`, /line 1/],
    ['a version twice', `1 ${'ab'.repeat(32)}\n1 ${'cd'.repeat(32)}`, /line 2 .*second time/],
  ])('is refused with %s', (_what, text, expected) => {
    expect(messageOf(() => parseKeyRing(text))).toMatch(expected)
  })

  test('is never repeated in an error, and a ring shows no key', () => {
    const canary = 'c0ffee'.repeat(10)
    expect(messageOf(() => parseKeyRing(`1 ${canary}`))).not.toMatch(/c0ffee/)
    const sealer = new Sealer([ringKey(1, Buffer.from('c0ffee00'.repeat(8), 'hex'))])
    expect(inspect(sealer, { depth: 9, showHidden: true }) + JSON.stringify(sealer)).not.toMatch(/c0ffee|192, 255, 238/)
  })
})
