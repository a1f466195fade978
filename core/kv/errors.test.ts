/** The table of faults is well-formed, and an error is known by every copy of the package. */
import { expect, test, vi } from 'vitest'
import { errors, isKvError, KvError, type KvErrorCode } from './errors.ts'

const rows = Object.entries(errors) as [KvErrorCode, (typeof errors)[KvErrorCode]][]

test('each row has a number of its own, a sentence, a hint and a word on retrying', () => {
  expect(new Set(rows.map(([, { id }]) => id)).size).toBe(rows.length)
  expect(new Set(rows.map(([, { message }]) => message)).size).toBe(rows.length)
  for (const [code, row] of rows) {
    expect(code).toMatch(/^[A-Z][A-Z_]*$/)
    expect(row.id).toMatch(/^HPX-\d{4}$/)
    expect(row.message, `${code}: a sentence without a full stop`).toMatch(/^[a-z].*[^.]$/s)
    expect(row.hint.length, code).toBeGreaterThan(10)
    expect(['safe', 'same-request-id', 'never']).toContain(row.retry)
  }
})

test('an unknown outcome is its own code and is never safe to send again under a new name (G13)', () => {
  expect(errors.UNKNOWN_OUTCOME.retry).toBe('same-request-id')
})

test('an error shows its number first, and takes message, hint, retry and cause of its own', () => {
  const cause = new Error('below')
  const plain = new KvError('BUSY')
  expect(plain).toMatchObject({ name: 'KvError', code: 'BUSY', id: 'HPX-2008', retry: 'safe', hint: errors.BUSY.hint })
  expect(plain.message).toBe(`HPX-2008 ${errors.BUSY.message}`)
  expect('cause' in plain).toBe(false)
  const own = new KvError('BUSY', { message: 'm', hint: 'h', retry: 'never', cause })
  expect(own).toMatchObject({ message: 'HPX-2008 m', hint: 'h', retry: 'never', cause })
})

test('a second copy of the module knows the errors of the first, and the first those of the second (G13)', async () => {
  vi.resetModules()
  const copy = await import('./errors.ts')
  expect(copy.KvError).not.toBe(KvError)
  const ours = new KvError('BUSY')
  const theirs = new copy.KvError('CLOSED')
  expect(copy.isKvError(ours, 'BUSY')).toBe(true)
  expect(isKvError(theirs, 'CLOSED')).toBe(true)
  expect(theirs instanceof KvError && ours instanceof copy.KvError).toBe(true)
})

test('nothing else is taken for a KvError, and a code asks for that code', () => {
  for (const other of [undefined, null, 1, 'BUSY', new Error('BUSY'), { code: 'BUSY', name: 'KvError' }]) {
    expect(isKvError(other)).toBe(false)
    expect(other instanceof KvError).toBe(false)
  }
  expect(isKvError(new KvError('BUSY'), 'CLOSED')).toBe(false)
})

test('a class derived from KvError takes only its own for its own', () => {
  class Special extends KvError {}
  expect(new KvError('BUSY') instanceof Special).toBe(false)
  expect(new Special('BUSY') instanceof Special).toBe(true)
})
