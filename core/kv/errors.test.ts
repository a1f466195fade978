import { describe, expect, test, vi } from 'vitest'
import { errors, isKvError, KvError, type KvErrorCode } from './errors.ts'

describe('the table of errors (G13)', () => {
  const rows = Object.entries(errors)
  test('gives each code a number, a sentence, a hint and a word on repeating', () => {
    for (const [code, { id, message, hint, retry }] of rows) {
      expect(code).toMatch(/^[A-Z]+(_[A-Z]+)*$/)
      expect(id).toMatch(/^HPX-[123]\d{3}$/)
      expect(message).toMatch(/^[^A-Z].*[^.]$/)
      expect(hint.length).toBeGreaterThan(10)
      expect(['safe', 'same-request-id', 'never']).toContain(retry)
    }
  })
  test('gives no number twice', () => {
    expect(new Set(rows.map(([, { id }]) => id)).size).toBe(rows.length)
  })
  test('calls an unknown outcome by its own code, never failed', () => {
    expect(errors.UNKNOWN_OUTCOME.retry).toBe('same-request-id')
    expect(errors.UNKNOWN_OUTCOME.message).not.toMatch(/fail/)
  })
})

describe('KvError', () => {
  test('carries code, number, hint, retry and cause', () => {
    const cause = new Error('below')
    const error = new KvError('UNAVAILABLE', { message: 'no answer from 10.0.0.1', cause })
    expect(error).toMatchObject({ name: 'KvError', code: 'UNAVAILABLE', id: 'HPX-2012', retry: 'safe', cause })
    expect(error.message).toBe('HPX-2012 no answer from 10.0.0.1')
    expect(error.hint).toBe(errors.UNAVAILABLE.hint)
  })
  test('has no cause unless it is given one', () => {
    expect('cause' in new KvError('BUSY')).toBe(false)
  })
  test('is told apart by code', () => {
    expect(isKvError(new KvError('BUSY'), 'BUSY')).toBe(true)
    expect(isKvError(new KvError('BUSY'), 'CLOSED')).toBe(false)
    for (const other of [undefined, null, 'BUSY', { code: 'BUSY' }, new Error('BUSY')]) expect(isKvError(other)).toBe(false)
  })
  test('is known across two copies of the package', async () => {
    vi.resetModules()
    const other = await import('./errors.ts')
    expect(other.KvError).not.toBe(KvError)
    const foreign = new other.KvError('CLOSED')
    expect(isKvError(foreign, 'CLOSED')).toBe(true)
    expect(foreign).toBeInstanceOf(KvError)
    expect(new KvError('CLOSED')).toBeInstanceOf(other.KvError)
  })
  test('a subclass is known by its own class alone', () => {
    class Special extends KvError {}
    expect(new Special('BUSY')).toBeInstanceOf(KvError)
    expect(new Special('BUSY')).toBeInstanceOf(Special)
    expect(new KvError('BUSY')).not.toBeInstanceOf(Special)
  })
  test('accepts every code of the table', () => {
    for (const code of Object.keys(errors) as KvErrorCode[]) expect(new KvError(code).code).toBe(code)
  })
})
