/**
 * Keeps children: starts them, brings back the ones that die, and ends all.
 * Invariant: a child that dies comes back where it was, after a pause that doubles with each death that follows soon; when this process ends,
 * however it ends, all of them do. One that cannot even begin the first time is no reason to try for ever: nothing is started then.
 * Why a port is shared by node:cluster and not by SO_REUSEPORT: Node has `reusePort` from 22.12 on, and this runs on 20; and while a child is
 * away the parent gives its share of new connections to the others, where the kernel would still queue them at a socket that nobody reads.
 * The parent touches a connection once, when it comes; a client's lives for hours.
 */
import cluster from 'node:cluster'
import { fork, type ChildProcess } from 'node:child_process'
import { isKvError, KvError } from '../../core/kv/errors.ts'
import { parseAddress } from '../../core/net/address.ts'
import { AdminServer } from '../edge/admin.ts'
import { Meter } from '../edge/meter.ts'
import type { ChildSettings, FromChild } from './child.ts'
import type { Log } from './log.ts'

/** `starting`: it does not listen yet. `listening`: it does, and waits for what it needs of others. `waiting`: it died, and comes back. */
export type ChildState = 'starting' | 'listening' | 'ready' | 'waiting' | 'ended'

export interface ChildSpec {
  readonly name: string
  readonly settings: ChildSettings
  /** Children with one shared port; nobody else may have it. */
  readonly sharesPort?: boolean
  /** The others wait for it at the beginning, and it waits for them at the end: an etcd. */
  readonly isBelow?: boolean
}

/** How long all may take until they listen, and each to end, in milliseconds. A proxy drains for up to 10 s. */
const startMs = 20_000
const endMs = 15_000
const pauseMs = 50
const pauseMsMax = 5_000
const soonMs = 5_000

export class Child {
  readonly spec: ChildSpec
  readonly #file: string
  readonly #log: Log
  readonly #onAlarm: (text: string) => void
  #process: ChildProcess | undefined
  /** Where it listens, from the first time on. */
  address = ''
  admin: string | undefined
  state: ChildState = 'starting'
  /** Why it is not ready, as it says itself. */
  why: string | undefined
  restarts = 0
  /** Of what does the work: an etcd has a process of ours above it. */
  #pid = 0
  #soon = 0
  #startedAt = 0
  #timer: NodeJS.Timeout | undefined
  #isEnding = false

  constructor(spec: ChildSpec, file: string, log: Log, onAlarm: (text: string) => void) {
    this.spec = spec
    this.#file = file
    this.#log = log
    this.#onAlarm = onAlarm
  }

  get pid(): number {
    return this.#pid
  }
  get status(): object {
    const { settings } = this.spec
    const { state, pid, restarts, address, admin, why } = this
    return { role: settings.role, name: this.spec.name, state, pid, restarts, address, admin, why }
  }

