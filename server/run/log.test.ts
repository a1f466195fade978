/** The log of a process: JSON lines, a level, a bounded number of repetitions (W18). */
import { describe, expect, test } from 'vitest'
import { AssertionError, unreachable } from '../../core/base/assert.ts'
import { KvError } from '../../core/kv/errors.ts'
import { faultFields, openLog, type LogLevel } from './log.ts'
import { Repetitions } from './repetition.ts'

async function logged(level: LogLevel, nowMs?: () => number) {
  const lines: string[] = []
  const base = { role: 'proxy', name: 'p1' }
  const log = await openLog({ level, base, write: (line) => void lines.push(line), ...(nowMs === undefined ? {} : { nowMs }) })
  return { log, read: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>) }
}

describe('a log', () => {
  test('has one JSON object a line, with its time, its level, who says it and what happened', async () => {
    const { log, read } = await logged('info')
    log.info('listening', { address: '127.0.0.1:1', admin: '127.0.0.1:2' })
    const [line] = read()
    expect(line).toEqual({
      level: 'info',
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      role: 'proxy',
      name: 'p1',
      address: '127.0.0.1:1',
      admin: '127.0.0.1:2',
      event: 'listening',
    })
  })

  test.each<[LogLevel, string[]]>([
    ['debug', ['debug', 'info', 'warn', 'error']],
    ['info', ['info', 'warn', 'error']],
    ['warn', ['warn', 'error']],
    ['error', ['error']],
    ['off', []],
  ])('at level %s has lines of %j', async (level, told) => {
    const { log, read } = await logged(level)
    log.debug('event', { what: 'hedge' })
    log.info('draining')
    log.warn('alarm', { what: 'a damaged record' })
    log.error('failure')
    expect(read().map((line) => line['level'])).toEqual(told)
  })

  test('says the same thing a bounded number of times, and how often it was left out', async () => {
    let nowMs = 0
    const { log, read } = await logged('info', () => nowMs)
    for (let index = 0; index < 1_000; index++) log.warn('alarm', { what: 'a damaged record' })
    log.warn('alarm', { what: 'something else' })
    expect(read()).toHaveLength(11)
    nowMs = 60_000
    log.warn('alarm', { what: 'a damaged record' })
    expect(read().at(-1)).toMatchObject({ what: 'a damaged record', leftOut: 990 })
  })

  test('tells of a KvError what to do, and of anything that is no error nothing', () => {
    expect(faultFields(new KvError('DISK_FULL'))).toMatchObject({ code: 'DISK_FULL', id: 'HPX-1006', hint: expect.any(String) })
    expect(faultFields({ secret: 'canary' })).toEqual({ what: 'something that is no error was thrown' })
  })

  test('tells of another error where it was thrown, and no text that a user may have sent', () => {
    expect(faultFields(new Error('canary')).what).toMatch(/^Error\n +at .*log\.test/)
    const mistake = (() => {
      try {
        return JSON.parse('canary') as unknown
      } catch (error) {
        return error
      }
    })()
    expect(faultFields(mistake).what).not.toContain('canary')
    const unexpected = (() => {
      try {
        return unreachable({ value: 'canary' } as never)
      } catch (error) {
        return error
      }
    })()
    expect(faultFields(unexpected).what).not.toContain('canary')
    expect(faultFields(new AssertionError('hapax is broken: a law')).what).toContain('hapax is broken: a law')
    expect(faultFields(new TypeError('x is not a function')).what).toContain('x is not a function')
  })
})

test('kinds beyond a bound are forgotten, the oldest first', () => {
  const repetitions = new Repetitions({ most: 1, windowMs: 100, kindsMax: 2 })
  expect(['a', 'b', 'a', 'c', 'b', 'a'].map((kind) => repetitions.take(kind, 0))).toEqual([0, 0, undefined, 0, undefined, 0])
})
