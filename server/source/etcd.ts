/**
 * The map in etcd: for clusters on more than one machine.
 * Invariant: a transaction takes only on the very keys that it was decided on (their mod revisions), and a read tells the newest map or fails.
 * Away is away: nothing is guessed, and whoever asked goes on with what he knows. There is no lease and no election, so none can be lost:
 * incarnations and epochs fence (docs: consistency).
 *
 *   PREFIX/shape          zones, shards and how many found, written once
 *   PREFIX/founding       touched by each join, so that candidates see each other
 *   PREFIX/rows/0000      a block of rows: the founding of many shards is one transaction, and a change writes one block
 *   PREFIX/servers/NAME   a row; its ceiling is refreshed often, and disturbs nobody else
 *   PREFIX/proposers      the last number that was given to a proxy
 *   PREFIX/keys/VERSION   a key that seals values, as a word that tells it from another one
 */
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Etcd3, IOptions, Watcher } from 'etcd3'
import { KvError, invalid, isKvError } from '../../core/kv/errors.ts'
import type { ShardRow } from '../../core/wire/replica-message.ts'
import type { MapAnswer, MapRequest, ServerRow } from '../../core/wire/server-message.ts'
import { foundingFault, newMap, transact, type ShardMap } from '../cluster/map.ts'
import type { KeyCheck, Source } from '../cluster/source.ts'
import { proposerByChance } from './memory.ts'

export interface EtcdSourceOptions {
  /** `host:port` or `https://host:port`. */
  readonly hosts: readonly string[]
  /** PEM, for TLS. */
  readonly tls?: { readonly ca: Buffer; readonly cert: Buffer; readonly key: Buffer } | undefined
  readonly auth?: { readonly username: string; readonly password: string } | undefined
  /** Stands before every key. Default `/hapax/`. Clusters that share an etcd need different ones. */
  readonly prefix?: string | undefined
  /** 1, 3 or 5. */
  readonly zones: number
  readonly shards: number
  /** Of whoever founds, as in `ShardMap`. Absent: as the others say, or 1. */
  readonly serversPerZone?: number | undefined
  /** A file that keeps the newest map: whoever starts while etcd is away works from it. */
  readonly copy?: string | undefined
}

/** For one call, in milliseconds. */
const callMs = 2_000
/** Others were faster; so often it is decided anew. */
const attemptsMax = 16
/** Etcd takes 128 operations a transaction, unless it is told otherwise. */
const blocksMax = 100
const rowsMin = 64
/** Changes that come close together are read once, in milliseconds. */
const settleMs = 5
/** When the watch tells nothing, the map is looked at all the same, in milliseconds. */
const lookMs = 5_000
const copyFormat = 1

interface Shape {
  readonly zones: number
  readonly shards: number
  readonly serversPerZone?: number
}
const shapeOf = ({ zones, shards, serversPerZone }: ShardMap): Shape => ({ zones, shards, serversPerZone })

interface Held {
  readonly map: ShardMap
  /** By key: the revision of its last change. */
  readonly revisions: ReadonlyMap<string, string>
  /** Of the newest key. */
  readonly revision: bigint
}

export class EtcdSource implements Source {
  readonly #client: Etcd3
  readonly #options: EtcdSourceOptions
  readonly #prefix: string
  readonly #rowsPerBlock: number
  readonly #listeners = new Set<(map: ShardMap) => void>()
  #held: Held | undefined
  #map: ShardMap
  #watcher: Watcher | undefined
  #timer: NodeJS.Timeout | undefined
  #look: NodeJS.Timeout | undefined
  #reading: Promise<Held> | undefined
  #writing: Promise<void> = Promise.resolve()
  #isClosed = false

  /**
   * Connects, and reads the map; when etcd is away, the copy.
   * @throws KvError UNAVAILABLE when etcd is away and there is no copy; INVALID_ARGUMENT for another number of zones or shards.
   */
  static async open(options: EtcdSourceOptions): Promise<EtcdSource> {
    // Loaded by whoever needs it: it takes a tenth of a second.
    const [{ Etcd3: Client, isRecoverableError }, { ExponentialBackoff, circuitBreaker, ConsecutiveBreaker, handleWhen }] =
      await Promise.all([import('etcd3'), import('cockatiel')])
    const settings: IOptions = {
      hosts: [...options.hosts],
      dialTimeout: callMs,
      grpcOptions: {
        'grpc.initial_reconnect_backoff_ms': 100,
        'grpc.min_reconnect_backoff_ms': 100,
        'grpc.max_reconnect_backoff_ms': 500,
        'grpc.keepalive_time_ms': 5_000,
        'grpc.keepalive_timeout_ms': 2_000,
        'grpc.keepalive_permit_without_calls': 1,
      },
      defaultCallOptions: (context) => (context.isStream ? {} : { deadline: Date.now() + callMs }),
      faultHandling: {
        // Its types are those of an earlier cockatiel; it is the factory that is asked for the first wait, and each wait for the next.
        watchBackoff: new ExponentialBackoff({ initialDelay: 50, maxDelay: 500 }) as never,
        host: () => circuitBreaker(handleWhen(isRecoverableError), { halfOpenAfter: 500, breaker: new ConsecutiveBreaker(3) }),
      },
      ...(options.tls === undefined
        ? {}
        : { credentials: { rootCertificate: options.tls.ca, privateKey: options.tls.key, certChain: options.tls.cert } }),
      ...(options.auth === undefined ? {} : { auth: options.auth }),
    }
    const source = new EtcdSource(new Client(settings), options)
    try {
      await source.#begin()
    } catch (error) {
      await source.close()
      throw error
    }
    return source
  }

