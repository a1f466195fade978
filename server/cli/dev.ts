/** `dev`: a whole cluster of real processes on this machine, until it is told to end. */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Command } from 'commander'
import { invalid } from '../../core/kv/errors.ts'
import { openPolicy } from '../proxy/policy.ts'
import { startDev, type DevCluster } from '../run/dev.ts'
import { exitCodes, type ExitCode, type Io, type Output } from './output.ts'
import { devFile } from './status.ts'

interface Asked {
  readonly data?: string
  readonly zones: number
  readonly proxies: number
  readonly memory?: boolean
  readonly durability: string
  readonly preset: string
  readonly port: number
  readonly etcd?: boolean
}

const durabilities = ['fsync', 'os'] as const
const presets = ['wide', 'juno'] as const

export function addDev(program: Command, io: Io, run: (work: (output: Output) => Promise<ExitCode>) => Promise<void>): void {
  program
    .command('dev')
    .description('starts a cluster of real processes on this machine; SIGINT or SIGTERM ends all of them')
    .option('--data <folder>', 'keeps what is written; default: a temporary folder, which goes at the end')
    .option('--memory', 'storage servers keep nothing')
    .option('--etcd', 'keeps the map in a real etcd, which it starts in the folder; default: in a file')
    .option('--zones <n>', '1, 3 or 5', whole('--zones'), 3)
    .option('--proxies <n>', '1 to 16', whole('--proxies'), 2)
    .option('--durability <mode>', 'fsync: each write is synced in groups; os: it survives a killed process, and no power cut', 'fsync')
    .option('--preset <name>', "limits: wide, or JunoDB's own (juno)", 'wide')
    .option('--port <n>', 'of the first proxy; the others follow. 0: any that are free', whole('--port'), 8_080)
    .action((asked: Asked) =>
      run(async (output) => {
        const cluster = await startDev({ ...optionsOf(asked, io), onAlarm: (text) => io.err(`alarm: ${text}\n`) })
        try {
          if (asked.data !== undefined) await writeFile(join(asked.data, devFile), JSON.stringify(jsonOf(cluster)), { mode: 0o600 })
          const ended = io.ended() // before anybody is told: from then on a signal may come
          announce(output, asked, cluster)
          await ended
        } finally {
          if (asked.data !== undefined) await rm(join(asked.data, devFile), { force: true })
          await cluster.close()
        }
        return exitCodes.done
      }),
    )
}

function optionsOf({ data: dir, zones, proxies, memory, durability, preset, port, etcd }: Asked, io: Io) {
  if (memory === true && dir !== undefined) invalid('--memory keeps nothing, and --data keeps it', 'give one of them')
  if (proxies < 1 || proxies > 16) invalid(`--proxies is 1 to 16, not ${proxies}`)
  if (port > 65_535) invalid(`--port is at most 65535, not ${port}`)
  return {
    dir,
    zones,
    proxies,
    memory,
    durability: oneOf('--durability', durability, durabilities),
    policy: { ...openPolicy, preset: oneOf('--preset', preset, presets) },
    port,
    etcd: etcd === true ? (io.env['HAPAX_ETCD'] ?? 'etcd') : undefined,
  }
}

/** What a program reads to find its way: one line of stdout, and a file of the folder. */
const jsonOf = ({ url, admin, etcd, processes }: DevCluster): object => ({
  kv: url,
  admin,
  ...(etcd === undefined ? {} : { etcd }),
  processes: processes.map(({ role, name, zone, pid, address, admin: window }) => ({
    role,
    name,
    ...(zone === undefined ? {} : { zone }),
    pid,
    address,
    admin: window,
  })),
})

function announce(output: Output, { data, memory, zones }: Asked, cluster: DevCluster): void {
  const { url, admin, etcd, processes } = cluster
  const kept = memory === true ? 'in memory' : data === undefined ? 'in a temporary folder (keep it with --data ./data)' : `in ${data}`
  const lines = [
    `a cluster of ${zones} ${zones === 1 ? 'zone' : 'zones'} on this machine, ${kept}`,
    `  kv         ${url}`,
    `  admin      ${admin}  (/status /readyz /metrics)`,
    ...(etcd === undefined ? [] : [`  etcd       ${etcd.address}  pid ${etcd.pid}`]),
    ...processes.map(({ name, address, pid }) => `  ${name.padEnd(10)} ${address}  pid ${pid}`),
    'in the clear, for this machine alone: not for production',
    `next: HAPAX_URL=${url} hapax create orders/42 '{"state":"new"}' --ttl 1h`,
    `      hapax status --admin ${admin}`,
  ]
  output.result(lines.join('\n'), jsonOf(cluster))
}

const whole =
  (name: string) =>
  (text: string): number =>
    /^\d{1,6}$/.test(text) ? Number(text) : invalid(`${name} is a whole number, not '${text}'`)

function oneOf<T extends string>(name: string, text: string, of: readonly T[]): T {
  const found = of.find((one) => one === text)
  return found ?? invalid(`${name} is one of ${of.join(', ')}, not '${text}'`)
}
