/**
 * `status`: asks the windows of processes what they are and whether they are ready; a window over several leads to theirs.
 * Invariant: it only reads; a process that does not answer is a line of the table and not an end of it.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Command } from 'commander'
import { invalid } from '../../core/kv/errors.ts'
import { exitCodes, type ExitCode, type Io, type Output } from './output.ts'

/** What `/status` says; which of it, the role decides. */
interface Told {
  readonly role: string
  readonly name: string
  readonly version?: string
  readonly pid?: number
  readonly address?: string
  readonly zone?: number
  readonly shards?: { readonly owned: number; readonly serving: number }
  readonly requests?: number
  readonly waiting?: number
  readonly children?: readonly Child[]
}
interface Child {
  readonly role: string
  readonly name: string
  readonly state: string
  readonly pid: number
  readonly restarts: number
  readonly address: string
  readonly admin?: string
  readonly why?: string
}
interface Row extends Partial<Told> {
  readonly admin?: string | undefined
  readonly isReady: boolean
  /** Checks that do not hold, or why nothing was heard. */
  readonly why?: string | undefined
  readonly state?: string
  readonly restarts?: number
}

const timeoutMs = 3_000
const windowsMax = 256

export function addStatus(program: Command, io: Io, run: (work: (output: Output) => Promise<ExitCode>) => Promise<void>): void {
  program
    .command('status')
    .description('says of each process what it is and whether it is ready; ends with 1 when one is not')
    .option('--admin <url...>', 'the windows of processes, http://host:port; default: HAPAX_ADMIN, with commas between')
    .option('--dev <folder>', 'of the cluster that `dev --data <folder>` runs')
    .action(({ admin = [], dev }: { readonly admin?: readonly string[]; readonly dev?: string }) =>
      run(async (output) => {
        const asked = [...admin.flatMap((text) => text.split(',')), ...(dev === undefined ? [] : [await windowOfDev(dev)])]
        const urls = asked.length === 0 ? (io.env['HAPAX_ADMIN'] ?? '').split(',').filter((text) => text !== '') : asked
        if (urls.length === 0)
          invalid('there is no window to ask', 'give --admin http://127.0.0.1:port, --dev <folder>, or set HAPAX_ADMIN')
        if (urls.length > windowsMax) invalid(`at most ${windowsMax} windows are asked at once`)
        const rows = (await Promise.all(urls.map((url) => rowsOf(url)))).flat()
        const isReady = rows.every((row) => row.isReady)
        output.result(tableOf(rows), { ok: isReady, processes: rows })
        return isReady ? exitCodes.done : exitCodes.failed
      }),
    )
}

async function windowOfDev(folder: string): Promise<string> {
  const path = join(folder, devFile)
  try {
    return (JSON.parse(await readFile(path, 'utf8')) as { readonly admin: string }).admin
  } catch {
    return invalid(`there is no ${path}`, 'it is there while `hapax dev --data` runs')
  }
}
/** What a running `dev --data` leaves in its folder. */
export const devFile = 'dev.json'

async function rowsOf(url: string): Promise<readonly Row[]> {
  const admin = checked(url)
  try {
    const told = (await (await ask(`${admin}/status`)).json()) as Told
    const { children, ...own } = told
    if (children === undefined) return [{ ...own, admin, ...(await readinessOf(admin)) }]
    const below = await Promise.all(
      children.map(async (child): Promise<Row> => {
        const { admin: window, ...known } = child
        if (window === undefined) return { ...known, isReady: known.state === 'ready' }
        const [row] = await rowsOf(`http://${window}`)
        // Names and restarts are the parent's: proxies with one port have one name.
        return { ...row, ...known, isReady: row?.isReady === true, why: row?.why ?? known.why }
      }),
    )
    return below
  } catch (error) {
    return [{ admin, isReady: false, why: reasonOf(error) }]
  }
}

async function readinessOf(admin: string): Promise<{ readonly isReady: boolean; readonly why?: string }> {
  const response = await ask(`${admin}/readyz`)
  const text = await response.text()
  if (response.ok) return { isReady: true }
  const failed = text.split('\n').filter((line) => line.startsWith('FAIL'))
  return { isReady: false, why: failed.map((line) => line.replace(/^FAIL\s+/, '')).join('; ') }
}

const ask = (url: string): Promise<Response> => fetch(url, { signal: AbortSignal.timeout(timeoutMs), redirect: 'error' })

function checked(text: string): string {
  const address = text.includes('://') ? text : `http://${text}`
  if (URL.canParse(address)) {
    const { protocol, origin } = new URL(address)
    if (protocol === 'http:' || protocol === 'https:') return origin
  }
  return invalid(`a window is http://host:port, not '${text}'`, '`serve` and `dev` print it')
}

/** `fetch failed` says nothing; what is below does. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'no answer'
  if (error.name === 'TimeoutError') return `no answer within ${timeoutMs} ms`
  const { cause } = error
  if (!(cause instanceof Error)) return `no answer (${error.message})`
  return `no answer (${'code' in cause ? String(cause.code) : cause.message})`
}

const columns: readonly (readonly [string, (row: Row) => string | number | undefined])[] = [
  ['NAME', ({ name }) => name],
  ['ROLE', ({ role }) => role],
  ['ZONE', ({ zone }) => zone],
  ['READY', ({ isReady }) => (isReady ? 'yes' : 'NO')],
  ['PID', ({ pid }) => pid],
  ['RESTARTS', ({ restarts }) => restarts],
  ['SHARDS', ({ shards }) => (shards === undefined ? undefined : `${shards.serving}/${shards.owned}`)],
  ['REQUESTS', ({ requests }) => requests],
  ['VERSION', ({ version }) => version],
  ['ADDRESS', ({ address, admin }) => address ?? admin],
  ['', ({ why }) => why ?? ''],
]

function tableOf(rows: readonly Row[]): string {
  const lines = [columns.map(([title]) => title), ...rows.map((row) => columns.map(([, of]) => String(of(row) ?? '-')))]
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => line[index]?.length ?? 0)))
  return lines
    .map((line) =>
      line
        .map((cell, index) => cell.padEnd(widths[index] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
