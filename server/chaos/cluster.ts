/**
 * A cluster of real processes: `hapax serve` for storage servers and proxies with certificates, keys and a policy, a real etcd, and links between
 * all of them that can be hurt.
 * Invariant: a process ends when it is told to. One that ends by itself is told of, and started again.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Random } from '../../core/base/random.ts'
import { epochMs } from '../../core/base/types.ts'
import type { TlsFiles } from '../../core/net/tls.ts'
import { initAuthority, issueInFolder } from '../edge/certificates.ts'
import { newKeyLine } from '../edge/sealer.ts'
import { etcdServer, type EtcdServer } from '../source/testdata/etcd-server.ts'
import { Links } from './links.ts'

/** Files that a process runs: the command line, and what is loaded before it. */
export interface Bundles {
  readonly hapax: string
  readonly sourceAddress: string
}

export interface Member {
  readonly role: 'storage' | 'proxy'
  readonly name: string
  /** From 0; of a proxy: -1. */
  readonly zone: number
}

export const zones = 3
const serversPerZone = 2
const proxyCount = 2
const shards = 16
export const namespace = 'chaos'
const cluster = 'chaos'
const host = '127.0.0.1'

export const members: readonly Member[] = [
  ...Array.from({ length: zones * serversPerZone }, (_, index): Member => {
    const zone = Math.floor(index / serversPerZone)
    return { role: 'storage', name: `storage-${zone + 1}${'ab'[index % serversPerZone]}`, zone }
  }),
  ...Array.from({ length: proxyCount }, (_, index): Member => ({ role: 'proxy', name: `proxy-${index + 1}`, zone: -1 })),
]

/** For a process to be ready, and for one to end by itself, in milliseconds. */
const readyMsMax = 30_000
const endMsMax = 20_000
const lookMs = 50
const againMs = 300
/** So long after files changed every process has taken them, in milliseconds: one looks every 5 s, and may have been stopped for 4. */
const takenMs = 10_000
/** What is kept of what a process said last. */
const saidCharsMax = 8_000

const running = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export class Process {
  readonly member: Member
  readonly dir: string
  readonly #args: readonly string[]
  readonly #env: NodeJS.ProcessEnv
  readonly #admin: string
  readonly #onOwnEnd: (text: string) => void
  #child: ChildProcess | undefined
  #gone: Promise<void> = Promise.resolve()
  #isWanted = false
  #said = ''

  constructor(member: Member, dir: string, args: readonly string[], source: string, admin: string, onOwnEnd: (text: string) => void) {
    this.member = member
    this.dir = dir
    this.#args = args
    this.#env = { PATH: process.env['PATH'], TMPDIR: process.env['TMPDIR'], CHAOS_SOURCE: source }
    this.#admin = admin
    this.#onOwnEnd = onOwnEnd
  }

  get pid(): number | undefined {
    return this.#child?.pid
  }
  get said(): string {
    return this.#said
  }

  start(): void {
    this.#isWanted = true
    const child = spawn(process.execPath, this.#args, { stdio: ['ignore', 'pipe', 'pipe'], env: this.#env })
    this.#child = child
    running.add(child)
    const take = (bytes: Buffer): void => void (this.#said = (this.#said + bytes.toString()).slice(-saidCharsMax))
    child.stdout.on('data', take)
    child.stderr.on('data', take)
    this.#gone = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        running.delete(child)
        resolve()
        if (this.#child === child && this.#isWanted) this.#endedByItself(`${this.member.name} ended with ${signal ?? code}`)
      })
    })
  }

  #endedByItself(what: string): void {
    this.#onOwnEnd(`${what}:\n${this.#said}`)
    setTimeout(() => {
      if (this.#isWanted) this.start()
    }, againMs)
  }

  /** Takes effect whether it stands still or not. */
  async kill(): Promise<void> {
    this.#isWanted = false
    this.#child?.kill('SIGKILL')
    await this.#gone
  }

  /** Asks it to end. @returns false when it had to be killed */
  async end(): Promise<boolean> {
    this.#isWanted = false
    this.#child?.kill('SIGCONT')
    this.#child?.kill('SIGTERM')
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), endMsMax)
    await this.#gone
    clearTimeout(timer)
    return this.#child?.signalCode !== 'SIGKILL'
  }

  signal(signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child?.kill(signal)
  }

  wipe(): void {
    rmSync(this.dir, { recursive: true, force: true })
  }

  /** It votes for all its shards, or reaches a majority of each. */
  async isReady(): Promise<boolean> {
    try {
      const response = await fetch(`http://${this.#admin}/readyz`, { signal: AbortSignal.timeout(1_000) })
      await response.arrayBuffer()
      return response.ok
    } catch {
      return false
    }
  }

  /** @throws when it takes too long */
  async ready(): Promise<void> {
    const endsAt = performance.now() + readyMsMax
    while (!(await this.isReady())) {
      if (performance.now() > endsAt) throw new Error(`${this.member.name} is not ready:\n${this.#said}`)
      await pause(lookMs)
    }
  }
}

