/**
 * The map in a file: for clusters on one machine, without etcd.
 * Invariant: one transaction at a time over all processes, each as `transact` decides it; a reader finds a whole map, the old or the new one.
 * Why polling and no watcher: a file that is replaced by a rename tells some watchers nothing.
 */
import { open, readFile, rename, rm, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { KvError, invalid } from '../../core/kv/errors.ts'
import type { MapAnswer, MapRequest } from '../../core/wire/server-message.ts'
import { foundingFault, newMap, transact, type ShardMap } from '../cluster/map.ts'
import { withKeyChecks, type KeyCheck, type Source } from '../cluster/source.ts'
import { proposerByChance } from './memory.ts'

export interface FileSourceOptions {
  readonly path: string
  /** 1, 3 or 5. */
  readonly zones: number
  readonly shards: number
  /** Of whoever founds, as in `ShardMap`. Absent: as the others say, or 1. */
  readonly serversPerZone?: number | undefined
  /** How often the file is looked at, in milliseconds. Default 200. */
  readonly pollMs?: number
}

const format = 1
const pollMsDefault = 200
/** How long a transaction waits for those of others, in milliseconds. */
const lockMs = 2_000
const lockPauseMs = 5

export class FileSource implements Source {
  readonly #path: string
  readonly #options: FileSourceOptions
  readonly #listeners = new Set<(map: ShardMap) => void>()
  readonly #timer: NodeJS.Timeout
  #map: ShardMap
  /** Of the file that `#map` was read from. */
  #stamp: string
  #last: Promise<unknown> = Promise.resolve()
  #isClosed = false

  /** @throws KvError INVALID_ARGUMENT when the file is no map, or one of another number of zones or shards. */
  static async open(options: FileSourceOptions): Promise<FileSource> {
    const path = resolve(options.path)
    const { map, stamp } = await readMap(path, options)
    return new FileSource(path, options, map, stamp)
  }

  private constructor(path: string, options: FileSourceOptions, map: ShardMap, stamp: string) {
    this.#path = path
    this.#options = options
    this.#map = map
    this.#stamp = stamp
    this.#timer = setInterval(() => void this.#look(), options.pollMs ?? pollMsDefault)
    this.#timer.unref()
  }

  ask(request: MapRequest): Promise<MapAnswer> {
    const answer = this.#last.then(() => (request.type === 'map-read' ? this.#read(request) : this.#change(request)))
    this.#last = answer.catch(() => undefined)
    return answer
  }

  watch(listener: (map: ShardMap) => void): () => void {
    this.#listeners.add(listener)
    listener(this.#map)
    return () => this.#listeners.delete(listener)
  }

  async proposerId(): Promise<number> {
    return proposerByChance()
  }

  keyChecks(more: readonly KeyCheck[]): Promise<readonly KeyCheck[]> {
    const answer = this.#last.then(() => this.#keyChecks(more))
    this.#last = answer.catch(() => undefined)
    return answer
  }

  async close(): Promise<void> {
    this.#isClosed = true
    clearInterval(this.#timer)
    this.#listeners.clear()
    await this.#last
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #read(request: MapRequest): Promise<MapAnswer> {
    await this.#refresh()
    return transact(this.#map, request).answer
  }

  async #change(request: MapRequest): Promise<MapAnswer> {
    const unlock = await lock(`${this.#path}.lock`)
    try {
      await this.#refresh()
      const { map, answer } = transact(this.#map, request)
      if (map !== this.#map) {
        await writeWhole(this.#path, `${JSON.stringify({ format, ...map })}\n`)
        this.#take(map, await stampOf(this.#path))
      }
      return answer
    } catch (cause) {
      if (cause instanceof KvError) throw cause
      throw new KvError('UNAVAILABLE', { message: `the map in ${this.#path} cannot be written`, cause })
    } finally {
      await unlock()
    }
  }

  /** In a file beside the map: they come seldom, and who reads the map does not need them. */
  async #keyChecks(more: readonly KeyCheck[]): Promise<readonly KeyCheck[]> {
    const path = `${this.#path}.keys`
    const unlock = await lock(`${this.#path}.lock`)
    try {
      const known = await readKeys(path)
      const all = withKeyChecks(known, more)
      if (all !== known) await writeWhole(path, `${JSON.stringify({ format, keys: all })}\n`)
      return all
    } catch (cause) {
      if (cause instanceof KvError) throw cause
      throw new KvError('UNAVAILABLE', { message: `what is known of keys in ${path} cannot be written`, cause })
    } finally {
      await unlock()
    }
  }

  /** For whoever watches. What goes wrong is told to whoever asks. */
  async #look(): Promise<void> {
    try {
      await this.#refresh()
    } catch {
      // What was known holds: a map that is away changes nothing.
    }
  }

  async #refresh(): Promise<void> {
    if ((await stampOf(this.#path)) === this.#stamp) return
    const { map, stamp } = await readMap(this.#path, this.#options)
    this.#take(map, stamp)
  }

  #take(map: ShardMap, stamp: string): void {
    this.#stamp = stamp
    this.#map = map
    if (!this.#isClosed) for (const listener of this.#listeners) listener(map)
  }
}

async function readMap(
  path: string,
  { zones, shards, serversPerZone }: FileSourceOptions,
): Promise<{ readonly map: ShardMap; readonly stamp: string }> {
  const stamp = await stampOf(path)
  if (stamp === '') return { map: newMap(zones, shards, serversPerZone), stamp }
  let found: ShardMap & { readonly format: number }
  try {
    found = JSON.parse(await readFile(path, 'utf8')) as typeof found
  } catch (cause) {
    throw new KvError('INVALID_ARGUMENT', {
      message: `${path} is no map of a cluster`,
      hint: 'name another file: nothing was changed',
      cause,
    })
  }
  if (found.format !== format) invalid(`${path} has format ${found.format} of the map, and this release knows ${format}`)
  if (found.zones !== zones || found.shards !== shards)
    invalid(
      `the map in ${path} was made for ${found.zones} zones and ${found.shards} shards, not ${zones} and ${shards}`,
      'these are chosen once, when a cluster is founded',
    )
  const map = { ...newMap(zones, shards, found.serversPerZone), rows: found.rows, servers: found.servers }
  const fault = foundingFault(map, serversPerZone)
  if (fault !== undefined) invalid(fault, 'all storage servers have the same setting servers-per-zone')
  return { map, stamp }
}

async function readKeys(path: string): Promise<readonly KeyCheck[]> {
  try {
    const found = JSON.parse(await readFile(path, 'utf8')) as { readonly format: number; readonly keys: readonly KeyCheck[] }
    if (found.format === format) return found.keys
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
  }
  return invalid(`${path} does not say which keys seal values`, 'put it back from a copy: without it nobody sees that a key is missing')
}

/** Changes with each replacement of the file; '' when there is none. */
async function stampOf(path: string): Promise<string> {
  try {
    const { ino, mtimeNs, size } = await stat(path, { bigint: true })
    return `${ino} ${mtimeNs} ${size}`
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ''
    throw new KvError('UNAVAILABLE', { message: `the map in ${path} cannot be read`, cause: error })
  }
}

async function writeWhole(path: string, text: string): Promise<void> {
  const next = `${path}.${process.pid}`
  const file = await open(next, 'w', 0o600)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(next, path)
}

/** @returns lets it go */
async function lock(path: string): Promise<() => Promise<void>> {
  const endsAt = performance.now() + lockMs
  for (;;) {
    try {
      const file = await open(path, 'wx', 0o600)
      await file.writeFile(String(process.pid))
      await file.close()
      return () => rm(path, { force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    if (await isLeft(path)) await rm(path, { force: true })
    if (performance.now() > endsAt)
      throw new KvError('UNAVAILABLE', { message: `${path} is held for too long`, hint: 'another process stands still with the lock' })
    await new Promise((go) => setTimeout(go, lockPauseMs))
  }
}

/** Whether whoever holds the lock is dead. */
async function isLeft(path: string): Promise<boolean> {
  const pid = Number(await readFile(path, 'utf8').catch(() => ''))
  if (pid === 0) return false // it is being written, or gone
  try {
    process.kill(pid, 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
}
