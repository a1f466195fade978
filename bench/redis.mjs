/**
 * A redis-server of our own: on a free port of the loopback, in a temporary directory, gone when the benchmark ends.
 * Invariant: close() leaves no process and no file; it runs also when the benchmark fails or is interrupted.
 * Why a real server and both clients: what a Node program gets from Redis is decided by its client more than by the server.
 */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const path = process.env.HAPAX_REDIS_SERVER ?? 'redis-server'
const startMsMax = 10_000
const open = new Set()

/** @returns its version, or undefined when there is no redis-server. */
export function redisVersion() {
  const run = spawnSync(path, ['--version'], { encoding: 'utf8' })
  return run.status === 0 ? /v=(\S+)/.exec(run.stdout)?.[1] : undefined
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

/** CPU time of a process in microseconds, of Linux's /proc (ticks of 10 ms); elsewhere 0. */
function cpuUs(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')
    return (Number(fields[11]) + Number(fields[12])) * 10_000
  } catch {
    return 0
  }
}

/**
 * Starts a server. `appendfsync`: 'off' keeps nothing on disk, 'everysec' survives a killed process, 'always' a power cut.
 * Another process may take the port between asking and using it: then the next one is tried.
 */
export async function redisServer(appendfsync) {
  for (let attempt = 1; ; attempt += 1) {
    const dir = mkdtempSync(join(tmpdir(), 'hapax-bench-redis-'))
    const port = await freePort()
    const aof = appendfsync === 'off' ? ['--appendonly', 'no'] : ['--appendonly', 'yes', '--appendfsync', appendfsync]
    const child = spawn(path, ['--port', String(port), '--bind', '127.0.0.1', '--dir', dir, '--save', '', ...aof], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const gone = new Promise((resolve) => child.once('exit', resolve).once('error', resolve))
    const close = async () => {
      open.delete(kill)
      child.kill('SIGKILL')
      await gone
      rmSync(dir, { recursive: true, force: true })
    }
    const kill = () => {
      child.kill('SIGKILL')
      rmSync(dir, { recursive: true, force: true })
    }
    open.add(kill)
    if (await ready(child, gone)) return { port, close, serverCpu: () => cpuUs(child.pid) }
    await close()
    if (attempt === 5) throw new Error(`${path} did not start`)
  }
}

async function ready(child, gone) {
  let timer
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, startMsMax, false)
  })
  const listening = new Promise((resolve) => {
    let seen = ''
    child.stdout.on('data', (chunk) => {
      seen = `${seen}${chunk}`.slice(-4_096)
      if (seen.includes('Ready to accept connections')) resolve(true)
    })
  })
  const is = await Promise.race([listening, gone.then(() => false), late])
  clearTimeout(timer)
  return is
}

process.once('exit', () => {
  for (const kill of open) kill()
})
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1))
