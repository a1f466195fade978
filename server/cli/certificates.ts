/** `cert init` and `cert issue`: an authority of a cluster, and certificates of its processes and clients. */
import type { Command } from 'commander'
import { epochMs } from '../../core/base/types.ts'
import { invalid } from '../../core/kv/errors.ts'
import { isRole, roles } from '../../core/net/identity.ts'
import { exitCodes, type ExitCode, type Output } from './output.ts'

export function addCertificates(program: Command, run: (work: (output: Output) => Promise<ExitCode>) => Promise<void>): void {
  const cert = program.command('cert').description('certificates of a cluster: who is who, and who may talk to whom')
  const written = (output: Output, paths: readonly string[]): ExitCode => {
    output.result(`wrote ${paths.join(' ')}`, { ok: true, files: paths })
    return exitCodes.done
  }
  cert
    .command('init')
    .description('makes the authority of a cluster: ca.crt, and ca.key for its owner alone')
    .requiredOption('--cluster <name>', 'lower-case letters, digits, dots and hyphens')
    .option('--dir <folder>', 'where', 'certs')
    .action(({ cluster, dir }: { readonly cluster: string; readonly dir: string }) =>
      run(async (output) => {
        const { initAuthority } = await import('../edge/certificates.ts')
        return written(output, await initAuthority(dir, cluster, epochMs(Date.now())))
      }),
    )
  cert
    .command('issue')
    .description('issues a certificate for 90 days, as <role>-<name>.crt and .key beside the authority')
    .argument('<role>', roles.join(', '))
    .argument('<name>', 'of the process or the application')
    .option('--host <host...>', 'names and addresses under which a server is dialled', [])
    .option('--dir <folder>', 'where the authority is', 'certs')
    .action((role: string, name: string, { host, dir }: { readonly host: readonly string[]; readonly dir: string }) =>
      run(async (output) => {
        if (!isRole(role)) invalid(`a role is one of ${roles.join(', ')}, not '${role}'`)
        const { issueInFolder } = await import('../edge/certificates.ts')
        return written(output, await issueInFolder(dir, { role, name, hosts: host }, epochMs(Date.now())))
      }),
    )
}
