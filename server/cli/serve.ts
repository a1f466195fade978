/** `serve storage|proxy`: one process of a cluster, or several of one role, until it is told to end; `config`: what its settings are, and from where. */
import type { Command } from 'commander'
import { faultFields, openLog, type Log } from '../run/log.ts'
import {
  checkSettings,
  flagOf,
  processRoles,
  readSettings,
  settings,
  type ProcessRole,
  type SettingName,
  type Settings,
} from '../run/settings.ts'
import { exitCodes, type ExitCode, type Io, type Output } from './output.ts'

type Run = (work: (output: Output) => Promise<ExitCode>) => Promise<void>
type Flags = Readonly<Record<string, string | boolean | undefined>> & { readonly config?: string }

const names = Object.keys(settings) as SettingName[]
const rowOf = (name: SettingName): { readonly kind: { readonly type: string }; readonly what: string; readonly role?: ProcessRole } =>
  settings[name]

export function addServe(program: Command, io: Io, version: string, run: Run): void {
  const serve = program.command('serve').description('one process of a cluster')
  for (const role of processRoles)
    withSettings(
      serve.command(role).description(`runs a ${role === 'storage' ? 'storage server' : 'proxy'} until SIGINT or SIGTERM`),
      role,
    ).action((flags: Flags) =>
      run(async (output) => {
        const { values, origins, warnings } = await read(io, flags)
        checkSettings(role, values)
        const base = { role: values.processes === 1 ? role : 'supervisor', name: values.name as string, pid: process.pid }
        const log = await openLog({ level: values['log.level'], base, write: io.err })
        for (const warning of warnings) log.warn('alarm', { what: warning })
        for (const name of names) log.debug('setting', { setting: name, origin: origins[name] })
        const running = await open({ role, values, version, log, io })
        const ended = io.ended() // before anybody is told: from then on a signal may come
        output.result(`${role} ${values.name} listens at ${running.address}; http://${running.admin}/readyz says when it is ready`, {
          ok: true,
          role,
          name: values.name,
          ...(role === 'storage' ? { zone: values.zone } : {}),
          pid: process.pid,
          address: running.address,
          admin: running.admin,
          ...(running.processes === undefined ? {} : { processes: running.processes }),
        })
        await ended
        await running.close()
        return exitCodes.done
      }),
    )

  addConfig(program, io, run)
}

interface Opening {
  readonly role: ProcessRole
  readonly values: Settings
  readonly version: string
  readonly log: Log
  readonly io: Io
}
interface Opened {
  readonly address: string
  readonly admin: string
  /** When there are several. */
  readonly processes?: readonly object[]
  close(): Promise<void>
}

/** Loaded by whoever serves: other commands should not wait for it. */
async function open({ role, values, version, log, io }: Opening): Promise<Opened> {
  if (values.processes === 1) {
    const { openProcess } = await import('../run/process.ts')
    const onFailure = (error: unknown): void => {
      log.error('failure', faultFields(error))
      io.fail(values['log.level'] === 'off' ? error : undefined)
    }
    return await openProcess({ role, settings: values, version, log, onFailure })
  }
  const { openProcesses } = await import('../run/processes.ts')
  return await openProcesses({ role, settings: values, version, log })
}

function addConfig(program: Command, io: Io, run: Run): void {
  const config = program.command('config').description('the settings of a process, without starting it')
  for (const role of processRoles) {
    withSettings(config.command(`check-${role}`).description(`says what is wrong with the settings of a ${role}`), role).action(
      (flags: Flags) =>
        run(async (output) => {
          const { values, warnings } = await read(io, flags)
          checkSettings(role, values)
          output.result(['the settings are in order', ...warnings.map((warning) => `warning: ${warning}`)].join('\n'), {
            ok: true,
            warnings,
          })
          return exitCodes.done
        }),
    )
    withSettings(config.command(`print-${role}`).description(`prints each setting of a ${role}, and where it comes from`), role).action(
      (flags: Flags) =>
        run(async (output) => {
          const { values, origins } = await read(io, flags)
          const own = names.filter((name) => (rowOf(name).role ?? role) === role)
          const lines = own.map((name) => `${name.padEnd(18)} ${String(values[name] ?? '-').padEnd(24)} ${origins[name]}`)
          output.result(lines.join('\n'), Object.fromEntries(own.map((name) => [name, { value: values[name], origin: origins[name] }])))
          return exitCodes.done
        }),
    )
  }
}

function withSettings(command: Command, role: ProcessRole): Command {
  command.option('--config <file>', 'a TOML file with the settings; flags and HAPAX_... win over it')
  for (const name of names) {
    const { kind, what, role: of } = rowOf(name)
    if (of === undefined || of === role) command.option(kind.type === 'flag' ? flagOf(name) : `${flagOf(name)} <value>`, what)
  }
  return command
}

/** Commander has made `tlsCa` of `--tls-ca`. */
function read(io: Io, { config, ...flags }: Flags) {
  const camel = (name: string): string => name.replaceAll(/[.-](\w)/g, (_, letter: string) => letter.toUpperCase())
  return readSettings({ file: config, env: io.env, flags: Object.fromEntries(names.map((name) => [name, flags[camel(name)]])) })
}
