/**
 * Judges whether the RocksDB binary can be loaded here, without loading it: a binary that ends the process is tried in a child first.
 * Invariant: the RocksDB binary is loaded into this process only after the same file ran under the same Node on the same processor.
 * Why a child: the published `rocksdb` 5 aborts Node 22 inside dlopen, and a binary for newer processors dies of an illegal
 * instruction; no try/catch sees either.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { cpus, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

/** What a child may take to load the binary and write one record; then it counts as broken. Milliseconds. */
const trialMs = 30_000

const require = createRequire(import.meta.url)

let judged: Promise<string | undefined> | undefined

/** Why RocksDB cannot be loaded here; undefined when it can. Judged once a process. */
export function rocksdbProblem(): Promise<string | undefined> {
  judged ??= judge()
  return judged
}

async function judge(): Promise<string | undefined> {
  let root: string
  try {
    root = dirname(require.resolve('rocksdb/package.json'))
  } catch {
    return 'the package is not installed'
  }
  const binary = binaryIn(root)
  if (binary === undefined) return `it has no binary for ${process.platform}-${process.arch}`
  const key = createHash('sha256')
    .update(readFileSync(binary))
    .update(`\n${process.version} ${process.platform} ${process.arch} ${cpus()[0]?.model ?? ''}`)
    .digest('hex')
    .slice(0, 32)
  const places = [join(dirname(root), '.cache', 'hapax'), join(tmpdir(), `hapax-${process.getuid?.() ?? 'user'}`)]
  for (const place of places) {
    const kept = readVerdict(join(place, `${key}.json`))
    if (kept) return kept.problem
  }
  const verdict = await tryInChild(root)
  if (verdict.isFinal) keepVerdict(places, `${key}.json`, verdict.problem)
  return verdict.problem
}

function binaryIn(root: string): string | undefined {
  for (const dir of [join(root, 'build', 'Release'), join(root, 'prebuilds', `${process.platform}-${process.arch}`)]) {
    try {
      const name = readdirSync(dir).find((one) => one.endsWith('.node'))
      if (name) return join(dir, name)
    } catch {
      // Not there: the next place.
    }
  }
  return undefined
}

function readVerdict(path: string): { problem: string | undefined } | undefined {
  try {
    const { problem } = JSON.parse(readFileSync(path, 'utf8')) as { problem?: unknown }
    return { problem: typeof problem === 'string' ? problem : undefined }
  } catch {
    return undefined
  }
}

function keepVerdict(places: readonly string[], name: string, problem: string | undefined): void {
  for (const place of places) {
    try {
      mkdirSync(place, { recursive: true, mode: 0o700 })
      const written = join(place, `${name}.${process.pid}`)
      writeFileSync(written, JSON.stringify({ problem: problem ?? null }))
      renameSync(written, join(place, name))
      return
    } catch {
      // Not writable: the next place, or a child at each start.
    }
  }
}

/** Loads the package, writes and reads one record in a directory of its own, and removes it. */
const trial = `
const { mkdtempSync, rmSync } = require('node:fs'), { tmpdir } = require('node:os'), { join } = require('node:path')
const dir = mkdtempSync(join(tmpdir(), 'hapax-trial-'))
process.on('exit', () => rmSync(dir, { recursive: true, force: true }))
const { RocksLevel } = require(process.argv[1])
const db = new RocksLevel(join(dir, 'db'), { keyEncoding: 'buffer', valueEncoding: 'buffer' })
const key = Buffer.from('key')
db.open()
  .then(() => {
    const batch = db.batch()
    batch._put(key, key, {})
    batch._writeSync({ sync: true })
    batch._closeSync()
    if (!db._getManySync([key], {})[0].equals(key)) throw new Error('it read something else than it wrote')
    return db.close()
  })
  .catch((error) => { console.error(error.cause ?? error); process.exitCode = 3 })
`

interface Verdict {
  readonly problem: string | undefined
  /** False when the trial itself could not be held, so that the next start tries again. */
  readonly isFinal: boolean
}

function tryInChild(root: string): Promise<Verdict> {
  // A debugger or a loader of this process is none of the child's.
  const { NODE_OPTIONS: _none, ...inherited } = process.env
  const env = { ...inherited, ELECTRON_RUN_AS_NODE: '1' }
  return new Promise((resolve) => {
    execFile(process.execPath, ['-e', trial, root], { env, timeout: trialMs, windowsHide: true }, (error, _out, said) => {
      if (error === null) return resolve({ problem: undefined, isFinal: true })
      const last = said.trim().split('\n').slice(0, 4).join(' ')
      if (error.killed || typeof error.code === 'string')
        return resolve({ problem: `it could not be tried in a child process: ${error.message}`, isFinal: false })
      const how = error.signal ? `it ends the process with ${error.signal}` : 'it does not work'
      resolve({ problem: last === '' ? how : `${how}: ${last}`, isFinal: error.signal !== null || error.code !== 3 })
    })
  })
}
