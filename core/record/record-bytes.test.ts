/** Records as bytes: what is skipped, what may not be skipped, and bytes that are no record. A checksum stands before none of it here. */
import { describe, expect, test } from 'vitest'
import { epochMs } from '../base/types.ts'
import type { KvErrorCode } from '../kv/errors.ts'
import { readRecord, recordSize, writeRecord } from './record-bytes.ts'
import { noCompletions, type KeyRecord } from './record.ts'

const record: KeyRecord = {
  value: new Uint8Array([1, 2, 3]),
  version: 7,
  createdAt: epochMs(1),
  lastModifiedAt: epochMs(2),
  changedAt: epochMs(3),
  expiresAt: epochMs(0),
  originator: 'o',
  lastRequest: 's\n7',
  completions: noCompletions,
}
const written = (of: KeyRecord): Buffer => {
  const bytes = Buffer.alloc(recordSize(of))
  expect(writeRecord(bytes, 0, of)).toBe(bytes.length)
  return bytes
}
const read = (bytes: Buffer): KeyRecord => readRecord(bytes, 0, bytes.length)
const field = (tag: number, content: string): Buffer => {
  const head = Buffer.from([tag, 0, 0, 0, 0])
  head.writeUInt32BE(content.length, 1)
  return Buffer.concat([head, Buffer.from(content)])
}

test('a record amid other bytes is read without them, and its value is a part of them', () => {
  const bytes = Buffer.concat([Buffer.from('before'), written(record), Buffer.from('behind')])
  const found = readRecord(bytes, 6, bytes.length - 6)
  expect(found).toEqual(record)
  expect(found.value?.buffer).toBe(bytes.buffer)
  const tombstone = { ...record, value: undefined }
  expect(read(written(tombstone))).toEqual(tombstone)
  const empty = { ...record, value: new Uint8Array() }
  expect(read(written(empty))).toEqual(empty)
})

test('a field that this release does not know is skipped, unless its tag forbids it', () => {
  expect(read(Buffer.concat([written(record), field(127, 'of a later release')]))).toEqual(record)
  expect(() => read(Buffer.concat([written(record), field(128, 'changes all')]))).toThrow(
    expect.objectContaining({ code: 'ENGINE_DIFFERS' }),
  )
})

describe('what is no record', () => {
  const valueBytes = 5 + 3
  const changed = (change: (bytes: Buffer) => void, of: Buffer = written(record)): Buffer => {
    change(of)
    return of
  }
  test.each<[string, KvErrorCode, Buffer]>([
    ['nothing', 'DAMAGED', Buffer.alloc(0)],
    ['a record cut off in its numbers', 'DAMAGED', written(record).subarray(0, 41)],
    ['a format of a later release', 'ENGINE_DIFFERS', changed((bytes) => bytes.writeUInt8(2, 0))],
    ['a field without a length', 'DAMAGED', written(record).subarray(0, -valueBytes + 4)],
    ['a field that is longer than the record', 'DAMAGED', changed((bytes) => bytes.writeUInt32BE(4, bytes.length - 7))],
    ['a living record without its value', 'DAMAGED', written(record).subarray(0, -valueBytes)],
    ['a dead record with a value', 'DAMAGED', changed((bytes) => bytes.writeUInt8(0, 1))],
  ])('%s', (_what, code, bytes) => {
    expect(() => read(bytes)).toThrow(expect.objectContaining({ code }))
  })

  test('an end beyond the bytes', () => {
    const bytes = written(record)
    expect(() => readRecord(bytes, 0, bytes.length + 6)).toThrow(expect.objectContaining({ code: 'DAMAGED' }))
  })
})
