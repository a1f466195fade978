import fc from 'fast-check'
import { expect, test } from 'vitest'
import { readSource, writeSource } from './juno-source.ts'
import { WireError } from './wire-bytes.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)

test('the source of the worked example', () => {
  const bytes = Buffer.from('0cdd0c7f00000144756d6d794170704e616d65', 'hex')
  expect(readSource(bytes)).toEqual({ name: 'DummyAppName', port: 56_588, address: Buffer.from([127, 0, 0, 1]) })
  expect(writeSource({ name: 'DummyAppName', port: 56_588, address: new Uint8Array([127, 0, 0, 1]) }).toString('hex')).toBe(
    bytes.toString('hex'),
  )
})

test('a long address has a bit of its own', () => {
  const address = Buffer.from('00000000000000000000ffff0a000001', 'hex')
  const bytes = writeSource({ name: 'app', port: 1, address })
  expect(bytes.toString('hex')).toBe(`830001${address.toString('hex')}617070`)
  expect(readSource(Buffer.concat([bytes, Buffer.alloc(3)]))).toEqual({ name: 'app', port: 1, address })
})

test('bytes that do not fill what they announce are no source', () => {
  const whole = writeSource({ name: 'x'.repeat(127), port: 9, address: new Uint8Array(16) })
  for (let length = 0; length < whole.length; length++) expect(readSource(whole.subarray(0, length))).toBeUndefined()
  expect(readSource(whole)?.name).toHaveLength(127)
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 160 }), (bytes) => {
      const source = readSource(bytes)
      if (source !== undefined) expect(3 + source.address.length).toBeLessThanOrEqual(bytes.length)
    }),
    { seed, numRuns: 2_000 },
  )
})

test.each([
  ['a name of 128 bytes', { name: 'x'.repeat(128), port: 0, address: new Uint8Array(4) }],
  ['a name of 127 characters and more bytes', { name: 'é'.repeat(64), port: 0, address: new Uint8Array(4) }],
  ['an address of 5 bytes', { name: 'a', port: 0, address: new Uint8Array(5) }],
  ['a port of 65,536', { name: 'a', port: 65_536, address: new Uint8Array(4) }],
])('%s is refused', (_, source) => {
  expect(() => writeSource(source)).toThrow(WireError)
})
