/**
 * Real Redis servers for tests: one, one with a replica, or a cluster of three masters and three replicas; on free ports of the loopback.
 * Invariant: `close` leaves no process and no file, also when this process ends without it.
 * Why stdout and no PING tells that a server is ready: no client has to be trusted before it is tested.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'

const path = process.env.HAPAX_REDIS_SERVER ?? 'redis-server'
const startMsMax = 10_000
const startsMax = 5
/** Short, so that a fail-over takes seconds; the cluster's own default is 15 s. */
const nodeTimeoutMs = 2_000
const slots = 16_384

export interface RedisServer {
  readonly port: number
  /** SIGKILL, as a machine that is gone; SIGSTOP and SIGCONT, as one that hangs. */
  signal(name: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): void
  /** Starts a killed server again, with what it has on disk. */
  restart(): Promise<void>
  close(): Promise<void>
}

const open = new Set<() => void>()
process.once('exit', () => {
  for (const kill of open) kill()
})

/** A cluster's bus has a port of its own, 10,000 above; so a free port is one where both are. */
async function freePort(): Promise<number> {
  const listen = (port: number): Promise<number> =>
    new Promise((resolve, reject) => {
      const server = createServer()
      server.once('error', reject)
      server.listen(port, '127.0.0.1', () => {
        const taken = (server.address() as AddressInfo).port
        server.close(() => resolve(taken))
      })
    })
  for (;;) {
    const port = await listen(0)
    if (port > 55_000) continue
    if ((await listen(port + 10_000).catch(() => 0)) > 0) return port
  }
}

/** Starts a server. Another process may take the port between asking and using it: then the next one is tried. */
export async function redisServer(args: readonly string[] = []): Promise<RedisServer> {
  for (let start = 1; ; start++) {
    const dir = mkdtempSync(join(tmpdir(), 'hapax-redis-'))
    const port = await freePort()
    let child: ChildProcess
    let gone: Promise<void>
    const begin = (): Promise<boolean> => {
      const own = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', dir, '--save', '', '--appendonly', 'no']
      child = spawn(path, [...own, ...args], { stdio: ['ignore', 'pipe', 'ignore'] })
      gone = new Promise<void>((resolve) => child.once('exit', resolve).once('error', () => resolve()))
      return isReady(child, gone)
    }
    const kill = (): void => {
      child.kill('SIGKILL')
      rmSync(dir, { recursive: true, force: true })
    }
    open.add(kill)
    const close = async (): Promise<void> => {
      child.kill('SIGKILL')
      await gone
      kill()
      open.delete(kill)
    }
    const restart = async (): Promise<void> => {
      await gone
      if (!(await begin())) throw new Error(`${path} did not start again`)
    }
    if (await begin()) return { port, signal: (name) => child.kill(name), restart, close }
    await close()
    if (start === startsMax) throw new Error(`${path} did not start`)
  }
}

async function isReady(child: ChildProcess, gone: Promise<void>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<boolean>((resolve) => (timer = setTimeout(resolve, startMsMax, false)))
  const listening = new Promise<boolean>((resolve) => {
    let seen = ''
    child.stdout?.on('data', (chunk) => {
      seen = `${seen}${String(chunk)}`.slice(-4_096)
      if (seen.includes('Ready to accept connections')) resolve(true)
    })
  })
  const is = await Promise.race([listening, gone.then(() => false), late])
  clearTimeout(timer)
  return is
}

/** Asks until the answer will do, at most so many seconds. */
export async function until(what: string, isTrue: () => Promise<boolean>, seconds = 30): Promise<void> {
  const end = performance.now() + seconds * 1_000
  while (!(await isTrue().catch(() => false))) {
    if (performance.now() > end) throw new Error(`${what}: not within ${seconds} s`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

export const adminOf = (port: number): Redis => new Redis({ port, maxRetriesPerRequest: 0, retryStrategy: () => 50 }).on('error', () => undefined)

export interface RedisCluster {
  /** Masters at first: 0, 1, 2; the replica of each: 3, 4, 5. */
  readonly servers: readonly RedisServer[]
  readonly nodes: readonly { readonly host: string; readonly port: number }[]
  /** Runs a command on one server, by its number. */
  run(server: number, command: string, ...args: readonly string[]): Promise<unknown>
  /** What the server says of itself: `role`, `master_link_status` and so on. */
  info(server: number, section: string): Promise<string>
  close(): Promise<void>
}

/**
 * Six processes: three masters with a third of the slots each, and a replica each.
 * No replica takes over by itself unless a test lets it: on a busy machine one would, and lose what was not replicated.
 */
export async function redisCluster(): Promise<RedisCluster> {
  const args = ['--cluster-enabled', 'yes', '--cluster-replica-no-failover', 'yes', '--cluster-node-timeout', `${nodeTimeoutMs}`, '--cluster-config-file', 'nodes.conf']
  const servers = await Promise.all(Array.from({ length: 6 }, () => redisServer([...args, '--repl-diskless-sync-delay', '0'])))
  const admins = servers.map(({ port }) => adminOf(port))
  const admin = (server: number): Redis => admins[server] as Redis
  const run = (server: number, command: string, ...rest: readonly string[]): Promise<unknown> => admin(server).call(command, ...rest)
  const info = async (server: number, section: string): Promise<string> => String(await run(server, 'INFO', section))
  const close = async (): Promise<void> => {
    for (const one of admins) one.disconnect()
    await Promise.all(servers.map((server) => server.close()))
  }
  try {
    for (let master = 0; master < 3; master++) {
      const [from, to] = [Math.floor((master * slots) / 3), Math.floor(((master + 1) * slots) / 3) - 1]
      await run(master, 'CLUSTER', 'ADDSLOTSRANGE', `${from}`, `${to}`)
      await run(master, 'CLUSTER', 'SET-CONFIG-EPOCH', `${master + 1}`)
    }
    for (const { port } of servers) await run(0, 'CLUSTER', 'MEET', '127.0.0.1', `${port}`)
    const knowsAll = async (server: number): Promise<boolean> =>
      String(await run(server, 'CLUSTER', 'INFO')).includes('cluster_known_nodes:6')
    await until('the nodes know each other', async () => (await Promise.all(servers.map((_, server) => knowsAll(server)))).every(Boolean))
    for (let master = 0; master < 3; master++)
      await run(master + 3, 'CLUSTER', 'REPLICATE', String(await run(master, 'CLUSTER', 'MYID')))
    await until('the replicas are in step', async () => {
      const replicas = await Promise.all([3, 4, 5].map((server) => info(server, 'replication')))
      const states = await Promise.all(servers.map((_, server) => run(server, 'CLUSTER', 'INFO')))
      return replicas.every((text) => text.includes('master_link_status:up')) && states.every((text) => String(text).includes('cluster_state:ok'))
    })
  } catch (error) {
    await close()
    throw error
  }
  return { servers, nodes: servers.map(({ port }) => ({ host: '127.0.0.1', port })), run, info, close }
}
