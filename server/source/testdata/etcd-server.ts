/**
 * A real etcd for tests, on free ports of the loopback.
 * Invariant: `close` leaves no process and no file, also when this process ends without it.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const path = process.env['HAPAX_ETCD'] ?? 'etcd'
const startMsMax = 15_000

export interface EtcdServer {
  /** `127.0.0.1:port` */
  readonly host: string
  /** Kills it, as a machine that is gone. */
  kill(): Promise<void>
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void
  /** Starts it again on what it has on disk. */
  restart(): Promise<void>
  close(): Promise<void>
}

const open = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of open) child.kill('SIGKILL')
})

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
}

export async function etcdServer(): Promise<EtcdServer> {
  const dir = mkdtempSync(join(tmpdir(), 'hapax-etcd-'))
  const [port, peerPort] = [await freePort(), await freePort()]
  const client = `http://127.0.0.1:${port}`
  const peer = `http://127.0.0.1:${peerPort}`
  let child: ChildProcess
  const start = async (): Promise<void> => {
    child = spawn(
      path,
      [
        ['--name', 'one'],
        ['--data-dir', join(dir, 'data')],
        ['--listen-client-urls', client],
        ['--advertise-client-urls', client],
        ['--listen-peer-urls', peer],
        ['--initial-advertise-peer-urls', peer],
        ['--initial-cluster', `one=${peer}`],
        // Tests have nothing to lose by it, and a slow disk would hold them up.
        ['--unsafe-no-fsync'],
      ].flat(),
      { stdio: ['ignore', 'ignore', 'pipe'], env: { PATH: process.env['PATH'], ETCD_UNSUPPORTED_ARCH: process.arch } },
    )
    open.add(child)
    let said = ''
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`etcd did not start:\n${said}`)), startMsMax)
      child.once('error', reject)
      child.once('exit', () => reject(new Error(`etcd ended:\n${said}`)))
      child.stderr?.on('data', (bytes: Buffer) => {
        said += bytes.toString()
        if (!said.includes('ready to serve client requests') && !said.includes('serving insecure client requests')) return
        clearTimeout(timer)
        resolve()
      })
    })
    child.stderr?.removeAllListeners('data').resume()
  }
  const kill = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.removeAllListeners('exit')
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
    open.delete(child)
  }
  await start()
  return {
    host: `127.0.0.1:${port}`,
    kill,
    signal: (signal) => void child.kill(signal),
    restart: start,
    async close() {
      await kill()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
