/**
 * Judges whether the RocksDB binary can be loaded here, without loading it: a binary that ends the process is tried in a child first.
 * Invariant: the RocksDB binary is loaded into this process only after the same file ran under the same Node on the same processor.
 * Why a child: the published `rocksdb` 5 aborts Node 22 inside dlopen, and a binary for newer processors dies of an illegal
 * instruction; no try/catch sees either.
 */
import { execFile, type ExecFileException } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { cpus, release, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

/** What a child may take to load the binary and write one record; then it counts as broken. Milliseconds. */
const trialMs = 30_000

/** How a child ends when the binary does not fit. Ended by anything else (a closing terminal, a lack of memory) it says nothing about the binary. */
const crashes: readonly string[] = ['SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGILL', 'SIGSEGV', 'SIGSYS', 'SIGTRAP']
/** The child says that the package cannot be loaded. */
const exitUnloadable = 4

const require = createRequire(import.meta.url)

let judged: Promise<Verdict> | undefined

/** Why RocksDB cannot be loaded here; undefined when it can. Judged once a process, or again when it could not be tried. */
export async function rocksdbProblem(): Promise<string | undefined> {
  judged ??= judge()
  const { problem, isFinal } = await judged
  if (!isFinal) judged = undefined
  return problem
}

async function judge(): Promise<Verdict> {
  const because = (problem: string): Verdict => ({ problem, isFinal: true })
  let root: string
  try {
    root = dirname(require.resolve('rocksdb/package.json'))
  } catch {
    return because('the package is not installed')
  }
  const binary = binaryIn(root)
  if (binary === undefined) return because(`it has no binary for ${process.platform}-${process.arch}`)
  const key = createHash('sha256')
    .update(readFileSync(binary))
    .update(`\n${process.version} ${process.platform} ${process.arch} ${release()} ${cpus()[0]?.model ?? ''}`)
    .digest('hex')
    .slice(0, 32)
  const places = [join(dirname(root), '.cache', 'hapax'), join(tmpdir(), `hapax-${process.getuid?.() ?? 'user'}`)]
  for (const place of places) {
    const kept = readVerdict(join(place, `${key}.json`))
    if (kept) return { problem: kept.problem, isFinal: true }
  }
  const verdict = await tryInChild(root)
  if (verdict.isFinal) keepVerdict(places, `${key}.json`, verdict.problem)
  return verdict
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
const end = (code, error) => { console.error(error.cause ?? error); process.exit(code) }
let RocksLevel
try { RocksLevel = require(process.argv[1]).RocksLevel } catch (error) { end(${exitUnloadable}, error) }
if (typeof RocksLevel !== 'function') end(${exitUnloadable}, new Error('the installed package is another one of that name'))
const dir = mkdtempSync(join(tmpdir(), 'hapax-trial-'))
process.on('exit', () => rmSync(dir, { recursive: true, force: true }))
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
  .catch((error) => end(3, error))
`

interface Verdict {
  readonly problem: string | undefined
  /** False when the trial itself could not be held, so that the next start tries again. */
  readonly isFinal: boolean
}

/** Windows says a crash as a large exit code, and so does a shell between. */
const isAboutBinary = ({ code, signal }: ExecFileException): boolean =>
  signal ? crashes.includes(signal) : code === exitUnloadable || Number(code) >= 128

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
      resolve({ problem: last === '' ? how : `${how}: ${last}`, isFinal: isAboutBinary(error) })
    })
  })
}
