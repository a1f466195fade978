/** What lies on the disks, byte for byte: what one release wrote is read by all later ones (W3). */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { inspect } from './inspect.ts'
import * as layout from './storage-layout.ts'

const rows = readFileSync(new URL('testdata/stored-records.txt', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => {
    const [bytes = '', json = ''] = line.split('  ')
    const [key = '', value = ''] = bytes.split(' ')
    return [JSON.parse(json) as { readonly what: string }, Buffer.from(key, 'hex'), Buffer.from(value === '-' ? '' : value, 'hex')] as const
  })

test.each(rows)('%j', (said, key, value) => {
  expect(inspect(value, key)).toEqual([said])
  const parts = layout.keyParts(key)
  if (parts?.what === 'entry') {
    const entry = layout.decodeEntry(key, value)
    expect(layout.encodeEntry(layout.entryKey(parts.shard, parts.generation, parts.key), entry).equals(value)).toBe(true)
  }
  if (parts?.what === 'due') expect(layout.dueKey(parts.shard, parts.generation, parts).equals(key)).toBe(true)
})

test('each kind of key has one', () => {
  expect(new Set(rows.map(([{ what }]) => what))).toEqual(new Set(['entry', 'due', 'generation', 'shard', 'store']))
})

test('a changed bit anywhere in an entry is damage', () => {
  const [, key, value] = rows[0] as (typeof rows)[number]
  for (let at = 0; at < value.length; at++) {
    const changed = Buffer.from(value)
    changed[at] = (changed[at] as number) ^ 1
    expect(layout.decodeEntry(key, changed), `byte ${at}`).toBe('damaged')
  }
})