  private constructor(client: Etcd3, options: EtcdSourceOptions) {
    const { zones, shards, prefix = '/hapax/' } = options
    this.#client = client
    this.#options = options
    this.#prefix = prefix.endsWith('/') ? prefix : `${prefix}/`
    this.#rowsPerBlock = Math.max(rowsMin, Math.ceil(shards / blocksMax))
    this.#map = newMap(zones, shards, options.serversPerZone)
  }

  async ask(request: MapRequest): Promise<MapAnswer> {
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const held = await this.#newest()
      const { map, answer } = transact(held.map, request)
      if (map === held.map || (await this.#commit(held, map, request.type === 'map-join'))) {
        if (map !== held.map) await this.#read()
        return answer
      }
      this.#held = undefined
    }
    throw new KvError('UNAVAILABLE', { message: 'the map changed again and again while it was to be changed' })
  }

  watch(listener: (map: ShardMap) => void): () => void {
    this.#listeners.add(listener)
    listener(this.#map)
    return () => this.#listeners.delete(listener)
  }

  /** From a counter, and by chance while etcd is away. */
  async proposerId(): Promise<number> {
    const key = `${this.#prefix}proposers`
    try {
      for (let attempt = 0; attempt < attemptsMax; attempt++) {
        const [found] = (await this.#client.get(key).exec()).kvs
        const next = Number(found?.value.toString() ?? '0') + 1
        const { succeeded } = await this.#client
          .if(key, 'Mod', '==', found?.mod_revision ?? '0')
          .then(this.#client.put(key).value(String(next)))
          .commit()
        if (succeeded) return next
      }
    } catch {
      // Away: what the counter gives never has the bit that these have.
    }
    return proposerByChance()
  }

  async keyChecks(more: readonly KeyCheck[]): Promise<readonly KeyCheck[]> {
    const prefix = `${this.#prefix}keys/`
    for (const { version, check } of more) {
      const key = `${prefix}${version}`
      await this.#call(this.#client.if(key, 'Mod', '==', '0').then(this.#client.put(key).value(check)).commit())
    }
    const { kvs } = await this.#call(this.#client.getAll().prefix(prefix).exec())
    const all = kvs.map(({ key, value }) => ({ version: Number(key.toString().slice(prefix.length)), check: value.toString() }))
    return all.toSorted((a, b) => a.version - b.version)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#listeners.clear()
    clearTimeout(this.#timer)
    clearInterval(this.#look)
    await this.#watcher?.cancel().catch(() => undefined)
    await this.#reading?.catch(() => undefined)
    await this.#writing
    this.#client.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #begin(): Promise<void> {
    try {
      await this.#read()
    } catch (error) {
      if (!isKvError(error, 'UNAVAILABLE')) throw error
      const copied = await this.#readCopy()
      if (copied === undefined) throw error
      this.#tell(copied)
    }
    this.#look = setInterval(() => this.#plan(0), lookMs)
    this.#look.unref()
    void this.#watch()
  }

  async #watch(): Promise<void> {
    try {
      const watcher = await this.#client.watch().prefix(this.#prefix).create()
      if (this.#isClosed) return await watcher.cancel()
      this.#watcher = watcher
      const plan = (): void => this.#plan(settleMs)
      watcher.on('put', plan).on('delete', plan).on('connected', plan)
      // They come in bursts while etcd is away, and the watch mends itself.
      watcher.on('error', () => undefined)
    } catch {
      if (!this.#isClosed) setTimeout(() => void this.#watch(), lookMs).unref()
    }
  }

  /** Reads the map soon, once for all who ask until then. */
  #plan(ms: number): void {
    if (this.#timer !== undefined || this.#isClosed) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#newest().catch(() => undefined)
    }, ms)
    this.#timer.unref()
  }

  /** The map as etcd has it now. When nothing changed since it was read, one small answer says so. */
  async #newest(): Promise<Held> {
    const held = this.#held
    if (held === undefined) return await this.#read()
    const { kvs } = await this.#call(this.#client.getAll().prefix(this.#prefix).sort('Mod', 'Descend').limit(1).exec())
    return BigInt(kvs[0]?.mod_revision ?? 0) === held.revision ? held : await this.#read()
  }

  #read(): Promise<Held> {
    this.#reading ??= this.#readAll().finally(() => (this.#reading = undefined))
    return this.#reading
  }

  async #readAll(): Promise<Held> {
    const { zones, shards } = this.#options
    let serversPerZone = this.#options.serversPerZone ?? 1
    const { kvs } = await this.#call(this.#client.getAll().prefix(this.#prefix).exec())
    const revisions = new Map<string, string>()
    let revision = 0n
    let rows: ShardRow[] = []
    const servers: ServerRow[] = []
    for (const { key, value, mod_revision: changedAt } of kvs) {
      const name = key.toString().slice(this.#prefix.length)
      revisions.set(name, changedAt)
      if (BigInt(changedAt) > revision) revision = BigInt(changedAt)
      if (name === 'shape') serversPerZone = this.#checkShape(JSON.parse(value.toString()) as Shape)
      else if (name.startsWith('rows/')) rows = rows.concat(JSON.parse(value.toString()) as ShardRow[])
      else if (name.startsWith('servers/')) servers.push(JSON.parse(value.toString()) as ServerRow)
    }
    const held = { map: { zones, shards, serversPerZone, rows, servers }, revisions, revision }
    const fault = foundingFault(held.map, this.#options.serversPerZone)
    if (fault !== undefined) invalid(fault, 'all storage servers have the same setting servers-per-zone')
    this.#held = held
    this.#tell(held.map)
    if (this.#options.copy !== undefined) this.#writing = this.#writing.then(() => this.#writeCopy(held.map))
    return held
  }

  /** @returns how many servers of each zone found */
  #checkShape({ zones, shards, serversPerZone = 1 }: Shape): number {
    if (zones === this.#options.zones && shards === this.#options.shards) return serversPerZone
    invalid(
      `the map under ${this.#prefix} was made for ${zones} zones and ${shards} shards, not ${this.#options.zones} and ${this.#options.shards}`,
      'these are chosen once, when a cluster is founded; another cluster needs another prefix',
    )
  }

  /** @returns false: somebody else changed what this was decided on */
  async #commit({ map: before, revisions }: Held, after: ShardMap, isJoin: boolean): Promise<boolean> {
    const changes = new Map<string, string>()
    if (!revisions.has('shape')) changes.set('shape', JSON.stringify(shapeOf(after)))
    if (isJoin) changes.set('founding', String(after.servers.length))
    for (const row of after.servers) if (!before.servers.includes(row)) changes.set(`servers/${row.server}`, JSON.stringify(row))
    for (let block = 0; block * this.#rowsPerBlock < after.rows.length; block++) {
      const range = [block * this.#rowsPerBlock, (block + 1) * this.#rowsPerBlock] as const
      const rows = after.rows.slice(...range)
      if (rows.some((row) => !before.rows.includes(row))) changes.set(`rows/${String(block).padStart(4, '0')}`, JSON.stringify(rows))
    }
    const [first, ...others] = [...changes.keys()]
    if (first === undefined) return true
    const revisionOf = (name: string): string => revisions.get(name) ?? '0'
    let compare = this.#client.if(`${this.#prefix}${first}`, 'Mod', '==', revisionOf(first))
    for (const name of others) compare = compare.and(`${this.#prefix}${name}`, 'Mod', '==', revisionOf(name))
    const puts = [...changes].map(([name, value]) => this.#client.put(`${this.#prefix}${name}`).value(value))
    const { succeeded } = await this.#call(compare.then(...puts).commit())
    return succeeded
  }

  #tell(map: ShardMap): void {
    this.#map = map
    if (!this.#isClosed) for (const listener of this.#listeners) listener(map)
  }

  async #call<T>(promise: Promise<T>): Promise<T> {
    try {
      return await promise
    } catch (cause) {
      throw new KvError('UNAVAILABLE', {
        message: 'etcd cannot be reached, or did not answer in time',
        hint: 'look at `cause`; what is known holds meanwhile',
        cause,
      })
    }
  }

  async #readCopy(): Promise<ShardMap | undefined> {
    const { copy, zones, shards } = this.#options
    if (copy === undefined) return undefined
    try {
      const found = JSON.parse(await readFile(copy, 'utf8')) as ShardMap & { readonly format: number }
      if (found.format !== copyFormat || found.zones !== zones || found.shards !== shards) return undefined
      return { ...newMap(zones, shards, found.serversPerZone), rows: found.rows, servers: found.servers }
    } catch {
      return undefined
    }
  }

  /** A copy that cannot be written is a pity and no fault. */
  async #writeCopy(map: ShardMap): Promise<void> {
    const path = this.#options.copy as string
    try {
      await mkdir(dirname(path), { recursive: true })
      const next = `${path}.${process.pid}`
      const file = await open(next, 'w', 0o600)
      try {
        await file.writeFile(JSON.stringify({ format: copyFormat, ...map }))
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(next, path)
    } catch {
      return
    }
  }
}
