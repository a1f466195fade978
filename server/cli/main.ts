#!/usr/bin/env node
/** The file that `hapax` runs. */
import { readFileSync } from 'node:fs'
import type { Io } from './output.ts'

/** docs/cli.md. */
const failureStatus = 70
const exitWith = (code: number): void => void (process.exitCode = code)
// Whoever reads our output may have had enough of it: `hapax get x | head -c 10`.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

const io: Io = {
  env: process.env,
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  async input() {
    const parts: Uint8Array[] = []
    for await (const part of process.stdin) parts.push(part as Uint8Array)
    return Uint8Array.from(Buffer.concat(parts))
  },
  fail(error) {
    if (error !== undefined) process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
    process.exit(failureStatus)
  },
  ended: () =>
    new Promise((resolve) => {
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve())
    }),
}

const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as { readonly version: string }
import('./program.ts').then(
  ({ runCommand }) => runCommand(process.argv.slice(2), io, version).then(exitWith),
  (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error
    io.err('error: the command line needs the optional package commander\n  hint: install hapax without --omit=optional\n')
    exitWith(1)
  },
)
