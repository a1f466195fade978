/**
 * What a process tells those who run it: one JSON object a line, by pino.
 * Invariant: a line is one event of the list below with fields of the list below, and nothing else; so no key, value, request id or secret of
 * anybody comes into it, at any level. The same event comes a bounded number of times a minute.
 * Why a list of fields and no redaction: what is left out of a list is seen in a review, and what a pattern does not find is not.
 */
import { AssertionError } from '../../core/base/assert.ts'
import { KvError, isKvError } from '../../core/kv/errors.ts'
import { Repetitions } from './repetition.ts'

export const logLevels = ['debug', 'info', 'warn', 'error', 'off'] as const
export type LogLevel = (typeof logLevels)[number]

export type LogEvent =
  | 'setting'
  | 'listening'
  | 'ready'
  | 'not-ready'
  | 'event'
  | 'alarm'
  | 'child-ready'
  | 'child-ended'
  | 'child-restarts'
  | 'draining'
  | 'closed'
  | 'failure'

export interface LogFields {
  readonly address?: string
  readonly admin?: string
  readonly child?: string
  readonly childPid?: number
  readonly restarts?: number
  readonly waitMs?: number
  /** Of a KvError. */
  readonly code?: string
  readonly id?: string
  readonly hint?: string
  /** Its name; what it is set to is not told. */
  readonly setting?: string
  readonly origin?: string
  /** A sentence of ours for a person, or the name of something that is counted. */
  readonly what?: string
}

export interface Log {
  debug(event: LogEvent, fields?: LogFields): void
  info(event: LogEvent, fields?: LogFields): void
  warn(event: LogEvent, fields?: LogFields): void
  error(event: LogEvent, fields?: LogFields): void
}

/** What of an error may be told. Of one that is none of ours, where it was thrown; its message only when no text of a user can be in it. */
export function faultFields(error: unknown): LogFields {
  if (isKvError(error)) return { code: error.code, id: error.id, hint: error.hint, what: error.message }
  if (!(error instanceof Error)) return { what: 'something that is no error was thrown' }
  const frames = (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line))
  return { what: [`${error.name}${isTellable(error) ? `: ${error.message}` : ''}`, ...frames].join('\n').slice(0, textMax) }
}

/** Errors of the system name files, those of the language our own variables, and an assertion its law, unless it shows what it met. */
function isTellable(error: Error): boolean {
  if (error instanceof AssertionError) return !error.message.includes(': unexpected ')
  return error instanceof TypeError || error instanceof RangeError || 'syscall' in error
}

const textMax = 4_096

export const silentLog: Log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined }

export interface LogOptions {
  readonly level: LogLevel
  /** Stands in every line: what this process is. */
  readonly base: Readonly<Record<string, string | number>>
  readonly write: (line: string) => void
  readonly nowMs?: () => number
}

/** @throws KvError INVALID_ARGUMENT when pino is not installed */
export async function openLog({ level, base, write, nowMs = () => performance.now() }: LogOptions): Promise<Log> {
  if (level === 'off') return silentLog
  const { pino } = await import('pino').catch((cause: unknown) => {
    throw new KvError('INVALID_ARGUMENT', {
      message: 'a log needs the optional package pino',
      hint: 'install hapax without --omit=optional, or say --log-level off',
      cause,
    })
  })
  const lines = pino(
    {
      level,
      base,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      messageKey: 'event',
    },
    { write },
  )
  const repetitions = new Repetitions()
  const tell =
    (severity: 'debug' | 'info' | 'warn' | 'error') =>
    (event: LogEvent, fields: LogFields = {}): void => {
      if (!lines.isLevelEnabled(severity)) return
      const leftOut = repetitions.take(`${event} ${fields.child ?? ''} ${fields.what ?? ''} ${fields.setting ?? ''}`, nowMs())
      if (leftOut !== undefined) lines[severity](leftOut === 0 ? fields : { ...fields, leftOut }, event)
    }
  return { debug: tell('debug'), info: tell('info'), warn: tell('warn'), error: tell('error') }
}