  /** Resolves when it listens. @throws KvError as it says why it cannot, or UNAVAILABLE when it just ended */
  start(): Promise<void> {
    this.#startedAt = performance.now()
    this.state = 'starting'
    const child = this.#fork()
    this.#process = child
    this.#pid = child.pid ?? 0
    child.once('exit', (code, signal) => this.#died(`${signal ?? code}`))
    const listening = new Promise<void>((resolve, reject) => {
      child.on('message', (message: FromChild) => {
        switch (message.type) {
          case 'hello':
            return void child.send(this.#placed())
          case 'alarm':
            return this.#onAlarm(message.text)
          case 'readiness':
            this.why = message.why
            this.state = message.why === undefined ? 'ready' : 'listening'
            return
          case 'refused':
            return reject(new KvError(message.code, { message: `${this.spec.name}: ${message.message}`, hint: message.hint }))
          case 'listening':
            this.address = message.address
            this.admin = message.admin
            this.#pid = message.pid
            if (this.state === 'starting') this.state = 'listening'
            this.#log.info('child-ready', { child: this.spec.name, childPid: message.pid, address: message.address })
            return resolve()
        }
      })
      child.once('exit', (code, signal) =>
        reject(new KvError('UNAVAILABLE', { message: `${this.spec.name} ended with ${signal ?? code} before it listened` })),
      )
      child.once('error', (cause) => reject(new KvError('UNAVAILABLE', { message: `${this.spec.name} cannot be started`, cause })))
    })
    return listening
  }

  signal(signal: NodeJS.Signals): void {
    if (!this.#isRunning) return
    try {
      process.kill(this.#pid, signal)
    } catch {
      return // it has just ended
    }
  }

  async end(): Promise<void> {
    this.#isEnding = true
    clearTimeout(this.#timer)
    const child = this.#process
    if (child !== undefined && this.#isRunning) {
      const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
      // A process that was stopped hears nothing before it goes on.
      this.signal('SIGCONT')
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), endMs)
      await gone
      clearTimeout(timer)
    }
    this.state = 'ended'
  }

  get #isRunning(): boolean {
    return this.#process !== undefined && this.#process.exitCode === null && this.#process.signalCode === null
  }

  #fork(): ChildProcess {
    const stdio = ['ignore', 2, 2, 'ipc'] as const
    if (this.spec.sharesPort !== true) return fork(this.#file, [], { stdio: [...stdio] })
    cluster.setupPrimary({ exec: this.#file, args: [], stdio: [...stdio] })
    return cluster.fork().process
  }

  /** One that comes again listens where it was. */
  #placed(): ChildSettings {
    const { settings } = this.spec
    if (this.address === '') return settings
    if (settings.role === 'etcd') return { ...settings, address: this.address }
    const listen = { listen: this.address, 'admin.listen': this.admin ?? settings.settings['admin.listen'] }
    return { ...settings, settings: { ...settings.settings, ...listen } }
  }

  #died(how: string): void {
    if (this.#isEnding) return
    const hasListened = this.address !== ''
    this.state = 'waiting'
    this.why = `it ended with ${how}`
    this.#log.warn('child-ended', { child: this.spec.name, what: how })
    // The first start is waited for by whoever asked for it.
    if (!hasListened) return
    this.restarts++
    this.#soon = performance.now() - this.#startedAt < soonMs ? this.#soon + 1 : 0
    const waitMs = Math.min(pauseMs * 2 ** this.#soon, pauseMsMax)
    this.#timer = setTimeout(() => {
      this.#log.info('child-restarts', { child: this.spec.name, restarts: this.restarts, waitMs })
      this.start().catch((error: unknown) => this.#onAlarm(error instanceof Error ? error.message : String(error)))
    }, waitMs)
  }
}

export interface SupervisorOptions {
  readonly name: string
  readonly version: string
  readonly children: readonly ChildSpec[]
  /** Of its window, on loopback: `host:port`. */
  readonly admin: string
  /** The file of a child. */
  readonly file: string
  readonly log: Log
  readonly onAlarm: (text: string) => void
}

export interface Supervisor {
  readonly children: readonly Child[]
  /** Of its window. */
  readonly admin: string
  /** How often children were brought back. */
  readonly restarts: number
  /** Ends all, and closes the window. */
  close(): Promise<void>
}

/**
 * Starts children, and resolves when all of them listen.
 * @throws KvError of a child that refuses to start; UNAVAILABLE when they do not listen in time
 */
export async function supervise({
  name,
  version,
  children: specs,
  admin: listen,
  file,
  log,
  onAlarm,
}: SupervisorOptions): Promise<Supervisor> {
  const children = specs.map((spec) => new Child(spec, file, log, onAlarm))
  const below = children.filter(({ spec }) => spec.isBelow === true)
  const proxies = children.filter(({ spec }) => spec.settings.role === 'proxy')
  const storage = children.filter((child) => !below.includes(child) && !proxies.includes(child))
  const restarts = (): number => children.reduce((sum, child) => sum + child.restarts, 0)
  const unready = (): string | undefined => {
    const not = children.filter(({ state }) => state !== 'ready').map((child) => `${child.spec.name} (${child.why ?? child.state})`)
    return not.length === 0 ? undefined : not.join(', ')
  }
  let isDraining = false
  const gauge = (state: ChildState) => () => children.filter((child) => child.state === state).length
  const admin = await AdminServer.open({
    listen: parseAddress(listen),
    meter: new Meter({ role: 'supervisor', version }).with([
      { name: 'hapax_children_ready', help: 'Processes under this one that are ready.', value: gauge('ready') },
      { name: 'hapax_children', help: 'Processes under this one.', value: () => children.length },
      { name: 'hapax_child_restarts', help: 'How often they were brought back.', value: restarts },
    ]),
    live: { 'event-loop': () => undefined },
    ready: { children: unready, draining: () => (isDraining ? 'it is closing' : undefined) },
    status: () => ({
      role: 'supervisor',
      name,
      version,
      pid: process.pid,
      restarts: restarts(),
      children: children.map(({ status }) => status),
    }),
  })
  const close = async (): Promise<void> => {
    isDraining = true
    for (const some of [proxies, storage, below]) await Promise.all(some.map((child) => child.end()))
    await admin.close()
  }
  let timer: NodeJS.Timeout | undefined
  try {
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new KvError('UNAVAILABLE', { message: `not all listened within ${startMs} ms` })), startMs)
    })
    const all = async (): Promise<void> => {
      await Promise.all(below.map((child) => child.start()))
      await Promise.all([...storage, ...proxies].map((child) => child.start()))
    }
    await Promise.race([all(), late])
  } catch (cause) {
    await close()
    if (isKvError(cause) && cause.code !== 'UNAVAILABLE') throw cause
    const why = cause instanceof Error ? cause.message.replace(/^HPX-\d+ /, '') : String(cause)
    throw new KvError('UNAVAILABLE', { message: `the processes did not start: ${why}`, hint: 'look at what they wrote to stderr', cause })
  } finally {
    clearTimeout(timer)
  }
  return {
    children,
    admin: admin.address,
    get restarts() {
      return restarts()
    },
    close,
  }
}
