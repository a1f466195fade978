/**
 * A cluster as a user starts it, by the command line: a process for each storage server and proxy, on free ports of the loopback.
 * Invariant: close() leaves no process and no file; it runs also when the benchmark fails or is interrupted.
 * Why CPU time of /proc: a server's cost an operation is known even when neighbours take half of the cores.
 */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { distUrl } from './harness.mjs'

const cli = fileURLToPath(new URL('server/cli/main.js', distUrl))
const zones = 3
const shards = 64
const cluster = 'bench'
const startMsMax = 30_000
const endMsMax = 15_000
const lookMs = 20
/** Of what a process logs, kept for when it ends too early. */
const logCharsMax = 4_000
const open = new Set()

/** CPU microseconds of a process and its threads, of Linux's /proc (ticks of 10 ms); elsewhere 0. */
function cpuUs(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')
    return (Number(fields[11]) + Number(fields[12])) * 10_000
  } catch {
    return 0
  }
}

const pause = (ms) => new Promise((go) => setTimeout(go, ms))

/** Starts one process, and resolves with what it says of itself. `profile`: a folder for its CPU profile, written when it ends. */
function start(role, name, settings, { profile, env = {} } = {}) {
  const node = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`, `--cpu-prof-name=${role}-${name}.cpuprofile`]
  const flags = Object.entries(settings).flatMap(([flag, value]) => (value === true ? [`--${flag}`] : [`--${flag}`, String(value)]))
  const child = spawn(process.execPath, [...node, cli, 'serve', role, '-o', 'json', '--cluster', cluster, '--name', name, ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  })
  const gone = new Promise((resolve) => child.once('exit', resolve))
  let log = ''
  child.stderr.on('data', (chunk) => (log = `${log}${chunk}`.slice(-logCharsMax)))
  const said = new Promise((resolve, reject) => {
    let text = ''
    child.stdout.on('data', (chunk) => {
      text += chunk
      if (text.includes('\n')) resolve(JSON.parse(text))
    })
    child.once('exit', (code, signal) => reject(new Error(`${role} ${name} ended with ${signal ?? code}\n${log}`)))
  })
  const end = async () => {
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), endMsMax)
    await gone
    clearTimeout(timer)
  }
  return { role, name, child, said, end, cpuUs: () => cpuUs(child.pid) }
}

/** An authority, a certificate for everybody, a key for what lies on the disks, and who may do what. */
function secrets(dir, names) {
  const run = (...args) => {
    const made = spawnSync(process.execPath, [cli, 'cert', ...args], { encoding: 'utf8' })
    if (made.status !== 0) throw new Error(`cert ${args[0]}: ${made.stderr}`)
  }
  const certs = join(dir, 'certs')
  run('init', '--cluster', cluster, '--dir', certs)
  for (const [role, name] of names) run('issue', role, name, '--host', '127.0.0.1', '--dir', certs)
  run('issue', 'client', 'bench', '--dir', certs)
  run('key', '--file', join(certs, 'hapax.keys'))
  const rule = { clients: ['bench'], namespaces: ['*'] }
  writeFileSync(join(dir, 'policy.json'), JSON.stringify({ preset: 'wide', rule: [rule] }))
  const of = (role, name) => ({
    ca: join(certs, 'ca.crt'),
    cert: join(certs, `${role}-${name}.crt`),
    key: join(certs, `${role}-${name}.key`),
  })
  const flagsOf = (role, name) => Object.fromEntries(Object.entries(of(role, name)).map(([what, path]) => [`tls-${what}`, path]))
  return { client: of('client', 'bench'), flagsOf, keys: join(certs, 'hapax.keys'), policy: join(dir, 'policy.json') }
}

/**
 * @param proxies how many
 * @param servers how many storage servers a zone; each holds its share of the shards
 * @param secure TLS between all, and values encrypted at rest; else everything on this machine in the clear
 * @param profile a folder, for a CPU profile of each process
 */
export async function startCluster({ proxies = 1, servers = 1, durability = 'os', secure = false, profile } = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'hapax-bench-cluster-'))
  const processes = []
  const close = async () => {
    for (const role of ['proxy', 'storage']) await Promise.all(processes.filter((one) => one.role === role).map((one) => one.end()))
    open.delete(kill)
    rmSync(dir, { recursive: true, force: true })
  }
  const kill = () => {
    for (const { child } of processes) child.kill('SIGKILL')
    rmSync(dir, { recursive: true, force: true })
  }
  open.add(kill)
  try {
    const storage = Array.from({ length: zones * servers }, (_, index) => ({ zone: index % zones, name: `storage-${index + 1}` }))
    const front = Array.from({ length: proxies }, (_, index) => `proxy-${index + 1}`)
    const names = [...storage.map(({ name }) => ['storage', name]), ...front.map((name) => ['proxy', name])]
    const safe = secure ? secrets(dir, names) : undefined
    const map = join(dir, 'map.json')
    const common = (role, name) => ({
      zones,
      shards,
      'map-file': map,
      ...(safe === undefined ? { plain: true } : safe.flagsOf(role, name)),
    })
    for (const { zone, name } of storage) {
      mkdirSync(join(dir, name))
      const own = { zone: zone + 1, data: join(dir, name), durability, 'servers-per-zone': servers }
      processes.push(start('storage', name, { ...common('storage', name), ...own }, { profile }))
    }
    for (const name of front) {
      const own = safe === undefined ? { encryption: 'off' } : { keys: safe.keys, policy: safe.policy }
      processes.push(start('proxy', name, { ...common('proxy', name), ...own }, { profile }))
    }
    const said = await Promise.all(processes.map((one) => one.said))
    await ready(said)
    const cpuOf = (role) => () => processes.filter((one) => one.role === role).reduce((sum, one) => sum + one.cpuUs(), 0)
    const proxyAddresses = said.filter(({ role }) => role === 'proxy').map(({ address }) => address)
    return {
      url: `hapax://${proxyAddresses.join(',')}`,
      proxyAddresses,
      tls: safe?.client,
      proxyCpu: cpuOf('proxy'),
      storageCpu: cpuOf('storage'),
      close,
    }
  } catch (error) {
    kill()
    throw error
  }
}

/** Waits until every process says that it is ready. */
async function ready(said) {
  const deadline = performance.now() + startMsMax
  for (const { admin, name } of said) {
    for (;;) {
      const answer = await fetch(`http://${admin}/readyz`).catch((error) => ({ status: 0, text: async () => String(error) }))
      if (answer.status === 200) break
      if (performance.now() > deadline) throw new Error(`${name} is not ready: ${await answer.text()}`)
      await pause(lookMs)
    }
  }
}

/** The CPU profiles that ended processes left. */
export const profilesIn = (folder) => readdirSync(folder).map((file) => ({ file, ...JSON.parse(readFileSync(join(folder, file), 'utf8')) }))

process.once('exit', () => {
  for (const kill of open) kill()
})
