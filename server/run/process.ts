/**
 * One process of a cluster, put together from its settings: a storage server or a proxy, its map, its certificates, its window.
 * Invariant: what it is told by files that may change (certificates, policy, keys) it takes anew while it runs; a file that makes no sense
 * changes nothing, and is told once.
 */
import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { seededRandom } from '../../core/base/random.ts'
import { invalid, isKvError, KvError } from '../../core/kv/errors.ts'
import { addressText, parseAddress } from '../../core/net/address.ts'
import { Credentials } from '../../core/net/tls.ts'
import { AdminServer, type Check } from '../edge/admin.ts'
import { Meter, type Gauge } from '../edge/meter.ts'
import { ProxyServer } from '../edge/proxy-server.ts'
import { parseKeyRing, Sealer } from '../edge/sealer.ts'
import { openStorageDisk } from '../edge/storage-disk.ts'
import { StorageServer } from '../edge/storage-server.ts'
import type { Source } from '../cluster/source.ts'
import { openPolicy, type Policy } from '../proxy/policy.ts'
import { EtcdSource } from '../source/etcd.ts'
import { FileSource } from '../source/file.ts'
import { KeyWatch } from './key-check.ts'
import { faultFields, type Log } from './log.ts'
import { parsePolicy } from './policy-file.ts'
import { checkSettings, isSecret, type ProcessRole, type SettingName, type Settings } from './settings.ts'

export interface ProcessOptions {
  readonly role: ProcessRole
  readonly settings: Settings
  readonly version: string
  readonly log: Log
  /** In the place of the setting `policy`: of a parent that has none in a file. */
  readonly policy?: Policy | undefined
  /** Called when it becomes ready, and when it is no longer; then with why not. */
  readonly onReadiness?: ((why: string | undefined) => void) | undefined
  /** The disk failed, or a law of our own was broken: the process has to end, without another word. */
  readonly onFailure: (error: unknown) => void
}

export interface RunningProcess {
  readonly address: string
  /** Of its window. */
  readonly admin: string
  /** Drains, and closes. */
  close(): Promise<void>
}

const watchMs = 5_000
const readinessMs = 250
/** Policies and key files are smaller. */
const fileBytesMax = 1_048_576

