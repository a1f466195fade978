/** Which cluster a command talks to: the options, the environment, and a connection that is closed at the end. */
import type { Command } from 'commander'
import { connect } from '../../core/client/client.ts'
import { invalid } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import type { ExitCode, Io } from './output.ts'

export interface Target {
  readonly url?: string
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
}

/** Adds the options. */
export const target = (command: Command): Command =>
  command
    .option('--url <url>', 'which cluster: hapax://host:port,host:port/namespace; default: HAPAX_URL')
    .option('--ca <file>', "the cluster's authority, PEM; default: HAPAX_CA. Without it: in the clear, on this machine alone")
    .option('--cert <file>', 'the certificate of this client, PEM; default: HAPAX_CERT')
    .option('--key <file>', 'its key, PEM; default: HAPAX_KEY')

export async function onCluster(io: Io, { url, ...files }: Target, work: (kv: KV) => Promise<ExitCode>): Promise<ExitCode> {
  const { env } = io
  const { ca = env['HAPAX_CA'], cert = env['HAPAX_CERT'], key = env['HAPAX_KEY'] } = files
  if ((ca === undefined) !== (cert === undefined) || (ca === undefined) !== (key === undefined))
    invalid('the authority, a certificate and its key go together', 'give --ca, --cert and --key, or none of them')
  const tls = ca === undefined || cert === undefined || key === undefined ? undefined : { ca, cert, key }
  const kv = await connect(url ?? env['HAPAX_URL'], tls === undefined ? {} : { tls })
  try {
    return await work(kv)
  } finally {
    await kv.close()
  }
}
