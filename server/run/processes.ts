/**
 * Several processes of one role on one machine, by the settings of one (`--processes`).
 * Invariant: proxies are one to those who dial them: one port, one name, one certificate; each has a number of its own from the map for its
 * ballots. Storage servers share nothing: each has its own name, directory, port and place in the map.
 * Why processes and not threads: what fails takes one process with it, and the kernel gives each its own share of the machine.
 */
import { invalid } from '../../core/kv/errors.ts'
import { addressText, parseAddress } from '../../core/net/address.ts'
import { freePort } from './free-port.ts'
import type { Log } from './log.ts'
import { childFile } from './package.ts'
import { checkSettings, type ProcessRole, type Settings } from './settings.ts'
import { supervise, type ChildSpec } from './supervisor.ts'

export interface ProcessesOptions {
  readonly role: ProcessRole
  readonly settings: Settings
  readonly version: string
  readonly log: Log
  /** The file of a child. Default: the one of this package. */
  readonly file?: string | undefined
}

export interface RunningProcesses {
  /** Of the proxies, or of the first storage server. */
  readonly address: string
  /** Of the window over all of them. */
  readonly admin: string
  readonly processes: readonly {
    readonly name: string
    readonly pid: number
    readonly address: string
    readonly admin: string | undefined
  }[]
  close(): Promise<void>
}

/** @throws KvError INVALID_ARGUMENT for settings that several cannot share, and whatever a child refuses to start for */
export async function openProcesses({ role, settings, version, log, file = childFile }: ProcessesOptions): Promise<RunningProcesses> {
  const each = settingsOfEach(role, role === 'proxy' ? { ...settings, listen: await settled(settings.listen) } : settings)
  for (const one of each) checkSettings(role, one)
  // The parent makes the name of a shared Unix socket: it is for the user of this process alone.
  if (settings.listen.startsWith('unix:')) process.umask(0o077)
  const children = each.map((one, index): ChildSpec => {
    const name = role === 'proxy' ? `${one.name}/${index + 1}` : (one.name as string)
    return { name, sharesPort: role === 'proxy', settings: { role, settings: one, version, log: 'lines' } }
  })
  const {
    admin,
    close,
    children: running,
  } = await supervise({
    name: settings.name as string,
    version,
    children,
    admin: settings['admin.listen'],
    file,
    log,
    onAlarm: (text) => log.warn('alarm', { what: text }),
  })
  return {
    address: running[0]?.address ?? '',
    admin,
    processes: running.map(({ spec, pid, address, admin: window }) => ({ name: spec.name, pid, address, admin: window })),
    async close() {
      log.info('draining')
      await close()
      log.info('closed')
    },
  }
}

const place = '{n}'

/** Each has a window of its own beside the one over all, at a port that is free. */
export function settingsOfEach(role: ProcessRole, settings: Settings): readonly Settings[] {
  const { processes, listen } = settings
  if (role === 'proxy') {
    const own = { ...settings, processes: 1, 'admin.listen': '127.0.0.1:0' }
    return Array.from({ length: processes }, () => own)
  }
  for (const name of ['tls.cert', 'tls.key'] as const)
    if (settings[name]?.includes(place) === false)
      invalid(`${name} is one file, and there are ${processes} storage servers`, `write ${place} where the number of each stands, from 1`)
  return Array.from({ length: processes }, (_, index): Settings => {
    const numbered = (text: string | undefined, apart: string): string | undefined =>
      text === undefined || text.includes(place) ? text?.replaceAll(place, String(index + 1)) : `${text}${apart}${index + 1}`
    return {
      ...settings,
      processes: 1,
      'admin.listen': '127.0.0.1:0',
      name: numbered(settings.name, '-'),
      data: numbered(settings.data, '/'),
      'tls.cert': numbered(settings['tls.cert'], ''),
      'tls.key': numbered(settings['tls.key'], ''),
      listen: following(listen, index),
      advertise: settings.advertise === undefined ? undefined : following(settings.advertise, index),
      'map.copy': numbered(settings['map.copy'], '.'),
    }
  })
}

/** Processes that share a port ask for it by its number: one that comes back would be given another free one. */
async function settled(text: string): Promise<string> {
  const address = parseAddress(text)
  if ('path' in address || address.port !== 0) return text
  return addressText({ host: address.host, port: await freePort(address.host) })
}

/** The port after the next ... of an address; any free one stays any. */
function following(text: string, index: number): string {
  const address = parseAddress(text)
  if ('path' in address) return `${text}.${index + 1}`
  const port = address.port === 0 ? 0 : address.port + index
  if (port > 65_535) invalid(`there is no port ${port} for the storage server ${index + 1}`, 'listen at a lower one')
  return addressText({ host: address.host, port })
}
