/**
 * What the commands print: text for people, one JSON document a line for programs; and what they end with.
 * Invariant: results go to stdout, everything else to stderr; a JSON line is written in both cases, so that a program never has to read text.
 */
import { isKvError } from '../../core/kv/errors.ts'

/** What a command has of the process that it runs in. */
export interface Io {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly out: (text: string) => void
  readonly err: (text: string) => void
  /** All of stdin. */
  readonly input: () => Promise<Uint8Array>
  /** Resolves when the process is asked to end. */
  readonly ended: () => Promise<void>
  /** A disk failed, or a law of our own was broken: the process ends at once, and says nothing more to anybody. Undefined: it is in the log already. */
  readonly fail: (error: unknown) => void
}

/** docs/cli.md has them, too. */
export const exitCodes = {
  done: 0,
  /** A fault: a KvError, or something that nobody expected. */
  failed: 1,
  /** An option, an argument or a command that there is not. */
  usage: 2,
  missing: 3,
  /** The key is in another state than was asked for. */
  refused: 4,
  /** It may have happened or not. */
  unknown: 5,
} as const
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]

export interface Output {
  readonly isJson: boolean
  /** One of both, a line. */
  result(text: string, json: object): void
  error(code: ExitCode, text: string, json: object, hint?: string): ExitCode
}

export function outputOf({ out, err }: Pick<Io, 'out' | 'err'>, isJson: boolean): Output {
  return {
    isJson,
    result: (text, json) => out(`${isJson ? JSON.stringify(json) : text}\n`),
    error: (code, text, json, hint) => {
      if (isJson) out(`${JSON.stringify({ ok: false, ...json })}\n`)
      else err(`${text}\n${hint === undefined ? '' : `  hint: ${hint}\n`}`)
      return code
    },
  }
}

/** Says what was thrown. A KvError says what to do about it; of anything else the whole stack, for it is a fault of ours. */
export function failed(output: Output, error: unknown): ExitCode {
  if (!isKvError(error)) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
    return output.error(exitCodes.failed, `error: ${text}`, { error: { message: text } })
  }
  const { code, id, hint, retry, message } = error
  const cause = error.cause instanceof Error && error.cause.message !== '' ? ` (${error.cause.message})` : ''
  const status = code === 'UNKNOWN_OUTCOME' ? exitCodes.unknown : code === 'INVALID_ARGUMENT' ? exitCodes.usage : exitCodes.failed
  return output.error(status, `error ${id}: ${message.replace(`${id} `, '')}${cause}`, { error: { code, id, message, hint, retry } }, hint)
}

/** `1h 0m`, `59.5s`: what is left of a life. */
export function lifeText(ms: number): string {
  if (ms < 60_000) return `${Math.round(ms / 100) / 10}s`
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 60) return `${minutes}m ${Math.floor((ms % 60_000) / 1_000)}s`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours}h ${minutes % 60}m` : `${Math.floor(hours / 24)}d ${hours % 24}h`
}
