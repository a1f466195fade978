/** `inspect`: what bytes of ours say: a frame from a wire, or a record from the disk of a storage server. */
import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { invalid, KvError } from '../../core/kv/errors.ts'
import { exitCodes, type ExitCode, type Io, type Output } from './output.ts'

interface Asked {
  readonly file?: string
  readonly key?: string
}

/** More than any frame or record has, several of them together. */
const bytesMax = 67_108_864

export function addInspect(program: Command, io: Io, run: (work: (output: Output) => Promise<ExitCode>) => Promise<void>): void {
  program
    .command('inspect')
    .description("says what bytes are: frames of JunoDB's clients and of our own, records of a storage server")
    .argument('[hex]', 'the bytes as hex; `-` reads them from stdin, as hex or as they are')
    .option('--file <path>', 'reads them from a file, as hex or as they are')
    .option('--key <hex>', 'the key of the disk under which they lie; then they are checked')
    .action((text: string | undefined, { file, key }: Asked) =>
      run(async (output) => {
        const bytes = await bytesIn(io, text, file)
        const { inspect } = await import('../edge/inspect.ts')
        const found = inspect(bytes, key === undefined ? undefined : hexIn(key, '--key'))
        output.result(found.map((one) => rendered(one)).join('\n\n'), { ok: true, found })
        return exitCodes.done
      }),
    )
}

async function bytesIn(io: Io, text: string | undefined, file: string | undefined): Promise<Uint8Array> {
  if ((text === undefined) === (file === undefined))
    invalid('give the bytes, or a file with them', 'as hex, as --file <path>, or `-` for stdin')
  if (text !== undefined && text !== '-') return hexIn(text, 'the argument')
  const content = file === undefined ? await io.input() : await contentOf(file)
  if (content.length > bytesMax) invalid(`more than ${bytesMax} bytes are not looked at`)
  // A frame has bytes that no text has, its size among them.
  const asText = Buffer.from(content).toString('latin1')
  return /^[0-9a-fA-F\s]+$/.test(asText) ? hexIn(asText, 'what was read') : content
}

async function contentOf(path: string): Promise<Uint8Array> {
  try {
    return Uint8Array.from(await readFile(path))
  } catch (cause) {
    throw new KvError('INVALID_ARGUMENT', { message: `${path} cannot be read`, hint: 'look whether it is there, and whose it is', cause })
  }
}

function hexIn(text: string, what: string): Uint8Array {
  const digits = text.replace(/^0x/, '').replaceAll(/\s/g, '')
  const odd = /[^0-9a-fA-F]/.exec(digits)
  if (odd !== null) invalid(`${what} is no hex: '${odd[0]}' at digit ${odd.index}`, 'two digits a byte; spaces do no harm')
  if (digits.length % 2 !== 0) invalid(`${what} has ${digits.length} digits, and a byte has two`, 'one is missing, or one too many')
  return Uint8Array.from(Buffer.from(digits, 'hex'))
}

/** A field a line, what is inside another one indented; instants also as a date. */
function rendered(value: unknown, indent = ''): string {
  if (typeof value !== 'object' || value === null) return scalar(value)
  const entries = Array.isArray(value) ? value.map((item, index) => [`${index}`, item] as const) : Object.entries(value)
  return entries
    .map(([name, item]) => {
      const isInside = typeof item === 'object' && item !== null
      if (!isInside) return `${indent}${name}: ${scalar(item)}`
      return Object.keys(item).length === 0 ? `${indent}${name}: -` : `${indent}${name}:\n${rendered(item, `${indent}  `)}`
    })
    .join('\n')
}

function scalar(value: unknown): string {
  const isInstant = typeof value === 'number' && Number.isInteger(value) && value > 1e12 && value < 1e13
  // A text is one line, whatever is in it.
  return isInstant
    ? `${value} (${new Date(value).toISOString()})`
    : typeof value === 'string'
      ? JSON.stringify(value).slice(1, -1)
      : String(value)
}
