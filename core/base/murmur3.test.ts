import { expect, test } from 'vitest'
import { murmur3 } from './murmur3.ts'

const hashOf = (text: string, seed?: number): string => murmur3(Buffer.from(text), seed).toString(16).padStart(8, '0')

test('hashes as JunoDB does (juno-reference, 5.1)', () => {
  expect(['', 'a', 'key', 'hello', 'test', 'Hello, world!'].map((text) => hashOf(text))).toEqual([
    '00000000',
    '3c2569b2',
    'e29c6a44',
    '248bfa47',
    'ba6bd213',
    'c0363e43',
  ])
})

test('hashes bytes above 127 and every length of the tail, with a seed (vectors of smhasher)', () => {
  expect(murmur3(new Uint8Array([0xff, 0xff, 0xff, 0xff])).toString(16)).toBe('76293b50')
  expect(murmur3(new Uint8Array([0x21, 0x43, 0x65, 0x87])).toString(16)).toBe('f55b516b')
  expect(murmur3(new Uint8Array([0x21, 0x43, 0x65])).toString(16)).toBe('7e4a8634')
  expect(murmur3(new Uint8Array([0x21, 0x43])).toString(16)).toBe('a0f7b07a')
  expect(murmur3(new Uint8Array([0x21])).toString(16)).toBe('72661cf4')
  expect(murmur3(new Uint8Array([0, 0, 0, 0])).toString(16)).toBe('2362f9de')
  expect(hashOf('', 1)).toBe('514e28b7')
  expect(hashOf('', 0xffff_ffff)).toBe('81f16f39')
})