export interface ChaosCluster extends AsyncDisposable {
  readonly processes: readonly Process[]
  readonly links: Links
  readonly etcd: EtcdServer
  /** Of a client by this number, through links of its own. */
  urlOf(client: number): string
  readonly clientTls: TlsFiles
  /** New certificates for all processes and clients, in the place of those that are in use. */
  rotateCertificates(): Promise<void>
  /** A new authority: first it is trusted beside the old one, then all certificates are its own, then the old one is not trusted any more. */
  rotateAuthority(): Promise<void>
  close(): Promise<void>
}

/** Starts all, and resolves when the cluster is founded and each process is ready. */
export async function startCluster(
  bundles: Bundles,
  clients: number,
  random: Random,
  onOwnEnd: (text: string) => void,
): Promise<ChaosCluster> {
  const dir = mkdtempSync(join(tmpdir(), 'hapax-chaos-'))
  const at = (...path: string[]): string => join(dir, ...path)
  const links = new Links()
  const etcd = await etcdServer()
  const processes: Process[] = []
  const close = async (): Promise<void> => {
    await Promise.all(processes.filter(({ member }) => member.role === 'proxy').map((one) => one.end()))
    await Promise.all(processes.filter(({ member }) => member.role === 'storage').map((one) => one.end()))
    await links.close()
    await etcd.close()
    rmSync(dir, { recursive: true, force: true })
  }
  try {
    await initAuthority(at('certs'), cluster, epochMs(Date.now()))
    await issueAll(at('certs'))
    mkdirSync(at('copies'))
    writeFileSync(at('keys'), `${newKeyLine(1)}\n`, { mode: 0o600 })
    writeFileSync(at('policy.toml'), `[[rule]]\nclients = ["teller"]\nnamespaces = ["${namespace}"]\n`)
    const etcdPort = await links.open('etcd', Number(etcd.host.split(':')[1]))
    const ports = new Map<string, number>()
    for (const [index, member] of members.entries()) {
      const { role, name, zone } = member
      const [port, adminPort] = [await freePort(random), await freePort(random)]
      const source = `127.0.${role === 'storage' ? 1 : 2}.${index + 1}`
      links.knowSource(source, name)
      ports.set(name, port)
      const settings: Record<string, string | number | readonly string[]> = {
        cluster,
        name,
        zones,
        shards,
        listen: `${host}:${port}`,
        'tls.ca': at('certs', 'ca.crt'),
        'tls.cert': at('certs', `${role}-${name}.crt`),
        'tls.key': at('certs', `${role}-${name}.key`),
        'map.etcd': [`http://${host}:${etcdPort}`],
        'map.copy': at('copies', `${name}.json`),
        'admin.listen': `${host}:${adminPort}`,
        ...(role === 'proxy'
          ? { policy: at('policy.toml'), keys: at('keys') }
          : {
              zone: zone + 1,
              'servers-per-zone': serversPerZone,
              data: at(name),
              advertise: `${host}:${await links.open(name, port)}`,
            }),
      }
      const lines = Object.entries(settings).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`)
      writeFileSync(at(`${name}.toml`), lines.join(''))
      const args = ['--import', bundles.sourceAddress, bundles.hapax, 'serve', role, '--config', at(`${name}.toml`), '-o', 'json']
      processes.push(new Process(member, at(name), args, source, `${host}:${adminPort}`, onOwnEnd))
    }
    const urls: string[] = []
    for (let client = 0; client < clients; client++) {
      const addresses: string[] = []
      for (const { role, name } of members)
        if (role === 'proxy') addresses.push(`${host}:${await links.open(name, ports.get(name) as number, clientName(client))}`)
      urls.push(`hapax://${addresses.join(',')}/${namespace}`)
    }
    for (const one of processes) one.start()
    await Promise.all(processes.map((one) => one.ready()))
    return {
      processes,
      links,
      etcd,
      urlOf: (client) => urls[client] as string,
      clientTls: { ca: at('certs', 'ca.crt'), cert: at('certs', 'client-teller.crt'), key: at('certs', 'client-teller.key') },
      rotateCertificates: () => rotate(at('certs'), mkdtempSync(at('rotated-'))),
      rotateAuthority: () => rotateAuthority(at('certs'), mkdtempSync(at('rotated-'))),
      close,
      [Symbol.asyncDispose]: close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

export const clientName = (client: number): string => `client-${client}`

/** One after another: whoever makes them all at once can do nothing else for a while, and here that is the network. */
async function issueAll(folder: string): Promise<readonly string[]> {
  const now = epochMs(Date.now())
  const paths: string[] = []
  for (const { role, name } of members) {
    paths.push(...(await issueInFolder(folder, { role, name, hosts: [host] }, now)))
    await pause(lookMs)
  }
  return [...paths, ...(await issueInFolder(folder, { role: 'client', name: 'teller', hosts: [] }, now))]
}

/** As an operator would: made elsewhere, then put in place by renames. Between the two of a pair nothing fits, and a process keeps what it has. */
async function rotate(folder: string, elsewhere: string): Promise<void> {
  for (const file of ['ca.crt', 'ca.key']) copyFileSync(join(folder, file), join(elsewhere, file))
  for (const path of await issueAll(elsewhere)) renameSync(path, join(folder, path.slice(elsewhere.length + 1)))
  rmSync(elsewhere, { recursive: true })
}

async function rotateAuthority(folder: string, elsewhere: string): Promise<void> {
  await initAuthority(elsewhere, cluster, epochMs(Date.now()))
  const both = [folder, elsewhere].map((from) => readFileSync(join(from, 'ca.crt'), 'utf8')).join('\n')
  writeFileSync(join(elsewhere, 'both.crt'), both)
  renameSync(join(elsewhere, 'both.crt'), join(folder, 'ca.crt'))
  await pause(takenMs)
  for (const path of await issueAll(elsewhere)) renameSync(path, join(folder, path.slice(elsewhere.length + 1)))
  await pause(takenMs)
  for (const file of ['ca.key', 'ca.crt']) renameSync(join(elsewhere, file), join(folder, file))
  rmSync(elsewhere, { recursive: true })
}

/** Below the ports that the system gives to whoever dials: one of those may be taken when a server comes back to its own. */
async function freePort(random: Random): Promise<number> {
  for (;;) {
    const port = 10_000 + random.int(20_000)
    if (taken.has(port)) continue
    taken.add(port)
    const isFree = await new Promise<boolean>((resolve) => {
      const server = createServer()
      server.once('error', () => resolve(false))
      server.listen(port, host, () => server.close(() => resolve(true)))
    })
    if (isFree) return port
  }
}
const taken = new Set<number>()

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
