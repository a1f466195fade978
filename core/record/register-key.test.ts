import fc from 'fast-check'
import { expect, test } from 'vitest'
import { partsOf, registerKey, shardOf } from './register-key.ts'

const seed = Number(process.env.HAPAX_SEED ?? 1)

test('a name gives back its namespace and key, so two pairs never share one', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 255 }), fc.uint8Array({ maxLength: 300 }), (namespace, key) => {
      const name = registerKey(namespace, key)
      expect(name.length).toBe(1 + namespace.length + key.length)
      const parts = partsOf(name)
      expect([[...parts.namespace], [...parts.key]]).toEqual([[...namespace], [...key]])
    }),
    { seed },
  )
  expect(registerKey(Buffer.from('a'), Buffer.from('bc'))).not.toBe(registerKey(Buffer.from('ab'), Buffer.from('c')))
})

test('a key has one shard in all namespaces, as in JunoDB', () => {
  expect(shardOf(Buffer.from('hello'), 1_024)).toBe(0x248bfa47 % 1_024)
  expect(shardOf(Buffer.from(''), 7)).toBe(0)
})
