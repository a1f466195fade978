/**
 * Canaries: secrets that are known again, put where secrets of a cluster are. Real processes of `hapax serve` are given all of them, and all that
 * can be seen of the processes is searched: arguments, environment, what they print and log at the lowest level, their windows, and the errors
 * of clients (W14). The times of peers, as settings say them, are tried at the same processes.
 * Why bundles: the processes are those of the sources.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { stop } from 'esbuild'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { epochMs } from '../../core/base/types.ts'
import { connect } from '../../core/client/client.ts'
import { isKvError } from '../../core/kv/errors.ts'
import type { KV } from '../../core/kv/kv.ts'
import { initAuthority, issueInFolder } from '../edge/certificates.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
/** 32 bytes each. */
const ringKey = Buffer.from('canary-in-the-ring-of-32-bytes!!')
const otherRingKey = Buffer.from('canary-in-the-other-ring-of-32b!')
const canaries: Record<string, Buffer> = {
  'the key of the ring': ringKey,
  'the key of another ring': otherRingKey,
  'a key': Buffer.from('canary-in-a-key'),
  'a value': Buffer.from('canary-in-a-value'),
  'a request id': Buffer.from('canary-in-a-request-id'),
  'a password': Buffer.from('canary-in-a-password'),
}
const bytesOf = (canary: string): Uint8Array => Uint8Array.from(canaries[canary] as Buffer)
const textOf = (canary: string): string => (canaries[canary] as Buffer).toString()

/** Which canaries are in a text, as they are, in hexadecimal digits, or in base64 wherever it began. */
function found(text: string): readonly string[] {
  const lower = text.toLowerCase()
  return Object.entries(canaries).flatMap(([name, bytes]) => {
    const base64 = [0, 1, 2].map((before) =>
      Buffer.concat([Buffer.alloc(before), bytes])
        .toString('base64')
        .slice(4, -4),
    )
    const isThere = text.includes(bytes.toString()) || lower.includes(bytes.toString('hex')) || base64.some((part) => text.includes(part))
    return isThere ? [name] : []
  })
}

interface Served {
  readonly child: ChildProcess
  /** All that it printed. */
  said(): string
  /** The first line of its stdout. */
  readonly told: { readonly address: string; readonly admin: string; readonly processes?: readonly { readonly pid: number }[] }
}
let folder: string
const at = (...path: string[]): string => join(folder, ...path)
const children: ChildProcess[] = []
const fixed = { cluster: 'shop', zones: '1', shards: '4', 'log-level': 'debug', output: 'json' }

