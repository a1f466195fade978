/**
 * The directory of an embedded store: its marker file, whose it is, and the space around it.
 * Invariant: the marker is durable before any record is, and is replaced only as a whole.
 * Why the engine's own lock decides who has the directory: the system drops it when a process dies, however it dies, and a process id
 * that comes again means nothing. The file with the owner's id only serves the message.
 */
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { KvError } from '../kv/errors.ts'
import { codeOf, messageOf, type Durability } from './engine.ts'
import { decodeMarker, encodeMarker, type Marker } from './layout.ts'

const markerName = 'hapax.json'
const ownerName = 'owner.json'
/** How long the logs were at the last clean close (write-ahead-log.ts). */
export const sealFile = (dir: string): string => join(dir, 'closed.json')
/** Where the engine keeps its files. */
export const engineDir = (dir: string): string => join(dir, 'records')

/** Names that a fresh directory may hold: the root of a file system, and what a creation left that was cut off. */
const isNothing = (name: string): boolean => name === 'lost+found' || name.startsWith(`${markerName}.`)

/** The marker of the directory; undefined when there is no directory, or nothing in it. @throws KvError ENGINE_DIFFERS when it is not ours. */
export function readMarker(dir: string): Marker | undefined {
  let text: string
  try {
    text = readFileSync(join(dir, markerName), 'utf8')
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw unusable(dir, error)
    const foreign = namesIn(dir).filter((name) => !isNothing(name))
    if (foreign.length === 0) return undefined
    throw new KvError('ENGINE_DIFFERS', {
      message: `the directory ${dir} is not empty and has no ${markerName}: hapax did not make it`,
      hint: 'give the store an empty directory of its own',
    })
  }
  return decodeMarker(text)
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return []
    throw unusable(dir, error)
  }
}

/** Writes the marker of a new directory. When another process was faster, its marker stays and is returned. */
export function createMarker(dir: string, marker: Marker): Marker {
  try {
    const above = mkdirSync(dir, { recursive: true }) ?? resolve(dir)
    const written = writeDurably(dir, markerName, encodeMarker(marker))
    try {
      linkSync(written, join(dir, markerName)) // unlike a rename, it never replaces what another process wrote
    } catch (error) {
      if (codeOf(error) === 'EEXIST') return decodeMarker(readFileSync(join(dir, markerName), 'utf8'))
      renameSync(written, join(dir, markerName)) // a file system without links
    } finally {
      rmSync(written, { force: true })
    }
    mkdirSync(engineDir(dir), { recursive: true })
    // The names on the way down to the marker must survive a power cut as well, each in the directory above it.
    for (let path = resolve(dir); ; path = dirname(path)) {
      try {
        syncDirectory(path)
      } catch (error) {
        if (path === resolve(dir) || codeOf(error) !== 'EACCES') throw error // one may be let through a directory and not into it
      }
      if (path === dirname(resolve(above))) break
    }
    return marker
  } catch (error) {
    throw unusable(dir, error)
  }
}

/** Puts another marker in the place of the present one. */
export function replaceMarker(dir: string, marker: Marker): void {
  renameSync(writeDurably(dir, markerName, encodeMarker(marker)), join(dir, markerName))
  syncDirectory(dir)
}

/** A durable file under a name of its own beside `name`; returns its path. */
function writeDurably(dir: string, name: string, text: string): string {
  const path = join(dir, `${name}.${process.pid}`)
  const fd = openSync(path, 'w', 0o644)
  try {
    writeSync(fd, text)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  return path
}

function unusable(dir: string, error: unknown): KvError {
  if (error instanceof KvError) return error
  return new KvError('UNAVAILABLE', {
    message: `the directory ${dir} cannot be used: ${messageOf(error)}`,
    hint: 'look at its path and permissions',
    cause: error,
  })
}

/** Who has, or had, the directory. */
interface Owner {
  readonly pid?: unknown
  readonly since?: unknown
  readonly durability?: unknown
  /** The system's name for the time since the machine started; '' where it has none. */
  readonly boot?: unknown
}

/** Leaves word of who has the directory. To be called with the engine's lock held. */
export function writeOwner(dir: string, durability: Durability): void {
  try {
    const owner: Owner = { pid: process.pid, since: new Date().toISOString(), durability, boot: bootId() }
    renameSync(writeDurably(dir, ownerName, `${JSON.stringify(owner)}\n`), join(dir, ownerName))
    syncDirectory(dir)
  } catch {
    // Only messages would be better with it; a full disk must not keep a store from opening.
    removeOwner(dir)
  }
}

export function removeOwner(dir: string): void {
  rmSync(join(dir, ownerName), { force: true })
}

/** True when what is on disk was written in the order of the calls: nothing but a machine that stops, with writes not synced, changes that. */
export function isOrdered(dir: string): boolean {
  let owner: Owner
  try {
    owner = JSON.parse(readFileSync(join(dir, ownerName), 'utf8')) as Owner
  } catch (error) {
    return codeOf(error) === 'ENOENT' // closed in order
  }
  return owner.durability === 'fsync' || (owner.boot !== '' && owner.boot === bootId())
}

function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return ''
  }
}

/** The error for a directory whose engine is locked. */
export function inUse(dir: string, cause: unknown): KvError {
  let owner: Owner = {}
  try {
    owner = JSON.parse(readFileSync(join(dir, ownerName), 'utf8')) as Owner
  } catch {
    // It is opening at this moment, or could not write the file.
  }
  const { pid, since } = owner
  if (typeof pid !== 'number') return new KvError('DIRECTORY_IN_USE', { message: `another process has ${dir} open`, cause })
  if (pid === process.pid)
    return new KvError('DIRECTORY_IN_USE', {
      message: `this process (${pid}) has ${dir} open already`,
      hint: 'open a directory once and share the store',
      cause,
    })
  return new KvError('DIRECTORY_IN_USE', {
    message: `process ${pid} has ${dir} open, since ${String(since)}`,
    hint: `stop process ${pid}, or give this one a directory of its own`,
    cause,
  })
}

/** What an engine needs beyond the logs that it reads again into table files, in bytes. */
const spareBytes = 1_048_576

/** @throws KvError DISK_FULL unless an engine can be opened again here: it writes what its logs hold into table files first. */
export function needSpace(dir: string): void {
  const logs = readdirSync(dir).filter((name) => name.endsWith('.log'))
  const needed = logs.reduce((sum, name) => sum + statSync(join(dir, name)).size, spareBytes)
  const { bavail, bsize } = statfsSync(dir)
  if (bavail * bsize < needed)
    throw new KvError('DISK_FULL', { message: `there are ${bavail * bsize} bytes left on the disk, and ${needed} are needed to go on` })
}

/** Makes names in a directory durable. Not possible, and not needed, on Windows. */
export function syncDirectory(dir: string): void {
  if (process.platform === 'win32') return
  const fd = openSync(dir, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

export function removeMarker(dir: string): void {
  rmSync(join(dir, markerName), { force: true })
}
