/**
 * The supervisor: starts the bank, the warehouse and the shop as processes of their own, brings back what dies, and keeps the public address.
 * Invariant: when this process ends, however it ends, they end too; at a clean end no file of ours is left
 * unless DATA_DIR asked for it. Why the address is kept here: a shop that was killed must be able to come back behind it.
 *
 * `--cluster`: the shop keeps its data in a cluster of storage servers and proxies, processes too (cluster.ts).
 * PORT (default 7080; 0: any free one), DATA_DIR (default: a temporary directory, removed at the end), LEASE, BANK_DELAY_MS, WAREHOUSE_DELAY_MS.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { mkdtemp, mkdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { FromChild, ToBank } from './channel.ts'
import { openCluster, type Cluster } from './cluster.ts'
import { openFront, type Front } from './front.ts'

const limits = {
  /** A child that dies this soon after its start has something wrong with it: the next start waits. */
  quickDeathMs: 1_000,
  /** The first wait, doubled with each quick death up to the last. The first restart is always at once. */
  backoffMsMin: 100,
  backoffMsMax: 5_000,
  /** So many quick deaths one after another: it will not come up. */
  quickDeathsMax: 8,
  /** How long a child may take to finish when it was asked to. */
  closeMsMax: 3_000,
  /** How often to look whether the shell that npm put between is still there. */
  parentEveryMs: 300,
} as const

/** A child that is brought back when it dies. */
class Kept {
  readonly name: 'bank' | 'warehouse' | 'shop'
  /** Where it listens; undefined while it is not up. */
  port: number | undefined
  /** Where it listened last: whoever talks to it finds it there again. */
  lastPort = 0
  readonly #env: () => NodeJS.ProcessEnv
  readonly #onMessage: (message: FromChild) => void
  readonly #giveUp: (reason: string) => void
  #child: ChildProcess | undefined
  #quickDeaths = 0
  #closing = false
  #restart: NodeJS.Timeout | undefined

  constructor(name: Kept['name'], env: () => NodeJS.ProcessEnv, onMessage: (message: FromChild) => void, giveUp: (reason: string) => void) {
    this.name = name
    this.#env = env
    this.#onMessage = onMessage
    this.#giveUp = giveUp
  }

