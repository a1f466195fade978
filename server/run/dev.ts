/**
 * A whole cluster of real processes on this machine, in one call: for trying out, and for users' tests.
 * Invariant: a child that dies comes back where it was; when this process ends, however it ends, all of them do.
 * Why real processes: what is killed here dies as it would at night.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { KvError } from '../../core/kv/errors.ts'
import type { Durability } from '../../core/engine/engine.ts'
import type { Policy } from '../proxy/policy.ts'
import { needEtcd } from './etcd-process.ts'
import { freePort } from './free-port.ts'
import { silentLog } from './log.ts'
import { childFile, packageVersion as version } from './package.ts'
import { readSettings, type Settings } from './settings.ts'
import { supervise, type Child, type ChildSpec } from './supervisor.ts'

export interface DevOptions {
  /** 1, 3 or 5. Default 3. */
  readonly zones?: number | undefined
  /** Default 2. */
  readonly proxies?: number | undefined
  /** Chosen once for a directory. Default 64. */
  readonly shards?: number | undefined
  /** Kept between runs. Default: a temporary directory, which goes at the end. */
  readonly dir?: string | undefined
  /** Storage servers keep nothing. Default false. */
  readonly memory?: boolean | undefined
  /** Default 'fsync'. */
  readonly durability?: Durability | undefined
  /** The address of the first proxy, and the ports of the others follow it. Default: any free ones. */
  readonly port?: number | undefined
  readonly policy?: Policy | undefined
  /** The map in a real etcd, in the directory; a text is where its program is. Default false: in a file. */
  readonly etcd?: boolean | string | undefined
  readonly onAlarm?: ((text: string) => void) | undefined
  /** The file of a child. Default: the one beside this. */
  readonly childFile?: string | undefined
}

export interface DevProcess {
  readonly role: 'storage' | 'proxy'
  readonly name: string
  readonly zone: number | undefined
  readonly pid: number
  readonly address: string
  /** The URL of its window: /livez, /readyz, /metrics, /status. */
  readonly admin: string
  /** It listens; what it needs of the others it may still be waiting for. */
  readonly isReady: boolean
}

export interface DevCluster extends AsyncDisposable {
  /** For `connect`; a namespace may follow. */
  readonly url: string
  readonly processes: readonly DevProcess[]
  /** The URL of a window over all of them. */
  readonly admin: string
  /** Present when the map is in one; its name for `signal` is `etcd`. */
  readonly etcd: { readonly pid: number; readonly address: string } | undefined
  /** How often children were brought back. */
  readonly restarts: number
  /** Sends a signal to a process, by its name: SIGKILL, SIGSTOP and SIGCONT make faults. */
  signal(name: string, signal: NodeJS.Signals): void
  /** Ends all, the proxies first. */
  close(): Promise<void>
}

/**
 * Starts storage servers and proxies, and resolves when all of them listen.
 * @throws KvError UNAVAILABLE when they do not listen in time, or there is no etcd
 * @example await using cluster = await startDev({ memory: true }); const kv = await connect(cluster.url)
 */
export async function startDev(options: DevOptions = {}): Promise<DevCluster> {
  const {
    zones = 3,
    proxies: proxyCount = 2,
    shards = 64,
    memory = false,
    durability = 'fsync',
    port = 0,
    policy,
    onAlarm = () => undefined,
  } = options
  const file = options.childFile ?? childFile
  const isTemporary = options.dir === undefined
  const program = options.etcd === true ? (process.env['HAPAX_ETCD'] ?? 'etcd') : options.etcd === false ? undefined : options.etcd
  if (program !== undefined) needEtcd(program)
  const dir = isTemporary ? mkdtempSync(join(tmpdir(), 'hapax-dev-')) : resolve(options.dir as string)
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const etcd = program === undefined ? undefined : { dir: join(dir, 'etcd'), program, address: `127.0.0.1:${await freePort()}` }
  const { values } = await readSettings({ flags: {}, env: {} })
  const map =
    etcd === undefined ? { 'map.file': join(dir, 'map.json') } : { 'map.etcd': [etcd.address], 'map.copy': join(dir, 'map-copy.json') }
  const common = { ...values, ...map, cluster: 'dev', zones: zones as Settings['zones'], shards, plain: true } as const
  const storage = Array.from({ length: zones }, (_, index): ChildSpec => {
    const name = `storage-${index + 1}`
    const kept = memory ? { memory } : { data: join(dir, name) }
    return {
      name,
      settings: { role: 'storage', version, log: 'parent', settings: { ...common, ...kept, name, zone: index + 1, durability } },
    }
  })
  const proxies = Array.from({ length: proxyCount }, (_, index): ChildSpec => {
    const name = `proxy-${index + 1}`
    const listen = `127.0.0.1:${port === 0 ? 0 : port + index}`
    return { name, settings: { role: 'proxy', version, log: 'parent', policy, settings: { ...common, name, listen, encryption: 'off' } } }
  })
  const below: ChildSpec[] = etcd === undefined ? [] : [{ name: 'etcd', isBelow: true, settings: { role: 'etcd', ...etcd } }]
  const clean = (): void => {
    if (isTemporary) rmSync(dir, { recursive: true, force: true })
  }
  const children = [...below, ...storage, ...proxies]
  const supervisor = await supervise({ name: 'dev', version, children, admin: '127.0.0.1:0', file, log: silentLog, onAlarm }).catch(
    (error: unknown) => {
      clean()
      throw error
    },
  )
  const close = async (): Promise<void> => {
    await supervisor.close()
    clean()
  }
  const addresses = supervisor.children.filter(({ spec }) => spec.settings.role === 'proxy').map(({ address }) => address)
  return {
    url: `hapax://${addresses.join(',')}`,
    admin: `http://${supervisor.admin}`,
    get processes() {
      return supervisor.children.flatMap(processOf)
    },
    get etcd() {
      const one = supervisor.children.find(({ spec }) => spec.isBelow)
      return one === undefined ? undefined : { pid: one.pid, address: one.address }
    },
    get restarts() {
      return supervisor.restarts
    },
    signal(name, signal) {
      const one = supervisor.children.find(({ spec }) => spec.name === name)
      if (one === undefined)
        throw new KvError('INVALID_ARGUMENT', {
          message: `there is no process '${name}'`,
          hint: supervisor.children.map(({ spec }) => spec.name).join(', '),
        })
      one.signal(signal)
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

function processOf({ spec, pid, address, admin, state }: Child): readonly DevProcess[] {
  const { name, settings } = spec
  if (settings.role === 'etcd') return []
  const zone = settings.role === 'storage' ? (settings.settings.zone as number) - 1 : undefined
  const isReady = state === 'listening' || state === 'ready'
  return [{ role: settings.role, name, zone, pid, address, admin: admin === undefined ? '' : `http://${admin}`, isReady }]
}
