/** What a binding throws in a read, and what a caller is told: damage is told from a disk that cannot be read, and one bad value hides no other. */
import { describe, expect, test } from 'vitest'
import { KvError } from '../kv/errors.ts'
import type { Row } from './engine.ts'
import { cursorOver, readEach } from './level-reads.ts'

/** As bindings throw: a message, and a code on it or on a cause. */
const thrown = (message: string, code?: string, cause?: Error): Error =>
  Object.assign(new Error(message, { cause }), code === undefined ? {} : { code })

const rows: readonly [what: string, error: unknown, code: string, says: RegExp][] = [
  ['a block with a wrong checksum', thrown('Corruption: block checksum mismatch: stored = 1, computed = 2'), 'DAMAGED', /./],
  ['a code alone', thrown('it failed', 'LEVEL_CORRUPTION'), 'DAMAGED', /./],
  ['damage that stands in a cause', thrown('it failed', 'LEVEL_NEXT', thrown('corrupted block')), 'DAMAGED', /./],
  ['an iterator that a reopening closed', thrown('Iterator is not open', 'LEVEL_ITERATOR_NOT_OPEN'), 'UNAVAILABLE', /opened again/],
  ['a disk that does not answer', thrown('IO error: pread: Input/output error'), 'UNAVAILABLE', /could not be read: IO error: pread/],
  ['a cause that says more', thrown('it failed', undefined, thrown('EIO')), 'UNAVAILABLE', /it failed: EIO/],
  ['what is no error', 'out of luck', 'UNAVAILABLE', /could not be read: out of luck/],
]

const failing = (error: unknown) => ({
  nextv: () => Promise.reject(error),
  close: () => Promise.resolve(),
})
const one = Uint8Array.of(1)

describe('a read that fails', () => {
  test.each(rows)('by %s: in a value and in a walk alike', async (_what, error, code, says) => {
    const expected = { code, message: expect.stringMatching(says) as string, cause: error }
    const [told] = readEach([one], () => {
      throw error
    })
    expect(told).toBeInstanceOf(KvError)
    expect(told).toMatchObject(expected)
    await expect(cursorOver(failing(error)).next(10)).rejects.toMatchObject(expected)
  })

  test('by a fault that is ours already stays that fault', async () => {
    const fault = new KvError('CLOSED')
    expect(
      readEach([one], () => {
        throw fault
      }),
    ).toEqual([fault])
    await expect(cursorOver(failing(fault)).next(1)).rejects.toBe(fault)
  })

  test('leaves the values beside it readable, in the order of their keys', () => {
    const told = readEach([Uint8Array.of(0), one, Uint8Array.of(2)], (key) => {
      if (key === one) throw thrown('corrupted')
      return key[0] === 0 ? key : undefined
    })
    expect(told).toEqual([Uint8Array.of(0), expect.objectContaining({ code: 'DAMAGED' }), undefined])
  })
})

test('a cursor gives the rows of its iterator, and closes it', async () => {
  const row: Row = [Buffer.of(1), Buffer.of(2)]
  const asked: number[] = []
  let closed = 0
  const cursor = cursorOver({
    nextv: async (count) => (asked.push(count), [row]),
    close: async () => void closed++,
  })
  expect(await cursor.next(7)).toEqual([row])
  await cursor.close()
  expect([asked, closed]).toEqual([[7], 1])
})