/** @throws KvError INVALID_ARGUMENT for settings that make no sense, and whatever its parts throw when they cannot be opened */
export async function openProcess(options: ProcessOptions): Promise<RunningProcess> {
  const { role, settings, version, log } = options
  checkSettings(role, settings)
  const closing: (() => unknown)[] = []
  const close = async (): Promise<void> => {
    for (const end of closing.splice(0).toReversed()) await end()
  }
  try {
    const source = await openSource(role, settings)
    closing.push(() => source.close())
    const security = await securityOf(options)
    if (security !== 'plain') closing.push(() => security[Symbol.asyncDispose]())
    const opened = role === 'storage' ? await openStorage(options, source, security) : await openProxy(options, source, security, closing)
    const { server, gauges, ready, status, meter } = opened
    closing.push(() => server.close())
    let isDraining = false
    const address = addressText(server.address)
    const checks = { ...ready, draining: () => (isDraining ? 'it is closing' : undefined) }
    const admin = await AdminServer.open({
      listen: parseAddress(settings['admin.listen']),
      meter: meter.with(gauges),
      live: { 'event-loop': () => undefined }, // who answers has a loop that turns
      ready: checks,
      status: () => ({ role, name: settings.name, cluster: settings.cluster, version, pid: process.pid, address, ...status() }),
    })
    log.info('listening', { address, admin: admin.address })
    closing.push(watchReadiness(checks, options))
    return {
      address,
      admin: admin.address,
      async close() {
        isDraining = true
        log.info('draining')
        await close()
        await admin.close()
        log.info('closed')
      },
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** Tells each change of whether it is ready. @returns what ends that */
function watchReadiness(checks: Readonly<Record<string, Check>>, { log, onReadiness }: ProcessOptions): () => void {
  let told: string | undefined = 'it has just begun'
  const look = (): void => {
    const why = Object.values(checks)
      .map((check) => check())
      .find((reason) => reason !== undefined)
    if ((why === undefined) === (told === undefined)) return
    told = why
    if (why === undefined) log.info('ready')
    else log.warn('not-ready', { what: why })
    onReadiness?.(why)
  }
  const timer = setInterval(look, readinessMs).unref()
  look()
  return () => clearInterval(timer)
}

async function openSource(role: ProcessRole, values: Settings): Promise<Source> {
  const { zones, shards } = values
  const serversPerZone = role === 'storage' ? values['servers-per-zone'] : undefined
  const file = values['map.file']
  if (file !== undefined) return await FileSource.open({ path: file, zones, shards, serversPerZone })
  const [ca, cert, key, password] = await Promise.all(
    (['map.ca', 'map.cert', 'map.key', 'map.password-file'] as const).map(async (name) => {
      const path = values[name]
      return path === undefined ? undefined : await contentOf(path, isSecret(name) ? name : undefined)
    }),
  )
  const user = values['map.user']
  if ((user === undefined) !== (password === undefined)) invalid('map.user and map.password-file go together')
  if ((ca === undefined) !== (cert === undefined) || (ca === undefined) !== (key === undefined))
    invalid('map.ca, map.cert and map.key go together')
  return await EtcdSource.open({
    hosts: values['map.etcd'],
    prefix: values['map.prefix'],
    copy: values['map.copy'],
    zones,
    shards,
    serversPerZone,
    tls: ca === undefined || cert === undefined || key === undefined ? undefined : { ca, cert, key },
    auth: user === undefined || password === undefined ? undefined : { username: user, password: password.toString('utf8').trim() },
  })
}

async function securityOf({ settings, log }: ProcessOptions): Promise<'plain' | Credentials> {
  const { 'tls.ca': ca, 'tls.cert': cert, 'tls.key': key, plain } = settings
  if (plain || ca === undefined || cert === undefined || key === undefined) return 'plain'
  return await Credentials.open({ ca, cert, key }, { onProblem: (error) => log.warn('alarm', faultFields(error)) })
}

interface Opened {
  readonly server: StorageServer | ProxyServer
  readonly gauges: readonly Gauge[]
  readonly ready: Readonly<Record<string, Check>>
  readonly status: () => object
  /** What the server counts with. */
  readonly meter: Meter
}

const commonOf = ({ settings, onFailure }: ProcessOptions, source: Source, security: 'plain' | Credentials) =>
  ({
    name: settings.name as string,
    cluster: settings.cluster as string,
    zones: settings.zones,
    listen: parseAddress(settings.listen),
    security,
    source,
    random: seededRandom(Number(process.hrtime.bigint() % 4_294_967_291n) ^ process.pid),
    limits: {
      handshakeMs: settings['timeouts.handshake'],
      readMs: settings['timeouts.read'],
      writeMs: settings['timeouts.write'],
      idleMs: settings['timeouts.idle'],
    },
    onFailure,
  }) as const

async function openStorage(options: ProcessOptions, source: Source, security: 'plain' | Credentials): Promise<Opened> {
  const { settings, version, log } = options
  const { durability, advertise } = settings
  const zone = (settings.zone as number) - 1
  const meter = new Meter({ role: 'storage', version, zone: String(zone + 1) })
  const disk = await openStorageDisk({ dir: settings.data, durability, cacheBytes: settings['cache-bytes'] })
  const server = await StorageServer.open({
    ...commonOf(options, source, security),
    zone,
    disk,
    durability,
    advertise,
    onEvent: (event) => count(meter, log, event),
    onAlarm: (what, shard) => log.warn('alarm', { what: `${what}${shard < 0 ? '' : ` (shard ${shard})`}` }),
  }).catch(async (error: unknown) => {
    await disk.close()
    throw error
  })
  let owned: readonly number[] = []
  source.watch(({ rows }) => {
    owned = rows.filter(({ servers }) => servers[zone] === settings.name).map(({ shard }) => shard)
  })
  const serving = (): number => owned.filter((shard) => server.isServing(shard)).length
  return {
    server,
    meter,
    gauges: [
      { name: 'hapax_shards_owned', help: 'Shards that the map gives to this server.', value: () => owned.length },
      { name: 'hapax_shards_serving', help: 'Shards that it votes for.', value: serving },
      { name: 'hapax_connections', help: 'Open connections of others.', value: () => server.stats.listener.peers },
    ],
    ready: {
      shards: () => (owned.length > 0 && serving() === owned.length ? undefined : `it votes for ${serving()} of ${owned.length} shards`),
    },
    status: () => ({ zone: zone + 1, shards: { owned: owned.length, serving: serving() }, events: meter.events }),
  }
}

async function openProxy(
  options: ProcessOptions,
  source: Source,
  security: 'plain' | Credentials,
  closing: (() => unknown)[],
): Promise<Opened> {
  const { settings, version, log } = options
  const meter = new Meter({ role: 'proxy', version })
  const { keys, policy: policyFile } = settings
  let ring = keys === undefined ? undefined : parseKeyRing(await secretIn(keys, 'keys'))
  const keyWatch = new KeyWatch({ source, retired: settings['keys-retired'].map(keyVersionIn), log })
  closing.push(() => keyWatch.close())
  await keyWatch.begin(() => ring)
  const sealer = ring === undefined ? undefined : new Sealer(ring)
  const policyOf = async (text: string) => await parsePolicy(text, policyFile?.endsWith('.json') === true)
  const policy = policyFile === undefined ? (options.policy ?? openPolicy) : await policyOf((await contentOf(policyFile)).toString('utf8'))
  const server = await ProxyServer.open({
    ...commonOf(options, source, security),
    shards: settings.shards,
    policy,
    ...(sealer === undefined ? {} : { sealer }),
    plainIdsRepeat: settings['plain-ids-repeat'],
    onEvent: (event) => count(meter, log, event),
    onRequest: (verb, status, ms) => meter.request(verb, status, ms),
  })
  if (policyFile !== undefined) closing.push(watchFile(policyFile, async (text) => server.replacePolicy(await policyOf(text)), log))
  const exchange = async (text: string): Promise<void> => {
    const next = parseKeyRing(text)
    await keyWatch.check(next)
    ring = next
    sealer?.replace(next)
  }
  if (keys !== undefined) closing.push(watchFile(keys, exchange, log))
  let rows: readonly (readonly string[])[] = []
  source.watch((map) => {
    rows = map.rows.map(({ servers }) => servers)
  })
  return {
    server,
    meter,
    gauges: [
      { name: 'hapax_requests_waiting', help: 'Requests under way.', value: () => server.stats.waiting },
      { name: 'hapax_connections', help: 'Open connections of clients.', value: () => server.stats.listener.peers },
      {
        name: 'hapax_connections_refused',
        help: 'Connections without a certificate that fits.',
        value: () => server.stats.listener.untrusted,
      },
    ],
    ready: {
      keys: () => keyWatch.why,
      map: () => (rows.length > 0 ? undefined : 'it knows no map yet'),
      quorum: () => (server.isReady(rows) ? undefined : 'a shard has no majority of its zones in reach'),
    },
    status: () => ({ requests: meter.requests, waiting: server.stats.waiting, events: meter.events, keyVersion: sealer?.version }),
  }
}

const keyVersionIn = (text: string): number =>
  /^\d{1,10}$/.test(text) ? Number(text) : invalid('keys-retired has versions of keys', 'whole numbers, as they stand in the key file')

function count(meter: Meter, log: Log, event: string): void {
  meter.event(event)
  log.debug('event', { what: event })
}

/** @param secret the setting, when its file is a secret: then it is told instead of the path, which may be the secret itself */
async function contentOf(path: string, secret?: SettingName): Promise<Buffer> {
  try {
    const { size } = await stat(path)
    if (size > fileBytesMax) invalid(`${path} is larger than ${fileBytesMax} bytes`)
    return await readFile(path)
  } catch (cause) {
    if (isKvError(cause)) throw cause
    const hint = 'look whether it is there, and whose it is'
    if (secret === undefined) throw new KvError('INVALID_ARGUMENT', { message: `${path} cannot be read`, hint, cause })
    const why = (cause as NodeJS.ErrnoException).code ?? 'no path'
    throw new KvError('INVALID_ARGUMENT', { message: `the file that ${secret} names cannot be read (${why})`, hint })
  }
}

/** A file that nobody but its owner may read. */
async function secretIn(path: string, setting: SettingName): Promise<string> {
  const content = await contentOf(path, setting)
  if (((await stat(path)).mode & 0o077) !== 0) invalid(`${path} can be read by others`, `chmod 600 ${path}`)
  return content.toString('utf8')
}

/** Looks at a file now and then, and hands it over when it is another one. @returns what ends that */
function watchFile(path: string, take: (text: string) => Promise<void>, log: Log): () => void {
  let seen: string | undefined
  let isLooking = false
  let told: string | undefined
  const look = async (): Promise<void> => {
    if (isLooking) return
    isLooking = true
    try {
      const content = await contentOf(path)
      const hash = createHash('sha256').update(content).digest('hex')
      const isNew = seen !== undefined && seen !== hash
      // What could not be taken is tried again: the map may be away.
      if (isNew) await take(content.toString('utf8'))
      if (isNew) told = undefined
      seen = hash
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error)
      if (problem !== told) log.warn('alarm', { what: `${path}: ${problem}; what was in use stays in use` })
      told = problem
    } finally {
      isLooking = false
    }
  }
  void look()
  const timer = setInterval(() => void look(), watchMs).unref()
  return () => clearInterval(timer)
}
