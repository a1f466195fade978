/**
 * Starts the built example as a user does, for tests: with a free port, an empty HOME and a temporary folder of its own.
 * Invariant: `end` leaves no process and no file; what the example itself left behind is in the report.
 * Why the environment tells whose a process is: children of a killed parent have another parent, but still this TMPDIR.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtempSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../../..', import.meta.url))

export interface StartedShop {
  readonly url: string
  readonly port: number
  readonly output: () => string
  /** To every process but the supervisor, as a terminal and a service manager do. */
  signalChildren(signal: NodeJS.Signals): void
  /** As a crash of the bank. */
  killBank(): void
  /** Waits for the end after a signal. */
  end(signal: NodeJS.Signals): Promise<{ readonly code: number | null; readonly filesLeft: string[]; readonly processesLeft: number[] }>
}

/** Builds what is not built yet. Two test files may do so at once: the loser of that race finds it built. */
export function build(): void {
  const run = () => spawnSync(process.execPath, ['tools/build.mjs'], { cwd: root, encoding: 'utf8' })
  if (run().status === 0) return
  const built = run()
  if (built.status !== 0) throw new Error(`the build failed:\n${built.stdout}${built.stderr}`)
}

export async function startShop(env: NodeJS.ProcessEnv = {}, command: readonly string[] = ['dist/examples/payments/main.js'], cwd = root): Promise<StartedShop> {
  const folder = mkdtempSync(join(tmpdir(), 'hapax-test-'))
  const [home, tmp] = [join(folder, 'home'), join(folder, 'tmp')]
  mkdirSync(home)
  mkdirSync(tmp)
  const child = spawn(process.execPath, command, { cwd, env: { ...process.env, PORT: '0', HOME: home, TMPDIR: tmp, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const gone = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const output = collect(child)
  const url = await Promise.race([
    firstUrl(child, output),
    gone.then((code) => {
      throw new Error(`the example ended with ${code}:\n${output()}`)
    }),
  ]).catch((error: unknown) => {
    rmSync(folder, { recursive: true, force: true })
    throw error
  })
  return {
    url,
    port: Number(new URL(url).port),
    output,
    signalChildren(signal) {
      for (const pid of living(tmp)) if (pid !== child.pid) process.kill(pid, signal)
    },
    killBank() {
      for (const pid of living(tmp, 'payments/bank.js')) process.kill(pid, 'SIGKILL')
    },
    async end(signal) {
      child.kill(signal)
      const code = await gone
      // Where node_modules cannot be written, the store keeps its verdict on the engine's binary beside: on purpose, for the next start.
      const filesLeft = readdirSync(tmp, { recursive: true }).map(String).filter((name) => !/^hapax-(\d+|user)(\/|$)/.test(name))
      const processesLeft = await processesOf(tmp)
      for (const pid of processesLeft) process.kill(pid, 'SIGKILL')
      rmSync(folder, { recursive: true, force: true })
      return { code, filesLeft, processesLeft }
    },
  }
}

function collect(child: ChildProcess): () => string {
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (chunk: string) => (text = (text + chunk).slice(-20_000)))
  return () => text
}

function firstUrl(child: ChildProcess, output: () => string): Promise<string> {
  return new Promise((resolve) =>
    child.stdout?.on('data', () => {
      const line = /^http:\/\/127\.0\.0\.1:\d+$/m.exec(output())
      if (line) resolve(line[0])
    }),
  )
}

/** Living processes with this TMPDIR, and this file of the example if one is named. Linux alone can say; elsewhere none. */
function living(tmp: string, file = ''): number[] {
  if (process.platform !== 'linux') return []
  const read = (pid: string, what: string): string => readFileSync(`/proc/${pid}/${what}`, 'latin1')
  return readdirSync('/proc')
    .filter((name) => {
      try {
        return (
          /^\d+$/.test(name) &&
          read(name, 'environ').includes(`TMPDIR=${tmp}\0`) &&
          read(name, 'cmdline').includes(file) &&
          !/^State:\s+Z/m.test(read(name, 'status'))
        )
      } catch {
        return false // gone, or somebody else's
      }
    })
    .map(Number)
}

/** Those that are still there after a grace, in twentieths of a second. */
export async function processesOf(tmp: string, grace = 60): Promise<number[]> {
  for (let waits = 0; ; waits += 1) {
    const left = living(tmp)
    if (left.length === 0 || waits >= grace) return left
    await new Promise((wake) => setTimeout(wake, 50))
  }
}

/** Sends JSON as the customer `ada`. A connection that breaks is `undefined`. */
export async function post(url: string, key: string, body: unknown): Promise<{ status: number; headers: Headers; text: string } | undefined> {
  try {
    const answer = await fetch(url, {
      method: 'POST',
      headers: { authorization: 'Bearer ada', 'content-type': 'application/json', 'idempotency-key': `"${key}"` },
      body: JSON.stringify(body),
    })
    return { status: answer.status, headers: answer.headers, text: await answer.text() }
  } catch {
    return undefined
  }
}

/** The same key again and again, as long as the answer is "not now". */
export async function postUntilAnswered(url: string, key: string, body: unknown): Promise<{ status: number; headers: Headers; text: string }> {
  for (let attempt = 0; attempt < 300; attempt += 1) {
    const answer = await post(url, key, body)
    if (answer && answer.status !== 503 && !(answer.status === 409 && answer.headers.has('retry-after'))) return answer
    await new Promise((wake) => setTimeout(wake, 100))
  }
  throw new Error(`no answer to ${url} with ${key}`)
}

export const ledgerOf = async (url: string, reference: string): Promise<{ charges: number; sum: number; booked: number; asked: number }> =>
  (await (await fetch(`${url}/demo/ledger?reference=${reference}`)).json()) as { charges: number; sum: number; booked: number; asked: number }