function spawned(role: string, flags: Readonly<Record<string, string>>, env: Readonly<Record<string, string>> = {}) {
  const args = Object.entries({ ...fixed, ...flags }).flatMap(([name, value]) => [`--${name}`, value])
  const child = spawn(process.execPath, [at('run/hapax.mjs'), 'serve', role, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'], ...env },
  })
  children.push(child)
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes: Buffer) => (said += bytes.toString()))
  return { child, said: () => said }
}
async function until<T>(look: () => T | Promise<T>): Promise<Exclude<T, false | undefined>> {
  for (;;) {
    const seen = await look()
    if (seen !== false && seen !== undefined) return seen as Exclude<T, false | undefined>
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
async function served(role: string, flags: Readonly<Record<string, string>>): Promise<Served> {
  const { child, said } = spawned(role, flags)
  const line = await until(() => (child.exitCode === null ? /^\{"ok":true.*$/m.exec(said())?.[0] : expect.unreachable(said())))
  const told = JSON.parse(line) as Served['told']
  await until(async () => (await fetch(`http://${told.admin}/readyz`)).ok)
  return { child, said, told }
}
const certificateOf = (role: string, name: string) => ({
  name,
  'map-file': at('map.json'),
  'tls-ca': at('certs/ca.crt'),
  'tls-cert': at(`certs/${role}-${name}.crt`),
  'tls-key': at(`certs/${role}-${name}.key`),
})
const proxyFlags = (name: string, keys: string) => ({ ...certificateOf('proxy', name), policy: at('policy.toml'), keys: at(keys) })
const client = () => ({ ca: at('certs/ca.crt'), cert: at('certs/client-payments.crt'), key: at('certs/client-payments.key') })

let storage: Served
/** Two processes, under one that keeps them. */
let proxies: Served
/** With another ring. */
let stranger: Served
beforeAll(async () => {
  mkdirSync(join(root, '.cache'), { recursive: true })
  folder = mkdtempSync(join(root, '.cache/canary-'))
  const { bundle } = (await import(new URL('../../tools/sim.mjs', import.meta.url).href)) as {
    bundle: (entry: string, outfile: string) => Promise<void>
  }
  await bundle('server/cli/main.ts', at('run/hapax.mjs'))
  await bundle('server/run/child-main.ts', at('run/child-main.js'))
  await stop()
  const now = epochMs(Date.now())
  await initAuthority(at('certs'), 'shop', now)
  await issueInFolder(at('certs'), { role: 'storage', name: 's1', hosts: ['127.0.0.1'] }, now)
  for (const name of ['p1', 'p2']) await issueInFolder(at('certs'), { role: 'proxy', name, hosts: ['127.0.0.1'] }, now)
  await issueInFolder(at('certs'), { role: 'client', name: 'payments', hosts: [] }, now)
  for (const owner of ['storage-s1', 'proxy-p1', 'client-payments']) {
    const pem = readFileSync(at(`certs/${owner}.key`), 'utf8')
    // Of its base64, a piece in the middle of a line, where the secret itself is.
    canaries[`the key of ${owner}`] = Buffer.from(pem.split('\n')[1]?.slice(8, 56) ?? '')
  }
  writeFileSync(at('keys'), `1 ${ringKey.toString('hex')}\n`, { mode: 0o600 })
  writeFileSync(at('other-keys'), `2 ${otherRingKey.toString('hex')}\n`, { mode: 0o600 })
  writeFileSync(
    at('policy.toml'),
    '[[rule]]\nclients = ["payments"]\nnamespaces = ["pay"]\n[[namespace]]\nname = "*"\nkey-bytes-max = 64\n',
  )
  storage = await served('storage', { ...certificateOf('storage', 's1'), zone: '1', data: at('s1') })
  const times = { 'timeouts-handshake': '300ms', 'timeouts-read': '300ms' }
  proxies = await served('proxy', { ...proxyFlags('p1', 'keys'), ...times, processes: '2' })
  stranger = await served('proxy', { ...proxyFlags('p2', 'other-keys'), 'keys-retired': '1' })
}, 60_000)
afterAll(async () => {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    const gone = once(child, 'exit')
    // A parent ends its children first, when it is asked to.
    child.kill('SIGTERM')
    await gone
  }
  rmSync(folder, { recursive: true, force: true })
}, 30_000)

/** All that there is of an error. */
function told(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { message, stack, cause } = error
  return [message, stack, isKvError(error) ? [error.hint, JSON.stringify(error)] : '', cause === undefined ? '' : told(cause)].join('\n')
}
async function errorOf(promise: Promise<unknown>): Promise<{ readonly code: string; readonly text: string }> {
  try {
    await promise
  } catch (error) {
    return { code: isKvError(error) ? error.code : 'none', text: told(error) }
  }
  return expect.unreachable('it was allowed')
}
const kvOf = (address: string, namespace = 'pay'): Promise<KV & AsyncDisposable> =>
  connect(`hapax://${address}/${namespace}`, { tls: client() })

test('a canary is found wherever it is, and however it is written', () => {
  for (const [name, bytes] of Object.entries(canaries)) {
    expect(found(`x${bytes.toString()}x`)).toContain(name)
    expect(found(`x${bytes.toString('hex').toUpperCase()}x`)).toContain(name)
    for (const before of [0, 1, 2]) expect(found(Buffer.concat([Buffer.alloc(before, 65), bytes]).toString('base64'))).toContain(name)
  }
  expect(found('nothing of all that')).toEqual([])
})

test('keys, values and request ids are in no error of a client', async () => {
  const [key, value, requestId] = [textOf('a key'), bytesOf('a value'), textOf('a request id')]
  const kv = await kvOf(proxies.told.address)
  const foreign = await kvOf(stranger.told.address)
  const elsewhere = await kvOf(proxies.told.address, 'other')
  const made = await kv.create(key, value, { requestId })
  expect(made).toMatchObject({ ok: true })
  expect(Buffer.from((await kv.get(key)).entry?.value ?? []).equals(value)).toBe(true)
  const errors = {
    TOO_LARGE: await errorOf(kv.set(key.repeat(9), value)),
    FORBIDDEN: await errorOf(elsewhere.get(key)),
    DAMAGED: await errorOf(foreign.get(key)),
    REQUEST_ID_REUSED: await errorOf(kv.set(key, value, { requestId })),
    INVALID_ARGUMENT: await errorOf(kv.set(`${key}\ud800`, value)),
  }
  for (const [code, error] of Object.entries(errors)) {
    expect(error.code).toBe(code)
    expect(found(error.text), error.text).toEqual([])
  }
  for (const one of [kv, foreign, elsewhere]) await one.close()
})

test('what makes no sense to a proxy is not repeated by it', async () => {
  const { ca, cert, key } = client()
  const tls = { ca: readFileSync(ca), cert: readFileSync(cert), key: readFileSync(key), servername: 'localhost' }
  const port = Number(proxies.told.address.split(':')[1])
  for (const bytes of [...Object.values(canaries), Buffer.concat([Buffer.from('5050014000001000', 'hex'), bytesOf('a value')])]) {
    const socket = connectTls({ port, host: '127.0.0.1', ...tls, checkServerIdentity: () => undefined }).on('error', () => undefined)
    socket.resume().write(bytes)
    // The last one looks like a message, of which the rest never comes: settings say for how long.
    await new Promise((resolve) => socket.once('close', resolve))
  }
})

test('whoever says nothing is closed in the time of a handshake that settings say', async () => {
  const socket: Socket = createConnection({ port: Number(proxies.told.address.split(':')[1]), host: '127.0.0.1' })
  await once(socket.on('error', () => undefined).resume(), 'close')
})

test.each<[string, string, () => Readonly<Record<string, string>>]>([
  ['the ring itself instead of its file', 'keys names cannot be read (ENOENT)', () => ({ HAPAX_KEYS: `1 ${ringKey.toString('hex')}` })],
  [
    'the key of a certificate instead of its file',
    'a PEM stands where',
    () => ({ HAPAX_TLS_KEY: readFileSync(at('certs/proxy-p1.key'), 'utf8') }),
  ],
  ['a key that is none', 'holds no private key', () => ({ HAPAX_TLS_KEY: at('bad-ring') })],
  ['a ring with a line that is none', 'line 1 of the key file', () => ({ HAPAX_KEYS: at('bad-ring') })],
  ['a ring that others may read', 'can be read by others', () => ({ HAPAX_KEYS: at('open-ring') })],
  ['its ring as a policy', 'the policy cannot be read', () => ({ HAPAX_POLICY: at('keys'), HAPAX_MAP_FILE: at('new-map.json') })],
  [
    'a password instead of its file',
    'map.password-file names cannot be read',
    () => ({
      HAPAX_MAP_PASSWORD_FILE: textOf('a password'),
      HAPAX_MAP_USER: 'u',
      HAPAX_MAP_ETCD: 'http://127.0.0.1:9',
      HAPAX_MAP_FILE: '',
    }),
  ],
])('a proxy that is given %s does not start, and says so without it', async (_, why, variables) => {
  writeFileSync(at('bad-ring'), `1 ${ringKey.toString('hex')}00\n${ringKey.toString('hex')}\n`, { mode: 0o600 })
  writeFileSync(at('open-ring'), `1 ${ringKey.toString('hex')}\n`, { mode: 0o644 })
  const env: Record<string, string> = { ...variables() }
  const isOwn = (flag: string): boolean => env[`HAPAX_${flag.replaceAll('-', '_').toUpperCase()}`] === undefined
  const flags = Object.fromEntries(Object.entries(proxyFlags('p1', 'keys')).filter(([flag]) => isOwn(flag)))
  for (const [name, value] of Object.entries(env)) if (value === '') delete env[name]
  const { child, said } = spawned('proxy', flags, env)
  await once(child, 'close')
  expect(child.exitCode, said()).toBe(2)
  expect(said()).toContain(why)
  expect(found(said()), said()).toEqual([])
})

test('a ring that is exchanged for none is told without what is in it', async () => {
  const before = stranger.said().length
  writeFileSync(at('other-keys'), `2 ${otherRingKey.toString('hex')} and more\n`, { mode: 0o600 })
  const alarm = await until(() => /^.*"event":"alarm".*$/m.exec(stranger.said().slice(before))?.[0])
  expect(alarm).toContain('line 1 of the key file')
  expect(found(alarm)).toEqual([])
})

test('no canary is in the arguments, the environment, the output or the window of any process', async () => {
  const all = { storage, proxies, stranger }
  const pids = Object.values(all).flatMap(({ child, told: { processes = [] } }) => [child.pid, ...processes.map(({ pid }) => pid)])
  expect(pids).toHaveLength(5)
  // Where there is no /proc the shell of whoever looks would be searched instead.
  for (const pid of process.platform === 'linux' ? pids : []) {
    const [argv, environ] = ['cmdline', 'environ'].map((name) => readFileSync(`/proc/${pid}/${name}`, 'utf8'))
    expect(argv).toMatch(/hapax|child-main/)
    expect([found(argv ?? ''), found(environ ?? '')]).toEqual([[], []])
  }
  for (const [name, { said, told: line }] of Object.entries(all)) {
    expect(said(), name).toContain('"event":"ready"')
    expect(found(said()), name).toEqual([])
    for (const path of ['/status', '/metrics', '/readyz', '/livez'])
      expect(found(await (await fetch(`http://${line.admin}${path}`)).text()), `${name} ${path}`).toEqual([])
  }
})
