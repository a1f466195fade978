/**
 * Opens the engine of a directory, and says in our words why it cannot be opened.
 * Invariant: an addon is loaded when a store is opened, never when a module is imported, and RocksDB only after it was judged.
 * Why createRequire: both packages are optional; an import would fail for everybody who does without them.
 */
import { mkdirSync, realpathSync } from 'node:fs'
import { createRequire } from 'node:module'
import { KvError } from '../kv/errors.ts'
import { engineDir, inUse, isOrdered, sealFile } from './directory.ts'
import { codeOf, isDiskFull, messageOf, type Engine } from './engine.ts'
import { rocksdbProblem } from './judge.ts'
import type { Marker } from './layout.ts'
import { portableEngine, type PortableModule } from './portable.ts'
import { rocksdbEngine, type RocksModule } from './rocksdb.ts'
import { checkLogs } from './write-ahead-log.ts'

/**
 * The engine for a new directory: with 'auto' RocksDB where it runs, else LevelDB.
 * @throws KvError ENGINE_UNUSABLE before anything is written: a marker would hold the directory to an engine that does not run.
 */
export async function engineForNew(wanted: 'auto' | Marker['engine']): Promise<Marker['engine']> {
  const name = wanted !== 'auto' ? wanted : (await rocksdbProblem()) === undefined ? 'rocksdb' : 'portable'
  await (name === 'rocksdb' ? loadRocksdb() : loadPortable())
  return name
}

/**
 * Opens the engine that the marker of `dir` names.
 * @throws KvError ENGINE_UNUSABLE, DIRECTORY_IN_USE, DAMAGED, DISK_FULL, UNAVAILABLE.
 */
export async function openEngine(dir: string, { engine }: Marker): Promise<Engine> {
  try {
    mkdirSync(engineDir(dir), { recursive: true })
    // An engine finds a second opening in this process by its path: one directory must have one path.
    const path = realpathSync(engineDir(dir))
    await checkLogs(path, sealFile(dir), isOrdered(dir))
    if (engine === 'portable') return await portableEngine(loadPortable(), path)
    return await rocksdbEngine(await loadRocksdb(), path)
  } catch (error) {
    if (error instanceof KvError) throw error
    if (codeOf(error) === 'LEVEL_LOCKED') throw inUse(dir, error)
    if (isDiskFull(error)) throw new KvError('DISK_FULL', { cause: error })
    throw new KvError('UNAVAILABLE', {
      message: `the engine '${engine}' could not open ${dir}: ${messageOf(error)}`,
      hint: 'look at `cause`',
      retry: 'never',
      cause: error,
    })
  }
}

const require = createRequire(import.meta.url)

const loadPortable = (): PortableModule => load<PortableModule>('classic-level', 'ClassicLevel')

async function loadRocksdb(): Promise<RocksModule> {
  const problem = await rocksdbProblem()
  if (problem !== undefined) throw unusable('rocksdb', problem)
  return load<RocksModule>('rocksdb', 'RocksLevel')
}

function load<M>(packageName: string, exported: keyof M & string): M {
  let loaded: unknown
  try {
    loaded = require(packageName)
  } catch (cause) {
    throw unusable(packageName, messageOf(cause), cause)
  }
  if (typeof loaded !== 'object' || loaded === null || !(exported in loaded))
    throw unusable(packageName, `the installed package has no ${exported}: it is another package of that name`)
  return loaded as M
}

function unusable(packageName: string, problem: string, cause?: unknown): KvError {
  return new KvError('ENGINE_UNUSABLE', { message: `the storage engine '${packageName}' cannot be used here: ${problem}`, cause })
}
