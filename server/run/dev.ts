/**
 * A whole cluster of real processes on this machine, in one call: for trying out, and for users' tests.
 * Invariant: a child that dies comes back where it was; when this process ends, however it ends, all of them do.
 * Why real processes: what is killed here dies as it would at night.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { KvError } from '../../core/kv/errors.ts'
import type { Durability } from '../../core/engine/engine.ts'
import type { Policy } from '../proxy/policy.ts'
import type { ChildSettings, FromChild } from './child.ts'

export interface DevOptions {
  /** 1, 3 or 5. Default 3. */
  readonly zones?: number | undefined
  /** Default 2. */
  readonly proxies?: number | undefined
  /** Chosen once for a directory. Default 64. */
  readonly shards?: number | undefined
  /** Kept between runs. Default: a temporary directory, which goes at the end. */
  readonly dir?: string | undefined
  /** Storage servers keep nothing. Default false. */
  readonly memory?: boolean | undefined
  /** Default 'fsync'. */
  readonly durability?: Durability | undefined
  /** The address of the first proxy, and the ports of the others follow it. Default: any free ones. */
  readonly port?: number | undefined
  readonly policy?: Policy | undefined
  readonly onAlarm?: ((text: string) => void) | undefined
  /** The file of a child. Default: the one beside this. */
  readonly childFile?: string | undefined
}

export interface DevProcess {
  readonly role: 'storage' | 'proxy'
  readonly name: string
  readonly zone: number | undefined
  readonly pid: number
  readonly address: string
  /** It listens; what it needs of the others it may still be waiting for. */
  readonly isReady: boolean
}

export interface DevCluster extends AsyncDisposable {
  /** For `connect`; a namespace may follow. */
  readonly url: string
  readonly processes: readonly DevProcess[]
  /** How often children were brought back. */
  readonly restarts: number
  /** Sends a signal to a process, by its name: SIGKILL, SIGSTOP and SIGCONT make faults. */
  signal(name: string, signal: NodeJS.Signals): void
  /** Ends all, the proxies first. */
  close(): Promise<void>
}

/** How long all processes may take to be ready, and each of them to end, in milliseconds. */
const startMs = 20_000
const endMs = 10_000
/** The pause before a child that died comes back; it doubles with each death that follows soon. */
const pauseMs = 50
const pauseMsMax = 5_000
const soonMs = 5_000

class Kept {
  readonly settings: ChildSettings
  readonly #file: string
  readonly #onAlarm: (text: string) => void
  child: ChildProcess | undefined
  /** Where it listens, from the first time on. */
  address = ''
  isReady = false
  deaths = 0
  #soon = 0
  #startedAt = 0
  #timer: NodeJS.Timeout | undefined
  #isEnding = false

  constructor(settings: ChildSettings, file: string, onAlarm: (text: string) => void) {
    this.settings = settings
    this.#file = file
    this.#onAlarm = onAlarm
  }

  /** Resolves when it listens. */
  start(): Promise<void> {
    this.#startedAt = performance.now()
    const child = fork(this.#file, [], { stdio: ['ignore', 2, 2, 'ipc'] })
    this.child = child
    child.once('exit', () => this.#died())
    const ready = new Promise<void>((resolve, reject) => {
      child.on('message', (message: FromChild) => {
        if (message.type === 'alarm') return this.#onAlarm(message.text)
        this.address = message.address
        this.isReady = true
        resolve()
      })
      child.once('exit', (code, signal) => reject(new Error(`it ended with ${signal ?? code} before it was ready`)))
    })
    // One that comes again listens where it was.
    child.send({ ...this.settings, listen: this.address === '' ? this.settings.listen : this.address } satisfies ChildSettings)
    return ready
  }

  async end(): Promise<void> {
    this.#isEnding = true
    clearTimeout(this.#timer)
    const { child } = this
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
    // A process that was stopped hears nothing before it goes on.
    child.kill('SIGCONT')
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), endMs)
    await gone
    clearTimeout(timer)
  }

  #died(): void {
    if (this.#isEnding) return
    this.deaths++
    this.isReady = false
    this.#soon = performance.now() - this.#startedAt < soonMs ? this.#soon + 1 : 0
    const waitMs = Math.min(pauseMs * 2 ** this.#soon, pauseMsMax)
    this.#timer = setTimeout(
      () => void this.start().catch((error: unknown) => this.#onAlarm(`${this.settings.name}: ${String(error)}`)),
      waitMs,
    )
  }
}

/**
 * Starts storage servers and proxies, and resolves when all of them listen.
 * @throws KvError UNAVAILABLE when they are not ready in time
 * @example await using cluster = await startDev({ memory: true }); const kv = await connect(cluster.url)
 */
export async function startDev(options: DevOptions = {}): Promise<DevCluster> {
  const {
    zones = 3,
    proxies: proxyCount = 2,
    shards = 64,
    memory = false,
    durability = 'fsync',
    port = 0,
    policy,
    onAlarm = () => undefined,
  } = options
  const file = options.childFile ?? fileURLToPath(new URL('child-main.js', import.meta.url))
  const dir = options.dir === undefined ? mkdtempSync(join(tmpdir(), 'hapax-dev-')) : resolve(options.dir)
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const common = { cluster: 'dev', zones, shards, map: join(dir, 'map.json') } as const
  const kept = [
    ...Array.from({ length: zones }, (_, zone): ChildSettings => {
      const name = `storage-${zone + 1}`
      return { ...common, role: 'storage', name, zone, durability, listen: '127.0.0.1:0', dir: memory ? undefined : join(dir, name) }
    }),
    ...Array.from({ length: proxyCount }, (_, index): ChildSettings => {
      return { ...common, role: 'proxy', name: `proxy-${index + 1}`, listen: `127.0.0.1:${port === 0 ? 0 : port + index}`, policy }
    }),
  ].map((settings) => new Kept(settings, file, onAlarm))
  const storage = kept.filter(({ settings }) => settings.role === 'storage')
  const proxies = kept.filter(({ settings }) => settings.role === 'proxy')

  const close = async (): Promise<void> => {
    await Promise.all(proxies.map((one) => one.end()))
    await Promise.all(storage.map((one) => one.end()))
    if (options.dir === undefined) rmSync(dir, { recursive: true, force: true })
  }
  let timer: NodeJS.Timeout | undefined
  try {
    const late = new Promise<never>((_, reject) => (timer = setTimeout(() => reject(new Error(`not ready within ${startMs} ms`)), startMs)))
    await Promise.race([Promise.all(kept.map((one) => one.start())), late])
  } catch (cause) {
    await close()
    throw new KvError('UNAVAILABLE', { message: 'the cluster did not start', hint: 'look at what its processes wrote to stderr', cause })
  } finally {
    clearTimeout(timer)
  }
  const url = `hapax://${proxies.map(({ address }) => address).join(',')}`
  return {
    url,
    get processes() {
      return kept.map(({ settings, child, address, isReady }) => ({
        role: settings.role,
        name: settings.name,
        zone: settings.role === 'storage' ? settings.zone : undefined,
        pid: child?.pid ?? 0,
        address,
        isReady,
      }))
    },
    get restarts() {
      return kept.reduce((sum, { deaths }) => sum + deaths, 0)
    },
    signal(name, signal) {
      const one = kept.find(({ settings }) => settings.name === name)
      if (one === undefined)
        throw new KvError('INVALID_ARGUMENT', {
          message: `there is no process '${name}'`,
          hint: kept.map(({ settings }) => settings.name).join(', '),
        })
      one.child?.kill(signal)
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}