  /** Starts it. @returns once it listens. */
  start(): Promise<void> {
    return new Promise((started) => {
      const bornMs = performance.now()
      const file = fileURLToPath(new URL(`${this.name}.js`, import.meta.url))
      // stdout belongs to the supervisor: what a child prints is for people who look at stderr.
      const child = fork(file, [], { env: { ...process.env, ...this.#env(), SUPERVISED: 'yes' }, stdio: ['ignore', 2, 2, 'ipc'] })
      this.#child = child
      child.on('message', (message: FromChild) => {
        if (message.type === 'ready') {
          this.port = message.port
          this.lastPort = message.port
          started()
        }
        this.#onMessage(message)
      })
      child.on('exit', (code, signal) => {
        this.port = undefined
        this.#child = undefined
        if (this.#closing) return
        const quick = performance.now() - bornMs < limits.quickDeathMs
        this.#quickDeaths = quick ? this.#quickDeaths + 1 : 0
        this.#log(`the ${this.name} died`, signal ?? `exit code ${code}`)
        if (this.#quickDeaths >= limits.quickDeathsMax) {
          this.#giveUp(`the ${this.name} does not come up: it ended ${this.#quickDeaths} times within a second of its start`)
          return
        }
        const delayMs = this.#quickDeaths === 0 ? 0 : Math.min(limits.backoffMsMin * 2 ** this.#quickDeaths, limits.backoffMsMax)
        this.#restart = setTimeout(() => void this.start().then(() => this.#log(`the ${this.name} is back`)), delayMs)
      })
    })
  }

  #log(what: string, detail?: string): void {
    const more = detail === undefined ? {} : { detail }
    this.#onMessage({ type: 'event', event: { at: Date.now(), from: 'supervisor', what, ...more, code: 'examples/payments/main.ts' } })
  }

  tell(message: ToBank): void {
    this.#child?.send(message)
  }

  /** As a crash does: at once, and nothing is finished. @returns whether there was anything to kill. */
  kill(): boolean {
    return this.#child?.kill('SIGKILL') ?? false
  }

  /** From now on it may die. */
  letGo(): void {
    this.#closing = true
    clearTimeout(this.#restart)
  }

  /** Lets it finish, for a while. */
  async close(): Promise<void> {
    this.letGo()
    const child = this.#child
    if (!child) return
    const ended = new Promise((resolveEnded) => child.once('exit', resolveEnded))
    if (child.connected) child.disconnect()
    const patience = setTimeout(() => child.kill('SIGKILL'), limits.closeMsMax)
    await ended
    clearTimeout(patience)
  }
}

function asked(): { readonly cluster: boolean } {
  try {
    return parseArgs({ options: { cluster: { type: 'boolean', default: false } } }).values
  } catch (error) {
    console.error(`${(error as Error).message}\nnpm start -- [--cluster]`)
    process.exit(2)
  }
}

async function main(): Promise<void> {
  const { cluster: isClustered } = asked()
  const port = Number(process.env.PORT ?? 7080)
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw new Error(`PORT must be a number from 0 to 65535, not '${process.env.PORT}'`)
  const given = process.env.DATA_DIR
  const dir = given ? resolve(given) : await mkdtemp(join(tmpdir(), 'hapax-shop-'))
  await mkdir(dir, { recursive: true })

  let front: Front | undefined
  let cluster: Cluster | undefined
  let ending: Promise<void> | undefined
  const end = (code: number, reason?: string): void => {
    if (reason !== undefined) console.error(reason)
    process.exitCode = code
    if (ending) {
      // Asked twice: no more patience.
      for (const one of [shop, bank, warehouse]) one.kill()
      return
    }
    ending = (async () => {
      for (const one of [shop, bank, warehouse]) one.letGo()
      await front?.close()
      await shop.close()
      await bank.close()
      await warehouse.close()
      await cluster?.close()
      if (!given) await rm(dir, { recursive: true, force: true })
      process.exit()
    })()
  }
  const onMessage = (message: FromChild): void => {
    if (message.type === 'event') front?.log(message.event)
    if (message.type === 'holding') shop.kill()
  }
  const bank = new Kept(
    'bank',
    () => ({ DATA_DIR: dir, BANK_PORT: String(bank.lastPort), BANK_DELAY_MS: process.env.BANK_DELAY_MS ?? '120' }),
    onMessage,
    (reason) => end(1, reason),
  )
  const warehouse = new Kept(
    'warehouse',
    () => ({ WAREHOUSE_PORT: String(warehouse.lastPort), WAREHOUSE_DELAY_MS: process.env.WAREHOUSE_DELAY_MS ?? '150' }),
    onMessage,
    (reason) => end(1, reason),
  )
  const shop = new Kept(
    'shop',
    () => ({ DATA_DIR: dir, BANK_PORT: String(bank.lastPort), WAREHOUSE_PORT: String(warehouse.lastPort), HAPAX_URL: cluster?.url }),
    onMessage,
    (reason) => end(1, reason),
  )
  process.on('SIGINT', () => end(0))
  process.on('SIGTERM', () => end(0))
  if (process.env.npm_lifecycle_event !== undefined) {
    // The shell between npm and us dies of a signal without passing it on; then we are somebody else's child.
    const parent = process.ppid
    setInterval(() => process.ppid !== parent && end(0), limits.parentEveryMs).unref()
  }

  try {
    front = await openFront({ port, shop, bank, warehouse, cluster: () => cluster })
  } catch (error) {
    return end(
      1,
      (error as NodeJS.ErrnoException).code === 'EADDRINUSE' ? `port ${port} is in use; give another one with PORT=` : String(error),
    )
  }
  try {
    if (isClustered) cluster = await openCluster(dir, (event) => front?.log(event))
  } catch (error) {
    return end(1, String(error))
  }
  await Promise.all([bank.start(), warehouse.start()])
  await shop.start()
  if (ending) return
  const url = `http://127.0.0.1:${front.port}`
  console.log(`The shop is open${cluster === undefined ? '' : `, its data in ${cluster.members().length} processes at ${cluster.url}`}. Press Pay twice, or kill it in the middle of a charge:

${url}

Next, in another terminal (twice: the second answer is a replay, the bank is asked once):

curl -i ${url}/payments -H 'Authorization: Bearer ada' -H 'Idempotency-Key: "first"' -H 'Content-Type: application/json' -d '{"order":"1001","amount":2990}'
`)
}

await main()
