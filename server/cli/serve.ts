/** `serve storage|proxy`: one process of a cluster, until it is told to end; `config`: what its settings are, and from where. */
import type { Command } from 'commander'
import { checkSettings, flagOf, processRoles, readSettings, settings, type ProcessRole, type SettingName } from '../run/settings.ts'
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
        const { values, warnings } = await read(io, flags)
        for (const warning of warnings) io.err(`warning: ${warning}\n`)
        const { openProcess } = await import('../run/process.ts')
        const running = await openProcess({
          role,
          settings: values,
          version,
          onAlarm: (text) => io.err(`alarm: ${text}\n`),
          onFailure: (error) => io.fail(error),
        })
        const { address, admin } = running
        output.result(`${role} ${values.name} listens at ${address}; http://${admin}/readyz says when it is ready`, {
          ok: true,
          role,
          name: values.name,
          ...(role === 'storage' ? { zone: values.zone } : {}),
          pid: process.pid,
          address,
          admin,
        })
        await io.ended()
        await running.close()
        return exitCodes.done
      }),
    )

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
