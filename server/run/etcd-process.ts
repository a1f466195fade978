/**
 * A real etcd under a process of ours, for a cluster on this machine.
 * Invariant: it ends when that process does; one that was left behind by a process that was killed is ended before another one begins.
 * Why under a process: what dies with its parent, and comes back, is then said once, for etcd as for everything else (supervisor.ts).
 */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { KvError } from '../../core/kv/errors.ts'
import { freePort } from './free-port.ts'

export interface EtcdSettings {
  /** Its directory: what it keeps, and its process id. */
  readonly dir: string
  /** A name on the PATH, or a path. */
  readonly program: string
  /** Where it was before; absent: any free port. */
  readonly address?: string | undefined
}

const startMsMax = 15_000
const endMsMax = 5_000
const saidMax = 4_096
/** Each version has its own words for it. */
const readyWords = /ready to serve client requests|serving (insecure )?client (requests|traffic)/

/** @throws KvError UNAVAILABLE when there is no such program */
export function needEtcd(program: string): void {
  const { status } = spawnSync(program, ['--version'], { stdio: 'ignore', timeout: startMsMax })
  if (status === 0) return
  throw new KvError('UNAVAILABLE', {
    message: `etcd is not installed, or does not run (${program})`,
    hint: 'install it (apt-get install etcd-server, brew install etcd), or set HAPAX_ETCD to its path; without --etcd the map is in a file',
    retry: 'never',
  })
}

/** @param onEnd when it ended by itself */
export async function runEtcd(
  { dir, program, address }: EtcdSettings,
  onEnd: (error: unknown) => void,
): Promise<{ readonly address: string; readonly pid: number; close(): Promise<void> }> {
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const pidFile = join(dir, 'pid')
  endLeftover(pidFile, dir)
  const where = address ?? `127.0.0.1:${await freePort()}`
  const [client, peer] = [`http://${where}`, `http://127.0.0.1:${await freePort()}`]
  const child = spawn(
    program,
    [
      ['--name', 'dev'],
      ['--data-dir', join(dir, 'data')],
      ['--listen-client-urls', client],
      ['--advertise-client-urls', client],
      ['--listen-peer-urls', peer],
      ['--initial-advertise-peer-urls', peer],
      ['--initial-cluster', `dev=${peer}`],
    ].flat(),
    { stdio: ['ignore', 'ignore', 'pipe'], env: { PATH: process.env['PATH'], ETCD_UNSUPPORTED_ARCH: process.arch } },
  )
  let said = ''
  let isEnding = false
  await new Promise<void>((resolve, reject) => {
    const give = (why: string): void => {
      child.kill('SIGKILL')
      reject(new KvError('UNAVAILABLE', { message: `etcd ${why}: ${said.trim().split('\n').at(-1) ?? ''}`, hint: 'look at its directory' }))
    }
    const timer = setTimeout(() => give('was not ready in time'), startMsMax)
    child.once('error', (error) => give(error.message))
    child.once('exit', () => give('ended'))
    child.stderr.on('data', (bytes: Buffer) => {
      said = `${said}${bytes.toString()}`.slice(-saidMax)
      if (!readyWords.test(said)) return
      clearTimeout(timer)
      resolve()
    })
  })
  child.stderr.removeAllListeners('data').resume()
  const gone = new Promise<void>((resolve) => {
    child.removeAllListeners('exit').once('exit', (code, signal) => {
      resolve()
      if (!isEnding) onEnd(new Error(`etcd ended with ${signal ?? code}`))
    })
  })
  const pid = child.pid as number
  writeFileSync(pidFile, String(pid), { mode: 0o600 })
  return {
    address: where,
    pid,
    async close() {
      isEnding = true
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGTERM')
        const timer = setTimeout(() => child.kill('SIGKILL'), endMsMax)
        await gone
        clearTimeout(timer)
      }
      rmSync(pidFile, { force: true })
    },
  }
}

/** The process of that number may be somebody else's by now: its arguments say. Where they cannot be read, it is left alone. */
function endLeftover(pidFile: string, dir: string): void {
  try {
    const pid = Number(readFileSync(pidFile, 'utf8'))
    const args = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    if (args.includes(join(dir, 'data'))) process.kill(pid, 'SIGKILL')
  } catch {
    return // there is none
  }
}
