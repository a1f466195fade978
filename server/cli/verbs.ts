/**
 * `get`, `create`, `set`, `update`, `destroy`: the five verbs of the contract on a cluster.
 * Invariant: a refusal is no fault: it has an exit code of its own, and shows what is there.
 */
import type { Command } from 'commander'
import type { Duration, EpochMs } from '../../core/base/types.ts'
import { invalid } from '../../core/kv/errors.ts'
import type { Entry, Expiry, Version } from '../../core/kv/kv.ts'
import { exitCodes, lifeText, type ExitCode, type Io, type Output } from './output.ts'
import { onCluster, target, type Target } from './target.ts'

interface Waiting extends Target {
  readonly deadline?: Duration
}
interface Written extends Waiting {
  readonly ttl?: Duration
  readonly expiry?: string
  readonly ifVersion?: string
}
type Refused = {
  readonly ok: false
  readonly refusal: 'exists' | 'missing' | 'version'
  readonly entry?: Entry | undefined
  readonly now: EpochMs
}

/** Adds the verbs to the program. `run` gives each its output and takes its exit code. */
export function addVerbs(program: Command, io: Io, run: (work: (output: Output) => Promise<ExitCode>) => Promise<void>): void {
  const verb = (name: string, what: string): Command =>
    target(program.command(name).description(what)).option('--deadline <duration>', 'how long to wait for the answer', '5s')
  const valueIs = 'the value as text; `-` reads it from stdin'

  verb('get <name>', 'prints the value of a key').action((name: string, options: Waiting) =>
    run((output) =>
      onCluster(io, options, async (kv) => {
        const { entry, now } = await kv.get(name, options)
        if (entry === undefined) return output.error(exitCodes.missing, `there is no ${name}`, { refusal: 'missing', key: name })
        output.result(textOf(entry.value), { ok: true, key: name, ...shown(entry, now) })
        return exitCodes.done
      }),
    ),
  )
  verb('create <name> <value>', `makes an entry, if there is none (${valueIs})`)
    .option('--ttl <duration>', 'how long it lives: 500ms, 90s, 24h, 30d; default: for ever')
    .action((name: string, value: string, options: Written) =>
      run((output) =>
        onCluster(io, options, async (kv) => told(output, name, 'created', await kv.create(name, await bytesOf(io, value), options))),
      ),
    )
  for (const [name, what, past] of [
    ['set', 'writes an entry, whatever is there', 'set'],
    ['update', 'changes an entry that is there', 'updated'],
  ] as const)
    verb(`${name} <name> <value>`, `${what} (${valueIs})`)
      .option('--ttl <duration>', 'how long it lives from now on; default: it keeps its expiry')
      .option('--expiry <what>', 'keep, or never')
      .option('--if-version <version>', 'only if it is in this state')
      .action((key: string, value: string, options: Written) =>
        run((output) =>
          onCluster(io, options, async (kv) => {
            const { deadline, ifVersion } = options
            const call = { deadline, ifVersion: versionIn(ifVersion), expiry: expiryOf(options) }
            return told(output, key, past, await kv[name](key, await bytesOf(io, value), call))
          }),
        ),
      )
  verb('destroy <name>', 'ends an entry; it is no fault when there is none')
    .option('--if-version <version>', 'only if it is in this state')
    .action((name: string, { deadline, ifVersion, ...options }: Written) =>
      run((output) =>
        onCluster(io, options, async (kv) => {
          const done = await kv.destroy(name, { deadline, ifVersion: versionIn(ifVersion) })
          if (!done.ok) return refused(output, name, done)
          output.result(`destroyed ${name}`, { ok: true, key: name })
          return exitCodes.done
        }),
      ),
    )
}

function told(
  output: Output,
  key: string,
  past: string,
  result: { readonly ok: true; readonly entry: Entry; readonly now: EpochMs } | Refused,
): ExitCode {
  if (!result.ok) return refused(output, key, result)
  const { entry, now } = result
  const life = entry.expiresAt === undefined ? '' : `, expires in ${lifeText(entry.expiresAt - now)}`
  output.result(`${past} ${key}: version ${versionText(entry.version)}${life}`, { ok: true, key, ...shown(entry, now) })
  return exitCodes.done
}

const reasons = { exists: 'there is one already', missing: 'there is none', version: 'it is in another state' }

function refused(output: Output, key: string, { refusal, entry, now }: Refused): ExitCode {
  const what = entry === undefined ? '' : ` (version ${versionText(entry.version)})`
  const json = { refusal, key, ...(entry === undefined ? {} : shown(entry, now)) }
  return output.error(refusal === 'missing' ? exitCodes.missing : exitCodes.refused, `refused: ${key}: ${reasons[refusal]}${what}`, json)
}

function shown({ value, version, createdAt, expiresAt }: Entry, now: EpochMs): object {
  const text = Buffer.from(value).toString()
  const isText = Buffer.from(text).equals(value)
  const life = expiresAt === undefined ? {} : { expiresAt: new Date(expiresAt).toISOString(), livesMs: expiresAt - now }
  const content = isText ? { value: text } : { valueBase64: Buffer.from(value).toString('base64') }
  return { version, createdAt: new Date(createdAt).toISOString(), ...life, ...content }
}

/** A version is one line, to be copied: in JSON it is as it is. */
const versionText = (version: Version): string => version.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')
const versionIn = (text: string | undefined): Version | undefined =>
  text?.replace(/\\(\\|n)/g, (_, sign) => (sign === 'n' ? '\n' : '\\')) as Version | undefined

const textOf = (value: Uint8Array): string => Buffer.from(value).toString()

function expiryOf({ ttl, expiry }: Written): Expiry | undefined {
  if (ttl !== undefined && expiry !== undefined) invalid('--ttl and --expiry say two things', 'give one of them')
  if (ttl !== undefined) return { set: ttl }
  if (expiry === undefined || expiry === 'keep' || expiry === 'never') return expiry
  return invalid(`--expiry is keep or never, not '${expiry}'`)
}

const bytesOf = async ({ input }: Io, value: string): Promise<Uint8Array> =>
  value === '-' ? await input() : Uint8Array.from(Buffer.from(value))
