/** `cert init`, `cert issue`, `cert key`: an authority of a cluster, certificates of its processes and clients, and keys for what lies on its disks. */
import { readFile, rename, writeFile } from 'node:fs/promises'
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
  cert
    .command('key')
    .description('adds a key to the key file of the proxies, and makes the file if there is none; the newest one seals')
    .option('--file <path>', 'where', 'certs/hapax.keys')
    .option('--opens', 'the new key seals nothing yet: give the file to all proxies, then take the word away everywhere')
    .action(({ file, opens = false }: { readonly file: string; readonly opens?: boolean }) =>
      run(async (output) => {
        const { newKeyLine, parseKeyRing } = await import('../edge/sealer.ts')
        const before = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
          if (error.code === 'ENOENT') return ''
          throw error
        })
        if (opens && before.trim() === '') invalid('the first key has to seal', 'leave --opens out')
        const version = before.trim() === '' ? 1 : (parseKeyRing(before).at(-1)?.version ?? 0) + 1
        const text = `${before}${before === '' || before.endsWith('\n') ? '' : '\n'}${newKeyLine(version, opens)}\n`
        // Proxies may read it at any moment: they see the old file or the new one.
        await writeFile(`${file}.new`, text, { mode: 0o600, flag: 'wx' })
        await rename(`${file}.new`, file)
        output.result(`wrote key ${version} to ${file}`, { ok: true, file, version })
        return exitCodes.done
      }),
    )
}
